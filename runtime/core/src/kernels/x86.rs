//! Kernels for x86-64 cores with AVX2: sixteen products of 16 bits an instruction, summed in pairs to 32 bits.
//!
//! Functions called from elsewhere check lengths, and are called only where [`available`] says so; inside, functions carry
//! the feature.
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use super::channels::{Channels, Output};
use super::linear::{Linear, Place};
use super::patches::HEADER;
use super::weights::{OCTET, Width};

/// Filters that share the patches of four pixels while these are in registers.
const FILTERS: usize = 2;

/// Filters that are finished together.
const GROUP: usize = 4;

/// Filters that share the patch of one pixel.
const FILTERS_OF_ONE: usize = 4;

/// Whether the core has AVX2.
#[inline(always)]
pub(super) fn available() -> bool {
    std::is_x86_feature_detected!("avx2")
}

/// Patches and filters: where they are.
#[derive(Clone, Copy)]
struct Operands {
    patches: *const i16,
    filters: *const u8,
    /// Octets of a filter and of a patch.
    octets: usize,
}

/// Multiplies the patches of `P` pixels with filters. To be called only where AVX2 is [`available`].
pub(super) fn multiply<W: Width, const P: usize>(
    linear: &Linear<'_, W>,
    work: &[u32],
    place: Place,
    y: &mut Output<'_>,
    plain: bool,
) -> Option<()> {
    let octets = linear.filter_len / OCTET;
    let patches = work.get(HEADER..)?.get(..(linear.filter_len / 2).checked_mul(P)?)?;
    let filters = linear.weights.range(place.first, place.end)?;
    let operands = Operands { patches: patches.as_ptr().cast(), filters: filters.as_ptr().cast(), octets };
    if P == 1 {
        // SAFETY: AVX2 is available, says the caller. `patches` holds P patches of `octets` octets, `filters` a filter of
        // as many for each of `place.first..place.end`: both were sliced to these lengths.
        unsafe { blocks::<W, P, FILTERS_OF_ONE>(linear, operands, place, y, plain) }
    } else {
        // SAFETY: as above.
        unsafe { blocks::<W, P, FILTERS>(linear, operands, place, y, plain) }
    }
}

/// Multiplies filters in groups of [`GROUP`], `F` at a time, and those left over one at a time.
///
/// # Safety
///
/// `operands` has the patches of `P` pixels, and a filter for each of `place.first..place.end`.
#[target_feature(enable = "avx2")]
unsafe fn blocks<W: Width, const P: usize, const F: usize>(
    linear: &Linear<'_, W>,
    operands: Operands,
    place: Place,
    y: &mut Output<'_>,
    plain: bool,
) -> Option<()> {
    let len = filter_bytes::<W>(operands.octets);
    let filters = |o: usize| Operands { filters: operands.filters.wrapping_add((o - place.first) * len), ..operands };
    let mut o = place.first;
    while plain && place.end - o >= GROUP {
        // Sums of each filter, lane by lane of each pixel.
        let mut sums = [_mm_setzero_si128(); GROUP];
        for (i, some) in sums.chunks_exact_mut(F).enumerate() {
            // SAFETY: F filters are left.
            some.copy_from_slice(&unsafe { self::sums::<W, P, F>(filters(o + i * F)) });
        }
        finish_group::<W, P>(linear, sums, place.pixel, o, y)?;
        o += GROUP;
    }
    while o < place.end {
        // SAFETY: one filter is left.
        let [sums] = unsafe { self::sums::<W, P, 1>(filters(o)) };
        for (i, sum) in words(sums).into_iter().take(P).enumerate() {
            y.put((place.pixel + i) * linear.out_channels + o, linear.channels.finish(o, sum)?)?;
        }
        o += 1;
    }
    Some(())
}

/// Bytes of a filter.
const fn filter_bytes<W: Width>(octets: usize) -> usize {
    if W::PACKED { octets * OCTET / 2 } else { octets * OCTET }
}

/// The sums of products of `F` filters with the patches of `P` pixels, at most four.
///
/// # Safety
///
/// `operands` has `F` filters and `P` patches of its number of octets.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sums<W: Width, const P: usize, const F: usize>(operands: Operands) -> [__m128i; F] {
    let Operands { patches, filters, octets } = operands;
    let len = filter_bytes::<W>(octets);
    let mut acc = [[_mm256_setzero_si256(); P]; F];
    let mut octet = 0;
    while octet + 2 <= octets {
        // SAFETY: octets `octet` and `octet + 1` of every patch and filter are theirs.
        unsafe {
            let w: [__m256i; F] = core::array::from_fn(|f| weights::<W>(filters.add(f * len), octet));
            for p in 0..P {
                let x = _mm256_loadu_si256(patches.add((p * octets + octet) * OCTET).cast());
                for f in 0..F {
                    acc[f][p] = _mm256_add_epi32(acc[f][p], _mm256_madd_epi16(x, w[f]));
                }
            }
        }
        octet += 2;
    }
    if octet < octets {
        // SAFETY: octet `octet` of every patch and filter is theirs.
        unsafe {
            let w: [__m128i; F] = core::array::from_fn(|f| last_weights::<W>(filters.add(f * len), octet));
            for p in 0..P {
                let x = _mm_loadu_si128(patches.add((p * octets + octet) * OCTET).cast());
                for f in 0..F {
                    let products = _mm256_zextsi128_si256(_mm_madd_epi16(x, w[f]));
                    acc[f][p] = _mm256_add_epi32(acc[f][p], products);
                }
            }
        }
    }
    acc.map(|acc| {
        let of = |p: usize| acc.get(p).copied().unwrap_or(_mm256_setzero_si256());
        let pairs = [_mm256_hadd_epi32(of(0), of(1)), _mm256_hadd_epi32(of(2), of(3))];
        let halves = _mm256_hadd_epi32(pairs[0], pairs[1]);
        _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
    })
}

/// Octets `octet` and `octet + 1` of a filter.
///
/// # Safety
///
/// The filter has them.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn weights<W: Width>(filter: *const u8, octet: usize) -> __m256i {
    // SAFETY: two octets are 16 bytes, or 8 if two weights share a byte.
    unsafe {
        if W::PACKED {
            _mm256_cvtepi8_epi16(unpacked(_mm_loadl_epi64(filter.add(octet * 4).cast())))
        } else {
            _mm256_cvtepi8_epi16(_mm_loadu_si128(filter.add(octet * OCTET).cast()))
        }
    }
}

/// Octet `octet` of a filter.
///
/// # Safety
///
/// The filter has it.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn last_weights<W: Width>(filter: *const u8, octet: usize) -> __m128i {
    // SAFETY: an octet is 8 bytes, or 4 if two weights share a byte.
    unsafe {
        if W::PACKED {
            _mm_cvtepi8_epi16(unpacked(_mm_loadu_si32(filter.add(octet * 4).cast())))
        } else {
            _mm_cvtepi8_epi16(_mm_loadl_epi64(filter.add(octet * OCTET).cast()))
        }
    }
}

/// Two words of nibbles, stored as weight + 8 in the order of [`super::weights`], as 16 weights.
#[inline]
#[target_feature(enable = "avx2")]
fn unpacked(words: __m128i) -> __m128i {
    let mask = _mm_set1_epi8(15);
    let (low, high) = (_mm_and_si128(words, mask), _mm_and_si128(_mm_srli_epi16::<4>(words), mask));
    // Nibbles in turn: elements 0, 1, 4, 5, 2, 3, 6, 7 of each octet.
    let nibbles = _mm_unpacklo_epi8(low, high);
    let order = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
    _mm_sub_epi8(_mm_shuffle_epi8(nibbles, order), _mm_set1_epi8(8))
}

/// Finishes the sums of [`GROUP`] filters from `o` on: a vector of `P` pixels for each.
#[inline]
#[target_feature(enable = "avx2")]
fn finish_group<W: Width, const P: usize>(
    linear: &Linear<'_, W>,
    sums: [__m128i; GROUP],
    pixel: usize,
    o: usize,
    y: &mut Output<'_>,
) -> Option<()> {
    let Linear { ref channels, out_channels, .. } = *linear;
    let range = o..o + GROUP;
    let bias = load(channels.bias.get(range.clone())?.first_chunk()?);
    let mantissas = load(channels.mantissas.get(range.clone())?.first_chunk()?);
    let shifts: [i8; GROUP] = *channels.shifts.get(range)?.first_chunk()?;
    let others = (0..GROUP).any(|i| !channels.is_plain(o + i));
    let shifts = load(&shifts.map(i32::from));
    // Rounding and zero point as `Channels::are_plain` says; shifts out of its range give zeros, overwritten below.
    let (one, two) = (_mm_set1_epi32(1), _mm_set1_epi32(2));
    let rounding = _mm_sllv_epi32(_mm_set1_epi32(2 * channels.zero_point + 1), _mm_sub_epi32(shifts, two));
    let shifts = _mm_sub_epi32(shifts, one);
    let odd_mantissas = _mm_srli_epi64::<32>(mantissas);
    let [low, high] = channels.clamp.map(|end| _mm_set1_epi32(end));
    let bytes = y.bytes_from(pixel * out_channels + o)?;
    for (i, sums) in transposed(sums).into_iter().take(P).enumerate() {
        let sums = _mm_add_epi32(sums, bias);
        let even = _mm_mul_epi32(sums, mantissas);
        let odd = _mm_mul_epi32(_mm_srli_epi64::<32>(sums), odd_mantissas);
        let products = _mm_blend_epi32::<0b1010>(_mm_srli_epi64::<32>(even), odd);
        let rounded = _mm_srav_epi32(_mm_add_epi32(products, rounding), shifts);
        let clamped = _mm_min_epi32(_mm_max_epi32(rounded, low), high);
        let halves = _mm_packs_epi32(clamped, clamped);
        let four = _mm_cvtsi128_si32(_mm_packs_epi16(halves, halves)).to_le_bytes();
        let out = bytes.get_mut(i * out_channels..)?.first_chunk_mut::<GROUP>()?;
        *out = four;
        if others {
            for (lane, sum) in words(sums).into_iter().enumerate().filter(|(lane, _)| !channels.is_plain(o + lane)) {
                // The sum has its bias already.
                let sum = sum.wrapping_sub(*channels.bias.get(o + lane)?);
                *out.get_mut(lane)? = channels.finish(o + lane, sum)? as u8;
            }
        }
    }
    Some(())
}

/// Rows as columns.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed([a, b, c, d]: [__m128i; 4]) -> [__m128i; 4] {
    let (ab_low, cd_low) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
    [
        _mm_unpacklo_epi64(ab_low, cd_low),
        _mm_unpackhi_epi64(ab_low, cd_low),
        _mm_unpacklo_epi64(ab_high, cd_high),
        _mm_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Four numbers as a vector.
#[inline]
#[target_feature(enable = "avx2")]
fn load(words: &[i32; 4]) -> __m128i {
    // SAFETY: `words` has 16 bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

/// The lanes of a vector.
#[inline]
#[target_feature(enable = "avx2")]
fn words(vector: __m128i) -> [i32; 4] {
    let mut words = [0; 4];
    // SAFETY: `words` has 16 bytes; the store needs no alignment.
    unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), vector) };
    words
}

/// Channels of a block of a depthwise convolution.
pub(super) const BLOCK: usize = 16;

/// Taps at most.
pub(super) const MOST_TAPS: usize = 64;

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
pub(super) struct Block {
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
    /// many taps. To be called only where AVX2 is [`available`].
    pub(super) fn new(
        channels: &Channels<'_>,
        first: usize,
        taps: usize,
        weights: impl Fn(usize) -> [i8; BLOCK],
    ) -> Option<Self> {
        if taps > MOST_TAPS {
            return None;
        }
        // SAFETY: AVX2 is available, says the caller.
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

    /// The outputs of one pixel, of channels from `first` on, given what each tap reads. To be called only where AVX2 is
    /// [`available`].
    #[inline(always)]
    pub(super) fn pixel(
        &self,
        channels: &Channels<'_>,
        first: usize,
        x: &[[i8; BLOCK]; MOST_TAPS],
    ) -> Option<[u8; BLOCK]> {
        // SAFETY: AVX2 is available, says the caller; `x` has 16 channels for each tap.
        unsafe { self.pixel_at(channels, first, x.as_flattened().as_ptr(), &DENSE) }
    }

    /// As [`Self::pixel`] for a window that lies inside the input: taps read the channels at `offsets`, in ascending order,
    /// of `x`. `None` if `x` ends before. To be called only where AVX2 is [`available`].
    #[inline(always)]
    pub(super) fn pixel_inside(
        &self,
        channels: &Channels<'_>,
        first: usize,
        x: &[i8],
        offsets: &[usize; MOST_TAPS],
    ) -> Option<[u8; BLOCK]> {
        let last = *offsets.get(self.taps.checked_sub(1)?)?;
        x.get(last..)?.get(..BLOCK)?;
        // SAFETY: AVX2 is available, says the caller, and the last of the taps, which are ascending, ends in `x`.
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
                // The sum has its bias already.
                let o = first + lane;
                *out.get_mut(lane)? = channels.finish(o, sum.wrapping_sub(*channels.bias.get(o)?))? as u8;
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

/// Eight numbers as a vector.
#[inline]
#[target_feature(enable = "avx2")]
fn vector(words: [i32; 8]) -> __m256i {
    // SAFETY: `words` has 32 bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// `y = clamp((start + a · factors[0] + b · factors[1]) >> shift)` of eight elements at a time, as many as there are whole
/// eights. Sums stay below 2^46, `shift` below 46. To be called only where AVX2 is
/// [`available`].
pub(super) fn add([a, b]: [&[i8]; 2], y: &mut [i8], start: i64, factors: [i32; 2], shift: u32, clamp: [i32; 2]) {
    let (a, _) = a.as_chunks::<8>();
    let (b, _) = b.as_chunks::<8>();
    let (y, _) = y.as_chunks_mut::<8>();
    // SAFETY: AVX2 is available, says the caller.
    unsafe { add_eights(a, b, y, start, factors, shift, clamp) };
}

#[target_feature(enable = "avx2")]
fn add_eights(
    a: &[[i8; 8]],
    b: &[[i8; 8]],
    y: &mut [[i8; 8]],
    start: i64,
    factors: [i32; 2],
    shift: u32,
    clamp: [i32; 2],
) {
    /// Makes all sums positive; a multiple of any 2^shift.
    const POSITIVE: i64 = 1 << 46;
    let [a_factor, b_factor] = factors.map(|factor| _mm256_set1_epi32(factor));
    let start = _mm256_set1_epi64x(start + POSITIVE);
    let count = _mm_cvtsi32_si128(shift as i32);
    let positive = _mm256_set1_epi32((POSITIVE >> shift) as i32);
    let [low, high] = clamp.map(|end| _mm256_set1_epi32(end));
    let widened = |x: &[i8; 8]| _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(x.map(|x| x as u8))));
    for ((a, b), y) in a.iter().zip(b).zip(y) {
        let (a, b) = (widened(a), widened(b));
        let sum = |a: __m256i, b: __m256i| {
            let products = _mm256_add_epi64(_mm256_mul_epi32(a, a_factor), _mm256_mul_epi32(b, b_factor));
            _mm256_srl_epi64(_mm256_add_epi64(products, start), count)
        };
        let even = sum(a, b);
        let odd = sum(_mm256_srli_epi64::<32>(a), _mm256_srli_epi64::<32>(b));
        let all = _mm256_blend_epi32::<0b1010_1010>(even, _mm256_slli_epi64::<32>(odd));
        let all = _mm256_min_epi32(_mm256_max_epi32(_mm256_sub_epi32(all, positive), low), high);
        let halves = _mm256_packs_epi32(all, all);
        let joined = _mm256_permute4x64_epi64::<0b1000>(halves);
        let bytes = _mm_packs_epi16(_mm256_castsi256_si128(joined), _mm256_castsi256_si128(joined));
        *y = _mm_cvtsi128_si64(bytes).to_le_bytes().map(|x| x as i8);
    }
}
