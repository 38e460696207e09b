//! Element-wise sums.

use core::arch::x86_64::*;

/// `y = clamp((start + a · factors[0] + b · factors[1]) >> shift)` of eight elements at a time, as many as there are whole
/// eights. Sums stay below 2^46, `shift` below 46. To be called only where AVX2 is
/// [available](super::available).
pub(in crate::kernels) fn add(
    [a, b]: [&[i8]; 2],
    y: &mut [i8],
    start: i64,
    factors: [i32; 2],
    shift: u32,
    clamp: [i32; 2],
) {
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
