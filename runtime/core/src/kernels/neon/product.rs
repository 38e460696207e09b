//! Products of two activations: sums of `(a − zero_point_a) · (b − zero_point_b)`.

use core::arch::aarch64::*;

use super::multiply::DotProduct;
use super::{Core, QUAD, VECTOR, lanes};

/// The kernels for products of activations.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Products {
    dot: Option<DotProduct>,
}

impl Products {
    /// Those of this core: every one has some.
    #[inline(always)]
    pub(in crate::kernels) fn detect() -> Option<Self> {
        Some(Self { dot: Core::detect().dot })
    }

    /// The sums of products of `a` with four vectors of its length.
    #[inline(always)]
    pub(in crate::kernels) fn dots(self, a: &[i8], b: [&[i8]; QUAD], zeros: [i32; 2]) -> [i32; QUAD] {
        let (whole, rest) = a.as_chunks::<VECTOR>();
        let columns = b.map(|b| b.as_chunks::<VECTOR>().0);
        // SAFETY: every core of the architecture has vectors.
        let mut sums = unsafe {
            match self.dot {
                Some(dot) => dots_of_bytes(dot, whole, columns, zeros),
                None => dots_of_halves(whole, columns, zeros),
            }
        };
        let done = a.len() - rest.len();
        for (sum, b) in sums.iter_mut().zip(b) {
            for (&a, &b) in rest.iter().zip(b.get(done..).unwrap_or_default()) {
                *sum = sum.wrapping_add((i32::from(a) - zeros[0]).wrapping_mul(i32::from(b) - zeros[1]));
            }
        }
        sums
    }

    /// `Σ_k (a(k) − zero_point_a) · (b(k) − zero_point_b)` for 16 columns. `None` where `a` or `b` is.
    #[inline(always)]
    pub(in crate::kernels) fn weighted_sum<'b>(
        self,
        depth: usize,
        a: impl Fn(usize) -> Option<i8>,
        b: impl Fn(usize) -> Option<&'b [i8; VECTOR]>,
        zeros: [i32; 2],
    ) -> Option<[i32; VECTOR]> {
        // SAFETY: every core of the architecture has vectors.
        unsafe { weighted_sum(depth, a, b, zeros) }
    }
}

/// Four totals of as many vectors.
#[inline]
#[target_feature(enable = "neon")]
fn totals([a, b, c, d]: [int32x4_t; QUAD]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
}

/// `Σ a·b − zero_a · Σ b − zero_b · Σ a + n · zero_a · zero_b`, for whole vectors.
#[inline]
#[target_feature(enable = "neon")]
fn dots_of_bytes(
    dot: DotProduct,
    a: &[[i8; VECTOR]],
    b: [&[[i8; VECTOR]]; QUAD],
    [a_zero, b_zero]: [i32; 2],
) -> [i32; QUAD] {
    let ones = vdupq_n_s8(1);
    let none = vdupq_n_s32(0);
    let (mut products, mut of_b, mut of_a) = ([none; QUAD], [none; QUAD], none);
    for (i, a) in a.iter().enumerate() {
        let a = load(a);
        of_a = dot.sum(of_a, a, ones);
        for ((product, of_b), b) in products.iter_mut().zip(&mut of_b).zip(b) {
            if let Some(b) = b.get(i) {
                let b = load(b);
                *product = dot.sum(*product, a, b);
                *of_b = dot.sum(*of_b, b, ones);
            }
        }
    }
    // No term is larger than 2^15 · 2^14, whatever is left of it wraps.
    let count = (a.len() * VECTOR) as i32;
    let constant = count.wrapping_mul(a_zero).wrapping_sub(vaddvq_s32(of_a)).wrapping_mul(b_zero);
    let sums = vmlsq_s32(totals(products), totals(of_b), vdupq_n_s32(a_zero));
    lanes(vaddq_s32(sums, vdupq_n_s32(constant)))
}

#[inline]
#[target_feature(enable = "neon")]
fn dots_of_halves(a: &[[i8; VECTOR]], b: [&[[i8; VECTOR]]; QUAD], zeros: [i32; 2]) -> [i32; QUAD] {
    let [a_zero, b_zero] = zeros.map(|zero| vdup_n_s8(zero as i8));
    let mut acc = [vdupq_n_s32(0); QUAD];
    for (i, a) in a.iter().enumerate() {
        let a = less(load(a), a_zero);
        for (acc, b) in acc.iter_mut().zip(b) {
            if let Some(b) = b.get(i) {
                for (a, b) in a.into_iter().zip(less(load(b), b_zero)) {
                    *acc = vmlal_high_s16(vmlal_s16(*acc, vget_low_s16(a), vget_low_s16(b)), a, b);
                }
            }
        }
    }
    lanes(totals(acc))
}

#[inline]
#[target_feature(enable = "neon")]
fn weighted_sum<'b>(
    depth: usize,
    a: impl Fn(usize) -> Option<i8>,
    b: impl Fn(usize) -> Option<&'b [i8; VECTOR]>,
    zeros: [i32; 2],
) -> Option<[i32; VECTOR]> {
    let b_zero = vdup_n_s8(zeros[1] as i8);
    let mut acc = [vdupq_n_s32(0); 4];
    for k in 0..depth {
        let weight = vdup_n_s16((i32::from(a(k)?) - zeros[0]) as i16);
        let weights = vcombine_s16(weight, weight);
        let [low, high] = less(load(b(k)?), b_zero);
        acc[0] = vmlal_s16(acc[0], vget_low_s16(low), weight);
        acc[1] = vmlal_high_s16(acc[1], low, weights);
        acc[2] = vmlal_s16(acc[2], vget_low_s16(high), weight);
        acc[3] = vmlal_high_s16(acc[3], high, weights);
    }
    let mut sums = [0; VECTOR];
    for (quad, acc) in sums.as_chunks_mut::<QUAD>().0.iter_mut().zip(acc) {
        *quad = lanes(acc);
    }
    Some(sums)
}

/// Differences of bytes and a zero point.
#[inline]
#[target_feature(enable = "neon")]
fn less(bytes: int8x16_t, zero: int8x8_t) -> [int16x8_t; 2] {
    [vsubl_s8(vget_low_s8(bytes), zero), vsubl_high_s8(bytes, vcombine_s8(zero, zero))]
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[i8; VECTOR]) -> int8x16_t {
    // SAFETY: 16 bytes are read.
    unsafe { vld1q_s8(bytes.as_ptr()) }
}
