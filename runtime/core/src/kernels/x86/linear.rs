//! Patches times filters where there are few pixels or long filters: elements in the lanes of vectors, whose sums are added up
//! at the end.

use core::arch::x86_64::*;

use super::filters::{filter_bytes, one_octet, two_octets};
use super::finish::{self, GROUP, Group, Target};
use super::{Avx2, totals, words};
use crate::kernels::channels::Output;
use crate::kernels::linear::{Linear, Place};
use crate::kernels::patches::HEADER;
use crate::kernels::weights::{OCTET, Width};

/// Filters whose sums make a vector.
const QUAD: usize = 4;

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
    let target = Target::new(&linear.channels, y);
    let mut o = place.first;
    while place.end - o >= GROUP {
        // SAFETY: eight filters are left.
        let (low, high) = unsafe { (quad::<W, P>(filters(o)), quad::<W, P>(filters(o + QUAD))) };
        let groups = [Group::new(&linear.channels, o)];
        let at = place.pixel * linear.out_channels + o;
        let bias = groups[0].bias();
        let sums: [_; P] = core::array::from_fn(|p| [_mm256_add_epi32(_mm256_set_m128i(high[p], low[p]), bias)]);
        target.write(&groups, &sums, finish::Place { at, distance: linear.out_channels, count: GROUP }, y)?;
        o += GROUP;
    }
    while o < place.end {
        // SAFETY: one filter is left.
        let [sums] = unsafe { self::sums::<W, P, 1>(filters(o)) };
        for (p, sum) in sums.into_iter().enumerate() {
            let [sum, ..] = words(totals([sum; 4]));
            y.put((place.pixel + p) * linear.out_channels + o, linear.channels.finish(o, sum)?)?;
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
            let w: [__m256i; F] =
                core::array::from_fn(|f| _mm256_cvtepi8_epi16(two_octets::<W>(filters.add(f * len), octet)));
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
            let w: [__m128i; F] =
                core::array::from_fn(|f| _mm_cvtepi8_epi16(one_octet::<W>(filters.add(f * len), octet)));
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
