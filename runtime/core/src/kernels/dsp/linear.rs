//! Patches times filters. Functions take one argument, a [`Block`].

use core::arch::{asm, naked_asm};
use core::mem::offset_of;

use super::{extension, pair_by_4, quad_by_4};
use crate::kernels::channels::Output;
use crate::kernels::linear::{Linear, Place};
use crate::kernels::patches::{HEADER, PIXELS};
use crate::kernels::weights::{OCTET, Width};

/// What a kernel reads and writes. It moves `index`, and `y` if it stores sums, as it goes.
#[repr(C)]
struct Block {
    /// Patches of the pixels.
    patches: *const u32,
    /// Filters, one after the other.
    filters: *const u8,
    /// The end of a word for each filter.
    bias: *const i32,
    /// The end of a word for each filter.
    mantissas: *const i32,
    /// The end of a byte for each filter.
    shifts: *const i8,
    /// The end of the filters' outputs of the first pixel, or the first filter's sums.
    y: *mut u8,
    /// Distance of the pixels' outputs in bytes.
    stride: usize,
    /// Octets of a filter, at least 1.
    octets: usize,
    /// The filter in work, counted from the end: less than 0.
    index: isize,
    /// Twice the output's zero point, plus 1.
    rounding: i32,
    /// Where the filter in work ends, or what is left of it.
    end: usize,
}

/// Multiplies the patches of `P` pixels with filters whose channels are plain, for an output of 8 bits.
pub(in crate::kernels) fn multiply<W: Width, const P: usize>(
    linear: &Linear<'_, W>,
    work: &mut [u32],
    place: Place,
    y: &mut Output<'_>,
) -> Option<()> {
    let Place { pixel, first, end } = place;
    let count = end.checked_sub(first)?;
    let y = y.bytes_from(pixel.wrapping_mul(linear.out_channels).wrapping_add(first))?;
    let reach = linear.out_channels.wrapping_mul(P - 1).wrapping_add(count);
    let outputs = y.get_mut(..reach)?.as_mut_ptr().wrapping_add(count);
    let mut block = block(linear, work, P, first, end, outputs)?;
    // SAFETY: see `block`; `y` has every byte of `count` neighbours in each of P pixels `stride` apart, and those of the first
    // end at `outputs`.
    unsafe {
        match (W::PACKED, P) {
            (false, PIXELS) => int8_by_4(&raw mut block),
            (false, _) => int8_by_1(&raw mut block),
            (true, PIXELS) => int4_by_4(&raw mut block),
            (true, _) => int4_by_1(&raw mut block),
        }
    }
    linear.channels.clamp_rows(y, [P, linear.out_channels, count])
}

/// As [`multiply`] of `pixels` pixels, one or [`PIXELS`], of any channels and for any output.
#[inline(never)]
pub(in crate::kernels) fn multiply_any<W: Width>(
    linear: &Linear<'_, W>,
    work: &mut [u32],
    pixels: usize,
    place: Place,
    y: &mut Output<'_>,
) -> Option<()> {
    /// Filters at a time.
    const FILTERS: usize = 8;
    let pixels = if pixels == PIXELS { PIXELS } else { 1 };
    let mut sums = [0i32; PIXELS * FILTERS];
    for first in (place.first..place.end).step_by(FILTERS) {
        let end = place.end.min(first.wrapping_add(FILTERS));
        let mut block = block(linear, work, pixels, first, end, sums.as_mut_ptr().cast())?;
        // SAFETY: see `block`; `sums` has `pixels` words for each of at most FILTERS filters.
        unsafe {
            match (W::PACKED, pixels) {
                (false, PIXELS) => int8_by_4_sums(&raw mut block),
                (false, _) => int8_by_1_sums(&raw mut block),
                (true, PIXELS) => int4_by_4_sums(&raw mut block),
                (true, _) => int4_by_1_sums(&raw mut block),
            }
        }
        for (o, sums) in (first..end).zip(sums.chunks(pixels)) {
            for (i, &sum) in sums.iter().enumerate() {
                let at = place.pixel.wrapping_add(i).wrapping_mul(linear.out_channels).wrapping_add(o);
                y.put(at, linear.channels.finish_biased(o, sum)?)?;
            }
        }
    }
    Some(())
}

/// What a kernel takes, for the patches of P pixels and the filters `first..end`, of which there is one at least: all
/// but `y` is as long as it says. `patches` has 4·P words for each of `octets` octets (and, with packed weights, a header of
/// P words before them: the last of HEADER words, see [`sums`]); `filters` has `count` rows of `octets` octets, in words
/// aligned to 4 (constants are, and rows are whole octets); `count` elements of `bias`, `mantissas` and `shifts` lie before
/// these pointers, and `index` is minus `count`.
#[inline]
fn block<W: Width>(
    linear: &Linear<'_, W>,
    work: &mut [u32],
    pixels: usize,
    first: usize,
    end: usize,
    y: *mut u8,
) -> Option<Block> {
    let Linear { weights, ref channels, filter_len, out_channels } = *linear;
    let count = end.checked_sub(first).filter(|&count| count > 0)?;
    let octets = filter_len / OCTET;
    let (header, words) = work.split_first_chunk_mut::<HEADER>()?;
    let words = words.get(..octets.wrapping_mul(4).wrapping_mul(pixels)).filter(|words| !words.is_empty())?;
    if W::PACKED {
        *header = sums(words, pixels);
    }
    Some(Block {
        patches: words.as_ptr(),
        filters: weights.range(first, end)?.as_ptr().cast(),
        bias: channels.bias.get(first..end)?.as_ptr_range().end,
        mantissas: channels.mantissas.get(first..end)?.as_ptr_range().end,
        shifts: channels.shifts.get(first..end)?.as_ptr_range().end,
        y,
        stride: out_channels,
        octets,
        index: (count as isize).wrapping_neg(),
        rounding: channels.zero_point.wrapping_mul(2).wrapping_add(1),
        end: 0,
    })
}

/// 8 · Σ x of each pixel, the last pixel's in the last word: what packed weights, stored as w + 8, make too much.
#[inline(never)]
fn sums(words: &[u32], pixels: usize) -> [u32; HEADER] {
    let mut totals = [0u32; HEADER];
    let (rows, _) = words.as_chunks::<{ HEADER }>();
    for &[a, b, c, d] in rows {
        let [ta, tb, tc, td] = &mut totals;
        // SAFETY: arithmetic on registers; no memory or stack. It may set the Q flag, which nothing reads.
        unsafe {
            asm!(
                "smlad {ta}, {a}, {eights}, {ta}",
                "smlad {tb}, {b}, {eights}, {tb}",
                "smlad {tc}, {c}, {eights}, {tc}",
                "smlad {td}, {d}, {eights}, {td}",
                a = in(reg) a, b = in(reg) b, c = in(reg) c, d = in(reg) d,
                ta = inout(reg) *ta, tb = inout(reg) *tb, tc = inout(reg) *tc, td = inout(reg) *td,
                eights = in(reg) 0x0008_0008u32,
                options(pure, nomem, nostack),
            );
        }
    }
    if pixels == 1 {
        // One pixel's words in turns.
        totals[HEADER - 1] = totals.iter().fold(0, |sum: u32, &total| sum.wrapping_add(total));
    }
    totals
}

/// Multiplies the next octet of weights with four pixels; leaves the flags.
macro_rules! octet_by_4 {
    () => {
        concat!(quad_by_4!(), "\n", quad_by_4!())
    };
}

/// Multiplies the quads of weights in `$a` and `$b` with one pixel.
macro_rules! quads_by_1 {
    ($a:literal, $b:literal) => {
        concat!(
            "ldm r10!, {{r5, r6, r7, r8}}\n",
            "sxtb16 r9, ",
            $a,
            "\n smlad r0, r9, r5, r0\n",
            "sxtb16 r9, ",
            $a,
            ", ror #8\n smlad r0, r9, r6, r0\n",
            "sxtb16 r9, ",
            $b,
            "\n smlad r0, r9, r7, r0\n",
            "sxtb16 r9, ",
            $b,
            ", ror #8\n smlad r0, r9, r8, r0\n",
        )
    };
}

/// Multiplies an octet of 4-bit weights with one pixel.
macro_rules! octet_by_1 {
    ($word:literal) => {
        concat!(
            "ldm r10!, {{r5, r6, r7, r8}}\n",
            "and r9, r12, ",
            $word,
            "\n smlad r0, r9, r5, r0\n",
            "and r9, r12, ",
            $word,
            ", lsr #4\n smlad r0, r9, r6, r0\n",
            "and r9, r12, ",
            $word,
            ", lsr #8\n smlad r0, r9, r7, r0\n",
            "and r9, r12, ",
            $word,
            ", lsr #12\n smlad r0, r9, r8, r0\n",
        )
    };
}

/// Takes the bias of the filter that r4 counts to a register.
macro_rules! bias {
    ($to:literal) => {
        concat!("ldr ", $to, ", [lr, #.Lbias]\nldr ", $to, ", [", $to, ", r4, lsl #2]")
    };
}

/// Takes the filter's index to r4, its mantissa to r5, the shift of its high word to r6, and what rounds it to r7.
macro_rules! multiplier {
    () => {
        "ldr r4, [lr, #.Lindex]
         ldr r5, [lr, #.Lmantissas]
         ldr r5, [r5, r4, lsl #2]
         ldr r6, [lr, #.Lshifts]
         ldrsb r6, [r6, r4]
         ldr r7, [lr, #.Lrounding]
         sub r8, r6, #2
         lsl r7, r7, r8
         sub r6, r6, #1
        "
    };
}

/// Requantizes a sum: `(⌊sum · mantissa / 2^32⌋ + rounding) >> shift`, saturated to 8 bits.
macro_rules! requantize {
    ($sum:literal) => {
        concat!(
            "smmla ",
            $sum,
            ", ",
            $sum,
            ", r5, r7\n",
            "asr ",
            $sum,
            ", ",
            $sum,
            ", r6\n",
            "ssat ",
            $sum,
            ", #8, ",
            $sum,
            "\n",
        )
    };
}

/// Requantizes r0 to r3, one filter's sums of four pixels, and stores them.
macro_rules! finish_by_4 {
    () => {
        concat!(
            multiplier!(),
            requantize!("r0"),
            requantize!("r1"),
            requantize!("r2"),
            requantize!("r3"),
            "ldr r5, [lr, #.Ly]
             ldr r6, [lr, #.Lstride]
             add r5, r5, r4
             strb r0, [r5]
             strb r1, [r5, r6]
             add r5, r5, r6, lsl #1
             strb r2, [r5]
             strb r3, [r5, r6]
            "
        )
    };
}

/// Requantizes r0, one filter's sum of one pixel, and stores it.
macro_rules! finish_by_1 {
    () => {
        concat!(
            multiplier!(),
            requantize!("r0"),
            "ldr r5, [lr, #.Ly]
             strb r0, [r5, r4]
            "
        )
    };
}

/// Stores r0 to r3 as they are.
macro_rules! store_by_4 {
    () => {
        "ldr r4, [lr, #.Ly]
         stm r4!, {{r0, r1, r2, r3}}
         str r4, [lr, #.Ly]
         ldr r4, [lr, #.Lindex]"
    };
}

/// Stores r0 as it is.
macro_rules! store_by_1 {
    () => {
        "ldr r4, [lr, #.Ly]
         str r0, [r4], #4
         str r4, [lr, #.Ly]
         ldr r4, [lr, #.Lindex]"
    };
}

/// A function that takes a [`Block`]: `$line`s for each filter, with its weights at r11 and the block at lr. They begin and end
/// with the filter's index in r4.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $($line:expr),* $(,)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "C" fn $name(block: *mut Block) {
            naked_asm!(
                extension!(),
                ".set .Lpatches, {patches}",
                ".set .Lfilters, {filters}",
                ".set .Lbias, {bias}",
                ".set .Lmantissas, {mantissas}",
                ".set .Lshifts, {shifts}",
                ".set .Ly, {y}",
                ".set .Lstride, {stride}",
                ".set .Loctets, {octets}",
                ".set .Lindex, {index}",
                ".set .Lrounding, {rounding}",
                ".set .Lend, {end}",
                "push {{r4-r11, lr}}",
                "mov lr, r0",
                "ldr r11, [lr, #.Lfilters]",
                "ldr r4, [lr, #.Lindex]",
                "2:",
                $($line,)*
                "adds r4, r4, #1",
                "str r4, [lr, #.Lindex]",
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
                index = const offset_of!(Block, index),
                rounding = const offset_of!(Block, rounding),
                end = const offset_of!(Block, end),
            )
        }
    };
}

/// Two functions that take a [`Block`]: one that requantizes to bytes, and one that stores sums, bias included: words, the
/// pixels of a filter one after the other.
macro_rules! kernels {
    ($(#[$doc:meta])* $name:ident, $sums:ident, $($line:expr),*; $finish:expr, $store:expr) => {
        kernel! { $(#[$doc])* $name, $($line,)* $finish }
        kernel! { $(#[$doc])* $sums, $($line,)* $store }
    };
}

kernels! {
    /// Weights of 8 bits, four pixels: 54 instructions for 64 products.
    int8_by_4, int8_by_4_sums,
    bias!("r0"),
    "ldr r10, [lr, #.Lpatches]",
    "ldr r12, [lr, #.Loctets]",
    "mov r1, r0",
    "mov r2, r0",
    "mov r3, r0",
    "lsrs r12, r12, #1",
    "bcc 3f",
    octet_by_4!(),
    "beq 4f",
    "3:",
    octet_by_4!(),
    octet_by_4!(),
    "subs r12, r12, #1",
    "bne 3b",
    "4:";
    finish_by_4!(), store_by_4!()
}

kernels! {
    /// Weights of 8 bits, one pixel: 40 instructions for 32 products.
    int8_by_1, int8_by_1_sums,
    bias!("r0"),
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
    "6:";
    finish_by_1!(), store_by_1!()
}

kernels! {
    /// Weights of 4 bits, four pixels: 28 instructions for 32 products. Weights are stored as w + 8, which the header takes
    /// off.
    int4_by_4, int4_by_4_sums,
    bias!("r8"),
    "ldr r4, [lr, #.Loctets]",
    "add r4, r11, r4, lsl #2",
    "str r4, [lr, #.Lend]",
    "mov r12, #0x000F000F",
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
    "bne 3b";
    finish_by_4!(), store_by_4!()
}

kernels! {
    /// Weights of 4 bits, one pixel: 41 instructions for 32 products.
    int4_by_1, int4_by_1_sums,
    "ldr r10, [lr, #.Lpatches]",
    "ldr r5, [r10, #-4]",
    bias!("r0"),
    "sub r0, r0, r5",
    "mov r12, #0x000F000F",
    "ldr r9, [lr, #.Loctets]",
    "b 4f",
    "3:",
    "ldm r11!, {{r1, r2, r3, r4}}",
    octet_by_1!("r1"),
    octet_by_1!("r2"),
    octet_by_1!("r3"),
    octet_by_1!("r4"),
    "ldr r9, [lr, #.Lend]",
    "4:",
    "subs r9, r9, #4",
    "str r9, [lr, #.Lend]",
    "bhs 3b",
    "adds r2, r9, #4",
    "beq 6f",
    "5:",
    "ldr r1, [r11], #4",
    octet_by_1!("r1"),
    "subs r2, r2, #1",
    "bne 5b",
    "6:";
    finish_by_1!(), store_by_1!()
}
