//! What the kernels with weights share: requantization per output channel, and writing the result.

use super::memory;
use crate::error::Reason;
use crate::op::ConstRef;
use crate::plan::{DType, Plan, TensorRecord};
use crate::quant::{self, Multiplier};

/// Bias, multiplier and clamp of every output channel.
#[derive(Clone, Copy)]
pub(crate) struct Channels<'a> {
    pub(super) bias: &'a [i32],
    pub(super) mantissas: &'a [i32],
    pub(super) shifts: &'a [i8],
    pub(super) zero_point: i32,
    pub(super) clamp: [i32; 2],
}

/// Constants of [`Channels`]: bias, mantissas, shifts.
pub(crate) type ChannelRefs = [ConstRef; 3];

impl<'a> Channels<'a> {
    /// Finds the constants of `count` channels.
    pub(crate) fn new(
        plan: &Plan<'a>,
        [bias, mantissas, shifts]: ChannelRefs,
        count: usize,
        clamp: [i32; 2],
        y: &TensorRecord,
    ) -> Result<Self, Reason> {
        Ok(Self {
            bias: memory::constants(plan, bias, count)?,
            mantissas: memory::constants(plan, mantissas, count)?,
            shifts: memory::constants(plan, shifts, count)?,
            zero_point: i32::from(y.zero_point),
            clamp,
        })
    }

    /// Refuses multipliers and clamps out of range.
    pub(crate) fn check(&self, y: &TensorRecord) -> Result<(), Reason> {
        memory::check_clamp(self.clamp, y)?;
        let mut multipliers = self.mantissas.iter().zip(self.shifts);
        let valid = multipliers.all(|(&mantissa, &shift)| Multiplier { mantissa, shift }.is_valid());
        if valid { Ok(()) } else { Err(Reason::OperatorRange) }
    }

    /// Whether all multipliers lie in `[2^-23, 2^-2)`, so that the high words of products are enough: with `t = 31 + shift`
    /// at least 33, `⌊p / 2^t + 1/2⌋ = (⌊p / 2^32⌋ + 2^(t − 33)) >> (t − 32)`, and the zero point, shifted likewise, fits
    /// beside them.
    #[cfg(not(bytes))]
    pub(crate) fn are_plain(&self) -> bool {
        let (quads, rest) = self.shifts.as_chunks::<4>();
        quads.iter().all(|&quad| all_plain(quad)) && rest.iter().all(|&shift| plain(shift))
    }

    /// Whether this is so for channel `o`; see [`Self::are_plain`].
    pub(crate) fn is_plain(&self, o: usize) -> bool {
        self.shifts.get(o).is_some_and(|&shift| plain(shift))
    }

    /// Clamps `count` neighbouring bytes of each of `pixels` pixels, `stride` bytes apart, that hold all of i8.
    #[cfg(any(dsp, native))]
    pub(super) fn clamp_rows(&self, y: &mut [u8], [pixels, stride, count]: [usize; 3]) -> Option<()> {
        if self.clamp == [-128, 127] {
            return Some(());
        }
        for pixel in 0..pixels {
            let start = pixel.wrapping_mul(stride);
            memory::clamp(y.get_mut(start..start.wrapping_add(count))?, self.clamp);
        }
        Some(())
    }

    /// Adds the bias of channel `o` to `acc` and requantizes.
    #[inline(always)]
    pub(crate) fn finish(&self, o: usize, acc: i32) -> Option<i32> {
        self.finish_biased(o, acc.wrapping_add(*self.bias.get(o)?))
    }

    /// Requantizes `acc` of channel `o`, which has its bias already.
    #[inline(always)]
    pub(crate) fn finish_biased(&self, o: usize, acc: i32) -> Option<i32> {
        let multiplier = Multiplier { mantissa: *self.mantissas.get(o)?, shift: *self.shifts.get(o)? };
        Some(quant::requantize(acc, multiplier, self.zero_point, self.clamp[0], self.clamp[1]))
    }
}

/// See [`Channels::are_plain`].
#[inline(always)]
fn plain(shift: i8) -> bool {
    (2..=23).contains(&shift)
}

/// As [`plain`], of four shifts in one word: of the lowest that is not, the highest bit is set in one of the terms.
#[cfg(not(bytes))]
#[inline(always)]
fn all_plain(shifts: [i8; 4]) -> bool {
    const LEAST: u32 = 0x0202_0202;
    // What makes bytes above 23 reach 128.
    const ABOVE: u32 = 0x6868_6868;
    let word = u32::from_le_bytes(shifts.map(|shift| shift as u8));
    (word | word.wrapping_add(ABOVE) | word.wrapping_sub(LEAST)) & 0x8080_8080 == 0
}

/// What finishes the sums of a channel whose multiplier is plain (see [`Channels::are_plain`]): in 32 bits.
#[cfg(scalar)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Channel {
    pub(super) bias: i32,
    pub(super) mantissa: i32,
    /// Half a step, and the zero point.
    pub(super) rounding: i32,
    pub(super) shift: u32,
    clamp: [i32; 2],
}

#[cfg(scalar)]
impl Channels<'_> {
    /// What finishes the sums of channel `o`.
    pub(super) fn channel(&self, o: usize) -> Option<Channel> {
        let shift = *self.shifts.get(o)? as u32;
        Some(Channel {
            bias: *self.bias.get(o)?,
            mantissa: *self.mantissas.get(o)?,
            rounding: self.zero_point.wrapping_mul(2).wrapping_add(1) << (shift.wrapping_sub(2) & 31),
            shift: shift.wrapping_sub(1) & 31,
            clamp: self.clamp,
        })
    }
}

#[cfg(scalar)]
impl Channel {
    /// The same for sums that are `excess` too large.
    pub(super) fn less(self, excess: i32) -> Self {
        Self { bias: self.bias.wrapping_sub(excess), ..self }
    }

    /// Adds the bias to `acc` and requantizes to 8 bits.
    #[inline(always)]
    pub(super) fn finish(&self, acc: i32) -> u8 {
        let high = quant::high_product(acc.wrapping_add(self.bias), self.mantissa);
        let value = high.wrapping_add(self.rounding) >> self.shift;
        value.max(self.clamp[0]).min(self.clamp[1]) as u8
    }
}

/// Output elements of any dtype.
pub(crate) struct Output<'a> {
    bytes: &'a mut [u8],
    dtype: DType,
}

impl<'a> Output<'a> {
    pub(crate) fn new(bytes: &'a mut [u8], dtype: DType) -> Self {
        Self { bytes, dtype }
    }

    /// The type of its elements.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Elements of 8 bits from `index` on.
    #[cfg(any(dsp, bytes, x86, scalar))]
    pub(crate) fn bytes_from(&mut self, index: usize) -> Option<&mut [u8]> {
        self.bytes.get_mut(index..)
    }

    /// Writes element `index`.
    #[inline(always)]
    pub(crate) fn put(&mut self, index: usize, value: i32) -> Option<()> {
        match self.dtype {
            DType::I8 => *self.bytes.get_mut(index)? = value as u8,
            DType::I16 => {
                *self.bytes.get_mut(index.wrapping_mul(2)..)?.first_chunk_mut::<2>()? = (value as i16).to_le_bytes();
            }
            DType::I32 => {
                *self.bytes.get_mut(index.wrapping_mul(4)..)?.first_chunk_mut::<4>()? = value.to_le_bytes();
            }
        }
        Some(())
    }
}

#[cfg(all(test, not(bytes)))]
mod tests {
    use super::{all_plain, plain};

    #[test]
    fn four_shifts_are_plain_together() {
        let shifts = [i8::MIN, -30, -1, 0, 1, 2, 3, 12, 22, 23, 24, 25, 31, 100, i8::MAX];
        for (a, b) in shifts.iter().flat_map(|&a| shifts.map(|b| (a, b))) {
            for (c, d) in shifts.iter().flat_map(|&c| shifts.map(|d| (c, d))) {
                let quad = [a, b, c, d];
                assert_eq!(all_plain(quad), quad.into_iter().all(plain), "{quad:?}");
            }
        }
    }
}
