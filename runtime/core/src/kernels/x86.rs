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

/// Multiplies `F` filters at a time, and those left over one at a time.
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
    let mut o = place.first;
    while place.end - o >= F {
        let filters = operands.filters.wrapping_add((o - place.first) * len);
        // SAFETY: F filters are left.
        let sums = unsafe { sums::<W, P, F>(Operands { filters, ..operands }) };
        for (i, sums) in sums.into_iter().enumerate() {
            finish::<W, P>(linear, sums, place.pixel, o + i, y, plain)?;
        }
        o += F;
    }
    while o < place.end {
        let filters = operands.filters.wrapping_add((o - place.first) * len);
        // SAFETY: one filter is left.
        let [sums] = unsafe { sums::<W, P, 1>(Operands { filters, ..operands }) };
        finish::<W, P>(linear, sums, place.pixel, o, y, plain)?;
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

/// Finishes one filter's sums of `P` pixels.
#[inline]
#[target_feature(enable = "avx2")]
fn finish<W: Width, const P: usize>(
    linear: &Linear<'_, W>,
    sums: __m128i,
    pixel: usize,
    o: usize,
    y: &mut Output<'_>,
    plain: bool,
) -> Option<()> {
    let Linear { ref channels, out_channels, .. } = *linear;
    if !plain {
        for (i, sum) in words(sums).into_iter().take(P).enumerate() {
            y.put((pixel + i) * out_channels + o, channels.finish(o, sum)?)?;
        }
        return Some(());
    }
    let (bias, mantissa) = (*channels.bias.get(o)?, *channels.mantissas.get(o)?);
    let shift = i32::from(*channels.shifts.get(o)?);
    let sums = _mm_add_epi32(sums, _mm_set1_epi32(bias));
    let mantissa = _mm_set1_epi32(mantissa);
    let even = _mm_mul_epi32(sums, mantissa);
    let odd = _mm_mul_epi32(_mm_srli_epi64::<32>(sums), mantissa);
    let high = _mm_blend_epi32::<0b1010>(_mm_srli_epi64::<32>(even), odd);
    // Rounding and zero point as `Channels::are_plain` says.
    let rounding = (2 * channels.zero_point + 1) << (shift - 2);
    let rounded = _mm_sra_epi32(_mm_add_epi32(high, _mm_set1_epi32(rounding)), _mm_cvtsi32_si128(shift - 1));
    let [low, high] = channels.clamp.map(|end| _mm_set1_epi32(end));
    let clamped = words(_mm_min_epi32(_mm_max_epi32(rounded, low), high));
    let bytes = y.bytes_from(pixel * out_channels + o)?;
    for (i, value) in clamped.into_iter().take(P).enumerate() {
        *bytes.get_mut(i * out_channels)? = value as u8;
    }
    Some(())
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
        weights: impl Fn(usize, usize) -> i8,
    ) -> Option<Self> {
        if taps > MOST_TAPS {
            return None;
        }
        // SAFETY: AVX2 is available, says the caller.
        Some(unsafe { Self::with_avx2(channels, first, taps, weights) })
    }

    #[target_feature(enable = "avx2")]
    fn with_avx2(channels: &Channels<'_>, first: usize, taps: usize, weights: impl Fn(usize, usize) -> i8) -> Self {
        let of = |values: &dyn Fn(usize) -> i32| CHANNELS.map(|lanes| vector(lanes.map(|lane| values(first + lane))));
        let shift = |o: usize| channels.shifts.get(o).map_or(2, |&shift| i32::from(shift));
        let mut pairs = [[_mm256_setzero_si256(); 2]; MOST_PAIRS];
        for (i, pair) in pairs.iter_mut().enumerate().take(taps.div_ceil(2)) {
            let tap = |t: usize, lane: usize| if t < taps { i32::from(weights(t, lane)) } else { 0 };
            *pair = CHANNELS
                .map(|lanes| vector(lanes.map(|lane| (tap(2 * i, lane) & 0xFFFF) | tap(2 * i + 1, lane) << 16)));
        }
        Self {
            pairs,
            taps,
            bias: of(&|o| channels.bias.get(o).copied().unwrap_or(0)),
            mantissas: of(&|o| channels.mantissas.get(o).copied().unwrap_or(0)),
            roundings: of(&|o| (2 * channels.zero_point + 1) << (shift(o) - 2)),
            shifts: of(&|o| shift(o) - 1),
            clamp: channels.clamp.map(|end| vector([end; 8])),
        }
    }

    /// The outputs of one pixel, given what each tap reads. To be called only where AVX2 is [`available`].
    #[inline(always)]
    pub(super) fn pixel(&self, x: impl Fn(usize) -> Option<[i8; BLOCK]>) -> Option<[u8; BLOCK]> {
        // SAFETY: AVX2 is available, says the caller.
        unsafe { self.pixel_with_avx2(x) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn pixel_with_avx2(&self, x: impl Fn(usize) -> Option<[i8; BLOCK]>) -> Option<[u8; BLOCK]> {
        let mut acc = self.bias;
        for (i, pair) in self.pairs.iter().enumerate().take(self.taps.div_ceil(2)) {
            let first = widened(x(2 * i)?);
            let second = if 2 * i + 1 < self.taps { widened(x(2 * i + 1)?) } else { _mm256_setzero_si256() };
            let both = [_mm256_unpacklo_epi16(first, second), _mm256_unpackhi_epi16(first, second)];
            for ((acc, x), &w) in acc.iter_mut().zip(both).zip(pair) {
                *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(x, w));
            }
        }
        let finished: [__m256i; 2] = core::array::from_fn(|i| {
            let (sum, mantissa) = (acc[i], self.mantissas[i]);
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
        Some(out)
    }
}

/// Eight numbers as a vector.
#[inline]
#[target_feature(enable = "avx2")]
fn vector(words: [i32; 8]) -> __m256i {
    // SAFETY: `words` has 32 bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// Sixteen bytes as numbers of 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn widened(bytes: [i8; BLOCK]) -> __m256i {
    // SAFETY: `bytes` has 16 bytes; the load needs no alignment.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}
