//! Permutation of axes.

use super::memory;
use crate::error::Reason;
use crate::op::{OpKind, TransposeParams};
use crate::operator::Operator;
use crate::plan::{OpView, Plan, TensorRecord};

/// Output axis `i` is input axis `perm[i]`, of four axes (shapes padded with leading ones): exact.
///
/// `x` and `y` have one dtype, scale and zero point.
#[derive(Debug, Clone, Copy)]
pub struct Transpose;

/// Sizes of the output's axes, and how far apart their elements lie in the input.
struct Axes {
    sizes: [usize; 4],
    strides: [usize; 4],
}

impl Axes {
    fn new(op: &OpView<'_>, x: &TensorRecord, y: &TensorRecord) -> Result<Self, Reason> {
        let p: TransposeParams = memory::params(op)?;
        let (x_sizes, sizes) = (memory::leading_ones(x), memory::leading_ones(y));
        let [_, d1, d2, d3] = x_sizes;
        let x_strides = [d1.wrapping_mul(d2).wrapping_mul(d3), d2.wrapping_mul(d3), d3, 1];
        let mut strides = [0; 4];
        let mut seen = 0u32;
        for ((&axis, size), stride) in p.perm.iter().zip(sizes).zip(&mut strides) {
            let axis = axis as usize;
            if x_sizes.get(axis) != Some(&size) {
                return Err(Reason::OperatorShape);
            }
            *stride = x_strides.get(axis).copied().unwrap_or(0);
            seen |= 1 << (axis & 3);
        }
        if seen == 0b1111 { Ok(Self { sizes, strides }) } else { Err(Reason::OperatorShape) }
    }

    fn run(&self, size: usize, x: &[u8], y: &mut [u8]) -> Option<()> {
        let [s0, s1, s2, s3] = self.strides.map(|stride| stride.wrapping_mul(size));
        let [d0, d1, d2, d3] = self.sizes;
        let mut at = 0usize;
        for i0 in 0..d0 {
            for i1 in 0..d1 {
                for i2 in 0..d2 {
                    let start = i0.wrapping_mul(s0).wrapping_add(i1.wrapping_mul(s1)).wrapping_add(i2.wrapping_mul(s2));
                    if s3 == size {
                        let row = x.get(start..start.wrapping_add(d3.wrapping_mul(size)))?;
                        memory::copy(y, at, row)?;
                        at = at.wrapping_add(row.len());
                        continue;
                    }
                    for i3 in 0..d3 {
                        let from = start.wrapping_add(i3.wrapping_mul(s3));
                        for byte in 0..size {
                            *y.get_mut(at.wrapping_add(byte))? = *x.get(from.wrapping_add(byte))?;
                        }
                        at = at.wrapping_add(size);
                    }
                }
            }
        }
        Some(())
    }
}

impl Operator for Transpose {
    const KIND: OpKind = OpKind::Transpose;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 1)?;
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        memory::check_same_quantization(&x, &y)?;
        Axes::new(op, &x, &y)?;
        memory::check_disjoint(&x, &y)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let axes = Axes::new(op, &x, &y)?;
        let (inputs, out) = memory::split(plan, arena, &y)?;
        axes.run(y.dtype.size(), inputs.bytes(&x)?, out).ok_or(Reason::OperatorShape)
    }
}
