//! Patches times filters: two filters by four pixels, or four filters by one.

use core::arch::naked_asm;
use core::mem::offset_of;
use core::ops::Range;
use core::ptr;

use super::patches::{arrange, row_bytes, step_bytes, steps};
use super::{Lanes, VECTOR, channels, extension};
use crate::kernels::channels::{Channels, Output};
use crate::kernels::linear::{Linear, Place, Source};
use crate::kernels::patches::{PIXELS, Patch};
use crate::kernels::weights::Width;
use crate::plan::DType;

/// Filters by four pixels.
const PAIR: usize = 2;

/// Filters by one pixel.
const QUAD: usize = 4;

/// Most channels of the output: the places of four pixels in it are 16-bit numbers.
const MAX_CHANNELS: usize = (u16::MAX as usize - 1) / (PIXELS - 1);

/// Words for patches that need more than the plan reserves: those of filters of one octet in 4 bits.
const SPARE: usize = 34;

/// Steps of a filter that the kernel for 8 bits and one pixel takes at once.
const UNROLLED: usize = 4;

/// What a kernel reads and writes. It moves `next` and `y` as it goes.
#[repr(C)]
struct Block {
    patches: *const i8,
    /// From a filter to the next, in bytes.
    pitch: usize,
    /// Filters, one after the other.
    filters: *const u8,
    /// A word for each filter.
    bias: *const i32,
    /// A word for each filter.
    mantissas: *const i32,
    /// A byte for each filter.
    shifts: *const i8,
    /// Mantissas and shifts of the filters in work.
    next: [usize; 2],
    /// Whole steps of a filter.
    steps: usize,
    /// Bytes of a filter that are left.
    tail: usize,
    /// Bytes that reading a filter in whole vectors goes beyond it.
    beyond: usize,
    /// The first filter's output of the first pixel.
    y: *mut u8,
    /// The end of the first pixel's outputs.
    end: *mut u8,
    /// 8 · Σ x of each pixel: what packed weights, stored as w + 8, make too much.
    sums: [i32; PIXELS],
    /// Zero point, least and largest output: of 16 bits for four pixels, of 32 for one.
    output: [Lanes; 3],
    /// Where the outputs of two filters and four pixels lie, from the first one on.
    places: [u16; PIXELS * PAIR],
}

/// As [`Linear::run`].
#[inline(always)]
pub(in crate::kernels) fn run<W: Width>(
    linear: &Linear<'_, W>,
    source: &impl Source,
    pixels: usize,
    place: Place,
    work: &mut [u32],
    y: &mut Output<'_>,
) -> Option<()> {
    // Whether the kernels can finish the sums.
    let finish = y.dtype() == DType::I8 && channels::fit(&linear.channels);
    let pairs = place.end.checked_sub(place.first)? >= PAIR && pixels >= PIXELS;
    let mut done = 0;
    if finish && pairs && linear.out_channels <= MAX_CHANNELS {
        done = run_by_4(linear, source, pixels, place, work, y)?;
    }
    if done < pixels {
        run_by_1(linear, source, done..pixels, place, work, y, finish)?;
    }
    Some(())
}

/// Computes four pixels at a time; returns how many are done.
#[inline(always)]
fn run_by_4<W: Width>(
    linear: &Linear<'_, W>,
    source: &impl Source,
    pixels: usize,
    place: Place,
    work: &mut [u32],
    y: &mut Output<'_>,
) -> Option<usize> {
    let filter_len = linear.filter_len;
    let blocks_len = steps::<W>(filter_len).wrapping_mul(step_bytes::<W>() * PIXELS);
    let mut spare = [0; SPARE];
    let enough = work.len().wrapping_mul(4) >= blocks_len.wrapping_add(filter_len);
    let work = if enough { work } else { &mut spare };
    let (blocks, room) = work.split_at_mut_checked(blocks_len / 4)?;
    let blocks: &mut [i8] = bytemuck::try_cast_slice_mut(blocks).ok()?;
    let mut kernel = Kernel::new(linear, PIXELS);
    let mut at = 0usize;
    while pixels.wrapping_sub(at) >= PIXELS {
        for (i, sum) in kernel.block.sums.iter_mut().enumerate() {
            let patch = read(source, at.wrapping_add(i), filter_len, room)?;
            *sum = arrange::<W, PIXELS>(patch, blocks.get_mut(i * VECTOR..)?)?.wrapping_mul(8);
        }
        for filters in groups(place.first..place.end, PAIR) {
            kernel.multiply_by_4(filters, blocks, place.pixel.wrapping_add(at), y)?;
        }
        at = at.wrapping_add(PIXELS);
    }
    Some(at)
}

/// Computes pixels one at a time.
#[inline(always)]
fn run_by_1<W: Width>(
    linear: &Linear<'_, W>,
    source: &impl Source,
    pixels: Range<usize>,
    place: Place,
    work: &mut [u32],
    y: &mut Output<'_>,
    finish: bool,
) -> Option<()> {
    let filter_len = linear.filter_len;
    let (room, arranged) = work.split_at_mut_checked(filter_len / 4)?;
    let arranged: &mut [i8] = bytemuck::try_cast_slice_mut(arranged).ok()?;
    let mut kernel = Kernel::new(linear, 1);
    for i in pixels {
        let mut patch = read(source, i, filter_len, room)?;
        if W::PACKED {
            kernel.block.sums[0] = arrange::<W, 1>(patch, arranged)?.wrapping_mul(8);
            patch = arranged;
        }
        let pixel = place.pixel.wrapping_add(i);
        if !finish || place.end.wrapping_sub(place.first) < QUAD {
            kernel.multiply_any(place.first..place.end, patch, pixel, y)?;
            continue;
        }
        for filters in groups(place.first..place.end, QUAD) {
            kernel.multiply_by_1(filters, patch, pixel, y)?;
        }
    }
    Some(())
}

/// The patch of pixel `i`, of `len` elements: as it lies in the input, or written to `room`.
#[inline(always)]
fn read<'a>(source: &'a impl Source, i: usize, len: usize, room: &'a mut [u32]) -> Option<&'a [i8]> {
    if let Some(patch) = source.direct(i, len) {
        return Some(patch);
    }
    source.write::<2>(i, Patch::new(room, 0, len))?;
    bytemuck::try_cast_slice(room).ok()?.get(..len)
}

/// At least `size` filters: in whole groups, and those of the last group, some of them again, if any are left.
#[inline(always)]
fn groups(filters: Range<usize>, size: usize) -> [Range<usize>; 2] {
    let Range { start, end } = filters;
    let left = filters.len() % size;
    let last = if left == 0 { end } else { end.wrapping_sub(size) };
    [start..end.wrapping_sub(left), last..end]
}

/// Multiplies filters with patches.
struct Kernel<'l, 'a, W: Width> {
    linear: &'l Linear<'a, W>,
    /// Those that the block names.
    filters: Range<usize>,
    block: Block,
}

impl<'l, 'a, W: Width> Kernel<'l, 'a, W> {
    /// For patches of `pixels` pixels.
    #[inline(always)]
    fn new(linear: &'l Linear<'a, W>, pixels: usize) -> Self {
        let row = row_bytes::<W>(linear.filter_len);
        let Channels { zero_point, clamp: [low, high], .. } = linear.channels;
        let output = [zero_point, low, high];
        let (steps, tail) = match (pixels, W::PACKED) {
            (PIXELS, _) => (row / VECTOR, row % VECTOR),
            (_, false) => (row / (VECTOR * UNROLLED), row % (VECTOR * UNROLLED)),
            // One loop does all.
            (_, true) => (0, row),
        };
        let mut block = Block {
            patches: ptr::null(),
            pitch: row,
            filters: ptr::null(),
            bias: ptr::null(),
            mantissas: ptr::null(),
            shifts: ptr::null(),
            next: [0; 2],
            steps,
            tail,
            beyond: row.wrapping_neg() % VECTOR,
            y: ptr::null_mut(),
            end: ptr::null_mut(),
            sums: [0; PIXELS],
            output: output.map(if pixels == PIXELS { Lanes::halves } else { Lanes::words }),
            places: [0; PIXELS * PAIR],
        };
        if pixels == PIXELS {
            let mut place = 0u16;
            for [first, second] in block.places.as_chunks_mut().0 {
                (*first, *second) = (place, place.wrapping_add(1));
                place = place.wrapping_add(linear.out_channels as u16);
            }
        }
        Self { linear, filters: 0..0, block }
    }

    /// Makes the block name these filters.
    #[inline(always)]
    fn select(&mut self, filters: Range<usize>) -> Option<()> {
        if self.filters == filters {
            return Some(());
        }
        let Linear { weights, channels, .. } = self.linear;
        self.block.filters = weights.range(filters.start, filters.end)?.as_ptr().cast();
        self.block.bias = channels.bias.get(filters.clone())?.as_ptr();
        self.block.mantissas = channels.mantissas.get(filters.clone())?.as_ptr();
        self.block.shifts = channels.shifts.get(filters.clone())?.as_ptr();
        self.filters = filters;
        Some(())
    }

    /// Makes the block name what `filters` make of `pixels` pixels.
    #[inline(always)]
    fn write(&mut self, filters: &Range<usize>, [pixel, pixels]: [usize; 2], y: &mut Output<'_>) -> Option<()> {
        let stride = self.linear.out_channels;
        let y = y.bytes_from(pixel.wrapping_mul(stride).wrapping_add(filters.start))?;
        let y = y.get_mut(..stride.wrapping_mul(pixels.wrapping_sub(1)).wrapping_add(filters.len()))?;
        self.block.y = y.as_mut_ptr();
        self.block.end = self.block.y.wrapping_add(filters.len());
        Some(())
    }

    /// Multiplies a whole number of pairs of filters with the patches of four pixels.
    #[inline(always)]
    fn multiply_by_4(&mut self, filters: Range<usize>, patches: &[i8], pixel: usize, y: &mut Output<'_>) -> Option<()> {
        if filters.is_empty() {
            return Some(());
        }
        patches.get(..steps::<W>(self.linear.filter_len).wrapping_mul(step_bytes::<W>() * PIXELS))?;
        self.block.patches = patches.as_ptr();
        self.write(&filters, [pixel, PIXELS], y)?;
        self.select(filters)?;
        // SAFETY: `patches` has every step's vectors of four pixels, and is aligned to words, as work memory is; filters
        // and their constants are as many as outputs, whole pairs and not none: see `select`; `y` has every byte of as
        // many neighbours in each of four pixels, whose places are `out_channels` apart: see `write`.
        unsafe { if W::PACKED { int4_by_4(&raw mut self.block) } else { int8_by_4(&raw mut self.block) } }
        Some(())
    }

    /// Makes the block name the patch of one pixel.
    #[inline(always)]
    fn read(&mut self, patch: &[i8]) -> Option<()> {
        let last = self.block.pitch.checked_sub(1)?;
        // The last vector that meets one of a filter, and what is read of it.
        let start = (last / VECTOR).wrapping_mul(step_bytes::<W>()).wrapping_add(step_bytes::<W>() - VECTOR);
        self.block.patches = patch.get(..start.wrapping_add(last % VECTOR).wrapping_add(1))?.as_ptr();
        Some(())
    }

    /// Multiplies a whole number of groups of four filters with the patch of a pixel.
    #[inline(always)]
    fn multiply_by_1(&mut self, filters: Range<usize>, patch: &[i8], pixel: usize, y: &mut Output<'_>) -> Option<()> {
        if filters.is_empty() {
            return Some(());
        }
        self.read(patch)?;
        self.write(&filters, [pixel, 1], y)?;
        self.select(filters)?;
        // SAFETY: `patch` has the bytes of every vector that meets one of a filter; filters and their constants are as
        // many as outputs, whole groups of four and not none: see `read`, `select` and `write`.
        unsafe { if W::PACKED { int4_by_1(&raw mut self.block) } else { int8_by_1(&raw mut self.block) } }
        Some(())
    }

    /// Multiplies any number of filters, whose channels may be any, with the patch of a pixel, for any output.
    #[inline(never)]
    fn multiply_any(&mut self, filters: Range<usize>, patch: &[i8], pixel: usize, y: &mut Output<'_>) -> Option<()> {
        self.read(patch)?;
        let Linear { weights, ref channels, out_channels, .. } = *self.linear;
        let (end, quads) = (filters.end, filters.len() >= QUAD);
        for first in filters.step_by(if quads { QUAD } else { 1 }) {
            // The last four may be among those before. Of fewer filters each is taken four times.
            let first = if quads { first.min(end.wrapping_sub(QUAD)) } else { first };
            let bias = match channels.bias.get(first..)?.first_chunk::<QUAD>() {
                Some(bias) if quads => *bias,
                _ => [*channels.bias.get(first)?; QUAD],
            };
            let count = if quads { QUAD } else { 1 };
            let mut sums = [0i32; QUAD];
            let mut block = Block {
                pitch: if quads { self.block.pitch } else { 0 },
                filters: weights.range(first, first.wrapping_add(count))?.as_ptr().cast(),
                bias: bias.as_ptr(),
                y: sums.as_mut_ptr().cast(),
                ..self.block
            };
            // SAFETY: `patch` has the bytes of every vector that meets one of a filter, see `read`. There are four filters,
            // or one with the pitch 0; four words of bias and of sums.
            unsafe { if W::PACKED { int4_sums(&raw mut block) } else { int8_sums(&raw mut block) } }
            for (o, &sum) in (first..).zip(sums.iter().take(count)) {
                y.put(pixel.wrapping_mul(out_channels).wrapping_add(o), channels.finish_biased(o, sum)?)?;
            }
        }
        Some(())
    }
}

/// A function that takes a [`Block`]: `$line`s, with the block at r11.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $($line:expr),* $(,)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "C" fn $name(block: *mut Block) {
            naked_asm!(
                extension!(),
                ".set .Lmve_patches, {patches}",
                ".set .Lmve_filters, {filters}",
                ".set .Lmve_bias, {bias}",
                ".set .Lmve_mantissas, {mantissas}",
                ".set .Lmve_shifts, {shifts}",
                ".set .Lmve_next, {next}",
                ".set .Lmve_steps, {steps}",
                ".set .Lmve_tail, {tail}",
                ".set .Lmve_beyond, {beyond}",
                ".set .Lmve_y, {y}",
                ".set .Lmve_sums, {sums}",
                ".set .Lmve_output, {output}",
                ".set .Lmve_places, {places}",
                "push {{r4-r11, lr}}",
                "vpush {{d8-d15}}",
                "mov r11, r0",
                "ldr r3, [r11, #.Lmve_filters]",
                $($line,)*
                "vpop {{d8-d15}}",
                "pop {{r4-r11, pc}}",
                patches = const offset_of!(Block, patches),
                filters = const offset_of!(Block, filters),
                bias = const offset_of!(Block, bias),
                mantissas = const offset_of!(Block, mantissas),
                shifts = const offset_of!(Block, shifts),
                next = const offset_of!(Block, next),
                steps = const offset_of!(Block, steps),
                tail = const offset_of!(Block, tail),
                beyond = const offset_of!(Block, beyond),
                y = const offset_of!(Block, y),
                sums = const offset_of!(Block, sums),
                output = const offset_of!(Block, output),
                places = const offset_of!(Block, places),
            )
        }
    };
}

/// Multiplies the next vectors of four pixels with those of two filters in `$a` and `$b`, through `$x`.
macro_rules! products_by_4 {
    ($x:literal, $a:literal, $b:literal) => {
        concat!(
            products_by_4!($x, $a, $b, "r0", "r8"),
            products_by_4!($x, $a, $b, "r2", "r10"),
            products_by_4!($x, $a, $b, "r4", "r12"),
            products_by_4!($x, $a, $b, "r6", "lr"),
        )
    };
    ($x:literal, $a:literal, $b:literal, $sum_a:literal, $sum_b:literal) => {
        concat!(
            "vldrw.u32 ",
            $x,
            ", [r1], #16\n",
            "vmladava.s8 ",
            $sum_a,
            ", ",
            $x,
            ", ",
            $a,
            "\nvmladava.s8 ",
            $sum_b,
            ", ",
            $x,
            ", ",
            $b,
            "\n",
        )
    };
}

/// A kernel of two filters and four pixels: `$start` prepares registers, `$multiply` takes the products of the weights in
/// q0 and q1, `$correct` finishes the sums in q0 and q1, `$clamp` clamps the outputs in q0.
///
/// Sums are in r0, r2, r4, r6 and r8, r10, r12, lr; patches at r1, filters at r3 and r5, bias at r9.
macro_rules! kernel_by_4 {
    (
        $(#[$doc:meta])* $name:ident,
        start: [$($start:expr),*], multiply: $multiply:expr, correct: [$($correct:expr),*], clamp: [$($clamp:expr),*]
    ) => {
        kernel! {
            $(#[$doc])*
            $name,
            "ldr r9, [r11, #.Lmve_bias]",
            "ldrd r0, r1, [r11, #.Lmve_mantissas]",
            "strd r0, r1, [r11, #.Lmve_next]",
            "vldrh.u16 q7, [r11, #.Lmve_places]",
            $($start,)*
            "ldr r0, [r11, #.Lmve_tail]",
            "vctp.8 r0",
            "2:",
            "ldrd r0, r8, [r9], #8",
            "mov r2, r0",
            "mov r4, r0",
            "mov r6, r0",
            "mov r10, r8",
            "mov r12, r8",
            "mov lr, r8",
            "ldrd r1, r5, [r11, #.Lmve_patches]",
            "add r5, r5, r3",
            "ldr r7, [r11, #.Lmve_steps]",
            "lsrs r7, r7, #1",
            "bcc 3f",
            "vldrb.u8 q0, [r3], #16",
            "vldrb.u8 q1, [r5], #16",
            $multiply,
            "3:",
            "beq 5f",
            "4:",
            "vldrb.u8 q0, [r3], #16",
            "vldrb.u8 q1, [r5], #16",
            $multiply,
            "vldrb.u8 q0, [r3], #16",
            "vldrb.u8 q1, [r5], #16",
            $multiply,
            "subs r7, r7, #1",
            "bne 4b",
            "5:",
            "ldr r7, [r11, #.Lmve_tail]",
            "cbz r7, 6f",
            // What is not read is 0.
            "vpstt",
            "vldrbt.u8 q0, [r3]",
            "vldrbt.u8 q1, [r5]",
            $multiply,
            "6:",
            "add r3, r5, r7",
            "vmov q0[2], q0[0], r0, r4",
            "vmov q0[3], q0[1], r2, r6",
            "vmov q1[2], q1[0], r8, r12",
            "vmov q1[3], q1[1], r10, lr",
            $($correct,)*
            "ldrd r0, r2, [r11, #.Lmve_next]",
            "ldrd r4, r6, [r0], #8",
            "ldrsb r8, [r2], #1",
            "ldrsb r10, [r2], #1",
            "strd r0, r2, [r11, #.Lmve_next]",
            "vqdmulh.s32 q0, q0, r4",
            "vqdmulh.s32 q1, q1, r6",
            "rsb r8, r8, #0",
            "rsb r10, r10, #0",
            "vrshl.s32 q0, r8",
            "vrshl.s32 q1, r10",
            "vqmovnb.s32 q0, q0",
            "vqmovnt.s32 q0, q1",
            "ldrh r4, [r11, #.Lmve_output]",
            "vqadd.s16 q0, q0, r4",
            $($clamp,)*
            "ldrd r0, r2, [r11, #.Lmve_y]",
            "vstrb.16 q0, [r0, q7]",
            "adds r0, r0, #2",
            "str r0, [r11, #.Lmve_y]",
            "cmp r0, r2",
            "bne 2b",
        }
    };
}

kernel_by_4! {
    /// Weights of 8 bits, four pixels: 15 instructions for 128 products.
    int8_by_4,
    start: ["vldrw.u32 q4, [r11, #.Lmve_output + 16]", "vldrw.u32 q5, [r11, #.Lmve_output + 32]"],
    multiply: products_by_4!("q2", "q0", "q1"),
    correct: [],
    clamp: ["vmax.s16 q0, q0, q4", "vmin.s16 q0, q0, q5"]
}

kernel_by_4! {
    /// Weights of 4 bits, four pixels: 31 instructions for 256 products.
    int4_by_4,
    start: ["vmov.i8 q5, #15", "vldrw.u32 q6, [r11, #.Lmve_sums]"],
    multiply: concat!(
        "vand q2, q0, q5\n",
        "vand q3, q1, q5\n",
        products_by_4!("q4", "q2", "q3"),
        "vshr.u8 q0, q0, #4\n",
        "vshr.u8 q1, q1, #4\n",
        products_by_4!("q4", "q0", "q1"),
    ),
    correct: ["vsub.i32 q0, q0, q6", "vsub.i32 q1, q1, q6"],
    clamp: [
        "vldrw.u32 q2, [r11, #.Lmve_output + 16]",
        "vldrw.u32 q3, [r11, #.Lmve_output + 32]",
        "vmax.s16 q0, q0, q2",
        "vmin.s16 q0, q0, q3"
    ]
}

/// Multiplies a vector of 8-bit weights of each of four filters with the patch.
macro_rules! int8_step_by_1 {
    () => {
        "vldrb.u8 q0, [r1], #16
         vldrb.u8 q1, [r3], #16
         vmladava.s8 r0, q0, q1
         vldrb.u8 q2, [r5], #16
         vmladava.s8 r2, q0, q2
         vldrb.u8 q1, [r7], #16
         vmladava.s8 r4, q0, q1
         vldrb.u8 q2, [r9], #16
         vmladava.s8 r12, q0, q2
        "
    };
}

/// Multiplies a vector of 4-bit weights at `$filter` with the vectors of the patch in q2 and q3.
macro_rules! int4_products_by_1 {
    ($filter:literal, $sum:literal) => {
        concat!(
            "vldrb.u8 q0, [",
            $filter,
            "], #16\n",
            "vand q1, q0, q4\n",
            "vmladava.s8 ",
            $sum,
            ", q2, q1\n",
            "vshr.u8 q0, q0, #4\n",
            "vmladava.s8 ",
            $sum,
            ", q3, q0\n",
        )
    };
}

/// A kernel of four filters and one pixel: `$start` prepares registers, `$multiply` takes the products, `$correct` corrects
/// the sums in q0, `$finish` makes outputs of them.
///
/// Sums are in r0, r2, r4, r12; the patch at r1, filters at r3, r5, r7, r9, bias at r8, mantissas at r10, shifts at r6.
macro_rules! kernel_by_1 {
    (
        $(#[$doc:meta])* $name:ident,
        start: [$($start:expr),*], multiply: [$($multiply:expr),*], correct: [$($correct:expr),*],
        finish: [$($finish:expr),*]
    ) => {
        kernel! {
            $(#[$doc])*
            $name,
            "ldr r8, [r11, #.Lmve_bias]",
            "ldrd r10, r6, [r11, #.Lmve_mantissas]",
            "vldrw.u32 q5, [r11, #.Lmve_output]",
            "vldrw.u32 q6, [r11, #.Lmve_output + 16]",
            "vldrw.u32 q7, [r11, #.Lmve_output + 32]",
            $($start,)*
            "2:",
            "ldrd r0, r2, [r8], #8",
            "ldrd r4, r12, [r8], #8",
            "ldrd r1, r9, [r11, #.Lmve_patches]",
            "add r5, r3, r9",
            "add r7, r5, r9",
            "add r9, r7, r9",
            $($multiply,)*
            "ldr lr, [r11, #.Lmve_beyond]",
            "sub r3, r9, lr",
            "vmov q0[2], q0[0], r0, r4",
            "vmov q0[3], q0[1], r2, r12",
            $($correct,)*
            $($finish,)*
        }
    };
}

/// Requantizes the sums in q0 and writes them; then come the next filters.
macro_rules! outputs_by_1 {
    () => {
        concat!(
            "vldrw.u32 q1, [r10], #16\n",
            "vldrb.s32 q2, [r6], #4\n",
            "vqdmulh.s32 q0, q0, q1\n",
            "vneg.s32 q2, q2\n",
            "vrshl.s32 q0, q0, q2\n",
            "vadd.i32 q0, q0, q5\n",
            "vmax.s32 q0, q0, q6\n",
            "vmin.s32 q0, q0, q7\n",
            "ldrd r0, r1, [r11, #.Lmve_y]\n",
            "vstrb.32 q0, [r0], #4\n",
            "str r0, [r11, #.Lmve_y]\n",
            "cmp r0, r1\n",
            "bne 2b\n",
        )
    };
}

/// Takes the products of 8-bit weights.
macro_rules! int8_multiply_by_1 {
    () => {
        concat!(
            "ldr lr, [r11, #.Lmve_steps]\n",
            "wls lr, lr, 4f\n",
            "3:\n",
            int8_step_by_1!(),
            int8_step_by_1!(),
            int8_step_by_1!(),
            int8_step_by_1!(),
            "le lr, 3b\n",
            "4:\n",
            "ldr lr, [r11, #.Lmve_tail]\n",
            "wlstp.8 lr, lr, 6f\n",
            "5:\n",
            int8_step_by_1!(),
            "letp lr, 5b\n",
            "6:\n",
        )
    };
}

/// Takes the products of 4-bit weights.
macro_rules! int4_multiply_by_1 {
    () => {
        concat!(
            "ldr lr, [r11, #.Lmve_tail]\n",
            "dlstp.8 lr, lr\n",
            "3:\n",
            "vldrb.u8 q2, [r1], #16\n",
            "vldrb.u8 q3, [r1], #16\n",
            int4_products_by_1!("r3", "r0"),
            int4_products_by_1!("r5", "r2"),
            int4_products_by_1!("r7", "r4"),
            int4_products_by_1!("r9", "r12"),
            "letp lr, 3b\n",
        )
    };
}

kernel_by_1! {
    /// Weights of 8 bits, one pixel: 37 instructions for 256 products.
    int8_by_1,
    start: [],
    multiply: [int8_multiply_by_1!()],
    correct: [],
    finish: [outputs_by_1!()]
}

kernel_by_1! {
    /// As [`int8_by_1`]: the sums of one group of filters.
    int8_sums,
    start: [],
    multiply: [int8_multiply_by_1!()],
    correct: [],
    finish: ["ldr r0, [r11, #.Lmve_y]", "vstrw.32 q0, [r0]"]
}

kernel_by_1! {
    /// Weights of 4 bits, one pixel: 23 instructions for 128 products.
    int4_by_1,
    start: ["vmov.i8 q4, #15"],
    multiply: [int4_multiply_by_1!()],
    correct: ["ldr r0, [r11, #.Lmve_sums]", "vsub.i32 q0, q0, r0"],
    finish: [outputs_by_1!()]
}

kernel_by_1! {
    /// As [`int4_by_1`]: the sums of one group of filters.
    int4_sums,
    start: ["vmov.i8 q4, #15"],
    multiply: [int4_multiply_by_1!()],
    correct: ["ldr r0, [r11, #.Lmve_sums]", "vsub.i32 q0, q0, r0"],
    finish: ["ldr r0, [r11, #.Lmve_y]", "vstrw.32 q0, [r0]"]
}
