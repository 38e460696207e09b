//! Runs quantized neural networks from a flat, validated image (a *plan*) without an allocator,
//! without floating point in the kernels and without copying the image.
//!
//! The pieces, in the order data meets them:
//!
//! 1. [`plan`]: the image's format, and [`plan::Plan::parse`], which validates all of it once.
//! 2. [`operator`]: the typed set of operators an application links ([`operator_set!`]).
//! 3. [`session`]: a plan with its arena; sets inputs, runs the operators, reads outputs.
//! 4. [`kernels`]: the integer arithmetic of each operator, and beside it the packing of its weights.
//!
//! The rounding rule of the whole crate is in [`quant`]: one rounding per output element, half up,
//! in 64-bit integers, so that every target produces the same bits.
#![no_std]
// Only the kernels written in a core's own instructions need it.
#![cfg_attr(not(any(dsp, mve, neon, x86, native)), forbid(unsafe_code))]
#![cfg_attr(any(dsp, mve, neon, x86, native), deny(unsafe_code))]

#[cfg(feature = "build")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod error;
pub mod kernels;
pub mod op;
pub mod operator;
pub mod plan;
pub mod quant;
pub mod session;
#[cfg(feature = "build")]
pub mod work;

pub use error::{Error, Reason};
pub use plan::Plan;

pub use session::Session;
