//! What the kernels with weights share: dot products and requantization per output channel.

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
            bias: memory::const_i32(plan, bias, count)?,
            mantissas: memory::const_i32(plan, mantissas, count)?,
            shifts: memory::const_i8(plan, shifts, count)?,
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

/// Output elements, i8 or i16.
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
        }
        Some(())
    }
}

/// Output channels computed together, so that each input element is read once for all of them.
pub(crate) const GROUP: usize = 4;

/// The weights of [`GROUP`] output channels, from channel `o` on; beyond `end` the last one repeats.
#[inline(always)]
pub(crate) fn weight_rows(weights: &[i8], depth: usize, o: usize, end: usize) -> Option<[&[i8]; GROUP]> {
    let last = end.wrapping_sub(1);
    let row = |i: usize| {
        let start = o.wrapping_add(i).min(last).wrapping_mul(depth);
        weights.get(start..start.wrapping_add(depth))
    };
    Some([row(0)?, row(1)?, row(2)?, row(3)?])
}

/// The same part of every row.
#[inline(always)]
pub(crate) fn part<'a>(rows: &[&'a [i8]; GROUP], start: usize, len: usize) -> Option<[&'a [i8]; GROUP]> {
    let range = start..start.wrapping_add(len);
    let [a, b, c, d] = rows;
    Some([a.get(range.clone())?, b.get(range.clone())?, c.get(range.clone())?, d.get(range)?])
}

/// `acc[i] += Σ x · w[i]`, wrapping.
#[inline(always)]
pub(crate) fn dot(x: &[i8], w: &[&[i8]; GROUP], acc: &mut [i32; GROUP]) {
    let [mut a, mut b, mut c, mut d] = *acc;
    let [wa, wb, wc, wd] = *w;
    for ((((&x, &wa), &wb), &wc), &wd) in x.iter().zip(wa).zip(wb).zip(wc).zip(wd) {
        let x = i32::from(x);
        a = a.wrapping_add(x.wrapping_mul(i32::from(wa)));
        b = b.wrapping_add(x.wrapping_mul(i32::from(wb)));
        c = c.wrapping_add(x.wrapping_mul(i32::from(wc)));
        d = d.wrapping_add(x.wrapping_mul(i32::from(wd)));
    }
    *acc = [a, b, c, d];
}

/// `acc[i] += factor · Σ w[i]`, wrapping.
#[inline]
pub(crate) fn add_sums(factor: i32, w: &[&[i8]; GROUP], acc: &mut [i32; GROUP]) {
    for (acc, row) in acc.iter_mut().zip(w) {
        let sum = row.iter().fold(0i32, |sum, &w| sum.wrapping_add(i32::from(w)));
        *acc = acc.wrapping_add(sum.wrapping_mul(factor));
    }
}
