//! Kernels in the instructions of Arm's DSP extension (Cortex-M4, M7, M33 and later): two 16-bit multiply-accumulates at
//! once.
//!
//! Functions are written whole (`naked`), since the compiler keeps two of the core's registers for itself otherwise. They
//! take one argument, a [`Block`], and follow the procedure call standard: they save what they change.
#![allow(unsafe_code)]

use core::arch::{asm, naked_asm};
use core::mem::offset_of;

use super::channels::Output;
use super::linear::{Linear, Place};
use super::patches::{HEADER, PIXELS};
use super::weights::{OCTET, Width};

/// What a kernel reads and writes. It moves the pointers as it goes.
#[repr(C)]
struct Block {
    /// Patches of the pixels.
    patches: *const u32,
    /// Filters, one after the other.
    filters: *const u8,
    /// A word for each filter.
    bias: *const i32,
    /// A word for each filter.
    mantissas: *const i32,
    /// A byte for each filter.
    shifts: *const i8,
    /// The first filter's output of the first pixel.
    y: *mut u8,
    /// Distance of the pixels' outputs in bytes.
    stride: usize,
    /// Octets of a filter, at least 1.
    octets: usize,
    /// Filters, at least 1.
    count: usize,
    /// Twice the output's zero point, plus 1.
    rounding: i32,
    /// Where the filter in work ends.
    end: *const u8,
}

/// Elements 0 and 2 of a quad, and elements 1 and 3.
#[inline(always)]
pub(super) fn widened(quad: [i8; 4]) -> [u32; 2] {
    let word = u32::from_le_bytes(quad.map(|x| x as u8));
    let (even, odd): (u32, u32);
    // SAFETY: arithmetic on registers; no memory, stack or flags.
    unsafe {
        asm!("sxtb16 {}, {}", out(reg) even, in(reg) word, options(pure, nomem, nostack, preserves_flags));
        asm!("sxtb16 {}, {}, ror #8", out(reg) odd, in(reg) word, options(pure, nomem, nostack, preserves_flags));
    }
    [even, odd]
}

/// `acc` plus the products of both halves.
#[inline(always)]
fn multiply_add(x: u32, w: u32, acc: u32) -> u32 {
    let sum;
    // SAFETY: arithmetic on registers; no memory or stack. It may set the Q flag, which nothing reads.
    unsafe {
        asm!("smlad {}, {}, {}, {}", out(reg) sum, in(reg) x, in(reg) w, in(reg) acc, options(pure, nomem, nostack));
    }
    sum
}

/// Multiplies the patches of `P` pixels with filters whose channels are plain, for an output of 8 bits.
pub(super) fn multiply<W: Width, const P: usize>(
    linear: &Linear<'_, W>,
    work: &mut [u32],
    place: Place,
    y: &mut Output<'_>,
) -> Option<()> {
    let Linear { weights, channels, filter_len, out_channels } = *linear;
    let Place { pixel, first, end } = place;
    let count = end.checked_sub(first).filter(|&count| count > 0)?;
    let octets = filter_len / OCTET;
    let filters = weights.range(first, end)?;
    let (header, words) = work.split_first_chunk_mut::<HEADER>()?;
    let words = words.get(..octets.wrapping_mul(4 * P)).filter(|words| !words.is_empty())?;
    if W::PACKED {
        *header = sums::<P>(words);
    }
    let y = y.bytes_from(pixel.wrapping_mul(out_channels).wrapping_add(first))?;
    let reach = out_channels.wrapping_mul(P - 1).wrapping_add(count);
    let mut block = Block {
        patches: words.as_ptr(),
        filters: filters.as_ptr().cast(),
        bias: channels.bias.get(first..end)?.as_ptr(),
        mantissas: channels.mantissas.get(first..end)?.as_ptr(),
        shifts: channels.shifts.get(first..end)?.as_ptr(),
        y: y.get_mut(..reach)?.as_mut_ptr(),
        stride: out_channels,
        octets,
        count,
        rounding: channels.zero_point.wrapping_mul(2).wrapping_add(1),
        end: core::ptr::null(),
    };
    // SAFETY: `patches` has 4·P words for each of `octets` octets (and, with packed weights, a header of P words before
    // them: the last of HEADER words, see `sums`); `filters` has `count` rows of `octets` octets, which are words aligned
    // to 4 (constants are, and rows are whole octets); `bias`, `mantissas` and `shifts` have `count` elements; `y` has
    // every byte of `count` neighbours in each of P pixels `stride` apart. All were sliced to these lengths above.
    unsafe {
        match (W::PACKED, P) {
            (false, PIXELS) => int8_by_4(&raw mut block),
            (false, _) => int8_by_1(&raw mut block),
            (true, PIXELS) => int4_by_4(&raw mut block),
            (true, _) => int4_by_1(&raw mut block),
        }
    }
    channels.clamp_rows(y, [P, out_channels, count])
}

/// 8 · Σ x of each pixel, the last pixel's in the last word: what packed weights, stored as w + 8, make too much.
#[inline(never)]
fn sums<const P: usize>(words: &[u32]) -> [u32; HEADER] {
    const EIGHTS: u32 = 0x0008_0008;
    let mut totals = [0u32; P];
    for pixels in words.as_chunks::<P>().0 {
        for (total, &x) in totals.iter_mut().zip(pixels) {
            *total = multiply_add(x, EIGHTS, *total);
        }
    }
    let mut header = [0; HEADER];
    for (slot, total) in header.iter_mut().rev().zip(totals.into_iter().rev()) {
        *slot = total;
    }
    header
}

/// Multiplies a pair of weights in r9 with four pixels.
macro_rules! pair_by_4 {
    () => {
        "ldm r10!, {{r4, r5, r6, r7}}
         smlad r0, r9, r4, r0
         smlad r1, r9, r5, r1
         smlad r2, r9, r6, r2
         smlad r3, r9, r7, r3"
    };
}

/// Multiplies the quads of weights in `$a` and `$b` with one pixel.
macro_rules! quads_by_1 {
    ($a:literal, $b:literal) => {
        concat!(
            "ldm r10!, {{r5, r6, r7, r8}}\n",
            "sxtb16 r9, ", $a, "\n smlad r0, r9, r5, r0\n",
            "sxtb16 r9, ", $a, ", ror #8\n smlad r0, r9, r6, r0\n",
            "sxtb16 r9, ", $b, "\n smlad r0, r9, r7, r0\n",
            "sxtb16 r9, ", $b, ", ror #8\n smlad r0, r9, r8, r0\n",
        )
    };
}

/// Takes the next element at the pointer `$field` to `$to`, through r4.
macro_rules! next {
    ($load:literal, $to:literal, $field:literal, $size:literal) => {
        concat!("ldr r4, [lr, #.L", $field, "]\n", $load, " ", $to, ", [r4], #", $size, "\n str r4, [lr, #.L", $field, "]")
    };
}

/// Takes the next filter's mantissa to r5, the shift of its high word to r6, and what rounds it to r7.
macro_rules! next_multiplier {
    () => {
        concat!(
            next!("ldr", "r5", "mantissas", "4"),
            "\n",
            next!("ldrsb", "r6", "shifts", "1"),
            "
             ldr r7, [lr, #.Lrounding]
             sub r4, r6, #2
             lsl r7, r7, r4
             sub r6, r6, #1
            "
        )
    };
}

/// Requantizes a sum: `(⌊sum · mantissa / 2^32⌋ + rounding) >> shift`, saturated to 8 bits.
macro_rules! requantize {
    ($sum:literal) => {
        concat!(
            "smmul ", $sum, ", ", $sum, ", r5\n",
            "add ", $sum, ", ", $sum, ", r7\n",
            "asr ", $sum, ", ", $sum, ", r6\n",
            "ssat ", $sum, ", #8, ", $sum, "\n",
        )
    };
}

/// Requantizes r0 to r3, one filter's sums of four pixels, and stores them.
macro_rules! finish_by_4 {
    () => {
        concat!(
            next_multiplier!(),
            requantize!("r0"),
            requantize!("r1"),
            requantize!("r2"),
            requantize!("r3"),
            "ldr r4, [lr, #.Ly]
             ldr r5, [lr, #.Lstride]
             strb r0, [r4]
             strb r1, [r4, r5]
             add r6, r4, r5, lsl #1
             strb r2, [r6]
             strb r3, [r6, r5]
             add r4, r4, #1
             str r4, [lr, #.Ly]
            "
        )
    };
}

/// Requantizes r0, one filter's sum of one pixel, and stores it.
macro_rules! finish_by_1 {
    () => {
        concat!(
            next_multiplier!(),
            requantize!("r0"),
            "ldr r4, [lr, #.Ly]
             strb r0, [r4], #1
             str r4, [lr, #.Ly]
            "
        )
    };
}

/// A function that takes a [`Block`]: `$line`s for each filter, with its weights at r11 and the block at lr.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $($line:expr),* $(,)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "C" fn $name(block: *mut Block) {
            naked_asm!(
                ".set .Lpatches, {patches}",
                ".set .Lfilters, {filters}",
                ".set .Lbias, {bias}",
                ".set .Lmantissas, {mantissas}",
                ".set .Lshifts, {shifts}",
                ".set .Ly, {y}",
                ".set .Lstride, {stride}",
                ".set .Loctets, {octets}",
                ".set .Lcount, {count}",
                ".set .Lrounding, {rounding}",
                ".set .Lend, {end}",
                "push {{r4-r11, lr}}",
                "mov lr, r0",
                "ldr r11, [lr, #.Lfilters]",
                "2:",
                $($line,)*
                "ldr r4, [lr, #.Lcount]",
                "subs r4, r4, #1",
                "str r4, [lr, #.Lcount]",
                "bne 2b",
                "pop {{r4-r11, pc}}",
                patches = const offset_of!(Block, patches),
                filters = const offset_of!(Block, filters),
                bias = const offset_of!(Block, bias),
                mantissas = const offset_of!(Block, mantissas),
                shifts = const offset_of!(Block, shifts),
                y = const offset_of!(Block, y),
                stride = const offset_of!(Block, stride),
                octets = const offset_of!(Block, octets),
                count = const offset_of!(Block, count),
                rounding = const offset_of!(Block, rounding),
                end = const offset_of!(Block, end),
            )
        }
    };
}

kernel! {
    /// Weights of 8 bits, four pixels: 28 instructions for 32 products.
    int8_by_4,
    next!("ldr", "r0", "bias", "4"),
    "ldr r10, [lr, #.Lpatches]",
    "ldr r12, [lr, #.Loctets]",
    "mov r1, r0",
    "mov r2, r0",
    "mov r3, r0",
    "3:",
    "ldr r8, [r11], #4",
    "sxtb16 r9, r8",
    pair_by_4!(),
    "sxtb16 r9, r8, ror #8",
    pair_by_4!(),
    "ldr r8, [r11], #4",
    "sxtb16 r9, r8",
    pair_by_4!(),
    "sxtb16 r9, r8, ror #8",
    pair_by_4!(),
    "subs r12, r12, #1",
    "bne 3b",
    finish_by_4!(),
}

kernel! {
    /// Weights of 8 bits, one pixel: 40 instructions for 32 products.
    int8_by_1,
    next!("ldr", "r0", "bias", "4"),
    "ldr r10, [lr, #.Lpatches]",
    "ldr r12, [lr, #.Loctets]",
    "subs r12, r12, #4",
    "blo 4f",
    "3:",
    "ldm r11!, {{r1, r2, r3, r4}}",
    quads_by_1!("r1", "r2"),
    quads_by_1!("r3", "r4"),
    "ldm r11!, {{r1, r2, r3, r4}}",
    quads_by_1!("r1", "r2"),
    quads_by_1!("r3", "r4"),
    "subs r12, r12, #4",
    "bhs 3b",
    "4:",
    "adds r12, r12, #4",
    "beq 6f",
    "5:",
    "ldm r11!, {{r1, r2}}",
    quads_by_1!("r1", "r2"),
    "subs r12, r12, #1",
    "bne 5b",
    "6:",
    finish_by_1!(),
}

kernel! {
    /// Weights of 4 bits, four pixels: 28 instructions for 32 products. Weights are stored as w + 8, which the header takes
    /// off.
    int4_by_4,
    "ldr r4, [lr, #.Loctets]",
    "add r4, r11, r4, lsl #2",
    "str r4, [lr, #.Lend]",
    "mov r12, #0x000F000F",
    next!("ldr", "r8", "bias", "4"),
    "ldr r10, [lr, #.Lpatches]",
    "sub r10, r10, #16",
    "ldm r10!, {{r4, r5, r6, r7}}",
    "sub r0, r8, r4",
    "sub r1, r8, r5",
    "sub r2, r8, r6",
    "sub r3, r8, r7",
    "3:",
    "ldr r8, [r11], #4",
    "and r9, r12, r8",
    pair_by_4!(),
    "and r9, r12, r8, lsr #4",
    pair_by_4!(),
    "and r9, r12, r8, lsr #8",
    pair_by_4!(),
    "and r9, r12, r8, lsr #12",
    pair_by_4!(),
    "ldr r9, [lr, #.Lend]",
    "cmp r11, r9",
    "bne 3b",
    finish_by_4!(),
}

kernel! {
    /// Weights of 4 bits, one pixel: 12 instructions for 8 products.
    int4_by_1,
    "ldr r12, [lr, #.Loctets]",
    "mov r3, #0x000F000F",
    next!("ldr", "r0", "bias", "4"),
    "ldr r10, [lr, #.Lpatches]",
    "ldr r4, [r10, #-4]",
    "sub r0, r0, r4",
    "3:",
    "ldr r1, [r11], #4",
    "ldm r10!, {{r5, r6, r7, r8}}",
    "and r9, r3, r1",
    "smlad r0, r9, r5, r0",
    "and r9, r3, r1, lsr #4",
    "smlad r0, r9, r6, r0",
    "and r9, r3, r1, lsr #8",
    "smlad r0, r9, r7, r0",
    "and r9, r3, r1, lsr #12",
    "smlad r0, r9, r8, r0",
    "subs r12, r12, #1",
    "bne 3b",
    finish_by_1!(),
}
