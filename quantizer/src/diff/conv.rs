//! Convolution of images, any strides, pads, dilations and groups: patches are laid out as a matrix and multiplied.
//! Depthwise convolutions are computed directly ([`super::depthwise`]).

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::gemm::{Matrix, product};
use super::{depthwise, flat};
use crate::graph::shape::Window;

/// Columns of a matrix of patches: small images are taken together up to this many.
const COLUMNS: usize = 256;

/// A convolution `[N, inputs, H, W] → [N, outputs, H', W']` with weights `[outputs, inputs / groups, kh, kw]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Conv {
    pub(super) groups: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Height and width of the input.
    pub(super) size: [usize; 2],
    pub(super) windows: [Window; 2],
}

impl Conv {
    /// Elements of one input image.
    pub(super) fn image(&self) -> usize {
        self.inputs * self.size[0] * self.size[1]
    }

    /// Pixels of one output channel.
    pub(super) fn pixels(&self) -> usize {
        self.windows[0].output * self.windows[1].output
    }

    /// Elements of one output image.
    fn output(&self) -> usize {
        self.outputs * self.pixels()
    }

    fn is_depthwise(&self) -> bool {
        self.groups == self.inputs && self.groups > 1
    }

    /// Rows of the matrix of patches of one group.
    fn depth(&self) -> usize {
        self.inputs / self.groups * self.windows[0].kernel * self.windows[1].kernel
    }

    /// Whether patches are the image itself.
    fn is_pointwise(&self) -> bool {
        self.windows.iter().all(|w| (w.kernel, w.stride, w.pad_begin, w.pad_end) == (1, 1, 0, 0))
    }

    /// Images taken together.
    fn block(&self) -> usize {
        (COLUMNS / self.pixels().max(1)).max(1)
    }

    /// The output for images `x`, weights and bias.
    pub(super) fn forward(&self, x: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
        let (image, pixels, depth) = (self.image(), self.pixels(), self.depth());
        let (inputs, outputs) = (self.inputs / self.groups, self.outputs / self.groups);
        let n = x.len() / image.max(1);
        let mut out = vec![0.0; n * self.output()];
        if self.is_depthwise() {
            depthwise::forward(self, x, weights, bias, &mut out);
            return out;
        }
        let mut patches = Vec::new();
        let mut product_of_block = Vec::new();
        for (x, out) in x.chunks(self.block() * image).zip(out.chunks_mut(self.block() * self.output())) {
            let count = x.len() / image;
            let columns = count * pixels;
            for group in 0..self.groups {
                let rows = &weights[group * outputs * depth..][..outputs * depth];
                let bias = &bias[group * outputs..][..outputs];
                let patches = self.patches(x, group * inputs, count, &mut patches);
                let whole = count == 1;
                let target = match whole {
                    true => &mut out[group * outputs * pixels..][..outputs * pixels],
                    false => {
                        product_of_block.resize(outputs * columns, 0.0);
                        &mut product_of_block[..]
                    }
                };
                for (row, &bias) in target.chunks_mut(columns).zip(bias) {
                    row.fill(bias);
                }
                product(Matrix::new(rows, outputs, depth), Matrix::new(patches, depth, columns), 1.0, target);
                if !whole {
                    self.scatter(&product_of_block, group, count, out);
                }
            }
        }
        out
    }

    /// Gradients of input, weights and bias for the gradient `g` of the output.
    pub(super) fn backward(&self, x: &[f32], weights: &[f32], g: &[f32]) -> [Vec<f32>; 3] {
        let (image, pixels, depth) = (self.image(), self.pixels(), self.depth());
        let (inputs, outputs) = (self.inputs / self.groups, self.outputs / self.groups);
        let mut dx = vec![0.0; x.len()];
        let mut dw = vec![0.0; weights.len()];
        let mut db = vec![0.0; self.outputs];
        for image in g.chunks(self.output()) {
            for (db, channel) in db.iter_mut().zip(image.chunks(pixels)) {
                *db += super::simd::vectorized(|| super::simd::sum(channel));
            }
        }
        if self.is_depthwise() {
            depthwise::backward(self, x, weights, g, &mut dx, &mut dw);
            return [dx, dw, db];
        }
        let (mut patches, mut gathered, mut back) = (Vec::new(), Vec::new(), Vec::new());
        let blocks = x.chunks(self.block() * image).zip(g.chunks(self.block() * self.output()));
        for ((x, g), dx) in blocks.zip(dx.chunks_mut(self.block() * image)) {
            let count = x.len() / image;
            let columns = count * pixels;
            for group in 0..self.groups {
                let rows = group * outputs * depth..(group + 1) * outputs * depth;
                let g = match count {
                    1 => &g[group * outputs * pixels..][..outputs * pixels],
                    _ => self.gather(g, group, count, &mut gathered),
                };
                let g = Matrix::new(g, outputs, columns);
                let patches = Matrix::new(self.patches(x, group * inputs, count, &mut patches), depth, columns);
                product(g, patches.t(), 1.0, &mut dw[rows.clone()]);
                let weights = Matrix::new(&weights[rows], outputs, depth);
                if self.is_pointwise() && count == 1 {
                    product(weights.t(), g, 0.0, &mut dx[group * inputs * pixels..][..inputs * pixels]);
                } else {
                    back.resize(depth * columns, 0.0);
                    product(weights.t(), g, 0.0, &mut back);
                    self.add_patches(&back, group * inputs, count, dx);
                }
            }
        }
        [dx, dw, db]
    }

    /// The matrix of patches of `count` images for the channels from `first` on: a row for each channel and place in
    /// the window, a column for each image and pixel of the output.
    fn patches<'p>(&self, x: &'p [f32], first: usize, count: usize, patches: &'p mut Vec<f32>) -> &'p [f32] {
        let plane = self.size[0] * self.size[1];
        if self.is_pointwise() && count == 1 {
            return &x[first * plane..];
        }
        let (pixels, columns) = (self.pixels(), count * self.pixels());
        patches.resize(self.depth() * columns, 0.0);
        let width = self.windows[1].output;
        self.each_row(count, |row, image, channel, y, line| {
            let to = &mut patches[row * columns + image * pixels + y * width..][..width];
            match line {
                None => to.fill(0.0),
                Some(line) => {
                    let from = &x[image * self.image() + (first + channel) * plane..][..plane];
                    line.gather(from, to);
                }
            }
        });
        patches
    }

    /// Adds a matrix of patches to the pixels they were taken from.
    fn add_patches(&self, patches: &[f32], first: usize, count: usize, dx: &mut [f32]) {
        let plane = self.size[0] * self.size[1];
        let (pixels, columns) = (self.pixels(), count * self.pixels());
        let width = self.windows[1].output;
        self.each_row(count, |row, image, channel, y, line| {
            let from = &patches[row * columns + image * pixels + y * width..][..width];
            if let Some(line) = line {
                line.add(from, &mut dx[image * self.image() + (first + channel) * plane..][..plane]);
            }
        });
    }

    /// Calls `f` with each row of the matrix of patches, image, channel and line of the output, and the part of the line
    /// of the input that it reads, if it is not all padding.
    fn each_row(&self, count: usize, mut f: impl FnMut(usize, usize, usize, usize, Option<Line>)) {
        let [vertical, horizontal] = self.windows;
        let mut row = 0;
        for channel in 0..self.inputs / self.groups {
            for ky in 0..vertical.kernel {
                for kx in 0..horizontal.kernel {
                    let span = Span::of(&horizontal, kx, self.size[1]);
                    for image in 0..count {
                        for y in 0..vertical.output {
                            let line = (y * vertical.stride + ky * vertical.dilation)
                                .checked_sub(vertical.pad_begin)
                                .filter(|&line| line < self.size[0]);
                            let line = line.map(|line| Line { start: line * self.size[1], span });
                            f(row, image, channel, y, line);
                        }
                    }
                    row += 1;
                }
            }
        }
    }

    /// Puts a product `[outputs, images, pixels]` of one group where it belongs among `[images, all outputs, pixels]`.
    fn scatter(&self, from: &[f32], group: usize, count: usize, out: &mut [f32]) {
        let (pixels, outputs) = (self.pixels(), self.outputs / self.groups);
        for (i, row) in from.chunks(count * pixels).enumerate() {
            for (image, part) in row.chunks(pixels).enumerate() {
                out[image * self.output() + (group * outputs + i) * pixels..][..pixels].copy_from_slice(part);
            }
        }
    }

    /// The reverse of [`Self::scatter`].
    fn gather<'p>(&self, from: &[f32], group: usize, count: usize, to: &'p mut Vec<f32>) -> &'p [f32] {
        let (pixels, outputs) = (self.pixels(), self.outputs / self.groups);
        to.resize(outputs * count * pixels, 0.0);
        for (i, row) in to.chunks_mut(count * pixels).enumerate() {
            for (image, part) in row.chunks_mut(pixels).enumerate() {
                part.copy_from_slice(&from[image * self.output() + (group * outputs + i) * pixels..][..pixels]);
            }
        }
        to
    }
}

/// The outputs of a line that read the image, for one place in the window: output `x` reads pixel
/// `first + (x − begin) · stride`.
#[derive(Clone, Copy)]
struct Span {
    begin: usize,
    end: usize,
    first: usize,
    stride: usize,
}

impl Span {
    fn of(window: &Window, k: usize, size: usize) -> Self {
        let (stride, offset) = (window.stride, k * window.dilation);
        let begin = window.pad_begin.saturating_sub(offset).div_ceil(stride).min(window.output);
        // Positions below `size` after the padding.
        let limit = (size + window.pad_begin).saturating_sub(offset);
        let end = limit.div_ceil(stride).clamp(begin, window.output.max(begin));
        Self { begin, end, first: (begin * stride + offset).saturating_sub(window.pad_begin), stride }
    }
}

/// A line of an image read by a line of the output.
struct Line {
    start: usize,
    span: Span,
}

impl Line {
    fn gather(&self, plane: &[f32], to: &mut [f32]) {
        let Span { begin, end, first, stride } = self.span;
        to[..begin].fill(0.0);
        to[end..].fill(0.0);
        let from = &plane[self.start + first..];
        match stride {
            1 => to[begin..end].copy_from_slice(&from[..end - begin]),
            _ => to[begin..end].iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, &from)| *to = from),
        }
    }

    fn add(&self, from: &[f32], plane: &mut [f32]) {
        let Span { begin, end, first, stride } = self.span;
        let to = &mut plane[self.start + first..];
        let from = &from[begin..end];
        match stride {
            1 => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
            _ => to.iter_mut().step_by(stride).zip(from).for_each(|(to, from)| *to += from),
        }
    }
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "conv"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = flat::operand(x, x_layout)?;
        let out = self.forward(x, flat::operand(w, w_layout)?, flat::operand(b, b_layout)?);
        let n = x.len() / self.image().max(1);
        flat::result(out, (n, self.outputs, self.windows[0].output, self.windows[1].output))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, dw, db] = flat::with([x, w, g], |[x, w, g]| Ok(self.backward(x, w, g)))?;
        Ok((Some(flat::tensor(dx, x.shape())?), Some(flat::tensor(dw, w.shape())?), Some(flat::tensor(db, b.shape())?)))
    }
}
