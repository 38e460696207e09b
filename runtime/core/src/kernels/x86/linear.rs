//! Patches times filters.

use core::arch::x86_64::*;

use super::{Avx2, lanes, totals, vector, words};
use crate::kernels::channels::Output;
use crate::kernels::linear::{Linear, Place};
use crate::kernels::patches::HEADER;
use crate::kernels::weights::{OCTET, Width};
use crate::plan::DType;

/// Filters whose sums make a vector.
const QUAD: usize = 4;

/// Filters that are finished together.
const GROUP: usize = 2 * QUAD;

/// Patches and filters: where they are.
#[derive(Clone, Copy)]
struct Operands {
    patches: *const i16,
    filters: *const u8,
    /// Octets of a filter and of a patch.
    octets: usize,
}

impl Avx2 {
    /// Multiplies the patches of `P` pixels with filters.
    #[inline(always)]
    pub(in crate::kernels) fn multiply<W: Width, const P: usize>(
        self,
        linear: &Linear<'_, W>,
        work: &[u32],
        place: Place,
        y: &mut Output<'_>,
    ) -> Option<()> {
        let octets = linear.filter_len / OCTET;
        let patches = work.get(HEADER..)?.get(..(linear.filter_len / 2).checked_mul(P)?)?;
        let filters = linear.weights.range(place.first, place.end)?;
        let operands = Operands { patches: patches.as_ptr().cast(), filters: filters.as_ptr().cast(), octets };
        // SAFETY: the core has AVX2. `patches` holds P patches of `octets` octets, `filters` a filter of as many for each
        // of `place.first..place.end`: both were sliced to these lengths.
        unsafe { blocks::<W, P>(linear, operands, place, y) }
    }
}

/// Multiplies filters in groups of [`GROUP`], and those left over one at a time.
///
/// # Safety
///
/// `operands` has the patches of `P` pixels, and a filter for each of `place.first..place.end`.
#[target_feature(enable = "avx2")]
unsafe fn blocks<W: Width, const P: usize>(
    linear: &Linear<'_, W>,
    operands: Operands,
    place: Place,
    y: &mut Output<'_>,
) -> Option<()> {
    let len = filter_bytes::<W>(operands.octets);
    let filters = |o: usize| Operands { filters: operands.filters.wrapping_add((o - place.first) * len), ..operands };
    let mut o = place.first;
    while place.end - o >= GROUP {
        // SAFETY: eight filters are left.
        let (low, high) = unsafe { (quad::<W, P>(filters(o)), quad::<W, P>(filters(o + QUAD))) };
        let sums: [__m256i; P] = core::array::from_fn(|p| _mm256_set_m128i(high[p], low[p]));
        if y.dtype() == DType::I8 {
            finish_group(linear, &sums, place.pixel, o, y)?;
        } else {
            for (p, &sums) in sums.iter().enumerate() {
                finish_any(linear, &lanes(sums), place.pixel + p, o, y)?;
            }
        }
        o += GROUP;
    }
    while o < place.end {
        // SAFETY: one filter is left.
        let [sums] = unsafe { self::sums::<W, P, 1>(filters(o)) };
        for (p, sum) in sums.into_iter().enumerate() {
            let [sum, ..] = words(totals([sum; 4]));
            finish_any(linear, &[sum], place.pixel + p, o, y)?;
        }
        o += 1;
    }
    Some(())
}

/// The sums of four filters for each of `P` pixels.
///
/// # Safety
///
/// `operands` has four filters and `P` patches, one or four.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn quad<W: Width, const P: usize>(operands: Operands) -> [__m128i; P] {
    if P == 1 {
        // SAFETY: four filters, says the caller.
        let sums = unsafe { sums::<W, P, QUAD>(operands) };
        let all = totals(sums.map(|sums| sums[0]));
        return [all; P];
    }
    // As many sums as there are registers for: two filters at a time.
    let later = operands.filters.wrapping_add(2 * filter_bytes::<W>(operands.octets));
    // SAFETY: four filters, says the caller.
    let [ab, cd] = unsafe { [sums::<W, P, 2>(operands), sums::<W, P, 2>(Operands { filters: later, ..operands })] };
    let of = |sums: [__m256i; P]| totals(core::array::from_fn(|p| sums[p % P]));
    let pixels = transposed([of(ab[0]), of(ab[1]), of(cd[0]), of(cd[1])]);
    core::array::from_fn(|p| pixels[p % QUAD])
}

/// Bytes of a filter.
const fn filter_bytes<W: Width>(octets: usize) -> usize {
    if W::PACKED { octets * OCTET / 2 } else { octets * OCTET }
}

/// The products of `F` filters with the patches of `P` pixels, in sums of eight lanes each.
///
/// # Safety
///
/// `operands` has `F` filters and `P` patches of its number of octets.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sums<W: Width, const P: usize, const F: usize>(operands: Operands) -> [[__m256i; P]; F] {
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
                for (sums, &w) in acc.iter_mut().zip(&w) {
                    sums[p] = _mm256_add_epi32(sums[p], _mm256_madd_epi16(x, w));
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
                for (sums, &w) in acc.iter_mut().zip(&w) {
                    sums[p] = _mm256_add_epi32(sums[p], _mm256_zextsi128_si256(_mm_madd_epi16(x, w)));
                }
            }
        }
    }
    acc
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

/// Finishes the sums of [`GROUP`] filters from `o` on, of each pixel from `pixel` on, for an output of 8 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn finish_group<W: Width>(
    linear: &Linear<'_, W>,
    sums: &[__m256i],
    pixel: usize,
    o: usize,
    y: &mut Output<'_>,
) -> Option<()> {
    let Linear { ref channels, out_channels, .. } = *linear;
    let range = o..o + GROUP;
    let bias = vector(*channels.bias.get(range.clone())?.first_chunk()?);
    let mantissas = vector(*channels.mantissas.get(range.clone())?.first_chunk()?);
    let shifts: [i8; GROUP] = *channels.shifts.get(range)?.first_chunk()?;
    let shifts = _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(shifts.map(|shift| shift as u8))));
    // Rounding and zero point as `Channels::are_plain` says. What lies outside of its range is overwritten below.
    let (one, two) = (_mm256_set1_epi32(1), _mm256_set1_epi32(2));
    let rounding = _mm256_sllv_epi32(_mm256_set1_epi32(2 * channels.zero_point + 1), _mm256_sub_epi32(shifts, two));
    let down = _mm256_sub_epi32(shifts, one);
    let outside = _mm256_or_si256(_mm256_cmpgt_epi32(two, shifts), _mm256_cmpgt_epi32(shifts, _mm256_set1_epi32(23)));
    let others = _mm256_movemask_epi8(outside) != 0;
    let odd_mantissas = _mm256_srli_epi64::<32>(mantissas);
    let [low, high] = channels.clamp.map(|end| _mm256_set1_epi32(end));
    let bytes = y.bytes_from(pixel * out_channels + o)?;
    for (i, &sums) in sums.iter().enumerate() {
        let biased = _mm256_add_epi32(sums, bias);
        let even = _mm256_mul_epi32(biased, mantissas);
        let odd = _mm256_mul_epi32(_mm256_srli_epi64::<32>(biased), odd_mantissas);
        let products = _mm256_blend_epi32::<0b1010_1010>(_mm256_srli_epi64::<32>(even), odd);
        let rounded = _mm256_srav_epi32(_mm256_add_epi32(products, rounding), down);
        let clamped = _mm256_min_epi32(_mm256_max_epi32(rounded, low), high);
        let halves = _mm256_packs_epi32(clamped, clamped);
        let joined = _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(halves));
        let eight = _mm_cvtsi128_si64(_mm_packs_epi16(joined, joined)).to_le_bytes();
        let out = bytes.get_mut(i * out_channels..)?.first_chunk_mut::<GROUP>()?;
        *out = eight;
        if others {
            for (lane, sum) in lanes(sums).into_iter().enumerate().filter(|(lane, _)| !channels.is_plain(o + lane)) {
                *out.get_mut(lane)? = channels.finish(o + lane, sum)? as u8;
            }
        }
    }
    Some(())
}

/// Finishes the sums of filters from `o` on of one pixel, for an output of any type.
#[inline]
fn finish_any<W: Width>(
    linear: &Linear<'_, W>,
    sums: &[i32],
    pixel: usize,
    o: usize,
    y: &mut Output<'_>,
) -> Option<()> {
    for (o, &sum) in (o..).zip(sums) {
        y.put(pixel * linear.out_channels + o, linear.channels.finish(o, sum)?)?;
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
