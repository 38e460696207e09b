//! Strips in bytes: a pixel is a word of four elements `x + 128`, since all cores load bytes without a sign. Weights are
//! widened to words, channel by channel.

use super::{Output, QUAD, Quad, Shape, Strip};
#[cfg(native)]
use crate::kernels::scalar::Windows;
use crate::plan::DType;

/// A pixel.
pub(super) type Cell = u32;

/// 128 in all bytes: instead of added, it may be taken as a difference of bits.
const OFFSETS: u32 = 0x8080_8080;

/// A pixel of these channels.
#[inline(always)]
pub(super) fn cell(quad: [i8; QUAD]) -> Cell {
    u32::from_le_bytes(quad.map(|x| x as u8)) ^ OFFSETS
}

/// Work memory as pixels.
pub(super) fn cells(words: &mut [u32]) -> &mut [Cell] {
    words
}

/// Pixels of the four bytes at the start of every `distance` bytes of `x`, for each of `to`.
#[inline(always)]
pub(super) fn cells_apart(x: &[i8], distance: usize, to: &mut [Cell]) -> Option<()> {
    // Words, where they are aligned.
    let (words, _) = x.as_chunks::<4>();
    match bytemuck::try_cast_slice::<_, u32>(words) {
        Ok(words) if distance.is_multiple_of(4) => {
            for (pixel, words) in to.iter_mut().zip(words.chunks((distance / 4).max(1))) {
                *pixel = words.first()? ^ OFFSETS;
            }
        }
        _ => {
            for (pixel, x) in to.iter_mut().zip(x.chunks(distance.max(1))) {
                *pixel = cell(*x.first_chunk()?);
            }
        }
    }
    Some(())
}

impl Strip<'_> {
    /// Sets the weights from bytes that lie `distance` apart for each tap; `None` if a tap has not four of them.
    pub(crate) fn set_byte_weights(&mut self, x: &[i8], distance: usize) -> Option<()> {
        self.set_weights(|tap| x.get(tap.wrapping_mul(distance)..)?.first_chunk().copied())
    }

    /// Sets the weights from those of each tap.
    pub(crate) fn set_weights(&mut self, tap: impl Fn(usize) -> Option<[i8; 4]>) -> Option<()> {
        let taps = self.weights.len() / QUAD;
        let (first, rest) = self.weights.split_at_mut_checked(taps)?;
        let (second, rest) = rest.split_at_mut_checked(taps)?;
        let (third, fourth) = rest.split_at_mut_checked(taps)?;
        for (i, (((a, b), c), d)) in first.iter_mut().zip(second).zip(third).zip(fourth).enumerate() {
            let weights = tap(i)?.map(|w| i32::from(w) as u32);
            [*a, *b, *c, *d] = weights;
        }
        Some(())
    }

    /// Sets what finishes the sums in the core's own kernel: none here.
    pub(crate) fn set_channels(&mut self, _quad: &Quad<'_>) {}

    /// Computes [`Self::rows_at_once`] rows of outputs, the first of which begins with row `top` of the padded input:
    /// pixels from `pixel` on with `distance` channels.
    pub(crate) fn run(
        &self,
        top: usize,
        quad: &Quad<'_>,
        [pixel, distance]: [usize; 2],
        y: &mut Output<'_>,
    ) -> Option<()> {
        let Shape { strides, outputs: [_, outputs], .. } = self.shape;
        let at = pixel.wrapping_mul(distance).wrapping_add(quad.first);
        let count = self.rows_at_once().wrapping_mul(outputs);
        let plain = quad.plain && y.dtype() == DType::I8;
        #[cfg(native)]
        if plain && self.shape.kernel == [3, 3] {
            let y = y.bytes_from(at)?;
            self.run_3x3(top, quad, y, distance)?;
            return quad.channels.clamp_rows(y, [count, distance, QUAD]);
        }
        for (lane, weights) in self.weights.chunks((self.weights.len() / QUAD).max(1)).enumerate().take(quad.lanes) {
            let (o, at) = (quad.first.wrapping_add(lane), at.wrapping_add(lane));
            let excess = excess(weights);
            let channel = if plain { Some(quad.channels.channel(o)?.less(excess)) } else { None };
            for i in 0..count {
                let row = i.checked_div(outputs)?;
                let left = i.wrapping_sub(row.wrapping_mul(outputs)).wrapping_mul(strides[1]);
                let top = top.wrapping_add(row.wrapping_mul(strides[0]));
                let (at, sum) = (at.wrapping_add(i.wrapping_mul(distance)), self.sum([top, left], lane, weights)?);
                match &channel {
                    Some(channel) => *y.bytes_from(at)?.first_mut()? = channel.finish(sum),
                    None => y.put(at, quad.channels.finish(o, sum.wrapping_sub(excess))?)?,
                }
            }
        }
        Some(())
    }

    /// As [`Self::run`] with a kernel of three by three, channel by channel in the core's own instructions: `y` begins with
    /// the first output.
    #[cfg(native)]
    fn run_3x3(&self, top: usize, quad: &Quad<'_>, y: &mut [u8], distance: usize) -> Option<()> {
        // Where the rows of the first windows begin.
        let mut slot = top.checked_rem(self.rows)?;
        let rows = core::array::from_fn(|_| {
            let start = slot.wrapping_mul(self.columns);
            slot = slot.wrapping_add(1);
            if slot == self.rows {
                slot = 0;
            }
            start
        });
        let Shape { strides: [down, right], outputs: [_, outputs], .. } = self.shape;
        let windows = Windows {
            pixels: self.pixels,
            rows,
            right,
            down: down.wrapping_mul(self.columns),
            outputs: [self.rows_at_once(), outputs],
        };
        let (weights, _) = self.weights.as_chunks();
        for (lane, weights) in weights.iter().enumerate().take(QUAD) {
            let channel = quad.channels.channel(quad.first.wrapping_add(lane))?.less(excess(weights));
            windows.run(lane, weights, &channel, y.get_mut(lane..)?, distance)?;
        }
        Some(())
    }

    /// Row `row` of the padded input.
    #[inline(always)]
    fn row(&self, row: usize) -> Option<&[[u8; QUAD]]> {
        let start = row.checked_rem(self.rows)?.wrapping_mul(self.columns);
        bytemuck::try_cast_slice(self.pixels.get(start..start.wrapping_add(self.columns))?).ok()
    }

    /// The sum of the window that begins at row `top` and column `left` of the padded input; it is [`excess`] too large.
    fn sum(&self, [top, left]: [usize; 2], lane: usize, weights: &[u32]) -> Option<i32> {
        let mut sum = 0u32;
        for (ky, weights) in weights.chunks(self.shape.kernel[1].max(1)).enumerate() {
            let row = self.row(top.wrapping_add(ky))?.get(left..)?.get(..weights.len())?;
            for (pixel, &weight) in row.iter().zip(weights) {
                sum = sum.wrapping_add(u32::from(*pixel.get(lane)?).wrapping_mul(weight));
            }
        }
        Some(sum as i32)
    }
}

/// What 128 in every element makes a sum too large.
fn excess(weights: &[u32]) -> i32 {
    weights.iter().fold(0u32, |sum, &w| sum.wrapping_add(w)).wrapping_mul(128) as i32
}
