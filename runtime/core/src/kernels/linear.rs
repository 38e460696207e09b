//! Patches times filters: the inner part of convolutions and of products with constant weights.

use super::channels::{Channels, Output};
use super::patches::Patch;
#[cfg(not(bytes))]
use super::patches::{self, PIXELS};
#[cfg(vectors)]
use super::weights::OCTET;
use super::weights::{Matrix, Width};
#[cfg(not(bytes))]
use crate::plan::DType;

/// What output pixels read.
pub(crate) trait Source {
    /// Writes what pixel `i` reads into its patch.
    fn write<const W: usize>(&self, i: usize, patch: Patch<'_, W>) -> Option<()>;

    /// What pixel `i` reads as it lies in the input, if these are neighbours: `len` elements, the last of which may be
    /// others where they meet weights of 0.
    #[cfg(bytes)]
    fn direct(&self, i: usize, len: usize) -> Option<&[i8]>;

    /// The windows of all pixels.
    #[cfg(x86)]
    fn windows(&self, pixels: usize) -> Option<super::x86::Windows<'_>>;
}

/// Pixels that each read a row of their own.
pub(crate) struct Rows<'a> {
    pub(crate) x: &'a [i8],
    /// Elements of a row.
    pub(crate) depth: usize,
}

impl Source for Rows<'_> {
    #[inline(always)]
    fn write<const W: usize>(&self, i: usize, mut patch: Patch<'_, W>) -> Option<()> {
        let start = i.wrapping_mul(self.depth);
        patch.write(0, self.x.get(start..start.wrapping_add(self.depth))?, 0)
    }

    #[cfg(bytes)]
    #[inline(always)]
    fn direct(&self, i: usize, len: usize) -> Option<&[i8]> {
        let start = i.wrapping_mul(self.depth);
        self.x.get(start..start.wrapping_add(len))
    }

    #[cfg(x86)]
    fn windows(&self, pixels: usize) -> Option<super::x86::Windows<'_>> {
        let [rows, cols] = [pixels, 1].map(super::window::Axis::of_pixels);
        let (image, channels) = (self.x, self.depth);
        Some(super::x86::Windows { image, x_zero: 0, rows, cols, channels, segments: 1, len: channels })
    }
}

/// Filters with what finishes their sums.
#[derive(Clone, Copy)]
pub(crate) struct Linear<'a, W: Width> {
    pub(crate) weights: Matrix<'a, W>,
    pub(crate) channels: Channels<'a>,
    /// Elements of a filter.
    pub(crate) filter_len: usize,
    /// Channels of the output: the distance of its pixels.
    pub(crate) out_channels: usize,
}

/// Where a block of results goes: filters `first..end` of the output pixels from `pixel` on.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) pixel: usize,
    pub(crate) first: usize,
    pub(crate) end: usize,
}

impl<W: Width> Linear<'_, W> {
    /// Computes `pixels` output pixels from `place.pixel` on; `work` has [`patches::patches_len`] words.
    #[inline(always)]
    pub(crate) fn run(
        &self,
        source: &impl Source,
        pixels: usize,
        place: Place,
        work: &mut [u32],
        y: &mut Output<'_>,
    ) -> Option<()> {
        #[cfg(mve)]
        return super::mve::run(self, source, pixels, place, work, y);
        #[cfg(neon)]
        return super::neon::run(self, source, pixels, place, work, y);
        #[cfg(not(bytes))]
        self.run_by_patches(source, pixels, place, work, y)
    }

    /// As [`Self::run`], where kernels take patches from work memory.
    #[cfg(not(bytes))]
    #[inline(always)]
    fn run_by_patches(
        &self,
        source: &impl Source,
        pixels: usize,
        place: Place,
        work: &mut [u32],
        y: &mut Output<'_>,
    ) -> Option<()> {
        #[cfg(x86)]
        if let Some(avx2) = super::x86::Avx2::detect()
            && let Some(windows) = source.windows(pixels)
            && super::x86::worth_it(&windows, self.filter_len)
        {
            return match super::x86::Bytes::detect() {
                Some(bytes) => bytes.columns(self, &windows, place, y),
                None => avx2.columns(self, &windows, place, y),
            };
        }
        // Whether this core's own kernel can finish the sums.
        let plain = y.dtype() == DType::I8 && self.channels.are_plain();
        #[cfg(scalar)]
        super::scalar::prepare::<W>(work);
        let mut at = 0usize;
        while at < pixels {
            let place = Place { pixel: place.pixel.wrapping_add(at), ..place };
            let (_, words) = work.split_first_chunk_mut::<{ patches::HEADER }>()?;
            if pixels.wrapping_sub(at) >= PIXELS {
                for i in 0..PIXELS {
                    source.write::<{ 2 * PIXELS }>(at.wrapping_add(i), Patch::new(words, i, self.filter_len))?;
                }
                self.multiply::<PIXELS>(work, place, y, plain)?;
                at = at.wrapping_add(PIXELS);
            } else {
                self.write_one(source, at, words)?;
                self.multiply::<1>(work, place, y, plain)?;
                at = at.wrapping_add(1);
            }
        }
        Some(())
    }

    /// Writes the patch of pixel `at` alone.
    #[cfg(not(bytes))]
    #[inline(always)]
    fn write_one(&self, source: &impl Source, at: usize, words: &mut [u32]) -> Option<()> {
        #[cfg(scalar)]
        if !W::PACKED {
            return source.write::<{ patches::lanes::BYTES }>(at, Patch::new(words, 0, self.filter_len));
        }
        source.write::<2>(at, Patch::new(words, 0, self.filter_len))
    }

    /// Multiplies the patches of `P` pixels with the filters.
    #[cfg(not(bytes))]
    #[inline(always)]
    fn multiply<const P: usize>(&self, work: &mut [u32], place: Place, y: &mut Output<'_>, plain: bool) -> Option<()> {
        #[cfg(dsp)]
        return match plain {
            true => super::dsp::multiply::<W, P>(self, work, place, y),
            false if y.dtype() == DType::I8 => self.multiply_by_runs::<P>(work, place, y),
            false => super::dsp::multiply_any(self, work, P, place, y),
        };
        #[cfg(x86)]
        if let Some(avx2) = super::x86::Avx2::detect() {
            return avx2.multiply::<W, P>(self, work, place, y);
        }
        #[cfg(scalar)]
        return super::scalar::multiply::<W, P>(self, work, place, y, plain);
        #[cfg(vectors)]
        {
            let _ = plain;
            self.multiply_portably::<P>(work, place, y)
        }
    }

    /// As [`Self::multiply`] where some channels are not plain.
    #[cfg(dsp)]
    #[inline(never)]
    fn multiply_by_runs<const P: usize>(&self, work: &mut [u32], place: Place, y: &mut Output<'_>) -> Option<()> {
        let mut first = place.first;
        while first < place.end {
            let plain = self.channels.is_plain(first);
            let mut end = first.wrapping_add(1);
            while end < place.end && self.channels.is_plain(end) == plain {
                end = end.wrapping_add(1);
            }
            let run = Place { first, end, ..place };
            if plain {
                super::dsp::multiply::<W, P>(self, work, run, y)?;
            } else {
                super::dsp::multiply_any(self, work, P, run, y)?;
            }
            first = end;
        }
        Some(())
    }

    /// As [`Self::multiply`], on any core and for any output.
    #[cfg(vectors)]
    #[inline(never)]
    fn multiply_portably<const P: usize>(&self, work: &[u32], place: Place, y: &mut Output<'_>) -> Option<()> {
        let words = work.get(patches::HEADER..)?.get(..(self.filter_len / 2).wrapping_mul(P))?;
        for o in place.first..place.end {
            let sums = sums::<W, P>(self.weights.row(o)?, words)?;
            for (i, acc) in sums.into_iter().enumerate() {
                let at = place.pixel.wrapping_add(i).wrapping_mul(self.out_channels).wrapping_add(o);
                y.put(at, self.channels.finish(o, acc)?)?;
            }
        }
        Some(())
    }
}

/// The sums of products of a filter with the patches of `P` pixels, which lie in rows.
#[cfg(vectors)]
#[inline(always)]
fn sums<W: Width, const P: usize>(filter: &[W::Unit], words: &[u32]) -> Option<[i32; P]> {
    let elements: &[i16] = bytemuck::try_cast_slice(words).ok()?;
    let mut rows = elements.chunks(elements.len() / P);
    let mut sums = [0i32; P];
    for sum in &mut sums {
        let (octets, _) = rows.next()?.as_chunks::<OCTET>();
        for (i, octet) in octets.iter().enumerate() {
            for (&x, w) in octet.iter().zip(W::octet(filter, i)?) {
                *sum = sum.wrapping_add(i32::from(x).wrapping_mul(w));
            }
        }
    }
    Some(sums)
}
