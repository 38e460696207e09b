//! Patches times filters.

use core::arch::aarch64::*;

use super::finish::{self, Bytes, Quad};
use super::multiply::{Multiply, Operands, Widening};
use super::patches::{arrange, upper_sum};
use super::{Core, QUAD, lanes};
use crate::kernels::channels::Output;
use crate::kernels::linear::{Linear, Place, Source};
use crate::kernels::patches::{HEADER, PIXELS, Patch};
use crate::kernels::weights::{OCTET, Width};
use crate::plan::DType;

/// Pixels that products of matrices take together: there is work memory for twice as many patches of bytes.
const MATRIX_PIXELS: usize = 2 * PIXELS;

/// As [`Linear::run`].
#[inline(always)]
pub(in crate::kernels) fn run<W: Width>(
    linear: &Linear<'_, W>,
    source: &impl Source,
    pixels: usize,
    place: Place,
    work: &mut [u32],
    y: &mut Output<'_>,
) -> Option<()> {
    let core = Core::detect();
    let fits = y.dtype() == DType::I8 && finish::fit(&linear.channels);
    let kernel = Kernel { linear, filters: linear.weights.range(place.first, place.end)?, place, fits };
    let mut at = 0;
    if let Some(matrix) = core.matrix {
        while pixels - at >= MATRIX_PIXELS {
            kernel.block::<_, MATRIX_PIXELS, 2>(matrix, source, at, work, y)?;
            at += MATRIX_PIXELS;
        }
    }
    match core.dot {
        Some(dot) => kernel.by_vectors(dot, source, at..pixels, work, y),
        None => kernel.by_vectors(Widening, source, at..pixels, work, y),
    }
}

/// Multiplies filters with patches.
struct Kernel<'l, 'a, W: Width> {
    linear: &'l Linear<'a, W>,
    /// Those of `place`, one after the other.
    filters: &'a [W::Unit],
    place: Place,
    /// Whether vectors can finish the sums.
    fits: bool,
}

impl<W: Width> Kernel<'_, '_, W> {
    /// Four pixels at a time, and those left over one at a time.
    #[inline(always)]
    fn by_vectors<M: Multiply>(
        &self,
        core: M,
        source: &impl Source,
        pixels: core::ops::Range<usize>,
        work: &mut [u32],
        y: &mut Output<'_>,
    ) -> Option<()> {
        let mut at = pixels.start;
        while pixels.end - at >= PIXELS {
            self.block::<_, PIXELS, 1>(core, source, at, work, y)?;
            at += PIXELS;
        }
        for at in at..pixels.end {
            self.block::<_, 1, 2>(core, source, at, work, y)?;
        }
        Some(())
    }

    /// Computes `P` pixels from `at` on, at most `Q` quads of filters at a time.
    #[inline(always)]
    fn block<M: Multiply, const P: usize, const Q: usize>(
        &self,
        core: M,
        source: &impl Source,
        at: usize,
        work: &mut [u32],
        y: &mut Output<'_>,
    ) -> Option<()> {
        let len = self.linear.filter_len;
        let (_, words) = work.split_first_chunk_mut::<HEADER>()?;
        let (mut direct, mut excess) = ([None; P], [0; P]);
        for (i, (direct, excess)) in direct.iter_mut().zip(&mut excess).enumerate() {
            *direct = if W::PACKED { None } else { source.direct(at + i, len) };
            if direct.is_none() {
                source.write::<2>(at + i, Patch::new(words, i, len))?;
                if W::PACKED {
                    let room: &mut [i8] = bytemuck::try_cast_slice_mut(words).ok()?;
                    *excess = 8 * arrange(room.get_mut(i * len..)?.get_mut(..len)?)?;
                }
            }
        }
        let room: &[i8] = bytemuck::try_cast_slice(words).ok()?;
        room.get(..P * len)?;
        let mut places = (0..).map(|i| room.as_ptr().wrapping_add(i * len));
        let patches = direct.map(|direct| {
            let place = places.next().unwrap_or(room.as_ptr());
            direct.map_or(place, <[i8]>::as_ptr)
        });
        if M::EXCESS && !W::PACKED {
            for (excess, &patch) in excess.iter_mut().zip(&patches) {
                // SAFETY: a patch has `len` elements.
                *excess = unsafe { upper_sum(patch, len) };
            }
        }
        let mut o = self.place.first;
        while o < self.place.end {
            if Q > 1 && self.place.end - o > QUAD {
                self.quads::<M, P, Q>(core, patches, excess, [at, o], y)?;
                o += Q * QUAD;
            } else {
                self.quads::<M, P, 1>(core, patches, excess, [at, o], y)?;
                o += QUAD;
            }
        }
        Some(())
    }

    /// Computes `Q` quads of filters from `o` on, of which the first exists, at least in part.
    #[inline(always)]
    fn quads<M: Multiply, const P: usize, const Q: usize>(
        &self,
        core: M,
        patches: [*const i8; P],
        excess: [i32; P],
        [at, o]: [usize; 2],
        y: &mut Output<'_>,
    ) -> Option<()> {
        let len = self.linear.filter_len;
        let bytes = if W::PACKED { len / OCTET * 4 } else { len };
        let last = self.filters.len() * size_of::<W::Unit>() - bytes;
        // Filters beyond the last are the last one again.
        let start = (o - self.place.first) * bytes;
        let filters = self.filters.as_ptr().cast::<u8>();
        let filters = core::array::from_fn(|q| {
            core::array::from_fn(|i| filters.wrapping_add((start + (q * QUAD + i) * bytes).min(last)))
        });
        // SAFETY: patches have `len` elements, as have filters: they begin no later than `last`.
        unsafe {
            let sums = core.sums::<W, P, Q>(&Operands { filters, patches, len });
            for (q, sums) in sums.into_iter().enumerate().take_while(|(q, _)| o + q * QUAD < self.place.end) {
                self.finish(sums, excess, [at, o + q * QUAD], y)?;
            }
        }
        Some(())
    }

    /// Finishes the sums of a quad of filters from `o` on of `P` pixels from `at` on.
    #[inline]
    #[target_feature(enable = "neon")]
    fn finish<const P: usize>(
        &self,
        mut sums: [int32x4_t; P],
        excess: [i32; P],
        [at, o]: [usize; 2],
        y: &mut Output<'_>,
    ) -> Option<()> {
        let Linear { ref channels, out_channels, .. } = *self.linear;
        for (sums, excess) in sums.iter_mut().zip(excess) {
            *sums = vsubq_s32(*sums, vdupq_n_s32(excess));
        }
        let pixel = self.place.pixel + at;
        let count = QUAD.min(self.place.end - o);
        if !self.fits {
            for (pixel, sums) in (pixel..).zip(sums) {
                for (o, sum) in (o..).zip(lanes(sums)).take(count) {
                    y.put(pixel * out_channels + o, channels.finish(o, sum)?)?;
                }
            }
            return Some(());
        }
        let quad = Quad::new(channels, o)?;
        let output = Bytes::new(channels.zero_point, channels.clamp);
        let mut out = [[0u8; QUAD]; P];
        for (sums, out) in sums.chunks(QUAD).zip(out.chunks_mut(QUAD)) {
            let scaled = |i: usize| sums.get(i).map_or(vdupq_n_s32(0), |&sum| quad.scaled(vaddq_s32(sum, quad.bias)));
            let done = output.finish(core::array::from_fn(scaled));
            let words = lanes(vreinterpretq_s32_s8(done));
            for (out, word) in out.iter_mut().zip(words) {
                *out = word.to_le_bytes();
            }
        }
        let y = y.bytes_from(pixel * out_channels + o)?.get_mut(..(P - 1) * out_channels + count)?;
        for (y, out) in y.chunks_mut(out_channels).zip(out) {
            match y.first_chunk_mut() {
                Some(y) if count == QUAD => *y = out,
                _ => y.get_mut(..count)?.copy_from_slice(out.get(..count)?),
            }
        }
        Some(())
    }
}
