//! Patches in the order that kernels want.
//!
//! A step of a kernel takes a vector of each pixel: those of all pixels lie next to each other, step by step. With weights
//! of 4 bits a step is twice as long, for a byte holds an element of an even and of an odd place (see
//! [`super::super::weights`]): first come the vectors of even elements, in the order of the bytes, then those of odd ones.

use core::arch::asm;

use super::VECTOR;
use crate::kernels::patches::Runs;
use crate::kernels::weights::{OCTET, Width};

/// Copies runs of bytes from the start of `from` to the start of `to`.
#[inline(always)]
pub(in crate::kernels) fn copy_runs(from: &[i8], to: &mut [i8], runs: Runs) -> Option<()> {
    let Runs { count, len, from_step, to_step } = runs;
    if count == 0 || len == 0 {
        return Some(());
    }
    runs.fit(from, to)?;
    // SAFETY: reads and writes `len` bytes at `count` places, `from_step` and `to_step` apart, whose last ends within the
    // slices. Neither `count` nor `len` is 0.
    unsafe {
        asm!(
            "2:",
            "mov {x}, {from}",
            "mov {y}, {to}",
            "dlstp.8 lr, {len}",
            "3:",
            "vldrb.u8 q0, [{x}], #16",
            "vstrb.8 q0, [{y}], #16",
            "letp lr, 3b",
            "add {from}, {from}, {from_step}",
            "add {to}, {to}, {to_step}",
            "subs {count}, {count}, #1",
            "bne 2b",
            from = inout(reg) from.as_ptr() => _,
            to = inout(reg) to.as_mut_ptr() => _,
            count = inout(reg) count => _,
            len = in(reg) len,
            from_step = in(reg) from_step,
            to_step = in(reg) to_step,
            x = out(reg) _,
            y = out(reg) _,
            out("lr") _,
            out("d0") _,
            out("d1") _,
            options(nostack),
        );
    }
    Some(())
}

/// Copies bytes to the start of `to`.
#[inline(always)]
pub(in crate::kernels) fn copy(from: &[i8], to: &mut [i8]) -> Option<()> {
    let to = to.get_mut(..from.len())?;
    // SAFETY: reads all of `from` and writes all of `to`, which is as long.
    unsafe {
        asm!(
            "wlstp.8 lr, {len}, 3f",
            "2:",
            "vldrb.u8 q0, [{from}], #16",
            "vstrb.8 q0, [{to}], #16",
            "letp lr, 2b",
            "3:",
            len = in(reg) from.len(),
            from = inout(reg) from.as_ptr() => _,
            to = inout(reg) to.as_mut_ptr() => _,
            out("lr") _,
            out("d0") _,
            out("d1") _,
            options(nostack, preserves_flags),
        );
    }
    Some(())
}

/// Steps of a filter of `filter_len` elements.
pub(super) fn steps<W: Width>(filter_len: usize) -> usize {
    row_bytes::<W>(filter_len).div_ceil(VECTOR)
}

/// Bytes of a filter.
pub(super) const fn row_bytes<W: Width>(filter_len: usize) -> usize {
    if W::PACKED { filter_len / 2 } else { filter_len }
}

/// Bytes of a pixel's place in a step.
pub(super) const fn step_bytes<W: Width>() -> usize {
    if W::PACKED { 2 * VECTOR } else { VECTOR }
}

/// Where the bytes of a step that hold elements of even places find them in the input.
static EVEN: [u8; VECTOR] = [0, 4, 2, 6, 8, 12, 10, 14, 16, 20, 18, 22, 24, 28, 26, 30];

/// Puts a patch, whose elements lie in order, in the place of one of `P` pixels: the first vector's is the start of `to`.
/// Returns the sum of the elements if they meet packed weights.
#[inline(always)]
pub(super) fn arrange<W: Width, const P: usize>(patch: &[i8], to: &mut [i8]) -> Option<i32> {
    let bytes = row_bytes::<W>(patch.len());
    let last = bytes.checked_sub(1)?;
    let vectors = if W::PACKED { 2 } else { 1 };
    // The last vector's start, and the bytes that are written of it.
    let last_vector = (last / VECTOR).wrapping_mul(vectors).wrapping_add(vectors - 1).wrapping_mul(P * VECTOR);
    to.get(..last_vector.wrapping_add(last % VECTOR).wrapping_add(1))?;
    if !W::PACKED {
        // SAFETY: reads `bytes` bytes, all of `patch`, and writes as many in vectors `P` · 16 bytes apart, the last of
        // which ends within `to`, as was checked. `bytes` is not 0.
        unsafe {
            asm!(
                "dlstp.8 lr, {bytes}",
                "2:",
                "vldrb.u8 q0, [{from}], #16",
                "vstrb.8 q0, [{to}], #{step}",
                "letp lr, 2b",
                bytes = in(reg) bytes,
                from = inout(reg) patch.as_ptr() => _,
                to = inout(reg) to.as_mut_ptr() => _,
                step = const P * VECTOR,
                out("lr") _,
                out("d0") _,
                out("d1") _,
                options(nostack),
            );
        }
        return Some(0);
    }
    if !patch.len().is_multiple_of(OCTET) {
        return None;
    }
    let sum: i32;
    // SAFETY: reads two bytes of the octet for each of `bytes` bytes of packed weights: within `patch`, which is whole
    // octets; lanes beyond are not active. Writes as above, two vectors a step. `bytes` is not 0.
    unsafe {
        asm!(
            "vldrb.u8 q0, [{even}]",
            "mov r2, #0",
            "dlstp.8 lr, {bytes}",
            "3:",
            "vldrb.u8 q1, [{from}, q0]",
            "add {from}, {from}, #1",
            "vldrb.u8 q2, [{from}, q0]",
            "add {from}, {from}, #31",
            "vaddva.s8 r2, q1",
            "vstrb.8 q1, [{to}], #{step}",
            "vaddva.s8 r2, q2",
            "vstrb.8 q2, [{to}], #{step}",
            "letp lr, 3b",
            even = in(reg) EVEN.as_ptr(),
            bytes = in(reg) bytes,
            from = inout(reg) patch.as_ptr() => _,
            to = inout(reg) to.as_mut_ptr() => _,
            step = const P * VECTOR,
            out("r2") sum,
            out("lr") _,
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _,
            options(nostack),
        );
    }
    Some(sum)
}
