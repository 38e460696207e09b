//! Runs ONNX files in ONNX Runtime, loaded dynamically: nothing of it is linked, and everything else works without it.
//!
//! [`library::find`] looks for the library, [`Runtime::load`] loads it once per process, [`Session`] runs a model, and
//! [`bench::interleave`] compares the speed of several.
#![forbid(unsafe_code)]

pub mod bench;
mod error;
pub mod library;
mod runtime;
mod session;
mod tensor;

pub use error::Error;
pub use runtime::Runtime;
pub use session::{Input, Options, Provider, Session};
pub use tensor::{Tensor, TensorInfo, Values};
