//! What finishes the sums of eight channels: bias, requantization, clamp, and writing them.

use core::arch::x86_64::*;

use super::lanes;
use super::wide::{clamped, every, rounded};
use crate::kernels::channels::{Channels, Output};
use crate::plan::DType;
use crate::quant::Multiplier;

/// Channels that are finished together.
pub(super) const GROUP: usize = 8;

/// Constants of [`GROUP`] channels; those behind the last have none.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Group {
    bias: __m256i,
    pub(super) mantissas: __m256i,
    /// Mantissas of odd channels in the place of those before them.
    pub(super) odd_mantissas: __m256i,
    /// Half a step and the zero point, as [`Channels::are_plain`] says; means nothing of other channels.
    pub(super) rounding: __m256i,
    /// One less than the shift.
    pub(super) down: __m256i,
    /// Whether all channels are plain.
    pub(super) plain: bool,
}

impl Group {
    /// No channels.
    pub(in crate::kernels) const NONE: Self = {
        let none = of_words([0; GROUP]);
        Self { bias: none, mantissas: none, odd_mantissas: none, rounding: none, down: none, plain: true }
    };

    /// The channels from `first` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new(channels: &Channels<'_>, first: usize) -> Self {
        let shifts: [i8; GROUP] = from(channels.shifts, first);
        let shifts = _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(shifts.map(|shift| shift as u8))));
        let mantissas = of_words(from(channels.mantissas, first));
        let (one, two) = (_mm256_set1_epi32(1), _mm256_set1_epi32(2));
        let zero_point = _mm256_set1_epi32(2 * channels.zero_point + 1);
        // As `Channels::is_plain` says. The shifts behind the last channel are 0.
        let last = _mm256_set1_epi32((channels.shifts.len() - first.min(channels.shifts.len())).min(GROUP) as i32);
        let inside = _mm256_cmpgt_epi32(last, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        let small = _mm256_cmpgt_epi32(two, shifts);
        let large = _mm256_cmpgt_epi32(shifts, _mm256_set1_epi32(23));
        Self {
            bias: of_words(from(channels.bias, first)),
            mantissas,
            odd_mantissas: _mm256_srli_epi64::<32>(mantissas),
            rounding: _mm256_sllv_epi32(zero_point, _mm256_sub_epi32(shifts, two)),
            down: _mm256_sub_epi32(shifts, one),
            plain: _mm256_testz_si256(_mm256_or_si256(small, large), inside) == 1,
        }
    }

    /// Eight channels of one multiplier, without bias.
    pub(in crate::kernels) fn uniform(multiplier: Multiplier) -> Self {
        // Never plain: of no zero point.
        let [mantissas, down] =
            [multiplier.mantissa, i32::from(multiplier.shift) - 1].map(|word| of_words([word; GROUP]));
        Self { mantissas, odd_mantissas: mantissas, down, plain: false, ..Self::NONE }
    }

    /// What sums begin with.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn bias(&self) -> __m256i {
        self.bias
    }

    /// Requantizes sums of plain channels to numbers that are yet to be clamped to 8 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn plain(&self, sums: __m256i) -> __m256i {
        let [even, odd] = self.products(sums);
        let products = _mm256_blend_epi32::<0b1010_1010>(_mm256_srli_epi64::<32>(even), odd);
        _mm256_srav_epi32(_mm256_add_epi32(products, self.rounding), self.down)
    }

    /// Requantizes and clamps sums of any channels.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn any(&self, sums: __m256i, zero_point: i32, clamp: [i32; 2]) -> __m256i {
        let counts = _mm256_add_epi32(self.down, _mm256_set1_epi32(31));
        let (zero_point, low, high) = (every(zero_point.into()), every(clamp[0].into()), every(clamp[1].into()));
        let [even, odd] = self.products(sums);
        let even = rounded(even, _mm256_and_si256(counts, _mm256_set1_epi64x(0xFFFF_FFFF)));
        let odd = rounded(odd, _mm256_srli_epi64::<32>(counts));
        let even = clamped(_mm256_add_epi64(even, zero_point), low, high);
        let odd = clamped(_mm256_add_epi64(odd, zero_point), low, high);
        _mm256_blend_epi32::<0b1010_1010>(even, _mm256_slli_epi64::<32>(odd))
    }

    /// Sums times mantissas: of even channels, and of odd ones.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn products(&self, sums: __m256i) -> [__m256i; 2] {
        let odd = _mm256_mul_epi32(_mm256_srli_epi64::<32>(sums), self.odd_mantissas);
        [_mm256_mul_epi32(sums, self.mantissas), odd]
    }
}

/// Eight numbers as a vector.
const fn of_words(words: [i32; GROUP]) -> __m256i {
    // SAFETY: both have 32 bytes, any of which are a vector.
    unsafe { core::mem::transmute(words) }
}

/// Eight values from `first` on; 0 behind the last.
#[inline]
fn from<T: Copy + Default>(values: &[T], first: usize) -> [T; GROUP] {
    let values = values.get(first..).unwrap_or_default();
    match values.first_chunk() {
        Some(eight) => *eight,
        None => core::array::from_fn(|i| values.get(i).copied().unwrap_or_default()),
    }
}

/// Where sums go.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Element of the first pixel's first channel.
    pub(super) at: usize,
    /// Elements from a pixel to the next.
    pub(super) distance: usize,
    /// Channels that are written.
    pub(super) count: usize,
}

/// How outputs are made of sums.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Target {
    /// Whether outputs are of 8 bits.
    pub(super) bytes: bool,
    /// Whether sums are outputs as they are.
    raw: bool,
    zero_point: i32,
    pub(super) clamp: [i32; 2],
}

impl Target {
    pub(super) fn new(channels: &Channels<'_>, y: &Output<'_>) -> Self {
        Self::of(y, channels.zero_point, channels.clamp)
    }

    /// As [`Self::new`], of this zero point and clamp.
    pub(in crate::kernels) fn of(y: &Output<'_>, zero_point: i32, clamp: [i32; 2]) -> Self {
        Self { bytes: y.dtype() == DType::I8, raw: false, zero_point, clamp }
    }

    /// Sums as they are, for outputs of 32 bits.
    pub(in crate::kernels) const RAW: Self = Self { bytes: false, raw: true, zero_point: 0, clamp: [0; 2] };

    /// Finishes sums, bias included, of one or two groups of channels of `P` pixels, and writes them.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn write<const P: usize, const V: usize>(
        &self,
        groups: &[Group; V],
        sums: &[[__m256i; V]; P],
        place: Place,
        y: &mut Output<'_>,
    ) -> Option<()> {
        let whole = place.count == V * GROUP;
        if !(self.bytes && whole && groups.iter().all(|group| group.plain)) {
            return self.write_any(groups, sums, place, y);
        }
        let (low, high) = (_mm_set1_epi8(self.clamp[0] as i8), _mm_set1_epi8(self.clamp[1] as i8));
        // No closures here: code of other features would call them.
        let mut bytes = [low; P];
        for (bytes, sums) in bytes.iter_mut().zip(sums) {
            let mut values = *sums;
            for (values, group) in values.iter_mut().zip(groups) {
                *values = group.plain(*values);
            }
            // Packing joins the vectors' halves.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(values[0], values[V - 1]));
            let packed = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            *bytes = _mm_min_epi8(_mm_max_epi8(packed, low), high);
        }
        for (p, bytes) in bytes.into_iter().enumerate() {
            let y = y.bytes_from(place.at + p * place.distance)?;
            if V == 1 {
                *y.first_chunk_mut()? = _mm_cvtsi128_si64(bytes).to_le_bytes();
            } else {
                let slot: &mut [u8; 2 * GROUP] = y.first_chunk_mut()?;
                // SAFETY: the slot has 16 bytes; the store needs no alignment.
                unsafe { _mm_storeu_si128(slot.as_mut_ptr().cast(), bytes) };
            }
        }
        Some(())
    }

    /// As [`Self::write`], for any outputs.
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub(super) fn write_any<const V: usize>(
        &self,
        groups: &[Group; V],
        sums: &[[__m256i; V]],
        Place { at, distance, count }: Place,
        y: &mut Output<'_>,
    ) -> Option<()> {
        for (p, sums) in sums.iter().enumerate() {
            for (v, (group, &sums)) in groups.iter().zip(sums).enumerate() {
                let values = match self.raw {
                    true => sums,
                    false => group.any(sums, self.zero_point, self.clamp),
                };
                put(values, at + p * distance + v * GROUP, count.saturating_sub(v * GROUP).min(GROUP), y)?;
            }
        }
        Some(())
    }
}

/// Writes `count` values, which are within their range, from element `at` on.
#[inline]
#[target_feature(enable = "avx2")]
fn put(values: __m256i, at: usize, count: usize, y: &mut Output<'_>) -> Option<()> {
    let words = _mm_packs_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values));
    match y.dtype() {
        DType::I8 if count == GROUP => {
            *y.bytes_from(at)?.first_chunk_mut()? = _mm_cvtsi128_si64(_mm_packs_epi16(words, words)).to_le_bytes();
        }
        DType::I16 if count == GROUP => {
            let slot: &mut [u8; 2 * GROUP] = y.bytes_from(2 * at)?.first_chunk_mut()?;
            // SAFETY: the slot has 16 bytes; the store needs no alignment.
            unsafe { _mm_storeu_si128(slot.as_mut_ptr().cast(), words) };
        }
        DType::I32 if count == GROUP => {
            let slot: &mut [u8; 4 * GROUP] = y.bytes_from(4 * at)?.first_chunk_mut()?;
            // SAFETY: the slot has 32 bytes; the store needs no alignment.
            unsafe { _mm256_storeu_si256(slot.as_mut_ptr().cast(), values) };
        }
        DType::I8 | DType::I16 | DType::I32 => {
            for (at, value) in (at..).zip(lanes(values)).take(count) {
                y.put(at, value)?;
            }
        }
    }
    Some(())
}
