//! Operators run again: the steps of a sequence.

use super::memory;
use crate::error::Reason;
use crate::op::{OpKind, RepeatParams};
use crate::operator::{Operator, OperatorSet};
use crate::plan::{OpView, Plan};

/// Runs the `len` operators before it `times` times more.
///
/// They were checked as all operators are, and none of them repeats others. The one output is that of the last of them.
#[derive(Debug, Clone, Copy)]
pub struct Repeat;

/// Operators of a plan, at most, before one that repeats some: finding those takes time in proportion.
const MAX_INDEX: u16 = 4095;
/// Repetitions at most.
const MAX_TIMES: u32 = 65_535;

impl Repeat {
    /// The operators repeated.
    fn body<'a>(op: &OpView<'_>, plan: &Plan<'a>) -> Result<impl Iterator<Item = OpView<'a>> + Clone, Reason> {
        let len = memory::params::<RepeatParams>(op)?.len;
        let first = u32::from(op.index).checked_sub(len).filter(|_| len > 0).ok_or(Reason::OperatorRange)?;
        Ok(plan.ops().skip(first as usize).take(len as usize))
    }
}

impl Operator for Repeat {
    const KIND: OpKind = OpKind::Repeat;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 0)?;
        let times = memory::params::<RepeatParams>(op)?.times;
        if op.index > MAX_INDEX || times == 0 || times > MAX_TIMES {
            return Err(Reason::OperatorRange);
        }
        let mut last = None;
        for repeated in Self::body(op, plan)? {
            if repeated.kind == OpKind::Repeat {
                return Err(Reason::Operator);
            }
            last = repeated.output(0);
        }
        if last == op.output(0) { Ok(()) } else { Err(Reason::Operator) }
    }

    fn run(_: &OpView<'_>, _: &Plan<'_>, _: &mut [u8]) -> Result<(), Reason> {
        // What it runs depends on the set it is in.
        Err(Reason::OperatorNotRegistered)
    }

    fn run_in<O: OperatorSet>(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let body = Self::body(op, plan)?;
        for _ in 0..memory::params::<RepeatParams>(op)?.times {
            for repeated in body.clone() {
                O::run(&repeated, plan, arena)?;
            }
        }
        Ok(())
    }
}
