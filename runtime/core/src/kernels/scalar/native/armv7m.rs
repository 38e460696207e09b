//! Kernels for Armv7-M, as of Cortex-M3.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::{Block, Lane};
use crate::kernels::scalar::LIFTS;

/// Makes r11 [`LIFTS`].
macro_rules! lifts {
    () => {
        "movw r11, #0x7FFF
         movt r11, #0x7F00"
    };
}

const _: () = assert!(LIFTS == 0x7F00_7FFF);

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

/// Takes the next element at the pointer `$field` of the block at r0 to `$to`, through r5.
macro_rules! next {
    ($load:literal, $to:literal, $field:literal, $size:literal) => {
        concat!(
            "ldr r5, [r0, #{",
            $field,
            "}]\n",
            $load,
            " ",
            $to,
            ", [r5], #",
            $size,
            "\n",
            "str r5, [r0, #{",
            $field,
            "}]\n",
        )
    };
}

/// Requantizes a sum to 8 bits and stores it.
macro_rules! requantize {
    ($sum:literal) => {
        concat!(
            "smull r5, ",
            $sum,
            ", ",
            $sum,
            ", r1\n",
            "add ",
            $sum,
            ", ",
            $sum,
            ", r3\n",
            "asr ",
            $sum,
            ", ",
            $sum,
            ", r2\n",
            "ssat ",
            $sum,
            ", #8, ",
            $sum,
            "\n",
            "strb ",
            $sum,
            ", [r4]\n",
            "add r4, r4, r10\n",
        )
    };
}

/// A function that takes a [`Block`]: `$line`s for each octet, the filter being at lr, which leave the flags of a comparison
/// with the filter's end. The stack holds the block, that end, and a word for the lines.
macro_rules! four {
    ($(#[$doc:meta])* $name:ident, $shift:literal, $($line:expr),* $(,)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $name(block: *mut Block) {
            naked_asm!(
                "push {{r0-r2, r4-r11, lr}}",
                "ldr lr, [r0, #{filters}]",
                lifts!(),
                "2:",
                "ldr r1, [r0, #{octets}]",
                concat!("add r1, lr, r1, lsl #", $shift),
                "strd r1, lr, [sp, #4]",
                "ldr r12, [r0, #{patches}]",
                next!("ldr", "r10", "bias", "4"),
                "add r5, r0, #{starts}",
                "ldm r5, {{r1, r2, r3, r4}}",
                "add r7, r10, r2",
                "add r6, r10, r1",
                "add r6, r6, r7, lsl #16",
                "add r9, r10, r4",
                "add r8, r10, r3",
                "add r8, r8, r9, lsl #16",
                "3:",
                $($line,)*
                "bne 3b",
                "ldr r0, [sp]",
                "ldr lr, [sp, #4]",
                next!("ldr", "r1", "mantissas", "4"),
                next!("ldrsb", "r2", "shifts", "1"),
                "ldr r3, [r0, #{rounding}]",
                "sub r5, r2, #2",
                "lsl r3, r3, r5",
                "sub r2, r2, #1",
                "ldr r4, [r0, #{y}]",
                "add r5, r4, #1",
                "str r5, [r0, #{y}]",
                "ldr r10, [r0, #{stride}]",
                "sub r6, r6, r7, lsl #16",
                "sub r8, r8, r9, lsl #16",
                requantize!("r6"),
                requantize!("r7"),
                requantize!("r8"),
                requantize!("r9"),
                "ldr r1, [r0, #{count}]",
                "subs r1, r1, #1",
                "str r1, [r0, #{count}]",
                "bne 2b",
                "add sp, sp, #12",
                "pop {{r4-r11, pc}}",
                patches = const offset_of!(Block, patches),
                octets = const offset_of!(Block, octets),
                filters = const offset_of!(Block, filters),
                bias = const offset_of!(Block, bias),
                mantissas = const offset_of!(Block, mantissas),
                shifts = const offset_of!(Block, shifts),
                y = const offset_of!(Block, y),
                stride = const offset_of!(Block, stride),
                count = const offset_of!(Block, count),
                rounding = const offset_of!(Block, rounding),
                starts = const offset_of!(Block, starts),
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
    "ldr r5, [sp, #8]",
    "ldr r4, [r5], #4",
    "str r5, [sp, #8]",
    nibbles!("0", "4", "r11", "r11"),
    nibbles!("16", "20", "r10", "lr"),
    nibbles!("8", "12", "r10", "lr"),
    nibbles!("24", "28", "r10", "lr"),
    "add r6, r6, r10",
    "add r7, r7, r10, lsr #16",
    "add r8, r8, lr",
    "add r9, r9, lr, lsr #16",
    "ldrd r0, r1, [sp, #4]",
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

/// Finishes the next sum of one pixel and stores it, for the block at r0; the flags say whether any is left.
macro_rules! finish_one {
    ($sum:literal) => {
        concat!(
            next!("ldr", "r4", "bias", "4"),
            "add ",
            $sum,
            ", ",
            $sum,
            ", r4\n",
            "ldr r4, [r0, #{starts}]\n",
            "add ",
            $sum,
            ", ",
            $sum,
            ", r4\n",
            next!("ldr", "r4", "mantissas", "4"),
            "smull r5, ",
            $sum,
            ", ",
            $sum,
            ", r4\n",
            next!("ldrsb", "r4", "shifts", "1"),
            "ldr r6, [r0, #{rounding}]\n",
            "sub r5, r4, #2\n",
            "lsl r6, r6, r5\n",
            "add ",
            $sum,
            ", ",
            $sum,
            ", r6\n",
            "sub r4, r4, #1\n",
            "asr ",
            $sum,
            ", ",
            $sum,
            ", r4\n",
            "ssat ",
            $sum,
            ", #8, ",
            $sum,
            "\n",
            "ldr r5, [r0, #{y}]\n",
            "strb ",
            $sum,
            ", [r5], #1\n",
            "str r5, [r0, #{y}]\n",
            "ldr r4, [r0, #{count}]\n",
            "subs r4, r4, #1\n",
            "str r4, [r0, #{count}]\n",
        )
    };
}

/// A function that takes a [`Block`], which the stack holds: `$line`s for some filters, until none is left.
macro_rules! one {
    ($(#[$doc:meta])* $name:ident, $($line:expr),* $(,)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $name(block: *mut Block) {
            naked_asm!(
                "push {{r0, r4-r11, lr}}",
                "2:",
                $($line,)*
                "bne 2b",
                "8:",
                "add sp, sp, #4",
                "pop {{r4-r11, pc}}",
                patches = const offset_of!(Block, patches),
                octets = const offset_of!(Block, octets),
                filters = const offset_of!(Block, filters),
                bias = const offset_of!(Block, bias),
                mantissas = const offset_of!(Block, mantissas),
                shifts = const offset_of!(Block, shifts),
                y = const offset_of!(Block, y),
                count = const offset_of!(Block, count),
                rounding = const offset_of!(Block, rounding),
                starts = const offset_of!(Block, starts),
            )
        }
    };
}

one! {
    /// 74 instructions for 32 products: four filters at a time, of which the last may repeat.
    one_int8,
    "mov r3, r0",
    "ldr r0, [r3, #{filters}]",
    "ldr r2, [r3, #{octets}]",
    "ldr r12, [r3, #{count}]",
    "lsl r2, r2, #3",
    "mov r4, r0",
    "cmp r12, #2",
    "it hs",
    "addhs r4, r4, r2",
    "mov r5, r4",
    "cmp r12, #3",
    "it hs",
    "addhs r5, r5, r2",
    "mov r6, r5",
    "cmp r12, #4",
    "it hs",
    "addhs r6, r6, r2",
    "ldr r1, [r3, #{patches}]",
    "add r2, r2, r1",
    "mov r7, #0",
    "mov r8, #0",
    "mov r9, #0",
    "mov r10, #0",
    "3:",
    byte!(),
    byte!(),
    byte!(),
    byte!(),
    byte!(),
    byte!(),
    byte!(),
    byte!(),
    "cmp r1, r2",
    "bne 3b",
    "ldr r0, [sp]",
    "str r6, [r0, #{filters}]",
    finish_one!("r7"),
    "beq 8f",
    finish_one!("r8"),
    "beq 8f",
    finish_one!("r9"),
    "beq 8f",
    finish_one!("r10"),
}

one! {
    /// 14 instructions for 8 products.
    one_int4,
    "mov r12, #0x000F000F",
    lifts!(),
    "ldr r3, [r0, #{filters}]",
    "ldr r1, [r0, #{patches}]",
    "ldr r2, [r0, #{octets}]",
    "add r2, r1, r2, lsl #4",
    "mov r10, #0",
    "3:",
    "ldm r1!, {{r4, r5, r6, r7}}",
    "ldr r8, [r3], #4",
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
    "str r3, [r0, #{filters}]",
    finish_one!("r10"),
}

/// Multiplies the three pixels at `$row` with the next weights; the sum so far is in `$sum`.
macro_rules! taps {
    ($row:literal, $sum:literal) => {
        concat!(
            "ldm r0!, {{r4, r5, r6}}\n",
            "ldrb r7, [",
            $row,
            "]\n",
            "mla r8, r7, r4, ",
            $sum,
            "\n",
            "ldrb r7, [",
            $row,
            ", #4]\n",
            "mla r8, r7, r5, r8\n",
            "ldrb r7, [",
            $row,
            ", #8]\n",
            "mla r8, r7, r6, r8\n",
        )
    };
}

/// 35 instructions for an output. The stack holds what the kernel takes, the shift, the step and the distance.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn depthwise_3x3(lane: *mut Lane) {
    naked_asm!(
        "ldr r1, [r0, #{shift}]",
        "ldr r2, [r0, #{step}]",
        "ldr r3, [r0, #{distance}]",
        "push {{r0-r11, lr}}",
        "ldr r9, [r0, #{y}]",
        "ldr r11, [r0, #{mantissa}]",
        "ldr r12, [r0, #{bias}]",
        "ldr lr, [r0, #{rounding}]",
        "ldr r10, [r0, #{outputs}]",
        "add r4, r0, #{pixels}",
        "ldm r4, {{r1, r2, r3}}",
        "ldr r0, [r0, #{weights}]",
        "2:",
        taps!("r1", "r12"),
        taps!("r2", "r8"),
        taps!("r3", "r8"),
        "sub r0, r0, #36",
        "smull r7, r8, r8, r11",
        "ldrd r4, r5, [sp, #4]",
        "ldr r6, [sp, #12]",
        "add r8, r8, lr",
        "asr r8, r8, r4",
        "ssat r8, #8, r8",
        "strb r8, [r9]",
        "add r9, r9, r6",
        "add r1, r1, r5",
        "add r2, r2, r5",
        "add r3, r3, r5",
        "subs r10, r10, #1",
        "bne 2b",
        // The next row.
        "ldr r4, [sp]",
        "ldr r5, [r4, #{next}]",
        "add r1, r1, r5",
        "add r2, r2, r5",
        "add r3, r3, r5",
        "ldr r10, [r4, #{outputs}]",
        "ldr r5, [r4, #{rows}]",
        "subs r5, r5, #1",
        "str r5, [r4, #{rows}]",
        "bne 2b",
        "add sp, sp, #16",
        "pop {{r4-r11, pc}}",
        weights = const offset_of!(Lane, weights),
        pixels = const offset_of!(Lane, pixels),
        y = const offset_of!(Lane, y),
        distance = const offset_of!(Lane, distance),
        step = const offset_of!(Lane, step),
        next = const offset_of!(Lane, next),
        bias = const offset_of!(Lane, bias),
        mantissa = const offset_of!(Lane, mantissa),
        rounding = const offset_of!(Lane, rounding),
        shift = const offset_of!(Lane, shift),
        rows = const offset_of!(Lane, rows),
        outputs = const offset_of!(Lane, outputs),
    )
}
