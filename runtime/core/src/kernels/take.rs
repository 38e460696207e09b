//! Elements at constant indices.

use super::memory;
use crate::error::Reason;
use crate::op::{OpKind, TakeParams};
use crate::operator::Operator;
use crate::plan::{OpView, Plan, TensorRecord};

/// `y[i0, i1, i2, i3] = x[n0[i0], n1[i1], n2[i2], n3[i3]]` for lists `n` of indices, over four axes (shapes padded with
/// leading ones): exact.
///
/// `x` and `y` have one dtype, scale and zero point.
#[derive(Debug, Clone, Copy)]
pub struct Take;

/// The indices along an axis.
#[derive(Clone, Copy)]
struct Axis<'a> {
    /// Sizes of input and output.
    sizes: [usize; 2],
    /// `None`: as they are.
    indices: Option<&'a [u16]>,
}

impl Axis<'_> {
    /// The input's index at the output's index `i`.
    fn at(&self, i: usize) -> Option<usize> {
        match self.indices {
            Some(indices) => indices.get(i).map(|&index| usize::from(index)),
            None => Some(i),
        }
    }
}

/// The four axes; checks that every index lies inside the input if `check` is set.
fn axes<'a>(
    op: &OpView<'_>,
    plan: &Plan<'a>,
    [x, y]: [&TensorRecord; 2],
    check: bool,
) -> Result<[Axis<'a>; 4], Reason> {
    let p: TakeParams = memory::params(op)?;
    let mut axes = [Axis { sizes: [1; 2], indices: None }; 4];
    let sizes = memory::leading_ones(x).into_iter().zip(memory::leading_ones(y));
    for ((axis, (input, output)), list) in axes.iter_mut().zip(sizes).zip(p.indices) {
        axis.sizes = [input, output];
        if list.len == 0 {
            if input != output {
                return Err(Reason::OperatorShape);
            }
            continue;
        }
        let indices = memory::constants::<u16>(plan, list, output)?;
        if check && !indices.iter().all(|&index| usize::from(index) < input) {
            return Err(Reason::OperatorConstant);
        }
        axis.indices = Some(indices);
    }
    Ok(axes)
}

fn run([a0, a1, a2, a3]: &[Axis<'_>; 4], size: usize, x: &[u8], y: &mut [u8]) -> Option<()> {
    let row_len = a3.sizes[0].wrapping_mul(size);
    let mut at = 0usize;
    for i0 in 0..a0.sizes[1] {
        let plane = a0.at(i0)?.wrapping_mul(a1.sizes[0]);
        for i1 in 0..a1.sizes[1] {
            let rows = plane.wrapping_add(a1.at(i1)?).wrapping_mul(a2.sizes[0]);
            for i2 in 0..a2.sizes[1] {
                let start = rows.wrapping_add(a2.at(i2)?).wrapping_mul(row_len);
                let row = x.get(start..start.wrapping_add(row_len))?;
                let Some(indices) = a3.indices else {
                    memory::copy(y, at, row)?;
                    at = at.wrapping_add(row_len);
                    continue;
                };
                for &index in indices {
                    let from = usize::from(index).wrapping_mul(size);
                    memory::copy(y, at, row.get(from..from.wrapping_add(size))?)?;
                    at = at.wrapping_add(size);
                }
            }
        }
    }
    Some(())
}

impl Operator for Take {
    const KIND: OpKind = OpKind::Take;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 1)?;
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        memory::check_same_quantization(&x, &y)?;
        axes(op, plan, [&x, &y], true)?;
        memory::check_disjoint(&x, &y)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let axes = axes(op, plan, [&x, &y], false)?;
        let (inputs, out) = memory::split(plan, arena, &y)?;
        run(&axes, y.dtype.size(), inputs.bytes(&x)?, out).ok_or(Reason::OperatorShape)
    }
}
