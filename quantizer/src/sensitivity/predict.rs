//! The noise model of one layer.

use serde::Serialize;

use super::{Energy, Layer, RoundedWeights, Rounding, Widths};
use crate::graph::{Graph, Node, Tensor};
use crate::quantize::channel_axis;

/// Predicted noise at a layer's output, means over samples.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Prediction {
    /// Noise power from the weights, summed over the output's elements.
    pub weights: f64,
    /// Noise power from the layer's input.
    pub activations: f64,
    /// Signal power of the output.
    pub signal: f64,
}

impl Prediction {
    /// Noise power relative to the signal's; 0 without signal.
    pub fn damage(&self) -> f64 {
        if self.signal > 0.0 { (self.weights + self.activations) / self.signal } else { 0.0 }
    }
}

/// What the error of a rounded weight is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoiseModel {
    /// Uniform within the channel's step: variance Δ²/12 (QReg). Fails where Δ is as large as the weights are: at 2 and 3
    /// bits, and at 4 where a few weights stretch the range, since the others then round to zero; overstates channels of
    /// few weights, of which the largest is always exact.
    Step,
    /// As large as it is: the channel's mean squared error under the rounding at hand. Equal to `Step` where that holds.
    Error,
}

impl NoiseModel {
    /// The mean square of the errors in the weights of each output channel, or one for all.
    pub fn variances(self, node: &Node, weights: &Tensor, rounded: &RoundedWeights) -> Vec<f64> {
        match self {
            Self::Step => rounded.steps.iter().map(|step| step * step / 12.0).collect(),
            Self::Error => squared_errors(node, weights, &rounded.values),
        }
    }
}

/// E‖y_q − y‖² from errors of mean square `variances` in the weights of each output channel (or one for all `channels`):
/// Σ_c variance_c · E‖x_patch‖², each channel with the patches of its group. With variances of Δ_c²/12, QReg's.
pub fn weight_noise(variances: &[f64], patches: &[f64], channels: usize) -> f64 {
    let per_group = channels.div_ceil(patches.len().max(1)).max(1);
    let variance = |channel: usize| variances.get(channel % variances.len().max(1)).copied().unwrap_or(0.0);
    let patch = |channel: usize| patches.get(channel / per_group).copied().unwrap_or(0.0);
    (0..channels).map(|channel| variance(channel) * patch(channel)).sum()
}

/// E‖y_q − y‖² from an input whose elements have independent errors of mean square `noise`: each weight carries it once
/// for each of the `positions` that an output channel has. Where windows reach into the padding, which is exact, this says
/// a little too much.
pub fn activation_noise(noise: f64, weights: &[f32], positions: f64) -> f64 {
    noise * positions * weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>()
}

/// What quantizing a layer adds to its output, predicted from its energies.
pub fn predict(
    graph: &Graph,
    layer: &Layer,
    energy: &Energy,
    rounding: &dyn Rounding,
    bits: Widths,
    model: NoiseModel,
) -> Prediction {
    let node = graph.nodes.get(layer.index);
    let Some((node, weights)) = node.zip(graph.initializers.get(&layer.weights)) else { return Prediction::default() };
    let channels = output_channels(node, weights, energy.patches.len());
    let mut prediction = Prediction { signal: energy.output, ..Prediction::default() };
    if bits.weights != Widths::FLOAT {
        let variances = model.variances(node, weights, &rounding.weights(node, weights, bits.weights));
        prediction.weights = weight_noise(&variances, &energy.patches, channels);
    }
    if bits.activations != Widths::FLOAT {
        let noise =
            node.input(0).and_then(|value| rounding.activation(value, bits.activations)).map_or(0.0, |a| a.noise);
        let positions = energy.elements / channels.max(1) as f64;
        // A transposed convolution meets each input once for each weight of its channel, wherever the output lies.
        let positions = match node.op_type.as_str() {
            "ConvTranspose" => positions / strides(node),
            _ => positions,
        };
        prediction.activations = activation_noise(noise, &weights.to_f32(), positions);
    }
    prediction
}

/// The mean squared error of each output channel's weights.
fn squared_errors(node: &Node, weights: &Tensor, rounded: &[f32]) -> Vec<f64> {
    let axis = channel_axis(node, weights.shape.len());
    let channels = weights.shape.get(axis).copied().unwrap_or(1).max(1);
    let inner = weights.shape.iter().skip(axis + 1).product::<usize>().max(1);
    let mut sums = vec![0.0; channels];
    for (i, (w, r)) in weights.to_f32().iter().zip(rounded).enumerate() {
        sums[i / inner % channels] += (f64::from(*w) - f64::from(*r)).powi(2);
    }
    let each = (weights.len() / channels).max(1) as f64;
    sums.into_iter().map(|sum| sum / each).collect()
}

/// Output channels of a layer: the weights' own, times the groups where each group has them.
fn output_channels(node: &Node, weights: &Tensor, groups: usize) -> usize {
    let own = weights.shape.get(channel_axis(node, weights.shape.len())).copied().unwrap_or(1);
    if node.op_type == "ConvTranspose" { own * groups } else { own }
}

/// Output positions for each input position.
fn strides(node: &Node) -> f64 {
    node.ints("strides").unwrap_or_default().iter().map(|&stride| stride.max(1) as f64).product()
}
