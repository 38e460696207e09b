//! Differentiable execution of prepared float graphs, with fake quantization where an outcome puts it.
//!
//! candle keeps the tape and the tensors. What takes the time are operators of our own on that tape, each with its
//! gradient: convolutions and products over `ndarray`'s matrix product, everything else as loops over slices compiled
//! for the machine's vector units. All of it runs on the calling thread; callers run several samples side by side.

mod conv;
mod conv_transpose;
mod depthwise;
mod error;
mod fake_quant;
mod flat;
mod gemm;
mod matmul;
mod operator;
mod pool;
mod program;
mod rows;
mod shift;
mod simd;
mod unary;

#[cfg(test)]
mod tests;

pub use error::Error;
pub(crate) use fake_quant::{Drop, Ends, FakeQuant};
pub(crate) use flat::to_vec;
pub(crate) use program::{Group, Leaves, Program, Quantization, Quantizer, Span, levels};
