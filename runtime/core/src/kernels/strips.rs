//! Strips: what a row of outputs of a depthwise convolution reads of four channels, widened to 16 bits.
//!
//! A pixel of a strip is two words, the pairs of channels 0 and 2 and of channels 1 and 3, as in [`super::patches`]. A small
//! image has all its rows in the strip. Otherwise a strip has as many rows as the kernel: row `r` of the padded input lies
//! in row `r mod kernel_h`, so that each row is widened once. Instead of the rows, the weights turn: they are held
//! twice, and a row of outputs begins with the weights that belong to the strip's first row.

use super::channels::{Channels, Output};
use super::patches::widened;

/// Channels of a strip.
pub(crate) const QUAD: usize = 4;

/// Words of bias, mantissas, roundings and shifts of a quad.
const CHANNEL_WORDS: usize = 4 * QUAD;

/// Pixels at most of a strip with all rows of an image.
const WHOLE: usize = 320;

/// Sizes that strips follow from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) kernel: [usize; 2],
    pub(crate) strides: [usize; 2],
    pub(crate) outputs: [usize; 2],
}

impl Shape {
    /// Rows or columns of the padded input that outputs read.
    const fn read(&self, axis: usize) -> usize {
        self.outputs[axis].saturating_sub(1).saturating_mul(self.strides[axis]).saturating_add(self.kernel[axis])
    }

    /// Whether a strip has all rows.
    const fn whole(&self) -> bool {
        self.read(0).saturating_mul(self.read(1)) <= WHOLE
    }

    /// Rows of a strip.
    const fn rows(&self) -> usize {
        if self.whole() { self.read(0) } else { self.kernel[0] }
    }

    /// Words of work memory.
    pub(crate) const fn words(&self) -> usize {
        CHANNEL_WORDS + 2 * (2 * self.kernel[0] * self.kernel[1] + self.rows() * self.read(1))
    }
}

/// Widens the four bytes at the start of every `distance` bytes of `x`, for each of `to`.
#[inline(always)]
fn widen_apart(x: &[i8], distance: usize, to: &mut [[u32; 2]]) -> Option<()> {
    #[cfg(dsp)]
    return super::dsp::widen_apart(x, distance, to);
    #[cfg(not(dsp))]
    {
        for (pixel, x) in to.iter_mut().zip(x.chunks(distance.max(1))) {
            *pixel = widened(*x.first_chunk::<QUAD>()?);
        }
        Some(())
    }
}

/// What finishes the sums of four channels.
pub(crate) struct Quad<'a> {
    channels: &'a Channels<'a>,
    /// The first of them.
    first: usize,
    /// How many there are: fewer than four at the end.
    lanes: usize,
    /// Whether the core's own kernel can finish them.
    plain: bool,
}

impl<'a> Quad<'a> {
    /// Channels from `first` on.
    pub(crate) fn new(channels: &'a Channels<'a>, first: usize, lanes: usize) -> Self {
        let plain = lanes == QUAD && (first..first.wrapping_add(QUAD)).all(|o| channels.is_plain(o));
        Self { channels, first, lanes, plain }
    }
}

/// Work memory of one quad of channels.
pub(crate) struct Strip<'w> {
    /// Four words of bias, mantissa and rounding of each channel in turns, four of shifts: for the core's own kernel.
    channels: &'w mut [u32],
    /// All taps, twice.
    weights: &'w mut [[u32; 2]],
    /// The rows.
    pixels: &'w mut [[u32; 2]],
    shape: Shape,
    rows: usize,
    /// Pixels of a row.
    columns: usize,
}

impl<'w> Strip<'w> {
    /// Lays the strip out in work memory of [`Shape::words`].
    pub(crate) fn new(work: &'w mut [u32], shape: Shape) -> Option<Self> {
        let (channels, rest) = work.split_at_mut_checked(CHANNEL_WORDS)?;
        let (pairs, _) = rest.as_chunks_mut::<2>();
        let taps = shape.kernel[0].wrapping_mul(shape.kernel[1]);
        let (weights, pixels) = pairs.split_at_mut_checked(taps.wrapping_mul(2))?;
        Some(Self { channels, weights, pixels, shape, rows: shape.rows(), columns: shape.read(1) })
    }

    /// Rows of outputs that are computed at once.
    pub(crate) fn rows_at_once(&self) -> usize {
        if self.shape.whole() { self.shape.outputs[0] } else { 1 }
    }

    /// Sets the weights from bytes that lie `distance` apart for each tap; `None` if a tap has not four of them.
    pub(crate) fn set_byte_weights(&mut self, x: &[i8], distance: usize) -> Option<()> {
        let taps = self.weights.len() / 2;
        widen_apart(x, distance, self.weights.get_mut(..taps)?)?;
        self.repeat_weights();
        Some(())
    }

    /// Sets the weights from those of each tap.
    pub(crate) fn set_weights(&mut self, tap: impl Fn(usize) -> Option<[i8; 4]>) -> Option<()> {
        let taps = self.weights.len() / 2;
        for (i, slot) in self.weights.iter_mut().take(taps).enumerate() {
            *slot = widened(tap(i)?);
        }
        self.repeat_weights();
        Some(())
    }

    /// Writes the weights again behind themselves, where they turn.
    fn repeat_weights(&mut self) {
        if !self.shape.whole() {
            let (first, second) = self.weights.split_at_mut(self.weights.len() / 2);
            for (slot, &pair) in second.iter_mut().zip(&*first) {
                *slot = pair;
            }
        }
    }

    /// Sets what finishes the sums in the core's own kernel.
    pub(crate) fn set_channels(&mut self, quad: &Quad<'_>) {
        if !(cfg!(dsp) && quad.plain) {
            return;
        }
        let Channels { bias, mantissas, shifts, zero_point, .. } = *quad.channels;
        let rounding = zero_point.wrapping_mul(2).wrapping_add(1);
        let lanes = bias.iter().zip(mantissas).zip(shifts).skip(quad.first);
        for (i, ((&bias, &mantissa), &shift)) in lanes.take(QUAD).enumerate() {
            let shift = u32::from(shift as u8);
            let rounding = (rounding << (shift.wrapping_sub(2) & 31)) as u32;
            let twice = i.wrapping_mul(2);
            let values = [
                (i, bias as u32),
                (twice.wrapping_add(QUAD), mantissa as u32),
                (twice.wrapping_add(QUAD + 1), rounding),
                (i.wrapping_add(3 * QUAD), shift.wrapping_sub(1)),
            ];
            for (at, value) in values {
                if let Some(slot) = self.channels.get_mut(at) {
                    *slot = value;
                }
            }
        }
    }

    /// Fills row `row` of the padded input: `input` begins with the channels of the first pixel of `width` that lie
    /// `distance` apart, behind `before` pixels of padding, or is `None` if the row is padding.
    pub(crate) fn fill(
        &mut self,
        row: usize,
        input: Option<&[i8]>,
        [width, before, distance]: [usize; 3],
        lanes: usize,
        zero: i8,
    ) -> Option<()> {
        let slot = row.checked_rem(self.rows)?.wrapping_mul(self.columns);
        let pixels = self.pixels.get_mut(slot..slot.wrapping_add(self.columns))?;
        let padding = widened([zero; 4]);
        let Some(input) = input else {
            pixels.fill(padding);
            return Some(());
        };
        let (left, rest) = pixels.split_at_mut(before.min(self.columns));
        let (inside, right) = rest.split_at_mut(width.min(rest.len()));
        left.fill(padding);
        right.fill(padding);
        if lanes == QUAD {
            widen_apart(input, distance, inside)?;
        } else {
            for (pixel, x) in inside.iter_mut().zip(input.chunks(distance.max(1))) {
                let mut quad = [0; QUAD];
                for (slot, &x) in quad.iter_mut().zip(x.get(..lanes)?) {
                    *slot = x;
                }
                *pixel = widened(quad);
            }
        }
        Some(())
    }

    /// Computes [`Self::rows_at_once`] rows of outputs, the first of which begins with row `top` of the padded input:
    /// pixels from `pixel` on with `distance` channels.
    pub(crate) fn run(
        &self,
        top: usize,
        quad: &Quad<'_>,
        [pixel, distance]: [usize; 2],
        y: &mut Output<'_>,
    ) -> Option<()> {
        let Shape { kernel: [kernel_h, kernel_w], strides, outputs: [_, outputs] } = self.shape;
        // The strip's first row holds the row `turned` below the top.
        let turned = self.rows.checked_sub(top.checked_rem(self.rows)?)?.checked_rem(self.rows)?;
        let start = turned.wrapping_mul(kernel_w);
        let weights = self.weights.get(start..start.wrapping_add(kernel_h.wrapping_mul(kernel_w)))?;
        let at = pixel.wrapping_mul(distance).wrapping_add(quad.first);
        #[cfg(dsp)]
        if quad.plain && y.dtype() == crate::plan::DType::I8 {
            let row = super::dsp::Row { channels: self.channels, weights, pixels: self.pixels, columns: self.columns };
            let (y, rows) = (y.bytes_from(at)?, self.rows_at_once());
            super::dsp::depthwise(&row, self.shape.kernel, strides, [rows, outputs], &mut *y, distance)?;
            return quad.channels.clamp_rows(y, [rows.wrapping_mul(outputs), distance, QUAD]);
        }
        for i in 0..self.rows_at_once().wrapping_mul(outputs) {
            let row = i.checked_div(outputs)?;
            let window = row.wrapping_mul(strides[0]).wrapping_mul(self.columns);
            let column = i.wrapping_sub(row.wrapping_mul(outputs)).wrapping_mul(strides[1]);
            let acc = self.sums(weights, window.wrapping_add(column))?;
            for (lane, acc) in acc.into_iter().enumerate().take(quad.lanes) {
                let value = quad.channels.finish(quad.first.wrapping_add(lane), acc)?;
                y.put(at.wrapping_add(i.wrapping_mul(distance)).wrapping_add(lane), value)?;
            }
        }
        Some(())
    }

    /// The sums of the output whose window begins at pixel `at`.
    #[inline(always)]
    fn sums(&self, weights: &[[u32; 2]], at: usize) -> Option<[i32; QUAD]> {
        let [_, kernel_w] = self.shape.kernel;
        let mut acc = [0i32; QUAD];
        let rows = self.pixels.get(at..)?.chunks(self.columns.max(1));
        for (row, weights) in rows.zip(weights.chunks(kernel_w.max(1))) {
            for (&[x_even, x_odd], &[w_even, w_odd]) in row.get(..kernel_w)?.iter().zip(weights) {
                let product = |x: u32, w: u32| i32::from(x as i16).wrapping_mul(i32::from(w as i16));
                acc[0] = acc[0].wrapping_add(product(x_even, w_even));
                acc[1] = acc[1].wrapping_add(product(x_odd, w_odd));
                acc[2] = acc[2].wrapping_add(product(x_even >> 16, w_even >> 16));
                acc[3] = acc[3].wrapping_add(product(x_odd >> 16, w_odd >> 16));
            }
        }
        Some(acc)
    }
}
