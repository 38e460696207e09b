//! Quantized models as standard ONNX: QuantizeLinear and DequantizeLinear around float operators.

mod export;
mod float_ranges;
mod islands;
mod linear;
mod names;
mod simulate;

#[cfg(test)]
mod tests;

pub use export::export;
pub use float_ranges::{FLOAT_RANGES, FloatRanges, float_ranges};
pub use islands::{Island, float_islands};
pub use simulate::simulate;
