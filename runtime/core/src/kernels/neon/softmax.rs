//! Powers of two and their shares: what a softmax is made of. The same arithmetic as [`crate::kernels::fixed::exp2_neg`] and
//! the portable softmax, four elements at a time.

use core::arch::aarch64::*;

use super::{QUAD, vector};
use crate::kernels::fixed::COEFFICIENTS;
use crate::quant::Multiplier;

/// The kernels of softmaxes.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Powers(());

impl Powers {
    /// Every core of the architecture has them.
    #[inline(always)]
    pub(in crate::kernels) fn detect() -> Option<Self> {
        Some(Self(()))
    }

    /// Σ of the powers of `max − x`, with 40 fraction bits.
    pub(in crate::kernels) fn sum_of_powers(self, x: &[[i32; QUAD]], max: i32, multiplier: Multiplier) -> u64 {
        // SAFETY: every core of the architecture has vectors.
        unsafe { sum(x, max, multiplier) }
    }

    /// Makes of each element its power of `max − x` times `q / 2^shift`, rounded half up, at most 2^16.
    pub(in crate::kernels) fn scale_powers(
        self,
        x: &mut [[i32; QUAD]],
        max: i32,
        multiplier: Multiplier,
        q: u64,
        shift: u32,
    ) {
        // SAFETY: as said.
        unsafe { scaled(x, max, multiplier, q, shift) }
    }
}

#[target_feature(enable = "neon")]
fn sum(x: &[[i32; QUAD]], max: i32, multiplier: Multiplier) -> u64 {
    let mut total = vdupq_n_u64(0);
    for x in x {
        let (mantissas, exponents) = powers(x, max, multiplier);
        let down = vnegq_s32(vreinterpretq_s32_u32(exponents));
        let low = vshlq_u64(vshll_n_u32::<9>(vget_low_u32(mantissas)), vmovl_s32(vget_low_s32(down)));
        let high = vshlq_u64(vshll_high_n_u32::<9>(mantissas), vmovl_high_s32(down));
        total = vaddq_u64(total, vaddq_u64(low, high));
    }
    vaddvq_u64(total)
}

#[target_feature(enable = "neon")]
fn scaled(x: &mut [[i32; QUAD]], max: i32, multiplier: Multiplier, q: u64, shift: u32) {
    let q = vdupq_n_u32(q as u32);
    // Exponents are below 64, and only the lowest byte of a shift counts: 64 and more give 0.
    let down = vdupq_n_s32(1 - shift.min(65) as i32);
    let one = vdupq_n_u64(1);
    for x in x {
        let (mantissas, exponents) = powers(x, max, multiplier);
        let down = vsubq_s32(down, vreinterpretq_s32_u32(exponents));
        let low = vshlq_u64(vmull_u32(vget_low_u32(mantissas), vget_low_u32(q)), vmovl_s32(vget_low_s32(down)));
        let high = vshlq_u64(vmull_high_u32(mantissas, q), vmovl_high_s32(down));
        let [low, high] = [low, high].map(|halves| vshrq_n_u64::<1>(vaddq_u64(halves, one)));
        let steps = vminq_u32(vqmovn_high_u64(vqmovn_u64(low), high), vdupq_n_u32(1 << 16));
        // SAFETY: four elements are written.
        unsafe { vst1q_s32(x.as_mut_ptr(), vreinterpretq_s32_u32(steps)) };
    }
}

/// Mantissas, below 2^31 or equal to it, and exponents of the powers, below 64.
#[inline]
#[target_feature(enable = "neon")]
fn powers(x: &[i32; QUAD], max: i32, multiplier: Multiplier) -> (uint32x4_t, uint32x4_t) {
    let total = (31 + i64::from(multiplier.shift)) & 63;
    let distances = vreinterpretq_u32_s32(vsubq_s32(vdupq_n_s32(max), vector(x)));
    let mantissa = vdupq_n_u32(multiplier.mantissa as u32);
    let products = [vmull_u32(vget_low_u32(distances), vget_low_u32(mantissa)), vmull_high_u32(distances, mantissa)];
    let [low, high] = products.map(|product| vqmovn_u64(vshlq_u64(product, vdupq_n_s64(-total))));
    let exponents = vcombine_u32(low, high);
    // The bits below the exponent's, the highest first: of these, 31.
    let [low, high] = products.map(|product| vreinterpretq_u32_u64(vshlq_u64(product, vdupq_n_s64(64 - total))));
    let fractions = vreinterpretq_s32_u32(vshrq_n_u32::<1>(vuzp2q_u32(low, high)));
    // A doubled product's high word is a product shifted by 31. No sum has more than 32 bits.
    let [first @ .., last] = COEFFICIENTS;
    let mut sum = vdupq_n_s32(last);
    for &coefficient in first.iter().rev() {
        sum = vaddq_s32(vqdmulhq_s32(sum, fractions), vdupq_n_s32(coefficient));
    }
    // Negative or 0 so far: 2^31 makes it a number without sign.
    let mantissas = vaddq_u32(vreinterpretq_u32_s32(vqdmulhq_s32(sum, fractions)), vdupq_n_u32(1 << 31));
    let near = vcltq_u32(exponents, vdupq_n_u32(64));
    (vandq_u32(mantissas, near), vandq_u32(exponents, near))
}
