//! Patches: what an output pixel reads of the input, widened to 16 bits where the core multiplies those, and put in the
//! order in which filters lie.
//!
//! Four pixels are multiplied together, so that every weight is read and prepared once for all of them; pixels left over
//! have patches of their own. How patches lie in work memory is up to the core: [`pairs`], [`rows`], [`lanes`] or [`bytes`].
//! Elements without a weight hold anything: they meet weights of 0.

#[cfg(bytes)]
mod bytes;
#[cfg(scalar)]
pub(crate) mod lanes;
#[cfg(dsp)]
mod pairs;
#[cfg(any(dsp, scalar))]
mod quads;
#[cfg(vectors)]
mod rows;

#[cfg(bytes)]
pub(crate) use bytes::{Patch, Runs};
#[cfg(scalar)]
use lanes as layout;
#[cfg(dsp)]
use pairs as layout;
#[cfg(any(dsp, scalar))]
pub(crate) use quads::Patch;
#[cfg(vectors)]
pub(crate) use rows::Patch;

/// A patch of any kind, written segment by segment.
pub(crate) trait Segments {
    /// Writes `value` everywhere.
    fn fill_all(&mut self, value: i8);

    /// Writes `x` after `skipped` (below 4) elements of quad `at`; those, and what is left of the last quad, hold `rest`.
    fn write_segment(&mut self, at: usize, skipped: usize, x: &[i8], rest: i8) -> Option<()>;
}

impl<const W: usize> Segments for Patch<'_, W> {
    fn fill_all(&mut self, value: i8) {
        self.fill(value);
    }

    fn write_segment(&mut self, at: usize, skipped: usize, x: &[i8], rest: i8) -> Option<()> {
        if skipped == 0 { self.write(at, x, rest) } else { self.write_after(at, skipped, x, rest) }
    }
}

/// Output pixels that are multiplied together.
pub(crate) const PIXELS: usize = 4;

/// Words of work memory in front of the patches: sums of each pixel's elements, for kernels that need them.
pub(crate) const HEADER: usize = PIXELS;

/// Words of work memory that an operator with filters of `filter_len` elements needs to work on `pixels` output pixels.
pub const fn patches_len(filter_len: usize, pixels: usize) -> usize {
    let together = if pixels < PIXELS { 1 } else { PIXELS };
    HEADER + filter_len / 2 * together
}

/// Elements 0 and 2, and elements 1 and 3.
#[cfg(not(scalar))]
#[inline(always)]
pub(crate) fn widened(quad: [i8; 4]) -> [u32; 2] {
    #[cfg(dsp)]
    return super::dsp::widened(quad);
    #[cfg(not(dsp))]
    [[quad[0], quad[2]], [quad[1], quad[3]]]
        .map(|[low, high]| (i32::from(low) as u32 & 0xFFFF) | (i32::from(high) as u32) << 16)
}
