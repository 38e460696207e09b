//! Decides scales and zero points: where quantization goes, activation ranges, weights, biases.

mod activations;
mod chains;
mod floats;
mod placement;
mod weights;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::graph::{DataType, Graph};
use crate::observe::{Levels, Observer, Statistics};
use crate::qdq::FloatRanges;

pub use weights::{Bias, Layer, channel_axis};

/// What the user chose.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Config {
    /// How activation ranges are chosen; `None`: by cross-validation on calibration samples where the
    /// caller does that, else by the least mean squared error.
    pub observer: Option<Observer>,
    /// Weight scales per output channel (or per tensor).
    pub per_channel: bool,
    /// Weights in [−64, 64], for x86 CPUs without VNNI, whose 16-bit sums would saturate.
    pub reduce_range: bool,
    /// Integer type of activations. Weights are int8 in either case.
    pub activations: ActivationType,
}

impl Config {
    /// The observer in force.
    pub fn observer(&self) -> Observer {
        self.observer.unwrap_or(Observer::Mse)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { observer: None, per_channel: true, reduce_range: false, activations: ActivationType::Unsigned }
    }
}

/// Integer type of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum ActivationType {
    /// uint8: what ONNX Runtime's CPU kernels are fastest with.
    Unsigned,
    /// int8. ONNX Runtime on x86 fuses less of it: around values with several readers operators stay float.
    Signed,
}

impl ActivationType {
    /// As element type.
    pub const fn dtype(self) -> DataType {
        match self {
            Self::Unsigned => DataType::U8,
            Self::Signed => DataType::I8,
        }
    }

    const fn levels(self) -> Levels {
        match self {
            Self::Unsigned => Levels::U8,
            Self::Signed => Levels::I8,
        }
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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value was not observed.
    #[error("value `{0}` was not observed; calibrate the prepared graph")]
    NotObserved(String),
    /// A value was infinite or not a number.
    #[error("value `{value}` was infinite or not a number {count} times; the float model overflows on these samples")]
    NotFinite {
        /// The value.
        value: String,
        /// How often.
        count: u64,
    },
    /// A constant of the model is infinite or not a number.
    #[error("node `{node}`: constant `{constant}` holds values that are not finite")]
    ConstantNotFinite {
        /// The node that reads it.
        node: String,
        /// The constant.
        constant: String,
    },
}

/// Everything decided.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// The quantized activations, by the name of the float value.
    pub activations: BTreeMap<String, QParams>,
    /// The quantized weights and biases, by the name of the node that uses them.
    pub layers: BTreeMap<String, Layer>,
    /// What calibration saw of the values that stay in float.
    pub float_ranges: FloatRanges,
    /// How this was made: goes into the file's metadata. Callers add what they know (such as the number of samples).
    pub metadata: BTreeMap<String, String>,
    /// What a person should know: channels widened, layers left in float, and why.
    pub notes: Vec<String>,
}

/// The values of a prepared graph whose statistics [`quantize`] needs.
pub fn values_to_observe(graph: &Graph) -> Vec<String> {
    let groups = placement::place(graph);
    let mut values = floats::values(graph, &groups);
    values.extend(groups.into_iter().filter(|group| !group.is_softmax).flat_map(|group| group.sources));
    values.sort_unstable();
    values.dedup();
    values
}

/// Quantizes a prepared float graph ([`crate::passes::prepare`]).
///
/// # Errors
///
/// See [`Error`].
pub fn quantize(graph: &Graph, statistics: &BTreeMap<String, Statistics>, config: &Config) -> Result<Outcome, Error> {
    let mut outcome = Outcome { metadata: metadata(config), ..Outcome::default() };
    let groups = placement::place(graph);
    outcome.float_ranges = floats::ranges(graph, &groups, statistics);
    for group in groups {
        let params = activations::params(graph, &group, statistics, config)?;
        if let (Some(note), Some(value)) = (params.note, group.values.first()) {
            outcome.notes.push(format!("`{value}` {note}"));
        }
        outcome.activations.extend(group.values.into_iter().map(|value| (value, params.params)));
    }
    for node in &graph.nodes {
        if let Some(layer) = weights::quantize(graph, node, &outcome.activations, config, &mut outcome.notes)? {
            outcome.layers.insert(node.name.clone(), layer);
        }
    }
    Ok(outcome)
}

fn metadata(config: &Config) -> BTreeMap<String, String> {
    let granularity = if config.per_channel { "per channel" } else { "per tensor" };
    let bits = if config.reduce_range { "7-bit" } else { "8-bit" };
    [
        ("equant.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("equant.observer", config.observer().to_string()),
        ("equant.weights", format!("int8 symmetric {granularity}, {bits}")),
        ("equant.activations", format!("{:?} asymmetric per tensor", config.activations.dtype()).to_lowercase()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}
