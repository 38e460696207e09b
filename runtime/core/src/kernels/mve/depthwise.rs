//! Depthwise convolution, sixteen channels of a pixel at a time, where they lie.

use core::arch::{asm, naked_asm};
use core::mem::offset_of;
use core::ptr;

use super::channels::{self, Finish};
use super::patches::copy_runs;
use super::{VECTOR, extension};
use crate::kernels::channels::{Channels, Output};
use crate::kernels::patches::Runs;
use crate::kernels::weights::{Matrix, OCTET, Width};
use crate::kernels::window::{Axis, Window};
use crate::plan::DType;

/// A depthwise convolution with one output channel for each input channel.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Depthwise<'s, 'a, W: Width> {
    pub(in crate::kernels) window: &'s Window,
    pub(in crate::kernels) weights: &'s Matrix<'a, W>,
    pub(in crate::kernels) channels: &'s Channels<'a>,
}

/// What the kernel reads and writes for a row of outputs.
#[repr(C)]
struct Block {
    finish: Finish,
    /// Least and largest output.
    clamp: [[i8; VECTOR]; 2],
    /// A vector for each tap.
    weights: *const i8,
    /// Of each output: where its first tap inside the input lies from `x` on; the number of taps of a row inside, and those
    /// before them in the high half.
    columns: *const [u32; 2],
    columns_end: *const [u32; 2],
    /// The first row of taps inside the input.
    x: *const i8,
    y: *mut u8,
    /// From a tap to the next in a row, as from an output to the next; and from a row to the next.
    steps: [usize; 2],
    /// Channels.
    lanes: usize,
    /// Taps of a row.
    row: usize,
    /// Taps of rows before those inside, the number of rows inside (not 0), and taps of rows behind.
    rows: [usize; 3],
    /// Zero points of input and output.
    zero_points: [i32; 2],
}

impl<W: Width> Depthwise<'_, '_, W> {
    /// Whether the kernel can do it.
    pub(in crate::kernels) fn fits(&self, dtype: DType) -> bool {
        let Window { rows, cols, .. } = *self.window;
        let reaches = |axis: Axis| {
            // The first and the last window reach into the input, and so do all between them.
            let extent = axis.kernel.wrapping_sub(1).wrapping_mul(axis.dilation.get());
            let last = axis.output.wrapping_sub(1).wrapping_mul(axis.stride);
            axis.dilation.get() == 1 && extent >= axis.before && last < axis.input.wrapping_add(axis.before)
        };
        dtype == DType::I8
            && reaches(rows)
            && reaches(cols)
            && cols.kernel <= usize::from(u16::MAX)
            && channels::fit(self.channels)
    }

    /// Runs it, if it [fits](Self::fits), in the work memory that plans reserve for strips.
    pub(in crate::kernels) fn run(&self, x: &[i8], x_zero: i8, work: &mut [u32], y: &mut Output<'_>) -> Option<()> {
        let Window { batch, rows, cols, in_channels, .. } = *self.window;
        let taps = rows.kernel.wrapping_mul(cols.kernel);
        let (weights, columns) = work.split_at_mut_checked(taps.wrapping_mul(VECTOR / 4))?;
        let weights: &mut [i8] = bytemuck::try_cast_slice_mut(weights).ok()?;
        let columns = columns.as_chunks_mut().0.get_mut(..cols.output)?;
        for (ox, column) in columns.iter_mut().enumerate() {
            let tx = cols.taps(ox);
            *column = [tx.start.wrapping_mul(in_channels) as u32, tx.len() as u32 | (tx.first as u32) << 16];
        }
        let row_len = cols.input.wrapping_mul(in_channels);
        let output_len = cols.output.wrapping_mul(in_channels);
        let Channels { zero_point, clamp, .. } = *self.channels;
        let mut block = Block {
            finish: Finish::default(),
            clamp: clamp.map(|end| [end as i8; VECTOR]),
            weights: ptr::null(),
            columns: columns.as_ptr(),
            columns_end: columns.as_ptr_range().end,
            x: ptr::null(),
            y: ptr::null_mut(),
            steps: [in_channels, row_len],
            lanes: 0,
            row: cols.kernel,
            rows: [0; 3],
            zero_points: [x_zero.into(), zero_point],
        };
        for first in (0..in_channels).step_by(VECTOR) {
            let lanes = VECTOR.min(in_channels.wrapping_sub(first));
            self.unpack(first, lanes, weights)?;
            block.weights = weights.as_ptr();
            block.finish.set(self.channels, first, lanes)?;
            block.lanes = lanes;
            for n in 0..batch {
                for oy in 0..rows.output {
                    let ty = rows.taps(oy);
                    let row = n.wrapping_mul(rows.input).wrapping_add(ty.start);
                    let x = x.get(row.wrapping_mul(row_len)..)?.get(..ty.len().checked_mul(row_len)?)?;
                    let at = n.wrapping_mul(rows.output).wrapping_add(oy).wrapping_mul(output_len);
                    let y = y.bytes_from(at)?.get_mut(..output_len)?;
                    block.x = x.get(first..)?.as_ptr();
                    block.y = y.get_mut(first..)?.as_mut_ptr();
                    let [before, behind] =
                        [ty.first, rows.kernel.wrapping_sub(ty.end)].map(|rows| rows.wrapping_mul(cols.kernel));
                    block.rows = [before, ty.len(), behind];
                    // SAFETY: `finish` is of `lanes` channels, and `weights` has a vector for each tap. `columns` is that
                    // of every output of the row, at least one. From `x` and `y` on there are `lanes` channels of each
                    // pixel of every row inside the input, at least one, and of the row of outputs: the slices above end
                    // with the last pixel, `first` and `lanes` are within a pixel's channels. With fewer than a vector,
                    // the rest of its lanes is neither read nor written.
                    unsafe { if lanes == VECTOR { by_vectors(&raw mut block) } else { by_lanes(&raw mut block) } }
                }
            }
        }
        Some(())
    }

    /// Writes the weights of `lanes` channels from `first` on, a vector for each tap.
    fn unpack(&self, first: usize, lanes: usize, to: &mut [i8]) -> Option<()> {
        let Window { rows, cols, in_channels, .. } = *self.window;
        let taps = rows.kernel.wrapping_mul(cols.kernel);
        if let Some(bytes) = W::bytes(self.weights, first) {
            return copy_runs(bytes, to, Runs { count: taps, len: lanes, from_step: in_channels, to_step: VECTOR });
        }
        let row = W::row_units(in_channels);
        let words = self.weights.range(0, taps)?.get(first / OCTET..)?;
        let count = lanes.div_ceil(OCTET);
        words.get(..taps.checked_sub(1)?.wrapping_mul(row).wrapping_add(count))?;
        to.get(..taps.wrapping_mul(VECTOR))?;
        // SAFETY: reads `count` words, at most two, at `taps` places `row` words apart, the last of which ends within
        // `words`; writes a vector for each of `taps` taps, not none, which `to` has.
        unsafe {
            asm!(
                "vctp.16 {bytes}",
                "vldrh.u16 q3, [{even}]",
                "vmov.i16 q2, #15",
                "dls lr, {taps}",
                "2:",
                "vpst",
                "vldrbt.u16 q0, [r0]",
                "add r0, r0, {row}",
                "vand q1, q0, q2",
                "vshr.u16 q0, q0, #4",
                "vsub.i16 q1, q1, {eight}",
                "vsub.i16 q0, q0, {eight}",
                "vstrb.16 q1, [{to}, q3]",
                "add {to}, {to}, #1",
                "vstrb.16 q0, [{to}, q3]",
                "add {to}, {to}, #15",
                "le lr, 2b",
                bytes = in(reg) count.wrapping_mul(4),
                even = in(reg) EVEN.as_ptr(),
                taps = in(reg) taps,
                row = in(reg) row.wrapping_mul(4),
                eight = in(reg) 8,
                to = inout(reg) to.as_mut_ptr() => _,
                inout("r0") words.as_ptr() => _,
                out("lr") _,
                out("d0") _, out("d1") _, out("d2") _, out("d3") _,
                out("d4") _, out("d5") _, out("d6") _, out("d7") _,
                options(nostack),
            );
        }
        Some(())
    }
}

/// The even elements of an octet of packed weights, in the order of its bytes; and of the next one.
static EVEN: [u16; 8] = [0, 4, 2, 6, 8, 12, 10, 14];

/// Adds the products of q4 with the next tap's weights.
macro_rules! products {
    () => {
        "vldrb.u8 q5, [r3], #16
         vmullb.s8 q6, q4, q5
         vmullt.s8 q5, q4, q5
         vmovlb.s16 q7, q6
         vmovlt.s16 q6, q6
         vadd.i32 q0, q0, q7
         vadd.i32 q1, q1, q6
         vmovlb.s16 q7, q5
         vmovlt.s16 q5, q5
         vadd.i32 q2, q2, q7
         vadd.i32 q3, q3, q5
        "
    };
}

/// Adds the products of lr taps with the padding.
macro_rules! padding {
    () => {
        concat!("wls lr, lr, 8f\n", "vdup.8 q4, r2\n", "7:\n", products!(), "le lr, 7b\n", "8:\n")
    };
}

/// A function that takes a [`Block`], which reads inputs at r1 and writes outputs at r8 as said.
///
/// Sums are in q0 to q3; weights at r3, the next row of inputs at r4, columns at r7.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, load: $load:literal, store: $store:literal) => {
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "C" fn $name(block: *mut Block) {
            naked_asm!(
                extension!(),
                "push {{r4-r11, lr}}",
                "vpush {{d8-d15}}",
                "ldr r1, [r0, #{lanes}]",
                "vctp.8 r1",
                "ldrd r5, r9, [r0, #{steps}]",
                "ldr r7, [r0, #{columns}]",
                "ldr r8, [r0, #{y}]",
                "ldr r2, [r0, #{zero_points}]",
                "2:",
                "ldr r4, [r0, #{x}]",
                "ldr r1, [r7], #4",
                "add r4, r4, r1",
                "ldrh r10, [r7], #2",
                "ldrh r11, [r7], #2",
                "ldr r3, [r0, #{weights}]",
                "vldrw.u32 q0, [r0, #{finish}]",
                "vldrw.u32 q1, [r0, #{finish} + 16]",
                "vldrw.u32 q2, [r0, #{finish} + 32]",
                "vldrw.u32 q3, [r0, #{finish} + 48]",
                "ldrd lr, r6, [r0, #{rows}]",
                "add lr, lr, r11",
                padding!(),
                "ldr r12, [r0, #{row}]",
                "sub r12, r12, r10",
                "3:",
                "mov r1, r4",
                "add r4, r4, r9",
                "wls lr, r10, 5f",
                "4:",
                $load,
                "add r1, r1, r5",
                products!(),
                "le lr, 4b",
                "5:",
                "subs r6, r6, #1",
                "beq 6f",
                "mov lr, r12",
                padding!(),
                "b 3b",
                "6:",
                "ldr lr, [r0, #{rows} + 8]",
                "add lr, lr, r12",
                "sub lr, lr, r11",
                padding!(),
                "vldrw.u32 q4, [r0, #{finish} + 64]",
                "vqdmulh.s32 q0, q0, q4",
                "vldrw.u32 q5, [r0, #{finish} + 80]",
                "vqdmulh.s32 q1, q1, q5",
                "vldrw.u32 q6, [r0, #{finish} + 96]",
                "vqdmulh.s32 q2, q2, q6",
                "vldrw.u32 q7, [r0, #{finish} + 112]",
                "vqdmulh.s32 q3, q3, q7",
                "vldrw.u32 q4, [r0, #{finish} + 128]",
                "vrshl.s32 q0, q0, q4",
                "vldrw.u32 q5, [r0, #{finish} + 144]",
                "vrshl.s32 q1, q1, q5",
                "vldrw.u32 q6, [r0, #{finish} + 160]",
                "vrshl.s32 q2, q2, q6",
                "vldrw.u32 q7, [r0, #{finish} + 176]",
                "vrshl.s32 q3, q3, q7",
                "ldr r1, [r0, #{zero_points} + 4]",
                "vqmovnb.s32 q0, q0",
                "vqmovnt.s32 q0, q1",
                "vqmovnb.s32 q2, q2",
                "vqmovnt.s32 q2, q3",
                "vqadd.s16 q0, q0, r1",
                "vqadd.s16 q2, q2, r1",
                "vqmovnb.s16 q0, q0",
                "vqmovnt.s16 q0, q2",
                "vldrw.u32 q4, [r0, #{clamp}]",
                "vmax.s8 q0, q0, q4",
                "vldrw.u32 q5, [r0, #{clamp} + 16]",
                "vmin.s8 q0, q0, q5",
                $store,
                "add r8, r8, r5",
                "ldr r1, [r0, #{columns_end}]",
                "cmp r7, r1",
                "bne 2b",
                "vpop {{d8-d15}}",
                "pop {{r4-r11, pc}}",
                finish = const offset_of!(Block, finish),
                clamp = const offset_of!(Block, clamp),
                weights = const offset_of!(Block, weights),
                columns = const offset_of!(Block, columns),
                columns_end = const offset_of!(Block, columns_end),
                x = const offset_of!(Block, x),
                y = const offset_of!(Block, y),
                steps = const offset_of!(Block, steps),
                lanes = const offset_of!(Block, lanes),
                row = const offset_of!(Block, row),
                rows = const offset_of!(Block, rows),
                zero_points = const offset_of!(Block, zero_points),
            )
        }
    };
}

kernel! {
    /// Sixteen channels.
    by_vectors,
    load: "vldrb.u8 q4, [r1]",
    store: "vstrb.8 q0, [r8]"
}

kernel! {
    /// Fewer channels.
    by_lanes,
    load: "vpst\nvldrbt.u8 q4, [r1]",
    store: "vpst\nvstrbt.8 q0, [r8]"
}
