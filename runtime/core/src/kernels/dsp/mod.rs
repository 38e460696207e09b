//! Kernels in the instructions of Arm's DSP extension (Cortex-M4, M7, M33 and later): two 16-bit multiply-accumulates at
//! once.
//!
//! Long functions are written whole (`naked`), since the compiler keeps two of the core's registers for itself otherwise.
//! They follow the procedure call standard: they save what they change.
#![allow(unsafe_code)]

mod add;
mod depthwise;
mod linear;
mod product;
mod softmax;

use core::arch::asm;

pub(super) use add::add;
pub(super) use depthwise::{Row, depthwise};
pub(super) use linear::{multiply, multiply_any};
pub(super) use product::{SUMS, TOGETHER, Vectors, products};
pub(super) use softmax::powers;

/// Tells the assembler that the core has the extension: functions written whole are assembled for the least core of the
/// target.
#[cfg(dsp_optional)]
macro_rules! extension {
    () => {
        ".cpu cortex-m33"
    };
}
#[cfg(not(dsp_optional))]
macro_rules! extension {
    () => {
        ""
    };
}

use extension;

/// Multiplies the pair of numbers in r9 with those of four columns, words at r10, added to r0 to r3.
macro_rules! pair_by_4 {
    () => {
        "ldm r10!, {{r4, r5, r6, r7}}
         smlad r0, r9, r4, r0
         smlad r1, r9, r5, r1
         smlad r2, r9, r6, r2
         smlad r3, r9, r7, r3"
    };
}
use pair_by_4;

/// Multiplies the next four bytes at r11 with four columns; leaves the flags.
macro_rules! quad_by_4 {
    () => {
        concat!(
            "ldr r8, [r11], #4\nsxtb16 r9, r8\n",
            $crate::kernels::dsp::pair_by_4!(),
            "\nsxtb16 r9, r8, ror #8\n",
            $crate::kernels::dsp::pair_by_4!(),
        )
    };
}
use quad_by_4;

/// Elements 0 and 2 of a quad, and elements 1 and 3.
#[inline(always)]
pub(super) fn widened(quad: [i8; 4]) -> [u32; 2] {
    let word = u32::from_le_bytes(quad.map(|x| x as u8));
    let (even, odd): (u32, u32);
    // SAFETY: arithmetic on registers; no memory, stack or flags.
    unsafe {
        asm!("sxtb16 {}, {}", out(reg) even, in(reg) word, options(pure, nomem, nostack, preserves_flags));
        asm!("sxtb16 {}, {}, ror #8", out(reg) odd, in(reg) word, options(pure, nomem, nostack, preserves_flags));
    }
    [even, odd]
}

/// Widens quads into those of a pixel: the pairs of each lie in words `pixel` and `pixel + W / 2`.
#[inline(always)]
pub(super) fn widen<const W: usize>(x: &[[i8; 4]], quads: &mut [[u32; W]], pixel: usize) -> Option<()> {
    let Some(count) = core::num::NonZeroUsize::new(x.len()) else { return Some(()) };
    let to = quads.get_mut(..count.get())?.as_flattened_mut().get_mut(pixel..)?;
    if pixel >= W / 2 {
        return None;
    }
    // SAFETY: reads the 4 bytes of each of `count` quads of `x`, at any alignment, and writes two words for each of
    // `count` arrays of W words, W / 2 apart: the last lies W / 2 words before the end of `to`, or `pixel` less. `count` is
    // at least 1.
    unsafe {
        asm!(
            "lsrs {count}, {count}, #1",
            "bcc 3f",
            "ldr {x}, [{from}], #4",
            "sxtb16 {pair}, {x}",
            "str {pair}, [{to}], #{half}",
            "sxtb16 {pair}, {x}, ror #8",
            "str {pair}, [{to}], #{half}",
            "beq 4f",
            "3:",
            "ldr {x}, [{from}], #4",
            "sxtb16 {pair}, {x}",
            "str {pair}, [{to}], #{half}",
            "sxtb16 {pair}, {x}, ror #8",
            "str {pair}, [{to}], #{half}",
            "ldr {x}, [{from}], #4",
            "sxtb16 {pair}, {x}",
            "str {pair}, [{to}], #{half}",
            "sxtb16 {pair}, {x}, ror #8",
            "str {pair}, [{to}], #{half}",
            "subs {count}, {count}, #1",
            "bne 3b",
            "4:",
            count = inout(reg) count.get() => _,
            from = inout(reg) x.as_ptr() => _,
            to = inout(reg) to.as_mut_ptr() => _,
            x = out(reg) _,
            pair = out(reg) _,
            half = const W / 2 * 4,
            options(nostack),
        );
    }
    Some(())
}

/// Widens the four bytes at the start of every `distance` bytes of `x`, for each of `to`.
#[inline(always)]
pub(super) fn widen_apart(x: &[i8], distance: usize, to: &mut [[u32; 2]]) -> Option<()> {
    let Some(last) = to.len().checked_sub(1) else { return Some(()) };
    x.get(..last.checked_mul(distance)?.checked_add(4)?)?;
    // SAFETY: reads 4 bytes, at any alignment, at `last` + 1 places `distance` apart, which lie in `x`, and writes as many
    // pairs of words: all of `to`.
    unsafe {
        asm!(
            "3:",
            "ldr {x}, [{from}]",
            "add {from}, {from}, {distance}",
            "sxtb16 {pair}, {x}",
            "str {pair}, [{to}], #4",
            "sxtb16 {pair}, {x}, ror #8",
            "str {pair}, [{to}], #4",
            "subs {count}, {count}, #1",
            "bne 3b",
            count = inout(reg) to.len() => _,
            from = inout(reg) x.as_ptr() => _,
            to = inout(reg) to.as_mut_ptr() => _,
            distance = in(reg) distance,
            x = out(reg) _,
            pair = out(reg) _,
            options(nostack),
        );
    }
    Some(())
}

/// Adds bytes with their signs to sums; both have as many quads.
pub(super) fn accumulate(x: &[[u8; 4]], sums: &mut [[i32; 4]]) {
    let count = x.len().min(sums.len());
    if count == 0 {
        return;
    }
    // SAFETY: reads `count` quads of `x`, at any alignment, and reads and writes as many of `sums`.
    unsafe {
        asm!(
            "3:",
            "ldr {x}, [{from}], #4",
            "ldm {sums}, {{r2, r3, r4, r5}}",
            "sxtab r2, r2, {x}",
            "sxtab r3, r3, {x}, ror #8",
            "sxtab r4, r4, {x}, ror #16",
            "sxtab r5, r5, {x}, ror #24",
            "stm {sums}!, {{r2, r3, r4, r5}}",
            "subs {count}, {count}, #1",
            "bne 3b",
            count = inout(reg) count => _,
            from = inout(reg) x.as_ptr() => _,
            sums = inout(reg) sums.as_mut_ptr() => _,
            x = out(reg) _,
            out("r2") _, out("r3") _, out("r4") _, out("r5") _,
            options(nostack),
        );
    }
}
