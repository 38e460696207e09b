//! Products of two activations: sums of `(a − zero_point_a) · (b − zero_point_b)`.

use core::arch::x86_64::*;

use super::{Avx2, load, totals, words};

/// Elements of a vector of 16 bits.
const LANES: usize = 16;

impl Avx2 {
    /// The sums of products of `a` with four vectors of its length.
    #[inline(always)]
    pub(in crate::kernels) fn dots(self, a: &[i8], b: [&[i8]; 4], zeros: [i32; 2]) -> [i32; 4] {
        // SAFETY: the core has AVX2.
        unsafe { dots(a, b, zeros) }
    }

    /// `Σ_k (a(k) − zero_point_a) · (b(k) − zero_point_b)` for 16 columns. `None` where `a` or `b` is.
    #[inline(always)]
    pub(in crate::kernels) fn weighted_sum<'b>(
        self,
        depth: usize,
        a: impl Fn(usize) -> Option<i8>,
        b: impl Fn(usize) -> Option<&'b [i8; LANES]>,
        zeros: [i32; 2],
    ) -> Option<[i32; LANES]> {
        // SAFETY: the core has AVX2.
        unsafe { weighted_sum(depth, a, b, zeros) }
    }
}

#[target_feature(enable = "avx2")]
fn dots(a: &[i8], b: [&[i8]; 4], zeros: [i32; 2]) -> [i32; 4] {
    let [a_zero, b_zero] = zeros.map(|zero| _mm256_set1_epi16(zero as i16));
    let (whole, rest) = a.as_chunks::<LANES>();
    let mut acc = [_mm256_setzero_si256(); 4];
    for (i, a) in whole.iter().enumerate() {
        let a = _mm256_sub_epi16(widened(a), a_zero);
        for (acc, b) in acc.iter_mut().zip(b) {
            if let Some(b) = b.as_chunks::<LANES>().0.get(i) {
                *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(a, _mm256_sub_epi16(widened(b), b_zero)));
            }
        }
    }
    let mut sums = words(totals(acc));
    let done = a.len() - rest.len();
    for (sum, b) in sums.iter_mut().zip(b) {
        for (&a, &b) in rest.iter().zip(b.get(done..).unwrap_or_default()) {
            *sum = sum.wrapping_add((i32::from(a) - zeros[0]).wrapping_mul(i32::from(b) - zeros[1]));
        }
    }
    sums
}

#[target_feature(enable = "avx2")]
fn weighted_sum<'b>(
    depth: usize,
    a: impl Fn(usize) -> Option<i8>,
    b: impl Fn(usize) -> Option<&'b [i8; LANES]>,
    zeros: [i32; 2],
) -> Option<[i32; LANES]> {
    let b_zero = _mm256_set1_epi16(zeros[1] as i16);
    let weight = |k: usize| a(k).map(|a| i32::from(a) - zeros[0]);
    let mut acc = [_mm256_setzero_si256(); 2];
    for k in (0..depth).step_by(2) {
        let first = _mm256_sub_epi16(widened(b(k)?), b_zero);
        let (second, high) = match k + 1 < depth {
            true => (_mm256_sub_epi16(widened(b(k + 1)?), b_zero), weight(k + 1)?),
            false => (_mm256_setzero_si256(), 0),
        };
        let weights = _mm256_set1_epi32(weight(k)? & 0xFFFF | high << 16);
        let low = _mm256_madd_epi16(_mm256_unpacklo_epi16(first, second), weights);
        let high = _mm256_madd_epi16(_mm256_unpackhi_epi16(first, second), weights);
        acc = [_mm256_add_epi32(acc[0], low), _mm256_add_epi32(acc[1], high)];
    }
    // Columns 0 to 3 and 8 to 11, and 4 to 7 and 12 to 15.
    let mut sums = [0; LANES];
    let (quads, _) = sums.as_chunks_mut::<4>();
    let halves = acc.map(|acc| [words(_mm256_castsi256_si128(acc)), words(_mm256_extracti128_si256::<1>(acc))]);
    for (quad, values) in quads.iter_mut().zip([halves[0][0], halves[1][0], halves[0][1], halves[1][1]]) {
        *quad = values;
    }
    Some(sums)
}

/// Sixteen bytes as numbers of 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn widened(bytes: &[i8; LANES]) -> __m256i {
    _mm256_cvtepi8_epi16(load(bytes))
}
