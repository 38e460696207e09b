//! What tuning came to.

use serde::Serialize;

use crate::metrics::Sqnr;
use crate::quantize::Outcome;

/// How near a quantized model is to the float model on held-out samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Distance {
    /// Mean Kullback-Leibler divergence of the class probabilities, in nats; 0 for models without classes.
    pub divergence: f64,
    /// Signal-to-quantization-noise ratio of all outputs, in dB.
    pub sqnr_db: f64,
    /// Share of samples with the float model's class; 1 for models without classes.
    pub agreement: f64,
}

/// Sums a [`Distance`] is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    pub(super) samples: usize,
    pub(super) divergence: f64,
    pub(super) signal: f64,
    pub(super) noise: f64,
    pub(super) agree: usize,
}

impl Sums {
    pub(super) fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.divergence += other.divergence;
        self.signal += other.signal;
        self.noise += other.noise;
        self.agree += other.agree;
    }

    pub(super) fn distance(&self, classes: bool) -> Distance {
        let n = self.samples.max(1) as f64;
        Distance {
            divergence: self.divergence / n,
            sqnr_db: Sqnr::of(self.signal, self.noise).decibels(),
            agreement: if classes { self.agree as f64 / n } else { 1.0 },
        }
    }
}

/// One look at the held-out samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Look {
    /// Steps done, over all phases.
    pub step: usize,
    /// The distance then.
    pub distance: Distance,
}

/// What tuning did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Steps done.
    pub steps: usize,
    /// Time taken.
    pub seconds: f64,
    /// Samples trained on, and held out.
    pub samples: (usize, usize),
    /// Held-out distance of the outcome given.
    pub before: Distance,
    /// Held-out distance of the outcome returned, as tuning computes it.
    pub after: Distance,
    /// The same of the exported file, run by the float executor.
    pub exported: Distance,
    /// The step that the outcome is from; 0 if none was better than the start.
    pub best_step: usize,
    /// All looks at the held-out samples.
    pub history: Vec<Look>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A tuned outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// The same values and layers as those given, with other numbers.
    pub outcome: Outcome,
    /// What happened.
    pub report: Report,
}
