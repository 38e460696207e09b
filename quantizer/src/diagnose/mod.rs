//! What makes a tensor hard to quantize: heavy tails, channels far larger than the others, levels that are not used.
//!
//! *Kurtosis* is 1.8 for a uniform law, of which every level of a quantizer is used equally, and large where a few values
//! stretch the range (Shkolnik et al., "Robust Quantization: One Model to Rule Them All", NeurIPS 2020). An *outlier
//! channel* has a mean magnitude more than [`OUTLIER_FACTOR`] times that of all channels (Nrusimha et al., "Mitigating
//! the Impact of Outlier Channels for Language Model Quantization with Activation Regularization", 2024): one scale for
//! the tensor then serves that channel and leaves the others few levels. Moving outliers from activations into weights
//! shows there as rows whose largest weight is far above their median.

mod activations;
mod channels;
mod weights;

pub use activations::{Activation, Subject, activations, subjects};
pub use channels::{ChannelMeans, OUTLIER_FACTOR};
pub use weights::{WeightLaw, input_axis, int8_levels};
