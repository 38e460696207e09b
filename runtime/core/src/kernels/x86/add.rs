//! Element-wise sums.

use core::arch::x86_64::*;

use super::Avx2;
use super::wide::{clamped, every, floor, load_words, store_words};
use crate::kernels::add::Sums;
use crate::kernels::memory;
use crate::op::AddParams;

impl Avx2 {
    /// Adds `count` elements in memory; the offsets of `a`, `b` and `y` are given, and `y` may take the place of either: blocks
    /// are copied out. The shift is in `8..40`.
    pub(in crate::kernels) fn add(
        self,
        arena: &mut [u8],
        [a, b, y]: [usize; 3],
        count: usize,
        sums: &Sums,
    ) -> Option<()> {
        const LEN: usize = 256;
        let mut blocks = [[0i8; LEN]; 3];
        for at in (0..count).step_by(LEN) {
            let len = LEN.min(count - at);
            let [a_block, b_block, y_block] = &mut blocks;
            for (block, offset) in [(&mut *a_block, a), (&mut *b_block, b)] {
                let source = memory::as_i8(arena.get(offset + at..)?.get(..len)?).ok()?;
                block.get_mut(..len)?.copy_from_slice(source);
            }
            // What lies behind the last element is computed and dropped.
            // SAFETY: the core has AVX2.
            unsafe { add_eights(a_block.as_chunks().0, b_block.as_chunks().0, y_block.as_chunks_mut().0, sums) };
            let done: &[u8] = bytemuck::try_cast_slice(y_block.get(..len)?).ok()?;
            arena.get_mut(y + at..)?.get_mut(..len)?.copy_from_slice(done);
        }
        Some(())
    }
}

/// A sum of elements of any types.
pub(in crate::kernels) struct WideSums {
    /// Zero points of both inputs and of the output.
    pub(in crate::kernels) zeros: [i32; 3],
    pub(in crate::kernels) params: AddParams,
}

impl Avx2 {
    /// Adds `b` to `a`, by the formula of [`crate::kernels::Add`].
    pub(in crate::kernels) fn add_wide(self, a: &mut [[i32; 4]], b: &[[i32; 4]], sums: &WideSums) {
        // SAFETY: the core has AVX2.
        unsafe { add_wide(a, b, sums) }
    }
}

#[target_feature(enable = "avx2")]
fn add_wide(a: &mut [[i32; 4]], b: &[[i32; 4]], sums: &WideSums) {
    let WideSums { zeros: [a_zero, b_zero, y_zero], params: AddParams { a_factor, b_factor, shift, clamp } } = *sums;
    let (a_factor, b_factor) = (every(a_factor.into()), every(b_factor.into()));
    let (a_zero, b_zero, y_zero) = (every(a_zero.into()), every(b_zero.into()), every(y_zero.into()));
    let (low, high) = (every(clamp[0].into()), every(clamp[1].into()));
    let half = every(1 << (shift - 1));
    for (a, b) in a.iter_mut().zip(b) {
        // Zero points are of types below 32 bits, if they are not 0: the low words of differences are all of them.
        let a_product = _mm256_mul_epi32(_mm256_sub_epi64(load_words(a), a_zero), a_factor);
        let b_product = _mm256_mul_epi32(_mm256_sub_epi64(load_words(b), b_zero), b_factor);
        // At most 2 · 2^31 · 2^30 + 2^61: no overflow.
        let sum = _mm256_add_epi64(_mm256_add_epi64(a_product, b_product), half);
        *a = store_words(clamped(_mm256_add_epi64(floor(sum, shift), y_zero), low, high));
    }
}

#[target_feature(enable = "avx2")]
fn add_eights(a: &[[i8; 8]], b: &[[i8; 8]], y: &mut [[i8; 8]], sums: &Sums) {
    /// Makes all sums positive; a multiple of any 2^shift.
    const POSITIVE: i64 = 1 << 46;
    let Sums { start, factors, shift, clamp } = *sums;
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
