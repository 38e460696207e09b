//! Outputs that lie over their own inputs.
//!
//! An operator with windows may write its output over its input if rows are computed in *bands*: those of an output that
//! begins before its input from the first to the last, those of an output that begins behind it from the last to the first.
//! A band must end before all that is read for it and for later ones, or begin behind that; [`leads`] says how far apart
//! tensors must begin for it. What a band reads and what it writes are then apart in memory, as kernels want it.

use core::num::NonZeroUsize;
use core::ops::Range;

use super::memory;
use super::window::Axis;
use crate::error::Reason;
use crate::plan::TensorRecord;

/// Output pixels of a band at least, where there are so many: filters are prepared for each band, and pixels are multiplied
/// several at once.
const PIXELS: usize = 16;

/// The rows that windows slide over.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// Rows of the input.
    pub input: usize,
    /// Rows of the output.
    pub output: usize,
    /// Taps of a window.
    pub kernel: usize,
    /// From a window to the next, at least 1.
    pub stride: usize,
    /// From a tap to the next, at least 1.
    pub dilation: usize,
    /// Rows of padding before the input.
    pub before: usize,
}

/// How many bytes an output must begin before its input, and how many behind it, to lie over it. `row_len` are bytes of a
/// row of input and output, `height` is that of a band ([`band_height`]); the batch is 1.
///
/// `None` where some window reads nothing: such operators have no bands.
pub fn leads(rows: Rows, row_len: [usize; 2], height: usize) -> Option<[usize; 2]> {
    let Rows { input, output, kernel, stride, before, .. } = rows;
    let dilation = NonZeroUsize::new(rows.dilation)?;
    let rows = Axis { input, output, kernel, stride, dilation, before, after: 0 };
    Bands::over(rows, row_len, height)?.leads()
}

/// Output rows of a band for an output of so many rows and columns.
pub const fn band_height([rows, cols]: [usize; 2]) -> usize {
    let height = PIXELS.div_ceil(if cols == 0 { 1 } else { cols });
    if height < rows { height } else { rows }
}

/// What is computed at once: rows, and the bytes of both tensors that they are.
pub(crate) struct Band {
    pub(crate) rows: Axis,
    pub(crate) x: Range<usize>,
    pub(crate) y: Range<usize>,
}

/// The rows of an operator, cut in bands: an iterator over them in the order in which they are computed.
pub(crate) struct Bands {
    rows: Axis,
    /// Bytes of a row of the input and of the output.
    row_len: [usize; 2],
    /// Output rows of a band, at least 1.
    height: usize,
    count: usize,
    /// How many are left.
    left: usize,
    /// Whether the output begins behind the input.
    upwards: bool,
    /// Whether all is one band, whatever its batch.
    whole: bool,
}

impl Bands {
    /// The bands of an operator from `x` to `y`: one of everything if they are apart.
    #[inline(never)]
    pub(crate) fn new([x, y]: [&TensorRecord; 2], rows: Axis, height: usize) -> Option<Self> {
        let row_len = |tensor: &TensorRecord, rows: usize| memory::byte_len(tensor).checked_div(rows);
        let row_len = [row_len(x, rows.input)?, row_len(y, rows.output)?];
        let whole = memory::check_disjoint(x, y).is_ok();
        let bands = Self::over(rows, row_len, if whole { rows.output } else { height })?;
        Some(Self { upwards: y.offset > x.offset, whole, ..bands })
    }

    /// The bands where tensors overlap.
    fn over(rows: Axis, row_len: [usize; 2], height: usize) -> Option<Self> {
        let whole = rows.output.checked_div(height)?;
        let count = whole.wrapping_add(usize::from(whole.wrapping_mul(height) < rows.output));
        Some(Self { rows, row_len, height, count, left: count, upwards: false, whole: false })
    }

    /// Band `i` of the output: its first row, and the one behind its last.
    fn outputs(&self, i: usize) -> [usize; 2] {
        let first = i.wrapping_mul(self.height);
        [first, first.wrapping_add(self.height).min(self.rows.output)]
    }

    /// The rows of the input that output rows `first..end` read.
    fn inputs(&self, [first, end]: [usize; 2]) -> [usize; 2] {
        let Axis { input, stride, before, .. } = self.rows;
        let behind = end.wrapping_sub(1).wrapping_mul(stride).wrapping_add(self.rows.extent());
        [first.wrapping_mul(stride).saturating_sub(before), behind.saturating_sub(before).min(input)]
    }

    fn get(&self, i: usize) -> Band {
        let [x, y] = self.row_len;
        if self.whole {
            let Axis { input, output, .. } = self.rows;
            return Band { rows: self.rows, x: 0..input.wrapping_mul(x), y: 0..output.wrapping_mul(y) };
        }
        let Axis { stride, before, after, input, .. } = self.rows;
        let [first, end] = self.outputs(i);
        let [top, bottom] = self.inputs([first, end]);
        let behind = end.wrapping_sub(1).wrapping_mul(stride).wrapping_add(self.rows.extent());
        let padded = before.wrapping_add(input).wrapping_add(after);
        let rows = Axis {
            input: bottom.wrapping_sub(top),
            output: end.wrapping_sub(first),
            before: before.saturating_sub(first.wrapping_mul(stride)),
            after: behind.min(padded).saturating_sub(before.wrapping_add(bottom)),
            ..self.rows
        };
        Band { rows, x: top.wrapping_mul(x)..bottom.wrapping_mul(x), y: first.wrapping_mul(y)..end.wrapping_mul(y) }
    }

    /// See [`leads`].
    fn leads(&self) -> Option<[usize; 2]> {
        let Axis { input, output, stride, before, .. } = self.rows;
        let last = self.count.checked_sub(1)?;
        // The first and the last window reach into the input, and so do all between them.
        if self.rows.extent() <= before || output.wrapping_sub(1).wrapping_mul(stride) >= input.wrapping_add(before) {
            return None;
        }
        // Both distances grow or fall evenly but for where the padding ends, or begins, and for the last band.
        let above = before.checked_div(stride)?.checked_div(self.height)?;
        let inside = input.wrapping_add(before).saturating_sub(self.rows.extent()).checked_div(stride)?;
        let below = inside.wrapping_add(1).checked_div(self.height)?;
        let ends = [0, above, above.wrapping_add(1), below.saturating_sub(1), below, last.saturating_sub(1), last];
        let [x, y] = self.row_len;
        let distances = ends.into_iter().filter(|&i| i <= last).map(|i| {
            let [first, end] = self.outputs(i);
            let [top, bottom] = self.inputs([first, end]);
            let before = end.wrapping_mul(y).saturating_sub(top.wrapping_mul(x));
            [before, bottom.wrapping_mul(x).saturating_sub(first.wrapping_mul(y))]
        });
        Some(distances.fold([0, 0], |most, next| [most[0].max(next[0]), most[1].max(next[1])]))
    }
}

impl Iterator for Bands {
    type Item = Band;

    #[inline(never)]
    fn next(&mut self) -> Option<Band> {
        self.left = self.left.checked_sub(1)?;
        let i = if self.upwards { self.left } else { self.count.wrapping_sub(self.left).wrapping_sub(1) };
        Some(self.get(i))
    }
}

/// Refuses an output that lies over its input otherwise than in bands.
#[inline(never)]
pub(crate) fn check([x, y]: [&TensorRecord; 2], batch: usize, rows: Axis, height: usize) -> Result<(), Reason> {
    let bands = Bands::new([x, y], rows, height).ok_or(Reason::OperatorShape)?;
    if bands.whole {
        return Ok(());
    }
    let [before, behind] = bands.leads().filter(|_| batch == 1).ok_or(Reason::Overlap)?;
    let (distance, lead) = match bands.upwards {
        true => (y.offset.wrapping_sub(x.offset), behind),
        false => (x.offset.wrapping_sub(y.offset), before),
    };
    if distance as usize >= lead { Ok(()) } else { Err(Reason::Overlap) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every small axis.
    fn axes() -> impl Iterator<Item = Axis> {
        let sizes = (1..8usize).flat_map(|input| (1..4usize).map(move |kernel| (input, kernel)));
        let steps = [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)];
        let pads = [(0, 0), (1, 1), (2, 0), (0, 3), (3, 2)];
        sizes.flat_map(move |(input, kernel)| {
            steps.into_iter().flat_map(move |(stride, dilation)| {
                pads.into_iter().filter_map(move |(before, after)| {
                    let free = (input + before + after).checked_sub((kernel - 1) * dilation + 1)?;
                    let output = free / stride + 1;
                    let dilation = NonZeroUsize::new(dilation)?;
                    Some(Axis { input, output, kernel, stride, dilation, before, after })
                })
            })
        })
    }

    #[test]
    fn distances_are_the_least_that_keep_bands_apart() {
        let mut found = 0;
        for rows in axes() {
            for height in 1..=rows.output {
                for row_len in [[4, 4], [3, 8], [8, 3], [1, 20]] {
                    let bands = Bands::over(rows, row_len, height).unwrap();
                    let Some([before, behind]) = bands.leads() else { continue };
                    let all = || (0..bands.count).map(|i| bands.get(i));
                    let most = |distance: fn(Band) -> usize| all().map(distance).max().unwrap_or(0);
                    assert_eq!(before, most(|band| band.y.end.saturating_sub(band.x.start)), "{rows:?}, {height}");
                    assert_eq!(behind, most(|band| band.x.end.saturating_sub(band.y.start)), "{rows:?}, {height}");
                    // Nothing that was overwritten is read later: bands are in order.
                    assert!(all().zip(all().skip(1)).all(|(a, b)| a.x.start <= b.x.start && a.x.end <= b.x.end));
                    found += 1;
                }
            }
        }
        assert!(found > 1000);
    }

    #[test]
    fn bands_read_what_the_whole_reads() {
        for rows in axes() {
            let bands = Bands::over(rows, [1, 1], 2.min(rows.output)).unwrap();
            if bands.leads().is_none() {
                continue;
            }
            for band in bands {
                for o in 0..band.rows.output {
                    let (part, whole) = (band.rows.taps(o), rows.taps(band.y.start + o));
                    assert_eq!((part.first, part.end), (whole.first, whole.end), "{rows:?}");
                    assert!(part.len() == 0 || band.x.start + part.start == whole.start, "{rows:?}");
                }
            }
        }
    }
}
