//! Patches times filters where there are many pixels: channels in the lanes of vectors, so that sums need no adding up.
//!
//! Filters are written to a *panel* first: of each group of eight, a vector for every pair of elements, widened to 16 bits.
//! That takes about as long as adding up the sums of one pixel in ten elements' time, whence [`worth_it`].

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::Avx2;
use super::filters::{filter_bytes, one_octet, two_octets};
use super::finish::{self, GROUP, Group, Target};
use crate::kernels::channels::Output;
use crate::kernels::linear::{Linear, Place, Source};
use crate::kernels::patches::{PIXELS, Patch};
use crate::kernels::weights::{OCTET, Width};

/// Vectors of a panel: 64 KiB.
const PANEL: usize = 2048;

/// Groups of a panel at most.
const GROUPS: usize = 32;

/// Elements of a filter at most: a panel has room for four groups of them.
const MAX_LEN: usize = 1024;

/// Words of a patch for each pair of elements.
const PAIR: usize = 2;

/// A panel's vectors.
type Panel = [MaybeUninit<__m256i>; PANEL];

/// Whether panels pay for filters of this length and as many pixels.
pub(in crate::kernels) fn worth_it(filter_len: usize, pixels: usize) -> bool {
    (1..=MAX_LEN).contains(&filter_len) && pixels >= PIXELS && filter_len <= 10 * pixels
}

impl Avx2 {
    /// Computes `pixels` output pixels from `place.pixel` on, if it is [`worth_it`].
    #[inline(always)]
    pub(in crate::kernels) fn columns<W: Width>(
        self,
        linear: &Linear<'_, W>,
        source: &impl Source,
        pixels: usize,
        place: Place,
        y: &mut Output<'_>,
    ) -> Option<()> {
        // SAFETY: the core has AVX2.
        unsafe { panels(linear, source, pixels, place, y) }
    }
}

#[target_feature(enable = "avx2")]
fn panels<W: Width>(
    linear: &Linear<'_, W>,
    source: &impl Source,
    pixels: usize,
    place: Place,
    y: &mut Output<'_>,
) -> Option<()> {
    let pairs = linear.filter_len / PAIR;
    // An even number, since blocks have two.
    let groups = PANEL.checked_div(pairs)?.min(GROUPS) / 2 * 2;
    let mut panel: Panel = [MaybeUninit::uninit(); PANEL];
    let mut constants = [Group::NONE; GROUPS];
    let mut patches = [0u32; MAX_LEN / 2 * PIXELS];
    let target = Target::new(&linear.channels, y);
    for first in (place.first..place.end).step_by((groups * GROUP).max(1)) {
        let count = (place.end - first).min(groups * GROUP);
        for (i, constants) in constants.iter_mut().enumerate().take(count.div_ceil(GROUP)) {
            let o = first + i * GROUP;
            *constants = Group::new(&linear.channels, o);
            let columns = panel.get_mut(i * pairs..)?.get_mut(..pairs)?;
            write_columns::<W>(linear, o, (place.end - o).min(GROUP), columns)?;
        }
        let block = Block { panel: &panel, constants: &constants, pairs, count, target };
        for at in (0..pixels).step_by(PIXELS) {
            let together = PIXELS.min(pixels - at);
            for i in 0..together {
                source.write::<{ 2 * PIXELS }>(at + i, Patch::new(&mut patches, i, linear.filter_len))?;
            }
            let start = (place.pixel + at) * linear.out_channels + first;
            let to = (start, linear.out_channels);
            // SAFETY: the panel has the columns of `count` filters, `patches` room for four times as many words as a filter
            // has pairs.
            unsafe {
                match together {
                    PIXELS => block.run::<PIXELS>(&patches, to, y)?,
                    3 => block.run::<3>(&patches, to, y)?,
                    2 => block.run::<2>(&patches, to, y)?,
                    _ => block.run::<1>(&patches, to, y)?,
                }
            }
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
fn transposed(rows: [__m128i; 8]) -> [__m128i; 8] {
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
struct Block<'p> {
    panel: &'p Panel,
    constants: &'p [Group; GROUPS],
    /// Pairs of elements of a filter: vectors of a group.
    pairs: usize,
    /// Filters in the panel.
    count: usize,
    target: Target,
}

impl Block<'_> {
    /// Computes `P` pixels; the first one's channels begin at element `to.0` of `y`, and pixels lie `to.1` apart.
    ///
    /// # Safety
    ///
    /// The panel holds the columns of `count` filters, and `patches` has `pairs` words for each pixel.
    #[target_feature(enable = "avx2")]
    unsafe fn run<const P: usize>(
        &self,
        patches: &[u32; MAX_LEN / 2 * PIXELS],
        to: (usize, usize),
        y: &mut Output<'_>,
    ) -> Option<()> {
        let mut first = 0;
        while first < self.count {
            // SAFETY: a group more than half full, or a second one, begins before `count`.
            unsafe {
                match self.count - first > GROUP {
                    true => self.groups::<P, 2>(patches, first, to, y)?,
                    false => self.groups::<P, 1>(patches, first, to, y)?,
                }
            }
            first += 2 * GROUP;
        }
        Some(())
    }

    /// As [`Self::run`], for `V` groups of filters from `first` on.
    ///
    /// # Safety
    ///
    /// As there, and each of these groups has a filter.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn groups<const P: usize, const V: usize>(
        &self,
        patches: &[u32; MAX_LEN / 2 * PIXELS],
        first: usize,
        (at, distance): (usize, usize),
        y: &mut Output<'_>,
    ) -> Option<()> {
        let pairs = self.pairs;
        let groups: &[Group; V] = self.constants.get(first / GROUP..)?.first_chunk()?;
        let mut bias = [_mm256_setzero_si256(); V];
        for (bias, group) in bias.iter_mut().zip(groups) {
            *bias = group.bias();
        }
        let mut acc = [bias; P];
        let columns = self.panel.as_ptr().cast::<__m256i>().wrapping_add(first / GROUP * pairs);
        let words = patches.as_ptr();
        let mut k = 0;
        while k < pairs {
            // A filter has a multiple of four pairs.
            for k in k..k + 4 {
                // SAFETY: column `k` of each group is in the panel, word `k` of each pixel in `patches`.
                unsafe {
                    let mut w = bias;
                    for (v, w) in w.iter_mut().enumerate() {
                        *w = _mm256_load_si256(columns.add(v * pairs + k));
                    }
                    for (p, acc) in acc.iter_mut().enumerate() {
                        let x = _mm256_set1_epi32(*words.add(p * pairs + k) as i32);
                        for (acc, &w) in acc.iter_mut().zip(&w) {
                            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(x, w));
                        }
                    }
                }
            }
            k += 4;
        }
        let count = (self.count - first).min(V * GROUP);
        self.target.write(groups, &acc, finish::Place { at: at + first, distance, count }, y)
    }
}
