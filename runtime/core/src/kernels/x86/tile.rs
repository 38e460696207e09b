//! Tiles of the input of a convolution or product: made ready for multiplication once, with what lies in the padding, so that
//! all windows are alike.

use core::mem::MaybeUninit;

use super::widen;
use crate::kernels::weights::OCTET;
use crate::kernels::window::Axis;

/// Elements of a tile: 64 KiB.
const ELEMENTS: usize = 1 << 15;

/// Elements behind a tile that the last segment may reach into.
const SLACK: usize = OCTET;

/// What tiles hold.
pub(super) trait Element: Copy {
    /// An input element as it is multiplied.
    fn of(x: i8) -> Self;

    /// Writes as many input elements as `to` has room for; there are as many of both.
    ///
    /// # Safety
    ///
    /// The core has AVX2.
    unsafe fn write(x: &[i8], to: &mut [MaybeUninit<Self>]);
}

/// Numbers of 16 bits, for products in pairs.
impl Element for i16 {
    fn of(x: i8) -> Self {
        x.into()
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn write(x: &[i8], to: &mut [MaybeUninit<Self>]) {
        widen(x, to);
    }
}

/// Segments of a window at most.
pub(super) const MOST_SEGMENTS: usize = 64;

/// Input elements that `outputs` windows reach along an axis.
pub(super) fn reach(axis: &Axis, outputs: usize) -> usize {
    let steps = outputs.saturating_sub(1).saturating_mul(axis.stride);
    let extent = (axis.kernel - 1).saturating_mul(axis.dilation.get());
    steps.saturating_add(extent).saturating_add(1)
}

/// As many windows along an axis, at least one, as reach no more than `most` elements.
pub(super) fn windows(axis: &Axis, most: usize) -> usize {
    (most.saturating_sub(reach(axis, 1)) / axis.stride.max(1) + 1).min(axis.output)
}

/// The windows of an image, and how they are read: in segments, as filters lie.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Windows<'a> {
    /// The image from the first channel on that windows read.
    pub(in crate::kernels) image: &'a [i8],
    pub(in crate::kernels) x_zero: i8,
    pub(in crate::kernels) rows: Axis,
    pub(in crate::kernels) cols: Axis,
    /// Channels of a pixel.
    pub(in crate::kernels) channels: usize,
    /// Segments of a row of taps: one, or as many as taps.
    pub(in crate::kernels) segments: usize,
    /// Elements of a segment.
    pub(in crate::kernels) len: usize,
}

impl Windows<'_> {
    /// Columns of a tile: what a row of windows reaches.
    fn columns(&self) -> usize {
        reach(&self.cols, self.cols.output)
    }

    /// Elements of a row of a tile.
    pub(super) fn row_len(&self) -> usize {
        self.columns().saturating_mul(self.channels)
    }

    /// Segments of a window.
    pub(super) fn count(&self) -> usize {
        self.rows.kernel.saturating_mul(self.segments)
    }

    /// Pairs of elements of a segment, filled up to a multiple of two.
    pub(super) fn pairs(&self) -> usize {
        self.len.div_ceil(4) * 2
    }

    /// Output pixels.
    pub(super) fn pixels(&self) -> usize {
        self.rows.output.saturating_mul(self.cols.output)
    }

    /// Whether a tile has room for a row of windows at least.
    pub(super) fn fit(&self) -> bool {
        self.count() <= MOST_SEGMENTS && reach(&self.rows, 1).saturating_mul(self.row_len()) <= ELEMENTS
    }

    /// Rows of windows that a tile has room for.
    pub(super) fn rows_at_once(&self) -> usize {
        windows(&self.rows, ELEMENTS.checked_div(self.row_len()).unwrap_or(0))
    }

    /// Where the segments of a window begin, in elements from its first one; those behind the last begin nowhere.
    pub(super) fn offsets(&self) -> [usize; MOST_SEGMENTS] {
        let mut offsets = [0; MOST_SEGMENTS];
        for (i, offset) in offsets.iter_mut().enumerate().take(self.count()) {
            let ky = i.checked_div(self.segments).unwrap_or(0);
            let kx = i - ky * self.segments;
            let down = ky * self.rows.dilation.get() * self.row_len();
            *offset = down + kx * self.cols.dilation.get() * self.channels;
        }
        offsets
    }
}

/// Input elements.
pub(super) struct Tile<E> {
    elements: [MaybeUninit<E>; ELEMENTS + SLACK],
    /// How many of them are written.
    len: usize,
}

impl<E: Element> Tile<E> {
    pub(super) fn new() -> Self {
        Self { elements: [MaybeUninit::uninit(); ELEMENTS + SLACK], len: 0 }
    }

    /// Elements from `start` on, of which `len` are there.
    #[inline(always)]
    pub(super) fn from(&self, start: usize, len: usize) -> Option<*const E> {
        (start + len <= self.len).then(|| self.elements.as_ptr().cast::<E>().wrapping_add(start))
    }

    /// Writes what `height` rows of windows from `oy` on read, and [`SLACK`] elements behind. `None` if there is no room.
    #[target_feature(enable = "avx2")]
    pub(super) fn fill(&mut self, windows: &Windows<'_>, oy: usize, height: usize) -> Option<()> {
        let Windows { image, rows, cols, channels, .. } = *windows;
        let (columns, row_len) = (windows.columns(), windows.row_len());
        let left = cols.before.min(columns);
        let inside = cols.input.min(columns - left);
        let count = reach(&rows, height);
        let (to, slack) = self.elements.get_mut(..count * row_len + SLACK)?.split_at_mut_checked(count * row_len)?;
        let padding = MaybeUninit::new(E::of(windows.x_zero));
        slack.fill(padding);
        let top = oy * rows.stride;
        let input_len = cols.input * channels;
        if inside == columns && columns == cols.input && rows.before == 0 && top + count <= rows.input {
            fill(to, image.get(top * input_len..)?);
        } else {
            for (row, to) in to.chunks_exact_mut(row_len.max(1)).enumerate() {
                let iy = (top + row).checked_sub(rows.before).filter(|&iy| iy < rows.input);
                let Some(iy) = iy else {
                    to.fill(padding);
                    continue;
                };
                let (before, to) = to.split_at_mut_checked(left * channels)?;
                let (to, behind) = to.split_at_mut_checked(inside * channels)?;
                before.fill(padding);
                behind.fill(padding);
                fill(to, image.get(iy * input_len..)?);
            }
        }
        self.len = count * row_len + SLACK;
        Some(())
    }
}

/// Fills `to` with the first elements of `x`; those behind its last, which no window reads, are 0.
#[inline]
#[target_feature(enable = "avx2")]
fn fill<E: Element>(to: &mut [MaybeUninit<E>], x: &[i8]) {
    let (to, missing) = to.split_at_mut(x.len().min(to.len()));
    missing.fill(MaybeUninit::new(E::of(0)));
    // SAFETY: the core has AVX2, says this function's feature.
    unsafe { E::write(x.get(..to.len()).unwrap_or_default(), to) };
}
