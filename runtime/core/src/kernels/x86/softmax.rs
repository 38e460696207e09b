//! Powers of two and their shares: what a softmax is made of. The same arithmetic as [`crate::kernels::fixed::exp2_neg`] and
//! the portable softmax, four elements at a time.

use core::arch::x86_64::*;

use super::Avx2;
use crate::kernels::fixed::COEFFICIENTS;
use crate::quant::Multiplier;

impl Avx2 {
    /// Σ of the powers of `max − x`, with 40 fraction bits.
    pub(in crate::kernels) fn sum_of_powers(self, x: &[[i32; 4]], max: i32, multiplier: Multiplier) -> u64 {
        // SAFETY: the core has AVX2.
        unsafe { sum(x, max, multiplier) }
    }

    /// Makes of each element its power of `max − x` times `q / 2^shift`, rounded half up, at most 2^16.
    pub(in crate::kernels) fn scale_powers(
        self,
        x: &mut [[i32; 4]],
        max: i32,
        multiplier: Multiplier,
        q: u64,
        shift: u32,
    ) {
        // SAFETY: the core has AVX2.
        unsafe { scaled(x, max, multiplier, q, shift) }
    }
}

#[target_feature(enable = "avx2")]
fn sum(x: &[[i32; 4]], max: i32, multiplier: Multiplier) -> u64 {
    let mut total = _mm256_setzero_si256();
    for x in x {
        let (mantissas, exponents) = powers(x, max, multiplier);
        total = _mm256_add_epi64(total, _mm256_srlv_epi64(_mm256_slli_epi64::<9>(mantissas), exponents));
    }
    lanes(total).into_iter().fold(0, u64::wrapping_add)
}

#[target_feature(enable = "avx2")]
fn scaled(x: &mut [[i32; 4]], max: i32, multiplier: Multiplier, q: u64, shift: u32) {
    let (one, q) = (_mm256_set1_epi64x(1), _mm256_set1_epi64x(q as i64));
    let shift = _mm256_set1_epi64x(i64::from(shift) - 1);
    for x in x {
        let (mantissas, exponents) = powers(x, max, multiplier);
        // Shifts of 64 and more give 0.
        let halves = _mm256_srlv_epi64(_mm256_mul_epu32(mantissas, q), _mm256_add_epi64(shift, exponents));
        let steps = _mm256_srli_epi64::<1>(_mm256_add_epi64(halves, one));
        *x = lanes(steps).map(|steps| steps.min(1 << 16) as i32);
    }
}

/// Mantissas, below 2^31 or equal to it, and exponents of the powers.
#[inline]
#[target_feature(enable = "avx2")]
fn powers(x: &[i32; 4], max: i32, multiplier: Multiplier) -> (__m256i, __m256i) {
    let total = (31 + i32::from(multiplier.shift)) & 63;
    let distances = x.map(|x| max.wrapping_sub(x));
    // SAFETY: `distances` has 16 bytes; the load needs no alignment.
    let distances = _mm256_cvtepu32_epi64(unsafe { _mm_loadu_si128(distances.as_ptr().cast()) });
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
