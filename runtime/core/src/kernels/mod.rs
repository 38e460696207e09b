//! The integer arithmetic of each operator, one file per operator.
//!
//! Each file holds the operator type (checks and dispatch), its portable kernel and, where weights are
//! laid out specially, their packing. `reference` holds the plainest possible form of every kernel,
//! never optimised, which the conformance suite compares everything with.

mod add;
mod avg_pool2d;
mod binary;
mod channels;
mod concat;
mod conv2d;
mod depthwise_conv2d;
mod fixed;
mod fully_connected;
mod layer_norm;
mod lut;
mod mat_mul;
mod max_pool2d;
mod memory;
mod mul;
mod pad;
#[cfg(feature = "reference")]
pub mod reference;
mod requantize;
mod softmax;
mod transpose;
mod window;

pub use add::Add;
pub use avg_pool2d::AvgPool2d;
pub use concat::Concat;
pub use conv2d::{Conv2d, pack_conv2d};
pub use depthwise_conv2d::{DepthwiseConv2d, pack_depthwise_conv2d};
pub use fully_connected::{FullyConnected, pack_fully_connected};
pub use layer_norm::LayerNorm;
pub use lut::Lut;
pub use mat_mul::MatMul;
pub use max_pool2d::MaxPool2d;
pub use mul::Mul;
pub use pad::Pad;
pub use requantize::Requantize;
pub use softmax::Softmax;
pub use transpose::Transpose;
