//! Depthwise convolutions, sixteen channels of a tile of the input at a time.
//!
//! A tile is widened once, with what lies in the padding, so that all windows are alike. Its vectors, and those of weights,
//! hold channels 0 to 3, 8 to 11, 4 to 7 and 12 to 15: interleaved for sums of two taps, they are in order.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::finish::{GROUP, Group, Place, Target};
use super::tile::{reach, windows};
use super::{Avx2, load, load_first};
use crate::kernels::channels::{Channels, Output};
use crate::kernels::strips::QUAD;
use crate::kernels::weights::{Matrix, Width};
use crate::kernels::window::Window;

/// Channels of a block.
const BLOCK: usize = 2 * GROUP;

/// Taps at most.
const MOST_TAPS: usize = 64;

/// Vectors of a tile: 64 KiB.
const TILE: usize = 2048;

/// A depthwise convolution with one output channel for each input channel.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Depthwise<'s, 'a, W: Width> {
    pub(in crate::kernels) window: &'s Window,
    pub(in crate::kernels) weights: &'s Matrix<'a, W>,
    pub(in crate::kernels) channels: &'s Channels<'a>,
}

impl<W: Width> Depthwise<'_, '_, W> {
    /// Whether the kernel can do it.
    pub(in crate::kernels) fn fits(&self) -> bool {
        let Window { rows, cols, .. } = self.window;
        self.window.taps().is_some_and(|taps| taps <= MOST_TAPS)
            && reach(rows, 1).saturating_mul(reach(cols, 1)) <= TILE
    }

    /// Runs it, if it [fits](Self::fits).
    pub(in crate::kernels) fn run(&self, _: Avx2, x: &[i8], x_zero: i8, y: &mut Output<'_>) -> Option<()> {
        // SAFETY: the core has AVX2.
        unsafe { self.run_blocks(x, x_zero, y) }
    }

    #[target_feature(enable = "avx2")]
    fn run_blocks(&self, x: &[i8], x_zero: i8, y: &mut Output<'_>) -> Option<()> {
        let Window { batch, rows, cols, in_channels, .. } = *self.window;
        let image_len = rows.input.wrapping_mul(cols.input).wrapping_mul(in_channels);
        // Windows of a tile: as many of a row as it has room for, then as many rows.
        let across = windows(&cols, TILE.checked_div(reach(&rows, 1))?);
        let columns = reach(&cols, across);
        let down = windows(&rows, TILE.checked_div(columns)?);
        let target = Target::new(self.channels, y);
        let mut tile = [MaybeUninit::uninit(); TILE];
        let mut block = Block::new(target);
        for first in (0..in_channels).step_by(BLOCK) {
            let count = BLOCK.min(in_channels - first);
            block.set(self, first, columns)?;
            for n in 0..batch {
                let image = x.get(n.wrapping_mul(image_len)..)?.get(..image_len)?;
                for oy in (0..rows.output).step_by(down) {
                    let height = down.min(rows.output - oy);
                    for ox in (0..cols.output).step_by(across) {
                        let width = across.min(cols.output - ox);
                        let tile = tile.get_mut(..columns * reach(&rows, height))?;
                        self.fill(tile, columns, [oy, ox], first, image, x_zero)?;
                        for row in 0..height {
                            let pixel = (n * rows.output + oy + row) * cols.output + ox;
                            let at = pixel * in_channels + first;
                            let from = row * rows.stride * columns;
                            block.row(
                                tile,
                                [from, width, cols.stride],
                                Place { at, distance: in_channels, count },
                                y,
                            )?;
                        }
                    }
                }
            }
        }
        Some(())
    }

    /// Writes channels from `first` on of what the windows from `[oy, ox]` on read to a tile of rows of `columns`: all of it.
    #[target_feature(enable = "avx2")]
    fn fill(
        &self,
        tile: &mut [MaybeUninit<__m256i>],
        columns: usize,
        [oy, ox]: [usize; 2],
        first: usize,
        image: &[i8],
        x_zero: i8,
    ) -> Option<()> {
        let Window { rows, cols, in_channels, .. } = *self.window;
        let padding = _mm256_set1_epi16(x_zero.into());
        // Columns of the tile before the input, and up to its end.
        let left = cols.before.saturating_sub(ox * cols.stride).min(columns);
        let ix = (ox * cols.stride + left).saturating_sub(cols.before);
        let end = (left + cols.input.saturating_sub(ix)).min(columns);
        for (row, to) in tile.chunks_exact_mut(columns.max(1)).enumerate() {
            let iy = (oy * rows.stride + row).checked_sub(rows.before).filter(|&iy| iy < rows.input);
            let Some(iy) = iy else {
                to.fill(MaybeUninit::new(padding));
                continue;
            };
            let (to, right) = to.split_at_mut_checked(end)?;
            let (before, inside) = to.split_at_mut_checked(left)?;
            before.fill(MaybeUninit::new(padding));
            right.fill(MaybeUninit::new(padding));
            let mut at = (iy * cols.input + ix) * in_channels + first;
            for slot in inside {
                // Channels behind the end of the input meet weights of 0.
                slot.write(widened(load_first(image.get(at..)?)));
                at += in_channels;
            }
        }
        Some(())
    }
}

/// Sixteen channels as 16-bit numbers, in the order of tiles.
#[inline]
#[target_feature(enable = "avx2")]
fn widened(channels: __m128i) -> __m256i {
    _mm256_cvtepi8_epi16(_mm_shuffle_epi32::<0b11_01_10_00>(channels))
}

/// Weights from channel `first` of a tap on, quad by quad; 0 behind the last.
#[inline]
fn quads<W: Width>(row: &[W::Unit], first: usize) -> [i8; BLOCK] {
    let mut weights = [0; BLOCK];
    for (quad, at) in weights.as_chunks_mut::<QUAD>().0.iter_mut().zip((first..).step_by(QUAD)) {
        *quad = W::quad(row, at);
    }
    weights
}

/// Pairs of taps at most.
const MOST_PAIRS: usize = MOST_TAPS / 2;

/// Two taps of sixteen channels.
#[derive(Clone, Copy)]
struct Pair {
    /// Where they read, in vectors from the first tap's.
    offsets: [usize; 2],
    /// Weights of both taps, of each group of channels.
    weights: [__m256i; 2],
}

/// A block of channels, ready for its tiles.
struct Block {
    pairs: [Pair; MOST_PAIRS],
    /// Number of pairs.
    len: usize,
    groups: [Group; 2],
    target: Target,
}

impl Block {
    /// No channels yet.
    #[target_feature(enable = "avx2")]
    fn new(target: Target) -> Self {
        let none = Pair { offsets: [0; 2], weights: [_mm256_setzero_si256(); 2] };
        Self { pairs: [none; MOST_PAIRS], len: 0, groups: [Group::NONE; 2], target }
    }

    /// Takes the channels from `first` on, for tiles of rows of `columns`. `None` if there are too many taps.
    #[target_feature(enable = "avx2")]
    fn set<W: Width>(&mut self, conv: &Depthwise<'_, '_, W>, first: usize, columns: usize) -> Option<()> {
        let Window { rows, cols, in_channels, .. } = *conv.window;
        self.groups = [Group::new(conv.channels, first), Group::new(conv.channels, first + GROUP)];
        self.len = 0;
        let (mut tap, mut pending) = (0, None);
        for ky in 0..rows.kernel {
            for kx in 0..cols.kernel {
                let offset = ky * rows.dilation.get() * columns + kx * cols.dilation.get();
                let bytes = W::bytes(conv.weights, tap * in_channels + first);
                let weights = match bytes.and_then(|bytes| bytes.first_chunk()) {
                    // Channels behind the last are another tap's, and dropped.
                    Some(weights) => load(weights),
                    None => load(&quads::<W>(conv.weights.row(tap)?, first)),
                };
                let second = (offset, widened(weights));
                match pending.take() {
                    Some(first) => self.push(first, second)?,
                    None => pending = Some(second),
                }
                tap += 1;
            }
        }
        match pending {
            Some(last) => self.push(last, (last.0, _mm256_setzero_si256())),
            None => Some(()),
        }
    }

    /// Adds a pair of taps: where they read, and weights.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn push(&mut self, first: (usize, __m256i), second: (usize, __m256i)) -> Option<()> {
        let weights = [_mm256_unpacklo_epi16(first.1, second.1), _mm256_unpackhi_epi16(first.1, second.1)];
        *self.pairs.get_mut(self.len)? = Pair { offsets: [first.0, second.0], weights };
        self.len += 1;
        Some(())
    }

    /// Computes `width` windows of a row, the first of which begins at vector `from` of the tile. Their outputs begin at
    /// element `at` of `y` and lie `distance` apart; `count` channels are written.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn row(
        &self,
        tile: &[MaybeUninit<__m256i>],
        [from, width, stride]: [usize; 3],
        place: Place,
        y: &mut Output<'_>,
    ) -> Option<()> {
        let pairs = self.pairs.get(..self.len)?;
        // Taps are in ascending order.
        let reach = (width - 1) * stride + pairs.last()?.offsets[1];
        let tile = tile.get(from..)?;
        tile.get(reach)?;
        let mut i = 0;
        while i + 2 <= width {
            // SAFETY: windows up to the last one's last tap lie in the tile, which is written as a whole.
            let sums: [_; 2] = unsafe { self.sums(pairs, tile.as_ptr().cast::<__m256i>().add(i * stride), stride) };
            self.write(&sums, Place { at: place.at + i * place.distance, ..place }, y)?;
            i += 2;
        }
        if i < width {
            // SAFETY: as above.
            let sums: [_; 1] = unsafe { self.sums(pairs, tile.as_ptr().cast::<__m256i>().add(i * stride), stride) };
            self.write(&sums, Place { at: place.at + i * place.distance, ..place }, y)?;
        }
        Some(())
    }

    /// Finishes and writes sums.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn write<const P: usize>(&self, sums: &[[__m256i; 2]; P], place: Place, y: &mut Output<'_>) -> Option<()> {
        if place.count > GROUP {
            return self.target.write(&self.groups, sums, place, y);
        }
        let mut first = [[_mm256_setzero_si256()]; P];
        for (first, sums) in first.iter_mut().zip(sums) {
            *first = [sums[0]];
        }
        self.target.write(&[self.groups[0]], &first, place, y)
    }

    /// The sums of `P` windows, the first of which begins at `x`.
    ///
    /// # Safety
    ///
    /// All taps of all windows read vectors that are there.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums<const P: usize>(&self, pairs: &[Pair], x: *const __m256i, stride: usize) -> [[__m256i; 2]; P] {
        let mut acc = [[self.groups[0].bias(), self.groups[1].bias()]; P];
        for pair in pairs {
            for (p, acc) in acc.iter_mut().enumerate() {
                // SAFETY: says the caller.
                let (a, b) = unsafe {
                    let x = x.add(p * stride);
                    (_mm256_load_si256(x.add(pair.offsets[0])), _mm256_load_si256(x.add(pair.offsets[1])))
                };
                let low = _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), pair.weights[0]);
                let high = _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), pair.weights[1]);
                *acc = [_mm256_add_epi32(acc[0], low), _mm256_add_epi32(acc[1], high)];
            }
        }
        acc
    }
}
