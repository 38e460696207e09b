//! Logarithm of the softmax over the last axis.

use super::fixed::{self, LOG2_BITS};
use super::memory::{self, BLOCK};
use super::softmax::{self, MAX_ROW};
use crate::error::Reason;
use crate::op::{LogSoftmaxParams, OpKind};
use crate::operator::Operator;
use crate::plan::{OpView, Plan, TensorRecord};
use crate::quant::Multiplier;

/// `y[c] = clamp(zero_point_y + round_half_up((x[c] − max x) · scale_x / scale_y − ln(Σ e) / scale_y))`, with `e` as
/// [`super::Softmax`] has them.
///
/// `x` and `y` have the same elements and any dtypes, up to 2^23 in the last axis; in place for equal dtypes. Both terms are
/// rounded to 16 fraction bits before they are subtracted, and the logarithm of the sum to 27, so the error against the f64
/// definition is at most `1/2 + 2^-16 + (|x − max x| · scale_x · 2^-30 + 2^-23 + C · 2^-40) / scale_y` steps for rows of `C`
/// elements.
#[derive(Debug, Clone, Copy)]
pub struct LogSoftmax;

/// Fraction bits of the terms of an output.
const BITS: i32 = 16;
/// Larger terms saturate any output.
const MOST: u64 = 1 << 60;

/// A record's multipliers and clamp, checked.
struct Scales {
    exponent: Multiplier,
    step: Multiplier,
    log: Multiplier,
    clamp: [i32; 2],
}

impl Scales {
    fn of(op: &OpView<'_>) -> Result<Self, Reason> {
        let p: LogSoftmaxParams = memory::params(op)?;
        Ok(Self {
            exponent: memory::multiplier(p.mantissa, p.shift)?,
            step: memory::multiplier(p.step_mantissa, p.step_shift)?,
            log: memory::multiplier(p.log_mantissa, p.log_shift)?,
            clamp: p.clamp,
        })
    }

    fn run_row(
        &self,
        plan: &Plan<'_>,
        arena: &mut [u8],
        [x, y]: [&TensorRecord; 2],
        [start, len]: [usize; 2],
    ) -> Result<(), Reason> {
        let input = memory::bytes(plan, arena, x)?;
        let (max, sum) =
            softmax::sum_of_row(input, x.dtype, [start, len], self.exponent).ok_or(Reason::OperatorShape)?;
        let log = term(fixed::log2(sum), self.log, LOG2_BITS as i32);
        let zero_point = i64::from(y.zero_point);
        let (low, high) = (i64::from(self.clamp[0]), i64::from(self.clamp[1]));
        let mut block = [0i32; BLOCK];
        for at in (0..len).step_by(BLOCK) {
            let block = block.get_mut(..BLOCK.min(len.wrapping_sub(at))).ok_or(Reason::OperatorShape)?;
            memory::load(memory::bytes(plan, arena, x)?, x.dtype, start.wrapping_add(at), block);
            for value in block.iter_mut() {
                let below = term(max.wrapping_sub(*value) as u32, self.step, 0).wrapping_add(log) as i64;
                let steps = (1i64 << (BITS - 1)).wrapping_sub(below) >> BITS;
                *value = zero_point.wrapping_add(steps).max(low).min(high) as i32;
            }
            memory::store(memory::bytes_mut(arena, y)?, y.dtype, start.wrapping_add(at), block);
        }
        Ok(())
    }
}

/// `value / 2^bits · multiplier` with 16 fraction bits, rounded half up, at most 2^60.
fn term(value: u32, multiplier: Multiplier, bits: i32) -> u64 {
    let down = 31i32.wrapping_add(i32::from(multiplier.shift)).wrapping_add(bits).wrapping_sub(BITS);
    // Below 2^63.
    let product = u64::from(value).wrapping_mul(multiplier.mantissa as u64);
    if down > 63 {
        return 0;
    }
    if down < 1 {
        let up = down.unsigned_abs() & 63;
        return if product > MOST >> up { MOST } else { product << up };
    }
    ((product >> (down.wrapping_sub(1) & 63)).wrapping_add(1) >> 1).min(MOST)
}

impl Operator for LogSoftmax {
    const KIND: OpKind = OpKind::LogSoftmax;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 1)?;
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let (len, _) = memory::rows(&x)?;
        if x.elements() != y.elements() || len > MAX_ROW {
            return Err(Reason::OperatorShape);
        }
        memory::check_clamp(Scales::of(op)?.clamp, &y)?;
        memory::check_in_place(&x, &y)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let scales = Scales::of(op)?;
        let (len, rows) = memory::rows(&x)?;
        for row in 0..rows {
            scales.run_row(plan, arena, [&x, &y], [row.wrapping_mul(len), len])?;
        }
        Ok(())
    }
}
