//! Patches times filters where there are few pixels or long filters: elements in the lanes of vectors, whose sums are added up
//! at the end.

use core::arch::x86_64::*;

use super::dot::Zmm;
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
    zmm: Option<Zmm>,
}

impl Operands {
    /// Without the first filters.
    #[inline(always)]
    fn later<W: Width>(self, filters: usize) -> Self {
        Self { filters: self.filters.wrapping_add(filters * filter_bytes::<W>(self.octets)), ..self }
    }

    /// Where the first `F` filters begin.
    #[inline(always)]
    fn rows<W: Width, const F: usize>(self) -> [*const u8; F] {
        core::array::from_fn(|f| self.filters.wrapping_add(f * filter_bytes::<W>(self.octets)))
    }
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
        let operands =
            Operands { patches: patches.as_ptr().cast(), filters: filters.as_ptr().cast(), octets, zmm: Zmm::detect() };
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
    let filters = |o: usize| operands.later::<W>(o - place.first);
    let target = Target::new(&linear.channels, y);
    let mut o = place.first;
    while place.end - o >= GROUP {
        // SAFETY: eight filters are left.
        let totals = unsafe { group::<W, P>(filters(o)) };
        let groups = [Group::new(&linear.channels, o)];
        let at = place.pixel * linear.out_channels + o;
        let mut sums = [[groups[0].bias()]; P];
        for ([sums], totals) in sums.iter_mut().zip(totals) {
            *sums = _mm256_add_epi32(*sums, totals);
        }
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

/// The sums of eight filters for each of `P` pixels.
///
/// # Safety
///
/// `operands` has eight filters and `P` patches, one or four.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn group<W: Width, const P: usize>(operands: Operands) -> [__m256i; P] {
    let mut out = [_mm256_setzero_si256(); P];
    if P == 1 {
        // SAFETY: eight filters, says the caller.
        let [[a], [b], [c], [d], [e], [f], [g], [h]] = unsafe { sums::<W, 1, GROUP>(operands) };
        out[0] = _mm256_set_m128i(totals([e, f, g, h]), totals([a, b, c, d]));
        return out;
    }
    // SAFETY: two times four filters, says the caller.
    let (low, high) = unsafe { (quad::<W, P>(operands), quad::<W, P>(operands.later::<W>(QUAD))) };
    for (out, (low, high)) in out.iter_mut().zip(low.into_iter().zip(high)) {
        *out = _mm256_set_m128i(high, low);
    }
    out
}

/// The sums of four filters for each of four pixels.
///
/// # Safety
///
/// `operands` has four filters and `P` patches: four.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn quad<W: Width, const P: usize>(operands: Operands) -> [__m128i; QUAD] {
    // As many sums as there are registers for: two filters at a time.
    // SAFETY: four filters, says the caller.
    let ([a, b], [c, d]) = unsafe { (sums::<W, P, 2>(operands), sums::<W, P, 2>(operands.later::<W>(2))) };
    transposed([totals(four(a)), totals(four(b)), totals(four(c)), totals(four(d))])
}

/// Four vectors, of which there are no more.
#[inline]
#[target_feature(enable = "avx2")]
fn four<const P: usize>(vectors: [__m256i; P]) -> [__m256i; QUAD] {
    let mut four = [_mm256_setzero_si256(); QUAD];
    for (slot, vector) in four.iter_mut().zip(vectors) {
        *slot = vector;
    }
    four
}

/// The products of `F` filters with the patches of `P` pixels, in sums of eight lanes each.
///
/// # Safety
///
/// `operands` has `F` filters and `P` patches of its number of octets.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sums<W: Width, const P: usize, const F: usize>(operands: Operands) -> [[__m256i; P]; F] {
    if operands.zmm.is_some() {
        // SAFETY: the core has it; filters and patches are there, says the caller.
        return unsafe { sums_of_zmm::<W, P, F>(operands) };
    }
    let Operands { patches, octets, .. } = operands;
    let mut acc = [[_mm256_setzero_si256(); P]; F];
    let rows = operands.rows::<W, F>();
    let mut octet = 0;
    while octet + 2 <= octets {
        // SAFETY: octets `octet` and `octet + 1` of every patch and filter are theirs.
        unsafe {
            let mut w = [_mm256_setzero_si256(); F];
            for (w, row) in w.iter_mut().zip(rows) {
                *w = _mm256_cvtepi8_epi16(two_octets::<W>(row, octet));
            }
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
            let mut w = [_mm_setzero_si128(); F];
            for (w, row) in w.iter_mut().zip(rows) {
                *w = _mm_cvtepi8_epi16(one_octet::<W>(row, octet));
            }
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

/// As [`sums`], two times two octets at a time.
///
/// # Safety
///
/// As for it; the core has what [`Zmm`] is proof of.
#[target_feature(enable = "avx2,avx512bw,avx512vl,avx512vnni")]
unsafe fn sums_of_zmm<W: Width, const P: usize, const F: usize>(operands: Operands) -> [[__m256i; P]; F] {
    let Operands { patches, octets, .. } = operands;
    let mut acc = [[_mm512_setzero_si512(); P]; F];
    let rows = operands.rows::<W, F>();
    let mut octet = 0;
    while octet < octets {
        let left = (octets - octet).min(4);
        let there = u32::MAX.unbounded_shr((OCTET * (4 - left)) as u32);
        let mut w = [_mm512_setzero_si512(); F];
        for (w, &row) in w.iter_mut().zip(&rows) {
            // SAFETY: `left` octets from `octet` on are every filter's.
            *w = _mm512_cvtepi8_epi16(unsafe { octets_of::<W>(row, octet, left) });
        }
        for p in 0..P {
            // SAFETY: as many are every patch's; those behind them are not read.
            let x = unsafe { _mm512_maskz_loadu_epi16(there, patches.add((p * octets + octet) * OCTET)) };
            for (sums, &w) in acc.iter_mut().zip(&w) {
                sums[p] = _mm512_dpwssd_epi32(sums[p], x, w);
            }
        }
        octet += 4;
    }
    let mut out = [[_mm256_setzero_si256(); P]; F];
    for (out, acc) in out.iter_mut().zip(&acc) {
        for (out, &acc) in out.iter_mut().zip(acc) {
            *out = _mm256_add_epi32(_mm512_castsi512_si256(acc), _mm512_extracti64x4_epi64::<1>(acc));
        }
    }
    out
}

/// `count` octets of a filter from `octet` on, one to four; others behind them.
///
/// # Safety
///
/// The filter has them; the core has what [`Zmm`] is proof of.
#[inline]
#[target_feature(enable = "avx2,avx512bw,avx512vl")]
unsafe fn octets_of<W: Width>(filter: *const u8, octet: usize, count: usize) -> __m256i {
    // SAFETY: says the caller.
    unsafe {
        let (low, high) = match count {
            4 if !W::PACKED => return _mm256_loadu_si256(filter.add(octet * OCTET).cast()),
            4 => (two_octets::<W>(filter, octet), two_octets::<W>(filter, octet + 2)),
            3 => (two_octets::<W>(filter, octet), one_octet::<W>(filter, octet + 2)),
            2 => (two_octets::<W>(filter, octet), _mm_setzero_si128()),
            _ => (one_octet::<W>(filter, octet), _mm_setzero_si128()),
        };
        _mm256_set_m128i(high, low)
    }
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
