//! Matrix product with constant weights.

use super::channels::{Channels, Output};
use super::memory;
use super::weights::{GROUP, Int4, Int8, Matrix, Width, by_width};
use crate::error::Reason;
use crate::op::FullyConnectedParams;
use crate::plan::{OpView, Plan, TensorRecord};

/// `y[r, o] = requantize(bias'[o] + Σ_k w[o, k] · x[r, k])`.
///
/// `x` is i8 `[..., K]`, every leading axis a row; `w` i8 `[O, K]`; `y` has any dtype, the same rows and
/// `O` last. Sums wrap at 32 bits on every target. One rounding, half up, per element.
#[derive(Debug, Clone, Copy)]
pub struct FullyConnected;

/// [`FullyConnected`] with weights of 4 bits, packed by [`super::pack_int4`] in rows of `K`.
#[derive(Debug, Clone, Copy)]
pub struct FullyConnectedI4;

/// A record's geometry and constants, checked.
struct Product<'a, W: Width> {
    rows: usize,
    depth: usize,
    outputs: usize,
    weights: Matrix<'a, W>,
    channels: Channels<'a>,
}

impl<'a, W: Width> Product<'a, W> {
    fn new(p: &FullyConnectedParams, x: &TensorRecord, y: &TensorRecord, plan: &Plan<'a>) -> Result<Self, Reason> {
        let last = |tensor: &TensorRecord| tensor.shape().last().map(|&d| d as usize).ok_or(Reason::OperatorShape);
        let (depth, outputs) = (last(x)?, last(y)?);
        let rows = memory::elements(x).checked_div(depth).ok_or(Reason::OperatorShape)?;
        let y_len = rows.checked_mul(outputs).ok_or(Reason::OperatorShape)?;
        if y_len != memory::elements(y) {
            return Err(Reason::OperatorShape);
        }
        let weights = Matrix::new(plan, p.weights, outputs, depth)?;
        let channels = Channels::new(plan, [p.bias, p.mantissas, p.shifts], outputs, p.clamp, y)?;
        Ok(Self { rows, depth, outputs, weights, channels })
    }

    fn run(&self, x: &[i8], y: &mut Output<'_>) -> Option<()> {
        for row in 0..self.rows {
            let start = row.wrapping_mul(self.depth);
            let x = x.get(start..start.wrapping_add(self.depth))?;
            for o in (0..self.outputs).step_by(GROUP) {
                let mut acc = [0i32; GROUP];
                W::dot(x, &self.weights.rows(o, self.outputs)?, 0, &mut acc)?;
                for (o, acc) in (o..self.outputs).zip(acc) {
                    y.put(row.wrapping_mul(self.outputs).wrapping_add(o), self.channels.finish(o, acc)?)?;
                }
            }
        }
        Some(())
    }
}

fn check<W: Width>(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
    memory::check_arity(op, 1)?;
    let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
    memory::check_i8(&x)?;
    Product::<W>::new(&W::params(op)?, &x, &y, plan)?.channels.check(&y)?;
    memory::check_disjoint(&x, &y)
}

fn run<W: Width>(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
    let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
    let product = Product::<W>::new(&W::params(op)?, &x, &y, plan)?;
    let (inputs, out) = memory::split(plan, arena, &y)?;
    product.run(inputs.i8s(&x)?, &mut Output::new(out, y.dtype)).ok_or(Reason::OperatorShape)
}

by_width!(FullyConnected Int8, FullyConnectedI4 Int4);

/// Packs weights `[K, O]` (ONNX MatMul, or Gemm with `transB = 0`) as `[O, K]`.
///
/// # Errors
///
/// [`Reason::BufferMismatch`] when a length is not `K · O`.
pub fn pack_fully_connected(ko: &[i8], [k, o]: [usize; 2], packed: &mut [i8]) -> Result<(), Reason> {
    super::conv2d::permute(ko, [k, o, 1, 1], |[k_at, o_at, _, _]| o_at * k + k_at, packed)
}
