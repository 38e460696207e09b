//! Quads for cores with dual 16-bit multipliers: two rows of a word for each pixel, and a word a pair of elements, 0 and 2
//! or 1 and 3, in halves of a word: those that lie together in 4-bit weights (see [`crate::kernels`]).

use super::widened;
use crate::kernels::dsp;

/// Writes quads of one pixel, as many as there are.
#[inline(always)]
pub(super) fn write<const W: usize>(quads: &mut [[u32; W]], pixel: usize, x: &[[i8; 4]]) -> Option<()> {
    dsp::widen(x, quads, pixel)
}

/// Writes a quad of one pixel.
#[inline(always)]
pub(super) fn put<const W: usize>(quad: &mut [u32; W], pixel: usize, x: [i8; 4]) {
    let [even, odd] = widened(x);
    let (evens, odds) = quad.split_at_mut(W / 2);
    if let (Some(even_slot), Some(odd_slot)) = (evens.get_mut(pixel), odds.get_mut(pixel)) {
        (*even_slot, *odd_slot) = (even, odd);
    }
}
