//! Means of windows, sixteen channels at a time.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::{Lanes, VECTOR, extension};
use crate::quant::Multiplier;

/// Most elements of a window: their sum is a number of 16 bits.
const MAX_INSIDE: usize = 255;

/// Most elements that a sum is divided by.
const MAX_COUNT: usize = 1 << 14;

/// Added to means to divide positive numbers.
const OFFSET: i32 = 1 << 15;

/// How means become outputs: `clamp(zero_point + round_half_up(Σ(x − x_zero) · multiplier / count))`.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Mean {
    pub(in crate::kernels) multiplier: Multiplier,
    pub(in crate::kernels) x_zero: i32,
    pub(in crate::kernels) zero_point: i32,
    pub(in crate::kernels) clamp: [i32; 2],
}

/// A window.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Pixels {
    pub(in crate::kernels) rows: usize,
    pub(in crate::kernels) cols: usize,
    /// From a row to the next in bytes.
    pub(in crate::kernels) row_step: usize,
    /// What sums are divided by.
    pub(in crate::kernels) count: usize,
}

/// What the kernel reads and writes.
#[repr(C)]
struct Block {
    x: *const u8,
    y: *mut u8,
    channels: usize,
    /// From a row to the next in bytes.
    row_step: usize,
    rows: usize,
    cols: usize,
    /// What is subtracted from sums.
    offset: i32,
    mantissa: i32,
    /// Left shift of the doubled product's high word.
    shift: i32,
    /// Added before the division by `count`.
    half: i32,
    count: usize,
    /// Added after it.
    zero_point: i32,
    /// Whether `count` is odd.
    odd: usize,
    /// Least and largest output.
    clamp: [Lanes; 2],
}

impl Mean {
    /// Whether the kernel can compute means of `channels` channels.
    pub(in crate::kernels) fn fits(&self, channels: usize) -> bool {
        channels >= VECTOR && (-6..=16).contains(&self.multiplier.shift)
    }

    /// Computes all channels of a window at the start of `x`, if it [fits](Self::fits). `Some(false)` if the window is too
    /// large.
    pub(in crate::kernels) fn run(&self, x: &[u8], window: Pixels, y: &mut [u8]) -> Option<bool> {
        let Pixels { rows, cols, row_step, count } = window;
        let inside = rows.checked_mul(cols)?;
        if !(1..=MAX_INSIDE).contains(&inside) || !(1..=MAX_COUNT).contains(&count) {
            return Some(false);
        }
        let channels = y.len();
        x.get(..rows.checked_sub(1)?.checked_mul(row_step)?.checked_add(cols.checked_mul(channels)?)?)?;
        let Self { multiplier, x_zero, zero_point, clamp } = *self;
        // A difference from `x_zero` has 17 bits. Shifted by 15, its doubled product's high word is `⌊p / 2^16⌋`; the
        // rest of the division by `2^(31 + shift)` is a shift by at least 9.
        let half = (count / 2) as i32;
        let mut block = Block {
            x: x.as_ptr(),
            y: y.as_mut_ptr(),
            channels,
            row_step,
            rows,
            cols,
            offset: x_zero.wrapping_mul(inside as i32),
            mantissa: multiplier.mantissa,
            shift: (-15i32).wrapping_sub(multiplier.shift.into()),
            half: half.wrapping_add(OFFSET.wrapping_mul(count as i32)),
            count,
            zero_point: zero_point.wrapping_sub(OFFSET),
            odd: count % 2,
            clamp: clamp.map(Lanes::words),
        };
        // SAFETY: `x` has `cols` pixels of `channels` bytes in each of `rows` rows, at least one of each, as was checked,
        // and `y` `channels` bytes, at least a vector as `fits` says; the last vectors of a pixel end with it.
        unsafe { means(&raw mut block) };
        Some(true)
    }
}

/// Finishes the sums of eight channels and writes them.
macro_rules! finish {
    ($sums:literal, $y:literal) => {
        concat!(
            "vmovlb.s16 q2, ",
            $sums,
            "\nvmovlt.s16 q3, ",
            $sums,
            "
             vsub.i32 q2, q2, r9
             vsub.i32 q3, q3, r9
             vshl.i32 q2, q2, #15
             vshl.i32 q3, q3, #15
             vqdmulh.s32 q2, q2, r10
             vqdmulh.s32 q3, q3, r10
             cbz r5, 5f
             vrshl.s32 q2, r11
             vrshl.s32 q3, r11
             b 6f
             5:
             vshl.s32 q2, r11
             vshl.s32 q3, r11
             6:
             vadd.i32 q2, q2, r12
             vadd.i32 q3, q3, r12
            ",
            divide!("q2[2], q2[0]"),
            divide!("q2[3], q2[1]"),
            divide!("q3[2], q3[0]"),
            divide!("q3[3], q3[1]"),
            "vadd.i32 q2, q2, lr
             vadd.i32 q3, q3, lr
             vmax.s32 q2, q2, q4
             vmax.s32 q3, q3, q4
             vmin.s32 q2, q2, q5
             vmin.s32 q3, q3, q5
             vmovnt.i32 q2, q3
             vstrb.16 q2, ",
            $y,
            "\n"
        )
    };
}

/// Divides two lanes by r3.
macro_rules! divide {
    ($lanes:literal) => {
        concat!("vmov r1, r4, ", $lanes, "\nudiv r1, r1, r3\nudiv r4, r4, r3\nvmov ", $lanes, ", r1, r4\n")
    };
}

/// Means of all channels of a window: 6 instructions for 16 elements, and some 90 for 16 means.
#[unsafe(naked)]
unsafe extern "C" fn means(block: *mut Block) {
    naked_asm!(
        extension!(),
        "push {{r4-r11, lr}}",
        "vpush {{d8-d11}}",
        "vldrw.u32 q4, [r0, #{clamp}]",
        "vldrw.u32 q5, [r0, #{clamp} + 16]",
        "ldrd r8, r6, [r0, #{x}]",
        "ldr r7, [r0, #{channels}]",
        "ldr r9, [r0, #{offset}]",
        "ldr r10, [r0, #{mantissa}]",
        "ldrd r11, r12, [r0, #{shift}]",
        "2:",
        "vmov.i32 q0, #0",
        "vmov.i32 q1, #0",
        "ldrd r2, r5, [r0, #{channels}]",
        "ldr r3, [r0, #{rows}]",
        "mov r4, r8",
        "3:",
        "mov r1, r4",
        "ldr lr, [r0, #{cols}]",
        "dls lr, lr",
        "4:",
        "vldrb.s16 q2, [r1]",
        "vldrb.s16 q3, [r1, #8]",
        "add r1, r1, r2",
        "vadd.i16 q0, q0, q2",
        "vadd.i16 q1, q1, q3",
        "le lr, 4b",
        "add r4, r4, r5",
        "subs r3, r3, #1",
        "bne 3b",
        "ldrd r3, lr, [r0, #{count}]",
        "ldr r5, [r0, #{odd}]",
        finish!("q0", "[r6]"),
        finish!("q1", "[r6, #8]"),
        // The last channels are a vector too, which may begin among those before.
        "subs r7, r7, #16",
        "beq 7f",
        "mov r1, #16",
        "cmp r7, #16",
        "it lo",
        "movlo r1, r7",
        "add r8, r8, r1",
        "add r6, r6, r1",
        "it lo",
        "movlo r7, #16",
        "b 2b",
        "7:",
        "vpop {{d8-d11}}",
        "pop {{r4-r11, pc}}",
        x = const offset_of!(Block, x),
        channels = const offset_of!(Block, channels),
        rows = const offset_of!(Block, rows),
        cols = const offset_of!(Block, cols),
        offset = const offset_of!(Block, offset),
        mantissa = const offset_of!(Block, mantissa),
        shift = const offset_of!(Block, shift),
        count = const offset_of!(Block, count),
        odd = const offset_of!(Block, odd),
        clamp = const offset_of!(Block, clamp),
    )
}
