//! Decides scales and zero points: where quantization goes, activation ranges, weights, biases.

use std::collections::BTreeMap;

use crate::graph::{DataType, Graph};
use crate::observe::{Observer, Statistics};

/// What the user chose.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Config {
    /// How activation ranges are chosen.
    pub observer: Observer,
    /// Weight scales per output channel (or per tensor).
    pub per_channel: bool,
    /// Weights in [−64, 64], for x86 CPUs without VNNI, whose 16-bit sums would saturate.
    pub reduce_range: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { observer: Observer::Mse, per_channel: true, reduce_range: false }
    }
}

/// Quantization of one activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QParams {
    /// Integer type.
    pub dtype: DataType,
    /// Scale, positive.
    pub scale: f32,
    /// Zero point, within the type's range.
    pub zero_point: i32,
}

/// Why a model was not quantized.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value was not observed.
    #[error("value `{0}` was not observed; calibrate the prepared graph")]
    NotObserved(String),
}

/// Everything decided.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The quantized activations, by the name of the float value.
    pub activations: BTreeMap<String, QParams>,
    /// What a person should know: channels widened, layers left in float, and why.
    pub notes: Vec<String>,
}

/// The values of a prepared graph whose statistics [`quantize`] needs.
pub fn values_to_observe(graph: &Graph) -> Vec<String> {
    let _ = graph;
    Vec::new()
}

/// Quantizes a prepared float graph ([`crate::passes::prepare`]).
///
/// # Errors
///
/// See [`Error`].
pub fn quantize(graph: &Graph, statistics: &BTreeMap<String, Statistics>, config: &Config) -> Result<Outcome, Error> {
    let _ = (graph, statistics, config);
    unimplemented!()
}
