//! Powers of two of a softmax.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::extension;
use crate::kernels::fixed::COEFFICIENTS;
use crate::quant::Multiplier;

/// What the kernel reads and writes.
#[repr(C)]
struct Block {
    x: *mut u32,
    y: *mut u8,
    end: *mut u32,
    max: u32,
    mantissa: u32,
    /// Bits of the high word of a product that are not its exponent.
    down: u32,
    /// What is left for them.
    up: u32,
    sum: [u32; 2],
    /// The last coefficient doubled, and those before it.
    coefficients: [i32; COEFFICIENTS.len()],
}

/// Makes of each element the mantissa of the power of its distance from `max`, as [`crate::kernels::fixed::exp2_neg`] has
/// it, and of the byte beside it the exponent; returns their sum with 40 fraction bits. `None`, and nothing is done, for
/// multipliers of 1/2 and above.
pub(in crate::kernels) fn powers(x: &mut [u32], y: &mut [u8], max: u32, multiplier: Multiplier) -> Option<u64> {
    let down = u32::try_from(multiplier.shift).ok()?.checked_sub(1).filter(|&down| down < 31)?;
    let count = x.len().min(y.len());
    if count == 0 {
        return Some(0);
    }
    let [c0, c1, c2, c3, c4, c5] = COEFFICIENTS;
    let x = x.as_mut_ptr();
    let mut block = Block {
        x,
        y: y.as_mut_ptr(),
        end: x.wrapping_add(count),
        max,
        mantissa: multiplier.mantissa as u32,
        down,
        up: 31 - down,
        sum: [0; 2],
        coefficients: [c5.wrapping_mul(2), c4, c3, c2, c1, c0],
    };
    // SAFETY: `x` has `count` words, up to `end`, and `y` as many bytes; `count` is at least 1.
    unsafe { kernel(&raw mut block) };
    let [low, high] = block.sum.map(u64::from);
    Some(high << 32 | low)
}

/// Doubles the sum in r11, multiplies it with the fraction in r10 and adds the coefficient at `$at`.
macro_rules! next {
    ($at:literal) => {
        concat!("lsl r11, r11, #1\nldr r12, [lr, #{coefficients} + ", $at, "]\nsmmla r11, r11, r10, r12")
    };
}

/// 45 instructions for a power. Shifts by registers look at the lowest byte: by 32 and more, or less than 0, they leave 0.
#[unsafe(naked)]
unsafe extern "C" fn kernel(block: *mut Block) {
    naked_asm!(
        extension!(),
        "push {{r4-r11, lr}}",
        "mov lr, r0",
        "ldr r1, [lr, #{y}]",
        "ldr r2, [lr, #{end}]",
        "ldr r3, [lr, #{max}]",
        "ldr r4, [lr, #{mantissa}]",
        "ldr r5, [lr, #{down}]",
        "ldr r6, [lr, #{up}]",
        "ldr r0, [lr, #{x}]",
        "mov r8, #0",
        "mov r9, #0",
        "2:",
        "ldr r10, [r0]",
        "sub r10, r3, r10",
        "umull r10, r11, r10, r4",
        "lsr r12, r11, r5",
        "cmp r12, #64",
        "bhs 4f",
        "strb r12, [r1]",
        "lsl r11, r11, r6",
        "lsr r10, r10, r5",
        "orr r10, r11, r10, lsr #1",
        "bic r10, r10, #0x80000000",
        "ldr r11, [lr, #{coefficients}]",
        "ldr r12, [lr, #{coefficients} + 4]",
        "smmla r11, r11, r10, r12",
        next!("8"),
        next!("12"),
        next!("16"),
        next!("20"),
        "smull r12, r11, r11, r10",
        "lsr r12, r12, #31",
        "orr r12, r12, r11, lsl #1",
        "eor r12, r12, #0x80000000",
        "str r12, [r0], #4",
        // The mantissa, 9 bits up and the exponent down again.
        "ldrb r10, [r1], #1",
        "rsb r7, r10, #9",
        "lsl r7, r12, r7",
        "sub r11, r10, #9",
        "lsr r11, r12, r11",
        "orr r7, r7, r11",
        "add r10, r10, #23",
        "lsr r12, r12, r10",
        "adds r8, r8, r7",
        "adc r9, r9, r12",
        "3:",
        "cmp r0, r2",
        "bne 2b",
        "strd r8, r9, [lr, #{sum}]",
        "pop {{r4-r11, pc}}",
        "4:",
        "mov r12, #0",
        "str r12, [r0], #4",
        "strb r12, [r1], #1",
        "b 3b",
        x = const offset_of!(Block, x),
        y = const offset_of!(Block, y),
        end = const offset_of!(Block, end),
        max = const offset_of!(Block, max),
        mantissa = const offset_of!(Block, mantissa),
        down = const offset_of!(Block, down),
        up = const offset_of!(Block, up),
        sum = const offset_of!(Block, sum),
        coefficients = const offset_of!(Block, coefficients),
    )
}
