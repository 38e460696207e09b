//! What the element-wise operators of two tensors share.

use super::memory::{self, BLOCK};
use crate::error::Reason;
use crate::plan::{OpView, Plan, TensorRecord};

/// Checks shapes and overlaps: `y` has the elements of `a`; `b` has as many or repeats along the leading axes.
pub(crate) fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
    memory::check_arity(op, 2)?;
    let (a, b, y) = (plan.input(op, 0)?, plan.input(op, 1)?, plan.output(op, 0)?);
    let repeats = memory::elements(&a).checked_rem(memory::elements(&b)) == Some(0);
    if a.elements() != y.elements() || !repeats {
        return Err(Reason::OperatorShape);
    }
    memory::check_in_place(&a, &y)?;
    memory::check_in_place(&b, &y)
}

/// `y[i] = f(a[i], b[i mod len(b)])` in blocks; `y` may take the place of `a` or `b`.
#[inline(always)]
pub(crate) fn run(
    op: &OpView<'_>,
    plan: &Plan<'_>,
    arena: &mut [u8],
    f: impl Fn(i32, i32) -> i32,
) -> Result<(), Reason> {
    run_blocks(op, plan, arena, |values, others| {
        for (value, &other) in values.iter_mut().zip(others) {
            *value = f(*value, other);
        }
    })
}

/// As [`run`], of a function that makes results of a block of values of `a`, given those of `b`.
#[inline(always)]
pub(crate) fn run_blocks(
    op: &OpView<'_>,
    plan: &Plan<'_>,
    arena: &mut [u8],
    f: impl Fn(&mut [i32; BLOCK], &[i32; BLOCK]),
) -> Result<(), Reason> {
    let (a, b, y) = (plan.input(op, 0)?, plan.input(op, 1)?, plan.output(op, 0)?);
    let (len, b_len) = (memory::elements(&y), memory::elements(&b));
    let (mut values, mut others) = ([0i32; BLOCK], [0i32; BLOCK]);
    let mut b_at = 0usize;
    for start in (0..len).step_by(BLOCK) {
        memory::load(memory::bytes(plan, arena, &a)?, a.dtype, start, &mut values);
        b_at = load_repeated(memory::bytes(plan, arena, &b)?, &b, b_at, b_len, &mut others);
        f(&mut values, &others);
        memory::store(memory::bytes_mut(arena, &y)?, y.dtype, start, &values);
    }
    Ok(())
}

/// Fills a block from element `at` on, beginning anew at the tensor's end; returns where it stopped.
fn load_repeated(bytes: &[u8], tensor: &TensorRecord, mut at: usize, len: usize, block: &mut [i32]) -> usize {
    let mut rest = block;
    while !rest.is_empty() && at < len {
        let run = rest.len().min(len.wrapping_sub(at));
        let Some((now, later)) = rest.split_at_mut_checked(run) else { break };
        memory::load(bytes, tensor.dtype, at, now);
        at = at.wrapping_add(run);
        if at >= len {
            at = 0;
        }
        rest = later;
    }
    at
}
