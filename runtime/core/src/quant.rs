//! The arithmetic of quantization: real value = scale · (q − zero_point).
//!
//! This file holds the only rounding rules of the runtime. Offline values are quantized half to
//! even ([`quantize`]); integer kernels requantize half up, once, in 64 bits ([`requantize`]).

use core::num::{NonZeroU32, NonZeroU64};

/// A positive real multiplier as `mantissa / 2^31 · 2^-shift`.
///
/// `mantissa` lies in `[2^30, 2^31)`, `shift` in [`Multiplier::MIN_SHIFT`]`..=`[`Multiplier::MAX_SHIFT`]
/// (negative shifts are multipliers of one and above). The relative error against the f64 it was made
/// from is at most 2^-31.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multiplier {
    /// Mantissa in `[2^30, 2^31)`.
    pub mantissa: i32,
    /// Right shift after the division by 2^31.
    pub shift: i8,
}

impl Multiplier {
    /// Smallest shift: multipliers up to 2^30.
    pub const MIN_SHIFT: i8 = -30;
    /// Largest shift: multipliers down to 2^-32.
    pub const MAX_SHIFT: i8 = 31;

    /// The multiplier nearest to `real`, or `None` if `real` is not a positive number in
    /// `[2^-32, 2^30)`. A `real` in `(0, 2^-32)` is refused too: the caller decides what to do.
    pub fn from_f64(real: f64) -> Option<Self> {
        if !(real.is_finite() && real > 0.0) {
            return None;
        }
        // real = fraction · 2^exponent with fraction in [0.5, 1): read from the bits (normal numbers
        // only; subnormals are far below the supported range).
        let bits = real.to_bits();
        let biased = (bits >> 52) as i32;
        if biased == 0 {
            return None;
        }
        let mut exponent = biased - 1022;
        let significand = (bits & ((1 << 52) - 1)) | (1 << 52); // 53 bits, fraction = significand / 2^53
        let mut mantissa = (significand + (1 << 21)) >> 22; // round to 31 bits
        if mantissa == 1 << 31 {
            mantissa >>= 1;
            exponent += 1;
        }
        let shift = -exponent;
        if shift < i32::from(Self::MIN_SHIFT) || shift > i32::from(Self::MAX_SHIFT) {
            return None;
        }
        Some(Self { mantissa: mantissa as i32, shift: shift as i8 })
    }

    /// The real value, exactly.
    pub fn to_f64(self) -> f64 {
        let exponent = -31 - i32::from(self.shift);
        f64::from(self.mantissa) * f64::from_bits(((1023 + exponent) as u64) << 52)
    }

    /// Whether mantissa and shift are in their ranges.
    pub const fn is_valid(self) -> bool {
        self.mantissa >= 1 << 30 && self.shift >= Self::MIN_SHIFT && self.shift <= Self::MAX_SHIFT
    }

    /// `round_half_up(value · self)`, saturated to i32.
    ///
    /// `value` may have up to 32 significant bits; larger values are the caller's overflow.
    #[inline(always)]
    pub fn apply(self, value: i32) -> i32 {
        // Of a product whose low word is shifted out the high one is enough, and nothing saturates.
        if cfg!(target_pointer_width = "32") && self.shift >= 2 {
            let high = (i64::from(value).wrapping_mul(i64::from(self.mantissa)) >> 32) as i32;
            return (high >> (self.shift.wrapping_sub(2) & 31)).wrapping_add(1) >> 1;
        }
        self.apply_wide(i64::from(value))
    }

    /// As [`Multiplier::apply`], for values up to ±(2^32 − 2^17): products of two 17-bit differences.
    #[inline(always)]
    pub fn apply_wide(self, value: i64) -> i32 {
        let total = (31 + i32::from(self.shift)) as u32 & 63; // 1..=62 for a valid multiplier
        let product = value.wrapping_mul(i64::from(self.mantissa));
        // floor((⌊p / 2^(t-1)⌋ + 1) / 2) = floor(p / 2^t + 1/2), without a sum that could overflow.
        let rounded = ((product >> (total.wrapping_sub(1) & 63)).wrapping_add(1)) >> 1;
        rounded.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
    }
}

/// `clamp(zero_point + round_half_up(acc · multiplier), min, max)`: the requantization of every kernel.
#[inline(always)]
pub fn requantize(acc: i32, multiplier: Multiplier, zero_point: i32, min: i32, max: i32) -> i32 {
    zero_point.saturating_add(multiplier.apply(acc)).max(min).min(max)
}

/// The high word of `value · mantissa`, `mantissa` being that of a [`Multiplier`].
#[cfg(scalar)]
#[inline(always)]
pub(crate) fn high_product(value: i32, mantissa: i32) -> i32 {
    if cfg!(not(armv6m)) {
        return (i64::from(value).wrapping_mul(i64::from(mantissa)) >> 32) as i32;
    }
    // The core multiplies 32 bits by 32 to 32: by halves, of which only the high one of `value` has a sign. No sum
    // overflows.
    let (value_low, value_high) = (value & 0xFFFF, value >> 16);
    let (low, high) = (mantissa & 0xFFFF, mantissa >> 16);
    let lowest = (value_low as u32).wrapping_mul(low as u32) >> 16;
    let middle = value_high.wrapping_mul(low).wrapping_add(lowest as i32);
    let rest = value_low.wrapping_mul(high).wrapping_add(middle & 0xFFFF);
    value_high.wrapping_mul(high).wrapping_add(middle >> 16).wrapping_add(rest >> 16)
}

/// `round_half_up(value · multiplier / count)`, exactly, saturated to i32; 0 when `count` is 0.
///
/// `round_half_up(v / (count · 2^t)) = ⌊(⌊v / 2^t + (count mod 2) / 2⌋ + ⌊count / 2⌋) / count⌋`, so that only
/// a shift and one division are needed. `count` is below 2^32.
pub(crate) fn apply_divided(value: i32, multiplier: Multiplier, count: u64) -> i32 {
    let Some(divisor) = NonZeroU64::new(count) else { return 0 };
    let total = (31 + i32::from(multiplier.shift)) as u32 & 63; // 1..=62 for a valid multiplier
    let product = i64::from(value).wrapping_mul(i64::from(multiplier.mantissa));
    let odd = (count & 1) as i64;
    let half = odd << (total.wrapping_sub(1) & 63);
    let numerator = (product.wrapping_add(half) >> total).wrapping_add((count >> 1) as i64);
    let magnitude = numerator.unsigned_abs();
    // Division rounds towards minus infinity.
    let dividend = if numerator >= 0 { magnitude } else { magnitude.wrapping_add(count).wrapping_sub(1) };
    // Most quotients are of 32 bits, which cores of 32 bits divide many times faster.
    let quotient = match (u32::try_from(dividend), NonZeroU32::try_from(divisor)) {
        (Ok(dividend), Ok(divisor)) => i64::from(dividend / divisor),
        _ => (dividend / divisor) as i64,
    };
    let quotient = if numerator >= 0 { quotient } else { quotient.wrapping_neg() };
    quotient.max(i64::from(i32::MIN)).min(i64::from(i32::MAX)) as i32
}

/// `x` rounded to the nearest integer, ties to even, saturated to i32; NaN gives 0.
pub fn round_half_even(x: f32) -> i32 {
    // Above 2^23 every f32 is an integer; below, adding and subtracting 2^23 rounds half to even.
    const MAGIC: f32 = 8_388_608.0;
    let rounded = if x >= MAGIC || x <= -MAGIC {
        x
    } else if x >= 0.0 {
        (x + MAGIC) - MAGIC
    } else {
        (x - MAGIC) + MAGIC
    };
    rounded as i32
}

/// ONNX `QuantizeLinear` to integers in `low..=high`: `clamp(round_half_even(x / scale) + zero_point, low, high)`.
pub fn quantize(x: f32, scale: f32, zero_point: i32, (low, high): (i32, i32)) -> i32 {
    round_half_even(x / scale).saturating_add(zero_point).max(low).min(high)
}

/// ONNX `DequantizeLinear`: `(q − zero_point) · scale`.
pub fn dequantize(q: i32, scale: f32, zero_point: i32) -> f32 {
    q.wrapping_sub(zero_point) as f32 * scale
}

#[cfg(test)]
mod tests;
