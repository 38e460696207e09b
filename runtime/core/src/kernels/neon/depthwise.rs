//! Depthwise convolutions, sixteen channels of a pixel at a time, where they lie.

use core::arch::aarch64::*;
use core::ptr;

use super::finish::{self, Bytes, Quad};
use super::{QUAD, VECTOR};
use crate::kernels::channels::{Channels, Output};
use crate::kernels::weights::{Matrix, OCTET, Width};
use crate::kernels::window::Window;
use crate::plan::DType;

/// Taps at most.
const MOST_TAPS: usize = 64;

/// Taps of the kernel size that has code of its own: 3 by 3.
const NINE: usize = 9;

/// Any number of taps.
const ANY: usize = 0;

/// A depthwise convolution with one output channel for each input channel.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Depthwise<'s, 'a, W: Width> {
    pub(in crate::kernels) window: &'s Window,
    pub(in crate::kernels) weights: &'s Matrix<'a, W>,
    pub(in crate::kernels) channels: &'s Channels<'a>,
}

/// Where taps read, relative to a window's first.
struct Taps {
    offsets: [usize; MOST_TAPS],
    count: usize,
}

impl<W: Width> Depthwise<'_, '_, W> {
    /// Whether the kernel can do it.
    pub(in crate::kernels) fn fits(&self, dtype: DType) -> bool {
        dtype == DType::I8
            && self.window.taps().is_some_and(|taps| (1..=MOST_TAPS).contains(&taps))
            && finish::fit(self.channels)
    }

    /// Runs it, if it [fits](Self::fits): a block of channels at a time, with weights that are prepared once. The last block
    /// goes back as far as it needs to be whole.
    pub(in crate::kernels) fn run(&self, x: &[i8], x_zero: i8, y: &mut Output<'_>) -> Option<()> {
        let channels = self.window.in_channels;
        let taps = self.taps()?;
        for o in (0..channels).step_by(VECTOR) {
            let first = o.min(channels.saturating_sub(VECTOR));
            // SAFETY: every core of the architecture has vectors.
            let block = unsafe { Block::new(self, first, taps.count)? };
            match taps.count {
                NINE => self.run_block::<NINE>(&block, &taps, x, x_zero, y)?,
                _ => self.run_block::<ANY>(&block, &taps, x, x_zero, y)?,
            }
        }
        Some(())
    }

    fn taps(&self) -> Option<Taps> {
        let Window { rows, cols, in_channels, .. } = *self.window;
        let (mut offsets, count) = ([0usize; MOST_TAPS], self.window.taps()?);
        for (tap, offset) in offsets.iter_mut().enumerate().take(count) {
            let (ky, kx) = (tap / cols.kernel, tap % cols.kernel);
            let row = ky.wrapping_mul(rows.dilation.get()).wrapping_mul(cols.input);
            *offset = row.wrapping_add(kx.wrapping_mul(cols.dilation.get())).wrapping_mul(in_channels);
        }
        Some(Taps { offsets, count })
    }

    /// All pixels of a block of channels. `T` is the number of taps, or [`ANY`].
    fn run_block<const T: usize>(
        &self,
        block: &Block,
        taps: &Taps,
        x: &[i8],
        x_zero: i8,
        y: &mut Output<'_>,
    ) -> Option<()> {
        let Window { batch, rows, cols, in_channels, .. } = *self.window;
        let image_len = rows.input.wrapping_mul(cols.input).wrapping_mul(in_channels);
        let ([top, height], [left, width]) = (rows.inside(), cols.inside());
        // A window inside the input reads as far as this behind its first element.
        let reach = taps.offsets.get(taps.count.wrapping_sub(1))?.wrapping_add(VECTOR);
        let step = cols.stride.wrapping_mul(in_channels);
        let mut border = Border::new(x_zero);
        for n in 0..batch {
            let image = x.get(n.wrapping_mul(image_len)..)?;
            for oy in 0..rows.output {
                let pixel = n.wrapping_mul(rows.output).wrapping_add(oy).wrapping_mul(cols.output);
                let inside = oy.wrapping_sub(top) < height;
                let mut ox = 0;
                while ox < cols.output {
                    let at = pixel.wrapping_add(ox).wrapping_mul(in_channels).wrapping_add(block.first);
                    let y = y.bytes_from(at)?;
                    // These wrap where a window begins in the padding.
                    let iy = oy.wrapping_mul(rows.stride).wrapping_sub(rows.before);
                    let ix = ox.wrapping_mul(cols.stride).wrapping_sub(cols.before);
                    let start = iy.wrapping_mul(cols.input).wrapping_add(ix).wrapping_mul(in_channels);
                    let start = start.wrapping_add(block.first);
                    // How many windows from here on lie inside, and end before the input does, whose last pixels may have
                    // fewer channels left than a vector.
                    let left_inside = if inside { width.saturating_sub(ox.wrapping_sub(left)) } else { 0 };
                    let room = image.len().checked_sub(start.saturating_add(reach));
                    let fit = room.map_or(0, |room| room.checked_div(step).unwrap_or(0).saturating_add(1));
                    let count = left_inside.min(fit);
                    if count > 0 && ox >= left {
                        let y = y.get_mut(..count.wrapping_sub(1).wrapping_mul(in_channels).wrapping_add(block.lanes))?;
                        // SAFETY: the last window ends within `image`; `y` has the block's channels of every pixel.
                        unsafe {
                            let x = image.as_ptr().add(start);
                            block.row::<T>(x, step, &taps.offsets, y.as_mut_ptr(), in_channels, count);
                        }
                        ox = ox.wrapping_add(count);
                        continue;
                    }
                    border.fill(self.window, image, [iy, ix], block.first)?;
                    let y = y.get_mut(..block.lanes)?;
                    // SAFETY: every tap points at a vector; `y` has the block's channels.
                    unsafe { block.pixel::<T>(&border.taps, y.as_mut_ptr()) };
                    ox = ox.wrapping_add(1);
                }
            }
        }
        Some(())
    }
}

/// What the taps of a window at the border read.
struct Border {
    taps: [*const i8; MOST_TAPS],
    padding: [i8; VECTOR],
    /// What ends the input and is no whole vector.
    spare: [[i8; VECTOR]; MOST_TAPS],
}

impl Border {
    fn new(x_zero: i8) -> Self {
        Self { taps: [ptr::null(); MOST_TAPS], padding: [x_zero; VECTOR], spare: [[0; VECTOR]; MOST_TAPS] }
    }

    /// Points each tap of the window at `[iy, ix]`, which wrap, at a vector of channels from `first` on.
    #[inline(always)]
    fn fill(&mut self, window: &Window, image: &[i8], [iy, ix]: [usize; 2], first: usize) -> Option<()> {
        let Window { rows, cols, in_channels, .. } = *window;
        let mut places = self.taps.iter_mut().zip(&mut self.spare);
        for ky in 0..rows.kernel {
            let iy = iy.wrapping_add(ky.wrapping_mul(rows.dilation.get()));
            for kx in 0..cols.kernel {
                let ix = ix.wrapping_add(kx.wrapping_mul(cols.dilation.get()));
                let at = iy.wrapping_mul(cols.input).wrapping_add(ix).wrapping_mul(in_channels).wrapping_add(first);
                let (tap, spare) = places.next()?;
                *tap = self.padding.as_ptr();
                if iy < rows.input && ix < cols.input {
                    let x = image.get(at..)?;
                    *tap = match x.first_chunk::<VECTOR>() {
                        Some(x) => x.as_ptr(),
                        None => {
                            spare.get_mut(..x.len())?.copy_from_slice(x);
                            spare.as_ptr()
                        }
                    };
                }
            }
        }
        Some(())
    }
}

/// A block of channels, ready for its pixels.
///
/// Taps go in pairs. A sum of two products reaches 2^15 if all four numbers are -128: of the second, `-x - 1` for `x` is
/// subtracted instead, which makes the sum too large by its weight. The bias makes up for it.
struct Block {
    first: usize,
    /// Channels, a vector or all that there are.
    lanes: usize,
    weights: [int8x16_t; MOST_TAPS],
    taps: usize,
    quads: [Quad; 4],
    output: Bytes,
}

impl Block {
    #[target_feature(enable = "neon")]
    fn new<W: Width>(conv: &Depthwise<'_, '_, W>, first: usize, taps: usize) -> Option<Self> {
        let (channels, count) = (conv.channels, conv.window.in_channels);
        let mut quads = [Quad::new(channels, first)?; 4];
        for (i, quad) in quads.iter_mut().enumerate() {
            *quad = Quad::new(channels, (first + i * QUAD).min(count - 1))?;
        }
        let lanes = VECTOR.min(count - first);
        let mut weights = [vdupq_n_s8(0); MOST_TAPS];
        let mut second = [vdupq_n_s16(0); 2];
        for (tap, weights) in weights.iter_mut().enumerate().take(taps) {
            *weights = tap_weights(conv.weights, [tap, first, lanes], count)?;
            if tap % 2 == 1 {
                second = [vaddw_s8(second[0], vget_low_s8(*weights)), vaddw_high_s8(second[1], *weights)];
            }
        }
        let [a, b, c, d] = &mut quads;
        (a.bias, b.bias) = (vsubw_s16(a.bias, vget_low_s16(second[0])), vsubw_high_s16(b.bias, second[0]));
        (c.bias, d.bias) = (vsubw_s16(c.bias, vget_low_s16(second[1])), vsubw_high_s16(d.bias, second[1]));
        let output = Bytes::new(channels.zero_point, channels.clamp);
        Some(Self { first, lanes, weights, taps, quads, output })
    }

    /// Computes `count` pixels, `x_step` and `y_step` apart, whose windows lie inside the input.
    ///
    /// # Safety
    ///
    /// A vector can be read at each of the first `T` offsets of every pixel's `x`, and the block's channels written at `y`.
    #[inline(never)]
    #[target_feature(enable = "neon")]
    unsafe fn row<const T: usize>(
        &self,
        x: *const i8,
        x_step: usize,
        offsets: &[usize; MOST_TAPS],
        y: *mut u8,
        y_step: usize,
        count: usize,
    ) {
        for i in 0..count {
            let x = x.wrapping_add(i * x_step);
            // SAFETY: as said.
            unsafe {
                let sums = self.sums::<T>(|tap| vld1q_s8(x.add(offsets[tap])));
                self.store(sums, y.add(i * y_step));
            }
        }
    }

    /// Computes one pixel.
    ///
    /// # Safety
    ///
    /// A vector can be read at each of the first `T` taps, and the block's channels written at `y`.
    #[inline(never)]
    #[target_feature(enable = "neon")]
    unsafe fn pixel<const T: usize>(&self, taps: &[*const i8; MOST_TAPS], y: *mut u8) {
        // SAFETY: as said.
        unsafe {
            let sums = self.sums::<T>(|tap| vld1q_s8(taps[tap]));
            self.store(sums, y);
        }
    }

    /// The sums of products with what each tap reads.
    #[inline]
    #[target_feature(enable = "neon")]
    fn sums<const T: usize>(&self, read: impl Fn(usize) -> int8x16_t) -> [int32x4_t; 4] {
        let taps = if T == ANY { self.taps } else { T };
        let mut acc = self.quads.map(|quad| quad.bias);
        let mut add = |low: int16x8_t, high: int16x8_t| {
            acc[0] = vaddw_s16(acc[0], vget_low_s16(low));
            acc[1] = vaddw_high_s16(acc[1], low);
            acc[2] = vaddw_s16(acc[2], vget_low_s16(high));
            acc[3] = vaddw_high_s16(acc[3], high);
        };
        for (pair, w) in self.weights.as_chunks::<2>().0.iter().enumerate().take(taps / 2) {
            let x = [read(2 * pair), vmvnq_s8(read(2 * pair + 1))];
            let low = vmull_s8(vget_low_s8(x[0]), vget_low_s8(w[0]));
            let high = vmull_high_s8(x[0], w[0]);
            add(vmlsl_s8(low, vget_low_s8(x[1]), vget_low_s8(w[1])), vmlsl_high_s8(high, x[1], w[1]));
        }
        if taps % 2 == 1 {
            let (x, w) = (read(taps - 1), self.weights[taps - 1]);
            add(vmull_s8(vget_low_s8(x), vget_low_s8(w)), vmull_high_s8(x, w));
        }
        acc
    }

    /// Finishes sums and stores the block's channels.
    ///
    /// # Safety
    ///
    /// They can be written at `y`.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn store(&self, sums: [int32x4_t; 4], y: *mut u8) {
        let [a, b, c, d] = self.quads;
        let scaled = [a.scaled(sums[0]), b.scaled(sums[1]), c.scaled(sums[2]), d.scaled(sums[3])];
        let out = vreinterpretq_u8_s8(self.output.finish(scaled));
        // SAFETY: as said.
        unsafe {
            match self.lanes {
                VECTOR => vst1q_u8(y, out),
                OCTET => vst1_u8(y, vget_low_u8(out)),
                lanes => {
                    let mut bytes = [0u8; VECTOR];
                    vst1q_u8(bytes.as_mut_ptr(), out);
                    ptr::copy_nonoverlapping(bytes.as_ptr(), y, lanes);
                }
            }
        }
    }
}

/// The weights of a tap for `lanes` channels from `first` on, of `count`; 0 beyond.
#[inline]
#[target_feature(enable = "neon")]
fn tap_weights<W: Width>(
    weights: &Matrix<'_, W>,
    [tap, first, lanes]: [usize; 3],
    count: usize,
) -> Option<int8x16_t> {
    let row = weights.row(tap)?;
    if let Some(bytes) = W::bytes(weights, tap * count + first).and_then(|bytes| bytes.get(..lanes)) {
        let mut all = [0i8; VECTOR];
        return Some(match bytes.first_chunk::<VECTOR>() {
            // SAFETY: 16 bytes are read.
            Some(bytes) => unsafe { vld1q_s8(bytes.as_ptr()) },
            None => {
                all.get_mut(..lanes)?.copy_from_slice(bytes);
                // SAFETY: 16 bytes are read.
                unsafe { vld1q_s8(all.as_ptr()) }
            }
        });
    }
    if lanes == VECTOR && first.is_multiple_of(OCTET) {
        let words = row.get(first / OCTET..)?.get(..2)?;
        // SAFETY: two octets of packed weights are two words.
        let bytes = unsafe { vld1_u8(words.as_ptr().cast()) };
        // Nibbles in turn: elements 0, 1, 4, 5, 2, 3, 6, 7 of each octet.
        let nibbles = vcombine_u8(
            vzip1_u8(vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8::<4>(bytes)),
            vzip2_u8(vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8::<4>(bytes)),
        );
        let order = vcombine_u8(vcreate_u8(0x0706_0302_0504_0100), vcreate_u8(0x0F0E_0B0A_0D0C_0908));
        return Some(vsubq_s8(vreinterpretq_s8_u8(vqtbl1q_u8(nibbles, order)), vdupq_n_s8(8)));
    }
    let mut all = [0i8; VECTOR];
    for (weight, k) in all.iter_mut().zip(first..).take(lanes) {
        *weight = W::get(row, k)? as i8;
    }
    // SAFETY: 16 bytes are read.
    Some(unsafe { vld1q_s8(all.as_ptr()) })
}
