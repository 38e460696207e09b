//! Depthwise convolution: every channel by itself.
//!
//! A padded channel is one long vector. At stride 1 every output is a sum over places of the window of the same vector
//! shifted, so that all lines are computed in one run; what falls between lines is dropped, and so is what a stride
//! leaves out.

use super::conv::Conv;
use super::simd;

/// Elements computed together.
const RUN: usize = 32;

/// The geometry of a padded channel.
struct Plane {
    /// Width of a padded line.
    width: usize,
    /// Elements of the run at stride 1, from the first output to the last.
    run: usize,
    /// For each place in the window, how far it is from the first.
    offsets: Vec<usize>,
}

impl Plane {
    fn new(conv: &Conv) -> Self {
        let [vertical, horizontal] = conv.windows;
        let width = conv.size[1] + horizontal.pad_begin + horizontal.pad_end;
        let offset = |ky: usize, kx: usize| ky * vertical.dilation * width + kx * horizontal.dilation;
        let offsets = (0..vertical.kernel).flat_map(|ky| (0..horizontal.kernel).map(move |kx| offset(ky, kx)));
        let last = |outputs: usize, stride: usize| outputs.saturating_sub(1) * stride;
        let run = last(vertical.output, vertical.stride) * width + last(horizontal.output, horizontal.stride) + 1;
        Self { width, run, offsets: offsets.collect() }
    }

    /// The run, rounded up to whole [`RUN`]s.
    fn padded_run(&self) -> usize {
        self.run.next_multiple_of(RUN)
    }

    /// Length of a buffer in which every shifted run lies.
    fn buffer(&self) -> usize {
        self.padded_run() + self.offsets.last().copied().unwrap_or(0)
    }

    /// Length of a buffer that holds the padded channel, and every shifted run too.
    fn image(&self, conv: &Conv) -> usize {
        let lines = conv.size[0] + conv.windows[0].pad_begin + conv.windows[0].pad_end;
        self.buffer().max(lines * self.width)
    }

    fn place(&self, conv: &Conv, line: usize) -> usize {
        (line + conv.windows[0].pad_begin) * self.width + conv.windows[1].pad_begin
    }

    /// Copies a channel into the padded buffer, whose padding is 0 and stays.
    fn fill(&self, conv: &Conv, channel: &[f32], plane: &mut [f32]) {
        for (i, line) in channel.chunks(conv.size[1]).enumerate() {
            plane[self.place(conv, i)..][..line.len()].copy_from_slice(line);
        }
    }
}

/// `out[i] = start + Σ weight · from[i + offset]`.
#[inline(always)]
fn correlate(from: &[f32], weights: &[f32], offsets: impl Iterator<Item = usize> + Clone, start: f32, out: &mut [f32]) {
    for (i, out) in out.chunks_exact_mut(RUN).enumerate() {
        let mut sums = [start; RUN];
        for (&weight, offset) in weights.iter().zip(offsets.clone()) {
            let from = &from[i * RUN + offset..][..RUN];
            for (sum, &x) in sums.iter_mut().zip(from) {
                *sum += weight * x;
            }
        }
        out.copy_from_slice(&sums);
    }
}

pub(super) fn forward(conv: &Conv, x: &[f32], weights: &[f32], bias: &[f32], out: &mut [f32]) {
    let plane = Plane::new(conv);
    let [vertical, horizontal] = conv.windows;
    let (pixels, taps) = (conv.pixels(), plane.offsets.len());
    let per_input = conv.outputs / conv.groups;
    let mut image = vec![0.0; plane.image(conv)];
    let mut run = vec![0.0; plane.padded_run()];
    simd::vectorized(
        #[inline(always)]
        || {
            let channels = x.chunks(conv.size[0] * conv.size[1]);
            for (i, (channel, out)) in channels.zip(out.chunks_mut(per_input * pixels)).enumerate() {
                plane.fill(conv, channel, &mut image);
                for (j, out) in out.chunks_mut(pixels).enumerate() {
                    let output = i % conv.inputs * per_input + j;
                    let weights = &weights[output * taps..][..taps];
                    correlate(&image, weights, plane.offsets.iter().copied(), bias[output], &mut run);
                    for (y, line) in out.chunks_mut(horizontal.output).enumerate() {
                        let from = &run[y * vertical.stride * plane.width..];
                        if horizontal.stride == 1 {
                            line.copy_from_slice(&from[..line.len()]);
                        } else {
                            line.iter_mut().zip(from.iter().step_by(horizontal.stride)).for_each(|(to, &v)| *to = v);
                        }
                    }
                }
            }
        },
    );
}

pub(super) fn backward(conv: &Conv, x: &[f32], weights: &[f32], g: &[f32], dx: &mut [f32], dw: &mut [f32]) {
    let plane = Plane::new(conv);
    let [vertical, horizontal] = conv.windows;
    let (pixels, taps) = (conv.pixels(), plane.offsets.len());
    let per_input = conv.outputs / conv.groups;
    let reach = plane.offsets.last().copied().unwrap_or(0);
    let mut image = vec![0.0; plane.image(conv)];
    // Gradients of a run, after as many zeros as the window reaches, and followed by as many.
    let back = plane.image(conv).next_multiple_of(RUN);
    let mut run = vec![0.0; reach + back.max(plane.padded_run())];
    let mut gradient = vec![0.0; back];
    simd::vectorized(
        #[inline(always)]
        || {
            let channels = x.chunks(conv.size[0] * conv.size[1]).zip(dx.chunks_mut(conv.size[0] * conv.size[1]));
            for (i, ((channel, dx), g)) in channels.zip(g.chunks(per_input * pixels)).enumerate() {
                plane.fill(conv, channel, &mut image);
                for (j, g) in g.chunks(pixels).enumerate() {
                    let output = i % conv.inputs * per_input + j;
                    for (y, line) in g.chunks(horizontal.output).enumerate() {
                        let to = &mut run[reach + y * vertical.stride * plane.width..];
                        to.iter_mut().step_by(horizontal.stride).zip(line).for_each(|(to, &v)| *to = v);
                    }
                    let weights = &weights[output * taps..][..taps];
                    // The pixel at i takes part in the outputs at i − offset.
                    let back_offsets = plane.offsets.iter().map(|offset| reach - offset);
                    correlate(&run, weights, back_offsets, 0.0, &mut gradient);
                    for (line, dx) in dx.chunks_mut(conv.size[1]).enumerate() {
                        let from = &gradient[plane.place(conv, line)..];
                        dx.iter_mut().zip(from).for_each(|(dx, g)| *dx += g);
                    }
                    for (dw, &offset) in dw[output * taps..][..taps].iter_mut().zip(&plane.offsets) {
                        *dw += simd::dot(&run[reach..][..plane.run], &image[offset..][..plane.run]);
                    }
                }
            }
        },
    );
}
