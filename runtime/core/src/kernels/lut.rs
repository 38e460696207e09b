//! Unary functions as tables.

use super::memory::{self, BLOCK};
use crate::error::Reason;
use crate::op::{LutParams, OpKind};
use crate::operator::Operator;
use crate::plan::{DType, OpView, Plan, TensorRecord};

/// `y = table[x + 128]`: any shape, `x` i8, `y` of any dtype; in place for i8.
///
/// Exact: the table holds the quantized function of each of the 256 inputs.
#[derive(Debug, Clone, Copy)]
pub struct Lut;

/// Entries of a table.
const ENTRIES: usize = 256;

/// The table's bytes.
fn table<'a>(op: &OpView<'_>, plan: &Plan<'a>, y: &TensorRecord) -> Result<&'a [u8], Reason> {
    let p: LutParams = memory::params(op)?;
    let bytes = plan.constant(p.table).ok_or(Reason::OperatorConstant)?;
    if bytes.len() == ENTRIES.wrapping_mul(y.dtype.size()) { Ok(bytes) } else { Err(Reason::OperatorConstant) }
}

impl Operator for Lut {
    const KIND: OpKind = OpKind::Lut;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 1)?;
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        memory::check_i8(&x)?;
        if x.elements() != y.elements() {
            return Err(Reason::OperatorShape);
        }
        table(op, plan, &y)?;
        memory::check_in_place(&x, &y)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let table = table(op, plan, &y)?;
        if let (DType::I8, Some(table)) = (y.dtype, table.first_chunk::<ENTRIES>()) {
            return run_bytes(plan, arena, [&x, &y], table);
        }
        let mut block = [0i32; BLOCK];
        for start in (0..memory::elements(&y)).step_by(BLOCK) {
            memory::load(memory::bytes(plan, arena, &x)?, x.dtype, start, &mut block);
            for value in &mut block {
                let entry = value.wrapping_add(128) as usize & (ENTRIES - 1);
                memory::load(table, y.dtype, entry, core::slice::from_mut(value));
            }
            memory::store(memory::bytes_mut(arena, &y)?, y.dtype, start, &block);
        }
        Ok(())
    }
}

/// A table of bytes.
fn run_bytes(
    plan: &Plan<'_>,
    arena: &mut [u8],
    [x, y]: [&TensorRecord; 2],
    table: &[u8; ENTRIES],
) -> Result<(), Reason> {
    #[cfg(neon)]
    {
        super::neon::look_up(table, memory::moved(plan, arena, [x, y])?);
        Ok(())
    }
    #[cfg(not(neon))]
    {
        let entry = |x: u8| table[usize::from(x.wrapping_add(128))];
        if !x.is_const() && x.offset == y.offset {
            for slot in memory::bytes_mut(arena, y)? {
                *slot = entry(*slot);
            }
            return Ok(());
        }
        let (inputs, out) = memory::split(plan, arena, y)?;
        for (slot, &x) in out.iter_mut().zip(inputs.bytes(x)?) {
            *slot = entry(x);
        }
        Ok(())
    }
}
