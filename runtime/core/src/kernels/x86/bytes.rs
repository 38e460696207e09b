//! Products of many pixels on cores that multiply bytes: as [`super::columns`], four elements at a time.
//!
//! Bytes of the input are made unsigned, 128 too large, by the tile; what that adds to the sums of a channel, 128 times the
//! sum of its filter, is taken off before they begin.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::dot::{Dot, LANES, QUAD, Sixteen, Ymm, Zmm};
use super::filters::{filter_bytes, one_octet, two_octets};
use super::finish::Target;
use super::tile::{Element, MOST_SEGMENTS, Tile, Windows};
use crate::kernels::channels::Output;
use crate::kernels::linear::{Linear, Place};
use crate::kernels::weights::{OCTET, Width};

/// Vectors of a panel: 64 KiB.
const PANEL: usize = 1024;

/// Vectors of channels of a panel at most.
const MOST_VECTORS: usize = 16;

/// Unsigned bytes, 128 too large.
impl Element for u8 {
    fn of(x: i8) -> Self {
        x as u8 ^ 0x80
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn write(x: &[i8], to: &mut [MaybeUninit<Self>]) {
        let ((x_vectors, x_rest), (vectors, rest)) = (x.as_chunks::<32>(), to.as_chunks_mut::<32>());
        for (x, to) in x_vectors.iter().zip(vectors) {
            // SAFETY: 32 bytes are read and written, at any alignment.
            unsafe {
                let offset = _mm256_xor_si256(_mm256_loadu_si256(x.as_ptr().cast()), _mm256_set1_epi8(-128));
                _mm256_storeu_si256(to.as_mut_ptr().cast(), offset);
            }
        }
        let ((x_octets, x_rest), (octets, rest)) = (x_rest.as_chunks::<OCTET>(), rest.as_chunks_mut::<OCTET>());
        for (x, to) in x_octets.iter().zip(octets) {
            *to = (u64::from_le_bytes(x.map(|x| x as u8)) ^ 0x8080_8080_8080_8080).to_le_bytes().map(MaybeUninit::new);
        }
        for (&x, to) in x_rest.iter().zip(rest) {
            to.write(Self::of(x));
        }
    }
}

/// How a core multiplies bytes, the fastest way that it has.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) enum Bytes {
    Zmm(Zmm),
    Ymm(Ymm),
}

impl Bytes {
    /// `None` where the core has no instructions for it.
    #[inline(always)]
    pub(in crate::kernels) fn detect() -> Option<Self> {
        match Zmm::detect() {
            Some(zmm) => Some(Self::Zmm(zmm)),
            None => Ymm::detect().map(Self::Ymm),
        }
    }

    /// Computes the output pixels of `windows` from `place.pixel` on, if it is [`super::worth_it`].
    #[inline(always)]
    pub(in crate::kernels) fn columns<W: Width>(
        self,
        linear: &Linear<'_, W>,
        windows: &Windows<'_>,
        place: Place,
        y: &mut Output<'_>,
    ) -> Option<()> {
        // SAFETY: the core has what there is proof of.
        unsafe {
            match self {
                Self::Zmm(zmm) => panels_of_zmm(zmm, linear, windows, place, y),
                Self::Ymm(ymm) => panels_of_ymm(ymm, linear, windows, place, y),
            }
        }
    }
}

#[target_feature(enable = "avx2,avx512bw,avx512vl,avx512vnni")]
fn panels_of_zmm<W: Width>(
    zmm: Zmm,
    linear: &Linear<'_, W>,
    windows: &Windows<'_>,
    place: Place,
    y: &mut Output<'_>,
) -> Option<()> {
    panels(zmm, linear, windows, place, y)
}

#[target_feature(enable = "avx2,avxvnni")]
fn panels_of_ymm<W: Width>(
    ymm: Ymm,
    linear: &Linear<'_, W>,
    windows: &Windows<'_>,
    place: Place,
    y: &mut Output<'_>,
) -> Option<()> {
    panels(ymm, linear, windows, place, y)
}

/// A panel with what finishes its sums.
pub(super) struct Panel<D: Dot> {
    pub(super) dot: D,
    /// Of each vector of channels, a vector for every quad of elements.
    pub(super) quads: [MaybeUninit<D::Vector>; PANEL],
    /// What sums of each begin with.
    pub(super) initial: [D::Vector; MOST_VECTORS],
    channels: [Sixteen<D>; MOST_VECTORS],
    /// Quads of a filter.
    pub(super) filter_quads: usize,
    /// Filters in the panel.
    pub(super) count: usize,
    /// Where segments of a window begin.
    pub(super) offsets: [usize; MOST_SEGMENTS],
    pub(super) segments: usize,
    /// Quads of a segment.
    pub(super) segment_quads: usize,
    target: Target,
}

#[inline(always)]
fn panels<D: Dot, W: Width>(
    dot: D,
    linear: &Linear<'_, W>,
    windows: &Windows<'_>,
    place: Place,
    y: &mut Output<'_>,
) -> Option<()> {
    let filter_quads = linear.filter_len / QUAD;
    let most = PANEL.checked_div(filter_quads)?.min(MOST_VECTORS);
    let mut panel = Panel {
        dot,
        quads: [MaybeUninit::uninit(); PANEL],
        initial: [dot.zero(); MOST_VECTORS],
        channels: [Sixteen::NONE; MOST_VECTORS],
        filter_quads,
        count: 0,
        offsets: windows.offsets(),
        segments: windows.count(),
        segment_quads: windows.pairs() / 2,
        target: Target::new(&linear.channels, y),
    };
    // What reads panels relies on it.
    if panel.segments > MOST_SEGMENTS || panel.segments * panel.segment_quads > filter_quads {
        return None;
    }
    let mut tile = Tile::<u8>::new();
    let (rows, height) = (windows.rows.output, windows.rows_at_once());
    for first in (place.first..place.end).step_by((most * LANES).max(1)) {
        panel.write(linear, first, (place.end - first).min(most * LANES))?;
        for oy in (0..rows).step_by(height.max(1)) {
            let height = height.min(rows - oy);
            if height < rows || first == place.first {
                // SAFETY: cores that multiply bytes have AVX2.
                unsafe { tile.fill(windows, oy, height)? };
            }
            let pixel = place.pixel + oy * windows.cols.output;
            let at = pixel * linear.out_channels + first;
            let at = [at, linear.out_channels];
            if !dot.run_by_matrices(&panel, &tile, windows, height, at, y)? {
                panel.run(&tile, windows, height * windows.cols.output, at, y)?;
            }
        }
    }
    Some(())
}

impl<D: Dot> Panel<D> {
    /// Takes `count` filters from `first` on. What lacks to whole vectors of them holds the last.
    #[inline(always)]
    fn write<W: Width>(&mut self, linear: &Linear<'_, W>, first: usize, count: usize) -> Option<()> {
        let octets = linear.filter_len / OCTET;
        let filters = linear.weights.range(first, first + count)?.as_ptr().cast::<u8>();
        let last = count.checked_sub(1)?;
        self.count = count;
        for vector in 0..count.div_ceil(LANES) {
            let filter =
                |lane: usize| filters.wrapping_add((vector * LANES + lane).min(last) * filter_bytes::<W>(octets));
            let quads = self.quads.get_mut(vector * self.filter_quads..)?.get_mut(..self.filter_quads)?;
            let mut excess = self.dot.zero();
            for (i, quads) in quads.chunks_mut(4).enumerate() {
                // SAFETY: the core has AVX2, and there are as many quads as a filter has: octets 2i, and 2i + 1 where there
                // are four, are filters'.
                unsafe {
                    let mut rows = [_mm_setzero_si128(); LANES];
                    for (lane, row) in rows.iter_mut().enumerate() {
                        *row = match quads.len() {
                            4 => two_octets::<W>(filter(lane), 2 * i),
                            _ => one_octet::<W>(filter(lane), 2 * i),
                        };
                    }
                    for (slot, quad) in quads.iter_mut().zip(self.dot.transposed(&rows)) {
                        slot.write(quad);
                        excess = self.dot.add(excess, self.dot.every(i32::from_ne_bytes([128; QUAD])), quad);
                    }
                }
            }
            let channels = Sixteen::new(self.dot, &linear.channels, first + vector * LANES);
            *self.initial.get_mut(vector)? = self.dot.less(channels.bias(self.dot), excess);
            *self.channels.get_mut(vector)? = channels;
        }
        Some(())
    }

    /// Computes `pixels` pixels whose windows lie in the tile. The first channel of the first is element `at` of `y`, that
    /// of the next `distance` elements behind.
    #[inline(always)]
    fn run(
        &self,
        tile: &Tile<u8>,
        windows: &Windows<'_>,
        pixels: usize,
        [at, distance]: [usize; 2],
        y: &mut Output<'_>,
    ) -> Option<()> {
        let vectors = self.count.div_ceil(LANES);
        let mut first = 0;
        while first < vectors {
            let left = vectors - first;
            let at = [at + first * LANES, distance];
            // As many sums as there are registers for, at least as many as hide that instructions take their time.
            first += match left {
                _ if !D::WIDE => self.blocks::<4, 1>(first, tile, windows, pixels, at, y)?,
                4.. => self.blocks::<4, 4>(first, tile, windows, pixels, at, y)?,
                2.. => self.blocks::<8, 2>(first, tile, windows, pixels, at, y)?,
                _ => self.blocks::<8, 1>(first, tile, windows, pixels, at, y)?,
            };
        }
        Some(())
    }

    /// As [`Self::run`], for `V` vectors of channels from `first` on, `P` pixels at a time. How many vectors there were.
    #[inline(always)]
    fn blocks<const P: usize, const V: usize>(
        &self,
        first: usize,
        tile: &Tile<u8>,
        windows: &Windows<'_>,
        pixels: usize,
        [at, distance]: [usize; 2],
        y: &mut Output<'_>,
    ) -> Option<usize> {
        let [down, right] = [windows.rows.stride * windows.row_len(), windows.cols.stride * windows.channels];
        let reach = self.offsets.get(self.segments.checked_sub(1)?)? + self.segment_quads * QUAD;
        // What `sums` reads of the panel.
        self.quads.get(..(first + V) * self.filter_quads)?;
        // The next pixel: its column, and where its row and its window begin.
        let (mut column, mut row, mut start) = (0, 0, 0);
        for i in (0..pixels).step_by(P) {
            let together = P.min(pixels - i);
            // Pixels behind the last are the last once more, and dropped.
            let mut x = [tile.from(start, reach)?; P];
            for (p, slot) in x.iter_mut().enumerate() {
                *slot = tile.from(start, reach)?;
                if p + 1 < together {
                    (column, start) = (column + 1, start + right);
                    if column == windows.cols.output {
                        row += down;
                        (column, start) = (0, row);
                    }
                }
            }
            // SAFETY: the panel is written, and the tile reaches as far as windows do.
            let sums = unsafe { self.sums::<P, V>(x, first) };
            self.put(&sums, first, together, [at + i * distance, distance], y)?;
            (column, start) = (column + 1, start + right);
            if column == windows.cols.output {
                row += down;
                (column, start) = (0, row);
            }
        }
        Some(V)
    }

    /// The sums of the pixels whose windows begin at `x`, of `V` vectors of channels from `first` on.
    ///
    /// # Safety
    ///
    /// The panel holds the quads of these vectors, and all segments of the windows can be read.
    #[inline(always)]
    unsafe fn sums<const P: usize, const V: usize>(&self, x: [*const u8; P], first: usize) -> [[D::Vector; V]; P] {
        let mut acc = [[self.dot.zero(); V]; P];
        for acc in &mut acc {
            for (v, acc) in acc.iter_mut().enumerate() {
                *acc = self.initial[first + v];
            }
        }
        let mut quads = self.quads.as_ptr().cast::<D::Vector>().wrapping_add(first * self.filter_quads);
        for &offset in &self.offsets[..self.segments] {
            let (mut at, end) = (offset, offset + self.segment_quads * QUAD);
            while at < end {
                let mut w = [self.dot.zero(); V];
                for (v, w) in w.iter_mut().enumerate() {
                    // SAFETY: says the caller.
                    *w = unsafe { *quads.wrapping_add(v * self.filter_quads) };
                }
                for (acc, x) in acc.iter_mut().zip(x) {
                    // SAFETY: says the caller.
                    let x = self.dot.every(unsafe { x.wrapping_add(at).cast::<i32>().read_unaligned() });
                    for (acc, &w) in acc.iter_mut().zip(&w) {
                        *acc = self.dot.add(*acc, x, w);
                    }
                }
                quads = quads.wrapping_add(1);
                at += QUAD;
            }
        }
        acc
    }

    /// Finishes and writes the sums of `pixels` pixels.
    #[inline(always)]
    pub(super) fn put<const P: usize, const V: usize>(
        &self,
        sums: &[[D::Vector; V]; P],
        first: usize,
        pixels: usize,
        [at, distance]: [usize; 2],
        y: &mut Output<'_>,
    ) -> Option<()> {
        let count = self.count - first * LANES;
        for (v, channels) in self.channels.get(first..)?.iter().enumerate().take(V) {
            for (p, sums) in sums.iter().enumerate().take(pixels) {
                let place = [at + p * distance + v * LANES, count - v * LANES];
                channels.put(self.dot, &self.target, sums[v], place, y)?;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroUsize;
    use std::vec::Vec;
    use std::{println, vec};

    use super::*;
    use crate::kernels::channels::Channels;
    use crate::kernels::weights::{Int4, Int8, Matrix, filter_len, int4_len, pack_int4};
    use crate::kernels::window::Axis;
    use crate::plan::DType;

    /// Every way to multiply bytes that this core has.
    fn ways() -> Vec<Bytes> {
        let zmm = Zmm::detect();
        let alone = zmm.map(Zmm::without_matrices).map(Bytes::Zmm);
        alone
            .into_iter()
            .chain(zmm.filter(Zmm::has_matrices).map(Bytes::Zmm))
            .chain(Ymm::detect().map(Bytes::Ymm))
            .collect()
    }

    struct Random(u32);

    impl Random {
        fn next(&mut self) -> u32 {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            self.0 >> 8
        }

        fn one_of(&mut self, values: &[usize]) -> usize {
            values[self.next() as usize % values.len()]
        }

        fn axis(&mut self, kernel: usize) -> Axis {
            let (stride, dilation) = (self.one_of(&[1, 1, 2]), self.one_of(&[1, 1, 1, 2]));
            let (before, after) = (self.one_of(&[0, 1]), self.one_of(&[0, 1]));
            let input = self.one_of(&[5, 7, 14, 28, 33]);
            let output = (input + before + after - (kernel - 1) * dilation - 1) / stride + 1;
            Axis { input, output, kernel, stride, dilation: NonZeroUsize::new(dilation).unwrap(), before, after }
        }
    }

    /// What a pixel reads: segment after segment, each filled up with zeros, as filters lie.
    fn patch(windows: &Windows<'_>, [oy, ox]: [usize; 2], filter_len: usize) -> Vec<i32> {
        let Windows { rows, cols, channels, segments, len, .. } = *windows;
        let mut patch = Vec::new();
        for segment in 0..rows.kernel * segments {
            let (ky, kx) = (segment / segments, segment % segments);
            let iy =
                (oy * rows.stride + ky * rows.dilation.get()).checked_sub(rows.before).filter(|&iy| iy < rows.input);
            for i in 0..len.next_multiple_of(4) {
                let column = ox * cols.stride + kx * cols.dilation.get() + i / channels;
                let ix = column.checked_sub(cols.before).filter(|&ix| ix < cols.input);
                let x = iy.zip(ix).map(|(iy, ix)| windows.image[(iy * cols.input + ix) * channels + i % channels]);
                patch.push(if i < len { x.unwrap_or(windows.x_zero).into() } else { 0 });
            }
        }
        patch.resize(filter_len, 0);
        patch
    }

    /// Runs a random convolution in every way. How many pixels there were.
    fn check(random: &mut Random, ways: &[Bytes]) -> usize {
        let (rows, mut cols) = {
            let kernel = random.one_of(&[1, 2, 3, 3]);
            (random.axis(kernel), random.axis(kernel))
        };
        let channels = random.one_of(&[1, 2, 3, 4, 8, 16, 20, 24, 32, 48, 64]);
        let outputs = random.one_of(&[1, 7, 8, 15, 16, 17, 24, 32, 40, 48, 64, 72]);
        let joined = random.one_of(&[0, 1]) == 0;
        if joined {
            cols.dilation = NonZeroUsize::MIN;
            cols.output = (cols.input + cols.before + cols.after - cols.kernel) / cols.stride + 1;
        }
        let (segments, len) = if joined { (1, cols.kernel * channels) } else { (cols.kernel, channels) };
        let filter_len = filter_len(rows.kernel * segments, len);
        let image: Vec<i8> = (0..rows.input * cols.input * channels).map(|_| random.next() as i8).collect();
        let windows = Windows { image: &image, x_zero: random.next() as i8, rows, cols, channels, segments, len };
        if !crate::kernels::x86::worth_it(&windows, filter_len) {
            return 0;
        }
        let packed = random.one_of(&[0, 1]) == 0;
        let mut weights = vec![0i8; outputs * filter_len];
        for row in weights.chunks_mut(filter_len) {
            for segment in row.chunks_mut(len.next_multiple_of(4)).take(rows.kernel * segments) {
                for weight in &mut segment[..len] {
                    *weight = if packed { (random.next() % 16) as i8 - 8 } else { random.next() as i8 };
                }
            }
        }
        let dtype = if random.one_of(&[0, 0, 1]) == 0 { DType::I8 } else { DType::I16 };
        let first_shift = random.one_of(&[1, 8, 8]);
        let bias: Vec<i32> = (0..outputs).map(|_| random.next() as i32 - (1 << 23)).collect();
        let mantissas: Vec<i32> = (0..outputs).map(|_| (1 << 30) + random.next() as i32).collect();
        let shifts: Vec<i8> = (0..outputs).map(|_| (first_shift + random.next() as usize % 6) as i8).collect();
        let clamp = match dtype {
            DType::I8 => [-100, 120],
            _ => [-20_000, 32_000],
        };
        let of = Channels { bias: &bias, mantissas: &mantissas, shifts: &shifts, zero_point: -3, clamp };
        let pixels = windows.pixels();
        let mut expected = Vec::new();
        for pixel in 0..pixels {
            let patch = patch(&windows, [pixel / cols.output, pixel % cols.output], filter_len);
            for (o, filter) in weights.chunks(filter_len).enumerate() {
                let sum: i32 = patch.iter().zip(filter).map(|(&x, &w)| x * i32::from(w)).sum();
                expected.push(of.finish(o, sum).unwrap());
            }
        }
        let mut bytes = vec![0; int4_len(weights.len(), filter_len)];
        if packed {
            pack_int4(&weights, filter_len, &mut bytes).unwrap();
        }
        let words: Vec<u32> = bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        let place = Place { pixel: 0, first: 0, end: outputs };
        for way in ways {
            let mut out = vec![0; expected.len() * if dtype == DType::I8 { 1 } else { 2 }];
            let mut y = Output::new(&mut out, dtype);
            let done = if packed {
                let weights = Matrix::<Int4>::of(&words, filter_len);
                let linear = Linear { weights, channels: of, filter_len, out_channels: outputs };
                way.columns(&linear, &windows, place, &mut y)
            } else {
                let weights = Matrix::<Int8>::of(&weights, filter_len);
                let linear = Linear { weights, channels: of, filter_len, out_channels: outputs };
                way.columns(&linear, &windows, place, &mut y)
            };
            let found: Vec<i32> = match dtype {
                DType::I8 => out.iter().map(|&y| (y as i8).into()).collect(),
                _ => out.chunks(2).map(|y| i16::from_le_bytes([y[0], y[1]]).into()).collect(),
            };
            assert!(done.is_some(), "{way:?}");
            let wrong = found.iter().zip(&expected).position(|(found, expected)| found != expected);
            assert_eq!(wrong, None, "{way:?}: {channels} to {outputs} channels of {pixels} pixels, packed: {packed}");
        }
        pixels
    }

    #[test]
    fn every_way_gives_the_same_sums() {
        let ways = ways();
        if ways.is_empty() {
            println!("skipped: this core has no instructions for products of bytes");
        }
        let mut random = Random(7);
        let pixels: usize = (0..60).map(|_| check(&mut random, &ways)).sum();
        assert!(pixels > 2000, "{pixels}");
    }
}
