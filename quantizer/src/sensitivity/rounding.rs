//! What quantization makes of weights and activations, as far as sensitivity has to know.

use std::collections::BTreeMap;

use crate::graph::{Node, Tensor};
use crate::observe::{Distortion, Levels, Observer, Statistics};
use crate::quantize::channel_axis;

/// Weights, quantized and made real again.
#[derive(Debug, Clone, PartialEq)]
pub struct RoundedWeights {
    /// The values, in the order of the weights.
    pub values: Vec<f32>,
    /// The step Δ of each output channel, or one for all; 0 where rounding changes nothing, as where all weights are
    /// zero.
    pub steps: Vec<f64>,
}

/// How an activation is quantized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoundedActivation {
    /// Scale.
    pub scale: f32,
    /// Zero point.
    pub zero_point: i32,
    /// Lowest integer.
    pub low: i32,
    /// Highest integer.
    pub high: i32,
    /// Mean squared error of an element.
    pub noise: f64,
}

/// A way to quantize.
pub trait Rounding: Sync {
    /// The weights of a node in `bits` bits.
    fn weights(&self, node: &Node, weights: &Tensor, bits: u32) -> RoundedWeights;

    /// An activation in `bits` bits; `None` if nothing is known of it.
    fn activation(&self, value: &str, bits: u32) -> Option<RoundedActivation>;
}

/// The nearest level: weights symmetric with a scale for each output channel that covers its largest magnitude (narrow
/// range), activations unsigned over the range an observer gives.
#[derive(Debug, Clone, Copy)]
pub struct Nearest<'s> {
    /// What was seen of each activation.
    pub statistics: &'s BTreeMap<String, Statistics>,
    /// How ranges are chosen.
    pub observer: Observer,
}

impl Rounding for Nearest<'_> {
    fn weights(&self, node: &Node, weights: &Tensor, bits: u32) -> RoundedWeights {
        let axis = channel_axis(node, weights.shape.len());
        let channels = weights.shape.get(axis).copied().unwrap_or(1).max(1);
        let inner = weights.shape.iter().skip(axis + 1).product::<usize>().max(1);
        let mut values = weights.to_f32();
        let mut largest = vec![0f32; channels];
        for (i, value) in values.iter().enumerate() {
            let largest = &mut largest[i / inner % channels];
            *largest = largest.max(value.abs());
        }
        let limit = (1i32 << (bits.clamp(2, 16) - 1)) - 1;
        let scales: Vec<f32> = largest.iter().map(|largest| largest / limit as f32).collect();
        for (i, value) in values.iter_mut().enumerate() {
            let scale = scales[i / inner % channels];
            if scale > 0.0 {
                let steps = (f64::from(*value) / f64::from(scale)).round_ties_even();
                *value = steps.clamp(-f64::from(limit), f64::from(limit)) as f32 * scale;
            }
        }
        RoundedWeights { values, steps: scales.into_iter().map(f64::from).collect() }
    }

    fn activation(&self, value: &str, bits: u32) -> Option<RoundedActivation> {
        let statistics = self.statistics.get(value).filter(|statistics| statistics.count() > 0)?;
        let levels = Levels { low: 0, high: (1 << bits.clamp(1, 16)) - 1, symmetric: false };
        let range = self.observer.range(statistics, levels);
        let (scale, zero_point) = levels.affine(range);
        let noise = Distortion::new(statistics).of(range, levels);
        Some(RoundedActivation { scale, zero_point, low: levels.low, high: levels.high, noise })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_go_to_the_nearest_of_their_channels_levels() {
        let statistics = BTreeMap::new();
        let nearest = Nearest { statistics: &statistics, observer: Observer::MinMax };
        let node = Node::new("MatMul", "m", ["x", "w"], ["y"]);
        // Output channels are the last axis: (7, 1), (−3.4, 0.4), (0, 0).
        let weights = Tensor::from_f32(&[2, 3], &[7.0, -3.4, 0.0, 1.4, 0.4, 0.0]);
        let rounded = nearest.weights(&node, &weights, 4);
        assert_eq!(rounded.values[0], 7.0);
        assert_eq!(rounded.values[3], 1.0);
        assert!((rounded.values[4] - 3.4 / 7.0).abs() < 1e-6, "{rounded:?}");
        assert_eq!((rounded.steps[0], rounded.steps[2]), (1.0, 0.0));
        assert_eq!((rounded.values[2], rounded.values[5]), (0.0, 0.0));
        let ternary = nearest.weights(&node, &weights, 2);
        assert_eq!((ternary.values[0], ternary.values[3]), (7.0, 0.0));
    }

    #[test]
    fn activations_need_statistics() {
        let mut seen = Statistics::default();
        seen.observe(&(0..1000).map(|i| i as f32 / 999.0).collect::<Vec<_>>());
        let statistics = BTreeMap::from([("x".to_owned(), seen)]);
        let nearest = Nearest { statistics: &statistics, observer: Observer::MinMax };
        let rounded = nearest.activation("x", 4).expect("seen");
        assert_eq!((rounded.low, rounded.high, rounded.zero_point), (0, 15, 0));
        assert!((f64::from(rounded.scale) - 1.0 / 15.0).abs() < 1e-6);
        assert!((rounded.noise - 1.0 / (15.0 * 15.0 * 12.0)).abs() < 1e-5, "{rounded:?}");
        assert_eq!(nearest.activation("y", 8), None);
    }
}
