//! Kernels for aarch64: sixteen 8-bit products at once, with what the core has of dot products (`sdot`) and of products of
//! matrices (`smmla`).
//!
//! Every core of the architecture has the vectors themselves; the rest is asked for at run time where there is a standard
//! library, and of the compiler elsewhere ([`Core`]).
#![allow(unsafe_code)]

mod depthwise;
mod elementwise;
mod finish;
mod linear;
mod lut;
mod multiply;
mod patches;
mod product;
mod softmax;

use core::arch::aarch64::*;

pub(super) use depthwise::Depthwise;
pub(super) use elementwise::{Rescale, add, mul};
pub(super) use linear::run;
pub(super) use lut::look_up;
pub(super) use patches::{copy, copy_runs};
pub(super) use product::Products;
pub(super) use softmax::Powers;

use multiply::{DotProduct, MatrixProduct};

/// Bytes of a vector.
const VECTOR: usize = 16;

/// Channels that are finished together: 32-bit lanes of a vector.
const QUAD: usize = 4;

/// What the core has beyond the vectors that every one has.
#[derive(Debug, Clone, Copy)]
struct Core {
    dot: Option<DotProduct>,
    matrix: Option<MatrixProduct>,
}

/// Whether the core has an extension: at run time, or by what the compiler was told.
macro_rules! has {
    ($feature:tt) => {{
        #[cfg(feature = "std")]
        let has = std::arch::is_aarch64_feature_detected!($feature);
        #[cfg(not(feature = "std"))]
        let has = cfg!(target_feature = $feature);
        has
    }};
}

impl Core {
    #[inline(always)]
    fn detect() -> Self {
        let (dot, matrix) = (has!("dotprod"), has!("i8mm"));
        // SAFETY: the core has the extension.
        unsafe { Self { dot: dot.then(|| DotProduct::new()), matrix: matrix.then(|| MatrixProduct::new()) } }
    }
}

/// The lanes of a vector.
#[inline]
#[target_feature(enable = "neon")]
fn lanes(vector: int32x4_t) -> [i32; QUAD] {
    let mut lanes = [0; QUAD];
    // SAFETY: `lanes` has 16 bytes.
    unsafe { vst1q_s32(lanes.as_mut_ptr(), vector) };
    lanes
}

/// Four numbers as a vector.
#[inline]
#[target_feature(enable = "neon")]
fn vector(lanes: &[i32; QUAD]) -> int32x4_t {
    // SAFETY: `lanes` has 16 bytes.
    unsafe { vld1q_s32(lanes.as_ptr()) }
}
