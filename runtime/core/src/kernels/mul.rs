//! Element-wise multiplication.

#[cfg(neon)]
use super::neon;
use super::{binary, memory};
use crate::error::Reason;
use crate::op::{MulParams, OpKind};
use crate::operator::Operator;
#[cfg(neon)]
use crate::plan::DType;
use crate::plan::{OpView, Plan};

/// `y = clamp(zero_point_y + round_half_up((a − zero_point_a) · (b − zero_point_b) · scale_a · scale_b / scale_y))`.
///
/// Shapes, repetition of `b` and places in memory as [`super::Add`]; `a` and `b` are i8 or i16. One rounding: the error against
/// the f64 definition is at most `1/2 + |y − zero_point_y| / 2^31` steps.
#[derive(Debug, Clone, Copy)]
pub struct Mul;

impl Operator for Mul {
    const KIND: OpKind = OpKind::Mul;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        binary::check(op, plan)?;
        memory::check_16_bits(&plan.input(op, 0)?)?;
        memory::check_16_bits(&plan.input(op, 1)?)?;
        let p: MulParams = memory::params(op)?;
        memory::multiplier(p.mantissa, p.shift)?;
        memory::check_clamp(p.clamp, &plan.output(op, 0)?)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let p: MulParams = memory::params(op)?;
        let multiplier = memory::multiplier(p.mantissa, p.shift)?;
        let (a, b, y) = (plan.input(op, 0)?, plan.input(op, 1)?, plan.output(op, 0)?);
        let [a_zero, b_zero, y_zero] = [a, b, y].map(|tensor| i32::from(tensor.zero_point));
        #[cfg(neon)]
        if [a, b, y]
            .iter()
            .all(|tensor| tensor.dtype == DType::I8 && !tensor.is_const() && tensor.elements() == y.elements())
            && let Some(rescale) = neon::Rescale::new(multiplier, [a_zero, y_zero], p.clamp)
        {
            let offsets = [a, b, y].map(|tensor| tensor.offset as usize);
            let done = neon::mul(arena, offsets, memory::elements(&y), b_zero, &rescale);
            return done.ok_or(Reason::TensorBounds);
        }
        binary::run(op, plan, arena, |a, b| {
            // Two 17-bit differences: their product takes 64 bits.
            let product = i64::from(a.wrapping_sub(a_zero)).wrapping_mul(i64::from(b.wrapping_sub(b_zero)));
            y_zero.saturating_add(multiplier.apply_wide(product)).max(p.clamp[0]).min(p.clamp[1])
        })
    }
}
