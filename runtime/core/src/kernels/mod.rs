//! The integer arithmetic of each operator, one file per operator.
//!
//! Each file holds the operator type (checks and dispatch), its portable kernel and, where weights are
//! laid out specially, their packing. Kernels with weights are written once for 8 and 4 bits (`weights`); each width
//! is an operator of its own, so that only those in use are linked. `reference` holds the plainest possible form of every kernel,
//! never optimised, which the conformance suite compares everything with.

mod add;
mod arg_max;
mod avg_pool2d;
mod bands;
mod binary;
mod channels;
mod concat;
mod conv2d;
mod conv_transpose2d;
mod depthwise_conv2d;
mod div;
#[cfg(dsp)]
mod dsp;
mod fixed;
mod fully_connected;
mod gather;
mod layer_norm;
mod linear;
mod log_softmax;
mod lut;
mod mat_mul;
mod mat_mul_mask_softmax;
mod mat_mul_softmax;
mod max_pool2d;
pub(crate) mod memory;
mod mul;
#[cfg(mve)]
mod mve;
#[cfg(neon)]
mod neon;
mod pad;
mod patches;
mod product;
#[cfg(feature = "reference")]
pub mod reference;
mod repeat;
mod requantize;
mod resize2d;
#[cfg(scalar)]
mod scalar;
mod softmax;
mod state;
mod strips;
mod take;
mod transpose;
mod transposed;
mod weights;
mod window;
#[cfg(x86)]
mod x86;

pub use add::Add;
pub use arg_max::ArgMax;
pub use avg_pool2d::AvgPool2d;
pub use bands::{Rows, band_height, leads};
pub use concat::Concat;
pub use conv_transpose2d::{ConvTranspose2d, ConvTranspose2dI4, pack_conv_transpose2d};
pub use conv2d::{Conv2d, Conv2dI4, conv2d_filter_len, pack_conv2d};
pub use depthwise_conv2d::{
    DepthwiseConv2d, DepthwiseConv2dI4, depthwise_conv2d_band_height, depthwise_conv2d_work_len, pack_depthwise_conv2d,
};
pub use div::Div;
pub use fully_connected::{FullyConnected, FullyConnectedI4, pack_fully_connected};
pub use gather::Gather;
pub use layer_norm::{LayerNorm, RmsNorm};
pub use log_softmax::LogSoftmax;
pub use lut::Lut;
pub use mat_mul::MatMul;
pub use mat_mul_mask_softmax::MatMulMaskSoftmax;
pub use mat_mul_softmax::MatMulSoftmax;
pub use max_pool2d::MaxPool2d;
pub use mul::Mul;
pub use pad::Pad;
#[cfg(feature = "build")]
pub(crate) use patches::PIXELS;
pub use patches::patches_len;
pub use repeat::Repeat;
pub use requantize::Requantize;
pub use resize2d::Resize2d;
pub use softmax::Softmax;
pub use state::State;
#[cfg(feature = "build")]
pub(crate) use strips::WHOLE;
pub use take::Take;
pub use transpose::Transpose;
pub use weights::{filter_len, int4_len, pack_int4};
