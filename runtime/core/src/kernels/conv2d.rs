//! 2-D convolution.

use super::bands::{self, Bands};
use super::channels::{Channels, Output};
use super::linear::{Linear, Place, Rows, Source};
use super::memory;
use super::patches::{Patch, Segments, patches_len};
use super::weights::{Int4, Int8, MAX_FILTER, Matrix, Width, by_width, filter_len};
use super::window::{Axis, Window};
use crate::error::Reason;
use crate::op::Conv2dParams;
use crate::plan::{OpView, Plan, TensorRecord};

/// `y[n, oy, ox, o] = requantize(bias'[o] + Σ w[o, ky, kx, c] · x[n, iy, ix, g·C/groups + c] + zero_point_x · Σ_padding w)`.
///
/// `x` is i8 `[N, H, W, C]`, `y` of any dtype `[N, OH, OW, O]`, `w` i8 `[O, kernel_h, kernel_w, C / groups]`, packed by
/// [`pack_conv2d`]. A second output of i32 is memory to work in: [`patches_len`] words.
/// `iy = oy · stride_h − pad_top + ky · dilation_h`, and so for `ix`; taps outside the input have the real
/// value 0. Sums wrap at 32 bits on every target. One rounding, half up, per element.
#[derive(Debug, Clone, Copy)]
pub struct Conv2d;

/// [`Conv2d`] with weights of 4 bits, packed by [`super::pack_int4`] in rows of [`conv2d_filter_len`].
#[derive(Debug, Clone, Copy)]
pub struct Conv2dI4;

/// A record's geometry and constants, checked.
struct Conv<'a, W: Width> {
    window: Window,
    groups: usize,
    /// Input channels per group.
    depth: usize,
    linear: Linear<'a, W>,
}

/// Whether neighbouring taps are neighbours in memory, so that a row of them is one segment.
const fn joined(groups: usize, dilation: usize) -> bool {
    groups == 1 && dilation == 1
}

/// Elements of a packed filter of a convolution; see [`filter_len`].
pub const fn conv2d_filter_len(
    [kernel_h, kernel_w]: [usize; 2],
    depth: usize,
    groups: usize,
    dilation_w: usize,
) -> usize {
    if joined(groups, dilation_w) {
        filter_len(kernel_h, kernel_w * depth)
    } else {
        filter_len(kernel_h * kernel_w, depth)
    }
}

impl<'a, W: Width> Conv<'a, W> {
    fn new(p: &Conv2dParams, x: &TensorRecord, y: &TensorRecord, plan: &Plan<'a>) -> Result<Self, Reason> {
        let window = Window::new(x, y, [p.kernel, p.strides, p.dilations], p.pads, true)?;
        let (inputs, out_channels) = (window.in_channels, window.out_channels);
        let groups = p.groups as usize;
        let depth = inputs.checked_div(groups).ok_or(Reason::OperatorShape)?;
        let group_outputs = out_channels.checked_div(groups).ok_or(Reason::OperatorShape)?;
        if depth.checked_mul(groups) != Some(inputs) || group_outputs.checked_mul(groups) != Some(out_channels) {
            return Err(Reason::OperatorShape);
        }
        // Filled up, a tap has at most 4 times its elements.
        let len = window.taps().and_then(|taps| taps.checked_mul(depth)).filter(|&len| len <= MAX_FILTER);
        len.ok_or(Reason::OperatorShape)?;
        let filter_len =
            conv2d_filter_len([window.rows.kernel, window.cols.kernel], depth, groups, window.cols.dilation.get());
        let weights = Matrix::new(plan, p.weights, out_channels, filter_len)?;
        let channels = Channels::new(plan, [p.bias, p.mantissas, p.shifts], out_channels, p.clamp, y)?;
        Ok(Self { window, groups, depth, linear: Linear { weights, channels, filter_len, out_channels } })
    }

    /// Whether each output pixel reads the input pixel in its place.
    fn pointwise(&self) -> bool {
        let same = |axis: &Axis| axis.kernel == 1 && axis.stride == 1 && axis.before == 0 && axis.input == axis.output;
        self.groups == 1 && same(&self.window.rows) && same(&self.window.cols)
    }

    /// Output pixels of an image.
    fn pixels(&self) -> usize {
        self.window.rows.output.wrapping_mul(self.window.cols.output)
    }

    fn run(&self, x: &[i8], x_zero: i8, work: &mut [u32], y: &mut Output<'_>) -> Option<()> {
        let Window { batch, rows, cols, in_channels, out_channels, .. } = self.window;
        let image_len = rows.input.wrapping_mul(cols.input).wrapping_mul(in_channels);
        let group_outputs = out_channels.checked_div(self.groups)?;
        for n in 0..batch {
            let image = x.get(n.wrapping_mul(image_len)..)?;
            for group in 0..self.groups {
                let first = group.wrapping_mul(group_outputs);
                let pixel = n.wrapping_mul(self.pixels());
                let place = Place { pixel, first, end: first.wrapping_add(group_outputs) };
                let x = image.get(group.wrapping_mul(self.depth)..)?;
                if self.pointwise() {
                    self.linear.run(&Rows { x, depth: self.depth }, self.pixels(), place, work, y)?;
                } else {
                    let source = Pixels { conv: self, interior: Interior::new(self), image: x, x_zero };
                    self.linear.run(&source, self.pixels(), place, work, y)?;
                }
            }
        }
        Some(())
    }
}

/// The output pixels whose windows lie inside the input, where rows of taps are one segment each.
struct Interior {
    /// First row and column.
    first: [usize; 2],
    /// Their numbers.
    count: [usize; 2],
    /// From a row, and a column, of the output to the next, in elements of the input.
    steps: [usize; 2],
    /// Elements of padding before the first window.
    before: usize,
    /// Elements from a row of taps to the next.
    tap_step: usize,
    /// Quads of a segment.
    quads: usize,
}

impl Interior {
    fn new<W: Width>(conv: &Conv<'_, W>) -> Self {
        let Window { rows, cols, in_channels, .. } = conv.window;
        let row_len = cols.input.wrapping_mul(in_channels);
        let ([top, height], [left, width]) = (rows.inside(), cols.inside());
        let joined = joined(conv.groups, cols.dilation.get());
        Self {
            first: [top, left],
            count: [if joined { height } else { 0 }, width],
            steps: [rows.stride.wrapping_mul(row_len), cols.stride.wrapping_mul(in_channels)],
            before: rows.before.wrapping_mul(row_len).wrapping_add(cols.before.wrapping_mul(in_channels)),
            tap_step: rows.dilation.get().wrapping_mul(row_len),
            quads: cols.kernel.wrapping_mul(conv.depth).wrapping_add(3) / 4,
        }
    }

    /// Where the window at `(oy, ox)` begins, if it lies inside.
    #[inline(always)]
    fn start(&self, oy: usize, ox: usize) -> Option<usize> {
        let Self { first: [top, left], count: [height, width], steps: [down, right], before, .. } = *self;
        let inside = oy.wrapping_sub(top) < height && ox.wrapping_sub(left) < width;
        inside.then(|| oy.wrapping_mul(down).wrapping_add(ox.wrapping_mul(right)).wrapping_sub(before))
    }
}

/// The pixels of one image and group.
struct Pixels<'c, 'a, W: Width> {
    conv: &'c Conv<'a, W>,
    interior: Interior,
    /// The input from the group's first channel on.
    image: &'c [i8],
    x_zero: i8,
}

impl<W: Width> Source for Pixels<'_, '_, W> {
    #[inline(always)]
    fn write<const N: usize>(&self, i: usize, mut patch: Patch<'_, N>) -> Option<()> {
        let [oy, ox] = self.position(i)?;
        match self.interior.start(oy, ox).and_then(|start| self.write_inside(start, &mut patch)) {
            Some(()) => Some(()),
            None => self.write_any(oy, ox, &mut patch),
        }
    }

    #[cfg(bytes)]
    #[inline(always)]
    fn direct(&self, i: usize, len: usize) -> Option<&[i8]> {
        if self.conv.window.rows.kernel > 1 || self.interior.quads.wrapping_mul(4) != len {
            return None;
        }
        let [oy, ox] = self.position(i)?;
        let start = self.interior.start(oy, ox)?;
        self.image.get(start..start.wrapping_add(len))
    }

    #[cfg(x86)]
    fn windows(&self, _: usize) -> Option<super::x86::Windows<'_>> {
        let Conv { window: Window { rows, cols, in_channels, .. }, groups, depth, .. } = *self.conv;
        let (segments, len) = match joined(groups, cols.dilation.get()) {
            true => (1, cols.kernel.wrapping_mul(depth)),
            false => (cols.kernel, depth),
        };
        let (image, x_zero) = (self.image, self.x_zero);
        Some(super::x86::Windows { image, x_zero, rows, cols, channels: in_channels, segments, len })
    }
}

impl<W: Width> Pixels<'_, '_, W> {
    /// Row and column of output pixel `i`.
    #[inline(always)]
    fn position(&self, i: usize) -> Option<[usize; 2]> {
        let oy = i.checked_div(self.conv.window.cols.output)?;
        Some([oy, i.wrapping_sub(oy.wrapping_mul(self.conv.window.cols.output))])
    }

    /// Writes a window inside the input, whole quads of each segment: they may reach behind it, as far as the input does,
    /// and meet weights of 0 there.
    #[inline(always)]
    fn write_inside<const N: usize>(&self, start: usize, patch: &mut Patch<'_, N>) -> Option<()> {
        let Interior { quads, tap_step, .. } = self.interior;
        #[cfg(bytes)]
        return patch.write_segments(self.image.get(start..)?, [self.conv.window.rows.kernel, tap_step], quads);
        #[cfg(not(bytes))]
        self.write_segments(start, tap_step, quads, patch)
    }

    /// Writes whole quads of segments that lie `tap_step` apart.
    #[cfg(not(bytes))]
    #[inline(always)]
    fn write_segments<const N: usize>(
        &self,
        start: usize,
        tap_step: usize,
        quads: usize,
        patch: &mut Patch<'_, N>,
    ) -> Option<()> {
        let (mut at, mut quad) = (start, 0usize);
        for _ in 0..self.conv.window.rows.kernel {
            let (x, _) = self.image.get(at..at.wrapping_add(quads.wrapping_mul(4)))?.as_chunks();
            patch.write_quads(quad, x)?;
            at = at.wrapping_add(tap_step);
            quad = quad.wrapping_add(quads);
        }
        Some(())
    }

    /// Writes any window. Few windows are at the borders: one copy of this code serves patches of all kinds.
    #[inline(never)]
    fn write_any(&self, oy: usize, ox: usize, patch: &mut dyn Segments) -> Option<()> {
        let Window { rows, cols, in_channels, .. } = &self.conv.window;
        let (in_channels, groups, depth) = (*in_channels, self.conv.groups, self.conv.depth);
        let (ty, tx) = (rows.taps(oy), cols.taps(ox));
        if ty.len() < rows.kernel || tx.len() < cols.kernel {
            // Padding holds the zero point.
            patch.fill_all(self.x_zero);
        }
        let joined = joined(groups, cols.dilation.get());
        // Elements of a segment, the first of them inside the input, and how many are.
        let (len, first, inside) = match joined {
            true => (cols.kernel.wrapping_mul(depth), tx.first.wrapping_mul(depth), tx.len().wrapping_mul(depth)),
            false => (depth, 0, depth),
        };
        let quads = len.wrapping_add(3) / 4;
        for ky in ty.first..ty.end {
            let iy = ty.start.wrapping_add(ky.wrapping_sub(ty.first).wrapping_mul(rows.dilation.get()));
            let mut at = iy.wrapping_mul(cols.input).wrapping_add(tx.start).wrapping_mul(in_channels);
            let (segment, count) = match joined {
                true => (ky, usize::from(tx.len() > 0)),
                false => (ky.wrapping_mul(cols.kernel).wrapping_add(tx.first), tx.len()),
            };
            let mut quad = segment.wrapping_mul(quads).wrapping_add(first / 4);
            for _ in 0..count {
                let x = self.image.get(at..at.wrapping_add(inside))?;
                patch.write_segment(quad, first % 4, x, self.x_zero)?;
                at = at.wrapping_add(in_channels.wrapping_mul(cols.dilation.get()));
                quad = quad.wrapping_add(quads);
            }
        }
        Some(())
    }
}

fn check<W: Width>(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
    memory::check_work_arity(op, 1)?;
    let (x, y, work) = (plan.input(op, 0)?, plan.output(op, 0)?, plan.output(op, 1)?);
    memory::check_i8(&x)?;
    let conv = Conv::<W>::new(&W::params(op)?, &x, &y, plan)?;
    conv.linear.channels.check(&y)?;
    memory::check_work(&work, patches_len(conv.linear.filter_len, conv.pixels()), [&x, &y])?;
    bands::check([&x, &y], conv.window.batch, conv.window.rows, conv.window.band_height())
}

fn run<W: Width>(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
    let (x, y, work) = (plan.input(op, 0)?, plan.output(op, 0)?, plan.output(op, 1)?);
    let mut conv = Conv::<W>::new(&W::params(op)?, &x, &y, plan)?;
    let bands = Bands::new([&x, &y], conv.window.rows, conv.window.band_height()).ok_or(Reason::OperatorShape)?;
    for band in bands {
        let (inputs, out, work) = memory::split_work(plan, arena, [&y, &work], band.y)?;
        let mut out = Output::new(out, y.dtype);
        conv.window.rows = band.rows;
        let image = memory::as_i8(inputs.part(&x, band.x)?)?;
        conv.run(image, x.zero_point as i8, work, &mut out).ok_or(Reason::OperatorShape)?;
    }
    Ok(())
}

by_width!(Conv2d Int8, Conv2dI4 Int4);

/// Packs ONNX convolution weights `[O, C, H, W]` (`C` per group) as filters of [`conv2d_filter_len`] elements: segments of
/// `[W, C]` elements, one for each row of taps, or of `[C]` elements, one for each tap, where groups or a dilation keep
/// taps apart; see [`filter_len`].
///
/// # Errors
///
/// [`Reason::BufferMismatch`] when a length is not what the sizes make it.
pub fn pack_conv2d(
    oihw: &[i8],
    [o, c, h, w]: [usize; 4],
    groups: usize,
    dilation_w: usize,
    packed: &mut [i8],
) -> Result<(), Reason> {
    let filter = conv2d_filter_len([h, w], c, groups, dilation_w);
    let place = |[o_at, c_at, h_at, w_at]: [usize; 4]| {
        let within = match joined(groups, dilation_w) {
            true => h_at * (w * c).next_multiple_of(4) + w_at * c + c_at,
            false => (h_at * w + w_at) * c.next_multiple_of(4) + c_at,
        };
        o_at * filter + within
    };
    if packed.len() != o * filter {
        return Err(Reason::BufferMismatch);
    }
    packed.fill(0);
    permute(oihw, [o, c, h, w], place, packed)
}

/// Copies `source`, of shape `[o, c, h, w]`, element by element to the places that `place` names.
pub(super) fn permute(
    source: &[i8],
    shape: [usize; 4],
    place: impl Fn([usize; 4]) -> usize,
    packed: &mut [i8],
) -> Result<(), Reason> {
    let len = shape.iter().try_fold(1usize, |len, &dim| len.checked_mul(dim));
    if len != Some(source.len()) || source.len() > packed.len() {
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
