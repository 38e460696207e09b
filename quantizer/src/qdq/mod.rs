//! Quantized models as standard ONNX: QuantizeLinear and DequantizeLinear around float operators.

mod export;
mod islands;
mod linear;
mod names;
mod simulate;

#[cfg(test)]
mod tests;

pub use export::export;
pub use islands::{Island, float_islands};
pub use simulate::simulate;
