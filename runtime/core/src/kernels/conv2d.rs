//! 2-D convolution.

use super::channels::{Channels, Output};
use super::memory::{self, BLOCK};
use super::weights::{GROUP, Int4, Int8, Matrix, Rows, Width, by_width};
use super::window::{Taps, Window};
use crate::error::Reason;
use crate::op::Conv2dParams;
use crate::plan::{OpView, Plan, TensorRecord};

/// `y[n, oy, ox, o] = requantize(bias'[o] + Σ w[o, ky, kx, c] · x[n, iy, ix, g·C/groups + c] + zero_point_x · Σ_padding w)`.
///
/// `x` is i8 `[N, H, W, C]`, `y` of any dtype `[N, OH, OW, O]`, `w` i8 `[O, kernel_h, kernel_w, C / groups]`.
/// `iy = oy · stride_h − pad_top + ky · dilation_h`, and so for `ix`; taps outside the input have the real
/// value 0. Sums wrap at 32 bits on every target. One rounding, half up, per element.
#[derive(Debug, Clone, Copy)]
pub struct Conv2d;

/// [`Conv2d`] with weights of 4 bits, packed by [`super::pack_int4`] in rows of `kernel_h · kernel_w · C / groups`.
#[derive(Debug, Clone, Copy)]
pub struct Conv2dI4;

/// A record's geometry and constants, checked.
struct Conv<'a, W: Width> {
    window: Window,
    groups: usize,
    /// Input channels per group.
    depth: usize,
    weights: Matrix<'a, W>,
    channels: Channels<'a>,
}

impl<'a, W: Width> Conv<'a, W> {
    fn new(p: &Conv2dParams, x: &TensorRecord, y: &TensorRecord, plan: &Plan<'a>) -> Result<Self, Reason> {
        let window = Window::new(x, y, [p.kernel, p.strides, p.dilations], p.pads, true)?;
        let (inputs, outputs) = (window.in_channels, window.out_channels);
        let groups = p.groups as usize;
        let depth = inputs.checked_div(groups).ok_or(Reason::OperatorShape)?;
        let group_outputs = outputs.checked_div(groups).ok_or(Reason::OperatorShape)?;
        if depth.checked_mul(groups) != Some(inputs) || group_outputs.checked_mul(groups) != Some(outputs) {
            return Err(Reason::OperatorShape);
        }
        let len = window.taps().and_then(|taps| taps.checked_mul(depth)).ok_or(Reason::OperatorShape)?;
        let weights = Matrix::new(plan, p.weights, outputs, len)?;
        let channels = Channels::new(plan, [p.bias, p.mantissas, p.shifts], outputs, p.clamp, y)?;
        Ok(Self { window, groups, depth, weights, channels })
    }

    /// Computes output pixel `pixel` (counted over the whole batch) from one image.
    #[inline(always)]
    fn pixel(&self, image: &[i8], ty: Taps, tx: Taps, x_zero: i32, pixel: usize, y: &mut Output<'_>) -> Option<()> {
        let Window { rows, cols, in_channels, out_channels, .. } = self.window;
        let depth = self.depth;
        let row_len = cols.kernel.wrapping_mul(depth);
        // Neighbouring taps are neighbours in memory, so a row of them is one dot product.
        let joined = self.groups == 1 && cols.dilation.get() == 1;
        let (segments, len) = if joined { (1, tx.len().wrapping_mul(depth)) } else { (tx.len(), depth) };
        let inside = ty.len() == rows.kernel && tx.len() == cols.kernel;
        let group_outputs = out_channels.checked_div(self.groups)?;
        for group in 0..self.groups {
            let end = group.wrapping_add(1).wrapping_mul(group_outputs);
            for o in (group.wrapping_mul(group_outputs)..end).step_by(GROUP) {
                let filters = self.weights.rows(o, end)?;
                let mut acc = [0i32; GROUP];
                for ky in ty.first..ty.end {
                    let iy = ty.start.wrapping_add(ky.wrapping_sub(ty.first).wrapping_mul(rows.dilation.get()));
                    let row = iy.wrapping_mul(cols.input).wrapping_add(tx.start).wrapping_mul(in_channels);
                    let mut x_at = row.wrapping_add(group.wrapping_mul(depth));
                    let mut w_at = ky.wrapping_mul(row_len).wrapping_add(tx.first.wrapping_mul(depth));
                    for _ in 0..segments {
                        let x = image.get(x_at..x_at.wrapping_add(len))?;
                        W::dot(x, &filters, w_at, &mut acc)?;
                        x_at = x_at.wrapping_add(in_channels.wrapping_mul(cols.dilation.get()));
                        w_at = w_at.wrapping_add(depth);
                    }
                }
                if !inside && x_zero != 0 {
                    self.add_padding(ty, tx, x_zero, &filters, &mut acc)?;
                }
                for (o, acc) in (o..end).zip(acc) {
                    y.put(pixel.wrapping_mul(out_channels).wrapping_add(o), self.channels.finish(o, acc)?)?;
                }
            }
        }
        Some(())
    }

    /// Adds `zero_point_x · Σ w` over the taps in the padding: as if they held the zero point.
    #[inline(never)]
    fn add_padding(
        &self,
        ty: Taps,
        tx: Taps,
        x_zero: i32,
        filters: &Rows<'_, W>,
        acc: &mut [i32; GROUP],
    ) -> Option<()> {
        let (rows, cols) = (self.window.rows.kernel, self.window.cols.kernel);
        let padding = [x_zero as i8; BLOCK];
        for ky in 0..rows {
            // Columns `0..left` and `right..cols` of this row are padding.
            let (left, right) = if (ty.first..ty.end).contains(&ky) { (tx.first, tx.end) } else { (cols, cols) };
            let row = ky.wrapping_mul(cols);
            for (start, end) in [(row, row.wrapping_add(left)), (row.wrapping_add(right), row.wrapping_add(cols))] {
                let len = end.saturating_sub(start).wrapping_mul(self.depth);
                let start = start.wrapping_mul(self.depth);
                for at in (0..len).step_by(BLOCK) {
                    let x = padding.get(..BLOCK.min(len.wrapping_sub(at)))?;
                    W::dot(x, filters, start.wrapping_add(at), acc)?;
                }
            }
        }
        Some(())
    }

    fn run(&self, x: &[i8], x_zero: i32, y: &mut Output<'_>) -> Option<()> {
        let Window { batch, rows, cols, in_channels, .. } = self.window;
        let image_len = rows.input.wrapping_mul(cols.input).wrapping_mul(in_channels);
        let mut pixel = 0usize;
        for n in 0..batch {
            let image = x.get(n.wrapping_mul(image_len)..)?;
            for oy in 0..rows.output {
                let ty = rows.taps(oy);
                for ox in 0..cols.output {
                    self.pixel(image, ty, cols.taps(ox), x_zero, pixel, y)?;
                    pixel = pixel.wrapping_add(1);
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
    Conv::<W>::new(&W::params(op)?, &x, &y, plan)?.channels.check(&y)?;
    memory::check_disjoint(&x, &y)
}

fn run<W: Width>(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
    let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
    let conv = Conv::<W>::new(&W::params(op)?, &x, &y, plan)?;
    let (inputs, out) = memory::split(plan, arena, &y)?;
    let mut out = Output::new(out, y.dtype);
    conv.run(inputs.i8s(&x)?, i32::from(x.zero_point), &mut out).ok_or(Reason::OperatorShape)
}

by_width!(Conv2d Int8, Conv2dI4 Int4);

/// Packs ONNX convolution weights `[O, C, H, W]` (`C` per group) as `[O, H, W, C]`.
///
/// # Errors
///
/// [`Reason::BufferMismatch`] when a length is not `O · C · H · W`.
pub fn pack_conv2d(oihw: &[i8], [o, c, h, w]: [usize; 4], packed: &mut [i8]) -> Result<(), Reason> {
    permute(oihw, [o, c, h, w], |[o_at, c_at, h_at, w_at]| ((o_at * h + h_at) * w + w_at) * c + c_at, packed)
}

/// Copies `source`, of shape `[o, c, h, w]`, element by element to the places that `place` names.
pub(super) fn permute(
    source: &[i8],
    shape: [usize; 4],
    place: impl Fn([usize; 4]) -> usize,
    packed: &mut [i8],
) -> Result<(), Reason> {
    let len = shape.iter().try_fold(1usize, |len, &dim| len.checked_mul(dim));
    if len != Some(source.len()) || source.len() != packed.len() {
        return Err(Reason::BufferMismatch);
    }
    let [o, c, h, w] = shape;
    let mut values = source.iter();
    for index in
        (0..o).flat_map(|o| (0..c).flat_map(move |c| (0..h).flat_map(move |h| (0..w).map(move |w| [o, c, h, w]))))
    {
        let slot = packed.get_mut(place(index)).ok_or(Reason::BufferMismatch)?;
        *slot = *values.next().ok_or(Reason::BufferMismatch)?;
    }
    Ok(())
}
