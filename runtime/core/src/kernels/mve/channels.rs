//! What finishes sums, as vectors want it.

use core::arch::asm;

use super::VECTOR;
use crate::kernels::channels::Channels;

/// Whether the kernels can finish sums: all multipliers lie in `[2^-32, 2^-1)`, so that with `t = 31 + shift`,
/// `⌊p / 2^t + 1/2⌋` is the doubled product's high word, shifted and rounded.
#[inline(always)]
pub(super) fn fit(channels: &Channels<'_>) -> bool {
    least(channels.shifts) > 0
}

/// The least of numbers, or the largest there can be.
fn least(numbers: &[i8]) -> i32 {
    let mut least = i32::from(i8::MAX);
    // SAFETY: reads `len` bytes, all of `numbers`; no stack or flags.
    unsafe {
        asm!(
            "wlstp.8 lr, {len}, 3f",
            "2:",
            "vldrb.u8 q0, [{from}], #16",
            "vminv.s8 {least}, q0",
            "letp lr, 2b",
            "3:",
            len = in(reg) numbers.len(),
            from = inout(reg) numbers.as_ptr() => _,
            least = inout(reg) least,
            out("lr") _, out("d0") _, out("d1") _,
            options(nostack, readonly, preserves_flags),
        );
    }
    least
}

/// Bias, mantissas and negated shifts of a vector's channels: of channels 0, 4, 8 and 12; 2, 6, 10 and 14; 1, 5, 9 and 13;
/// 3, 7, 11 and 15.
///
/// These are the lanes that widening bytes twice makes of them.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Finish {
    pub(super) bias: [i32; VECTOR],
    pub(super) mantissas: [i32; VECTOR],
    pub(super) shifts: [i32; VECTOR],
}

impl Finish {
    /// Holds those of `lanes` channels from `first` on, at most a vector.
    pub(super) fn set(&mut self, channels: &Channels<'_>, first: usize, lanes: usize) -> Option<()> {
        let range = first..first.wrapping_add(lanes);
        let (bias, mantissas) = (channels.bias.get(range.clone())?, channels.mantissas.get(range.clone())?);
        let shifts = channels.shifts.get(range)?;
        match (bias.as_array(), mantissas.as_array(), shifts.as_array()) {
            (Some(bias), Some(mantissas), Some(shifts)) => self.set_vector(bias, mantissas, shifts),
            _ => self.set_vector(&filled_up(bias), &filled_up(mantissas), &filled_up(shifts)),
        }
        Some(())
    }

    /// Holds those of a vector of channels.
    fn set_vector(&mut self, bias: &[i32; VECTOR], mantissas: &[i32; VECTOR], shifts: &[i8; VECTOR]) {
        // SAFETY: reads all of the three arrays, and writes the three of `self`, which follow each other.
        unsafe {
            asm!(
                "vld40.32 {{q0, q1, q2, q3}}, [{bias}]",
                "vld41.32 {{q0, q1, q2, q3}}, [{bias}]",
                "vld42.32 {{q0, q1, q2, q3}}, [{bias}]",
                "vld43.32 {{q0, q1, q2, q3}}, [{bias}]",
                "vstrw.32 q0, [{to}], #16",
                "vstrw.32 q2, [{to}], #16",
                "vstrw.32 q1, [{to}], #16",
                "vstrw.32 q3, [{to}], #16",
                "vld40.32 {{q0, q1, q2, q3}}, [{mantissas}]",
                "vld41.32 {{q0, q1, q2, q3}}, [{mantissas}]",
                "vld42.32 {{q0, q1, q2, q3}}, [{mantissas}]",
                "vld43.32 {{q0, q1, q2, q3}}, [{mantissas}]",
                "vstrw.32 q0, [{to}], #16",
                "vstrw.32 q2, [{to}], #16",
                "vstrw.32 q1, [{to}], #16",
                "vstrw.32 q3, [{to}], #16",
                // 0, 4, 8 and 12; then from 2, 1 and 3 on.
                "mov r2, #0",
                "vidup.u32 q0, r2, #4",
                "vldrb.s32 q1, [{shifts}, q0]",
                "vneg.s32 q1, q1",
                "vstrw.32 q1, [{to}], #16",
                "adds {shifts}, {shifts}, #2",
                "vldrb.s32 q1, [{shifts}, q0]",
                "vneg.s32 q1, q1",
                "vstrw.32 q1, [{to}], #16",
                "subs {shifts}, {shifts}, #1",
                "vldrb.s32 q1, [{shifts}, q0]",
                "vneg.s32 q1, q1",
                "vstrw.32 q1, [{to}], #16",
                "adds {shifts}, {shifts}, #2",
                "vldrb.s32 q1, [{shifts}, q0]",
                "vneg.s32 q1, q1",
                "vstrw.32 q1, [{to}]",
                bias = in(reg) bias.as_ptr(),
                mantissas = in(reg) mantissas.as_ptr(),
                shifts = inout(reg) shifts.as_ptr() => _,
                to = inout(reg) (&raw mut *self).cast::<i32>() => _,
                out("r2") _,
                out("d0") _, out("d1") _, out("d2") _, out("d3") _,
                out("d4") _, out("d5") _, out("d6") _, out("d7") _,
                options(nostack),
            );
        }
    }
}

/// A vector that begins with these numbers.
fn filled_up<T: Copy + Default>(numbers: &[T]) -> [T; VECTOR] {
    core::array::from_fn(|i| numbers.get(i).copied().unwrap_or_default())
}
