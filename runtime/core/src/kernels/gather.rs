//! Slices of a tensor, chosen by integers.

use super::memory;
use crate::error::Reason;
use crate::op::{GatherParams, OpKind};
use crate::operator::Operator;
use crate::plan::{DType, OpView, Plan, TensorRecord};

/// `y[.., i, ..] = x[.., index[i], ..]` along one axis: exact.
///
/// `x` and `y` have one dtype, scale and zero point; indices are i32 with scale 1. They are known only when the operator
/// runs, so that is where they are checked: one that names nothing is [`Reason::IndexOutOfRange`], and nothing is read.
#[derive(Debug, Clone, Copy)]
pub struct Gather;

/// How the input's memory is cut: `outer` blocks of `size` rows of `row` bytes.
struct Rows {
    size: usize,
    row: usize,
}

impl Rows {
    fn new(op: &OpView<'_>, x: &TensorRecord) -> Result<Self, Reason> {
        let axis = memory::params::<GatherParams>(op)?.axis as usize;
        let (&size, after) = x.shape().get(axis..).and_then(<[u32]>::split_first).ok_or(Reason::OperatorShape)?;
        let row = after.iter().fold(x.dtype.size(), |len, &dim| len.wrapping_mul(dim as usize));
        Ok(Self { size: size as usize, row })
    }

    /// The first byte of the row that an index names, in a block.
    fn start(&self, index: i32) -> Result<usize, Reason> {
        let place = if index < 0 { self.size.checked_sub(index.unsigned_abs() as usize) } else { Some(index as usize) };
        let row = place.filter(|&place| place < self.size).ok_or(Reason::IndexOutOfRange)?;
        Ok(row.wrapping_mul(self.row))
    }
}

impl Operator for Gather {
    const KIND: OpKind = OpKind::Gather;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 2)?;
        let (x, indices, y) = (plan.input(op, 0)?, plan.input(op, 1)?, plan.output(op, 0)?);
        memory::check_same_quantization(&x, &y)?;
        let rows = Rows::new(op, &x)?;
        let block = rows.size.wrapping_mul(rows.row);
        // Sizes of tensors that parsing has bounded: no product of two overflows 64 bits.
        let bytes = |tensor: &TensorRecord| tensor.byte_len().map(u64::from).ok_or(Reason::Tensor);
        let blocks = bytes(&x)?.checked_div(block as u64).ok_or(Reason::OperatorShape)?;
        let gathered = (rows.row as u64).wrapping_mul(memory::elements(&indices) as u64);
        let fits = blocks.checked_mul(gathered) == Some(bytes(&y)?);
        if indices.dtype != DType::I32 || indices.scale != 1.0 || !fits {
            return Err(Reason::OperatorShape);
        }
        memory::check_disjoint(&x, &y)?;
        memory::check_disjoint(&indices, &y)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (x, indices, y) = (plan.input(op, 0)?, plan.input(op, 1)?, plan.output(op, 0)?);
        let rows = Rows::new(op, &x)?;
        let (inputs, out) = memory::split(plan, arena, &y)?;
        let (indices, _) = inputs.bytes(&indices)?.as_chunks::<4>();
        let mut at = 0usize;
        for block in inputs.bytes(&x)?.chunks_exact(rows.size.wrapping_mul(rows.row).max(1)) {
            for &index in indices {
                let start = rows.start(i32::from_le_bytes(index))?;
                let row = block.get(start..start.wrapping_add(rows.row)).ok_or(Reason::OperatorShape)?;
                memory::copy(out, at, row).ok_or(Reason::OperatorShape)?;
                at = at.wrapping_add(rows.row);
            }
        }
        Ok(())
    }
}
