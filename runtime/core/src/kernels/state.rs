//! What a run leaves to the next one.

use super::memory;
use crate::error::Reason;
use crate::op::{OpKind, StateParams};
use crate::operator::Operator;
use crate::plan::{OpView, Plan};

/// `y = x`, the last thing done in a run: `y` is read by operators of the next run. Exact.
///
/// Both have one dtype, scale and zero point, and the same number of elements. The compiler keeps `y` out of other tensors'
/// way for the whole run.
#[derive(Debug, Clone, Copy)]
pub struct State;

impl State {
    /// Fills the state that a record carries over with what it holds before the first run.
    pub(crate) fn reset(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (y, initial) = (plan.output(op, 0)?, memory::params::<StateParams>(op)?.initial);
        let bytes = memory::bytes_mut(arena, &y)?;
        for at in 0..memory::elements(&y) {
            memory::store(bytes, y.dtype, at, &[initial]);
        }
        Ok(())
    }
}

impl Operator for State {
    const KIND: OpKind = OpKind::State;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 1)?;
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        memory::check_same_quantization(&x, &y)?;
        let initial = memory::params::<StateParams>(op)?.initial;
        memory::check_clamp([initial, initial], &y)?;
        if memory::elements(&x) != memory::elements(&y) {
            return Err(Reason::OperatorShape);
        }
        memory::check_disjoint(&x, &y)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let (inputs, out) = memory::split(plan, arena, &y)?;
        memory::copy(out, 0, inputs.bytes(&x)?).ok_or(Reason::OperatorShape)
    }
}
