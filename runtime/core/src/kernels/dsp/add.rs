//! Element-wise sums.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::extension;
use crate::kernels::add::Sums;
use crate::kernels::memory;

/// What every sum is made of, times 2^24: the kernel multiplies elements that lie at the top of a register.
#[repr(C)]
struct Scaled {
    start: i64,
    factors: [i32; 2],
    /// Shift of the high word.
    shift: u32,
}

/// What the kernel reads and writes.
#[repr(C)]
struct Block<'s> {
    a: *const u8,
    b: *const u8,
    y: *mut u8,
    /// Quads, at least 1.
    count: usize,
    scaled: &'s Scaled,
}

/// Adds `count` elements in memory; the offsets of `a`, `b` and `y` are given, and `y` may take the place of either. The
/// shift is in `8..40`.
pub(in crate::kernels) fn add(arena: &mut [u8], offsets: [usize; 3], count: usize, sums: &Sums) -> Option<()> {
    let (whole, rest) = (count / 4, count % 4);
    let scaled = Scaled { start: sums.start << 24, factors: sums.factors, shift: sums.shift.checked_sub(8)? };
    if whole > 0 {
        add_quads(arena, offsets, whole, &scaled)?;
    }
    let [_, _, y] = offsets;
    if rest > 0 {
        // The last elements, as a quad of their own.
        let mut quads = [0u8; 12];
        let from = offsets.map(|offset| offset.wrapping_add(whole.wrapping_mul(4)));
        for (quad, start) in quads.chunks_mut(4).zip(from) {
            memory::copy(quad, 0, arena.get(start..start.wrapping_add(rest))?)?;
        }
        add_quads(&mut quads, [0, 4, 8], 1, &scaled)?;
        memory::copy(arena, from[2], quads.get(8..8usize.wrapping_add(rest))?)?;
    }
    memory::clamp(arena.get_mut(y..y.wrapping_add(count))?, sums.clamp);
    Some(())
}

/// As [`add`], saturated to 8 bits, of `quads` quads.
fn add_quads(arena: &mut [u8], [a, b, y]: [usize; 3], quads: usize, scaled: &Scaled) -> Option<()> {
    let len = quads.checked_mul(4).filter(|&len| len > 0)?;
    for start in [a, b, y] {
        arena.get(start..start.checked_add(len)?)?;
    }
    let memory = arena.as_mut_ptr();
    // SAFETY: all three offsets lie within the arena.
    let [a, b, y] = unsafe { [memory.add(a), memory.add(b), memory.add(y)] };
    let mut block = Block { a, b, y, count: quads, scaled };
    // SAFETY: `a`, `b` and `y` have 4 · `count` bytes of one borrowed slice each; a quad is read before it is written.
    unsafe { kernel(&raw mut block) };
    Some(())
}

/// One element: its place in r10 and r11, as an instruction that brings it to the top of a register.
macro_rules! sum {
    ($to:literal, $op:literal, $mask:literal, $shift:literal) => {
        concat!(
            $op,
            " ",
            $to,
            ", ",
            $mask,
            "r10",
            $shift,
            "\n",
            "ldrd r8, r9, [lr]\n",
            "smlal r8, r9, ",
            $to,
            ", r6\n",
            $op,
            " ",
            $to,
            ", ",
            $mask,
            "r11",
            $shift,
            "\n",
            "smlal r8, r9, ",
            $to,
            ", r7\n",
            "asr ",
            $to,
            ", r9, r3\n",
            "ssat ",
            $to,
            ", #8, ",
            $to,
            "\n",
        )
    };
}

/// Sums of quads: 42 instructions for four elements.
#[unsafe(naked)]
unsafe extern "C" fn kernel(block: *mut Block<'_>) {
    naked_asm!(
        extension!(),
        "push {{r0, r4-r11, lr}}",
        "ldr r4, [r0, #{a}]",
        "ldr r5, [r0, #{b}]",
        "ldr lr, [r0, #{scaled}]",
        "ldrd r6, r7, [lr, #{factors}]",
        "ldr r3, [lr, #{shift}]",
        "mov r12, #0xFF000000",
        "2:",
        "ldr r10, [r4], #4",
        "ldr r11, [r5], #4",
        sum!("r0", "lsl", "", ", #24"),
        sum!("r2", "and", "r12, ", ", lsl #8"),
        "pkhbt r0, r0, r2, lsl #16",
        sum!("r1", "and", "r12, ", ", lsl #16"),
        sum!("r2", "and", "r12, ", ""),
        "pkhbt r1, r1, r2, lsl #16",
        "uxtb16 r0, r0",
        "uxtb16 r1, r1",
        "orr r0, r0, r1, lsl #8",
        "ldr r1, [sp]",
        "ldr r2, [r1, #{y}]",
        "str r0, [r2], #4",
        "str r2, [r1, #{y}]",
        "ldr r2, [r1, #{count}]",
        "subs r2, r2, #1",
        "str r2, [r1, #{count}]",
        "bne 2b",
        "pop {{r0, r4-r11, pc}}",
        a = const offset_of!(Block<'_>, a),
        b = const offset_of!(Block<'_>, b),
        y = const offset_of!(Block<'_>, y),
        count = const offset_of!(Block<'_>, count),
        scaled = const offset_of!(Block<'_>, scaled),
        factors = const offset_of!(Scaled, factors),
        shift = const offset_of!(Scaled, shift),
    )
}
