//! Depthwise convolutions, sixteen channels of a pixel at a time.
//!
//! What a row of outputs reads of a block of channels lies in a ring of rows, padding included: each row of the input is
//! copied once, and all windows are alike.

use core::arch::aarch64::*;
use core::arch::asm;
use core::ptr;

use super::finish::{self, Bytes, Quad};
use super::{QUAD, VECTOR};
use crate::kernels::channels::{Channels, Output};
use crate::kernels::weights::{Matrix, OCTET, Width};
use crate::kernels::window::{Axis, Window};
use crate::plan::DType;

/// Taps at most.
const MOST_TAPS: usize = 64;

/// Taps of the kernel size that has code of its own: 3 by 3.
const NINE: usize = 9;

/// Any number of taps.
const ANY: usize = 0;

/// Pixels of a ring: rows of outputs that need more are computed in pieces.
const RING: usize = 256;

/// A depthwise convolution with one output channel for each input channel.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Depthwise<'s, 'a, W: Width> {
    pub(in crate::kernels) window: &'s Window,
    pub(in crate::kernels) weights: &'s Matrix<'a, W>,
    pub(in crate::kernels) channels: &'s Channels<'a>,
}

/// Elements that `count` neighbouring windows read.
const fn extent(axis: &Axis, count: usize) -> usize {
    let kernel = axis.kernel.wrapping_sub(1).wrapping_mul(axis.dilation.get()).wrapping_add(1);
    count.wrapping_sub(1).wrapping_mul(axis.stride).wrapping_add(kernel)
}

impl<W: Width> Depthwise<'_, '_, W> {
    /// Whether the kernel can do it.
    pub(in crate::kernels) fn fits(&self, dtype: DType) -> bool {
        let Window { rows, cols, .. } = self.window;
        dtype == DType::I8
            && self.window.taps().is_some_and(|taps| taps <= MOST_TAPS)
            && extent(rows, 1).saturating_mul(extent(cols, 1)) <= RING
            && finish::fit(self.channels)
    }

    /// Runs it, if it [fits](Self::fits): a block of channels at a time, with weights that are prepared once. The last block
    /// goes back as far as it needs to be whole.
    pub(in crate::kernels) fn run(&self, x: &[i8], x_zero: i8, y: &mut Output<'_>) -> Option<()> {
        let Window { batch, rows, cols, in_channels, .. } = *self.window;
        let image_len = rows.input.wrapping_mul(cols.input).wrapping_mul(in_channels);
        let taps = self.window.taps()?;
        // Outputs of a row whose windows have room in the ring.
        let room = (RING / extent(&rows, 1)).checked_sub(extent(&cols, 1))?;
        let piece = room.checked_div(cols.stride)?.wrapping_add(1);
        // SAFETY: every core of the architecture has vectors.
        let mut block = unsafe { Block::new(self.channels) };
        let mut ring = Ring::new(x_zero, &rows);
        for o in (0..in_channels).step_by(VECTOR) {
            let first = o.min(in_channels.saturating_sub(VECTOR));
            // SAFETY: as said.
            unsafe { block.set(self, first, taps)? };
            for n in 0..batch {
                let image = x.get(n.wrapping_mul(image_len)..)?;
                let pixel = n.wrapping_mul(rows.output).wrapping_mul(cols.output);
                for left in (0..cols.output).step_by(piece) {
                    let columns = [left, piece.min(cols.output.wrapping_sub(left))];
                    match taps {
                        NINE => self.run_piece::<NINE>(&block, &mut ring, image, columns, pixel, y)?,
                        _ => self.run_piece::<ANY>(&block, &mut ring, image, columns, pixel, y)?,
                    }
                }
            }
        }
        Some(())
    }

    /// Columns `left..left + count` of all rows of an image's outputs, which begin at `pixel`. `T` is the number of taps, or
    /// [`ANY`].
    fn run_piece<const T: usize>(
        &self,
        block: &Block,
        ring: &mut Ring,
        image: &[i8],
        [left, count]: [usize; 2],
        pixel: usize,
        y: &mut Output<'_>,
    ) -> Option<()> {
        let Window { rows, cols, in_channels, .. } = *self.window;
        ring.columns = extent(&cols, count);
        let mut filled = 0usize;
        for oy in 0..rows.output {
            let top = oy.wrapping_mul(rows.stride);
            let end = top.wrapping_add(ring.rows);
            for row in filled.max(top)..end {
                let iy = row.checked_sub(rows.before).filter(|&iy| iy < rows.input);
                let start =
                    iy.map(|iy| iy.wrapping_mul(cols.input).wrapping_mul(in_channels).wrapping_add(block.first));
                let input = start.and_then(|start| image.get(start..));
                ring.fill(row, input, &cols, left.wrapping_mul(cols.stride), in_channels)?;
            }
            filled = end;
            ring.set_offsets(top, &rows, &cols)?;
            let at = pixel.wrapping_add(oy.wrapping_mul(cols.output)).wrapping_add(left).wrapping_mul(in_channels);
            let y = y.bytes_from(at.wrapping_add(block.first))?;
            let y = y.get_mut(..count.wrapping_sub(1).wrapping_mul(in_channels).wrapping_add(block.lanes))?;
            // SAFETY: the ring has a vector for each column that the windows read, in every row that its offsets name; `y`
            // has the block's channels of every pixel.
            unsafe {
                let x = ring.pixels.as_ptr().cast();
                block.row::<T>(x, cols.stride.wrapping_mul(VECTOR), &ring.offsets, y.as_mut_ptr(), in_channels, count);
            }
        }
        Some(())
    }
}

/// Rows of the padded input, a vector for each pixel: row `r` in place `r mod rows`.
struct Ring {
    pixels: [[i8; VECTOR]; RING],
    rows: usize,
    columns: usize,
    padding: [i8; VECTOR],
    /// Where the taps of windows read, in bytes from the first pixel's vector.
    offsets: [usize; MOST_TAPS],
}

impl Ring {
    /// With as many rows as a window reaches over.
    fn new(x_zero: i8, rows: &Axis) -> Self {
        let offsets = [0; MOST_TAPS];
        Self { pixels: [[0; VECTOR]; RING], rows: extent(rows, 1), columns: 0, padding: [x_zero; VECTOR], offsets }
    }

    /// Fills the place of row `row`, from column `left` of the padded input on: `input` begins with the block's channels of
    /// the row's first pixel, or is `None` if the row is padding.
    fn fill(&mut self, row: usize, input: Option<&[i8]>, cols: &Axis, left: usize, in_channels: usize) -> Option<()> {
        let start = row.checked_rem(self.rows)?.wrapping_mul(self.columns);
        let pixels = self.pixels.get_mut(start..start.wrapping_add(self.columns))?;
        let Some(input) = input else {
            pixels.fill(self.padding);
            return Some(());
        };
        // Columns of padding, of the input, and again of padding.
        let before = cols.before.saturating_sub(left).min(self.columns);
        let skipped = left.saturating_sub(cols.before).min(cols.input);
        let (padding, rest) = pixels.split_at_mut_checked(before)?;
        let (inside, behind) = rest.split_at_mut_checked(cols.input.wrapping_sub(skipped).min(rest.len()))?;
        padding.fill(self.padding);
        behind.fill(self.padding);
        let input = input.get(skipped.wrapping_mul(in_channels)..)?;
        // Pixels behind which the input has a vector; others there meet weights of 0.
        let whole = input.len().checked_sub(VECTOR).map_or(0, |last| last.checked_div(in_channels).unwrap_or(0) + 1);
        let (whole, rest) = inside.split_at_mut(whole.min(inside.len()));
        for (i, pixel) in whole.iter_mut().enumerate() {
            // SAFETY: a vector lies there, as said.
            *pixel = unsafe { input.as_ptr().add(i * in_channels).cast::<[i8; VECTOR]>().read_unaligned() };
        }
        for (pixel, at) in rest.iter_mut().zip((0..).step_by(in_channels).skip(whole.len())) {
            let x = input.get(at..)?;
            pixel.get_mut(..x.len())?.copy_from_slice(x);
        }
        Some(())
    }

    /// Sets the offsets for windows that begin with row `top` of the padded input.
    #[inline(always)]
    fn set_offsets(&mut self, top: usize, rows: &Axis, cols: &Axis) -> Option<()> {
        let mut slots = self.offsets.iter_mut();
        for ky in 0..rows.kernel {
            let row = top.wrapping_add(ky.wrapping_mul(rows.dilation.get()));
            let start = row.checked_rem(self.rows)?.wrapping_mul(self.columns).wrapping_mul(VECTOR);
            for kx in 0..cols.kernel {
                *slots.next()? = start.wrapping_add(kx.wrapping_mul(cols.dilation.get()).wrapping_mul(VECTOR));
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
    /// Channels: a vector, or all that there are.
    lanes: usize,
    weights: [int8x16_t; MOST_TAPS],
    taps: usize,
    quads: [Quad; 4],
    output: Bytes,
}

impl Block {
    #[target_feature(enable = "neon")]
    fn new(channels: &Channels<'_>) -> Self {
        Self {
            first: 0,
            lanes: 0,
            weights: [vdupq_n_s8(0); MOST_TAPS],
            taps: 0,
            quads: [Quad::none(); 4],
            output: Bytes::new(channels.zero_point, channels.clamp),
        }
    }

    /// Takes on the channels from `first` on.
    #[target_feature(enable = "neon")]
    fn set<W: Width>(&mut self, conv: &Depthwise<'_, '_, W>, first: usize, taps: usize) -> Option<()> {
        let count = conv.window.in_channels;
        for (i, quad) in self.quads.iter_mut().enumerate() {
            *quad = Quad::new(conv.channels, (first + i * QUAD).min(count - 1))?;
        }
        (self.first, self.lanes, self.taps) = (first, VECTOR.min(count - first), taps);
        let mut second = [vdupq_n_s16(0); 2];
        for (tap, weights) in self.weights.iter_mut().enumerate().take(taps) {
            *weights = tap_weights(conv.weights, tap, [first, self.lanes])?;
            if tap % 2 == 1 {
                second = [vaddw_s8(second[0], vget_low_s8(*weights)), vaddw_high_s8(second[1], *weights)];
            }
        }
        let [a, b, c, d] = &mut self.quads;
        (a.bias, b.bias) = (vsubw_s16(a.bias, vget_low_s16(second[0])), vsubw_high_s16(b.bias, second[0]));
        (c.bias, d.bias) = (vsubw_s16(c.bias, vget_low_s16(second[1])), vsubw_high_s16(d.bias, second[1]));
        Some(())
    }

    /// Computes `count` pixels, `x_step` and `y_step` apart.
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
            // SAFETY: as said.
            unsafe {
                let x = x.add(i * x_step);
                let sums = self.sums::<T>(|tap| vld1q_s8(x.add(offsets[tap])));
                self.store(sums, y.add(i * y_step));
            }
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
            let [low, high] = products(x[0], w[0]);
            add(vmlsl_s8(low, vget_low_s8(x[1]), vget_low_s8(w[1])), less_high_products(high, x[1], w[1]));
        }
        if taps % 2 == 1 {
            let [low, high] = products(read(taps - 1), self.weights[taps - 1]);
            add(low, high);
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
        let [a, b, c, d] = &self.quads;
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

/// The products of bytes. The compiler would take upper halves of weights out of the loop, which costs registers that are
/// needed, and an instruction for those of `x`.
#[inline]
#[target_feature(enable = "neon")]
fn products(x: int8x16_t, w: int8x16_t) -> [int16x8_t; 2] {
    let high: int16x8_t;
    // SAFETY: an instruction of every core, which touches registers only.
    unsafe {
        asm!(
            "smull2 {high:v}.8h, {x:v}.16b, {w:v}.16b",
            high = lateout(vreg) high,
            x = in(vreg) x,
            w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    [vmull_s8(vget_low_s8(x), vget_low_s8(w)), high]
}

/// Subtracts the products of upper halves.
#[inline]
#[target_feature(enable = "neon")]
fn less_high_products(mut from: int16x8_t, x: int8x16_t, w: int8x16_t) -> int16x8_t {
    // SAFETY: an instruction of every core, which touches registers only.
    unsafe {
        asm!(
            "smlsl2 {from:v}.8h, {x:v}.16b, {w:v}.16b",
            from = inout(vreg) from,
            x = in(vreg) x,
            w = in(vreg) w,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    from
}

/// The weights of a tap for `lanes` channels from `first` on; 0 beyond.
#[inline]
#[target_feature(enable = "neon")]
fn tap_weights<W: Width>(weights: &Matrix<'_, W>, tap: usize, [first, lanes]: [usize; 2]) -> Option<int8x16_t> {
    let row = weights.row(tap)?;
    if lanes == VECTOR && !W::PACKED {
        let bytes = row.get(first..)?.get(..VECTOR)?;
        // SAFETY: 16 weights are bytes.
        return Some(unsafe { vld1q_s8(bytes.as_ptr().cast()) });
    }
    if lanes == VECTOR && first.is_multiple_of(OCTET) {
        let words = row.get(first / OCTET..)?.get(..2)?;
        // SAFETY: two octets of packed weights are two words.
        let bytes = unsafe { vld1_u8(words.as_ptr().cast()) };
        // Nibbles in turn: elements 0, 1, 4, 5, 2, 3, 6, 7 of each octet.
        let (low, high) = (vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8::<4>(bytes));
        let nibbles = vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high));
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
