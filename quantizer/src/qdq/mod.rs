//! Quantized models as standard ONNX: QuantizeLinear and DequantizeLinear around float operators.

mod activations;
mod export;
mod float_ranges;
mod islands;
mod linear;
mod names;
mod simulate;
mod sixteen;
mod weights;

#[cfg(test)]
mod tests;

pub use activations::activations;
pub use export::{Container, export};
pub use float_ranges::{FLOAT_RANGES, FloatRanges, float_ranges};
pub(crate) use linear::Linear;

pub use islands::{Island, float_islands};
pub use simulate::simulate;
pub(crate) use sixteen::sixteen_bit_scale;
pub use weights::{IntegerWeights, weights};
