//! Element-wise sums.

use core::arch::aarch64::*;

use super::VECTOR;
use crate::kernels::add::Sums;
use crate::kernels::memory;

/// Elements that are copied out at a time.
const BLOCK: usize = 16 * VECTOR;

/// Adds `count` elements in memory; the offsets of `a`, `b` and `y` are given, and `y` may take the place of either: blocks
/// are copied out. The shift is in `16..40`.
pub(in crate::kernels) fn add(arena: &mut [u8], [a, b, y]: [usize; 3], count: usize, sums: &Sums) -> Option<()> {
    let mut blocks = [[0i8; BLOCK]; 2];
    for at in (0..count).step_by(BLOCK) {
        let len = BLOCK.min(count - at);
        for (block, offset) in blocks.iter_mut().zip([a, b]) {
            let source = memory::as_i8(arena.get(offset + at..)?.get(..len)?).ok()?;
            block.get_mut(..len)?.copy_from_slice(source);
        }
        let [a, b] = &mut blocks;
        // SAFETY: every core of the architecture has vectors. What lies behind the last element is computed and dropped.
        unsafe { add_vectors(a.as_chunks_mut().0, b.as_chunks().0, len.div_ceil(VECTOR), sums) };
        let done: &[u8] = bytemuck::try_cast_slice(a.get(..len)?).ok()?;
        arena.get_mut(y + at..)?.get_mut(..len)?.copy_from_slice(done);
    }
    Some(())
}

/// A number in halves of 16 bits with a sign: `halves[0] · 2^16 + halves[1]`.
fn halves(value: i64) -> [i32; 2] {
    let low = i32::from(value as i16);
    [((value - i64::from(low)) >> 16) as i32, low]
}

/// Writes the sums over `a`. Factors are taken in halves: those of the high words stay below 2^23 + 2 · 2^21, those of the
/// low ones below 2^15 + 2 · 2^22, and what the latter carry is added before the only rounding.
#[target_feature(enable = "neon")]
fn add_vectors(a: &mut [[i8; VECTOR]], b: &[[i8; VECTOR]], count: usize, sums: &Sums) {
    let Sums { start, factors: [a_factor, b_factor], shift, clamp } = *sums;
    let [a_high, a_low] = halves(a_factor.into()).map(|half| vdup_n_s16(half as i16));
    let [b_high, b_low] = halves(b_factor.into()).map(|half| vdup_n_s16(half as i16));
    let [start_high, start_low] = halves(start).map(|half| vdupq_n_s32(half));
    let down = vdupq_n_s32(16 - shift as i32);
    let [low, high] = clamp.map(|end| vdupq_n_s8(end as i8));
    let sum = |a: int16x4_t, b: int16x4_t| {
        let carry = vmlal_s16(vmlal_s16(start_low, a, a_low), b, b_low);
        let sum = vmlal_s16(vmlal_s16(start_high, a, a_high), b, b_high);
        vshlq_s32(vsraq_n_s32::<16>(sum, carry), down)
    };
    for (a, b) in a.iter_mut().zip(b).take(count) {
        // SAFETY: both have a vector.
        unsafe {
            let (x, y) = (vld1q_s8(a.as_ptr()), vld1q_s8(b.as_ptr()));
            let eight = |x: int16x8_t, y: int16x8_t| {
                let low = sum(vget_low_s16(x), vget_low_s16(y));
                vqmovn_high_s32(vqmovn_s32(low), sum(vget_high_s16(x), vget_high_s16(y)))
            };
            let first = eight(vmovl_s8(vget_low_s8(x)), vmovl_s8(vget_low_s8(y)));
            let second = eight(vmovl_high_s8(x), vmovl_high_s8(y));
            let all = vqmovn_high_s16(vqmovn_s16(first), second);
            vst1q_s8(a.as_mut_ptr(), vminq_s8(vmaxq_s8(all, low), high));
        }
    }
}
