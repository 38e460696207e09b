//! Copies of bytes, and patches in the order that packed weights want.

use core::arch::aarch64::*;

use super::VECTOR;
use crate::kernels::patches::Runs;
use crate::kernels::weights::OCTET;

/// Copies runs of bytes from the start of `from` to the start of `to`.
#[inline(always)]
pub(in crate::kernels) fn copy_runs(from: &[i8], to: &mut [i8], runs: Runs) -> Option<()> {
    if runs.count == 0 {
        return Some(());
    }
    runs.fit(from, to)?;
    // SAFETY: the last run ends within the slices, which do not overlap.
    unsafe { copy_bytes(from.as_ptr(), to.as_mut_ptr(), runs) };
    Some(())
}

/// Copies bytes to the start of `to`.
#[inline(always)]
pub(in crate::kernels) fn copy(from: &[i8], to: &mut [i8]) -> Option<()> {
    let to = to.get_mut(..from.len())?;
    let runs = Runs { count: 1, len: from.len(), from_step: 0, to_step: 0 };
    // SAFETY: `to` is as long.
    unsafe { copy_bytes(from.as_ptr(), to.as_mut_ptr(), runs) };
    Some(())
}

/// Copies runs of bytes, vector by vector, the last of which may copy some bytes again.
///
/// # Safety
///
/// `from` and `to` have all bytes of every run and do not overlap.
#[inline(always)]
unsafe fn copy_bytes(from: *const i8, to: *mut i8, Runs { count, len, from_step, to_step }: Runs) {
    /// Copies the bytes that fill a `T` from `at` on.
    ///
    /// # Safety
    ///
    /// Both have them.
    #[inline(always)]
    unsafe fn one<T: Copy>(from: *const i8, to: *mut i8, at: usize) {
        // SAFETY: as said.
        unsafe { to.add(at).cast::<T>().write_unaligned(from.add(at).cast::<T>().read_unaligned()) };
    }
    let each = |f: fn(*const i8, *mut i8, usize)| {
        let (mut from, mut to) = (from, to);
        for _ in 0..count {
            f(from, to, len);
            (from, to) = (from.wrapping_add(from_step), to.wrapping_add(to_step));
        }
    };
    // SAFETY: nothing at `len` or beyond is read or written.
    unsafe {
        match len {
            0 => {}
            1 => each(|from, to, _| one::<u8>(from, to, 0)),
            2..4 => each(|from, to, len| [0, len - 2].into_iter().for_each(|at| one::<u16>(from, to, at))),
            4..8 => each(|from, to, len| [0, len - 4].into_iter().for_each(|at| one::<u32>(from, to, at))),
            8..VECTOR => each(|from, to, len| [0, len - 8].into_iter().for_each(|at| one::<u64>(from, to, at))),
            _ => each(|from, to, len| {
                for at in (0..len - VECTOR).step_by(VECTOR) {
                    one::<u128>(from, to, at);
                }
                one::<u128>(from, to, len - VECTOR);
            }),
        }
    }
}

/// Puts a patch, in place, in the order in which packed weights share bytes (see [`crate::kernels::weights`]) and returns
/// the sum of its elements: of each step of two vectors the elements of even places, 0, 4, 2 and 6 of each octet, then
/// those of odd ones; of octets behind the last step likewise, each for itself. `None` if it is not whole octets.
#[inline(always)]
pub(super) fn arrange(patch: &mut [i8]) -> Option<i32> {
    // SAFETY: every core of the architecture has vectors.
    unsafe { arrange_with_vectors(patch) }
}

/// Where a step's elements of even places are; those of odd ones follow each.
const EVEN: [u8; VECTOR] = [0, 4, 2, 6, 8, 12, 10, 14, 16, 20, 18, 22, 24, 28, 26, 30];

/// The order of an octet by itself.
const ORDER: u64 = 0x0703_0501_0602_0400;

#[inline]
#[target_feature(enable = "neon")]
fn arrange_with_vectors(patch: &mut [i8]) -> Option<i32> {
    // SAFETY: 16 bytes are read.
    let even = unsafe { vld1q_u8(EVEN.as_ptr()) };
    let odd = vaddq_u8(even, vdupq_n_u8(1));
    let (steps, rest) = patch.as_chunks_mut::<{ 2 * VECTOR }>();
    let mut sums = vdupq_n_s32(0);
    for step in steps {
        let (first, second) = step.split_at_mut(VECTOR);
        // SAFETY: each half has a vector.
        unsafe {
            let step = int8x16x2_t(vld1q_s8(first.as_ptr()), vld1q_s8(second.as_ptr()));
            sums = vpadalq_s16(sums, vpadalq_s8(vpaddlq_s8(step.0), step.1));
            vst1q_s8(first.as_mut_ptr(), vqtbl2q_s8(step, even));
            vst1q_s8(second.as_mut_ptr(), vqtbl2q_s8(step, odd));
        }
    }
    let (octets, behind) = rest.as_chunks_mut::<OCTET>();
    for octet in octets {
        // SAFETY: it has 8 bytes.
        unsafe {
            let elements = vld1_s8(octet.as_ptr());
            sums = vaddw_s16(sums, vpaddl_s8(elements));
            vst1_s8(octet.as_mut_ptr(), vtbl1_s8(elements, vreinterpret_s8_u64(vcreate_u64(ORDER))));
        }
    }
    behind.is_empty().then(|| vaddvq_s32(sums))
}

/// The sum of what lies in the upper half of each vector of a patch.
///
/// # Safety
///
/// The patch has `len` elements.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn upper_sum(patch: *const i8, len: usize) -> i32 {
    let mut sums = vdupq_n_s32(0);
    for step in 0..len / VECTOR {
        // SAFETY: the patch has the step.
        let octet = unsafe { vld1_s8(patch.add(step * VECTOR + OCTET)) };
        sums = vaddw_s16(sums, vpaddl_s8(octet));
    }
    vaddvq_s32(sums)
}
