//! Element-wise sums, products and changes of scale.

use core::arch::aarch64::*;

use super::finish::Bytes;
use super::{QUAD, VECTOR};
use crate::kernels::add::Sums;
use crate::kernels::memory;
use crate::quant::Multiplier;

/// Elements that are copied out at a time.
const BLOCK: usize = 16 * VECTOR;

/// A vector of elements.
type Vector = [i8; VECTOR];

/// Adds `count` elements in memory; the offsets of `a`, `b` and `y` are given, and `y` may take the place of either. The
/// shift is in `16..40`.
pub(in crate::kernels) fn add(arena: &mut [u8], offsets: [usize; 3], count: usize, sums: &Sums) -> Option<()> {
    // SAFETY: every core of the architecture has vectors.
    by_blocks(arena, offsets, count, |a, b| unsafe { add_vectors(a, b, sums) })
}

/// As [`add`]: multiplies, and changes the scale of, differences from zero points; see [`Rescale`].
pub(in crate::kernels) fn mul(
    arena: &mut [u8],
    offsets: [usize; 3],
    count: usize,
    b_zero: i32,
    rescale: &Rescale,
) -> Option<()> {
    // SAFETY: every core of the architecture has vectors.
    by_blocks(arena, offsets, count, |a, b| unsafe { multiply_vectors(a, b, b_zero, rescale) })
}

/// Hands blocks of elements of `a` and `b` to `f`, which leaves in the first what is written to `y`. What lies behind the
/// last element is computed and dropped.
#[inline(always)]
fn by_blocks(
    arena: &mut [u8],
    [a, b, y]: [usize; 3],
    count: usize,
    f: impl Fn(&mut [Vector], &[Vector]),
) -> Option<()> {
    let mut blocks = [[0i8; BLOCK]; 2];
    for at in (0..count).step_by(BLOCK) {
        let len = BLOCK.min(count - at);
        for (block, offset) in blocks.iter_mut().zip([a, b]) {
            let source = memory::as_i8(arena.get(offset + at..)?.get(..len)?).ok()?;
            block.get_mut(..len)?.copy_from_slice(source);
        }
        let [a, b] = &mut blocks;
        f(a.as_chunks_mut().0.get_mut(..len.div_ceil(VECTOR))?, b.as_chunks().0);
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
fn add_vectors(a: &mut [Vector], b: &[Vector], sums: &Sums) {
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
    for (a, b) in a.iter_mut().zip(b) {
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

/// `y = clamp(zero_point_y + round_half_up(d · multiplier))` of differences `d` from a zero point, or of their products.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Rescale {
    multiplier: Multiplier,
    x_zero: i32,
    y_zero: i32,
    clamp: [i32; 2],
}

impl Rescale {
    /// `None` where vectors cannot do it: for multipliers of 1/2 and above.
    pub(in crate::kernels) fn new(multiplier: Multiplier, [x_zero, y_zero]: [i32; 2], clamp: [i32; 2]) -> Option<Self> {
        (multiplier.shift > 0).then_some(Self { multiplier, x_zero, y_zero, clamp })
    }

    /// Changes the scale of elements, in place.
    pub(in crate::kernels) fn run(&self, x: &mut [u8]) {
        let (vectors, rest) = x.as_chunks_mut::<VECTOR>();
        // SAFETY: every core of the architecture has vectors.
        unsafe { self.run_vectors(vectors) };
        let mut last = [0; VECTOR];
        for (slot, &x) in last.iter_mut().zip(&*rest) {
            *slot = x;
        }
        // SAFETY: as said.
        unsafe { self.run_vectors(core::slice::from_mut(&mut last)) };
        for (x, done) in rest.iter_mut().zip(last) {
            *x = done;
        }
    }

    #[target_feature(enable = "neon")]
    fn run_vectors(&self, vectors: &mut [[u8; VECTOR]]) {
        let zero = vdup_n_s8(self.x_zero as i8);
        for vector in vectors {
            // SAFETY: it has 16 bytes.
            unsafe {
                let x = vld1q_s8(vector.as_ptr().cast());
                let low = vsubl_s8(vget_low_s8(x), zero);
                let high = vsubl_high_s8(x, vcombine_s8(zero, zero));
                let wide = [
                    vmovl_s16(vget_low_s16(low)),
                    vmovl_high_s16(low),
                    vmovl_s16(vget_low_s16(high)),
                    vmovl_high_s16(high),
                ];
                vst1q_s8(vector.as_mut_ptr().cast(), self.finish(wide));
            }
        }
    }

    /// The same high words as of sums of channels; see [`super::finish::fit`].
    #[inline]
    #[target_feature(enable = "neon")]
    fn finish(&self, values: [int32x4_t; QUAD]) -> int8x16_t {
        let Multiplier { mantissa, shift } = self.multiplier;
        let scaled = values.map(|value| vrshlq_s32(vqdmulhq_n_s32(value, mantissa), vdupq_n_s32(-i32::from(shift))));
        Bytes::new(self.y_zero, self.clamp).finish(scaled)
    }
}

/// Writes the products over `a`, whose zero point is that of `rescale`. Those of differences have 17 bits.
#[target_feature(enable = "neon")]
fn multiply_vectors(a: &mut [Vector], b: &[Vector], b_zero: i32, rescale: &Rescale) {
    let [a_zero, b_zero] = [rescale.x_zero, b_zero].map(|zero| vdup_n_s8(zero as i8));
    for (a, b) in a.iter_mut().zip(b) {
        // SAFETY: both have a vector.
        unsafe {
            let (x, y) = (vld1q_s8(a.as_ptr()), vld1q_s8(b.as_ptr()));
            let low = (vsubl_s8(vget_low_s8(x), a_zero), vsubl_s8(vget_low_s8(y), b_zero));
            let high = (vsubl_s8(vget_high_s8(x), a_zero), vsubl_s8(vget_high_s8(y), b_zero));
            let products = [
                vmull_s16(vget_low_s16(low.0), vget_low_s16(low.1)),
                vmull_high_s16(low.0, low.1),
                vmull_s16(vget_low_s16(high.0), vget_low_s16(high.1)),
                vmull_high_s16(high.0, high.1),
            ];
            vst1q_s8(a.as_mut_ptr(), rescale.finish(products));
        }
    }
}
