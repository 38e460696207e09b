//! The plan: a flat, little-endian, position-independent image of a compiled model.
//!
//! ```text
//! header          64 bytes          see [`Header`]
//! inputs, outputs 2 bytes each      tensor indices
//! tensors         16 bytes each     see [`TensorRecord`]
//! shapes          16 bytes each     four u32; tensors of one shape share it
//! operators       variable          see [`OpRecord`], in execution order
//! constants       16-byte aligned   weights, biases, multipliers, tables
//! names           optional          u16 length + UTF-8 bytes each
//! ```
//!
//! Sections follow each other; the constants and the image itself must be 16-byte aligned
//! ([`include_plan!`](crate::include_plan) sees to it). [`Plan::parse`] validates all of it.

#[cfg(feature = "build")]
mod build;
mod format;
mod parse;

#[cfg(feature = "build")]
pub use build::{AlignedBytes, BuildError, Builder};
pub use format::{
    CONST_TENSOR, DType, HEADER_LEN, Header, LOGICAL_NCHW, MAGIC, OpRecord, RANGE_I4, RANGE_U4, SHAPE_LEN, TENSOR_LEN,
    TensorRecord, VERSION, align16, checksum, image_checksum,
};
pub use parse::{OpView, Ops, Plan, arena_len};

/// The core a plan's constants are packed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
#[non_exhaustive]
pub enum Target {
    /// Plain layouts, read by the portable kernels on every core.
    Portable = 0,
}

impl Target {
    /// The target with this number.
    pub const fn from_u16(number: u16) -> Option<Self> {
        match number {
            0 => Some(Self::Portable),
            _ => None,
        }
    }

    /// The name used on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
        }
    }
}

/// Bytes aligned to 16, for images and arenas.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
pub struct Aligned<T: ?Sized>(pub T);

/// Embeds a plan file, aligned: `static IMAGE: &[u8] = include_plan!("model.plan");`
#[macro_export]
macro_rules! include_plan {
    ($path:expr) => {{
        static IMAGE: &$crate::plan::Aligned<[u8]> = &$crate::plan::Aligned(*include_bytes!($path));
        &IMAGE.0
    }};
}
