//! Element-wise sums, four at a time.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::{Lanes, extension};
use crate::kernels::add::Sums;

/// Bits of sums that lanes of their own hold.
const LOW_BITS: u32 = 16;

/// What the kernel reads and writes. High parts and low parts of sums have lanes of their own.
#[repr(C)]
struct Block {
    a: *const u8,
    b: *const u8,
    y: *mut u8,
    /// Elements, at least 1.
    count: usize,
    /// Low parts of the factors.
    low: [i32; 2],
    /// The high part of the factor of `b`.
    high: i32,
    /// Parts of what every sum begins with, low and high.
    start: [i32; 2],
    /// Left shift of the high part.
    shift: i32,
    /// The high part of the factor of `a`; least and largest output.
    lanes: [Lanes; 3],
}

/// Adds `count` elements in memory; the offsets of `a`, `b` and `y` are given, and `y` may take the place of either. The
/// shift is in `16..48`.
pub(in crate::kernels) fn add(arena: &mut [u8], [a, b, y]: [usize; 3], count: usize, sums: &Sums) -> Option<()> {
    for start in [a, b, y] {
        arena.get(start..start.checked_add(count)?)?;
    }
    if count == 0 {
        return Some(());
    }
    let Sums { start, factors, shift, clamp: [least, largest] } = *sums;
    let low = |number: i64| number as i32 & ((1 << LOW_BITS) - 1);
    let high = |number: i64| (number >> LOW_BITS) as i32;
    let [a_factor, b_factor] = factors.map(i64::from);
    let memory = arena.as_mut_ptr();
    // SAFETY: all three offsets lie within the arena.
    let [a, b, y] = unsafe { [memory.add(a), memory.add(b), memory.add(y)] };
    let mut block = Block {
        a,
        b,
        y,
        count,
        low: [low(a_factor), low(b_factor)],
        high: high(b_factor),
        start: [low(start), high(start)],
        shift: LOW_BITS.wrapping_sub(shift) as i32,
        lanes: [high(a_factor), least, largest].map(Lanes::words),
    };
    // SAFETY: `a`, `b` and `y` have `count` bytes of one borrowed slice each, not none; elements are read before any is
    // written in their place.
    unsafe { add_elements(&raw mut block) };
    Some(())
}

/// 14 instructions for four elements.
#[unsafe(naked)]
unsafe extern "C" fn add_elements(block: *mut Block) {
    naked_asm!(
        extension!(),
        "push {{r4-r10, lr}}",
        "vpush {{d8-d13}}",
        "add r12, r0, #{lanes}",
        "vldrw.u32 q4, [r12]",
        "vldrw.u32 q5, [r12, #16]",
        "vldrw.u32 q6, [r12, #32]",
        // As they follow each other in the block.
        "ldm r0, {{r1-r10}}",
        "dlstp.32 lr, r4",
        "2:",
        "vldrb.s32 q0, [r1], #4",
        "vldrb.s32 q1, [r2], #4",
        "vmul.i32 q2, q0, r5",
        "vmlas.i32 q0, q4, r9",
        "vmla.i32 q2, q1, r6",
        "vmla.i32 q0, q1, r7",
        "vadd.i32 q2, q2, r8",
        "vshr.s32 q2, q2, #16",
        "vadd.i32 q0, q0, q2",
        "vshl.s32 q0, r10",
        "vmax.s32 q0, q0, q5",
        "vmin.s32 q0, q0, q6",
        "vstrb.32 q0, [r3], #4",
        "letp lr, 2b",
        "vpop {{d8-d13}}",
        "pop {{r4-r10, pc}}",
        lanes = const offset_of!(Block, lanes),
    )
}
