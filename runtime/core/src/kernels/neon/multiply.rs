//! Sums of products of filters with patches, by what the core has.
//!
//! A filter is read in steps of a vector, then octet by octet. A step takes as many elements of a patch or, of packed
//! weights, twice as many: those of even places, then those of odd ones, as [`super::patches::arrange`] puts them.

use core::arch::aarch64::*;
use core::arch::asm;

use super::{QUAD, VECTOR};
use crate::kernels::weights::{OCTET, Width};

/// What is multiplied: where it lies.
#[derive(Clone, Copy)]
pub(super) struct Operands<const P: usize, const Q: usize> {
    /// Quads of filters.
    pub(super) filters: [[*const u8; QUAD]; Q],
    /// A patch for each pixel.
    pub(super) patches: [*const i8; P],
    /// Elements of a filter and of a patch: whole octets.
    pub(super) len: usize,
}

/// How a core multiplies.
pub(super) trait Multiply: Copy {
    /// Whether sums with weights of 8 bits come out too large by the elements of each step's upper half.
    const EXCESS: bool;

    /// The sums of each quad of filters, a vector for each pixel. Packed weights count as stored, 8 too large.
    ///
    /// # Safety
    ///
    /// Filters and patches have `len` elements.
    unsafe fn sums<W: Width, const P: usize, const Q: usize>(self, operands: &Operands<P, Q>) -> [[int32x4_t; P]; Q];
}

/// What every core has: products of bytes in 16 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Widening;

/// Proof that the core has dot products of four bytes (`dotprod`).
#[derive(Debug, Clone, Copy)]
pub(super) struct DotProduct(());

/// Proof that the core has products of matrices of two rows of eight bytes (`i8mm`).
#[derive(Debug, Clone, Copy)]
pub(super) struct MatrixProduct(());

/// Sums of sixteen products in four lanes.
trait Dot: Copy {
    /// As [`Multiply::EXCESS`].
    const EXCESS: bool;

    /// Adds the products of bytes.
    ///
    /// # Safety
    ///
    /// None is needed beyond vectors, which every core has.
    unsafe fn add(self, acc: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t;

    /// Adds the products of two vectors with numbers in `0..16`.
    ///
    /// # Safety
    ///
    /// As [`Self::add`].
    unsafe fn add_nibbles(self, acc: int32x4_t, x: [int8x16_t; 2], w: [int8x16_t; 2]) -> int32x4_t;
}

impl Dot for Widening {
    const EXCESS: bool = true;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn add(self, acc: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        // A sum of two products reaches 2^15 if all four are -128. With `-w - 1` for `w` in one of them, subtracted, it
        // has at most 32,640 either way, and is too large by that `x`.
        let low = vmull_s8(vget_low_s8(x), vget_low_s8(w));
        vpadalq_s16(acc, vmlsl_high_s8(low, x, vmvnq_s8(w)))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn add_nibbles(self, acc: int32x4_t, x: [int8x16_t; 2], w: [int8x16_t; 2]) -> int32x4_t {
        // Four products of at most 1,920.
        let even = vmlal_high_s8(vmull_s8(vget_low_s8(x[0]), vget_low_s8(w[0])), x[0], w[0]);
        let all = vmlal_high_s8(vmlal_s8(even, vget_low_s8(x[1]), vget_low_s8(w[1])), x[1], w[1]);
        vpadalq_s16(acc, all)
    }
}

impl DotProduct {
    /// # Safety
    ///
    /// The core has the extension.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }

    /// Adds the products of bytes.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn sum(self, mut acc: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: the core has the instruction, or there would be no `self`. It touches registers only.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {acc:v}.4s, {x:v}.16b, {w:v}.16b",
                acc = inout(vreg) acc,
                x = in(vreg) x,
                w = in(vreg) w,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        acc
    }
}

impl Dot for DotProduct {
    const EXCESS: bool = false;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn add(self, acc: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        self.sum(acc, x, w)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn add_nibbles(self, acc: int32x4_t, x: [int8x16_t; 2], w: [int8x16_t; 2]) -> int32x4_t {
        self.sum(self.sum(acc, x[0], w[0]), x[1], w[1])
    }
}

impl MatrixProduct {
    /// # Safety
    ///
    /// The core has the extension.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }

    /// Adds the products of the rows of `x`, two octets, with those of `w`: lanes are (x0, w0), (x0, w1), (x1, w0) and
    /// (x1, w1).
    #[inline]
    #[target_feature(enable = "neon")]
    fn add(self, mut acc: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: the core has the instruction, or there would be no `self`. It touches registers only.
        unsafe {
            asm!(
                ".arch_extension i8mm",
                "smmla {acc:v}.4s, {x:v}.16b, {w:v}.16b",
                acc = inout(vreg) acc,
                x = in(vreg) x,
                w = in(vreg) w,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        acc
    }
}

impl<D: Dot> Multiply for D {
    const EXCESS: bool = D::EXCESS;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn sums<W: Width, const P: usize, const Q: usize>(self, operands: &Operands<P, Q>) -> [[int32x4_t; P]; Q] {
        // SAFETY: as the caller says.
        unsafe { by_rows::<W, _, P, Q>(self, operands) }
    }
}

impl Multiply for MatrixProduct {
    const EXCESS: bool = false;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn sums<W: Width, const P: usize, const Q: usize>(self, operands: &Operands<P, Q>) -> [[int32x4_t; P]; Q] {
        // SAFETY: as the caller says.
        unsafe { by_pairs::<W, P, Q>(self, operands) }
    }
}

/// A vector of sums for each filter and pixel, then those of a filter added up.
///
/// # Safety
///
/// As [`Multiply::sums`].
#[inline]
#[target_feature(enable = "neon")]
unsafe fn by_rows<W: Width, D: Dot, const P: usize, const Q: usize>(
    dot: D,
    operands: &Operands<P, Q>,
) -> [[int32x4_t; P]; Q] {
    let Operands { filters, patches, len } = *operands;
    let mut acc = [[[vdupq_n_s32(0); QUAD]; P]; Q];
    let (steps, octets) = steps::<W>(len);
    for step in 0..steps {
        // SAFETY: every filter and patch has the step.
        unsafe {
            let x = patches.map(|patch| elements::<W>(patch, step));
            for (acc, filters) in acc.iter_mut().zip(&filters) {
                let w = filters.map(|filter| unpacked::<W>(vld1q_u8(filter.add(step * VECTOR))));
                for (acc, &x) in acc.iter_mut().zip(&x) {
                    for (acc, &w) in acc.iter_mut().zip(&w) {
                        *acc = if W::PACKED { dot.add_nibbles(*acc, x, w) } else { dot.add(*acc, x[0], w[0]) };
                    }
                }
            }
        }
    }
    for octet in octets {
        // SAFETY: every filter and patch has the octet.
        unsafe {
            let x = patches.map(|patch| lower(vld1_s8(patch.add(octet * OCTET))));
            for (acc, filters) in acc.iter_mut().zip(&filters) {
                let w = filters.map(|filter| lower(octet_of::<W>(filter, octet)));
                for (acc, &x) in acc.iter_mut().zip(&x) {
                    for (acc, &w) in acc.iter_mut().zip(&w) {
                        *acc = dot.add(*acc, x, w);
                    }
                }
            }
        }
    }
    acc.map(|acc| acc.map(|[a, b, c, d]| vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))))
}

/// Pairs of pixels by pairs of filters: `P` is even. Of a quad and a pair of pixels, two vectors.
///
/// # Safety
///
/// As [`Multiply::sums`].
#[inline]
#[target_feature(enable = "neon")]
unsafe fn by_pairs<W: Width, const P: usize, const Q: usize>(
    matrix: MatrixProduct,
    operands: &Operands<P, Q>,
) -> [[int32x4_t; P]; Q] {
    let Operands { filters, patches, len } = *operands;
    let mut acc = [[vdupq_n_s32(0); P]; Q];
    let (steps, octets) = steps::<W>(len);
    for step in 0..steps {
        // SAFETY: every filter and patch has the step.
        unsafe {
            step_by_pairs::<W, P, Q, 0>(matrix, operands, step, &mut acc);
            if W::PACKED {
                step_by_pairs::<W, P, Q, 1>(matrix, operands, step, &mut acc);
            }
        }
    }
    for octet in octets {
        // SAFETY: every filter and patch has the octet.
        unsafe {
            let x = patches.map(|patch| vld1_s8(patch.add(octet * OCTET)));
            for (acc, filters) in acc.iter_mut().zip(&filters) {
                let w = filters.map(|filter| octet_of::<W>(filter, octet));
                for (pair, w) in w.as_chunks::<2>().0.iter().enumerate() {
                    for (acc, x) in acc.as_chunks_mut::<2>().0.iter_mut().zip(x.as_chunks::<2>().0) {
                        acc[pair] = matrix.add(acc[pair], vcombine_s8(x[0], x[1]), vcombine_s8(w[0], w[1]));
                    }
                }
            }
        }
    }
    for acc in &mut acc {
        for pixels in acc.as_chunks_mut::<2>().0 {
            let [first, second] = pixels.map(|sums| vreinterpretq_s64_s32(sums));
            *pixels = [vzip1q_s64(first, second), vzip2q_s64(first, second)].map(|sums| vreinterpretq_s32_s64(sums));
        }
    }
    acc
}

/// Adds a step's products; `HALF` is 1 for the vectors of odd places.
///
/// # Safety
///
/// Every filter and patch has the step.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn step_by_pairs<W: Width, const P: usize, const Q: usize, const HALF: usize>(
    matrix: MatrixProduct,
    operands: &Operands<P, Q>,
    step: usize,
    acc: &mut [[int32x4_t; P]; Q],
) {
    let mut x = [vdupq_n_s8(0); P];
    for (octets, patches) in x.as_chunks_mut::<2>().0.iter_mut().zip(operands.patches.as_chunks::<2>().0) {
        // SAFETY: as said.
        *octets = octets_of(patches.map(|patch| unsafe { elements::<W>(patch, step)[HALF] }));
    }
    for (acc, filters) in acc.iter_mut().zip(&operands.filters) {
        for (pair, filters) in filters.as_chunks::<2>().0.iter().enumerate() {
            // SAFETY: as said.
            let bytes = filters.map(|filter| unsafe { vld1q_s8(filter.add(step * VECTOR).cast()) });
            let w = octets_of(bytes).map(|w| unpacked::<W>(vreinterpretq_u8_s8(w))[HALF]);
            for (acc, x) in acc.as_chunks_mut::<2>().0.iter_mut().zip(x.as_chunks::<2>().0) {
                acc[pair] = matrix.add(matrix.add(acc[pair], x[0], w[0]), x[1], w[1]);
            }
        }
    }
}

/// Steps of a filter, and the octets behind them.
#[inline(always)]
fn steps<W: Width>(len: usize) -> (usize, core::ops::Range<usize>) {
    let octets = if W::PACKED { 4 } else { 2 };
    let steps = len / (octets * OCTET);
    (steps, steps * octets..len / OCTET)
}

/// What a step takes of a patch; twice the same if it is one vector.
///
/// # Safety
///
/// The patch has it.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn elements<W: Width>(patch: *const i8, step: usize) -> [int8x16_t; 2] {
    // SAFETY: as said.
    unsafe {
        if W::PACKED {
            let patch = patch.add(2 * step * VECTOR);
            [vld1q_s8(patch), vld1q_s8(patch.add(VECTOR))]
        } else {
            [vld1q_s8(patch.add(step * VECTOR)); 2]
        }
    }
}

/// The weights of a step, those that a byte shares in the lower bits first; twice the same if none are shared.
#[inline]
#[target_feature(enable = "neon")]
fn unpacked<W: Width>(bytes: uint8x16_t) -> [int8x16_t; 2] {
    if W::PACKED {
        [vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))), vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes))]
    } else {
        [vreinterpretq_s8_u8(bytes); 2]
    }
}

/// An octet of weights, in the order of [`super::patches::arrange`] if they are packed.
///
/// # Safety
///
/// The filter has it.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn octet_of<W: Width>(filter: *const u8, octet: usize) -> int8x8_t {
    // SAFETY: as said.
    unsafe {
        if W::PACKED {
            let word = filter.add(octet * OCTET / 2).cast::<u32>().read_unaligned();
            let bytes = vcreate_u8(word.into());
            let (even, odd) = (vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8::<4>(bytes));
            vreinterpret_s8_u32(vzip1_u32(vreinterpret_u32_u8(even), vreinterpret_u32_u8(odd)))
        } else {
            vld1_s8(filter.add(octet * OCTET).cast())
        }
    }
}

/// An octet as the lower half of a vector of zeros.
#[inline]
#[target_feature(enable = "neon")]
fn lower(octet: int8x8_t) -> int8x16_t {
    vcombine_s8(octet, vdup_n_s8(0))
}

/// The lower octets of two vectors, then the upper ones.
#[inline]
#[target_feature(enable = "neon")]
fn octets_of([a, b]: [int8x16_t; 2]) -> [int8x16_t; 2] {
    let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
    [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))]
}
