//! Kernels for RV32 with multiplication.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::{Operands, Runs};
use crate::kernels::scalar::LIFTS;

/// Filters multiplied together with four pixels.
pub(in super::super) const FILTERS: usize = 2;

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

/// A function that multiplies two filters with four pixels: `$line`s for each octet.
macro_rules! four {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $($line:expr),* $(,)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $name(operands: *const Operands, out: *mut [Runs; 2]) {
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
                "mv a4, a1",
                "lw a2, {patches}(a0)",
                "lw a3, {octets}(a0)",
                "lw a1, {filters} + 4(a0)",
                "lw a0, {filters}(a0)",
                "slli a3, a3, 6",
                "add a3, a3, a2",
                "li a7, {lifts}",
                "li s0, 0",
                "li s1, 0",
                "li s2, 0",
                "li s3, 0",
                "li s4, 0",
                "li s5, 0",
                "li s6, 0",
                "li a5, 0",
                "2:",
                $($line,)*
                concat!("addi a0, a0, ", $bytes),
                concat!("addi a1, a1, ", $bytes),
                "addi a2, a2, 64",
                "bne a2, a3, 2b",
                "sw s0, 0(a4)",
                "sw s1, 4(a4)",
                "sw s2, 8(a4)",
                "sw s3, 12(a4)",
                "sw s4, 16(a4)",
                "sw s5, 20(a4)",
                "sw s6, 24(a4)",
                "sw a5, 28(a4)",
                "lw s0, 0(sp)",
                "lw s1, 4(sp)",
                "lw s2, 8(sp)",
                "lw s3, 12(sp)",
                "lw s4, 16(sp)",
                "lw s5, 20(sp)",
                "lw s6, 24(sp)",
                "lw s7, 28(sp)",
                "lw s8, 32(sp)",
                "addi sp, sp, 48",
                "ret",
".option pop",
                patches = const offset_of!(Operands, patches),
                octets = const offset_of!(Operands, octets),
                filters = const offset_of!(Operands, filters),
                lifts = const LIFTS,
            )
        }
    };
}

four! {
    /// 148 instructions for 64 products.
    four_int8, "8",
    elements!("0", "1", "0", "4", "8", "12"),
    elements!("2", "3", "16", "20", "24", "28"),
    elements!("4", "5", "32", "36", "40", "44"),
    elements!("6", "7", "48", "52", "56", "60"),
}

four! {
    /// 132 instructions for 64 products.
    four_int4, "4",
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

/// 214 instructions for 64 products.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn one_int8(filters: *const u8, patch: *const u32, octets: usize, out: *mut u32) {
    naked_asm!(
        extensions!(),
        "andi t6, a2, 1",
        "slli a2, a2, 3",
        "add a4, a0, a2",
        "add a5, a4, a2",
        "add a6, a5, a2",
        "add a2, a1, a2",
        "li t0, 0",
        "li t1, 0",
        "li t2, 0",
        "li t3, 0",
        // An odd octet first.
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
        "sw t0, 0(a3)",
        "sw t1, 4(a3)",
        "sw t2, 8(a3)",
        "sw t3, 12(a3)",
        "ret",
        ".option pop",
    )
}

/// Multiplies an octet at `$filter` with the patch in t3 to t6, and adds the high lane to `$sum`.
macro_rules! packed {
    ($filter:literal, $sum:literal) => {
        concat!(
            "lw s0, 0(",
            $filter,
            ")\n",
            "and s1, s0, s5\n",
            "mul s2, s1, t3\n",
            "srli s1, s0, 4\n",
            "and s1, s1, s5\n",
            "mul s3, s1, t4\n",
            "srli s1, s0, 8\n",
            "and s1, s1, s5\n",
            "mul s4, s1, t5\n",
            "srli s1, s0, 12\n",
            "and s1, s1, s5\n",
            "mul s1, s1, t6\n",
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

/// 82 instructions for 32 products.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn one_int4(filters: *const u8, patch: *const u32, octets: usize, out: *mut u32) {
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
            "slli t3, a2, 2",
            "add a4, a0, t3",
            "add a5, a4, t3",
            "add a6, a5, t3",
            "slli a2, a2, 4",
            "add a2, a1, a2",
            "li s5, 0x000F000F",
            "li s6, {lifts}",
            "li t0, 0",
            "li t1, 0",
            "li t2, 0",
            "li a7, 0",
            "2:",
            "lw t3, 0(a1)",
            "lw t4, 4(a1)",
            "lw t5, 8(a1)",
            "lw t6, 12(a1)",
            packed!("a0", "t0"),
            packed!("a4", "t1"),
            packed!("a5", "t2"),
            packed!("a6", "a7"),
            "addi a1, a1, 16",
            advance!("4"),
            "bne a1, a2, 2b",
            "sw t0, 0(a3)",
            "sw t1, 4(a3)",
            "sw t2, 8(a3)",
            "sw a7, 12(a3)",
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
            lifts = const LIFTS,
        )
}
