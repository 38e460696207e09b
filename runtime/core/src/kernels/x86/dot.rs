//! Vectors of cores that multiply bytes (VNNI): to each of sixteen lanes, the products of four unsigned and four signed bytes
//! are added in an instruction.

use core::arch::x86_64::*;

use super::amx::Amx;
use super::bytes::Panel;
use super::finish::{GROUP, Group, Place, Target};
use super::tile::{Tile, Windows};
use crate::kernels::channels::{Channels, Output};

/// Lanes of a vector: channels.
pub(super) const LANES: usize = 16;

/// Bytes of a lane.
pub(super) const QUAD: usize = 4;

/// How a core multiplies bytes. What implements it exists only where the core has the instructions.
pub(super) trait Dot: Copy {
    /// Sixteen sums, or quads of signed bytes of as many channels.
    type Vector: Copy;

    /// A quad of unsigned bytes in every lane.
    type Every: Copy;

    /// Constants of plain channels; see [`Group::plain`].
    type Finish: Copy;

    /// Whether there are registers for sixteen vectors of sums; otherwise for four.
    const WIDE: bool;

    /// No channels.
    const NONE: Self::Finish;

    fn zero(self) -> Self::Vector;

    fn every(self, quad: i32) -> Self::Every;

    /// Adds the products.
    fn add(self, sums: Self::Vector, x: Self::Every, w: Self::Vector) -> Self::Vector;

    /// Lane by lane, wrapping.
    fn less(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    fn join(self, halves: [__m256i; 2]) -> Self::Vector;

    fn halves(self, vector: Self::Vector) -> [__m256i; 2];

    /// Four vectors of quads of sixteen channels, of which each row holds four.
    fn transposed(self, rows: &[__m128i; LANES]) -> [Self::Vector; 4];

    /// What finishes two groups of channels.
    fn finish(self, groups: &[Group; 2]) -> Self::Finish;

    /// Requantizes sums of plain channels to bytes, saturating.
    fn bytes(self, finish: &Self::Finish, sums: Self::Vector) -> __m128i;

    /// As [`Panel::run`], for `height` rows of windows, if the core multiplies matrices and these make some; else
    /// `Some(false)`.
    fn run_by_matrices(
        self,
        panel: &Panel<Self>,
        tile: &Tile<u8>,
        windows: &Windows<'_>,
        height: usize,
        place: [usize; 2],
        y: &mut Output<'_>,
    ) -> Option<bool>;
}

/// What finishes the sums of sixteen channels; those behind the last have none.
#[derive(Clone, Copy)]
pub(super) struct Sixteen<D: Dot> {
    groups: [Group; 2],
    finish: D::Finish,
}

impl<D: Dot> Sixteen<D> {
    /// No channels.
    pub(super) const NONE: Self = Self { groups: [Group::NONE; 2], finish: D::NONE };

    /// The channels from `first` on.
    #[inline(always)]
    pub(super) fn new(dot: D, channels: &Channels<'_>, first: usize) -> Self {
        // SAFETY: cores that multiply bytes have AVX2.
        let groups = unsafe { [Group::new(channels, first), Group::new(channels, first + GROUP)] };
        Self { groups, finish: dot.finish(&groups) }
    }

    /// What sums begin with.
    #[inline(always)]
    pub(super) fn bias(&self, dot: D) -> D::Vector {
        // SAFETY: as above.
        dot.join(self.groups.each_ref().map(|group| unsafe { group.bias() }))
    }

    /// Finishes sums, bias included, and writes as many as `count` of them, at least one, from element `at` of `y` on.
    #[inline(always)]
    pub(super) fn put(
        &self,
        dot: D,
        target: &Target,
        sums: D::Vector,
        [at, count]: [usize; 2],
        y: &mut Output<'_>,
    ) -> Option<()> {
        if !(target.bytes && self.groups[0].plain && self.groups[1].plain) {
            let place = Place { at, distance: 0, count };
            // SAFETY: as above.
            return unsafe { target.write_any(&self.groups, &[dot.halves(sums)], place, y) };
        }
        let y = y.bytes_from(at)?;
        let bytes = dot.bytes(&self.finish, sums);
        // SAFETY: as above.
        let bytes = unsafe {
            let [low, high] = target.clamp.map(|bound| _mm_set1_epi8(bound as i8));
            _mm_min_epi8(_mm_max_epi8(bytes, low), high)
        };
        let mut all = [0; LANES];
        // SAFETY: as above; 16 bytes are written to as many, at any alignment.
        unsafe {
            match y.first_chunk_mut::<LANES>().filter(|_| count >= LANES) {
                Some(slot) => _mm_storeu_si128(slot.as_mut_ptr().cast(), bytes),
                None => {
                    _mm_storeu_si128(all.as_mut_ptr().cast(), bytes);
                    let count = count.min(LANES);
                    y.get_mut(..count)?.copy_from_slice(&all[..count]);
                }
            }
        }
        Some(())
    }
}

/// Proof that the core has vectors of 512 bits, with their instructions for bytes and for shorter vectors, and VNNI.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Zmm {
    matrices: Option<Amx>,
}

impl Zmm {
    /// The proof, if the core has it.
    #[inline(always)]
    pub(super) fn detect() -> Option<Self> {
        let has = std::is_x86_feature_detected!("avx512vnni")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512vl")
            && std::is_x86_feature_detected!("avx2");
        has.then(|| Self { matrices: Amx::detect() })
    }
}

/// Proof that the core has VNNI for vectors of 256 bits (AVX-VNNI).
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Ymm(());

impl Ymm {
    /// The proof, if the core has it.
    #[inline(always)]
    pub(super) fn detect() -> Option<Self> {
        let has = std::is_x86_feature_detected!("avxvnni") && std::is_x86_feature_detected!("avx2");
        has.then_some(Self(()))
    }
}

/// Constants of sixteen plain channels; see [`Group`].
#[derive(Clone, Copy)]
pub(in crate::kernels) struct ZmmFinish {
    mantissas: __m512i,
    odd_mantissas: __m512i,
    rounding: __m512i,
    down: __m512i,
}

// Instructions of a core that has them, or there would be no `self`. No methods carry their features, which traits do not
// allow: they are inlined into functions that do.
impl Dot for Zmm {
    type Vector = __m512i;
    type Every = __m512i;
    type Finish = ZmmFinish;

    const WIDE: bool = true;

    const NONE: ZmmFinish = {
        // SAFETY: any 64 bytes are a vector.
        let none = unsafe { core::mem::transmute::<[i32; LANES], __m512i>([0; LANES]) };
        ZmmFinish { mantissas: none, odd_mantissas: none, rounding: none, down: none }
    };

    #[inline(always)]
    fn zero(self) -> __m512i {
        // SAFETY: the core has it.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn every(self, quad: i32) -> __m512i {
        // SAFETY: the core has it.
        unsafe { _mm512_set1_epi32(quad) }
    }

    #[inline(always)]
    fn add(self, sums: __m512i, x: __m512i, w: __m512i) -> __m512i {
        // SAFETY: the core has it.
        unsafe { _mm512_dpbusd_epi32(sums, x, w) }
    }

    #[inline(always)]
    fn less(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the core has it.
        unsafe { _mm512_sub_epi32(a, b) }
    }

    #[inline(always)]
    fn join(self, [low, high]: [__m256i; 2]) -> __m512i {
        // SAFETY: the core has it.
        unsafe { _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high) }
    }

    #[inline(always)]
    fn halves(self, vector: __m512i) -> [__m256i; 2] {
        // SAFETY: the core has it.
        unsafe { [_mm512_castsi512_si256(vector), _mm512_extracti64x4_epi64::<1>(vector)] }
    }

    #[inline(always)]
    fn transposed(self, rows: &[__m128i; LANES]) -> [__m512i; 4] {
        // SAFETY: the core has it.
        unsafe {
            // Rows 0, 4, 8 and 12 in a vector, and so on: unpacking works on quarters of vectors.
            let mut apart = [_mm512_setzero_si512(); 4];
            for (i, vector) in apart.iter_mut().enumerate() {
                let low = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(rows[i]), rows[i + 4]);
                *vector = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, rows[i + 8]), rows[i + 12]);
            }
            let [a, b, c, d] = apart;
            let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
            let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab, cd),
                _mm512_unpackhi_epi64(ab, cd),
                _mm512_unpacklo_epi64(ab_high, cd_high),
                _mm512_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }

    #[inline(always)]
    fn finish(self, [a, b]: &[Group; 2]) -> ZmmFinish {
        ZmmFinish {
            mantissas: self.join([a.mantissas, b.mantissas]),
            odd_mantissas: self.join([a.odd_mantissas, b.odd_mantissas]),
            rounding: self.join([a.rounding, b.rounding]),
            down: self.join([a.down, b.down]),
        }
    }

    #[inline(always)]
    fn bytes(self, finish: &ZmmFinish, sums: __m512i) -> __m128i {
        // SAFETY: the core has it.
        unsafe {
            let even = _mm512_mul_epi32(sums, finish.mantissas);
            let odd = _mm512_mul_epi32(_mm512_srli_epi64::<32>(sums), finish.odd_mantissas);
            // The high words of both.
            let products = _mm512_mask_shuffle_epi32::<_MM_PERM_DDBB>(odd, 0x5555, even);
            let values = _mm512_srav_epi32(_mm512_add_epi32(products, finish.rounding), finish.down);
            _mm512_cvtsepi32_epi8(values)
        }
    }

    #[inline(always)]
    fn run_by_matrices(
        self,
        panel: &Panel<Self>,
        tile: &Tile<u8>,
        windows: &Windows<'_>,
        height: usize,
        place: [usize; 2],
        y: &mut Output<'_>,
    ) -> Option<bool> {
        match self.matrices {
            Some(amx) => panel.run_by_matrices(amx, tile, windows, height, place, y),
            None => Some(false),
        }
    }
}

impl Zmm {
    /// The same without [`Amx`].
    #[cfg(test)]
    pub(super) fn without_matrices(self) -> Self {
        Self { matrices: None }
    }

    /// Whether there is [`Amx`].
    #[cfg(test)]
    pub(super) fn has_matrices(&self) -> bool {
        self.matrices.is_some()
    }

    /// Sixteen sums.
    #[inline(always)]
    pub(super) fn load(self, sums: &[i32; LANES]) -> __m512i {
        // SAFETY: the core has it; there are 64 bytes, at any alignment.
        unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) }
    }
}

// As for `Zmm`.
impl Dot for Ymm {
    type Vector = [__m256i; 2];
    type Every = __m256i;
    type Finish = [Group; 2];

    const WIDE: bool = false;

    const NONE: [Group; 2] = [Group::NONE; 2];

    #[inline(always)]
    fn zero(self) -> [__m256i; 2] {
        // SAFETY: the core has it.
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    fn every(self, quad: i32) -> __m256i {
        // SAFETY: the core has it.
        unsafe { _mm256_set1_epi32(quad) }
    }

    #[inline(always)]
    fn add(self, [a, b]: [__m256i; 2], x: __m256i, [v, w]: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the core has it.
        unsafe { [_mm256_dpbusd_avx_epi32(a, x, v), _mm256_dpbusd_avx_epi32(b, x, w)] }
    }

    #[inline(always)]
    fn less(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the core has it.
        unsafe { [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])] }
    }

    #[inline(always)]
    fn join(self, halves: [__m256i; 2]) -> [__m256i; 2] {
        halves
    }

    #[inline(always)]
    fn halves(self, vector: [__m256i; 2]) -> [__m256i; 2] {
        vector
    }

    #[inline(always)]
    fn transposed(self, rows: &[__m128i; LANES]) -> [[__m256i; 2]; 4] {
        // SAFETY: the core has it.
        unsafe {
            let mut out = [[_mm256_setzero_si256(); 2]; 4];
            for half in 0..2 {
                let mut apart = [_mm256_setzero_si256(); 4];
                for (i, vector) in apart.iter_mut().enumerate() {
                    *vector = _mm256_set_m128i(rows[8 * half + i + 4], rows[8 * half + i]);
                }
                let [a, b, c, d] = apart;
                let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
                let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
                out[0][half] = _mm256_unpacklo_epi64(ab, cd);
                out[1][half] = _mm256_unpackhi_epi64(ab, cd);
                out[2][half] = _mm256_unpacklo_epi64(ab_high, cd_high);
                out[3][half] = _mm256_unpackhi_epi64(ab_high, cd_high);
            }
            out
        }
    }

    #[inline(always)]
    fn finish(self, groups: &[Group; 2]) -> [Group; 2] {
        *groups
    }

    #[inline(always)]
    fn bytes(self, finish: &[Group; 2], sums: [__m256i; 2]) -> __m128i {
        // SAFETY: the core has it.
        unsafe {
            let words = _mm256_packs_epi32(finish[0].plain(sums[0]), finish[1].plain(sums[1]));
            // Packing joins the vectors' halves.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
        }
    }

    #[inline(always)]
    fn run_by_matrices(
        self,
        _: &Panel<Self>,
        _: &Tile<u8>,
        _: &Windows<'_>,
        _: usize,
        _: [usize; 2],
        _: &mut Output<'_>,
    ) -> Option<bool> {
        Some(false)
    }
}
