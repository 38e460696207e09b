//! Kernels for Armv6-M, as of Cortex-M0+: of its registers eight take part in most instructions, the others in additions.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::{Block, Lane};
use crate::kernels::scalar::LIFTS;

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

/// Takes the next element at the pointer `$field` of the block at r0 to `$to`, through r1; the element's size is `$size`.
macro_rules! next {
    ($load:literal, $to:literal, $field:literal, $size:literal) => {
        concat!(
            "ldr r1, [r0, #{",
            $field,
            "}]\n",
            $load,
            " ",
            $to,
            ", [r1]\n",
            "adds r1, r1, #",
            $size,
            "\n",
            "str r1, [r0, #{",
            $field,
            "}]\n",
        )
    };
}

/// Takes the next mantissa's halves to r4 and r5, its shift to r6 and what rounds it to r12, for the block at r0.
macro_rules! multiplier {
    () => {
        concat!(
            next!("ldr", "r5", "mantissas", "4"),
            "uxth r4, r5\n",
            "lsrs r5, r5, #16\n",
            next!("ldrb", "r6", "shifts", "1"),
            "ldr r1, [r0, #{rounding}]\n",
            "subs r6, r6, #2\n",
            "lsls r1, r6\n",
            "adds r6, r6, #1\n",
            "mov r12, r1\n",
        )
    };
}

/// Begins the sums of two pixels with the bias in r4 and the pixels' own starts.
macro_rules! begin {
    ($words:literal, $high:literal, $first:literal, $second:literal) => {
        concat!(
            "adds ", $second, ", ", $second, ", r4\n", "adds ", $first, ", ", $first, ", r4\n", "mov ", $high, ", ",
            $second, "\n", "lsls ", $second, ", ", $second, ", #16\n", "adds ", $first, ", ", $first, ", ", $second,
            "\n", "mov ", $words, ", ", $first, "\n",
        )
    };
}

/// Takes the sum of the first of two pixels to r1.
macro_rules! low {
    ($words:literal, $high:literal) => {
        concat!("mov r0, ", $high, "\nlsls r0, r0, #16\nmov r1, ", $words, "\nsubs r1, r1, r0\n")
    };
}

/// Requantizes the sum in r1 to 8 bits and stores it. The mantissa is in halves in r4 and r5: the product's high word is
/// made of four products (see [`crate::quant`]).
macro_rules! requantize {
    () => {
        "uxth r2, r1
         asrs r1, r1, #16
         mov r3, r2
         muls r3, r4, r3
         lsrs r3, r3, #16
         mov r0, r1
         muls r0, r4, r0
         adds r0, r0, r3
         muls r2, r5, r2
         uxth r3, r0
         adds r2, r2, r3
         asrs r2, r2, #16
         muls r1, r5, r1
         asrs r0, r0, #16
         adds r1, r1, r0
         adds r1, r1, r2
         add r1, r12
         asrs r1, r6
         sxtb r0, r1
         cmp r0, r1
         beq 7f
         asrs r1, r1, #31
         movs r0, #0x7F
         eors r1, r0
         7:
         strb r1, [r7]
         add r7, lr
        "
    };
}

/// A function that takes a [`Block`]: `$line`s for each filter. The stack holds three words for the lines, then the block.
macro_rules! four {
    ($(#[$doc:meta])* $name:ident, $shift:literal, $($line:expr),* $(,)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $name(block: *mut Block) {
            naked_asm!(
                "mov r3, r0",
                save!(),
                "sub sp, #12",
                "2:",
                next!("ldr", "r4", "bias", "4"),
                "ldr r1, [r0, #{starts}]",
                "ldr r2, [r0, #{starts} + 4]",
                begin!("r8", "r9", "r1", "r2"),
                "ldr r1, [r0, #{starts} + 8]",
                "ldr r2, [r0, #{starts} + 12]",
                begin!("r10", "r11", "r1", "r2"),
                "ldr r7, [r0, #{patches}]",
                "ldr r2, [r0, #{octets}]",
                concat!("lsls r2, r2, #", $shift),
                "ldr r1, [r0, #{filters}]",
                "adds r3, r1, r2",
                "str r3, [r0, #{filters}]",
                $($line,)*
                "ldr r0, [sp, #12]",
                multiplier!(),
                "ldr r7, [r0, #{y}]",
                "adds r1, r7, #1",
                "str r1, [r0, #{y}]",
                "ldr r1, [r0, #{stride}]",
                "mov lr, r1",
                low!("r8", "r9"),
                requantize!(),
                "mov r1, r9",
                requantize!(),
                low!("r10", "r11"),
                requantize!(),
                "mov r1, r11",
                requantize!(),
                "ldr r0, [sp, #12]",
                "ldr r1, [r0, #{count}]",
                "subs r1, r1, #1",
                "str r1, [r0, #{count}]",
                "beq 8f",
                "b 2b",
                "8:",
                "add sp, #12",
                restore!(),
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
    /// 77 instructions for 32 products. The filter's end is at r5, and the place in it r6 before that.
    four_int8, "3",
    "mov r5, r3",
    "rsbs r6, r2, #0",
    lifts!("r4", "r3"),
    "mov r12, r4",
    "3:",
    elements!(),
    elements!(),
    elements!(),
    elements!(),
    "bne 3b",
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
    /// 71 instructions for 32 products. The stack holds the filter, its end and [`LIFTS`].
    four_int4, "2",
    lifts!("r4", "r5"),
    "str r1, [sp]",
    "str r3, [sp, #4]",
    "str r4, [sp, #8]",
    "movs r6, #15",
    "3:",
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
    "bne 3b",
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

/// Finishes the next sum of one pixel, in `$sum`, and stores it, for the block at r0; the flags say whether any is left.
macro_rules! finish_one {
    ($sum:literal) => {
        concat!(
            next!("ldr", "r4", "bias", "4"),
            "add r4, ",
            $sum,
            "\n",
            "ldr r1, [r0, #{starts}]\n",
            "adds r4, r4, r1\n",
            "mov r2, r4\n",
            multiplier!(),
            "ldr r7, [r0, #{y}]\n",
            "movs r1, #1\n",
            "mov lr, r1\n",
            "mov r1, r2\n",
            requantize!(),
            "ldr r0, [sp]\n",
            "str r7, [r0, #{y}]\n",
            "ldr r1, [r0, #{count}]\n",
            "subs r1, r1, #1\n",
            "str r1, [r0, #{count}]\n",
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
                "mov r3, r0",
                save!(),
                "2:",
                $($line,)*
                "beq 8f",
                "b 2b",
                "8:",
                restore!(),
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

/// The end of the filter after that which ends at `$before`, if as many are left as the flags of a comparison say, or the
/// same again.
macro_rules! another {
    ($end:literal, $before:literal, $least:literal) => {
        concat!(
            "mov ",
            $end,
            ", ",
            $before,
            "\n",
            "cmp r7, #",
            $least,
            "\n",
            "blo 7f\n",
            "add ",
            $end,
            ", r12\n",
            "7:\n",
        )
    };
}

one! {
    /// 113 instructions for 32 products: four filters at a time, of which the last may repeat.
    one_int8,
    "ldr r5, [r0, #{octets}]",
    "lsls r5, r5, #3",
    "mov r12, r5",
    "rsbs r6, r5, #0",
    "ldr r4, [r0, #{patches}]",
    "adds r4, r4, r5",
    "ldr r7, [r0, #{count}]",
    "ldr r0, [r0, #{filters}]",
    // Ends of the filters.
    "adds r0, r0, r5",
    another!("r1", "r0", "2"),
    another!("r2", "r1", "3"),
    another!("r3", "r2", "4"),
    "movs r5, #0",
    "mov r8, r5",
    "mov r9, r5",
    "mov r10, r5",
    "mov r11, r5",
    "3:",
    byte!(),
    byte!(),
    byte!(),
    byte!(),
    byte!(),
    byte!(),
    byte!(),
    byte!(),
    "bne 3b",
    "ldr r0, [sp]",
    "str r3, [r0, #{filters}]",
    // One branch does not reach that far.
    finish_one!("r8"),
    "beq 6f",
    finish_one!("r9"),
    "6:",
    "beq 6f",
    finish_one!("r10"),
    "6:",
    "beq 6f",
    finish_one!("r11"),
    "6:",
}

one! {
    /// 24 instructions for 8 products.
    one_int4,
    "ldr r1, [r0, #{filters}]",
    "mov r12, r1",
    "ldr r7, [r0, #{patches}]",
    "ldr r2, [r0, #{octets}]",
    "lsls r2, r2, #4",
    "adds r2, r2, r7",
    "mov r10, r2",
    lifts!("r1", "r2"),
    "mov r9, r1",
    "movs r6, #15",
    "lsls r1, r6, #16",
    "adds r6, r6, r1",
    "movs r1, #0",
    "mov r8, r1",
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
    "mov r1, r12",
    "str r1, [r0, #{filters}]",
    finish_one!("r8"),
}

/// Multiplies the pixel at `$pixel` with the weight at r0 and `$weight`, and adds the product to r6.
macro_rules! tap {
    ($pixel:literal, $weight:literal) => {
        concat!(
            "ldrb r4, [", $pixel, "]\n",
            "ldr r5, [r0, #", $weight, "]\n",
            "muls r4, r5, r4\n",
            "adds r6, r6, r4\n",
        )
    };
}

/// 81 instructions for an output.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn depthwise_3x3(lane: *mut Lane) {
    naked_asm!(
        save!(),
        "mov r8, r0",
        "ldr r1, [r0, #{bias}]",
        "mov r9, r1",
        "ldr r1, [r0, #{step}]",
        "mov r10, r1",
        "ldr r1, [r0, #{weights}]",
        "mov r11, r1",
        "ldr r1, [r0, #{rounding}]",
        "mov r12, r1",
        "ldr r1, [r0, #{distance}]",
        "mov lr, r1",
        "ldr r1, [r0, #{pixels}]",
        "ldr r2, [r0, #{pixels} + 4]",
        "ldr r3, [r0, #{pixels} + 8]",
        "2:",
        "mov r0, r11",
        "mov r6, r9",
        tap!("r1", "0"),
        tap!("r1, #4", "4"),
        tap!("r1, #8", "8"),
        tap!("r2", "12"),
        tap!("r2, #4", "16"),
        tap!("r2, #8", "20"),
        tap!("r3", "24"),
        tap!("r3, #4", "28"),
        tap!("r3, #8", "32"),
        "add r1, r10",
        "add r2, r10",
        "add r3, r10",
        "push {{r1, r2, r3}}",
        "mov r1, r6",
        "mov r0, r8",
        // The mantissa's halves, the shift and the output.
        "ldm r0!, {{r4, r5, r6, r7}}",
        requantize!(),
        "mov r0, r8",
        "str r7, [r0, #{y}]",
        "pop {{r1, r2, r3}}",
        "ldr r4, [r0, #{count}]",
        "subs r4, r4, #1",
        "str r4, [r0, #{count}]",
        "bne 2b",
        // The next row.
        "ldr r4, [r0, #{next}]",
        "adds r1, r1, r4",
        "adds r2, r2, r4",
        "adds r3, r3, r4",
        "ldr r4, [r0, #{outputs}]",
        "str r4, [r0, #{count}]",
        "ldr r4, [r0, #{rows}]",
        "subs r4, r4, #1",
        "str r4, [r0, #{rows}]",
        "bne 2b",
        restore!(),
        weights = const offset_of!(Lane, weights),
        pixels = const offset_of!(Lane, pixels),
        y = const offset_of!(Lane, y),
        count = const offset_of!(Lane, count),
        distance = const offset_of!(Lane, distance),
        step = const offset_of!(Lane, step),
        next = const offset_of!(Lane, next),
        bias = const offset_of!(Lane, bias),
        rounding = const offset_of!(Lane, rounding),
        rows = const offset_of!(Lane, rows),
        outputs = const offset_of!(Lane, outputs),
    )
}

const _: () = assert!(offset_of!(Lane, halves) == 0 && offset_of!(Lane, shift) == 8 && offset_of!(Lane, y) == 12);
