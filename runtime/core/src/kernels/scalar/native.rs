//! Kernels in the core's own instructions: compilers keep too few of the numbers in registers.
//!
//! Functions are written whole (`naked`) and follow the procedure call standard. The same five exist for each core:
//! `four_int8` and `four_int4` for the patches of four pixels and `one_int8` and `one_int4` for that of one take a [`Block`],
//! `depthwise_3x3` takes a [`Lane`]. Outputs are saturated to 8 bits.
#![allow(unsafe_code)]

#[cfg(armv6m)]
mod armv6m;
#[cfg(armv7m)]
mod armv7m;
#[cfg(rv32)]
mod rv32;

#[cfg(armv6m)]
use armv6m as own;
#[cfg(armv7m)]
use armv7m as own;
#[cfg(rv32)]
use rv32 as own;

use super::{LIFT, octet_words, run_len};
use crate::kernels::channels::{Channel, Output};
use crate::kernels::linear::{Linear, Place};
use crate::kernels::patches::PIXELS;
use crate::kernels::weights::{OCTET, Width};

/// What a kernel reads and writes. It moves the pointers as it goes.
#[repr(C)]
struct Block {
    patches: *const u32,
    /// Octets of each filter and patch, at least 1.
    octets: usize,
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
    /// Filters, at least 1.
    count: usize,
    /// Twice the output's zero point, plus 1.
    rounding: i32,
    /// What each pixel's sums begin with beside the bias.
    starts: [i32; PIXELS],
}

/// Multiplies the patches of `P` pixels with filters whose channels are plain, for an output of 8 bits; the sums of each
/// pixel are `excess` too large.
pub(super) fn multiply<W: Width, const P: usize>(
    linear: &Linear<'_, W>,
    patches: &[u32],
    excess: [i32; P],
    place: Place,
    y: &mut Output<'_>,
) -> Option<()> {
    let Linear { weights, channels, filter_len, out_channels } = *linear;
    let Place { pixel, first, end } = place;
    let count = end.checked_sub(first).filter(|&count| count > 0)?;
    let octets = filter_len / OCTET;
    let filters = weights.range(first, end)?;
    let complete = W::octets(filters).len() == octets.checked_mul(count)?
        && patches.len() == octets.checked_mul(octet_words::<W, P>())?;
    if octets == 0 || !complete {
        return None;
    }
    // What lifts the runs is taken off at the start, too.
    let lifts = match (W::PACKED, P) {
        (_, PIXELS) => LIFT.map(|lift| lift.wrapping_mul((filter_len / run_len::<W>()) as u32)),
        (true, _) => [LIFT[1].wrapping_mul(octets as u32); 2],
        (false, _) => [0; 2],
    };
    let mut starts = [0i32; PIXELS];
    for ((start, excess), lift) in starts.iter_mut().zip(excess).zip(lifts.into_iter().cycle()) {
        *start = excess.wrapping_add(lift as i32).wrapping_neg();
    }
    let y = y.bytes_from(pixel.wrapping_mul(out_channels).wrapping_add(first))?;
    let reach = out_channels.wrapping_mul(P - 1).wrapping_add(count);
    let mut block = Block {
        patches: patches.as_ptr(),
        octets,
        filters: filters.as_ptr().cast(),
        bias: channels.bias.get(first..end)?.as_ptr(),
        mantissas: channels.mantissas.get(first..end)?.as_ptr(),
        shifts: channels.shifts.get(first..end)?.as_ptr(),
        y: y.get_mut(..reach)?.as_mut_ptr(),
        stride: out_channels,
        count,
        rounding: channels.zero_point.wrapping_mul(2).wrapping_add(1),
        starts,
    };
    // SAFETY: `patches` has all words of `octets` octets, at least one; `filters` has `count` rows of `octets` octets; `bias`,
    // `mantissas` and `shifts` have `count` elements, at least one; `y` has every byte of `count` neighbours in each of P
    // pixels `stride` apart. All were checked or sliced to these lengths above. Octets of packed filters are words, patches
    // are, and so both are aligned.
    unsafe {
        match (W::PACKED, P) {
            (false, PIXELS) => own::four_int8(&raw mut block),
            (false, _) => own::one_int8(&raw mut block),
            (true, PIXELS) => own::four_int4(&raw mut block),
            (true, _) => own::one_int4(&raw mut block),
        }
    }
    channels.clamp_rows(y, [P, out_channels, count])
}

/// Windows of three by three over strips of four channels, a byte of a word each (see [`crate::kernels::strips`]).
pub(in crate::kernels) struct Windows<'s> {
    pub(in crate::kernels) pixels: &'s [u32],
    /// Where the rows of the first window begin.
    pub(in crate::kernels) rows: [usize; 3],
    /// From a window to the next, and from a row of windows to the next.
    pub(in crate::kernels) right: usize,
    pub(in crate::kernels) down: usize,
    /// Rows of windows, and windows of a row.
    pub(in crate::kernels) outputs: [usize; 2],
}

/// What the kernel of one channel reads and writes.
#[repr(C)]
struct Lane {
    /// The low and the high half of the mantissa.
    halves: [i32; 2],
    shift: u32,
    y: *mut u8,
    /// Outputs of the row that are left, at least 1.
    count: usize,
    /// Rows that are left, at least 1.
    rows: usize,
    /// Outputs of a row.
    outputs: usize,
    /// Distance of the outputs in bytes.
    distance: usize,
    /// Distance of the windows in bytes.
    step: usize,
    /// From a row's last window, and a step, to the next row's first, in bytes.
    next: usize,
    weights: *const u32,
    pixels: [*const u8; 3],
    bias: i32,
    mantissa: i32,
    rounding: i32,
}

impl Windows<'_> {
    /// Computes the outputs of channel `lane`, `distance` bytes apart: saturated to 8 bits, whatever the channel's clamp.
    pub(in crate::kernels) fn run(
        &self,
        lane: usize,
        weights: &[u32; 9],
        channel: &Channel,
        y: &mut [u8],
        distance: usize,
    ) -> Option<()> {
        let [rows, outputs] = self.outputs;
        let (last_row, last) = (rows.checked_sub(1)?, outputs.checked_sub(1)?);
        let reach = last_row.wrapping_mul(self.down).wrapping_add(last.wrapping_mul(self.right)).wrapping_add(3);
        let windows = self.rows.map(|start| self.pixels.get(start..)?.get(..reach));
        let [a, b, c] = windows;
        let bytes = |row: &[u32]| row.as_ptr().cast::<u8>().wrapping_add(lane % size_of::<u32>());
        let y = y.get_mut(..=rows.wrapping_mul(outputs).wrapping_sub(1).wrapping_mul(distance))?;
        let mut lane = Lane {
            halves: [channel.mantissa & 0xFFFF, channel.mantissa >> 16],
            shift: channel.shift,
            y: y.as_mut_ptr(),
            count: outputs,
            rows,
            outputs,
            distance,
            step: self.right.wrapping_mul(size_of::<u32>()),
            next: self.down.wrapping_sub(outputs.wrapping_mul(self.right)).wrapping_mul(size_of::<u32>()),
            weights: weights.as_ptr(),
            pixels: [bytes(a?), bytes(b?), bytes(c?)],
            bias: channel.bias,
            mantissa: channel.mantissa,
            rounding: channel.rounding,
        };
        // SAFETY: a row of pixels reaches as far as the third of the last window, and `pixels` point into its first; there are
        // nine weights; `y` has a byte for each of rows · outputs outputs, at least one, `distance` apart.
        unsafe { own::depthwise_3x3(&raw mut lane) };
        Some(())
    }
}
