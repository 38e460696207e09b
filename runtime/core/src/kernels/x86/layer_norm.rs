//! Layer normalization of rows of 32 bits: the same arithmetic as the portable kernel, four elements at a time.

use core::arch::x86_64::*;

use super::Avx2;
use super::wide::{clamped, every, floor, load_words, rounded, store_words};

/// Elements at a time.
const QUAD: usize = 4;

/// What makes differences of elements: `d = (count · x − sum + half) >> down`, below 2^31.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Differences {
    /// Below 2^31.
    pub(in crate::kernels) count: i64,
    pub(in crate::kernels) sum: i64,
    pub(in crate::kernels) down: u32,
}

/// What makes outputs of them: `r = d · reciprocal / 2^shift`, rounded; `(r · gamma >> gamma_down) + beta + half >> beta_shift`
/// plus the zero point, clamped.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Steps {
    /// Below 2^31.
    pub(in crate::kernels) reciprocal: i64,
    pub(in crate::kernels) shift: u32,
    pub(in crate::kernels) gamma_down: u32,
    pub(in crate::kernels) beta_shift: u32,
    pub(in crate::kernels) zero_point: i32,
    pub(in crate::kernels) clamp: [i32; 2],
}

impl Avx2 {
    /// The sum of the squares of differences, wrapping.
    pub(in crate::kernels) fn sum_of_squares(self, x: &[[i32; QUAD]], differences: Differences) -> u64 {
        // SAFETY: the core has AVX2.
        unsafe { sum_of_squares(x, differences) }
    }

    /// Makes outputs of elements.
    pub(in crate::kernels) fn normalize(
        self,
        x: &mut [[i32; QUAD]],
        differences: Differences,
        steps: &Steps,
        [gamma, beta]: [&[[i32; QUAD]]; 2],
    ) {
        // SAFETY: the core has AVX2.
        unsafe { normalize(x, differences, steps, [gamma, beta]) }
    }
}

#[target_feature(enable = "avx2")]
fn sum_of_squares(x: &[[i32; QUAD]], differences: Differences) -> u64 {
    let mut squares = _mm256_setzero_si256();
    for x in x {
        let d = differences.of(load_words(x));
        squares = _mm256_add_epi64(squares, _mm256_mul_epi32(d, d));
    }
    let halves = _mm_add_epi64(_mm256_castsi256_si128(squares), _mm256_extracti128_si256::<1>(squares));
    (_mm_cvtsi128_si64(halves) as u64).wrapping_add(_mm_extract_epi64::<1>(halves) as u64)
}

#[target_feature(enable = "avx2")]
fn normalize(x: &mut [[i32; QUAD]], differences: Differences, steps: &Steps, [gamma, beta]: [&[[i32; QUAD]]; 2]) {
    let (zero_point, low, high) =
        (every(steps.zero_point.into()), every(steps.clamp[0].into()), every(steps.clamp[1].into()));
    let (reciprocal, shift) = (every(steps.reciprocal), every(i64::from(steps.shift) - 1));
    let half = every(1 << (steps.beta_shift - 1));
    for ((x, gamma), beta) in x.iter_mut().zip(gamma).zip(beta) {
        let d = differences.of(load_words(x));
        let normal = rounded(_mm256_mul_epi32(d, reciprocal), shift);
        let scaled = floor(_mm256_mul_epi32(normal, load_words(gamma)), steps.gamma_down);
        let sum = _mm256_add_epi64(_mm256_add_epi64(scaled, load_words(beta)), half);
        let y = _mm256_add_epi64(floor(sum, steps.beta_shift), zero_point);
        *x = store_words(clamped(y, low, high));
    }
}

impl Differences {
    /// Of elements in lanes of 64 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn of(self, x: __m256i) -> __m256i {
        let d = _mm256_sub_epi64(_mm256_mul_epi32(x, every(self.count)), every(self.sum));
        floor(_mm256_add_epi64(d, every((1 << self.down) >> 1)), self.down)
    }
}
