//! Depthwise convolutions over strips of four channels (see [`crate::kernels::strips`]).

use core::arch::naked_asm;
use core::mem::offset_of;

use super::extension;

/// What a row of outputs of a depthwise convolution reads; see [`super::strips`].
pub(in crate::kernels) struct Row<'s> {
    pub(in crate::kernels) channels: &'s [u32],
    pub(in crate::kernels) weights: &'s [[u32; 2]],
    pub(in crate::kernels) pixels: &'s [[u32; 2]],
    pub(in crate::kernels) columns: usize,
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
pub(in crate::kernels) fn depthwise(
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
