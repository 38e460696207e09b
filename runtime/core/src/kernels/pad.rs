//! Constant padding.

use super::memory;
use crate::error::Reason;
use crate::op::{OpKind, PadParams};
use crate::operator::Operator;
use crate::plan::{OpView, Plan};

/// `y` is `x` surrounded by `value`, over four axes (shapes padded with leading ones): exact.
///
/// `x` and `y` have one dtype, scale and zero point.
#[derive(Debug, Clone, Copy)]
pub struct Pad;

fn run(p: &PadParams, [x_sizes, y_sizes]: [[usize; 4]; 2], size: usize, x: &[u8], y: &mut [u8]) -> Option<()> {
    let value = p.value.to_le_bytes();
    for element in y.chunks_exact_mut(size) {
        memory::copy(element, 0, value.get(..size)?)?;
    }
    let [d0, d1, d2, d3] = x_sizes;
    let [_, e1, e2, e3] = y_sizes;
    let [b0, b1, b2, b3] = p.before.map(|before| before as usize);
    let row_len = d3.wrapping_mul(size);
    let mut rows = x.chunks_exact(row_len.max(1));
    for i0 in 0..d0 {
        for i1 in 0..d1 {
            for i2 in 0..d2 {
                let row = i0.wrapping_add(b0).wrapping_mul(e1).wrapping_add(i1).wrapping_add(b1);
                let row = row.wrapping_mul(e2).wrapping_add(i2).wrapping_add(b2);
                let at = row.wrapping_mul(e3).wrapping_add(b3).wrapping_mul(size);
                memory::copy(y, at, rows.next()?)?;
            }
        }
    }
    Some(())
}

impl Operator for Pad {
    const KIND: OpKind = OpKind::Pad;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 1)?;
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let p: PadParams = memory::params(op)?;
        memory::check_same_quantization(&x, &y)?;
        let sizes = memory::leading_ones(&x).into_iter().zip(memory::leading_ones(&y));
        let mut pads = p.before.iter().zip(p.after);
        let fits = sizes.zip(&mut pads).all(|((x, y), (&before, after))| {
            (x as u64).wrapping_add(u64::from(before)).wrapping_add(u64::from(after)) == y as u64
        });
        if !fits {
            return Err(Reason::OperatorShape);
        }
        memory::check_clamp([p.value, p.value], &y)?;
        memory::check_disjoint(&x, &y)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let p: PadParams = memory::params(op)?;
        let (inputs, out) = memory::split(plan, arena, &y)?;
        let sizes = [&x, &y].map(memory::leading_ones);
        run(&p, sizes, y.dtype.size(), inputs.bytes(&x)?, out).ok_or(Reason::OperatorShape)
    }
}
