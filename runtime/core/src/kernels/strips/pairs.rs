//! Strips in pairs: a pixel is two words, the pairs of channels 0 and 2 and of channels 1 and 3, widened to 16 bits as in
//! [`crate::kernels::patches`]. Where a strip has fewer rows than the image, the weights turn instead of the rows: they are
//! held twice, and a row of outputs begins with the weights that belong to the strip's first row.

use super::{Output, QUAD, Quad, Shape, Strip};
use crate::kernels::channels::Channels;
use crate::kernels::patches::widened;

/// A pixel.
pub(super) type Cell = [u32; 2];

/// A pixel of these channels.
#[inline(always)]
pub(super) fn cell(quad: [i8; QUAD]) -> Cell {
    widened(quad)
}

/// Work memory as pixels.
pub(super) fn cells(words: &mut [u32]) -> &mut [Cell] {
    words.as_chunks_mut().0
}

/// Widens the four bytes at the start of every `distance` bytes of `x`, for each of `to`.
#[inline(always)]
pub(super) fn cells_apart(x: &[i8], distance: usize, to: &mut [Cell]) -> Option<()> {
    #[cfg(dsp)]
    return crate::kernels::dsp::widen_apart(x, distance, to);
    #[cfg(not(dsp))]
    {
        for (pixel, x) in to.iter_mut().zip(x.chunks(distance.max(1))) {
            *pixel = widened(*x.first_chunk::<QUAD>()?);
        }
        Some(())
    }
}

impl Strip<'_> {
    /// Sets the weights from bytes that lie `distance` apart for each tap; `None` if a tap has not four of them.
    pub(crate) fn set_byte_weights(&mut self, x: &[i8], distance: usize) -> Option<()> {
        let (weights, _) = self.weights.as_chunks_mut();
        let taps = weights.len() / 2;
        cells_apart(x, distance, weights.get_mut(..taps)?)?;
        self.repeat_weights();
        Some(())
    }

    /// Sets the weights from those of each tap.
    pub(crate) fn set_weights(&mut self, tap: impl Fn(usize) -> Option<[i8; 4]>) -> Option<()> {
        let (weights, _) = self.weights.as_chunks_mut();
        let taps = weights.len() / 2;
        for (i, slot) in weights.iter_mut().take(taps).enumerate() {
            *slot = widened(tap(i)?);
        }
        self.repeat_weights();
        Some(())
    }

    /// Writes the weights again behind themselves, where they turn.
    fn repeat_weights(&mut self) {
        if !self.shape.whole() {
            let (first, second) = self.weights.split_at_mut(self.weights.len() / 2);
            for (slot, &word) in second.iter_mut().zip(&*first) {
                *slot = word;
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
        let (weights, _) = self.weights.as_chunks();
        let weights = weights.get(start..start.wrapping_add(kernel_h.wrapping_mul(kernel_w)))?;
        let at = pixel.wrapping_mul(distance).wrapping_add(quad.first);
        #[cfg(dsp)]
        if quad.plain && y.dtype() == crate::plan::DType::I8 {
            let row = crate::kernels::dsp::Row {
                channels: self.channels,
                weights,
                pixels: self.pixels,
                columns: self.columns,
            };
            let (y, rows) = (y.bytes_from(at)?, self.rows_at_once());
            crate::kernels::dsp::depthwise(&row, self.shape.kernel, strides, [rows, outputs], &mut *y, distance)?;
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
