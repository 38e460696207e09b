//! Change of scale, zero point or dtype.

use super::memory::{self, BLOCK};
#[cfg(neon)]
use super::neon;
use crate::error::Reason;
use crate::op::{OpKind, RequantizeParams};
use crate::operator::Operator;
#[cfg(neon)]
use crate::plan::DType;
use crate::plan::{OpView, Plan};
use crate::quant;

/// `y = clamp(zero_point_y + round_half_up((x − zero_point_x) · scale_x / scale_y))`, element by element.
///
/// Any shape and dtypes. In place when the dtypes agree. One rounding: the result is
/// within half a step (plus `2^-31` of the value, from the multiplier) of the f64 definition.
#[derive(Debug, Clone, Copy)]
pub struct Requantize;

impl Operator for Requantize {
    const KIND: OpKind = OpKind::Requantize;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 1)?;
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let p: RequantizeParams = memory::params(op)?;
        if x.elements() != y.elements() {
            return Err(Reason::OperatorShape);
        }
        memory::multiplier(p.mantissa, p.shift)?;
        memory::check_clamp(p.clamp, &y)?;
        memory::check_in_place(&x, &y)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let p: RequantizeParams = memory::params(op)?;
        let multiplier = memory::multiplier(p.mantissa, p.shift)?;
        let (x_zero, y_zero) = (i32::from(x.zero_point), i32::from(y.zero_point));
        #[cfg(neon)]
        if [x, y].iter().all(|tensor| tensor.dtype == DType::I8)
            && let Some(rescale) = neon::Rescale::new(multiplier, [x_zero, y_zero], p.clamp)
        {
            rescale.run(memory::moved(plan, arena, [&x, &y])?);
            return Ok(());
        }
        let len = memory::elements(&y);
        let mut block = [0i32; BLOCK];
        // Each block is read before it is written, so the output may take the input's place.
        for start in (0..len).step_by(BLOCK) {
            memory::load(memory::bytes(plan, arena, &x)?, x.dtype, start, &mut block);
            for value in &mut block {
                *value = quant::requantize(value.wrapping_sub(x_zero), multiplier, y_zero, p.clamp[0], p.clamp[1]);
            }
            memory::store(memory::bytes_mut(arena, &y)?, y.dtype, start, &block);
        }
        Ok(())
    }
}
