//! Depthwise convolutions, a block of channels at a time.

use core::arch::x86_64::*;

use super::{Avx2, vector};
use crate::kernels::channels::{Channels, Output};
use crate::kernels::strips::QUAD;
use crate::kernels::weights::{Matrix, Width};
use crate::kernels::window::Window;
use crate::plan::DType;

/// Channels of a block.
const BLOCK: usize = 16;

/// Taps at most.
const MOST_TAPS: usize = 64;

/// A depthwise convolution with one output channel for each input channel.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Depthwise<'s, 'a, W: Width> {
    pub(in crate::kernels) window: &'s Window,
    pub(in crate::kernels) weights: &'s Matrix<'a, W>,
    pub(in crate::kernels) channels: &'s Channels<'a>,
}

impl<W: Width> Depthwise<'_, '_, W> {
    /// Whether the kernel can do it.
    pub(in crate::kernels) fn fits(&self, dtype: DType) -> bool {
        dtype == DType::I8 && self.window.taps().is_some_and(|taps| taps <= MOST_TAPS)
    }

    /// Runs it, if it [fits](Self::fits): a block of channels at a time, all pixels with weights that are prepared once.
    pub(in crate::kernels) fn run(&self, avx2: Avx2, x: &[i8], x_zero: i8, y: &mut Output<'_>) -> Option<()> {
        let Window { batch, rows, cols, in_channels, .. } = *self.window;
        let row_len = cols.input.wrapping_mul(in_channels);
        let taps = rows.kernel.wrapping_mul(cols.kernel);
        let ([top, height], [left, width]) = (rows.inside(), cols.inside());
        // Row and column of each tap, and where it reads relative to a window's first.
        let (mut places, mut offsets) = ([[0usize; 2]; MOST_TAPS], [0usize; MOST_TAPS]);
        for (tap, (place, offset)) in places.iter_mut().zip(&mut offsets).enumerate().take(taps) {
            let ky = tap.checked_div(cols.kernel)?;
            let kx = tap.wrapping_sub(ky.wrapping_mul(cols.kernel));
            let (down, right) = (ky.wrapping_mul(rows.dilation.get()), kx.wrapping_mul(cols.dilation.get()));
            *place = [down, right];
            *offset = down.wrapping_mul(row_len).wrapping_add(right.wrapping_mul(in_channels));
        }
        let mut padded = [[0i8; BLOCK]; MOST_TAPS];
        for o in (0..in_channels).step_by(BLOCK) {
            let lanes = BLOCK.min(in_channels.wrapping_sub(o));
            let weights = |tap: usize| {
                let mut weights = [0; BLOCK];
                let row = self.weights.row(tap).unwrap_or_default();
                for (quad, at) in weights.as_chunks_mut::<QUAD>().0.iter_mut().zip((o..).step_by(QUAD)) {
                    *quad = W::quad(row, at);
                }
                weights
            };
            let block = Block::new(avx2, self.channels, o, taps, weights)?;
            for n in 0..batch {
                let image = x.get(n.wrapping_mul(rows.input).wrapping_mul(row_len)..)?;
                let read = |at: usize| match image.get(at..)?.first_chunk() {
                    Some(x) => Some(*x),
                    None => image.get(at..).map(first_block),
                };
                for oy in 0..rows.output {
                    // These wrap where a window begins in the padding.
                    let iy = oy.wrapping_mul(rows.stride).wrapping_sub(rows.before);
                    for ox in 0..cols.output {
                        let ix = ox.wrapping_mul(cols.stride).wrapping_sub(cols.before);
                        let inside = oy.wrapping_sub(top) < height && ox.wrapping_sub(left) < width;
                        let start = iy.wrapping_mul(row_len).wrapping_add(ix.wrapping_mul(in_channels)).wrapping_add(o);
                        let window = image.get(start..).filter(|_| inside);
                        let inside = window.and_then(|x| block.pixel_inside(self.channels, o, x, &offsets));
                        let out = match inside {
                            Some(out) => out,
                            None => {
                                for (x, &[down, right]) in padded.iter_mut().zip(&places).take(taps) {
                                    let (iy, ix) = (iy.wrapping_add(down), ix.wrapping_add(right));
                                    let at = iy.wrapping_mul(row_len).wrapping_add(ix.wrapping_mul(in_channels));
                                    let inside = iy < rows.input && ix < cols.input;
                                    *x = if inside { read(at.wrapping_add(o))? } else { [x_zero; BLOCK] };
                                }
                                block.pixel(self.channels, o, &padded)?
                            }
                        };
                        let pixel =
                            n.wrapping_mul(rows.output).wrapping_add(oy).wrapping_mul(cols.output).wrapping_add(ox);
                        let y = y.bytes_from(pixel.wrapping_mul(in_channels).wrapping_add(o))?;
                        match y.first_chunk_mut() {
                            Some(y) if lanes == BLOCK => *y = out,
                            _ => y.get_mut(..lanes)?.copy_from_slice(out.get(..lanes)?),
                        }
                    }
                }
            }
        }
        Some(())
    }
}

/// The channels of a block that ends the input: those behind meet weights of 0.
#[cold]
fn first_block(x: &[i8]) -> [i8; BLOCK] {
    core::array::from_fn(|i| x.get(i).copied().unwrap_or(0))
}

/// Where taps read blocks that lie one after the other.
const DENSE: [usize; MOST_TAPS] = {
    let mut offsets = [0; MOST_TAPS];
    let mut tap = 0;
    while tap < MOST_TAPS {
        offsets[tap] = tap * BLOCK;
        tap += 1;
    }
    offsets
};

/// Pairs of taps at most.
const MOST_PAIRS: usize = MOST_TAPS / 2;

/// A block of channels of a depthwise convolution, ready for its pixels: weights of taps in pairs, and what finishes the
/// sums. Vectors of 32 bits hold channels 0 to 3 and 8 to 11, and 4 to 7 and 12 to 15.
struct Block {
    pairs: [[__m256i; 2]; MOST_PAIRS],
    taps: usize,
    bias: [__m256i; 2],
    mantissas: [__m256i; 2],
    roundings: [__m256i; 2],
    shifts: [__m256i; 2],
    clamp: [__m256i; 2],
    /// Channels whose multipliers are not plain.
    others: u16,
}

/// The channels of the two vectors of 32 bits.
const CHANNELS: [[usize; 8]; 2] = [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]];

impl Block {
    /// Channels from `first` on, given the weights of each tap; those beyond the last have none. `None` if there are too
    /// many taps.
    fn new(
        _: Avx2,
        channels: &Channels<'_>,
        first: usize,
        taps: usize,
        weights: impl Fn(usize) -> [i8; BLOCK],
    ) -> Option<Self> {
        if taps > MOST_TAPS {
            return None;
        }
        // SAFETY: the core has AVX2.
        Some(unsafe { Self::with_avx2(channels, first, taps, weights) })
    }

    #[target_feature(enable = "avx2")]
    fn with_avx2(channels: &Channels<'_>, first: usize, taps: usize, weights: impl Fn(usize) -> [i8; BLOCK]) -> Self {
        let of = |values: &dyn Fn(usize) -> i32| CHANNELS.map(|lanes| vector(lanes.map(|lane| values(first + lane))));
        let shift = |o: usize| channels.shifts.get(o).map_or(2, |&shift| i32::from(shift).clamp(2, 23));
        let others =
            |lane: usize| u16::from(first + lane < channels.shifts.len() && !channels.is_plain(first + lane)) << lane;
        let mut pairs = [[_mm256_setzero_si256(); 2]; MOST_PAIRS];
        for (i, pair) in pairs.iter_mut().enumerate().take(taps.div_ceil(2)) {
            let (first, second) = (weights(2 * i), if 2 * i + 1 < taps { weights(2 * i + 1) } else { [0; BLOCK] });
            *pair = CHANNELS
                .map(|lanes| vector(lanes.map(|lane| i32::from(first[lane]) & 0xFFFF | i32::from(second[lane]) << 16)));
        }
        Self {
            pairs,
            taps,
            bias: of(&|o| channels.bias.get(o).copied().unwrap_or(0)),
            mantissas: of(&|o| channels.mantissas.get(o).copied().unwrap_or(0)),
            roundings: of(&|o| (2 * channels.zero_point + 1) << (shift(o) - 2)),
            shifts: of(&|o| shift(o) - 1),
            clamp: channels.clamp.map(|end| vector([end; 8])),
            others: (0..BLOCK).map(others).sum(),
        }
    }

    /// The outputs of one pixel, of channels from `first` on, given what each tap reads.
    #[inline(always)]
    fn pixel(&self, channels: &Channels<'_>, first: usize, x: &[[i8; BLOCK]; MOST_TAPS]) -> Option<[u8; BLOCK]> {
        // SAFETY: the core has AVX2, or there would be no block; `x` has 16 channels for each tap.
        unsafe { self.pixel_at(channels, first, x.as_flattened().as_ptr(), &DENSE) }
    }

    /// As [`Self::pixel`] for a window that lies inside the input: taps read the channels at `offsets`, in ascending order,
    /// of `x`. `None` if `x` ends before.
    #[inline(always)]
    fn pixel_inside(
        &self,
        channels: &Channels<'_>,
        first: usize,
        x: &[i8],
        offsets: &[usize; MOST_TAPS],
    ) -> Option<[u8; BLOCK]> {
        let last = *offsets.get(self.taps.checked_sub(1)?)?;
        x.get(last..)?.get(..BLOCK)?;
        // SAFETY: the core has AVX2, or there would be no block, and the last of the taps, which are ascending, ends in `x`.
        unsafe { self.pixel_at(channels, first, x.as_ptr(), offsets) }
    }

    /// # Safety
    ///
    /// 16 channels lie at each of the first `taps` offsets of `x`.
    #[target_feature(enable = "avx2")]
    unsafe fn pixel_at(
        &self,
        channels: &Channels<'_>,
        first: usize,
        x: *const i8,
        offsets: &[usize; MOST_TAPS],
    ) -> Option<[u8; BLOCK]> {
        // SAFETY: as said.
        let sums = unsafe { self.sums_at(x, offsets) };
        let mut out = self.finish(sums);
        if self.others != 0 {
            self.finish_others(channels, first, sums, &mut out)?;
        }
        Some(out)
    }

    /// Finishes the channels that are not plain.
    #[cold]
    #[target_feature(enable = "avx2")]
    fn finish_others(
        &self,
        channels: &Channels<'_>,
        first: usize,
        sums: [__m256i; 2],
        out: &mut [u8; BLOCK],
    ) -> Option<()> {
        for (lanes, sums) in CHANNELS.iter().zip(sums) {
            let mut words = [0i32; 8];
            // SAFETY: `words` has 32 bytes; the store needs no alignment.
            unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), sums) };
            for (&lane, sum) in lanes.iter().zip(words).filter(|(lane, _)| self.others >> **lane & 1 == 1) {
                *out.get_mut(lane)? = channels.finish_biased(first + lane, sum)? as u8;
            }
        }
        Some(())
    }

    /// # Safety
    ///
    /// 16 channels lie at each of the first `taps` offsets of `x`.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums_at(&self, x: *const i8, offsets: &[usize; MOST_TAPS]) -> [__m256i; 2] {
        let read = |tap: usize| {
            // SAFETY: 16 channels lie there.
            _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(x.add(offsets[tap]).cast()) })
        };
        let mut acc = self.bias;
        let mut add = |i: usize, first: __m256i, second: __m256i| {
            let low = _mm256_madd_epi16(_mm256_unpacklo_epi16(first, second), self.pairs[i][0]);
            let high = _mm256_madd_epi16(_mm256_unpackhi_epi16(first, second), self.pairs[i][1]);
            acc = [_mm256_add_epi32(acc[0], low), _mm256_add_epi32(acc[1], high)];
        };
        let pairs = (self.taps / 2).min(MOST_PAIRS);
        for i in 0..pairs {
            add(i, read(2 * i), read(2 * i + 1));
        }
        if self.taps % 2 == 1 {
            add(pairs, read(2 * pairs), _mm256_setzero_si256());
        }
        acc
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn finish(&self, sums: [__m256i; 2]) -> [u8; BLOCK] {
        let finished: [__m256i; 2] = core::array::from_fn(|i| {
            let (sum, mantissa) = (sums[i], self.mantissas[i]);
            let even = _mm256_mul_epi32(sum, mantissa);
            let odd = _mm256_mul_epi32(_mm256_srli_epi64::<32>(sum), _mm256_srli_epi64::<32>(mantissa));
            let high = _mm256_blend_epi32::<0b1010_1010>(_mm256_srli_epi64::<32>(even), odd);
            let rounded = _mm256_srav_epi32(_mm256_add_epi32(high, self.roundings[i]), self.shifts[i]);
            _mm256_min_epi32(_mm256_max_epi32(rounded, self.clamp[0]), self.clamp[1])
        });
        // Packing joins the vectors' halves: channels 0 to 7, and 8 to 15.
        let packed = _mm256_packs_epi32(finished[0], finished[1]);
        let bytes = _mm_packs_epi16(_mm256_castsi256_si128(packed), _mm256_extracti128_si256::<1>(packed));
        let mut out = [0u8; BLOCK];
        // SAFETY: `out` has 16 bytes; the store needs no alignment.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), bytes) };
        out
    }
}
