//! Kernels for x86-64 cores with AVX2: sixteen products of 16 bits an instruction, summed in pairs to 32 bits. Cores that
//! multiply bytes (VNNI, AMX) do products with weights by [`Bytes`].
//!
//! Kernels are methods of proofs, [`Avx2`] above all, which exist only where the core has the instructions. They check lengths;
//! functions inside carry the features.
#![allow(unsafe_code)]

mod add;
mod amx;
mod bytes;
mod columns;
mod depthwise;
mod dot;
mod filters;
mod finish;
mod layer_norm;
mod linear;
mod mat_mul;
mod product;
mod softmax;
mod tile;
mod wide;

use core::arch::x86_64::*;
use core::mem::MaybeUninit;
use core::ptr;

pub(super) use add::WideSums;
pub(super) use bytes::Bytes;
pub(super) use columns::worth_it;
pub(super) use depthwise::Depthwise;
pub(super) use finish::{Group, Target};
pub(super) use layer_norm::{Differences, Steps};
pub(super) use mat_mul::{MAX_COLUMNS, ROWS, Rows};
pub(super) use softmax::Powers;
pub(super) use tile::Windows;

/// Proof that the core has AVX2.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    /// The proof, if the core has it.
    #[inline(always)]
    pub(super) fn detect() -> Option<Self> {
        std::is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// Widens elements to 16 bits.
    #[inline]
    pub(super) fn widen(self, x: &[i8], to: &mut [i16]) {
        // SAFETY: nothing but numbers is written there.
        let to = unsafe { &mut *(ptr::from_mut(to) as *mut [MaybeUninit<i16>]) };
        // SAFETY: the core has AVX2.
        unsafe { widen(x, to) }
    }
}

/// Widens elements to 16 bits; there are as many of both.
#[target_feature(enable = "avx2")]
fn widen(x: &[i8], to: &mut [MaybeUninit<i16>]) {
    let ((x_vectors, x_rest), (vectors, rest)) = (x.as_chunks::<16>(), to.as_chunks_mut::<16>());
    for (x, to) in x_vectors.iter().zip(vectors) {
        // SAFETY: 16 bytes are read and 32 written, at any alignment.
        unsafe {
            let wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(x.as_ptr().cast()));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), wide);
        }
    }
    let ((x_halves, x_rest), (halves, rest)) = (x_rest.as_chunks::<8>(), rest.as_chunks_mut::<8>());
    for (x, to) in x_halves.iter().zip(halves) {
        // SAFETY: 8 bytes are read and 16 written, at any alignment.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm_cvtepi8_epi16(_mm_loadl_epi64(x.as_ptr().cast()))) };
    }
    for (&x, to) in x_rest.iter().zip(rest) {
        to.write(x.into());
    }
}

/// The lanes of a vector.
#[inline]
#[target_feature(enable = "avx2")]
fn words(vector: __m128i) -> [i32; 4] {
    let mut words = [0; 4];
    // SAFETY: `words` has 16 bytes; the store needs no alignment.
    unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), vector) };
    words
}

/// The lanes of a vector.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes(vector: __m256i) -> [i32; 8] {
    let mut lanes = [0; 8];
    // SAFETY: `lanes` has 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), vector) };
    lanes
}

/// Sixteen bytes as a vector.
#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[i8; 16]) -> __m128i {
    // SAFETY: `bytes` has 16 bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// The first sixteen bytes as a vector; 0 behind the last.
#[inline]
#[target_feature(enable = "avx2")]
fn load_first(bytes: &[i8]) -> __m128i {
    match bytes.first_chunk() {
        Some(bytes) => load(bytes),
        None => load(&filled_up(bytes)),
    }
}

/// Fewer than sixteen bytes, then zeros.
#[cold]
fn filled_up(bytes: &[i8]) -> [i8; 16] {
    core::array::from_fn(|i| bytes.get(i).copied().unwrap_or(0))
}

/// The sums of four vectors, as a vector.
#[inline]
#[target_feature(enable = "avx2")]
fn totals([a, b, c, d]: [__m256i; 4]) -> __m128i {
    let halves = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves))
}
