//! Which float values are kept in 32 bits.
//!
//! A value that a QDQ file leaves in float and that only sums and normalizations read, such as the residual stream of a
//! transformer, is rounded to 8 bits later and elsewhere. What little 16 bits lose moves some elements across
//! a rounding boundary there, and from then on whole steps are carried along: every layer adds to that. 32 bits keep
//! such values as exactly as f32 does.

use equant_runtime::plan::DType;

use super::{Lowering, QParams};
use crate::graph::Node;

/// Steps on either side of zero that a proved bound is divided into: sums of two such values stay within 32 bits.
const LEVELS: f64 = (1u32 << 29) as f64;

/// Steps of a normalization's output, whose shifts have fraction bits too.
const NORM_LEVELS: f64 = (1u32 << 25) as f64;

/// The finest step of what a Softmax reads: times `log2(e)` a multiplier of the runtime still holds it.
const EXPONENT_STEP: f64 = 1.0 / (1u64 << 32) as f64;

impl QParams {
    /// Symmetric 32-bit parameters that hold `low..=high`, in steps of at least `floor`.
    pub(super) fn thirty_two(low: f64, high: f64, floor: f64) -> Self {
        let scale = (low.abs().max(high.abs()) / LEVELS).max(floor) as f32;
        let scale = if scale.is_normal() { scale } else { 1.0 };
        Self::full(DType::I32, scale, 0)
    }
}

impl<'g> Lowering<'g> {
    /// The least step worth keeping of a value, if its readers need and take 32 bits.
    pub(super) fn fine_step(&mut self, name: &str) -> Option<f64> {
        let mut floor = None;
        self.fine_readers(name, &mut floor).then_some(floor).flatten()
    }

    /// Whether every reader of a value takes 32 bits; the largest step that serves those that need them goes to
    /// `floor`.
    fn fine_readers(&mut self, name: &str, floor: &mut Option<f64>) -> bool {
        if self.outputs.contains(name) {
            return false;
        }
        let graph = self.graph;
        let Some(readers) = self.consumers.get(name).cloned() else { return false };
        readers.into_iter().all(|index| {
            let node = &graph.nodes[index];
            let step = match node.op_type.as_str() {
                // An integer of 8 bits is what comes of it: this reader takes what it gets.
                "QuantizeLinear" => return true,
                // A sum that is quantized at once: 16 bits within its window are enough.
                "Add" if self.window(node).is_some() => return false,
                "Add" => 0.0,
                "Softmax" => EXPONENT_STEP,
                // Its differences count as much as its powers.
                "LogSoftmax" => 0.0,
                "LayerNormalization" | "RMSNormalization" => self.least_step(node),
                "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Identity" | "Dropout" => {
                    return self.fine_readers(node.output(), floor);
                }
                _ => return false,
            };
            *floor = Some(floor.map_or(step, |known: f64| known.max(step)));
            true
        })
    }

    /// The step in which `epsilon · C²`, in the squared steps of the input, just fits 63 bits.
    fn least_step(&self, node: &Node) -> f64 {
        let depth = node.input(1).and_then(|name| self.graph.initializers.get(name)).map_or(1, |gamma| gamma.len());
        let epsilon = f64::from(node.float("epsilon", 1e-5)).max(0.0);
        epsilon.sqrt() * depth as f64 * 2f64.powf(-31.5)
    }

    /// 32-bit parameters of a pending operator's output, if its readers need them.
    pub(super) fn fine_params(&mut self, name: &str, (low, high): (f64, f64), normalizes: bool) -> Option<QParams> {
        let floor = self.fine_step(name)?;
        let coarsest = if normalizes { low.abs().max(high.abs()) / NORM_LEVELS } else { 0.0 };
        Some(QParams::thirty_two(low, high, floor.max(coarsest)))
    }
}
