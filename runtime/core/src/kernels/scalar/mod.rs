//! Kernels for cores without instructions for several products: one 32-bit multiplication gives two.
//!
//! A word holds two numbers in lanes of 16 bits, as `low + high · 2^16` (see [`super::patches::lanes`]); a weight times the
//! word is both products. A few are summed in the word, a *run*, before they are taken apart.

#[cfg(native)]
mod native;
mod portable;

#[cfg(native)]
use native as own;
#[cfg(not(native))]
use portable as own;

use super::channels::Output;
use super::linear::{Linear, Place};
use super::patches::{HEADER, PIXELS};
use super::weights::{GROUP, OCTET, Width};

/// Words of an octet of four pixels.
const WORDS: usize = 2 * OCTET;

/// What is added to the lanes of a run, which are at least −32512 and at most 32768: then neither is negative, and the low
/// lane takes nothing from the high one.
const LIFT: [u32; 2] = [32767, 32512];

/// [`LIFT`] in a word.
const LIFTS: u32 = LIFT[0] | LIFT[1] << 16;

/// Products of a run: of 8 bits by 8 bits two, of 8 bits by 4 (which are stored as 0 to 15) eight.
const fn run_len<W: Width>() -> usize {
    if W::PACKED { OCTET } else { 2 }
}

/// A sum of lifted runs.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Runs {
    /// Of the words, modulo 2^32.
    words: u32,
    /// Of their high lanes.
    high: u32,
}

impl Runs {
    /// Adds a run.
    #[inline(always)]
    fn add(&mut self, run: u32) {
        let lifted = run.wrapping_add(LIFTS);
        self.words = self.words.wrapping_add(lifted);
        self.high = self.high.wrapping_add(lifted >> 16);
    }

    /// The sum of the low lanes of `count` runs.
    #[inline(always)]
    fn low(self, count: u32) -> i32 {
        self.words.wrapping_sub(self.high << 16).wrapping_sub(count.wrapping_mul(LIFT[0])) as i32
    }

    /// The sum of the high lanes of `count` runs.
    #[inline(always)]
    fn high(self, count: u32) -> i32 {
        self.high.wrapping_sub(count.wrapping_mul(LIFT[1])) as i32
    }
}

/// Makes work memory ready for patches: packed weights, stored as w + 8, multiply elements that no patch holds, too.
pub(super) fn prepare<W: Width>(work: &mut [u32]) {
    if W::PACKED {
        work.fill(0);
    }
}

/// Multiplies the patches of `P` pixels with filters. `plain` says that all multipliers are and that the output has 8 bits.
pub(super) fn multiply<W: Width, const P: usize>(
    linear: &Linear<'_, W>,
    work: &[u32],
    place: Place,
    y: &mut Output<'_>,
    plain: bool,
) -> Option<()> {
    let words = work.get(HEADER..)?;
    if P == PIXELS {
        let patches = words.as_chunks().0.get(..linear.filter_len / OCTET)?;
        four_pixels(linear, patches, place, y, plain)
    } else {
        one_pixel(linear, words, place, y, plain)
    }
}

/// Multiplies the patches of four pixels.
#[inline(never)]
fn four_pixels<W: Width>(
    linear: &Linear<'_, W>,
    patches: &[[u32; WORDS]],
    place: Place,
    y: &mut Output<'_>,
    plain: bool,
) -> Option<()> {
    let excess = if W::PACKED { excess(patches) } else { [0; PIXELS] };
    #[cfg(native)]
    if plain {
        return native::four_pixels(linear, patches, excess, place, y);
    }
    for o in place.first..place.end {
        let mut sums = portable::four_pixels::<W>(linear.weights.row(o)?, patches);
        for (i, (sum, excess)) in sums.iter_mut().zip(excess).enumerate() {
            let at = place.pixel.wrapping_add(i).wrapping_mul(linear.out_channels).wrapping_add(o);
            let sum = sum.wrapping_sub(excess);
            if plain {
                *y.bytes_from(at)?.first_mut()? = linear.channels.channel(o)?.finish(sum);
            } else {
                y.put(at, linear.channels.finish(o, sum)?)?;
            }
        }
    }
    Some(())
}

/// Eight times the sum of each pixel's elements: what packed weights, stored as w + 8, make too much.
fn excess(patches: &[[u32; WORDS]]) -> [i32; PIXELS] {
    let mut sums = [Runs::default(); 2];
    for octet in patches {
        for (pixels, sum) in sums.iter_mut().enumerate() {
            let (elements, _) = octet.as_chunks::<2>();
            sum.add(elements.iter().fold(0u32, |run, words| run.wrapping_add(words[pixels])));
        }
    }
    let count = patches.len() as u32;
    let [a, b] = sums;
    [a.low(count), a.high(count), b.low(count), b.high(count)].map(|sum| sum.wrapping_mul(8))
}

/// Multiplies the patch of one pixel, in bytes or, for packed weights, in lanes.
#[inline(never)]
fn one_pixel<W: Width>(
    linear: &Linear<'_, W>,
    words: &[u32],
    place: Place,
    y: &mut Output<'_>,
    plain: bool,
) -> Option<()> {
    let len = if W::PACKED { linear.filter_len / 2 } else { linear.filter_len / 4 };
    let patch = words.get(..len)?;
    let mut excess = 0i32;
    if W::PACKED {
        for &word in patch {
            let low = i32::from(word as i16);
            let high = (word as i32).wrapping_sub(low) >> 16;
            excess = excess.wrapping_add(low).wrapping_add(high);
        }
        excess = excess.wrapping_mul(8);
    }
    let at = place.pixel.wrapping_mul(linear.out_channels);
    let mut o = place.first;
    while o < place.end {
        if place.end.wrapping_sub(o) >= GROUP {
            let filters = linear.weights.range(o, o.wrapping_add(GROUP))?;
            finish_filters(linear, own::one_pixel::<W>(filters, patch)?, excess, o, at, y, plain)?;
            o = o.wrapping_add(GROUP);
        } else {
            let sum = portable::one_filter::<W>(linear.weights.row(o)?, patch)?;
            finish_filters(linear, sum, excess, o, at, y, plain)?;
            o = o.wrapping_add(1);
        }
    }
    Some(())
}

/// Finishes the sums of filters from `o` on, each `excess` too large, for the pixel whose outputs begin at `at`.
#[inline(always)]
fn finish_filters<W: Width, const F: usize>(
    linear: &Linear<'_, W>,
    sums: [i32; F],
    excess: i32,
    o: usize,
    at: usize,
    y: &mut Output<'_>,
    plain: bool,
) -> Option<()> {
    let sums = sums.map(|sum| sum.wrapping_sub(excess));
    if plain {
        return linear.channels.finish_plain(o, &sums, y.bytes_from(at.wrapping_add(o))?);
    }
    for (o, sum) in (o..).zip(sums) {
        y.put(at.wrapping_add(o), linear.channels.finish(o, sum)?)?;
    }
    Some(())
}
