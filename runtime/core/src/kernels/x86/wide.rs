//! Arithmetic of 64-bit lanes that AVX2 has no instructions for.

use core::arch::x86_64::*;

/// A number in every lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn every(number: i64) -> __m256i {
    _mm256_set1_epi64x(number)
}

/// `⌊value / 2^count⌋`, counts below 64.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn floor(value: __m256i, count: u32) -> __m256i {
    // With 2^63 more, a shift without sign does for one with sign.
    let count = _mm_cvtsi32_si128(count as i32);
    let positive = every(i64::MIN);
    _mm256_sub_epi64(_mm256_srl_epi64(_mm256_xor_si256(value, positive), count), _mm256_srl_epi64(positive, count))
}

/// `⌊product / 2^(count + 1) + 1/2⌋`, products within ±2^62 and counts in `0..=61`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn rounded(product: __m256i, count: __m256i) -> __m256i {
    // As in [`floor`]; what is too much in the end is 2^(62 − count).
    let floor = _mm256_srlv_epi64(_mm256_xor_si256(product, every(i64::MIN)), count);
    let excess = _mm256_srlv_epi64(every(1 << 62), count);
    _mm256_sub_epi64(_mm256_srli_epi64::<1>(_mm256_add_epi64(floor, every(1))), excess)
}

/// Clamps lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn clamped(value: __m256i, low: __m256i, high: __m256i) -> __m256i {
    let value = _mm256_blendv_epi8(value, low, _mm256_cmpgt_epi64(low, value));
    _mm256_blendv_epi8(value, high, _mm256_cmpgt_epi64(value, high))
}

/// Four words in lanes of 64 bits.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_words(words: &[i32; 4]) -> __m256i {
    // SAFETY: there are 16 bytes; the load needs no alignment.
    _mm256_cvtepi32_epi64(unsafe { _mm_loadu_si128(words.as_ptr().cast()) })
}

/// The low words of lanes, in the lower half of a vector.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn low_words(lanes: __m256i) -> __m128i {
    _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(lanes, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6)))
}

/// The low words of lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_words(lanes: __m256i) -> [i32; 4] {
    super::words(low_words(lanes))
}
