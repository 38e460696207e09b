//! Kernels in Rust, for cores that have none in their own instructions and for outputs that those do not finish.

use super::{Runs, WORDS, run_len};
use crate::kernels::patches::PIXELS;
use crate::kernels::weights::{OCTET, Width};

/// The sums of a filter with `P` pixels.
#[inline(always)]
pub(super) fn sums<W: Width, const P: usize>(filter: &[W::Unit], patches: &[u32]) -> Option<[i32; P]> {
    let octets = W::octets(filter);
    let mut sums = [0i32; P];
    if P == PIXELS {
        sums.iter_mut().zip(four_pixels::<W>(octets, patches)).for_each(|(slot, sum)| *slot = sum);
    } else {
        *sums.first_mut()? = if W::PACKED { packed::<W>(octets, patches) } else { bytes::<W>(octets, patches)? };
    }
    Some(sums)
}

/// The sums with four pixels.
#[inline(never)]
fn four_pixels<W: Width>(filter: &[W::Octet], patches: &[u32]) -> [i32; PIXELS] {
    let (patches, _) = patches.as_chunks::<WORDS>();
    let mut all = [Runs::default(); 2];
    for (octet, weights) in patches.iter().zip(filter) {
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
    let ([a, b], count) = (all, (filter.len() * OCTET / run_len::<W>()) as u32);
    [a.low(count), a.high(count), b.low(count), b.high(count)]
}

/// The sum of a filter of bytes with one pixel.
#[inline(never)]
fn bytes<W: Width>(filter: &[W::Octet], patch: &[u32]) -> Option<i32> {
    let x: &[[i8; OCTET]] = bytemuck::try_cast_slice(patch).ok()?;
    let mut sum = 0i32;
    for (x, octet) in x.iter().zip(filter) {
        for (&x, w) in x.iter().zip(W::stored(octet)) {
            sum = sum.wrapping_add(i32::from(x).wrapping_mul(w));
        }
    }
    Some(sum)
}

/// The sum of a packed filter with one pixel.
#[inline(never)]
fn packed<W: Width>(filter: &[W::Octet], patch: &[u32]) -> i32 {
    let (x, _) = patch.as_chunks::<{ OCTET / 2 }>();
    let mut runs = Runs::default();
    for (x, octet) in x.iter().zip(filter) {
        let w = W::stored(octet).map(|w| w as u32);
        // The pairs that lie together.
        let pairs = [w[0] | w[2] << 16, w[1] | w[3] << 16, w[4] | w[6] << 16, w[5] | w[7] << 16];
        runs.add(pairs.iter().zip(x).fold(0, |run, (&pair, &x)| run.wrapping_add(pair.wrapping_mul(x))));
    }
    runs.high(x.len() as u32)
}
