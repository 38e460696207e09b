//! Patches times filters.

use core::arch::x86_64::*;

use super::{totals, words};
use crate::kernels::channels::Output;
use crate::kernels::linear::{Linear, Place};
use crate::kernels::patches::HEADER;
use crate::kernels::weights::{OCTET, Width};

/// Filters that share the patches of four pixels while these are in registers.
const FILTERS: usize = 2;

/// Filters that are finished together.
const GROUP: usize = 4;

/// Filters that share the patch of one pixel.
const FILTERS_OF_ONE: usize = 4;

/// Patches and filters: where they are.
#[derive(Clone, Copy)]
struct Operands {
    patches: *const i16,
    filters: *const u8,
    /// Octets of a filter and of a patch.
    octets: usize,
}

/// Multiplies the patches of `P` pixels with filters. To be called only where AVX2 is [available](super::available).
pub(in crate::kernels) fn multiply<W: Width, const P: usize>(
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
    while place.end - o >= GROUP {
        // Sums of each filter, lane by lane of each pixel.
        let mut sums = [_mm_setzero_si128(); GROUP];
        for (i, some) in sums.chunks_exact_mut(F).enumerate() {
            // SAFETY: F filters are left.
            some.copy_from_slice(&unsafe { self::sums::<W, P, F>(filters(o + i * F)) });
        }
        if plain {
            finish_group::<W, P>(linear, sums, place.pixel, o, y)?;
        } else {
            for (i, sums) in sums.into_iter().enumerate() {
                finish_any::<W, P>(linear, sums, place.pixel, o + i, y)?;
            }
        }
        o += GROUP;
    }
    while o < place.end {
        // SAFETY: one filter is left.
        let [sums] = unsafe { self::sums::<W, P, 1>(filters(o)) };
        finish_any::<W, P>(linear, sums, place.pixel, o, y)?;
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
        totals([of(0), of(1), of(2), of(3)])
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

/// Finishes one filter's sums of `P` pixels, for an output of any type.
#[inline]
#[target_feature(enable = "avx2")]
fn finish_any<W: Width, const P: usize>(
    linear: &Linear<'_, W>,
    sums: __m128i,
    pixel: usize,
    o: usize,
    y: &mut Output<'_>,
) -> Option<()> {
    for (i, sum) in words(sums).into_iter().take(P).enumerate() {
        y.put((pixel + i) * linear.out_channels + o, linear.channels.finish(o, sum)?)?;
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
