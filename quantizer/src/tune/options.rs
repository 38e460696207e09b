//! What can be chosen about tuning.

use std::time::Duration;

use serde::Serialize;

use super::{Augment, Rates};
use crate::exec::Backend;

/// Samples at least.
pub const LEAST_SAMPLES: usize = 16;
/// Samples at most; the first of the file are used.
pub const MOST_SAMPLES: usize = 512;

/// How to tune. The defaults were chosen by held-out calibration samples of the repository's models.
#[derive(Debug, Clone, Serialize)]
pub struct Options {
    /// Tuning ends, and learning rates have fallen to 0, when this is spent. Then the result depends on the machine's
    /// speed; without a budget it depends on the seed alone.
    pub time_budget: Option<Duration>,
    /// Steps over the whole model.
    pub steps: usize,
    /// Steps for each block before that, on the error at the block's end alone; 0 leaves them out.
    pub block_steps: usize,
    /// Steps over the whole model before everything else in which what has 4 bits is given 8.
    pub wide_steps: usize,
    /// Samples of one step.
    pub batch: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Number of threads; the result does not depend on it.
    pub threads: usize,
    /// Share of the samples that is not trained on, and decides what is kept.
    pub held_out: f64,
    /// Steps between two looks at the held-out samples.
    pub every: usize,
    /// Learning rates.
    pub rates: Rates,
    /// How samples are varied.
    pub augment: Augment,
    /// What is minimized.
    pub loss: Loss,
    /// Share of the elements of activations left in float at random (QDrop); falls to 0 on the way.
    pub drop: f64,
    /// How weights are rounded.
    pub rounding: Rounding,
    /// What runs the exported model in the end, to see that it is what was tuned.
    #[serde(skip)]
    pub backend: Backend,
}

/// How weights find their integers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Rounding {
    /// Latent weights move freely, rounding passes gradients straight through (as in LSQ).
    Straight,
    /// Each weight stays at one of the two integers around it, between which a soft choice is hardened (AdaRound); the
    /// number is the factor of the regularizer that hardens it.
    Soft(f64),
}

/// Weights of the terms of the loss. All but `regularizers` compare with the float model on the same inputs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Loss {
    /// Kullback-Leibler divergence of the class probabilities (classifiers only).
    pub divergence: f64,
    /// Squared error of the outputs of a classifier, relative to their variance. Other models have weight 1.
    pub outputs: f64,
    /// Mean over intermediate values of their squared error, relative to their variance.
    pub features: f64,
    /// Exponent γ of the float model's probabilities: 1 is plain distillation, less evens them out (TTM).
    pub exponent: f64,
    /// Whether samples are weighed by how uncertain the float model is of them (WTTM).
    pub weighted: bool,
    /// Kurtosis of the outputs of layers over their channels, mean over places and layers.
    pub kurtosis: f64,
    /// Distance of the distribution of the weights from a uniform one (WDR).
    pub shape: f64,
    /// Squared distance of weights to where they started, in steps.
    pub anchor: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            time_budget: None,
            steps: 1500,
            block_steps: 0,
            wide_steps: 0,
            batch: 32,
            seed: 1,
            threads: 1,
            held_out: 0.25,
            every: 50,
            rates: Rates::default(),
            augment: Augment::default(),
            loss: Loss::default(),
            drop: 0.0,
            rounding: Rounding::Straight,
            backend: Backend::default(),
        }
    }
}

impl Default for Loss {
    fn default() -> Self {
        Self {
            divergence: 1.0,
            outputs: 0.5,
            features: 0.5,
            exponent: 1.0,
            weighted: false,
            kurtosis: 0.0,
            shape: 0.0,
            anchor: 0.0,
        }
    }
}
