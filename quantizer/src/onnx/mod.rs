//! ONNX files: [`read`] into a [`Graph`](crate::graph::Graph), [`write()`] out of one.

mod error;
mod proto;
mod read;
mod write;

pub use error::{Error, ErrorKind};
pub use read::{from_bytes, read, tensor_from_bytes};
pub use write::{to_bytes, write};

/// Versions of the default operator set that can be read.
pub const OPSETS: std::ops::RangeInclusive<i64> = 11..=25;
