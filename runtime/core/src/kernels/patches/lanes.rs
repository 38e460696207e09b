//! Quads for cores without instructions for several products: a word is two lanes, `low + high · 2^16` as integers, so that
//! its product with a number holds two products (see [`crate::kernels::scalar`]).
//!
//! A quad takes
//! - eight words for four pixels: of each element, a word of pixels 0 and 1 and a word of pixels 2 and 3;
//! - two words for one pixel: elements 2 and 0, and 3 and 1. Times a pair of 4-bit weights, which lie the other way round
//!   (see [`crate::kernels::weights`]), the high lane holds the sum of two products;
//! - one word for one pixel: its bytes.

/// Words of a quad of one pixel in lanes.
pub(crate) const LANES: usize = 2;

/// Words of a quad of one pixel in bytes.
pub(crate) const BYTES: usize = 1;

/// A word of two lanes.
#[inline(always)]
fn word(low: i8, high: i8) -> u32 {
    raise(i32::from(low), high)
}

/// Adds `high` to the high lane.
#[inline(always)]
fn raise(low: i32, high: i8) -> u32 {
    (low as u32).wrapping_add((i32::from(high) as u32) << 16)
}

/// Writes quads of one pixel, as many as there are. Of pixels that share words the first is written before the second.
#[inline(always)]
pub(super) fn write<const W: usize>(quads: &mut [[u32; W]], pixel: usize, x: &[[i8; 4]]) -> Option<()> {
    // A constant within the loops.
    match pixel {
        0 => quads.iter_mut().zip(x).for_each(|(quad, &x)| put(quad, 0, x)),
        1 => quads.iter_mut().zip(x).for_each(|(quad, &x)| put(quad, 1, x)),
        2 => quads.iter_mut().zip(x).for_each(|(quad, &x)| put(quad, 2, x)),
        _ => quads.iter_mut().zip(x).for_each(|(quad, &x)| put(quad, 3, x)),
    }
    Some(())
}

/// Writes a quad of one pixel, the first of those that share words before the second.
#[inline(always)]
pub(super) fn put<const W: usize>(quad: &mut [u32; W], pixel: usize, x: [i8; 4]) {
    match W {
        BYTES => quad.fill(u32::from_le_bytes(x.map(|x| x as u8))),
        LANES => {
            for (slot, word) in quad.iter_mut().zip([word(x[2], x[0]), word(x[3], x[1])]) {
                *slot = word;
            }
        }
        _ => {
            let (elements, _) = quad.as_chunks_mut::<2>();
            for (words, x) in elements.iter_mut().zip(x) {
                let [first, second] = words;
                let slot = if pixel < 2 { first } else { second };
                *slot = if pixel.is_multiple_of(2) { i32::from(x) as u32 } else { raise(i32::from(*slot as i16), x) };
            }
        }
    }
}
