//! Kernels for RV32 with multiplication.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::{Block, Lane};
use crate::kernels::scalar::LIFTS;

/// Tells the assembler what the core has: functions written whole are assembled for the least core of the architecture.
#[cfg(target_feature = "c")]
macro_rules! extensions {
    () => {
        ".option push\n.option arch, +m, +c"
    };
}
#[cfg(not(target_feature = "c"))]
macro_rules! extensions {
    () => {
        ".option push\n.option arch, +m"
    };
}

/// Multiplies the words of two elements with those of a filter, `$a` and `$b`, and adds the run.
macro_rules! run {
    ($x:literal, $y:literal, $a:literal, $b:literal, $words:literal, $high:literal) => {
        concat!(
            "mul t6, ",
            $x,
            ", ",
            $a,
            "\n",
            "mul a6, ",
            $y,
            ", ",
            $b,
            "\n",
            "add t6, t6, a6\n",
            add_run!("t6", $words, $high),
        )
    };
}

/// Adds a run to its sums.
macro_rules! add_run {
    ($run:literal, $words:literal, $high:literal) => {
        concat!(
            "add ", $run, ", ", $run, ", a7\n", "add ", $words, ", ", $words, ", ", $run, "\n", "srli ", $run, ", ",
            $run, ", 16\n", "add ", $high, ", ", $high, ", ", $run, "\n",
        )
    };
}

/// Two elements, `$k` and the next, of two filters of bytes.
macro_rules! elements {
    ($k:literal, $next:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "lw t0, ",
            $a,
            "(a2)\n",
            "lw t1, ",
            $b,
            "(a2)\n",
            "lw t2, ",
            $c,
            "(a2)\n",
            "lw t3, ",
            $d,
            "(a2)\n",
            "lb t4, ",
            $k,
            "(a0)\n",
            "lb t5, ",
            $next,
            "(a0)\n",
            run!("t0", "t2", "t4", "t5", "s0", "s1"),
            run!("t1", "t3", "t4", "t5", "s2", "s3"),
            "lb t4, ",
            $k,
            "(a1)\n",
            "lb t5, ",
            $next,
            "(a1)\n",
            run!("t0", "t2", "t4", "t5", "s4", "s5"),
            run!("t1", "t3", "t4", "t5", "s6", "a5"),
        )
    };
}

/// Takes apart the element of a packed octet whose lowest bit is `$place`.
macro_rules! nibble {
    ($octet:literal, $place:literal) => {
        concat!("srli a6, ", $octet, ", ", $place, "\nandi a6, a6, 15\n")
    };
}

/// An element of two packed filters, times the words at `$a` and `$b`, added to the runs.
macro_rules! element {
    ($place:literal, $a:literal, $b:literal) => {
        concat!(
            "lw t0, ",
            $a,
            "(a2)\n",
            "lw t1, ",
            $b,
            "(a2)\n",
            nibble!("t4", $place),
            "mul t6, t0, a6\n",
            "mul a6, t1, a6\n",
            "add t2, t2, t6\n",
            "add t3, t3, a6\n",
            nibble!("t5", $place),
            "mul t6, t0, a6\n",
            "mul a6, t1, a6\n",
            "add s7, s7, t6\n",
            "add s8, s8, a6\n",
        )
    };
}

/// Takes the next bias to t0, and begins the sums of a filter with it.
macro_rules! begin {
    ($words:literal, $high:literal, $other_words:literal, $other_high:literal) => {
        concat!(
            "lw t0, 0(s9)\n",
            "addi s9, s9, 4\n",
            begin_pair!($words, $high, "t1", "t2"),
            begin_pair!($other_words, $other_high, "t3", "t4"),
        )
    };
}

/// Begins the sums of two pixels with the bias in t0 and the pixels' own starts.
macro_rules! begin_pair {
    ($words:literal, $high:literal, $first:literal, $second:literal) => {
        concat!(
            "add ", $high, ", t0, ", $second, "\n", "slli ", $words, ", ", $high, ", 16\n", "add ", $words, ", ",
            $words, ", t0\n", "add ", $words, ", ", $words, ", ", $first, "\n",
        )
    };
}

/// Finishes the sums of a filter, and stores them.
macro_rules! finish {
    ($words:literal, $high:literal, $other_words:literal, $other_high:literal) => {
        concat!(
            "lw t0, 0(s10)\n",
            "addi s10, s10, 4\n",
            "lb t1, 0(s11)\n",
            "addi s11, s11, 1\n",
            "lw t2, {rounding}(a4)\n",
            "addi t3, t1, -2\n",
            "sll t2, t2, t3\n",
            "addi t1, t1, -1\n",
            "lw t3, {stride}(a4)\n",
            "mv a6, ra\n",
            "addi ra, ra, 1\n",
            low!($words, $high),
            requantize!($words),
            requantize!($high),
            low!($other_words, $other_high),
            requantize!($other_words),
            requantize!($other_high),
        )
    };
}

/// The sum of the first of two pixels.
macro_rules! low {
    ($words:literal, $high:literal) => {
        concat!("slli t6, ", $high, ", 16\nsub ", $words, ", ", $words, ", t6\n")
    };
}

/// Requantizes a sum to 8 bits and stores it.
macro_rules! requantize {
    ($sum:literal) => {
        concat!(
            "mulh t6, ",
            $sum,
            ", t0\n",
            "add t6, t6, t2\n",
            "sra t6, t6, t1\n",
            "bge t6, t4, 7f\n",
            "mv t6, t4\n",
            "7:\n",
            "bge t5, t6, 7f\n",
            "mv t6, t5\n",
            "7:\n",
            "sb t6, 0(a6)\n",
            "add a6, a6, t3\n",
        )
    };
}

/// A function that takes a [`Block`], two filters at a time: `$line`s for each octet.
macro_rules! four {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $shift:literal, $($line:expr),* $(,)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $name(block: *mut Block) {
            naked_asm!(
                extensions!(),
                "addi sp, sp, -64",
                "sw s0, 0(sp)",
                "sw s1, 4(sp)",
                "sw s2, 8(sp)",
                "sw s3, 12(sp)",
                "sw s4, 16(sp)",
                "sw s5, 20(sp)",
                "sw s6, 24(sp)",
                "sw s7, 28(sp)",
                "sw s8, 32(sp)",
                "sw s9, 36(sp)",
                "sw s10, 40(sp)",
                "sw s11, 44(sp)",
                "sw ra, 48(sp)",
                "mv a4, a0",
                "lw s9, {bias}(a4)",
                "lw s10, {mantissas}(a4)",
                "lw s11, {shifts}(a4)",
                "lw ra, {y}(a4)",
                "li a7, {lifts}",
                "lw a0, {filters}(a4)",
                "lw a1, {octets}(a4)",
                concat!("slli a1, a1, ", $shift),
                "add a1, a1, a0",
                "2:",
                "lw a2, {patches}(a4)",
                "lw a3, {octets}(a4)",
                "slli a3, a3, 6",
                "add a3, a3, a2",
                "lw t5, {count}(a4)",
                "addi t5, t5, -1",
                "lw t1, {starts}(a4)",
                "lw t2, {starts} + 4(a4)",
                "lw t3, {starts} + 8(a4)",
                "lw t4, {starts} + 12(a4)",
                begin!("s0", "s1", "s2", "s3"),
                "bnez t5, 3f",
                // The last filter, without another: it is multiplied twice.
                "mv a1, a0",
                "j 4f",
                "3:",
                begin!("s4", "s5", "s6", "a5"),
                "4:",
                $($line,)*
                concat!("addi a0, a0, ", $bytes),
                concat!("addi a1, a1, ", $bytes),
                "addi a2, a2, 64",
                "bne a2, a3, 4b",
                "li t4, -128",
                "li t5, 127",
                finish!("s0", "s1", "s2", "s3"),
                "lw a2, {count}(a4)",
                "addi a2, a2, -1",
                "beqz a2, 5f",
                finish!("s4", "s5", "s6", "a5"),
                "addi a2, a2, -1",
                "sw a2, {count}(a4)",
                "sub t0, a1, a0",
                "mv a0, a1",
                "add a1, a1, t0",
                "bnez a2, 2b",
                "5:",
                "lw s0, 0(sp)",
                "lw s1, 4(sp)",
                "lw s2, 8(sp)",
                "lw s3, 12(sp)",
                "lw s4, 16(sp)",
                "lw s5, 20(sp)",
                "lw s6, 24(sp)",
                "lw s7, 28(sp)",
                "lw s8, 32(sp)",
                "lw s9, 36(sp)",
                "lw s10, 40(sp)",
                "lw s11, 44(sp)",
                "lw ra, 48(sp)",
                "addi sp, sp, 64",
                "ret",
                ".option pop",
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
                lifts = const LIFTS,
            )
        }
    };
}

four! {
    /// 148 instructions for 64 products.
    four_int8, "8", "3",
    elements!("0", "1", "0", "4", "8", "12"),
    elements!("2", "3", "16", "20", "24", "28"),
    elements!("4", "5", "32", "36", "40", "44"),
    elements!("6", "7", "48", "52", "56", "60"),
}

four! {
    /// 132 instructions for 64 products.
    four_int4, "4", "2",
    "lw t4, 0(a0)",
    "lw t5, 0(a1)",
    "mv t2, a7",
    "mv t3, a7",
    "mv s7, a7",
    "mv s8, a7",
    element!("0", "0", "4"),
    element!("4", "8", "12"),
    element!("16", "16", "20"),
    element!("20", "24", "28"),
    element!("8", "32", "36"),
    element!("12", "40", "44"),
    element!("24", "48", "52"),
    element!("28", "56", "60"),
    "add s0, s0, t2",
    "srli t2, t2, 16",
    "add s1, s1, t2",
    "add s2, s2, t3",
    "srli t3, t3, 16",
    "add s3, s3, t3",
    "add s4, s4, s7",
    "srli s7, s7, 16",
    "add s5, s5, s7",
    "add s6, s6, s8",
    "srli s8, s8, 16",
    "add a5, a5, s8",
}

/// Multiplies element `$k` of a patch of bytes with those of four filters.
macro_rules! byte {
    ($k:literal) => {
        concat!(
            "lb a7, ",
            $k,
            "(a1)\n",
            "lb t4, ",
            $k,
            "(a0)\n",
            "lb t5, ",
            $k,
            "(a4)\n",
            "mul t4, t4, a7\n",
            "mul t5, t5, a7\n",
            "add t0, t0, t4\n",
            "add t1, t1, t5\n",
            "lb t4, ",
            $k,
            "(a5)\n",
            "lb t5, ",
            $k,
            "(a6)\n",
            "mul t4, t4, a7\n",
            "mul t5, t5, a7\n",
            "add t2, t2, t4\n",
            "add t3, t3, t5\n",
        )
    };
}

/// Moves the pointers to filters on.
macro_rules! advance {
    ($bytes:literal) => {
        concat!(
            "addi a0, a0, ",
            $bytes,
            "\n",
            "addi a4, a4, ",
            $bytes,
            "\n",
            "addi a5, a5, ",
            $bytes,
            "\n",
            "addi a6, a6, ",
            $bytes,
            "\n",
        )
    };
}

/// Finishes the next sum of one pixel, and stores it.
macro_rules! finish_one {
    ($sum:literal) => {
        concat!(
            "lw t4, 0(a0)\n",
            "addi a0, a0, 4\n",
            "add ",
            $sum,
            ", ",
            $sum,
            ", t4\n",
            "lw t4, {starts}(a3)\n",
            "add ",
            $sum,
            ", ",
            $sum,
            ", t4\n",
            "lw t4, 0(a1)\n",
            "addi a1, a1, 4\n",
            "mulh ",
            $sum,
            ", ",
            $sum,
            ", t4\n",
            "lb t4, 0(a2)\n",
            "addi a2, a2, 1\n",
            "addi a7, t4, -2\n",
            "sll a7, a6, a7\n",
            "add ",
            $sum,
            ", ",
            $sum,
            ", a7\n",
            "addi t4, t4, -1\n",
            "sra ",
            $sum,
            ", ",
            $sum,
            ", t4\n",
            "bge ",
            $sum,
            ", t5, 7f\n",
            "mv ",
            $sum,
            ", t5\n",
            "7:\n",
            "bge t6, ",
            $sum,
            ", 7f\n",
            "mv ",
            $sum,
            ", t6\n",
            "7:\n",
            "sb ",
            $sum,
            ", 0(a4)\n",
            "addi a4, a4, 1\n",
            "addi a5, a5, -1\n",
        )
    };
}

/// A function that takes a [`Block`], four filters at a time, of which the last may repeat: `$line`s leave their sums in t0
/// to t3 and the end of the last filter in a6.
macro_rules! one {
    ($(#[$doc:meta])* $name:ident, $filter:literal, $patch:literal, $($line:expr),* $(,)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $name(block: *mut Block) {
            naked_asm!(
                extensions!(),
                "addi sp, sp, -32",
                "sw s0, 0(sp)",
                "sw s1, 4(sp)",
                "sw s2, 8(sp)",
                "sw s3, 12(sp)",
                "sw s4, 16(sp)",
                "sw s5, 20(sp)",
                "sw s6, 24(sp)",
                "mv a3, a0",
                "li s5, 0x000F000F",
                "li s6, {lifts}",
                "2:",
                "lw t6, {octets}(a3)",
                "lw t5, {count}(a3)",
                concat!("slli t4, t6, ", $filter),
                "lw a0, {filters}(a3)",
                "mv a4, a0",
                "addi t5, t5, -1",
                "beqz t5, 3f",
                "add a4, a4, t4",
                "addi t5, t5, -1",
                "3:",
                "mv a5, a4",
                "beqz t5, 3f",
                "add a5, a5, t4",
                "addi t5, t5, -1",
                "3:",
                "mv a6, a5",
                "beqz t5, 3f",
                "add a6, a6, t4",
                "3:",
                "lw a1, {patches}(a3)",
                concat!("slli a2, t6, ", $patch),
                "add a2, a2, a1",
                "li t0, 0",
                "li t1, 0",
                "li t2, 0",
                "li t3, 0",
                $($line,)*
                "sw a6, {filters}(a3)",
                "lw a0, {bias}(a3)",
                "lw a1, {mantissas}(a3)",
                "lw a2, {shifts}(a3)",
                "lw a4, {y}(a3)",
                "lw a5, {count}(a3)",
                "lw a6, {rounding}(a3)",
                "li t5, -128",
                "li t6, 127",
                finish_one!("t0"),
                "beqz a5, 8f",
                finish_one!("t1"),
                "beqz a5, 8f",
                finish_one!("t2"),
                "beqz a5, 8f",
                finish_one!("t3"),
                "sw a0, {bias}(a3)",
                "sw a1, {mantissas}(a3)",
                "sw a2, {shifts}(a3)",
                "sw a4, {y}(a3)",
                "sw a5, {count}(a3)",
                "bnez a5, 2b",
                "8:",
                "lw s0, 0(sp)",
                "lw s1, 4(sp)",
                "lw s2, 8(sp)",
                "lw s3, 12(sp)",
                "lw s4, 16(sp)",
                "lw s5, 20(sp)",
                "lw s6, 24(sp)",
                "addi sp, sp, 32",
                "ret",
                ".option pop",
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
                lifts = const LIFTS,
            )
        }
    };
}

one! {
    /// 214 instructions for 64 products.
    one_int8, "3", "3",
    // An odd octet first.
    "andi t6, t6, 1",
    "beqz t6, 3f",
    byte!("0"),
    byte!("1"),
    byte!("2"),
    byte!("3"),
    byte!("4"),
    byte!("5"),
    byte!("6"),
    byte!("7"),
    "addi a1, a1, 8",
    advance!("8"),
    "beq a1, a2, 4f",
    "3:",
    byte!("0"),
    byte!("1"),
    byte!("2"),
    byte!("3"),
    byte!("4"),
    byte!("5"),
    byte!("6"),
    byte!("7"),
    byte!("8"),
    byte!("9"),
    byte!("10"),
    byte!("11"),
    byte!("12"),
    byte!("13"),
    byte!("14"),
    byte!("15"),
    "addi a1, a1, 16",
    advance!("16"),
    "bne a1, a2, 3b",
    "4:",
}

/// Multiplies an octet at `$filter` with the patch in t4 to t6 and a7, and adds the high lane to `$sum`.
macro_rules! packed {
    ($filter:literal, $sum:literal) => {
        concat!(
            "lw s0, 0(",
            $filter,
            ")\n",
            "and s1, s0, s5\n",
            "mul s2, s1, t4\n",
            "srli s1, s0, 4\n",
            "and s1, s1, s5\n",
            "mul s3, s1, t5\n",
            "srli s1, s0, 8\n",
            "and s1, s1, s5\n",
            "mul s4, s1, t6\n",
            "srli s1, s0, 12\n",
            "and s1, s1, s5\n",
            "mul s1, s1, a7\n",
            "add s2, s2, s3\n",
            "add s4, s4, s6\n",
            "add s2, s2, s1\n",
            "add s2, s2, s4\n",
            "srli s2, s2, 16\n",
            "add ",
            $sum,
            ", ",
            $sum,
            ", s2\n",
        )
    };
}

one! {
    /// 82 instructions for 32 products.
    one_int4, "2", "4",
    "3:",
    "lw t4, 0(a1)",
    "lw t5, 4(a1)",
    "lw t6, 8(a1)",
    "lw a7, 12(a1)",
    packed!("a0", "t0"),
    packed!("a4", "t1"),
    packed!("a5", "t2"),
    packed!("a6", "t3"),
    "addi a1, a1, 16",
    advance!("4"),
    "bne a1, a2, 3b",
}

/// Multiplies the pixel at `$pixel` with `$weight`, and adds the product to the sum.
macro_rules! tap {
    ($pixel:literal, $weight:literal) => {
        concat!("lbu t4, ", $pixel, "\nmul t4, t4, ", $weight, "\nadd t5, t5, t4\n")
    };
}

/// 39 instructions for an output.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn depthwise_3x3(lane: *mut Lane) {
    naked_asm!(
        extensions!(),
        "addi sp, sp, -48",
        "sw s0, 0(sp)",
        "sw s1, 4(sp)",
        "sw s2, 8(sp)",
        "sw s3, 12(sp)",
        "sw s4, 16(sp)",
        "sw s5, 20(sp)",
        "sw s6, 24(sp)",
        "sw s7, 28(sp)",
        "sw s8, 32(sp)",
        "sw s9, 36(sp)",
        "sw s10, 40(sp)",
        "lw t4, {weights}(a0)",
        "lw s0, 0(t4)",
        "lw s1, 4(t4)",
        "lw s2, 8(t4)",
        "lw s3, 12(t4)",
        "lw s4, 16(t4)",
        "lw s5, 20(t4)",
        "lw s6, 24(t4)",
        "lw s7, 28(t4)",
        "lw s8, 32(t4)",
        "li s9, -128",
        "li s10, 127",
        "lw a1, {pixels}(a0)",
        "lw a2, {pixels} + 4(a0)",
        "lw a3, {pixels} + 8(a0)",
        "lw a4, {y}(a0)",
        "lw a5, {distance}(a0)",
        "lw a6, {step}(a0)",
        "lw t0, {bias}(a0)",
        "lw t1, {mantissa}(a0)",
        "lw t2, {rounding}(a0)",
        "lw t3, {shift}(a0)",
        "lw t6, {rows}(a0)",
        "2:",
        "lw a7, {outputs}(a0)",
        "3:",
        "lbu t4, 0(a1)",
        "mul t4, t4, s0",
        "add t5, t0, t4",
        tap!("4(a1)", "s1"),
        tap!("8(a1)", "s2"),
        tap!("0(a2)", "s3"),
        tap!("4(a2)", "s4"),
        tap!("8(a2)", "s5"),
        tap!("0(a3)", "s6"),
        tap!("4(a3)", "s7"),
        tap!("8(a3)", "s8"),
        "mulh t5, t5, t1",
        "add t5, t5, t2",
        "sra t5, t5, t3",
        "bge t5, s9, 7f",
        "mv t5, s9",
        "7:",
        "bge s10, t5, 7f",
        "mv t5, s10",
        "7:",
        "sb t5, 0(a4)",
        "add a4, a4, a5",
        "add a1, a1, a6",
        "add a2, a2, a6",
        "add a3, a3, a6",
        "addi a7, a7, -1",
        "bnez a7, 3b",
        "lw t4, {next}(a0)",
        "add a1, a1, t4",
        "add a2, a2, t4",
        "add a3, a3, t4",
        "addi t6, t6, -1",
        "bnez t6, 2b",
        "lw s0, 0(sp)",
        "lw s1, 4(sp)",
        "lw s2, 8(sp)",
        "lw s3, 12(sp)",
        "lw s4, 16(sp)",
        "lw s5, 20(sp)",
        "lw s6, 24(sp)",
        "lw s7, 28(sp)",
        "lw s8, 32(sp)",
        "lw s9, 36(sp)",
        "lw s10, 40(sp)",
        "addi sp, sp, 48",
        "ret",
        ".option pop",
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
