//! Depthwise 2-D convolution.

use super::bands::{self, Bands};
use super::channels::{Channels, Output};
use super::memory;
#[cfg(mve)]
use super::mve;
#[cfg(neon)]
use super::neon;
use super::strips::{QUAD, Quad, Shape, Strip};
use super::weights::{Int4, Int8, Matrix, Width, by_width};
use super::window::{Taps, Window};
#[cfg(x86)]
use super::x86::{self, Avx2};
use crate::error::Reason;
use crate::op::DepthwiseConv2dParams;
use crate::plan::{OpView, Plan, TensorRecord};

/// `y[n, oy, ox, c·m + k] = requantize(bias'[c·m + k] + Σ w[ky, kx, c·m + k] · x[n, iy, ix, c] + zero_point_x · Σ_padding w)`.
///
/// `x` is i8 `[N, H, W, C]`, `y` of any dtype `[N, OH, OW, C·m]` with multiplier `m`, `w` i8
/// `[kernel_h, kernel_w, C·m]`. Positions, padding, wrapping and rounding as in [`super::Conv2d`]. A second output of i32 is
/// memory to work in: [`depthwise_conv2d_work_len`] words.
#[derive(Debug, Clone, Copy)]
pub struct DepthwiseConv2d;

/// [`DepthwiseConv2d`] with weights of 4 bits, packed by [`super::pack_int4`] in rows of `C·m`, one for each tap.
#[derive(Debug, Clone, Copy)]
pub struct DepthwiseConv2dI4;

/// Whether the core has vectors: then many channels of a pixel are summed together ([`Depthwise::pixel`]), otherwise a few
/// channels of a row ([`Depthwise::quad`]).
const VECTORS: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Channels of a pixel summed together: as many as fit the registers.
const LANES: usize = if VECTORS { 16 } else { 4 };

/// A record's geometry and constants, checked.
struct Depthwise<'a, W: Width> {
    window: Window,
    multiplier: usize,
    weights: Matrix<'a, W>,
    channels: Channels<'a>,
}

impl<'a, W: Width> Depthwise<'a, W> {
    fn new(p: &DepthwiseConv2dParams, x: &TensorRecord, y: &TensorRecord, plan: &Plan<'a>) -> Result<Self, Reason> {
        let window = Window::new(x, y, [p.kernel, p.strides, p.dilations], p.pads, true)?;
        let outputs = window.out_channels;
        let multiplier = p.multiplier as usize;
        if window.in_channels.checked_mul(multiplier) != Some(outputs) {
            return Err(Reason::OperatorShape);
        }
        let taps = window.taps().ok_or(Reason::OperatorShape)?;
        let weights = Matrix::new(plan, p.weights, taps, outputs)?;
        let channels = Channels::new(plan, [p.bias, p.mantissas, p.shifts], outputs, p.clamp, y)?;
        Ok(Self { window, multiplier, weights, channels })
    }

    /// Computes output pixel `pixel` (counted over the whole batch) from one image.
    #[inline(always)]
    fn pixel(&self, image: &[i8], ty: Taps, tx: Taps, x_zero: i32, pixel: usize, y: &mut Output<'_>) -> Option<()> {
        let Window { rows, cols, in_channels, out_channels, .. } = self.window;
        let inside = ty.len() == rows.kernel && tx.len() == cols.kernel;
        for o in (0..out_channels).step_by(LANES) {
            let lanes = LANES.min(out_channels.wrapping_sub(o));
            let mut acc = [0i32; LANES];
            for ky in ty.first..ty.end {
                let iy = ty.start.wrapping_add(ky.wrapping_sub(ty.first).wrapping_mul(rows.dilation.get()));
                for kx in tx.first..tx.end {
                    let ix = tx.start.wrapping_add(kx.wrapping_sub(tx.first).wrapping_mul(cols.dilation.get()));
                    let x_at = iy.wrapping_mul(cols.input).wrapping_add(ix).wrapping_mul(in_channels);
                    let w = self.weights.row(ky.wrapping_mul(cols.kernel).wrapping_add(kx))?;
                    if self.multiplier == 1 {
                        let x = image.get(x_at.wrapping_add(o)..x_at.wrapping_add(o).wrapping_add(lanes))?;
                        W::accumulate(x, w, o, &mut acc)?;
                    } else {
                        let x = image.get(x_at..x_at.wrapping_add(in_channels))?;
                        for (o, acc) in (o..out_channels).zip(&mut acc) {
                            let x = *x.get(o.checked_div(self.multiplier)?)?;
                            *acc = acc.wrapping_add(i32::from(x).wrapping_mul(W::get(w, o)?));
                        }
                    }
                }
            }
            if !inside && x_zero != 0 {
                self.add_padding(ty, tx, x_zero, o, &mut acc)?;
            }
            for (lane, acc) in (0..lanes).zip(acc) {
                let o = o.wrapping_add(lane);
                y.put(pixel.wrapping_mul(out_channels).wrapping_add(o), self.channels.finish(o, acc)?)?;
            }
        }
        Some(())
    }

    /// Adds `zero_point_x · Σ w` over the taps in the padding, for the channels from `o` on: as if they held the zero
    /// point.
    #[inline(never)]
    fn add_padding(&self, ty: Taps, tx: Taps, x_zero: i32, o: usize, acc: &mut [i32; LANES]) -> Option<()> {
        let Window { rows, cols, out_channels, .. } = self.window;
        let padding = [x_zero as i8; LANES];
        let x = padding.get(..LANES.min(out_channels.wrapping_sub(o)))?;
        for ky in 0..rows.kernel {
            let row_inside = (ty.first..ty.end).contains(&ky);
            for kx in 0..cols.kernel {
                if !(row_inside && (tx.first..tx.end).contains(&kx)) {
                    W::accumulate(x, self.weights.row(ky.wrapping_mul(cols.kernel).wrapping_add(kx))?, o, acc)?;
                }
            }
        }
        Some(())
    }

    /// Sizes of its strips.
    fn shape(&self) -> Shape {
        let Window { rows, cols, .. } = self.window;
        Shape {
            kernel: [rows.kernel, cols.kernel],
            strides: [rows.stride, cols.stride],
            outputs: [rows.output, cols.output],
        }
    }

    fn run(&self, x: &[i8], x_zero: i8, work: &mut [u32], y: &mut Output<'_>) -> Option<()> {
        let Window { rows, cols, .. } = self.window;
        #[cfg(x86)]
        if self.multiplier == 1 {
            let Self { window, weights, channels, .. } = self;
            let blocks = x86::Depthwise { window, weights, channels };
            if let Some(avx2) = Avx2::detect().filter(|_| blocks.fits()) {
                return blocks.run(avx2, x, x_zero, y);
            }
        }
        #[cfg(neon)]
        if self.multiplier == 1 {
            let Self { window, weights, channels, .. } = self;
            let blocks = neon::Depthwise { window, weights, channels };
            if blocks.fits(y.dtype()) {
                return blocks.run(x, x_zero, y);
            }
        }
        #[cfg(mve)]
        if self.multiplier == 1 {
            let Self { window, weights, channels, .. } = self;
            let vectors = mve::Depthwise { window, weights, channels };
            if vectors.fits(y.dtype()) {
                return vectors.run(x, x_zero, work, y);
            }
        }
        if VECTORS || self.multiplier > 1 || rows.dilation.get() > 1 || cols.dilation.get() > 1 {
            self.run_by_pixels(x, i32::from(x_zero), y)
        } else {
            self.run_by_strips(x, x_zero, work, y)
        }
    }

    /// A quad of channels at a time, row by row, through strips of work memory that padding is filled into.
    fn run_by_strips(&self, x: &[i8], x_zero: i8, work: &mut [u32], y: &mut Output<'_>) -> Option<()> {
        let Window { batch, rows, cols, in_channels, .. } = self.window;
        let image_len = rows.input.wrapping_mul(cols.input).wrapping_mul(in_channels);
        for o in (0..in_channels).step_by(QUAD) {
            let lanes = QUAD.min(in_channels.wrapping_sub(o));
            let mut strip = Strip::new(work, self.shape())?;
            let rows_at_once = strip.rows_at_once();
            match W::bytes(&self.weights, o) {
                Some(bytes) if lanes == QUAD => strip.set_byte_weights(bytes, in_channels)?,
                _ => strip.set_weights(|tap| self.weights.row(tap).map(|row| W::quad(row, o)))?,
            }
            let quad = Quad::new(&self.channels, o, lanes);
            strip.set_channels(&quad);
            for n in 0..batch {
                let image = x.get(n.wrapping_mul(image_len)..)?;
                let mut filled = 0usize;
                for oy in (0..rows.output).step_by(rows_at_once) {
                    let top = oy.wrapping_mul(rows.stride);
                    let last = rows_at_once.wrapping_sub(1).wrapping_mul(rows.stride);
                    let end = top.wrapping_add(last).wrapping_add(rows.kernel);
                    for row in filled.max(top)..end {
                        let iy = row.checked_sub(rows.before).filter(|&iy| iy < rows.input);
                        let start = iy.map(|iy| iy.wrapping_mul(cols.input).wrapping_mul(in_channels).wrapping_add(o));
                        let input = start.and_then(|start| image.get(start..));
                        strip.fill(row, input, [cols.input, cols.before, in_channels], lanes, x_zero)?;
                    }
                    filled = end;
                    let pixel = n.wrapping_mul(rows.output).wrapping_add(oy).wrapping_mul(cols.output);
                    strip.run(top, &quad, [pixel, in_channels], y)?;
                }
            }
        }
        Some(())
    }

    /// All channels of a pixel at a time.
    fn run_by_pixels(&self, x: &[i8], x_zero: i32, y: &mut Output<'_>) -> Option<()> {
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

/// Words of work memory of a depthwise convolution; sizes are of rows, then of columns.
pub const fn depthwise_conv2d_work_len(kernel: [usize; 2], strides: [usize; 2], outputs: [usize; 2]) -> usize {
    Shape { kernel, strides, outputs }.words()
}

/// Output rows that a depthwise convolution computes at once where it writes over its input; sizes as for
/// [`depthwise_conv2d_work_len`].
pub const fn depthwise_conv2d_band_height(kernel: [usize; 2], strides: [usize; 2], outputs: [usize; 2]) -> usize {
    Shape { kernel, strides, outputs }.band_height()
}

fn check<W: Width>(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
    memory::check_work_arity(op, 1)?;
    let (x, y, work) = (plan.input(op, 0)?, plan.output(op, 0)?, plan.output(op, 1)?);
    memory::check_i8(&x)?;
    let conv = Depthwise::<W>::new(&W::params(op)?, &x, &y, plan)?;
    conv.channels.check(&y)?;
    memory::check_work(&work, conv.shape().words(), [&x, &y])?;
    bands::check([&x, &y], conv.window.batch, conv.window.rows, conv.shape().band_height())
}

fn run<W: Width>(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
    let (x, y, work) = (plan.input(op, 0)?, plan.output(op, 0)?, plan.output(op, 1)?);
    let mut conv = Depthwise::<W>::new(&W::params(op)?, &x, &y, plan)?;
    let bands = Bands::new([&x, &y], conv.window.rows, conv.shape().band_height()).ok_or(Reason::OperatorShape)?;
    for band in bands {
        let (inputs, out, work) = memory::split_work(plan, arena, [&y, &work], band.y)?;
        let mut out = Output::new(out, y.dtype);
        conv.window.rows = band.rows;
        let image = memory::as_i8(inputs.part(&x, band.x)?)?;
        conv.run(image, x.zero_point as i8, work, &mut out).ok_or(Reason::OperatorShape)?;
    }
    Ok(())
}

by_width!(DepthwiseConv2d Int8, DepthwiseConv2dI4 Int4);

/// Packs ONNX depthwise weights `[O, 1, H, W]` as `[H, W, O]`.
///
/// # Errors
///
/// [`Reason::BufferMismatch`] when a length is not `O · H · W`.
pub fn pack_depthwise_conv2d(oihw: &[i8], [o, h, w]: [usize; 3], packed: &mut [i8]) -> Result<(), Reason> {
    super::conv2d::permute(oihw, [o, 1, h, w], |[o_at, _, h_at, w_at]| (h_at * w + w_at) * o + o_at, packed)
}
