//! Kernels for Armv6-M, as of Cortex-M0+: of its registers eight take part in most instructions, the others in additions.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::{Operands, Runs};
use crate::kernels::scalar::LIFTS;

/// Filters multiplied together with four pixels.
pub(in super::super) const FILTERS: usize = 1;

/// Saves all registers that functions must keep, and r3, which becomes the first word of the stack.
macro_rules! save {
    () => {
        "push {{r4, r5, r6, r7, lr}}
         mov r4, r8
         mov r5, r9
         mov r6, r10
         mov r7, r11
         push {{r3, r4, r5, r6, r7}}"
    };
}

/// Restores what [`save`] has saved, and returns.
macro_rules! restore {
    () => {
        "pop {{r3, r4, r5, r6, r7}}
         mov r8, r4
         mov r9, r5
         mov r10, r6
         mov r11, r7
         pop {{r4, r5, r6, r7, pc}}"
    };
}

/// Makes `$register` [`LIFTS`]; `$other` is lost.
macro_rules! lifts {
    ($register:literal, $other:literal) => {
        concat!(
            "movs ",
            $register,
            ", #0x7F\n",
            "lsls ",
            $register,
            ", ",
            $register,
            ", #24\n",
            "movs ",
            $other,
            ", #0x80\n",
            "lsls ",
            $other,
            ", ",
            $other,
            ", #8\n",
            "subs ",
            $other,
            ", ",
            $other,
            ", #1\n",
            "adds ",
            $register,
            ", ",
            $register,
            ", ",
            $other,
            "\n",
        )
    };
}

const _: () = assert!(LIFTS == (0x7F << 24) + (0x80 << 8) - 1);

/// Two elements of bytes: the words of both, times the weights, are a run. The flags are those of the place in the filter.
macro_rules! elements {
    () => {
        "ldm r7!, {{r0, r1, r2, r3}}
         ldrsb r4, [r5, r6]
         muls r0, r4, r0
         muls r1, r4, r1
         adds r6, r6, #1
         ldrsb r4, [r5, r6]
         muls r2, r4, r2
         muls r3, r4, r3
         adds r0, r0, r2
         adds r1, r1, r3
         add r0, r12
         add r1, r12
         add r8, r0
         add r10, r1
         lsrs r0, r0, #16
         lsrs r1, r1, #16
         add r9, r0
         add r11, r1
         adds r6, r6, #1"
    };
}

/// A function that multiplies a filter with four pixels: `$line`s for each octet, after `$first`, which finds the filter at
/// r0 and its octets in r2.
macro_rules! four {
    ($(#[$doc:meta])* $name:ident, $first:literal, $($line:expr),* $(,)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $name(operands: *const Operands, out: *mut [Runs; 2]) {
            naked_asm!(
                "mov r3, r1",
                save!(),
                "ldr r7, [r0, #{patches}]",
                "ldr r2, [r0, #{octets}]",
                "ldr r0, [r0, #{filters}]",
                "movs r4, #0",
                "mov r8, r4",
                "mov r9, r4",
                "mov r10, r4",
                "mov r11, r4",
                $first,
                $($line,)*
                "ldr r0, [sp]",
                "mov r1, r8",
                "mov r2, r9",
                "mov r3, r10",
                "mov r4, r11",
                "stm r0!, {{r1, r2, r3, r4}}",
                restore!(),
                patches = const offset_of!(Operands, patches),
                octets = const offset_of!(Operands, octets),
                filters = const offset_of!(Operands, filters),
            )
        }
    };
}

four! {
    /// 77 instructions for 32 products.
    four_int8,
    "lsls r2, r2, #3
     adds r5, r0, r2
     rsbs r6, r2, #0",
    lifts!("r4", "r3"),
    "mov r12, r4",
    "2:",
    elements!(),
    elements!(),
    elements!(),
    elements!(),
    "bne 2b",
}

/// Takes the element of the packed octet in r5 whose lowest bit is `$place` to r4.
macro_rules! nibble {
    ($place:literal) => {
        concat!("lsrs r4, r5, #", $place, "\nands r4, r6\n")
    };
}

/// Two elements of a packed octet: the sums of their products are in r0 and r1.
macro_rules! nibbles {
    ($first:expr, $second:literal) => {
        concat!(
            "ldm r7!, {{r0, r1, r2, r3}}\n",
            $first,
            "muls r0, r4, r0\n",
            "muls r1, r4, r1\n",
            nibble!($second),
            "muls r2, r4, r2\n",
            "muls r3, r4, r3\n",
            "adds r0, r0, r2\n",
            "adds r1, r1, r3\n",
        )
    };
}

four! {
    /// 71 instructions for 32 products.
    four_int4,
    // The stack holds the filter, its end and LIFTS.
    "lsls r2, r2, #2
     adds r1, r0, r2",
    lifts!("r2", "r4"),
    "push {{r0, r1, r2}}",
    "movs r6, #15",
    "2:",
    "ldr r4, [sp]",
    "ldm r4!, {{r5}}",
    "str r4, [sp]",
    nibbles!("movs r4, #15\nands r4, r5\n", "4"),
    "mov r12, r0",
    "mov lr, r1",
    nibbles!(nibble!("16"), "20"),
    "add r12, r0",
    "add lr, r1",
    nibbles!(nibble!("8"), "12"),
    "add r12, r0",
    "add lr, r1",
    nibbles!(nibble!("24"), "28"),
    "add r0, r12",
    "add r1, lr",
    "ldr r2, [sp, #8]",
    "adds r0, r0, r2",
    "adds r1, r1, r2",
    "add r8, r0",
    "add r10, r1",
    "lsrs r0, r0, #16",
    "lsrs r1, r1, #16",
    "add r9, r0",
    "add r11, r1",
    "ldr r0, [sp]",
    "ldr r1, [sp, #4]",
    "cmp r0, r1",
    "bne 2b",
    "add sp, #12",
}

/// Multiplies an element of bytes with those of four filters. The flags are those of the place in them.
macro_rules! byte {
    () => {
        "ldrsb r7, [r4, r6]
         ldrsb r5, [r0, r6]
         muls r5, r7, r5
         add r8, r5
         ldrsb r5, [r1, r6]
         muls r5, r7, r5
         add r9, r5
         ldrsb r5, [r2, r6]
         muls r5, r7, r5
         add r10, r5
         ldrsb r5, [r3, r6]
         muls r5, r7, r5
         add r11, r5
         adds r6, r6, #1"
    };
}

/// 113 instructions for 32 products.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn one_int8(filters: *const u8, patch: *const u32, octets: usize, out: *mut u32) {
    naked_asm!(
        save!(),
        "lsls r2, r2, #3",
        "rsbs r6, r2, #0",
        // Ends of the patch and of the filters.
        "adds r4, r1, r2",
        "adds r0, r0, r2",
        "adds r1, r0, r2",
        "adds r5, r1, r2",
        "adds r3, r5, r2",
        "mov r2, r5",
        "movs r5, #0",
        "mov r8, r5",
        "mov r9, r5",
        "mov r10, r5",
        "mov r11, r5",
        "2:",
        byte!(),
        byte!(),
        byte!(),
        byte!(),
        byte!(),
        byte!(),
        byte!(),
        byte!(),
        "bne 2b",
        "ldr r0, [sp]",
        "mov r1, r8",
        "mov r2, r9",
        "mov r3, r10",
        "mov r4, r11",
        "stm r0!, {{r1, r2, r3, r4}}",
        restore!(),
    )
}

/// 24 instructions for 8 products.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn one_int4(filters: *const u8, patch: *const u32, octets: usize, out: *mut u32) {
    naked_asm!(
        save!(),
        "mov r12, r0",
        "lsls r2, r2, #4",
        "adds r2, r1, r2",
        "mov r10, r2",
        "mov lr, r1",
        "movs r0, #4",
        "mov r11, r0",
        lifts!("r0", "r1"),
        "mov r9, r0",
        "movs r6, #15",
        "lsls r0, r6, #16",
        "adds r6, r6, r0",
        "2:",
        "mov r7, lr",
        "movs r0, #0",
        "mov r8, r0",
        "3:",
        "mov r4, r12",
        "ldm r4!, {{r5}}",
        "mov r12, r4",
        "ldm r7!, {{r0, r1, r2, r3}}",
        "movs r4, r6",
        "ands r4, r5",
        "muls r0, r4, r0",
        nibble!("4"),
        "muls r1, r4, r1",
        nibble!("8"),
        "muls r2, r4, r2",
        nibble!("12"),
        "muls r3, r4, r3",
        "adds r0, r0, r1",
        "adds r2, r2, r3",
        "adds r0, r0, r2",
        "add r0, r9",
        "lsrs r0, r0, #16",
        "add r8, r0",
        "cmp r7, r10",
        "bne 3b",
        "ldr r0, [sp]",
        "mov r1, r8",
        "stm r0!, {{r1}}",
        "str r0, [sp]",
        "mov r0, r11",
        "subs r0, r0, #1",
        "mov r11, r0",
        "bne 2b",
        restore!(),
    )
}
