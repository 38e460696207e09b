//! Depthwise convolutions, a vector of channels of a tile of the input at a time.
//!
//! A tile is widened once, with what lies in the padding, so that all windows are alike. Its vectors, and those of weights,
//! are interleaved for sums of two taps: their channels lie in an order that puts those of sums in order.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::dot::{Dot, LANES, Sixteen, Zmm};
use super::finish::{GROUP, Group, Place, Target};
use super::tile::{reach, windows};
use super::{Avx2, load_first};
use crate::kernels::channels::{Channels, Output};
use crate::kernels::strips::QUAD;
use crate::kernels::weights::{Matrix, Width};
use crate::kernels::window::Window;

/// Channels of a block at most.
const MOST: usize = 32;

/// Taps at most.
const MOST_TAPS: usize = 64;

/// Bytes of a tile: 64 KiB.
const TILE: usize = 1 << 16;

/// Vectors of 16-bit numbers, two for each channel of sums. What implements it exists only where the core has them.
trait Pairs: Copy {
    type Vector: Copy;

    /// What finishes the sums of a block.
    type Finish: Copy;

    /// Channels of a vector.
    const BLOCK: usize;

    fn zero(self) -> Self::Vector;

    fn every(self, number: i16) -> Self::Vector;

    /// The first channels of `bytes`, in the order of tiles; 0 behind the last.
    fn widened(self, bytes: &[i8]) -> Self::Vector;

    /// Two taps, interleaved: of the first half of the channels, and of the second.
    fn interleaved(self, a: Self::Vector, b: Self::Vector) -> [Self::Vector; 2];

    /// Adds products of pairs.
    fn add(self, sums: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    fn finish(self, channels: &Channels<'_>, first: usize) -> Self::Finish;

    /// What sums begin with.
    fn bias(self, finish: &Self::Finish) -> [Self::Vector; 2];

    /// Finishes and writes sums.
    fn write<const P: usize>(
        self,
        finish: &Self::Finish,
        target: &Target,
        sums: &[[Self::Vector; 2]; P],
        place: Place,
        y: &mut Output<'_>,
    ) -> Option<()>;
}

// Instructions of a core that has them, or there would be no `self`; inlined into functions that carry their features.
impl Pairs for Avx2 {
    type Vector = __m256i;
    type Finish = [Group; 2];

    const BLOCK: usize = 16;

    #[inline(always)]
    fn zero(self) -> __m256i {
        // SAFETY: the core has it.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn every(self, number: i16) -> __m256i {
        // SAFETY: the core has it.
        unsafe { _mm256_set1_epi16(number) }
    }

    #[inline(always)]
    fn widened(self, bytes: &[i8]) -> __m256i {
        // SAFETY: the core has it.
        unsafe { _mm256_cvtepi8_epi16(_mm_shuffle_epi32::<0b11_01_10_00>(load_first(bytes))) }
    }

    #[inline(always)]
    fn interleaved(self, a: __m256i, b: __m256i) -> [__m256i; 2] {
        // SAFETY: the core has it.
        unsafe { [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)] }
    }

    #[inline(always)]
    fn add(self, sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the core has it.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(a, b)) }
    }

    #[inline(always)]
    fn finish(self, channels: &Channels<'_>, first: usize) -> [Group; 2] {
        // SAFETY: the core has it.
        unsafe { [Group::new(channels, first), Group::new(channels, first + GROUP)] }
    }

    #[inline(always)]
    fn bias(self, groups: &[Group; 2]) -> [__m256i; 2] {
        // SAFETY: the core has it.
        groups.each_ref().map(|group| unsafe { group.bias() })
    }

    #[inline(always)]
    fn write<const P: usize>(
        self,
        groups: &[Group; 2],
        target: &Target,
        sums: &[[__m256i; 2]; P],
        place: Place,
        y: &mut Output<'_>,
    ) -> Option<()> {
        // SAFETY: the core has it.
        unsafe {
            if place.count > GROUP {
                return target.write(groups, sums, place, y);
            }
            let mut first = [[self.zero()]; P];
            for (first, sums) in first.iter_mut().zip(sums) {
                *first = [sums[0]];
            }
            target.write(&[groups[0]], &first, place, y)
        }
    }
}

impl Pairs for Zmm {
    type Vector = __m512i;
    type Finish = [Sixteen<Zmm>; 2];

    const BLOCK: usize = 32;

    #[inline(always)]
    fn zero(self) -> __m512i {
        Dot::zero(self)
    }

    #[inline(always)]
    fn every(self, number: i16) -> __m512i {
        // SAFETY: the core has it.
        unsafe { _mm512_set1_epi16(number) }
    }

    #[inline(always)]
    fn widened(self, bytes: &[i8]) -> __m512i {
        // SAFETY: the core has it; of fewer than 32 bytes, those behind the last are not read.
        unsafe {
            let there = u32::MAX.unbounded_shr(32 - bytes.len().min(32) as u32);
            let bytes = _mm256_maskz_loadu_epi8(there, bytes.as_ptr());
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            _mm512_cvtepi8_epi16(_mm256_permutevar8x32_epi32(bytes, order))
        }
    }

    #[inline(always)]
    fn interleaved(self, a: __m512i, b: __m512i) -> [__m512i; 2] {
        // SAFETY: the core has it.
        unsafe { [_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b)] }
    }

    #[inline(always)]
    fn add(self, sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the core has it.
        unsafe { _mm512_dpwssd_epi32(sums, a, b) }
    }

    #[inline(always)]
    fn finish(self, channels: &Channels<'_>, first: usize) -> [Sixteen<Zmm>; 2] {
        [Sixteen::new(self, channels, first), Sixteen::new(self, channels, first + LANES)]
    }

    #[inline(always)]
    fn bias(self, finish: &[Sixteen<Zmm>; 2]) -> [__m512i; 2] {
        finish.each_ref().map(|channels| channels.bias(self))
    }

    #[inline(always)]
    fn write<const P: usize>(
        self,
        [low, high]: &[Sixteen<Zmm>; 2],
        target: &Target,
        sums: &[[__m512i; 2]; P],
        Place { at, distance, count }: Place,
        y: &mut Output<'_>,
    ) -> Option<()> {
        for (p, sums) in sums.iter().enumerate() {
            low.put(self, target, sums[0], [at + p * distance, count], y)?;
        }
        for (p, sums) in sums.iter().enumerate().filter(|_| count > LANES) {
            high.put(self, target, sums[1], [at + p * distance + LANES, count - LANES], y)?;
        }
        Some(())
    }
}

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
            && reach(rows, 1).saturating_mul(reach(cols, 1)) <= TILE / size_of::<__m512i>()
    }

    /// Runs it, if it [fits](Self::fits).
    pub(in crate::kernels) fn run(&self, avx2: Avx2, x: &[i8], x_zero: i8, y: &mut Output<'_>) -> Option<()> {
        // SAFETY: the core has what there is proof of.
        unsafe {
            match Zmm::detect() {
                Some(zmm) => self.run_zmm(zmm, x, x_zero, y),
                None => self.run_ymm(avx2, x, x_zero, y),
            }
        }
    }

    #[target_feature(enable = "avx2,avx512bw,avx512vl,avx512vnni")]
    fn run_zmm(&self, zmm: Zmm, x: &[i8], x_zero: i8, y: &mut Output<'_>) -> Option<()> {
        self.run_blocks::<Zmm, { TILE / size_of::<__m512i>() }>(zmm, x, x_zero, y)
    }

    #[target_feature(enable = "avx2")]
    fn run_ymm(&self, avx2: Avx2, x: &[i8], x_zero: i8, y: &mut Output<'_>) -> Option<()> {
        self.run_blocks::<Avx2, { TILE / size_of::<__m256i>() }>(avx2, x, x_zero, y)
    }

    /// With tiles of `N` vectors.
    #[inline(always)]
    fn run_blocks<V: Pairs, const N: usize>(&self, v: V, x: &[i8], x_zero: i8, y: &mut Output<'_>) -> Option<()> {
        let Window { batch, rows, cols, in_channels, .. } = *self.window;
        let image_len = rows.input.wrapping_mul(cols.input).wrapping_mul(in_channels);
        // Windows of a tile: as many of a row as it has room for, then as many rows.
        let across = windows(&cols, N.checked_div(reach(&rows, 1))?);
        let columns = reach(&cols, across);
        let down = windows(&rows, N.checked_div(columns)?);
        let target = Target::new(self.channels, y);
        let mut tile = [MaybeUninit::uninit(); N];
        for first in (0..in_channels).step_by(V::BLOCK) {
            let count = V::BLOCK.min(in_channels - first);
            let block = Block::new(v, self, first, columns, target)?;
            for n in 0..batch {
                let image = x.get(n.wrapping_mul(image_len)..)?.get(..image_len)?;
                for oy in (0..rows.output).step_by(down) {
                    let height = down.min(rows.output - oy);
                    for ox in (0..cols.output).step_by(across) {
                        let width = across.min(cols.output - ox);
                        let tile = tile.get_mut(..columns * reach(&rows, height))?;
                        self.fill(v, tile, columns, [oy, ox], first, image, x_zero)?;
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
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "inlined")]
    fn fill<V: Pairs>(
        &self,
        v: V,
        tile: &mut [MaybeUninit<V::Vector>],
        columns: usize,
        [oy, ox]: [usize; 2],
        first: usize,
        image: &[i8],
        x_zero: i8,
    ) -> Option<()> {
        let Window { rows, cols, in_channels, .. } = *self.window;
        let padding = v.every(x_zero.into());
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
                // Channels behind the last meet weights of 0.
                slot.write(v.widened(image.get(at..)?));
                at += in_channels;
            }
        }
        Some(())
    }
}

/// Weights from channel `first` of a tap on, quad by quad; 0 behind the last.
#[inline]
fn quads<W: Width>(row: &[W::Unit], first: usize) -> [i8; MOST] {
    let mut weights = [0; MOST];
    for (quad, at) in weights.as_chunks_mut::<QUAD>().0.iter_mut().zip((first..).step_by(QUAD)) {
        *quad = W::quad(row, at);
    }
    weights
}

/// Pairs of taps at most.
const MOST_PAIRS: usize = MOST_TAPS / 2;

/// Two taps of a block of channels.
#[derive(Clone, Copy)]
struct Pair<V: Pairs> {
    /// Where they read, in vectors from the first tap's.
    offsets: [usize; 2],
    /// Weights of both taps, of each half of the channels.
    weights: [V::Vector; 2],
}

/// A block of channels, ready for its tiles.
struct Block<V: Pairs> {
    v: V,
    pairs: [Pair<V>; MOST_PAIRS],
    /// Number of pairs.
    len: usize,
    finish: V::Finish,
    target: Target,
}

impl<V: Pairs> Block<V> {
    /// The channels from `first` on, for tiles of rows of `columns`. `None` if there are too many taps.
    #[inline(always)]
    fn new<W: Width>(v: V, conv: &Depthwise<'_, '_, W>, first: usize, columns: usize, target: Target) -> Option<Self> {
        let Window { rows, cols, in_channels, .. } = *conv.window;
        let none = Pair { offsets: [0; 2], weights: [v.zero(); 2] };
        let mut block = Self { v, pairs: [none; MOST_PAIRS], len: 0, finish: v.finish(conv.channels, first), target };
        let (mut tap, mut pending) = (0, None);
        for ky in 0..rows.kernel {
            for kx in 0..cols.kernel {
                let offset = ky * rows.dilation.get() * columns + kx * cols.dilation.get();
                let bytes = W::bytes(conv.weights, tap * in_channels + first);
                let weights = match bytes.filter(|bytes| bytes.len() >= V::BLOCK) {
                    // Channels behind the last are another tap's, and dropped.
                    Some(weights) => v.widened(weights),
                    None => v.widened(&quads::<W>(conv.weights.row(tap)?, first)),
                };
                let second = (offset, weights);
                match pending.take() {
                    Some(first) => block.push(first, second)?,
                    None => pending = Some(second),
                }
                tap += 1;
            }
        }
        if let Some(last) = pending {
            block.push(last, (last.0, v.zero()))?;
        }
        Some(block)
    }

    /// Adds a pair of taps: where they read, and weights.
    #[inline(always)]
    fn push(&mut self, first: (usize, V::Vector), second: (usize, V::Vector)) -> Option<()> {
        let weights = self.v.interleaved(first.1, second.1);
        *self.pairs.get_mut(self.len)? = Pair { offsets: [first.0, second.0], weights };
        self.len += 1;
        Some(())
    }

    /// Computes `width` windows of a row, the first of which begins at vector `from` of the tile. Their outputs begin at
    /// element `at` of `y` and lie `distance` apart; `count` channels are written.
    #[inline(always)]
    fn row(
        &self,
        tile: &[MaybeUninit<V::Vector>],
        [from, width, stride]: [usize; 3],
        place: Place,
        y: &mut Output<'_>,
    ) -> Option<()> {
        let pairs = self.pairs.get(..self.len)?;
        let reach = (width - 1) * stride + pairs.last()?.offsets[1];
        let tile = tile.get(from..)?;
        tile.get(reach)?;
        let Self { v, finish, target, .. } = self;
        let mut i = 0;
        while i + 2 <= width {
            // SAFETY: windows up to the last one's last tap lie in the tile, which is written as a whole.
            let sums: [_; 2] = unsafe { self.sums(pairs, tile.as_ptr().cast::<V::Vector>().add(i * stride), stride) };
            v.write(finish, target, &sums, Place { at: place.at + i * place.distance, ..place }, y)?;
            i += 2;
        }
        if i < width {
            // SAFETY: as above.
            let sums: [_; 1] = unsafe { self.sums(pairs, tile.as_ptr().cast::<V::Vector>().add(i * stride), stride) };
            v.write(finish, target, &sums, Place { at: place.at + i * place.distance, ..place }, y)?;
        }
        Some(())
    }

    /// The sums of `P` windows, the first of which begins at `x`.
    ///
    /// # Safety
    ///
    /// All taps of all windows read vectors that are there.
    #[inline(always)]
    unsafe fn sums<const P: usize>(
        &self,
        pairs: &[Pair<V>],
        x: *const V::Vector,
        stride: usize,
    ) -> [[V::Vector; 2]; P] {
        let mut acc = [self.v.bias(&self.finish); P];
        for pair in pairs {
            for (p, acc) in acc.iter_mut().enumerate() {
                // SAFETY: says the caller.
                let (a, b) = unsafe {
                    let x = x.add(p * stride);
                    (*x.add(pair.offsets[0]), *x.add(pair.offsets[1]))
                };
                let [low, high] = self.v.interleaved(a, b);
                *acc = [self.v.add(acc[0], low, pair.weights[0]), self.v.add(acc[1], high, pair.weights[1])];
            }
        }
        acc
    }
}
