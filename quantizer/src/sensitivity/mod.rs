//! How much each layer minds few bits.
//!
//! Two answers, for the layers that multiply by constant weights:
//!
//! - *Predicted* ([`predict`]): rounding taken for additive noise (as in AskariHemmat et al., "QReg: On Regularization
//!   Effects of Quantization", 2022) and followed through the layer itself: E‖y_q − y‖² = Σ_c Δ_c²/12 · E‖x_patch‖², plus
//!   what the rounding of the input adds. It needs one pass over samples for all layers and bits. Where Δ²/12 fails, at
//!   few bits and for heavy tails, the rounding's own squared error takes its place ([`NoiseModel`]). What the noise does
//!   at the model's outputs is its power times a gain, the layer's squared Jacobian; [`gains`] finds it by noise, with a
//!   few runs for each layer that serve all widths.
//! - *Measured* ([`Judge`]): that layer alone is quantized, the model is run, and the noise power at its outputs is taken
//!   relative to their signal power. One run per layer and width.
//!
//! [`NoiseProbe`] measures with noise in the place of rounding, mixed over several widths, as QuantNAS needs it.

mod energy;
mod layers;
mod measure;
mod noise;
mod predict;
mod rank;
mod rounding;
#[cfg(test)]
mod tests;

pub use energy::{Energy, energies};
pub use layers::{Layer, Widths, WidthsError, layers};
pub use measure::Judge;
pub use noise::{NoiseLaw, NoiseProbe};
pub use predict::{NoiseModel, Prediction, activation_noise, predict, weight_noise};
pub use rank::{Gain, LayerDamage, gains, rank};
pub use rounding::{Nearest, RoundedActivation, RoundedWeights, Rounding};
