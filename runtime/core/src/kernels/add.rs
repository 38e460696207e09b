//! Element-wise addition.

use super::{binary, memory};
use crate::error::Reason;
use crate::op::{AddParams, OpKind};
use crate::operator::Operator;
use crate::plan::{OpView, Plan};

/// `y = clamp(zero_point_y + round_half_up(((a − zero_point_a)·a_factor + (b − zero_point_b)·b_factor) / 2^shift))`.
///
/// `a` and `y` have the same elements, `b` as many or a divisor of it (repeated along the leading axes); each
/// has any dtype. The output may take the place of an input of its dtype and length. With factors rounded to
/// nearest, the error against the f64 definition is at most
/// `1/2 + (|a − zero_point_a| + |b − zero_point_b|) / 2^(shift + 1)` steps.
#[derive(Debug, Clone, Copy)]
pub struct Add;

/// Largest factor.
const MAX_FACTOR: i32 = 1 << 30;

impl Operator for Add {
    const KIND: OpKind = OpKind::Add;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        binary::check(op, plan)?;
        let p: AddParams = memory::params(op)?;
        let factors = 0..=MAX_FACTOR;
        if !factors.contains(&p.a_factor) || !factors.contains(&p.b_factor) || !(1..=62).contains(&p.shift) {
            return Err(Reason::OperatorRange);
        }
        memory::check_clamp(p.clamp, &plan.output(op, 0)?)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let p: AddParams = memory::params(op)?;
        let (a, b, y) = (plan.input(op, 0)?, plan.input(op, 1)?, plan.output(op, 0)?);
        let [a_zero, b_zero, y_zero] = [a, b, y].map(|tensor| i32::from(tensor.zero_point));
        let (a_factor, b_factor) = (i64::from(p.a_factor), i64::from(p.b_factor));
        let (low, high) = (i64::from(p.clamp[0]), i64::from(p.clamp[1]));
        let shift = p.shift & 63;
        let half = 1i64 << (shift.wrapping_sub(1) & 63);
        binary::run(op, plan, arena, |a, b| {
            // At most 2 · 2^31 · 2^30 + 2^61: no overflow.
            let sum = i64::from(a.wrapping_sub(a_zero))
                .wrapping_mul(a_factor)
                .wrapping_add(i64::from(b.wrapping_sub(b_zero)).wrapping_mul(b_factor));
            let y = (sum.wrapping_add(half) >> shift).wrapping_add(i64::from(y_zero));
            y.max(low).min(high) as i32
        })
    }
}
