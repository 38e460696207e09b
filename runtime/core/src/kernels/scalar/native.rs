//! Kernels in the core's own instructions: compilers keep too few of the numbers in registers.
//!
//! Functions are written whole (`naked`) and follow the procedure call standard. The same four exist for each core:
//!
//! - `four_int8` and `four_int4` take a [`Block`]: filters, one after the other, and the patches of four pixels, eight words
//!   an octet. They finish the sums.
//! - `one_int8` and `one_int4`: [`GROUP`] filters, which lie one after the other, with the patch of one pixel; to `out` goes
//!   a word for each filter: its sum, or the sum of the high lanes of its runs.
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

use super::{LIFT, Runs, WORDS, run_len};
use crate::kernels::channels::Output;
use crate::kernels::linear::{Linear, Place};
use crate::kernels::patches::PIXELS;
use crate::kernels::weights::{GROUP, OCTET, Width};

/// What a kernel for four pixels reads and writes. It moves the pointers as it goes.
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

/// Multiplies the patches of four pixels with filters whose channels are plain, for an output of 8 bits; the sums of each
/// pixel are `excess` too large.
pub(super) fn four_pixels<W: Width>(
    linear: &Linear<'_, W>,
    patches: &[[u32; WORDS]],
    excess: [i32; PIXELS],
    place: Place,
    y: &mut Output<'_>,
) -> Option<()> {
    let Linear { weights, channels, out_channels, .. } = *linear;
    let Place { pixel, first, end } = place;
    let count = end.checked_sub(first).filter(|&count| count > 0)?;
    let octets = patches.len();
    let filters = weights.range(first, end)?;
    if octets == 0 || W::octets(filters).len() != octets.checked_mul(count)? {
        return None;
    }
    // The lifts of all runs, too, are taken off at the start.
    let runs = (linear.filter_len / run_len::<W>()) as u32;
    let lifts = LIFT.map(|lift| runs.wrapping_mul(lift) as i32);
    let [a, b, c, d] = excess;
    let starts = [(lifts[0], a), (lifts[1], b), (lifts[0], c), (lifts[1], d)];
    let y = y.bytes_from(pixel.wrapping_mul(out_channels).wrapping_add(first))?;
    let reach = out_channels.wrapping_mul(PIXELS - 1).wrapping_add(count);
    let mut block = Block {
        patches: patches.as_ptr().cast(),
        octets,
        filters: filters.as_ptr().cast(),
        bias: channels.bias.get(first..end)?.as_ptr(),
        mantissas: channels.mantissas.get(first..end)?.as_ptr(),
        shifts: channels.shifts.get(first..end)?.as_ptr(),
        y: y.get_mut(..reach)?.as_mut_ptr(),
        stride: out_channels,
        count,
        rounding: channels.zero_point.wrapping_mul(2).wrapping_add(1),
        starts: starts.map(|(lift, excess)| lift.wrapping_add(excess).wrapping_neg()),
    };
    let kernel = if W::PACKED { own::four_int4 } else { own::four_int8 };
    // SAFETY: `patches` has eight words for each of `octets` octets, at least one; `filters` has `count` rows of `octets`
    // octets; `bias`, `mantissas` and `shifts` have `count` elements, at least one; `y` has every byte of `count` neighbours
    // in each of four pixels `stride` apart. All were checked or sliced to these lengths above. Octets of packed filters are
    // words, and so aligned.
    unsafe { kernel(&raw mut block) };
    channels.clamp_rows(y, [PIXELS, out_channels, count])
}

/// The sums of four filters, which lie one after the other, with one pixel.
#[inline(always)]
pub(super) fn one_pixel<W: Width>(filters: &[W::Unit], patch: &[u32]) -> Option<[i32; GROUP]> {
    let octets = W::octets(filters).len() / GROUP;
    let words = if W::PACKED { OCTET / 2 } else { OCTET / 4 };
    if octets == 0 || patch.len() != octets.checked_mul(words)? {
        return None;
    }
    let mut out = [0u32; GROUP];
    let kernel = if W::PACKED { own::one_int4 } else { own::one_int8 };
    // SAFETY: there are `octets` octets, at least one, of each of four filters and of the patch, of `words` words an octet;
    // `out` has four words. Octets of packed filters are words, the patch is, and so both are aligned.
    unsafe { kernel(filters.as_ptr().cast(), patch.as_ptr(), octets, out.as_mut_ptr()) };
    if !W::PACKED {
        return Some(out.map(|sum| sum as i32));
    }
    Some(out.map(|high| Runs { words: 0, high }.high(octets as u32)))
}
