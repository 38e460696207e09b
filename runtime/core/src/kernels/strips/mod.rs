//! Strips: what a row of outputs of a depthwise convolution reads of four channels.
//!
//! A small image has all its rows in the strip. Otherwise a strip has as many rows as the kernel: row `r` of the padded
//! input lies in row `r mod kernel_h`, so that each row is prepared once. What a pixel is, and how it meets weights, is up
//! to the core: [`pairs`] or [`bytes`].

#[cfg(scalar)]
mod bytes;
#[cfg(not(scalar))]
mod pairs;

#[cfg(scalar)]
use bytes::{Cell, cell, cells, cells_apart};
#[cfg(not(scalar))]
use pairs::{Cell, cell, cells, cells_apart};

use super::bands;
use super::channels::{Channels, Output};

/// Channels of a strip.
pub(crate) const QUAD: usize = 4;

/// Words of bias, mantissas, roundings and shifts of a quad.
const CHANNEL_WORDS: usize = 4 * QUAD;

/// Words of a tap's weights.
const TAP_WORDS: usize = 4;

/// Pixels at most of a strip with all rows of an image.
pub(crate) const WHOLE: usize = 320;

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

    /// Output rows of a band (see [`bands`]): one, where a strip of several would have more rows than a strip has.
    pub(crate) const fn band_height(&self) -> usize {
        if self.whole() { bands::band_height(self.outputs) } else { 1 }
    }

    /// Words of work memory.
    pub(crate) const fn words(&self) -> usize {
        CHANNEL_WORDS + TAP_WORDS * self.kernel[0] * self.kernel[1] + 2 * self.rows() * self.read(1)
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
    /// What finishes the sums in the core's own kernel.
    #[cfg_attr(scalar, expect(dead_code, reason = "sums are finished with what the plan holds"))]
    channels: &'w mut [u32],
    /// All taps.
    weights: &'w mut [u32],
    /// The rows.
    pixels: &'w mut [Cell],
    shape: Shape,
    rows: usize,
    /// Pixels of a row.
    columns: usize,
}

impl<'w> Strip<'w> {
    /// Lays the strip out in work memory of [`Shape::words`].
    pub(crate) fn new(work: &'w mut [u32], shape: Shape) -> Option<Self> {
        let (channels, rest) = work.split_at_mut_checked(CHANNEL_WORDS)?;
        let taps = shape.kernel[0].wrapping_mul(shape.kernel[1]);
        let (weights, pixels) = rest.split_at_mut_checked(taps.wrapping_mul(TAP_WORDS))?;
        Some(Self { channels, weights, pixels: cells(pixels), shape, rows: shape.rows(), columns: shape.read(1) })
    }

    /// Rows of outputs that are computed at once, at least one.
    pub(crate) fn rows_at_once(&self) -> usize {
        if self.shape.whole() { self.shape.outputs[0].max(1) } else { 1 }
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
        let padding = cell([zero; QUAD]);
        let Some(input) = input else {
            pixels.fill(padding);
            return Some(());
        };
        let (left, rest) = pixels.split_at_mut(before.min(self.columns));
        let (inside, right) = rest.split_at_mut(width.min(rest.len()));
        left.fill(padding);
        right.fill(padding);
        if lanes == QUAD {
            cells_apart(input, distance, inside)?;
        } else {
            for (pixel, x) in inside.iter_mut().zip(input.chunks(distance.max(1))) {
                let mut quad = [0; QUAD];
                for (slot, &x) in quad.iter_mut().zip(x.get(..lanes)?) {
                    *slot = x;
                }
                *pixel = cell(quad);
            }
        }
        Some(())
    }
}
