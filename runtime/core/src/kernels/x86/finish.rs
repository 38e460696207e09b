//! What finishes the sums of eight channels: bias, requantization, clamp, and writing them.

use core::arch::x86_64::*;

use super::{lanes, vector};
use crate::kernels::channels::{Channels, Output};
use crate::plan::DType;

/// Channels that are finished together.
pub(super) const GROUP: usize = 8;

/// Constants of [`GROUP`] channels; those behind the last have none.
#[derive(Clone, Copy)]
pub(super) struct Group {
    bias: [i32; GROUP],
    mantissas: [i32; GROUP],
    /// Half a step and the zero point, as [`Channels::are_plain`] says; means nothing of other channels.
    rounding: [i32; GROUP],
    /// One less than the shift.
    down: [i32; GROUP],
}

impl Group {
    /// No channels.
    pub(super) const NONE: Self =
        Self { bias: [0; GROUP], mantissas: [0; GROUP], rounding: [0; GROUP], down: [0; GROUP] };

    /// The channels from `first` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new(channels: &Channels<'_>, first: usize) -> Self {
        let shifts = from(channels.shifts, first).map(i32::from);
        let (one, two) = (_mm256_set1_epi32(1), _mm256_set1_epi32(2));
        let zero_point = _mm256_set1_epi32(2 * channels.zero_point + 1);
        let rounding = _mm256_sllv_epi32(zero_point, _mm256_sub_epi32(vector(shifts), two));
        Self {
            bias: from(channels.bias, first),
            mantissas: from(channels.mantissas, first),
            rounding: lanes(rounding),
            down: lanes(_mm256_sub_epi32(vector(shifts), one)),
        }
    }

    /// What sums begin with.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn bias(&self) -> __m256i {
        vector(self.bias)
    }

    /// Requantizes sums of plain channels to numbers that are yet to be clamped to 8 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn plain(&self, sums: __m256i) -> __m256i {
        let [even, odd] = self.products(sums);
        let products = _mm256_blend_epi32::<0b1010_1010>(_mm256_srli_epi64::<32>(even), odd);
        _mm256_srav_epi32(_mm256_add_epi32(products, vector(self.rounding)), vector(self.down))
    }

    /// Requantizes and clamps sums of any channels.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn any(&self, sums: __m256i, zero_point: i32, clamp: [i32; 2]) -> __m256i {
        // Products lie within ±2^62: with 2^63 more, a shift without sign does for one with sign. It is taken out again after
        // rounding, where it is 2^(63 − total), total = 31 + shift.
        let positive = _mm256_set1_epi64x(i64::MIN);
        let [one, zero_point] = [1, zero_point].map(|x| _mm256_set1_epi64x(i64::from(x)));
        let [low, high] = clamp.map(|end| _mm256_set1_epi64x(i64::from(end)));
        let counts = _mm256_add_epi32(vector(self.down), _mm256_set1_epi32(31));
        let finish = |product: __m256i, count: __m256i| {
            let floor = _mm256_srlv_epi64(_mm256_xor_si256(product, positive), count);
            let rounded = _mm256_srli_epi64::<1>(_mm256_add_epi64(floor, one));
            let excess = _mm256_srlv_epi64(_mm256_set1_epi64x(1 << 62), count);
            let value = _mm256_add_epi64(_mm256_sub_epi64(rounded, excess), zero_point);
            let value = _mm256_blendv_epi8(value, low, _mm256_cmpgt_epi64(low, value));
            _mm256_blendv_epi8(value, high, _mm256_cmpgt_epi64(value, high))
        };
        let [even, odd] = self.products(sums);
        let even = finish(even, _mm256_and_si256(counts, _mm256_set1_epi64x(0xFFFF_FFFF)));
        let odd = finish(odd, _mm256_srli_epi64::<32>(counts));
        _mm256_blend_epi32::<0b1010_1010>(even, _mm256_slli_epi64::<32>(odd))
    }

    /// Sums times mantissas: of even channels, and of odd ones.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn products(&self, sums: __m256i) -> [__m256i; 2] {
        let mantissas = vector(self.mantissas);
        let odd = _mm256_mul_epi32(_mm256_srli_epi64::<32>(sums), _mm256_srli_epi64::<32>(mantissas));
        [_mm256_mul_epi32(sums, mantissas), odd]
    }
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

/// Where sums of one pixel go, and how.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// Whether outputs are of 8 bits, and channels plain.
    plain: bool,
    zero_point: i32,
    clamp: [i32; 2],
}

impl Target {
    pub(super) fn new(channels: &Channels<'_>, y: &Output<'_>) -> Self {
        let plain = y.dtype() == DType::I8 && channels.are_plain();
        Self { plain, zero_point: channels.zero_point, clamp: channels.clamp }
    }

    /// Finishes sums of neighbouring groups of channels, bias included, and writes `count` of them from element `at` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn write<const V: usize>(
        &self,
        groups: &[Group; V],
        sums: [__m256i; V],
        at: usize,
        count: usize,
        y: &mut Output<'_>,
    ) -> Option<()> {
        if self.plain && V == 2 && count == 2 * GROUP {
            let values: [__m256i; V] = core::array::from_fn(|v| groups[v].plain(sums[v]));
            // Packing joins the vectors' halves.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(values[0], values[V - 1]));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            *y.bytes_from(at)?.first_chunk_mut()? = self.clamped(bytes);
            return Some(());
        }
        for v in 0..V {
            let (at, count) = (at + v * GROUP, count.saturating_sub(v * GROUP).min(GROUP));
            let values = match self.plain {
                true => groups[v].plain(sums[v]),
                false => groups[v].any(sums[v], self.zero_point, self.clamp),
            };
            self.put(values, at, count, y)?;
        }
        Some(())
    }

    /// Clamps bytes.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn clamped(&self, bytes: __m128i) -> [u8; 2 * GROUP] {
        let [low, high] = self.clamp.map(|end| _mm_set1_epi8(end as i8));
        let mut out = [0u8; 2 * GROUP];
        // SAFETY: `out` has 16 bytes; the store needs no alignment.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm_min_epi8(_mm_max_epi8(bytes, low), high)) };
        out
    }

    /// Writes `count` values from element `at` on; they are within their range, but for plain ones.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn put(&self, values: __m256i, at: usize, count: usize, y: &mut Output<'_>) -> Option<()> {
        let words = _mm_packs_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values));
        match y.dtype() {
            DType::I8 => {
                let bytes = self.clamped(_mm_packs_epi16(words, words));
                y.bytes_from(at)?.get_mut(..count)?.copy_from_slice(bytes.get(..count)?);
            }
            DType::I32 if count == GROUP => {
                let slot: &mut [u8; 4 * GROUP] = y.bytes_from(4 * at)?.first_chunk_mut()?;
                // SAFETY: the slot has 32 bytes; the store needs no alignment.
                unsafe { _mm256_storeu_si256(slot.as_mut_ptr().cast(), values) };
            }
            DType::I16 if count == GROUP => {
                let slot: &mut [u8; 2 * GROUP] = y.bytes_from(2 * at)?.first_chunk_mut()?;
                // SAFETY: the slot has 16 bytes; the store needs no alignment.
                unsafe { _mm_storeu_si128(slot.as_mut_ptr().cast(), words) };
            }
            DType::I16 | DType::I32 => {
                for (at, value) in (at..).zip(lanes(values)).take(count) {
                    y.put(at, value)?;
                }
            }
        }
        Some(())
    }
}
