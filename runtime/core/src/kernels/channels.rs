//! What the kernels with weights share: requantization per output channel, and writing the result.

use super::memory;
use crate::error::Reason;
use crate::op::ConstRef;
use crate::plan::{DType, Plan, TensorRecord};
use crate::quant::{self, Multiplier};

/// Bias, multiplier and clamp of every output channel.
#[derive(Clone, Copy)]
pub(crate) struct Channels<'a> {
    bias: &'a [i32],
    mantissas: &'a [i32],
    shifts: &'a [i8],
    zero_point: i32,
    clamp: [i32; 2],
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

    /// Adds the bias of channel `o` to `acc` and requantizes.
    #[inline(always)]
    pub(crate) fn finish(&self, o: usize, acc: i32) -> Option<i32> {
        let multiplier = Multiplier { mantissa: *self.mantissas.get(o)?, shift: *self.shifts.get(o)? };
        let acc = acc.wrapping_add(*self.bias.get(o)?);
        Some(quant::requantize(acc, multiplier, self.zero_point, self.clamp[0], self.clamp[1]))
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
