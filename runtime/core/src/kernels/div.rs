//! Element-wise division.

use super::{binary, memory};
use crate::error::Reason;
use crate::op::{DivParams, OpKind};
use crate::operator::Operator;
use crate::plan::{OpView, Plan};
use crate::quant::apply_divided;

/// `y = clamp(zero_point_y + round_half_up((a − zero_point_a) / (b − zero_point_b) · scale_a / (scale_b · scale_y)))`.
///
/// Shapes, repetition of `b` and places in memory as [`super::Add`]; `a` and `b` are i8 or i16. What is divided by zero
/// saturates: the clamp's highest or lowest value by the sign of the dividend, as QuantizeLinear makes of an infinity;
/// 0 / 0 is taken for 0. One rounding of the whole quotient: the error against the f64 definition is at most
/// `1/2 + |y − zero_point_y| / 2^31` steps.
#[derive(Debug, Clone, Copy)]
pub struct Div;

impl Operator for Div {
    const KIND: OpKind = OpKind::Div;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        binary::check(op, plan)?;
        memory::check_16_bits(&plan.input(op, 0)?)?;
        memory::check_16_bits(&plan.input(op, 1)?)?;
        let p: DivParams = memory::params(op)?;
        memory::multiplier(p.mantissa, p.shift)?;
        memory::check_clamp(p.clamp, &plan.output(op, 0)?)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let p: DivParams = memory::params(op)?;
        let multiplier = memory::multiplier(p.mantissa, p.shift)?;
        let (a, b, y) = (plan.input(op, 0)?, plan.input(op, 1)?, plan.output(op, 0)?);
        let [a_zero, b_zero, y_zero] = [a, b, y].map(|tensor| i32::from(tensor.zero_point));
        let [low, high] = p.clamp;
        binary::run(op, plan, arena, |a, b| {
            let (dividend, divisor) = (a.wrapping_sub(a_zero), b.wrapping_sub(b_zero));
            if divisor == 0 && dividend != 0 {
                return if dividend > 0 { high } else { low };
            }
            // A negative divisor's sign goes to the dividend; differences have 17 bits.
            let dividend = if divisor < 0 { dividend.wrapping_neg() } else { dividend };
            let quotient = apply_divided(dividend, multiplier, divisor.unsigned_abs().into());
            y_zero.saturating_add(quotient).max(low).min(high)
        })
    }
}
