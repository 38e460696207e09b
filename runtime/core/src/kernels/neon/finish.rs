//! Sums to outputs.

use core::arch::aarch64::*;

use super::{QUAD, vector};
use crate::kernels::channels::Channels;

/// Whether vectors can finish the sums: all multipliers are below 1/2. With `t = 31 + shift` and `shift` positive,
/// `⌊p / 2^t + 1/2⌋` is the doubled product's high word, shifted and rounded.
#[inline(always)]
pub(super) fn fit(channels: &Channels<'_>) -> bool {
    channels.shifts.iter().all(|&shift| shift > 0)
}

/// What finishes the sums of four channels.
#[derive(Clone, Copy)]
pub(super) struct Quad {
    pub(super) bias: int32x4_t,
    mantissas: int32x4_t,
    /// Negative: to the right.
    shifts: int32x4_t,
}

impl Quad {
    /// Of the channels from `o` on; beyond the last of them it repeats.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn new(channels: &Channels<'_>, o: usize) -> Option<Self> {
        let bias = vector(&first(channels.bias.get(o..)?)?);
        let mantissas = vector(&first(channels.mantissas.get(o..)?)?);
        let shifts = first(channels.shifts.get(o..)?)?.map(|shift| shift as u8);
        let shifts = vmovl_s8(vcreate_s8(u32::from_le_bytes(shifts).into()));
        Some(Self { bias, mantissas, shifts: vnegq_s32(vmovl_s16(vget_low_s16(shifts))) })
    }

    /// Of no channels.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn none() -> Self {
        let zero = vdupq_n_s32(0);
        Self { bias: zero, mantissas: zero, shifts: zero }
    }

    /// The same as [`Self::scaled`] for any multiplier, saturated: in 64 bits.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn scaled_wide(&self, sums: int32x4_t) -> int32x4_t {
        let shifts = vsubq_s32(self.shifts, vdupq_n_s32(31));
        let low = vmull_s32(vget_low_s32(sums), vget_low_s32(self.mantissas));
        let low = vrshlq_s64(low, vmovl_s32(vget_low_s32(shifts)));
        let high = vrshlq_s64(vmull_high_s32(sums, self.mantissas), vmovl_high_s32(shifts));
        vqmovn_high_s64(vqmovn_s64(low), high)
    }

    /// `⌊sum · multiplier + 1/2⌋` of sums that hold their bias, of channels that [fit].
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn scaled(&self, sums: int32x4_t) -> int32x4_t {
        vrshlq_s32(vqdmulhq_s32(sums, self.mantissas), self.shifts)
    }
}

/// What finishes the sums of channels, quad by quad.
pub(super) struct Quads<'a> {
    /// Constants of channel 0.
    bias: &'a [i32],
    mantissas: &'a [i32],
    shifts: &'a [i8],
}

impl<'a> Quads<'a> {
    /// Of channels up to `end`.
    #[inline(always)]
    pub(super) fn new(channels: &Channels<'a>, end: usize) -> Option<Self> {
        let Channels { bias, mantissas, shifts, .. } = *channels;
        Some(Self { bias: bias.get(..end)?, mantissas: mantissas.get(..end)?, shifts: shifts.get(..end)? })
    }

    /// Of the channels from `o` on.
    ///
    /// # Safety
    ///
    /// There are four.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) unsafe fn get(&self, o: usize) -> Quad {
        // SAFETY: as said.
        unsafe {
            let shifts = self.shifts.as_ptr().add(o).cast::<u32>().read_unaligned();
            let shifts = vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(shifts.into()))));
            Quad {
                bias: vld1q_s32(self.bias.as_ptr().add(o)),
                mantissas: vld1q_s32(self.mantissas.as_ptr().add(o)),
                shifts: vnegq_s32(shifts),
            }
        }
    }
}

/// The first four of them, or as many as there are and the last one again.
#[inline(always)]
fn first<T: Copy>(numbers: &[T]) -> Option<[T; QUAD]> {
    match numbers.first_chunk() {
        Some(numbers) => Some(*numbers),
        None => numbers.last().map(|&last| core::array::from_fn(|i| numbers.get(i).copied().unwrap_or(last))),
    }
}

/// Zero point and range of an output of 8 bits.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    zero_point: int16x8_t,
    low: int8x16_t,
    high: int8x16_t,
}

impl Bytes {
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn new(zero_point: i32, [low, high]: [i32; 2]) -> Self {
        Self { zero_point: vdupq_n_s16(zero_point as i16), low: vdupq_n_s8(low as i8), high: vdupq_n_s8(high as i8) }
    }

    /// Adds the zero point and clamps.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn finish(&self, [a, b, c, d]: [int32x4_t; 4]) -> int8x16_t {
        // What does not fit is beyond the clamp either way.
        let halves = [vqmovn_high_s32(vqmovn_s32(a), b), vqmovn_high_s32(vqmovn_s32(c), d)];
        let [low, high] = halves.map(|half| vqaddq_s16(half, self.zero_point));
        vminq_s8(vmaxq_s8(vqmovn_high_s16(vqmovn_s16(low), high), self.low), self.high)
    }
}

/// Zero point and range of any output.
#[derive(Clone, Copy)]
pub(super) struct Words {
    zero_point: int32x4_t,
    low: int32x4_t,
    high: int32x4_t,
}

impl Words {
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn new(zero_point: i32, [low, high]: [i32; 2]) -> Self {
        Self { zero_point: vdupq_n_s32(zero_point), low: vdupq_n_s32(low), high: vdupq_n_s32(high) }
    }

    /// Adds the zero point and clamps.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn finish(&self, values: int32x4_t) -> int32x4_t {
        vminq_s32(vmaxq_s32(vqaddq_s32(values, self.zero_point), self.low), self.high)
    }
}
