//! Powers of two and their shares: what a softmax is made of. The same arithmetic as [`crate::kernels::fixed::exp2_neg`] and
//! the portable softmax, four elements at a time.

use core::arch::x86_64::*;

use super::Avx2;
use super::wide::low_words;
use crate::kernels::fixed::COEFFICIENTS;
use crate::quant::Multiplier;

/// Elements at a time.
const QUAD: usize = 4;

/// Powers at most.
const MOST: usize = 256;

/// Powers of a row: mantissas, below 2^31 or equal to it, and exponents, of four elements each.
pub(in crate::kernels) struct Powers([[[u64; QUAD]; 2]; MOST / QUAD]);

impl Powers {
    /// None yet.
    pub(in crate::kernels) const NONE: Self = Self([[[0; QUAD]; 2]; MOST / QUAD]);

    /// Elements at most.
    pub(in crate::kernels) const MOST: usize = MOST;
}

impl Avx2 {
    /// Computes the powers of `max − x`; returns their sum, with 40 fraction bits.
    pub(in crate::kernels) fn sum_of_powers(
        self,
        x: &[[i32; QUAD]],
        max: i32,
        multiplier: Multiplier,
        to: &mut Powers,
    ) -> u64 {
        // SAFETY: the core has AVX2.
        unsafe { sum(x, max, multiplier, to) }
    }

    /// Makes of powers their product with `q / 2^shift`, rounded half up, plus the zero point, clamped to bytes.
    pub(in crate::kernels) fn shares(
        self,
        powers: &Powers,
        (q, shift): (u64, u32),
        zero_point: i32,
        clamp: [i32; 2],
        to: &mut [[u8; QUAD]],
    ) {
        // SAFETY: the core has AVX2.
        unsafe { shares(powers, (q, shift), zero_point, clamp, to) }
    }
}

#[target_feature(enable = "avx2")]
fn sum(x: &[[i32; QUAD]], max: i32, multiplier: Multiplier, to: &mut Powers) -> u64 {
    let mut total = _mm256_setzero_si256();
    for (x, to) in x.iter().zip(&mut to.0) {
        let (mantissas, exponents) = powers(x, max, multiplier);
        *to = [lanes(mantissas), lanes(exponents)];
        total = _mm256_add_epi64(total, _mm256_srlv_epi64(_mm256_slli_epi64::<9>(mantissas), exponents));
    }
    lanes(total).into_iter().fold(0, u64::wrapping_add)
}

#[target_feature(enable = "avx2")]
fn shares(powers: &Powers, (q, shift): (u64, u32), zero_point: i32, clamp: [i32; 2], to: &mut [[u8; QUAD]]) {
    let (one, q) = (_mm256_set1_epi64x(1), _mm256_set1_epi64x(q as i64));
    let shift = _mm256_set1_epi64x(i64::from(shift) - 1);
    // More than any output has.
    let most = _mm256_set1_epi64x(1 << 16);
    let zero_point = _mm_set1_epi32(zero_point);
    let (low, high) = (_mm_set1_epi32(clamp[0]), _mm_set1_epi32(clamp[1]));
    for ([mantissas, exponents], to) in powers.0.iter().zip(to) {
        // Shifts of 64 and more give 0.
        let count = _mm256_add_epi64(shift, wide(exponents));
        let halves = _mm256_srlv_epi64(_mm256_mul_epu32(wide(mantissas), q), count);
        let steps = _mm256_srli_epi64::<1>(_mm256_add_epi64(halves, one));
        let steps = _mm256_blendv_epi8(steps, most, _mm256_cmpgt_epi64(steps, most));
        let words = _mm_add_epi32(low_words(steps), zero_point);
        let words = _mm_min_epi32(_mm_max_epi32(words, low), high);
        let halves = _mm_packs_epi32(words, words);
        *to = _mm_cvtsi128_si32(_mm_packs_epi16(halves, halves)).to_le_bytes();
    }
}

/// Four numbers as a vector.
#[inline]
#[target_feature(enable = "avx2")]
fn wide(numbers: &[u64; QUAD]) -> __m256i {
    // SAFETY: there are 32 bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) }
}

/// Mantissas, below 2^31 or equal to it, and exponents of the powers.
#[inline]
#[target_feature(enable = "avx2")]
fn powers(x: &[i32; 4], max: i32, multiplier: Multiplier) -> (__m256i, __m256i) {
    let total = (31 + i32::from(multiplier.shift)) & 63;
    // SAFETY: `x` has 16 bytes; the load needs no alignment.
    let x = unsafe { _mm_loadu_si128(x.as_ptr().cast()) };
    let distances = _mm256_cvtepu32_epi64(_mm_sub_epi32(_mm_set1_epi32(max), x));
    let products = _mm256_mul_epu32(distances, _mm256_set1_epi64x(i64::from(multiplier.mantissa)));
    let exponents = _mm256_srl_epi64(products, _mm_cvtsi32_si128(total));
    let remainders = _mm256_and_si256(products, _mm256_set1_epi64x(((1u64 << total) - 1) as i64));
    let fractions = if total >= 31 {
        _mm256_srl_epi64(remainders, _mm_cvtsi32_si128(total - 31))
    } else {
        _mm256_sll_epi64(remainders, _mm_cvtsi32_si128(31 - total))
    };
    // Each partial sum and product shifted by 31 has 32 bits: the low word of a shift without sign is theirs.
    let mut sum = _mm256_setzero_si256();
    for &coefficient in COEFFICIENTS.iter().rev() {
        let product = _mm256_srli_epi64::<31>(_mm256_mul_epi32(sum, fractions));
        sum = _mm256_add_epi32(product, _mm256_set1_epi64x(i64::from(coefficient as u32)));
    }
    let product = _mm256_srli_epi64::<31>(_mm256_mul_epi32(sum, fractions));
    // Negative or 0 so far: 2^31 makes it a number without sign.
    let low = _mm256_set1_epi64x(0xFFFF_FFFF);
    let mantissas = _mm256_and_si256(_mm256_add_epi32(product, _mm256_set1_epi64x(1 << 31)), low);
    let vanished = _mm256_cmpgt_epi64(exponents, _mm256_set1_epi64x(63));
    (_mm256_andnot_si256(vanished, mantissas), exponents)
}

/// The lanes of a vector.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes(vector: __m256i) -> [u64; 4] {
    let mut lanes = [0; 4];
    // SAFETY: `lanes` has 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), vector) };
    lanes
}
