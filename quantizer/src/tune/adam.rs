//! The optimizer: Adam (Kingma and Ba 2015) with a cosine decay of the learning rates.

use super::parameters::{Kind, Parameters};

/// Decay of the mean of gradients.
const BETA1: f32 = 0.9;
/// Decay of the mean of their squares.
const BETA2: f32 = 0.99;
/// Added to the root of the mean square. Gradients come in very different sizes, so next to nothing.
const EPSILON: f32 = 1e-20;

/// Learning rates at the start, in the units of the parameters.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Rates {
    /// Latent weights, in steps of their scale.
    pub weights: f32,
    /// Logarithms of weight scales.
    pub scales: f32,
    /// Biases, in root mean squares of the layer's output.
    pub biases: f32,
    /// Logarithms of the ends of activation ranges.
    pub ranges: f32,
}

impl Default for Rates {
    fn default() -> Self {
        Self { weights: 0.01, scales: 0.003, biases: 0.003, ranges: 0.01 }
    }
}

impl Rates {
    pub(super) fn of(&self, kind: Kind) -> f32 {
        match kind {
            Kind::Weight => self.weights,
            Kind::WeightScale => self.scales,
            Kind::Bias => self.biases,
            Kind::Range => self.ranges,
        }
    }
}

/// Running means of gradients and of their squares.
#[derive(Debug, Clone)]
pub(super) struct Adam {
    steps: i32,
    means: Parameters,
    squares: Parameters,
}

impl Adam {
    pub(super) fn new(zeros: Parameters) -> Self {
        Self { steps: 0, means: zeros.clone(), squares: zeros }
    }

    /// One step against `gradients`, with the rates times `decay`.
    pub(super) fn step(&mut self, parameters: &mut Parameters, gradients: &Parameters, rates: &Rates, decay: f32) {
        self.steps += 1;
        let (correct1, correct2) = (1.0 - BETA1.powi(self.steps), 1.0 - BETA2.powi(self.steps));
        let moments = self.means.iter_mut().zip(&mut self.squares);
        for ((block, gradient), (mean, square)) in parameters.iter_mut().zip(gradients).zip(moments) {
            let rate = rates.of(block.kind) * decay / correct1;
            if rate == 0.0 {
                continue;
            }
            let moments = mean.values.iter_mut().zip(&mut square.values);
            for ((value, &g), (m, v)) in block.values.iter_mut().zip(&gradient.values).zip(moments) {
                *m += (1.0 - BETA1) * (g - *m);
                *v += (1.0 - BETA2) * (g * g - *v);
                *value -= rate * *m / ((*v / correct2).sqrt() + EPSILON);
            }
        }
    }
}

/// The share of the learning rate at a share `t` of the way: half a cosine from 1 to 0.
pub(super) fn cosine(t: f64) -> f32 {
    (0.5 * (1.0 + (std::f64::consts::PI * t.clamp(0.0, 1.0)).cos())) as f32
}
