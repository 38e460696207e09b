//! Kernels for cores without instructions for several products: one 32-bit multiplication gives two.
//!
//! A word holds two numbers in lanes of 16 bits, as `low + high · 2^16` (see [`super::patches::lanes`]); a weight times the
//! word is both products. A few are summed in the word, a *run*, before they are taken apart.

#[cfg(native)]
mod native;
mod portable;

#[cfg(native)]
pub(super) use native::Windows;

use super::channels::Output;
use super::linear::{Linear, Place};
use super::patches::{HEADER, PIXELS};
use super::weights::{OCTET, Width};

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

/// Words of an octet of `P` pixels' patches: one pixel lies in bytes or, for packed weights, in lanes.
const fn octet_words<W: Width, const P: usize>() -> usize {
    match (W::PACKED, P) {
        (_, PIXELS) => WORDS,
        (true, _) => OCTET / 2,
        (false, _) => OCTET / 4,
    }
}

/// Multiplies the patches of `P` pixels with filters. `plain` says that all multipliers are and that the output has 8 bits.
#[inline(never)]
pub(super) fn multiply<W: Width, const P: usize>(
    linear: &Linear<'_, W>,
    work: &[u32],
    place: Place,
    y: &mut Output<'_>,
    plain: bool,
) -> Option<()> {
    let len = (linear.filter_len / OCTET).wrapping_mul(octet_words::<W, P>());
    let patches = work.get(HEADER..)?.get(..len)?;
    let excess = if W::PACKED { excess::<P>(patches) } else { [0; P] };
    #[cfg(native)]
    if plain {
        return native::multiply(linear, patches, excess, place, y);
    }
    for o in place.first..place.end {
        let sums = portable::sums::<W, P>(linear.weights.row(o)?, patches)?;
        for (i, (sum, excess)) in sums.into_iter().zip(excess).enumerate() {
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

/// Eight times the sum of each pixel's elements, which lie in lanes: what packed weights, stored as w + 8, make too much.
fn excess<const P: usize>(patches: &[u32]) -> [i32; P] {
    let lanes = if P == PIXELS { lanes::<WORDS>(patches) } else { lanes::<{ OCTET / 2 }>(patches) };
    if P == PIXELS {
        return core::array::from_fn(|i| lanes[i % PIXELS].wrapping_mul(8));
    }
    [lanes.iter().fold(0i32, |sum, &lane| sum.wrapping_add(lane)).wrapping_mul(8); P]
}

/// The sums of both lanes of even words, and of odd ones; a run has `N` words.
fn lanes<const N: usize>(words: &[u32]) -> [i32; 4] {
    let (runs, _) = words.as_chunks::<N>();
    let mut sums = [Runs::default(); 2];
    for run in runs {
        for (i, sum) in sums.iter_mut().enumerate() {
            let (pairs, _) = run.as_chunks::<2>();
            sum.add(pairs.iter().fold(0u32, |run, words| run.wrapping_add(words[i])));
        }
    }
    let count = runs.len() as u32;
    let [a, b] = sums;
    [a.low(count), a.high(count), b.low(count), b.high(count)]
}
