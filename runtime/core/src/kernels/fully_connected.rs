//! Matrix product with constant weights.

use super::bands::{self, Bands, band_height};
use super::channels::{Channels, Output};
use super::linear::{Linear, Place, Rows};
use super::memory;
use super::patches::patches_len;
use super::weights::{Int4, Int8, MAX_FILTER, Matrix, Width, by_width, filter_len};
use super::window::Axis;
use crate::error::Reason;
use crate::op::FullyConnectedParams;
use crate::plan::{OpView, Plan, TensorRecord};

/// `y[r, o] = requantize(bias'[o] + Σ_k w[o, k] · x[r, k])`.
///
/// `x` is i8 `[..., K]`, every leading axis a row; `w` i8 `[O, K]`; `y` has any dtype, the same rows and
/// `O` last. Weights are packed by [`pack_fully_connected`]; a second output of i32 is memory to work in:
/// [`patches_len`] words. Sums wrap at 32 bits on every target. One rounding, half up, per element.
#[derive(Debug, Clone, Copy)]
pub struct FullyConnected;

/// [`FullyConnected`] with weights of 4 bits, packed by [`super::pack_int4`] in rows of [`filter_len`]`(1, K)`.
#[derive(Debug, Clone, Copy)]
pub struct FullyConnectedI4;

/// A record's geometry and constants, checked.
struct Product<'a, W: Width> {
    rows: usize,
    depth: usize,
    linear: Linear<'a, W>,
}

impl<'a, W: Width> Product<'a, W> {
    fn new(p: &FullyConnectedParams, x: &TensorRecord, y: &TensorRecord, plan: &Plan<'a>) -> Result<Self, Reason> {
        let last = |tensor: &TensorRecord| tensor.shape().last().map(|&d| d as usize).ok_or(Reason::OperatorShape);
        let (depth, outputs) = (last(x)?, last(y)?);
        let rows = memory::elements(x).checked_div(depth).ok_or(Reason::OperatorShape)?;
        let y_len = rows.checked_mul(outputs).ok_or(Reason::OperatorShape)?;
        if y_len != memory::elements(y) || depth > MAX_FILTER {
            return Err(Reason::OperatorShape);
        }
        let filter_len = filter_len(1, depth);
        let weights = Matrix::new(plan, p.weights, outputs, filter_len)?;
        let channels = Channels::new(plan, [p.bias, p.mantissas, p.shifts], outputs, p.clamp, y)?;
        Ok(Self { rows, depth, linear: Linear { weights, channels, filter_len, out_channels: outputs } })
    }
}

fn check<W: Width>(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
    memory::check_work_arity(op, 1)?;
    let (x, y, work) = (plan.input(op, 0)?, plan.output(op, 0)?, plan.output(op, 1)?);
    memory::check_i8(&x)?;
    let product = Product::<W>::new(&W::params(op)?, &x, &y, plan)?;
    product.linear.channels.check(&y)?;
    memory::check_work(&work, patches_len(product.linear.filter_len, product.rows), [&x, &y])?;
    bands::check([&x, &y], 1, Axis::of_pixels(product.rows), band_height([product.rows, 1]))
}

fn run<W: Width>(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
    let (x, y, work) = (plan.input(op, 0)?, plan.output(op, 0)?, plan.output(op, 1)?);
    let Product { rows, depth, linear } = Product::<W>::new(&W::params(op)?, &x, &y, plan)?;
    let bands = Bands::new([&x, &y], Axis::of_pixels(rows), band_height([rows, 1])).ok_or(Reason::OperatorShape)?;
    let place = Place { pixel: 0, first: 0, end: linear.out_channels };
    for band in bands {
        let (inputs, out, work) = memory::split_work(plan, arena, [&y, &work], band.y)?;
        let mut out = Output::new(out, y.dtype);
        let source = Rows { x: memory::as_i8(inputs.part(&x, band.x)?)?, depth };
        linear.run(&source, band.rows.output, place, work, &mut out).ok_or(Reason::OperatorShape)?;
    }
    Ok(())
}

by_width!(FullyConnected Int8, FullyConnectedI4 Int4);

/// Packs weights `[O, K]` as filters of [`filter_len`]`(1, K)` elements.
///
/// # Errors
///
/// [`Reason::BufferMismatch`] when a length is not what the sizes make it.
pub fn pack_fully_connected(ok: &[i8], [o, k]: [usize; 2], packed: &mut [i8]) -> Result<(), Reason> {
    super::pack_conv2d(ok, [o, k, 1, 1], 1, 1, packed)
}
