//! Kernels for Armv7-M, as of Cortex-M3.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::{Operands, Runs};
use crate::kernels::scalar::LIFTS;

/// Filters multiplied together with four pixels.
pub(in super::super) const FILTERS: usize = 1;

/// Two elements of bytes: the words of both, times the weights, are a run.
macro_rules! elements {
    () => {
        "ldm r12!, {{r0, r1, r2, r3}}
         ldrsb r4, [lr], #1
         ldrsb r5, [lr], #1
         mla r10, r0, r4, r11
         mla r10, r2, r5, r10
         add r6, r6, r10
         add r7, r7, r10, lsr #16
         mla r10, r1, r4, r11
         mla r10, r3, r5, r10
         add r8, r8, r10
         add r9, r9, r10, lsr #16"
    };
}

/// Two elements of a packed octet, with their lowest bits, added to runs that begin with `$a` and `$b`.
macro_rules! nibbles {
    ($first:literal, $second:literal, $a:literal, $b:literal) => {
        concat!(
            "ldm r12!, {{r0, r1, r2, r3}}\n",
            "ubfx r5, r4, #",
            $first,
            ", #4\n",
            "mla r10, r0, r5, ",
            $a,
            "\n",
            "mla lr, r1, r5, ",
            $b,
            "\n",
            "ubfx r5, r4, #",
            $second,
            ", #4\n",
            "mla r10, r2, r5, r10\n",
            "mla lr, r3, r5, lr\n",
        )
    };
}

/// A function that multiplies a filter with four pixels: `$line`s for each octet, which leave the end of the filter, less
/// what is done, as the flags. The stack holds the filter's end, `out` and the filter.
macro_rules! four {
    ($(#[$doc:meta])* $name:ident, $shift:literal, $($line:expr),* $(,)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $name(operands: *const Operands, out: *mut [Runs; 2]) {
            naked_asm!(
                "mov r3, r1",
                "ldr r12, [r0, #{patches}]",
                "ldr r2, [r0, #{octets}]",
                "ldr r0, [r0, #{filters}]",
                concat!("add r2, r0, r2, lsl #", $shift),
                "mov r1, r0",
                "push {{r1-r11, lr}}",
                "mov lr, r0",
                "mov r6, #0",
                "mov r7, #0",
                "mov r8, #0",
                "mov r9, #0",
                "ldr r11, ={lifts}",
                "2:",
                $($line,)*
                "bne 2b",
                "ldr r0, [sp, #8]",
                "stm r0, {{r6, r7, r8, r9}}",
                "add sp, sp, #12",
                "pop {{r4-r11, pc}}",
                ".ltorg",
                patches = const offset_of!(Operands, patches),
                octets = const offset_of!(Operands, octets),
                filters = const offset_of!(Operands, filters),
                lifts = const LIFTS,
            )
        }
    };
}

four! {
    /// 47 instructions for 32 products.
    four_int8, "3",
    elements!(),
    elements!(),
    elements!(),
    elements!(),
    "ldr r10, [sp, #4]",
    "cmp lr, r10",
}

four! {
    /// 39 instructions for 32 products.
    four_int4, "2",
    "ldr r5, [sp]",
    "ldr r4, [r5], #4",
    "str r5, [sp]",
    nibbles!("0", "4", "r11", "r11"),
    nibbles!("16", "20", "r10", "lr"),
    nibbles!("8", "12", "r10", "lr"),
    nibbles!("24", "28", "r10", "lr"),
    "add r6, r6, r10",
    "add r7, r7, r10, lsr #16",
    "add r8, r8, lr",
    "add r9, r9, lr, lsr #16",
    "ldrd r0, r1, [sp]",
    "cmp r0, r1",
}

/// Multiplies an element of bytes with those of four filters.
macro_rules! byte {
    () => {
        "ldrsb r11, [r1], #1
         ldrsb r12, [r0], #1
         mla r7, r11, r12, r7
         ldrsb r12, [r4], #1
         mla r8, r11, r12, r8
         ldrsb r12, [r5], #1
         mla r9, r11, r12, r9
         ldrsb r12, [r6], #1
         mla r10, r11, r12, r10"
    };
}

/// 74 instructions for 32 products.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn one_int8(filters: *const u8, patch: *const u32, octets: usize, out: *mut u32) {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "lsl r2, r2, #3",
        "add r4, r0, r2",
        "add r5, r4, r2",
        "add r6, r5, r2",
        "add r2, r2, r1",
        "mov r7, #0",
        "mov r8, #0",
        "mov r9, #0",
        "mov r10, #0",
        "2:",
        byte!(),
        byte!(),
        byte!(),
        byte!(),
        byte!(),
        byte!(),
        byte!(),
        byte!(),
        "cmp r1, r2",
        "bne 2b",
        "stm r3, {{r7, r8, r9, r10}}",
        "pop {{r4-r11, pc}}",
    )
}

/// 16 instructions for 8 products.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn one_int4(filters: *const u8, patch: *const u32, octets: usize, out: *mut u32) {
    naked_asm!(
        // The stack holds the patch, its end and the end of `out`.
        "add r2, r1, r2, lsl #4",
        "push {{r1, r2, r4-r11, lr}}",
        "add lr, r3, #16",
        "mov r12, #0x000F000F",
        "ldr r11, ={lifts}",
        "2:",
        "ldr r1, [sp]",
        "mov r10, #0",
        "3:",
        "ldm r1!, {{r4, r5, r6, r7}}",
        "ldr r8, [r0], #4",
        "and r9, r12, r8",
        "mla r4, r4, r9, r11",
        "and r9, r12, r8, lsr #4",
        "mla r4, r5, r9, r4",
        "and r9, r12, r8, lsr #8",
        "mla r4, r6, r9, r4",
        "and r9, r12, r8, lsr #12",
        "mla r4, r7, r9, r4",
        "add r10, r10, r4, lsr #16",
        "cmp r1, r2",
        "bne 3b",
        "str r10, [r3], #4",
        "cmp r3, lr",
        "bne 2b",
        "add sp, sp, #8",
        "pop {{r4-r11, pc}}",
        ".ltorg",
        lifts = const LIFTS,
    )
}
