//! Transposed 2-D convolution.

use super::channels::{Channels, Output};
use super::memory::{self, BLOCK};
use super::transposed::{Axis, Class, packed_tap};
use super::weights::{GROUP, Int4, Int8, Matrix, Rows, Width, by_width};
use super::window::Taps;
use crate::error::Reason;
use crate::op::ConvTranspose2dParams;
use crate::plan::{OpView, Plan, TensorRecord};

/// `y[n, oy, ox, o] = requantize(bias[o] + Σ w[o, ky, kx, c] · (x[n, iy, ix, g·C/groups + c] − zero_point_x))` over all taps
/// and input elements with `iy · stride_h + ky · dilation_h = oy + top`, and so for `ix`.
///
/// `x` is i8 `[N, H, W, C]`, `y` of any dtype `[N, OH, OW, O]`, `w` i8 `[O, kernel_h, kernel_w, C / groups]` in the order of
/// [`pack_conv_transpose2d`]. Each output element gathers the taps that land on it; nothing is stored in between. Sums wrap
/// at 32 bits on every target. One rounding, half up, per element.
#[derive(Debug, Clone, Copy)]
pub struct ConvTranspose2d;

/// [`ConvTranspose2d`] with weights of 4 bits, packed by [`super::pack_int4`] in rows of `kernel_h · kernel_w · C / groups`.
#[derive(Debug, Clone, Copy)]
pub struct ConvTranspose2dI4;

/// A record's geometry and constants, checked.
struct Transposed<'a, W: Width> {
    batch: usize,
    rows: Axis,
    cols: Axis,
    in_channels: usize,
    out_channels: usize,
    groups: usize,
    /// Input channels per group.
    depth: usize,
    weights: Matrix<'a, W>,
    channels: Channels<'a>,
}

/// Output channels computed together, and what they read.
struct Block<'a, W: Width> {
    /// One image of the input.
    image: &'a [i8],
    x_zero: i32,
    /// First input channel.
    channel: usize,
    /// First output channel, and the end of its group.
    outputs: [usize; 2],
    filters: Rows<'a, W>,
    /// Output pixels of the images before.
    pixel: usize,
}

impl<'a, W: Width> Transposed<'a, W> {
    fn new(p: &ConvTranspose2dParams, x: &TensorRecord, y: &TensorRecord, plan: &Plan<'a>) -> Result<Self, Reason> {
        let ([n, h, w, c], [y_n, y_h, y_w, y_c]) = (x.dims, y.dims);
        if x.rank != 4 || y.rank != 4 || n != y_n {
            return Err(Reason::OperatorShape);
        }
        let ConvTranspose2dParams { kernel, strides, dilations, pads: [top, left], .. } = *p;
        let rows = Axis::new([h, y_h], [kernel[0], strides[0], dilations[0]], top)?;
        let cols = Axis::new([w, y_w], [kernel[1], strides[1], dilations[1]], left)?;
        let (in_channels, out_channels, groups) = (c as usize, y_c as usize, p.groups as usize);
        let depth = in_channels.checked_div(groups).ok_or(Reason::OperatorShape)?;
        let group_outputs = out_channels.checked_div(groups).ok_or(Reason::OperatorShape)?;
        if depth.checked_mul(groups) != Some(in_channels) || group_outputs.checked_mul(groups) != Some(out_channels) {
            return Err(Reason::OperatorShape);
        }
        let len = rows.kernel.checked_mul(cols.kernel).and_then(|taps| taps.checked_mul(depth));
        let weights = Matrix::new(plan, p.weights, out_channels, len.ok_or(Reason::OperatorShape)?)?;
        let channels = Channels::new(plan, [p.bias, p.mantissas, p.shifts], out_channels, p.clamp, y)?;
        Ok(Self { batch: n as usize, rows, cols, in_channels, out_channels, groups, depth, weights, channels })
    }

    /// Where the weights of a row of taps begin within a filter.
    #[inline(always)]
    fn place(&self, row: usize, col: usize) -> usize {
        row.wrapping_mul(self.cols.kernel).wrapping_add(col).wrapping_mul(self.depth)
    }

    /// `−zero_point_x · Σ w` over these taps: what makes sums over `x` sums over `x − zero_point_x`.
    #[inline(never)]
    fn zeros(&self, ty: Taps, tx: Taps, block: &Block<'_, W>) -> Option<[i32; GROUP]> {
        let mut acc = [0i32; GROUP];
        if block.x_zero == 0 {
            return Some(acc);
        }
        let zeros = [block.x_zero as i8; BLOCK];
        let len = tx.len().wrapping_mul(self.depth);
        for row in ty.first..ty.end {
            let start = self.place(row, tx.first);
            for at in (0..len).step_by(BLOCK) {
                let x = zeros.get(..BLOCK.min(len.wrapping_sub(at)))?;
                W::dot(x, &block.filters, start.wrapping_add(at), &mut acc)?;
            }
        }
        Some(acc.map(i32::wrapping_neg))
    }

    /// Adds the products of these taps to `acc`.
    #[inline(always)]
    fn gather(&self, ty: Taps, tx: Taps, block: &Block<'_, W>, acc: &mut [i32; GROUP]) -> Option<()> {
        let Self { rows, cols, in_channels, depth, .. } = *self;
        // Neighbouring taps are neighbours in memory, so a row of them is one dot product.
        let joined = self.groups == 1 && cols.advance.get() == 1;
        let (segments, len) = if joined { (1, tx.len().wrapping_mul(depth)) } else { (tx.len(), depth) };
        for row in ty.first..ty.end {
            let iy = ty.start.wrapping_add(row.wrapping_sub(ty.first).wrapping_mul(rows.advance.get()));
            let pixel = iy.wrapping_mul(cols.input).wrapping_add(tx.start);
            let mut x_at = pixel.wrapping_mul(in_channels).wrapping_add(block.channel);
            let mut w_at = self.place(row, tx.first);
            for _ in 0..segments {
                let x = block.image.get(x_at..x_at.wrapping_add(len))?;
                W::dot(x, &block.filters, w_at, acc)?;
                x_at = x_at.wrapping_add(in_channels.wrapping_mul(cols.advance.get()));
                w_at = w_at.wrapping_add(depth);
            }
        }
        Some(())
    }

    /// Computes the output pixels that the same taps land on: every `stride`-th from `[top, left]` on.
    #[inline(always)]
    fn phase(
        &self,
        [top, left]: [usize; 2],
        [class_y, class_x]: [&Class; 2],
        block: &Block<'_, W>,
        y: &mut Output<'_>,
    ) -> Option<()> {
        let [first, end] = block.outputs;
        let all = self.zeros(class_y.all(), class_x.all(), block)?;
        for oy in (top..self.rows.output).step_by(self.rows.stride.get()) {
            let ty = self.rows.taps(class_y, oy);
            for ox in (left..self.cols.output).step_by(self.cols.stride.get()) {
                let tx = self.cols.taps(class_x, ox);
                let inside = ty.len() == class_y.len && tx.len() == class_x.len;
                let mut acc = if inside { all } else { self.zeros(ty, tx, block)? };
                if tx.len() > 0 {
                    self.gather(ty, tx, block, &mut acc)?;
                }
                let pixel = block.pixel.wrapping_add(oy.wrapping_mul(self.cols.output)).wrapping_add(ox);
                let at = pixel.wrapping_mul(self.out_channels);
                for (o, acc) in (first..end).zip(acc) {
                    y.put(at.wrapping_add(o), self.channels.finish(o, acc)?)?;
                }
            }
        }
        Some(())
    }

    fn run(&self, x: &[i8], x_zero: i32, y: &mut Output<'_>) -> Option<()> {
        let Self { rows, cols, in_channels, out_channels, groups, .. } = *self;
        let image_len = rows.input.wrapping_mul(cols.input).wrapping_mul(in_channels);
        let pixels = rows.output.wrapping_mul(cols.output);
        let group_outputs = out_channels.checked_div(groups)?;
        for n in 0..self.batch {
            let image = x.get(n.wrapping_mul(image_len)..)?;
            for group in 0..groups {
                let channel = group.wrapping_mul(self.depth);
                let end = group.wrapping_add(1).wrapping_mul(group_outputs);
                for o in (group.wrapping_mul(group_outputs)..end).step_by(GROUP) {
                    let (filters, pixel) = (self.weights.rows(o, end)?, n.wrapping_mul(pixels));
                    let block = Block { image, x_zero, channel, outputs: [o, end], filters, pixel };
                    for top in 0..rows.stride.get().min(rows.output) {
                        let class_y = rows.class(top);
                        for left in 0..cols.stride.get().min(cols.output) {
                            self.phase([top, left], [&class_y, &cols.class(left)], &block, y)?;
                        }
                    }
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
    Transposed::<W>::new(&W::params(op)?, &x, &y, plan)?.channels.check(&y)?;
    memory::check_disjoint(&x, &y)
}

fn run<W: Width>(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
    let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
    let conv = Transposed::<W>::new(&W::params(op)?, &x, &y, plan)?;
    let (inputs, out) = memory::split(plan, arena, &y)?;
    let mut out = Output::new(out, y.dtype);
    conv.run(inputs.i8s(&x)?, i32::from(x.zero_point), &mut out).ok_or(Reason::OperatorShape)
}

by_width!(ConvTranspose2d Int8, ConvTranspose2dI4 Int4);

/// Packs transposed convolution weights `[O, C, H, W]` (`C` per group; ONNX has them as `[C · groups, O / groups, H, W]`) as
/// `[O, H, W, C]`, rows and columns of taps in the order in which outputs read them: taps `k` by `k mod period`, and
/// among those with the same remainder the last one first, with `period = stride / gcd(stride, dilation)`.
///
/// # Errors
///
/// [`Reason::BufferMismatch`] when a length is not `O · C · H · W`.
pub fn pack_conv_transpose2d(
    ochw: &[i8],
    [o, c, h, w]: [usize; 4],
    strides: [usize; 2],
    dilations: [usize; 2],
    packed: &mut [i8],
) -> Result<(), Reason> {
    let [rows, cols] = [[h, strides[0], dilations[0]], [w, strides[1], dilations[1]]];
    let place = |[o_at, c_at, h_at, w_at]: [usize; 4]| {
        ((o_at * h + packed_tap(h_at, rows)) * w + packed_tap(w_at, cols)) * c + c_at
    };
    super::conv2d::permute(ochw, [o, c, h, w], place, packed)
}
