//! Indices of largest and smallest elements.

use super::memory::{self, BLOCK};
use crate::error::Reason;
use crate::op::{ArgMaxParams, OpKind};
use crate::operator::Operator;
use crate::plan::{DType, OpView, Plan};

/// The index of the largest (or smallest) element along an axis, the first or the last of equal ones: exact.
///
/// `x` is `[outer, axis, inner]` of any dtype, `y` has `outer · inner` elements of i32 with zero point 0. A positive scale
/// changes no order, so the input's does not matter.
#[derive(Debug, Clone, Copy)]
pub struct ArgMax;

/// Sizes outer, axis, inner.
fn sizes(op: &OpView<'_>, plan: &Plan<'_>) -> Result<[usize; 3], Reason> {
    let x = plan.input(op, 0)?;
    match x.shape() {
        &[outer, axis, inner] if axis > 0 => Ok([outer, axis, inner].map(|size| size as usize)),
        _ => Err(Reason::OperatorShape),
    }
}

impl Operator for ArgMax {
    const KIND: OpKind = OpKind::ArgMax;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 1)?;
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let [outer, _, inner] = sizes(op, plan)?;
        if y.dtype != DType::I32 || memory::elements(&y) != outer.wrapping_mul(inner) {
            return Err(Reason::OperatorShape);
        }
        let p: ArgMaxParams = memory::params(op)?;
        if p.least > 1 || p.select_last > 1 {
            return Err(Reason::OperatorRange);
        }
        memory::check_disjoint(&x, &y)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let p: ArgMaxParams = memory::params(op)?;
        let [outer, axis, inner] = sizes(op, plan)?;
        let (inputs, out) = memory::split(plan, arena, &y)?;
        let input = inputs.bytes(&x)?;
        // The order of complements is the reverse one.
        let flip = if p.least == 1 { -1 } else { 0 };
        let (mut best, mut found, mut values) = ([0i32; BLOCK], [0i32; BLOCK], [0i32; BLOCK]);
        for o in 0..outer {
            for start in (0..inner).step_by(BLOCK) {
                let lanes = BLOCK.min(inner.wrapping_sub(start));
                let parts = (best.get_mut(..lanes), found.get_mut(..lanes), values.get_mut(..lanes));
                let (Some(best), Some(found), Some(values)) = parts else { return Err(Reason::OperatorShape) };
                best.fill(i32::MIN);
                found.fill(0);
                for k in 0..axis {
                    let row = o.wrapping_mul(axis).wrapping_add(k).wrapping_mul(inner);
                    memory::load(input, x.dtype, row.wrapping_add(start), values);
                    for ((best, found), &value) in best.iter_mut().zip(&mut *found).zip(&*values) {
                        let value = value ^ flip;
                        if value > *best || (value == *best && p.select_last == 1) {
                            (*best, *found) = (value, k as i32);
                        }
                    }
                }
                memory::store(out, y.dtype, o.wrapping_mul(inner).wrapping_add(start), found);
            }
        }
        Ok(())
    }
}
