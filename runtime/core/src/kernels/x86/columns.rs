//! Products of many pixels: channels in the lanes of vectors, so that sums need no adding up.
//!
//! Filters are written to a *panel* first: of each group of eight, a vector for every pair of elements, widened to 16 bits.
//! What they meet is read from a [`Tile`].

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::Avx2;
use super::filters::{filter_bytes, one_octet, two_octets};
use super::finish::{self, GROUP, Group, Target};
use super::tile::{MOST_SEGMENTS, Tile, Windows};
use crate::kernels::channels::Output;
use crate::kernels::linear::{Linear, Place};
use crate::kernels::weights::{OCTET, Width};

/// Vectors of a panel: 64 KiB.
pub(super) const PANEL: usize = 2048;

/// Groups of a panel at most.
pub(super) const GROUPS: usize = 32;

/// Elements of a filter at most: a panel has room for four groups of them.
const MAX_LEN: usize = 1024;

/// A panel's vectors.
pub(super) type Panel = [MaybeUninit<__m256i>; PANEL];

/// Pixels that are multiplied together.
pub(super) const PIXELS: usize = 4;

/// Whether panels and tiles have room for these windows, and pay.
pub(in crate::kernels) fn worth_it(windows: &Windows<'_>, filter_len: usize) -> bool {
    (1..=MAX_LEN).contains(&filter_len) && windows.pixels() >= 2 * PIXELS && windows.fit()
}

impl Avx2 {
    /// Computes the output pixels of `windows` from `place.pixel` on, if it is [`worth_it`].
    pub(in crate::kernels) fn columns<W: Width>(
        self,
        linear: &Linear<'_, W>,
        windows: &Windows<'_>,
        place: Place,
        y: &mut Output<'_>,
    ) -> Option<()> {
        // SAFETY: the core has AVX2.
        unsafe { panels(linear, windows, place, y) }
    }
}

#[target_feature(enable = "avx2")]
fn panels<W: Width>(linear: &Linear<'_, W>, windows: &Windows<'_>, place: Place, y: &mut Output<'_>) -> Option<()> {
    let vectors = linear.filter_len / 2;
    // An even number, since blocks have two.
    let groups = PANEL.checked_div(vectors)?.min(GROUPS) / 2 * 2;
    let mut panel: Panel = [MaybeUninit::uninit(); PANEL];
    let mut constants = [Group::NONE; GROUPS];
    let mut tile = Tile::<i16>::new();
    let (rows, height) = (windows.rows.output, windows.rows_at_once());
    let target = Target::new(&linear.channels, y);
    for first in (place.first..place.end).step_by((groups * GROUP).max(1)) {
        let count = (place.end - first).min(groups * GROUP);
        for (i, constants) in constants.iter_mut().enumerate().take(count.div_ceil(GROUP)) {
            let o = first + i * GROUP;
            *constants = Group::new(&linear.channels, o);
            let columns = panel.get_mut(i * vectors..)?.get_mut(..vectors)?;
            write_columns::<W>(linear, o, (place.end - o).min(GROUP), columns)?;
        }
        let block = Block::new(&panel, &constants, vectors, count, windows, target)?;
        for oy in (0..rows).step_by(height.max(1)) {
            let height = height.min(rows - oy);
            if height < rows || first == place.first {
                tile.fill(windows, oy, height)?;
            }
            let pixel = place.pixel + oy * windows.cols.output;
            let to = finish::Place { at: pixel * linear.out_channels + first, distance: linear.out_channels, count };
            block.run(&tile, windows, height * windows.cols.output, to, y)?;
        }
    }
    Some(())
}

/// Writes the columns of `count` filters from `o` on, one to eight; those missing hold the last.
#[target_feature(enable = "avx2")]
fn write_columns<W: Width>(
    linear: &Linear<'_, W>,
    o: usize,
    count: usize,
    columns: &mut [MaybeUninit<__m256i>],
) -> Option<()> {
    let octets = linear.filter_len / OCTET;
    let filters = linear.weights.range(o, o + count)?.as_ptr().cast::<u8>();
    let last = count.checked_sub(1)?;
    let filter = |row: usize| filters.wrapping_add(row.min(last) * filter_bytes::<W>(octets));
    let (twos, one) = columns.as_chunks_mut::<OCTET>();
    for (i, columns) in twos.iter_mut().enumerate() {
        let mut rows = [_mm_setzero_si128(); GROUP];
        for (row, slot) in rows.iter_mut().enumerate() {
            // SAFETY: columns are as many as a filter has pairs: octets 2i and 2i + 1 are filters'.
            *slot = unsafe { two_octets::<W>(filter(row), 2 * i) };
        }
        for (column, pairs) in columns.iter_mut().zip(transposed(rows)) {
            column.write(_mm256_cvtepi8_epi16(pairs));
        }
    }
    if !one.is_empty() {
        let mut rows = [_mm_setzero_si128(); GROUP];
        for (row, slot) in rows.iter_mut().enumerate() {
            // SAFETY: the last octet is filters'.
            *slot = unsafe { one_octet::<W>(filter(row), octets - 1) };
        }
        for (column, pairs) in one.iter_mut().zip(transposed(rows)) {
            column.write(_mm256_cvtepi8_epi16(pairs));
        }
    }
    Some(())
}

/// Rows as columns, of pairs of bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transposed(rows: [__m128i; 8]) -> [__m128i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    let (ab, cd) = (_mm_unpacklo_epi16(a, b), _mm_unpacklo_epi16(c, d));
    let (ef, gh) = (_mm_unpacklo_epi16(e, f), _mm_unpacklo_epi16(g, h));
    let (ab_high, cd_high) = (_mm_unpackhi_epi16(a, b), _mm_unpackhi_epi16(c, d));
    let (ef_high, gh_high) = (_mm_unpackhi_epi16(e, f), _mm_unpackhi_epi16(g, h));
    let [low, middle] = [_mm_unpacklo_epi32(ab, cd), _mm_unpackhi_epi32(ab, cd)];
    let [low_2, middle_2] = [_mm_unpacklo_epi32(ef, gh), _mm_unpackhi_epi32(ef, gh)];
    let [third, last] = [_mm_unpacklo_epi32(ab_high, cd_high), _mm_unpackhi_epi32(ab_high, cd_high)];
    let [third_2, last_2] = [_mm_unpacklo_epi32(ef_high, gh_high), _mm_unpackhi_epi32(ef_high, gh_high)];
    [
        _mm_unpacklo_epi64(low, low_2),
        _mm_unpackhi_epi64(low, low_2),
        _mm_unpacklo_epi64(middle, middle_2),
        _mm_unpackhi_epi64(middle, middle_2),
        _mm_unpacklo_epi64(third, third_2),
        _mm_unpackhi_epi64(third, third_2),
        _mm_unpacklo_epi64(last, last_2),
        _mm_unpackhi_epi64(last, last_2),
    ]
}

/// A panel with what finishes its sums.
pub(super) struct Block<'p> {
    pub(super) panel: &'p Panel,
    pub(super) constants: &'p [Group; GROUPS],
    /// Vectors of a group.
    pub(super) vectors: usize,
    /// Filters in the panel.
    pub(super) count: usize,
    /// Where segments of a window begin.
    pub(super) offsets: [usize; MOST_SEGMENTS],
    pub(super) segments: usize,
    /// Pairs of elements of a segment, even.
    pub(super) pairs: usize,
    pub(super) target: Target,
}

impl<'p> Block<'p> {
    /// `None` if a filter has fewer vectors than windows have pairs.
    fn new(
        panel: &'p Panel,
        constants: &'p [Group; GROUPS],
        vectors: usize,
        count: usize,
        windows: &Windows<'_>,
        target: Target,
    ) -> Option<Self> {
        let (segments, pairs) = (windows.count(), windows.pairs());
        let offsets = windows.offsets();
        let block = Self { panel, constants, vectors, count, offsets, segments, pairs, target };
        (segments <= MOST_SEGMENTS && segments * pairs <= vectors).then_some(block)
    }

    /// Computes `pixels` pixels whose windows lie in the tile.
    #[target_feature(enable = "avx2")]
    fn run(
        &self,
        tile: &Tile<i16>,
        windows: &Windows<'_>,
        pixels: usize,
        to: finish::Place,
        y: &mut Output<'_>,
    ) -> Option<()> {
        let [down, right] = [windows.rows.stride * windows.row_len(), windows.cols.stride * windows.channels];
        let reach = self.offsets.get(self.segments.checked_sub(1)?)? + 2 * self.pairs;
        // The next pixel: its column, and where its row and its window begin.
        let (mut column, mut row, mut start) = (0, 0, 0);
        for i in (0..pixels).step_by(PIXELS) {
            let together = PIXELS.min(pixels - i);
            let mut x = [tile.from(start, reach)?; PIXELS];
            for x in x.iter_mut().take(together) {
                *x = tile.from(start, reach)?;
                (column, start) = (column + 1, start + right);
                if column == windows.cols.output {
                    row += down;
                    (column, start) = (0, row);
                }
            }
            let to = finish::Place { at: to.at + i * to.distance, ..to };
            // SAFETY: the panel is written, and the tile reaches as far as windows do.
            unsafe {
                match *x.get(..together)? {
                    [a, b, c, d] => self.pixels([a, b, c, d], to, y)?,
                    [a, b, c] => self.pixels([a, b, c], to, y)?,
                    [a, b] => self.pixels([a, b], to, y)?,
                    _ => self.pixels([x[0]], to, y)?,
                }
            }
        }
        Some(())
    }

    /// Computes the pixels whose windows begin at `x`.
    ///
    /// # Safety
    ///
    /// The panel holds the columns of `count` filters, and all segments of the windows can be read.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn pixels<const P: usize>(
        &self,
        x: [*const i16; P],
        to: finish::Place,
        y: &mut Output<'_>,
    ) -> Option<()> {
        for first in (0..self.count).step_by(2 * GROUP) {
            // SAFETY: a group begins before `count`, and a second one if that is more than a group away.
            unsafe {
                match self.count - first > GROUP {
                    true => self.groups::<P, 2>(x, first, to, y)?,
                    false => self.groups::<P, 1>(x, first, to, y)?,
                }
            }
        }
        Some(())
    }

    /// As [`Self::pixels`], for `V` groups of filters from `first` on.
    ///
    /// # Safety
    ///
    /// All of these groups have a filter, and all segments of the windows lie in a tile.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn groups<const P: usize, const V: usize>(
        &self,
        x: [*const i16; P],
        first: usize,
        to: finish::Place,
        y: &mut Output<'_>,
    ) -> Option<()> {
        let groups: &[Group; V] = self.constants.get(first / GROUP..)?.first_chunk()?;
        let mut acc = [[_mm256_setzero_si256(); V]; P];
        for acc in &mut acc {
            for (acc, group) in acc.iter_mut().zip(groups) {
                *acc = group.bias();
            }
        }
        let mut columns = self.panel.as_ptr().cast::<__m256i>().wrapping_add(first / GROUP * self.vectors);
        for &offset in self.offsets.get(..self.segments)? {
            // SAFETY: `pairs` columns of each group are left in the panel for this segment, as many pairs of each pixel
            // in the tile.
            acc = unsafe { self.segment(columns, x, offset, acc) };
            columns = columns.wrapping_add(self.pairs);
        }
        let count = (self.count - first).min(V * GROUP);
        // A copy: what is referred to lies in memory, and sums are to stay in registers.
        let sums = acc;
        self.target.write(groups, &sums, finish::Place { at: to.at + first, count, ..to }, y)
    }

    /// Adds the products of a segment, `offset` elements behind the first of each pixel's window.
    ///
    /// # Safety
    ///
    /// `V` groups have `pairs` columns in the panel, and each pixel has as many pairs.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn segment<const P: usize, const V: usize>(
        &self,
        columns: *const __m256i,
        x: [*const i16; P],
        offset: usize,
        mut acc: [[__m256i; V]; P],
    ) -> [[__m256i; V]; P] {
        let mut at = offset;
        let mut columns = columns;
        let end = offset + 2 * self.pairs;
        while at < end {
            // SAFETY: column and pair are there, and the next ones since pairs are an even number; a pair lies at any
            // alignment.
            unsafe {
                acc = add_products(columns, self.vectors, x, at, acc);
                acc = add_products(columns.add(1), self.vectors, x, at + 2, acc);
                columns = columns.add(2);
            }
            at += 4;
        }
        acc
    }
}

/// Adds the products of the pair of elements at `at` with a column of each group, which lie `distance` apart.
///
/// # Safety
///
/// They are there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add_products<const P: usize, const V: usize>(
    column: *const __m256i,
    distance: usize,
    x: [*const i16; P],
    at: usize,
    mut acc: [[__m256i; V]; P],
) -> [[__m256i; V]; P] {
    let mut w = [_mm256_setzero_si256(); V];
    for (v, w) in w.iter_mut().enumerate() {
        // SAFETY: says the caller.
        *w = unsafe { _mm256_load_si256(column.add(v * distance)) };
    }
    for (acc, x) in acc.iter_mut().zip(x) {
        // SAFETY: says the caller.
        let x = _mm256_set1_epi32(unsafe { x.add(at).cast::<i32>().read_unaligned() });
        for (acc, w) in acc.iter_mut().zip(w) {
            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(x, w));
        }
    }
    acc
}
