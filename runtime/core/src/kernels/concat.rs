//! Concatenation.

use super::memory;
use crate::error::Reason;
use crate::op::{ConcatParams, OpKind};
use crate::operator::Operator;
use crate::plan::{OpView, Plan, TensorRecord};

/// Joins one or more inputs along `axis`: exact.
///
/// All tensors have one rank, dtype, scale and zero point, and equal sizes beside the axis.
#[derive(Debug, Clone, Copy)]
pub struct Concat;

/// Bytes of a tensor that follow one another for each position of the axes before `axis`.
fn run_len(tensor: &TensorRecord, axis: usize) -> usize {
    let inner = tensor.shape().iter().skip(axis).fold(1usize, |len, &dim| len.wrapping_mul(dim as usize));
    inner.wrapping_mul(tensor.dtype.size())
}

impl Operator for Concat {
    const KIND: OpKind = OpKind::Concat;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        if op.input_count() == 0 || op.output_count() != 1 {
            return Err(Reason::Operator);
        }
        let y = plan.output(op, 0)?;
        let axis = memory::params::<ConcatParams>(op)?.axis as usize;
        let mut total = 0u64;
        for i in 0..op.input_count() {
            let x = plan.input(op, i)?;
            memory::check_same_quantization(&x, &y)?;
            memory::check_disjoint(&x, &y)?;
            let beside = (0..4).zip(x.dims).zip(y.dims).all(|((i, x), y)| i == axis || x == y);
            if x.rank != y.rank || !beside {
                return Err(Reason::OperatorShape);
            }
            total = total.wrapping_add(x.shape().get(axis).copied().ok_or(Reason::OperatorShape)?.into());
        }
        if y.shape().get(axis).copied().map(u64::from) == Some(total) { Ok(()) } else { Err(Reason::OperatorShape) }
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let y = plan.output(op, 0)?;
        let axis = memory::params::<ConcatParams>(op)?.axis as usize;
        let (inputs, out) = memory::split(plan, arena, &y)?;
        let stride = run_len(&y, axis);
        let mut offset = 0usize;
        for i in 0..op.input_count() {
            let x = plan.input(op, i)?;
            let len = run_len(&x, axis);
            let mut at = offset;
            for run in inputs.bytes(&x)?.chunks_exact(len.max(1)) {
                memory::copy(out, at, run).ok_or(Reason::OperatorShape)?;
                at = at.wrapping_add(stride);
            }
            offset = offset.wrapping_add(len);
        }
        Ok(())
    }
}
