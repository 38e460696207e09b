//! Kernels in Rust, for cores that have none in their own instructions and for what those leave over.

use super::{Runs, WORDS, run_len};
use crate::kernels::patches::PIXELS;
#[cfg(not(native))]
use crate::kernels::weights::GROUP;
use crate::kernels::weights::{OCTET, Width};

/// The sums of a filter with four pixels.
#[inline(never)]
pub(super) fn four_pixels<W: Width>(filter: &[W::Unit], patches: &[[u32; WORDS]]) -> [i32; PIXELS] {
    let mut all = [Runs::default(); 2];
    for (octet, weights) in patches.iter().zip(W::octets(filter)) {
        let weights = W::stored(weights);
        let runs = octet.chunks(2 * run_len::<W>()).zip(weights.chunks(run_len::<W>()));
        for (words, weights) in runs {
            let mut run = [0u32; 2];
            for (pixels, &weight) in words.as_chunks::<2>().0.iter().zip(weights) {
                for (run, &x) in run.iter_mut().zip(pixels) {
                    *run = run.wrapping_add(x.wrapping_mul(weight as u32));
                }
            }
            for (sum, run) in all.iter_mut().zip(run) {
                sum.add(run);
            }
        }
    }
    let ([a, b], count) = (all, (patches.len() * OCTET / run_len::<W>()) as u32);
    [a.low(count), a.high(count), b.low(count), b.high(count)]
}

/// The sums of four filters, which lie one after the other, with one pixel.
#[cfg(not(native))]
#[inline(always)]
pub(super) fn one_pixel<W: Width>(filters: &[W::Unit], patch: &[u32]) -> Option<[i32; GROUP]> {
    let octets = W::octets(filters);
    let mut rows = octets.chunks_exact(octets.len() / GROUP);
    let [a, b, c, d] = [rows.next()?, rows.next()?, rows.next()?, rows.next()?];
    let filters = a.iter().zip(b).zip(c).zip(d).map(|(((a, b), c), d)| [a, b, c, d]);
    sums::<W, GROUP>(filters, patch)
}

/// The sum of a filter with one pixel.
#[inline(never)]
pub(super) fn one_filter<W: Width>(filter: &[W::Unit], patch: &[u32]) -> Option<[i32; 1]> {
    sums::<W, 1>(W::octets(filter).iter().map(|octet| [octet]), patch)
}

/// The sums of filters, whose octets at one place come together, with one pixel.
#[inline(always)]
fn sums<'f, W: Width<Octet: 'f>, const F: usize>(
    filters: impl Iterator<Item = [&'f W::Octet; F]>,
    patch: &[u32],
) -> Option<[i32; F]> {
    if !W::PACKED {
        let x: &[[i8; OCTET]] = bytemuck::try_cast_slice(patch).ok()?;
        let mut sums = [0i32; F];
        for (x, octets) in x.iter().zip(filters) {
            let weights = octets.map(W::stored);
            for (k, &x) in x.iter().enumerate() {
                for (sum, weights) in sums.iter_mut().zip(&weights) {
                    *sum = sum.wrapping_add(i32::from(x).wrapping_mul(weights[k]));
                }
            }
        }
        return Some(sums);
    }
    let (x, _) = patch.as_chunks::<{ OCTET / 2 }>();
    let mut runs = [Runs::default(); F];
    for (x, octets) in x.iter().zip(filters) {
        for (runs, octet) in runs.iter_mut().zip(octets) {
            let w = W::stored(octet).map(|w| w as u32);
            // The pairs that lie together.
            let pairs = [w[0] | w[2] << 16, w[1] | w[3] << 16, w[4] | w[6] << 16, w[5] | w[7] << 16];
            runs.add(pairs.iter().zip(x).fold(0, |run, (&pair, &x)| run.wrapping_add(pair.wrapping_mul(x))));
        }
    }
    Some(runs.map(|runs| runs.high(x.len() as u32)))
}
