//! Kernels in the core's own instructions: compilers keep too few of the numbers in registers.
//!
//! Functions are written whole (`naked`) and follow the procedure call standard. The same four exist for each core:
//!
//! - `four_int8`, `four_int4`: [`FILTERS`] filters with the patches of four pixels, eight words an octet; to `out` go, for
//!   each filter, [`Runs`] of pixels 0 and 1 and of pixels 2 and 3.
//! - `one_int8`, `one_int4`: [`GROUP`] filters, which lie one after the other, with the patch of one pixel; to `out` goes
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

use super::{Runs, WORDS};
use crate::kernels::weights::{GROUP, OCTET, Width};
pub(super) use own::FILTERS;

/// Filters and the patches of four pixels: where they are.
#[repr(C)]
struct Operands {
    patches: *const u32,
    /// Octets of each filter and patch, at least 1.
    octets: usize,
    filters: [*const u8; FILTERS],
}

/// The runs of each filter with four pixels: those of pixels 0 and 1, and of pixels 2 and 3.
#[inline(always)]
pub(super) fn four_pixels<W: Width>(
    filters: [Option<&[W::Unit]>; FILTERS],
    patches: &[[u32; WORDS]],
) -> Option<[[Runs; 2]; FILTERS]> {
    let octets = patches.len();
    let mut pointers = [core::ptr::null(); FILTERS];
    for (pointer, filter) in pointers.iter_mut().zip(filters) {
        let filter = W::octets(filter?).get(..octets).filter(|filter| !filter.is_empty())?;
        *pointer = filter.as_ptr().cast();
    }
    let operands = Operands { patches: patches.as_ptr().cast(), octets, filters: pointers };
    let mut out = [[Runs::default(); 2]; FILTERS];
    let kernel = if W::PACKED { own::four_int4 } else { own::four_int8 };
    // SAFETY: each filter has `octets` octets and so have the patches, of eight words for each octet; there is at least
    // one. `out` has two runs for each filter. Octets of packed filters are words, patches are, and so both are aligned.
    unsafe { kernel(&operands, out.as_mut_ptr()) };
    Some(out)
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
