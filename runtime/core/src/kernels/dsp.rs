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

/// Tells the assembler that the core has the extension: functions written whole are assembled for the least core of the
/// target.
#[cfg(dsp_optional)]
macro_rules! extension {
    () => {
        ".cpu cortex-m33"
    };
}
#[cfg(not(dsp_optional))]
macro_rules! extension {
    () => {
        ""
    };
}

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
    /// Where the filter in work ends, or what is left of it.
    end: usize,
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

/// Widens quads into those of a pixel: the pairs of each lie in words `pixel` and `pixel + W / 2`.
#[inline(always)]
pub(super) fn widen<const W: usize>(x: &[[i8; 4]], quads: &mut [[u32; W]], pixel: usize) -> Option<()> {
    let Some(count) = core::num::NonZeroUsize::new(x.len()) else { return Some(()) };
    let to = quads.get_mut(..count.get())?.as_flattened_mut().get_mut(pixel..)?;
    if pixel >= W / 2 {
        return None;
    }
    // SAFETY: reads the 4 bytes of each of `count` quads of `x`, at any alignment, and writes two words for each of
    // `count` arrays of W words, W / 2 apart: the last lies W / 2 words before the end of `to`, or `pixel` less. `count` is
    // at least 1.
    unsafe {
        asm!(
            "lsrs {count}, {count}, #1",
            "bcc 3f",
            "ldr {x}, [{from}], #4",
            "sxtb16 {pair}, {x}",
            "str {pair}, [{to}], #{half}",
            "sxtb16 {pair}, {x}, ror #8",
            "str {pair}, [{to}], #{half}",
            "beq 4f",
            "3:",
            "ldr {x}, [{from}], #4",
            "sxtb16 {pair}, {x}",
            "str {pair}, [{to}], #{half}",
            "sxtb16 {pair}, {x}, ror #8",
            "str {pair}, [{to}], #{half}",
            "ldr {x}, [{from}], #4",
            "sxtb16 {pair}, {x}",
            "str {pair}, [{to}], #{half}",
            "sxtb16 {pair}, {x}, ror #8",
            "str {pair}, [{to}], #{half}",
            "subs {count}, {count}, #1",
            "bne 3b",
            "4:",
            count = inout(reg) count.get() => _,
            from = inout(reg) x.as_ptr() => _,
            to = inout(reg) to.as_mut_ptr() => _,
            x = out(reg) _,
            pair = out(reg) _,
            half = const W / 2 * 4,
            options(nostack),
        );
    }
    Some(())
}

/// Widens the four bytes at the start of every `distance` bytes of `x`, for each of `to`.
#[inline(always)]
pub(super) fn widen_apart(x: &[i8], distance: usize, to: &mut [[u32; 2]]) -> Option<()> {
    let Some(last) = to.len().checked_sub(1) else { return Some(()) };
    x.get(..last.checked_mul(distance)?.checked_add(4)?)?;
    // SAFETY: reads 4 bytes, at any alignment, at `last` + 1 places `distance` apart, which lie in `x`, and writes as many
    // pairs of words: all of `to`.
    unsafe {
        asm!(
            "3:",
            "ldr {x}, [{from}]",
            "add {from}, {from}, {distance}",
            "sxtb16 {pair}, {x}",
            "str {pair}, [{to}], #4",
            "sxtb16 {pair}, {x}, ror #8",
            "str {pair}, [{to}], #4",
            "subs {count}, {count}, #1",
            "bne 3b",
            count = inout(reg) to.len() => _,
            from = inout(reg) x.as_ptr() => _,
            to = inout(reg) to.as_mut_ptr() => _,
            distance = in(reg) distance,
            x = out(reg) _,
            pair = out(reg) _,
            options(nostack),
        );
    }
    Some(())
}

/// Adds bytes with their signs to sums; both have as many quads.
pub(super) fn accumulate(x: &[[u8; 4]], sums: &mut [[i32; 4]]) {
    let count = x.len().min(sums.len());
    if count == 0 {
        return;
    }
    // SAFETY: reads `count` quads of `x`, at any alignment, and reads and writes as many of `sums`.
    unsafe {
        asm!(
            "3:",
            "ldr {x}, [{from}], #4",
            "ldm {sums}, {{r2, r3, r4, r5}}",
            "sxtab r2, r2, {x}",
            "sxtab r3, r3, {x}, ror #8",
            "sxtab r4, r4, {x}, ror #16",
            "sxtab r5, r5, {x}, ror #24",
            "stm {sums}!, {{r2, r3, r4, r5}}",
            "subs {count}, {count}, #1",
            "bne 3b",
            count = inout(reg) count => _,
            from = inout(reg) x.as_ptr() => _,
            sums = inout(reg) sums.as_mut_ptr() => _,
            x = out(reg) _,
            out("r2") _, out("r3") _, out("r4") _, out("r5") _,
            options(nostack),
        );
    }
}

/// Multiplies the patches of `P` pixels with filters whose channels are plain, for an output of 8 bits.
pub(super) fn multiply<W: Width, const P: usize>(
    linear: &Linear<'_, W>,
    work: &mut [u32],
    place: Place,
    y: &mut Output<'_>,
) -> Option<()> {
    let Place { pixel, first, end } = place;
    let count = end.checked_sub(first)?;
    let y = y.bytes_from(pixel.wrapping_mul(linear.out_channels).wrapping_add(first))?;
    let reach = linear.out_channels.wrapping_mul(P - 1).wrapping_add(count);
    let mut block = block(linear, work, P, first, end, y.get_mut(..reach)?.as_mut_ptr())?;
    // SAFETY: see `block`; `y` has every byte of `count` neighbours in each of P pixels `stride` apart.
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
pub(super) fn multiply_any<W: Width>(
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
/// aligned to 4 (constants are, and rows are whole octets); `bias`, `mantissas` and `shifts` have `count` elements.
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
        bias: channels.bias.get(first..end)?.as_ptr(),
        mantissas: channels.mantissas.get(first..end)?.as_ptr(),
        shifts: channels.shifts.get(first..end)?.as_ptr(),
        y,
        stride: out_channels,
        octets,
        count,
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

/// `y = (start + a · factors[0] + b · factors[1]) / 2^(32 + shift)`, rounded down and saturated to 8 bits, element by element;
/// products are taken of elements times 2^24.
#[repr(C)]
pub(super) struct Sums {
    /// What every sum begins with.
    pub(super) start: i64,
    pub(super) factors: [i32; 2],
    /// Shift of the high word, below 32.
    pub(super) shift: u32,
}

/// What the kernel of element-wise sums reads and writes.
#[repr(C)]
struct SumBlock<'s> {
    a: *const u8,
    b: *const u8,
    y: *mut u8,
    /// Quads, at least 1.
    count: usize,
    sums: &'s Sums,
}

/// Adds `quads` quads in memory; the offsets of `a`, `b` and `y` are given, and `y` may take the place of either.
pub(super) fn add(arena: &mut [u8], [a, b, y]: [usize; 3], quads: usize, sums: &Sums) -> Option<()> {
    let len = quads.checked_mul(4).filter(|&len| len > 0)?;
    for start in [a, b, y] {
        arena.get(start..start.checked_add(len)?)?;
    }
    let memory = arena.as_mut_ptr();
    // SAFETY: all three offsets lie within the arena.
    let [a, b, y] = unsafe { [memory.add(a), memory.add(b), memory.add(y)] };
    let mut block = SumBlock { a, b, y, count: quads, sums };
    // SAFETY: `a`, `b` and `y` have 4 · `count` bytes of one borrowed slice each; a quad is read before it is written.
    unsafe { add_quads(&raw mut block) };
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
unsafe extern "C" fn add_quads(block: *mut SumBlock<'_>) {
    naked_asm!(
        extension!(),
        "push {{r0, r4-r11, lr}}",
        "ldr r4, [r0, #{a}]",
        "ldr r5, [r0, #{b}]",
        "ldr lr, [r0, #{sums}]",
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
        a = const offset_of!(SumBlock<'_>, a),
        b = const offset_of!(SumBlock<'_>, b),
        y = const offset_of!(SumBlock<'_>, y),
        count = const offset_of!(SumBlock<'_>, count),
        sums = const offset_of!(SumBlock<'_>, sums),
        factors = const offset_of!(Sums, factors),
        shift = const offset_of!(Sums, shift),
    )
}

/// What a row of outputs of a depthwise convolution reads; see [`super::strips`].
pub(super) struct Row<'s> {
    pub(super) channels: &'s [u32],
    pub(super) weights: &'s [[u32; 2]],
    pub(super) pixels: &'s [[u32; 2]],
    pub(super) columns: usize,
}

/// What the depthwise kernel reads and writes.
#[repr(C)]
struct RowBlock {
    /// Four words of bias; mantissa and rounding of each channel in turns; four words of shifts.
    channels: *const u32,
    /// Weights of the taps, two words each.
    weights: *const [u32; 2],
    /// The first output's window.
    pixels: *const [u32; 2],
    y: *mut u8,
    /// Distance of the outputs in bytes.
    stride: usize,
    /// Distance of the windows in bytes.
    step: usize,
    /// From the end of a window's row to the next row, in bytes.
    skip: usize,
    rows: usize,
    cols: usize,
    /// Outputs of a row, at least 1.
    outputs: usize,
    /// Outputs of the row that are left.
    count: usize,
    /// From a row's last window, and a step, to the next row's first, in bytes.
    next: usize,
    /// Rows of outputs, at least 1.
    output_rows: usize,
}

/// Computes `output_rows` rows of `outputs` outputs, `distance` bytes apart, of four channels.
pub(super) fn depthwise(
    row: &Row<'_>,
    [rows, cols]: [usize; 2],
    [stride_h, stride]: [usize; 2],
    [output_rows, outputs]: [usize; 2],
    y: &mut [u8],
    distance: usize,
) -> Option<()> {
    let (last_row, last) = (output_rows.checked_sub(1)?, outputs.checked_sub(1)?);
    let read = rows.checked_sub(1)?.wrapping_add(last_row.wrapping_mul(stride_h)).wrapping_mul(row.columns);
    row.pixels.get(..read.wrapping_add(last.wrapping_mul(stride)).wrapping_add(cols))?;
    row.weights.get(..rows.wrapping_mul(cols)).filter(|taps| !taps.is_empty())?;
    let channels = row.channels.first_chunk::<16>()?;
    let pixels = output_rows.wrapping_mul(outputs);
    let y = y.get_mut(..pixels.wrapping_sub(1).wrapping_mul(distance).wrapping_add(4))?;
    let mut block = RowBlock {
        channels: channels.as_ptr(),
        weights: row.weights.as_ptr(),
        pixels: row.pixels.as_ptr(),
        y: y.as_mut_ptr(),
        stride: distance,
        step: stride.wrapping_mul(8),
        skip: row.columns.checked_sub(cols)?.wrapping_mul(8),
        rows,
        cols,
        outputs,
        count: outputs,
        next: stride_h.wrapping_mul(row.columns).wrapping_sub(outputs.wrapping_mul(stride)).wrapping_mul(8),
        output_rows,
    };
    // SAFETY: `channels` has 16 words; `weights` two words for each of rows · cols taps, at least one; every window, `step`
    // bytes after the one before it and in rows of outputs `stride_h` rows apart, lies in `pixels`, whose rows are `skip`
    // bytes longer than the window's; `y` has four bytes for each output. All were checked above. Words need no alignment beyond that of u32, nor `y` any.
    unsafe { if [rows, cols] == [3, 3] { depthwise_3x3(&raw mut block) } else { depthwise_any(&raw mut block) } }
    Some(())
}

/// Multiplies the pixel at r8 and `$offset` with the weights at r9.
macro_rules! tap {
    ($pixel:literal) => {
        concat!(
            "ldrd r4, r5, ",
            $pixel,
            "
             ldrd r6, r7, [r9], #8
             smlabb r0, r4, r6, r0
             smlatt r2, r4, r6, r2
             smlabb r1, r5, r7, r1
             smlatt r3, r5, r7, r3
            "
        )
    };
}

/// A function that takes a [`RowBlock`]: `$line`s for the sums of each output, in r0 to r3, from the window at r8.
macro_rules! row_kernel {
    ($(#[$doc:meta])* $name:ident, $($line:expr),* $(,)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "C" fn $name(block: *mut RowBlock) {
            naked_asm!(
                extension!(),
                ".set .Lchannels, {channels}",
                ".set .Lweights, {weights}",
                ".set .Lpixels, {pixels}",
                ".set .Lrow_y, {y}",
                ".set .Lrow_stride, {stride}",
                ".set .Lstep, {step}",
                ".set .Lskip, {skip}",
                ".set .Lrows, {rows}",
                ".set .Lcols, {cols}",
                ".set .Lrow_count, {count}",
                ".set .Lnext, {next}",
                ".set .Loutputs, {outputs}",
                ".set .Loutput_rows, {output_rows}",
                "push {{r4-r11, lr}}",
                "mov lr, r0",
                "ldr r10, [lr, #.Lrow_y]",
                "ldr r11, [lr, #.Lskip]",
                "2:",
                "ldr r12, [lr, #.Lchannels]",
                "ldr r9, [lr, #.Lweights]",
                "ldr r8, [lr, #.Lpixels]",
                "ldm r12!, {{r0, r1, r2, r3}}",
                $($line,)*
                "ldm r12!, {{r4, r5, r6, r7}}",
                "smmla r0, r0, r4, r5",
                "smmla r1, r1, r6, r7",
                "ldm r12!, {{r4, r5, r6, r7}}",
                "smmla r2, r2, r4, r5",
                "smmla r3, r3, r6, r7",
                "ldm r12!, {{r4, r5, r6, r7}}",
                "asr r0, r0, r4",
                "asr r1, r1, r5",
                "asr r2, r2, r6",
                "asr r3, r3, r7",
                "ssat r0, #8, r0",
                "ssat r1, #8, r1",
                "ssat r2, #8, r2",
                "ssat r3, #8, r3",
                "pkhbt r0, r0, r2, lsl #16",
                "pkhbt r1, r1, r3, lsl #16",
                "uxtb16 r0, r0",
                "uxtb16 r1, r1",
                "orr r0, r0, r1, lsl #8",
                "str r0, [r10]",
                "ldr r4, [lr, #.Lrow_stride]",
                "add r10, r10, r4",
                "ldr r4, [lr, #.Lpixels]",
                "ldr r5, [lr, #.Lstep]",
                "add r4, r4, r5",
                "str r4, [lr, #.Lpixels]",
                "ldr r5, [lr, #.Lrow_count]",
                "subs r5, r5, #1",
                "str r5, [lr, #.Lrow_count]",
                "bne 2b",
                // The next row.
                "ldr r5, [lr, #.Lnext]",
                "add r4, r4, r5",
                "str r4, [lr, #.Lpixels]",
                "ldr r5, [lr, #.Loutputs]",
                "str r5, [lr, #.Lrow_count]",
                "ldr r5, [lr, #.Loutput_rows]",
                "subs r5, r5, #1",
                "str r5, [lr, #.Loutput_rows]",
                "bne 2b",
                "pop {{r4-r11, pc}}",
                channels = const offset_of!(RowBlock, channels),
                weights = const offset_of!(RowBlock, weights),
                pixels = const offset_of!(RowBlock, pixels),
                y = const offset_of!(RowBlock, y),
                stride = const offset_of!(RowBlock, stride),
                step = const offset_of!(RowBlock, step),
                skip = const offset_of!(RowBlock, skip),
                rows = const offset_of!(RowBlock, rows),
                cols = const offset_of!(RowBlock, cols),
                count = const offset_of!(RowBlock, count),
                next = const offset_of!(RowBlock, next),
                outputs = const offset_of!(RowBlock, outputs),
                output_rows = const offset_of!(RowBlock, output_rows),
            )
        }
    };
}

row_kernel! {
    /// Kernels of three by three.
    depthwise_3x3,
    tap!("[r8], #8"),
    tap!("[r8], #8"),
    tap!("[r8], #8"),
    "add r8, r8, r11",
    tap!("[r8], #8"),
    tap!("[r8], #8"),
    tap!("[r8], #8"),
    "add r8, r8, r11",
    tap!("[r8], #8"),
    tap!("[r8], #8"),
    tap!("[r8]"),
}

row_kernel! {
    /// Kernels of any size. The rows left wait on the stack.
    depthwise_any,
    "ldr r11, [lr, #.Lrows]",
    "3:",
    "push {{r11}}",
    "ldr r11, [lr, #.Lcols]",
    "4:",
    tap!("[r8], #8"),
    "subs r11, r11, #1",
    "bne 4b",
    "ldr r11, [lr, #.Lskip]",
    "add r8, r8, r11",
    "pop {{r11}}",
    "subs r11, r11, #1",
    "bne 3b",
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

/// Multiplies the next octet of weights with four pixels; leaves the flags.
macro_rules! octet_by_4 {
    () => {
        concat!(
            "ldr r8, [r11], #4\n",
            "sxtb16 r9, r8\n",
            pair_by_4!(),
            "\nsxtb16 r9, r8, ror #8\n",
            pair_by_4!(),
            "\nldr r8, [r11], #4\n",
            "sxtb16 r9, r8\n",
            pair_by_4!(),
            "\nsxtb16 r9, r8, ror #8\n",
            pair_by_4!(),
        )
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

/// Takes the next element at the pointer `$field` to `$to`, through r4.
macro_rules! next {
    ($load:literal, $to:literal, $field:literal, $size:literal) => {
        concat!(
            "ldr r4, [lr, #.L",
            $field,
            "]\n",
            $load,
            " ",
            $to,
            ", [r4], #",
            $size,
            "\n str r4, [lr, #.L",
            $field,
            "]"
        )
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

/// Stores r0 to r3 as they are.
macro_rules! store_by_4 {
    () => {
        "ldr r4, [lr, #.Ly]
         stm r4!, {{r0, r1, r2, r3}}
         str r4, [lr, #.Ly]"
    };
}

/// Stores r0 as it is.
macro_rules! store_by_1 {
    () => {
        next!("str", "r0", "y", "4")
    };
}

/// A function that takes a [`Block`]: `$line`s for each filter, with its weights at r11 and the block at lr.
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
    next!("ldr", "r0", "bias", "4"),
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
    "6:";
    finish_by_1!(), store_by_1!()
}

kernels! {
    /// Weights of 4 bits, four pixels: 28 instructions for 32 products. Weights are stored as w + 8, which the header takes
    /// off.
    int4_by_4, int4_by_4_sums,
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
    "bne 3b";
    finish_by_4!(), store_by_4!()
}

kernels! {
    /// Weights of 4 bits, one pixel: 41 instructions for 32 products.
    int4_by_1, int4_by_1_sums,
    "ldr r10, [lr, #.Lpatches]",
    "ldr r5, [r10, #-4]",
    next!("ldr", "r0", "bias", "4"),
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
