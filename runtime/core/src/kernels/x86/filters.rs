//! Filters, as they lie in a plan, in vectors.

use core::arch::x86_64::*;

use crate::kernels::weights::{OCTET, Width};

/// Bytes of a filter.
pub(super) const fn filter_bytes<W: Width>(octets: usize) -> usize {
    if W::PACKED { octets * OCTET / 2 } else { octets * OCTET }
}

/// Octets `octet` and `octet + 1` of a filter.
///
/// # Safety
///
/// The filter has them.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn two_octets<W: Width>(filter: *const u8, octet: usize) -> __m128i {
    // SAFETY: two octets are 16 bytes, or 8 if two weights share a byte.
    unsafe {
        if W::PACKED {
            unpacked(_mm_loadl_epi64(filter.add(octet * 4).cast()))
        } else {
            _mm_loadu_si128(filter.add(octet * OCTET).cast())
        }
    }
}

/// Octet `octet` of a filter, in the lower half.
///
/// # Safety
///
/// The filter has it.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn one_octet<W: Width>(filter: *const u8, octet: usize) -> __m128i {
    // SAFETY: an octet is 8 bytes, or 4 if two weights share a byte.
    unsafe {
        if W::PACKED {
            unpacked(_mm_loadu_si32(filter.add(octet * 4).cast()))
        } else {
            _mm_loadl_epi64(filter.add(octet * OCTET).cast())
        }
    }
}

/// Two words of nibbles, stored as weight + 8 in the order of [`crate::kernels::weights`], as 16 weights.
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
