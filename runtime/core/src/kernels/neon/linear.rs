//! Patches times filters.

use core::arch::aarch64::*;

use super::finish::{self, Bytes, Quads, Words};
use super::multiply::{Multiply, Operands, Widening};
use super::patches::{arrange, upper_sum};
use super::{Core, QUAD, lanes};
use crate::kernels::channels::Output;
use crate::kernels::linear::{Linear, Place, Source};
use crate::kernels::patches::{HEADER, PIXELS, Patch};
use crate::kernels::weights::Width;
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
    /// Whether sums are finished in 32 bits, for an output of 8.
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
            *direct = if W::PACKED { None } else { source.direct(at + i, len).and_then(|x| x.get(..len)) };
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
        let mut patches = [room.as_ptr(); P];
        for (i, (patch, direct)) in patches.iter_mut().zip(direct).enumerate() {
            *patch = direct.map_or(room.as_ptr().wrapping_add(i * len), <[i8]>::as_ptr);
        }
        if M::EXCESS && !W::PACKED {
            for (excess, &patch) in excess.iter_mut().zip(&patches) {
                // SAFETY: a patch has `len` elements.
                *excess = unsafe { upper_sum(patch, len) };
            }
        }
        // SAFETY: patches have `len` elements: those in the input were cut to as many, those in work memory have the room.
        unsafe {
            if self.fits {
                self.multiply::<M, P, Q, true>(core, patches, excess, at, y)
            } else {
                self.multiply::<M, P, Q, false>(core, patches, excess, at, y)
            }
        }
    }

    /// Multiplies all filters with patches: `Q` quads at a time, and those left over one by one. `FITS` is as `self.fits`.
    ///
    /// # Safety
    ///
    /// Patches have as many elements as filters.
    #[inline(never)]
    #[target_feature(enable = "neon")]
    unsafe fn multiply<M: Multiply, const P: usize, const Q: usize, const FITS: bool>(
        &self,
        core: M,
        patches: [*const i8; P],
        excess: [i32; P],
        at: usize,
        y: &mut Output<'_>,
    ) -> Option<()> {
        let Linear { ref channels, out_channels, filter_len: len, .. } = *self.linear;
        let Place { pixel, first, end } = self.place;
        let filters = self.filters.as_ptr().cast::<u8>();
        let bytes = if W::PACKED { len / 2 } else { len };
        let pixel = pixel + at;
        let mut o = first;
        let quads = Quads::new(channels, end)?;
        let (bytes_out, words_out) =
            (Bytes::new(channels.zero_point, channels.clamp), Words::new(channels.zero_point, channels.clamp));
        let (dtype, size) = (y.dtype(), if FITS { 1 } else { y.dtype().size() });
        let minus = excess.map(|excess| vdupq_n_s32(excess));
        let out = y.bytes_from(pixel * out_channels * size)?.get_mut(..((P - 1) * out_channels + end) * size)?;
        while end - o >= Q * QUAD {
            let filters = filters.wrapping_add((o - first) * bytes);
            let filters =
                core::array::from_fn(|q| core::array::from_fn(|i| filters.wrapping_add((q * QUAD + i) * bytes)));
            // SAFETY: filters up to `end` have `len` elements each; `quads` and `out` reach as far.
            unsafe {
                let mut sums = core.sums::<W, P, Q>(&Operands { filters, patches, len });
                for (q, sums) in sums.iter_mut().enumerate() {
                    let quad = quads.get(o + q * QUAD);
                    for (sum, &minus) in sums.iter_mut().zip(&minus) {
                        let bias = if M::EXCESS || W::PACKED { vsubq_s32(quad.bias, minus) } else { quad.bias };
                        let biased = vaddq_s32(*sum, bias);
                        *sum = if FITS { quad.scaled(biased) } else { quad.scaled_wide(biased) };
                    }
                }
                let out = out.as_mut_ptr().add(o * size);
                if FITS {
                    store(&bytes_out, &sums, out, out_channels);
                } else {
                    store_any(&words_out, &sums, out, dtype, out_channels);
                }
            }
            o += Q * QUAD;
        }
        while o < end {
            // Filters beyond the last are the last one again.
            let last = end - 1 - first;
            let filters = [core::array::from_fn(|i| filters.wrapping_add((o - first + i).min(last) * bytes))];
            // SAFETY: filters up to `end` have `len` elements each.
            let [sums] = unsafe { core.sums::<W, P, 1>(&Operands { filters, patches, len }) };
            for (pixel, (sums, excess)) in (pixel..).zip(sums.into_iter().zip(excess)) {
                for (o, sum) in (o..end).zip(lanes(sums)) {
                    y.put(pixel * out_channels + o, channels.finish(o, sum.wrapping_sub(excess))?)?;
                }
            }
            o += QUAD;
        }
        Some(())
    }
}

/// Stores the outputs of `Q` quads of channels for `P` pixels, which lie `stride` apart.
///
/// # Safety
///
/// They can be written at `y`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store<const P: usize, const Q: usize>(
    output: &Bytes,
    scaled: &[[int32x4_t; P]; Q],
    y: *mut u8,
    stride: usize,
) {
    // Vectors of one pixel after those of the other; an output has four of them.
    let vector = |i: usize| scaled[i % Q][(i / Q) % P];
    for first in (0..P * Q).step_by(QUAD) {
        let out = output.finish([vector(first), vector(first + 1), vector(first + 2), vector(first + 3)]);
        // SAFETY: as said.
        unsafe {
            if Q == 2 {
                let out = vreinterpretq_u64_s8(out);
                let y = y.wrapping_add(first / 2 * stride);
                y.cast::<u64>().write_unaligned(vgetq_lane_u64::<0>(out));
                if P > 1 {
                    y.add(stride).cast::<u64>().write_unaligned(vgetq_lane_u64::<1>(out));
                }
            } else {
                let words = lanes(vreinterpretq_s32_s8(out));
                for (i, &word) in words.iter().enumerate().take(P) {
                    y.add((first + i) * stride).cast::<i32>().write_unaligned(word);
                }
            }
        }
    }
}

/// As [`store`], for any output.
///
/// # Safety
///
/// They can be written at `y`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store_any<const P: usize, const Q: usize>(
    output: &Words,
    scaled: &[[int32x4_t; P]; Q],
    y: *mut u8,
    dtype: DType,
    stride: usize,
) {
    for (q, scaled) in scaled.iter().enumerate() {
        for (pixel, &scaled) in scaled.iter().enumerate() {
            let out = output.finish(scaled);
            let halves = vmovn_s32(out);
            let bytes = vmovn_s16(vcombine_s16(halves, halves));
            let at = pixel * stride + q * QUAD;
            // SAFETY: as said.
            unsafe {
                match dtype {
                    DType::I8 => {
                        y.add(at).cast::<i32>().write_unaligned(vget_lane_s32::<0>(vreinterpret_s32_s8(bytes)))
                    }
                    DType::I16 => vst1_u8(y.add(2 * at), vreinterpret_u8_s16(halves)),
                    DType::I32 => vst1q_u8(y.add(4 * at), vreinterpretq_u8_s32(out)),
                }
            }
        }
    }
}
