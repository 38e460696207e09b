//! Decides scales and zero points: where quantization goes, activation ranges, weights, biases.

mod activations;
mod chains;
mod constants;
mod floats;
mod placement;
mod ranges;
mod weights;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::graph::{DataType, Graph, Tensor};
use crate::observe::{Levels, Observer, Range, Statistics};
use crate::qdq::{Container, FloatRanges};
use crate::round::{Method, Terms};

pub(crate) use constants::rounded;
pub use ranges::{Reader, choose as choose_range, cost as range_cost};
pub use weights::{Bias, Layer, channel_axis};
pub(crate) use weights::{all_finite, least_scale, levels, on_sum_grid};

/// What the user chose.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Config {
    /// How activation ranges are chosen; `None`: by what they do to the outputs of the layers that read the value, where
    /// the caller gives such ranges ([`quantize_with`]), else by the least mean squared error.
    pub observer: Option<Observer>,
    /// Weight scales per output channel (or per tensor).
    pub per_channel: bool,
    /// Weights in [−64, 64], for x86 CPUs without VNNI, whose 16-bit sums would saturate.
    pub reduce_range: bool,
    /// Integer type of activations. Weights are signed in either case.
    pub activations: ActivationType,
    /// Bits of weights and activations where nothing else is said.
    pub bits: Bits,
    /// Bits of single layers, by the name of the node.
    pub layers: BTreeMap<String, Bits>,
    /// Whether channels may be scaled before quantization, where the caller does that ([`crate::equalize`]).
    pub equalize: bool,
    /// What 4-bit weights are stored in.
    pub container: Container,
    /// How weights are rounded, where the caller does that after [`quantize`], which rounds to nearest.
    pub rounding: Rounding,
}

/// Bits of a layer's weights and of the activation it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Bits {
    /// Bits of the weights.
    pub weights: Width,
    /// Bits of the activations.
    pub activations: Width,
}

impl Default for Bits {
    fn default() -> Self {
        Self { weights: Width::Eight, activations: Width::Eight }
    }
}

impl std::fmt::Display for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "W{}A{}", self.weights.bits(), self.activations.bits())
    }
}

impl std::str::FromStr for Bits {
    type Err = String;

    /// `W4A8`, in either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let width = |c: char| match c {
            '4' => Some(Width::Four),
            '8' => Some(Width::Eight),
            _ => None,
        };
        let found = match text.to_ascii_uppercase().chars().collect::<Vec<_>>()[..] {
            ['W', w, 'A', a] => width(w).zip(width(a)),
            _ => None,
        };
        match found {
            Some((weights, activations)) => Ok(Self { weights, activations }),
            None => Err("use W8A8, W4A8, W8A4 or W4A4".to_owned()),
        }
    }
}

/// How weights are rounded layer after layer.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Rounding {
    /// How integers are found.
    pub method: Method,
    /// Whether each layer is fitted to what the quantized layers before it give, or to what the float model gives.
    pub sequential: bool,
    /// Whether biases take up the shift of the mean (analytic bias correction, Nagel et al. 2019, section 4.2).
    pub bias_correction: bool,
    /// Samples that layers are fitted to, at most: the first ones. More would take more memory and change little.
    pub samples: usize,
    /// Price of a bit per weight ([`Terms::rate`]); 0 for none.
    pub rate: f64,
    /// Price of the kurtosis of the integers ([`Terms::kurtosis`]); 0 for none.
    pub kurtosis: f64,
}

impl Rounding {
    /// What integers are chosen by, besides the error.
    pub const fn terms(&self) -> Terms {
        Terms { rate: self.rate, kurtosis: self.kurtosis }
    }
}

impl Default for Rounding {
    fn default() -> Self {
        Self { method: Method::Search, sequential: true, bias_correction: true, samples: 512, rate: 0.0, kurtosis: 0.0 }
    }
}

/// Width of an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Width {
    /// 4 bits.
    Four,
    /// 8 bits.
    Eight,
}

impl Width {
    /// The number of bits.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

impl Config {
    /// The bits of the layer of node `name`.
    pub fn bits_of(&self, name: &str) -> Bits {
        self.layers.get(name).copied().unwrap_or(self.bits)
    }

    /// Whether any layer has fewer than 8 bits.
    pub fn has_narrow(&self) -> bool {
        std::iter::once(&self.bits).chain(self.layers.values()).any(|&bits| bits != Bits::default())
    }

    /// The observer in force.
    pub fn observer(&self) -> Observer {
        self.observer.unwrap_or(Observer::Mse)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            observer: None,
            per_channel: true,
            reduce_range: false,
            activations: ActivationType::Unsigned,
            bits: Bits::default(),
            layers: BTreeMap::new(),
            equalize: true,
            container: Container::default(),
            rounding: Rounding::default(),
        }
    }
}

/// Integer type of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum ActivationType {
    /// uint8 or uint4: uint8 is what ONNX Runtime's CPU kernels are fastest with.
    Unsigned,
    /// int8 or int4. ONNX Runtime on x86 fuses less of it: around values with several readers operators stay float.
    Signed,
    /// int8 or int4 with zero point 0: what TensorRT takes. Values of one sign use half of the levels.
    Symmetric,
}

impl ActivationType {
    /// As element type.
    pub const fn dtype(self, width: Width) -> DataType {
        match (self, width) {
            (Self::Unsigned, Width::Eight) => DataType::U8,
            (Self::Signed | Self::Symmetric, Width::Eight) => DataType::I8,
            (Self::Unsigned, Width::Four) => DataType::U4,
            (Self::Signed | Self::Symmetric, Width::Four) => DataType::I4,
        }
    }

    const fn levels(self, width: Width) -> Levels {
        match (self, width) {
            (Self::Unsigned, Width::Eight) => Levels::U8,
            (Self::Signed, Width::Eight) => Levels::I8,
            (Self::Unsigned, Width::Four) => Levels::U4,
            (Self::Signed, Width::Four) => Levels::I4,
            (Self::Symmetric, Width::Eight) => Levels { low: -127, high: 127, symmetric: true },
            (Self::Symmetric, Width::Four) => Levels { low: -7, high: 7, symmetric: true },
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
    /// Float constants that take other values, such as a bias that takes up a shift: by the name of the node that reads
    /// it as its only constant.
    pub constants: BTreeMap<String, Tensor>,
    /// How weights of 4 bits are stored in the file.
    pub container: Container,
    /// What calibration saw of the values that stay in float.
    pub float_ranges: FloatRanges,
    /// How this was made: goes into the file's metadata. Callers add what they know (such as the number of samples).
    pub metadata: BTreeMap<String, String>,
    /// What a person should know: channels widened, layers left in float, and why.
    pub notes: Vec<String>,
}

/// Activations that share scale and zero point, and whose range is to be chosen.
#[derive(Debug, Clone)]
pub struct RangeGroup {
    /// The first of its values, by which the group is known.
    pub value: String,
    /// What was seen of them.
    pub seen: Statistics,
    /// What they are quantized to.
    pub levels: Levels,
}

/// The values of each of the groups that [`range_groups`] gives, in its order.
pub fn range_values(graph: &Graph) -> Vec<Vec<String>> {
    placement::place(graph).into_iter().filter(|group| !group.is_fixed()).map(|group| group.values).collect()
}

/// The groups of activations whose range is not fixed.
///
/// # Errors
///
/// A value was not observed, or not finite.
pub fn range_groups(
    graph: &Graph,
    statistics: &BTreeMap<String, Statistics>,
    config: &Config,
) -> Result<Vec<RangeGroup>, Error> {
    let groups = placement::place(graph).into_iter().filter(|group| !group.is_fixed());
    groups.map(|group| activations::range_group(graph, group, statistics, config)).collect()
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

/// The values that are quantized with a step chosen from what was seen of them: one list for each set that shares it.
pub(crate) fn sources(graph: &Graph) -> Vec<Vec<String>> {
    placement::place(graph).into_iter().filter(|group| !group.is_softmax).map(|group| group.sources).collect()
}

/// The levels of activations where no layer asks for others.
pub(crate) fn activation_levels(config: &Config) -> Levels {
    config.activations.levels(config.bits.activations)
}

/// Quantizes a prepared float graph ([`crate::passes::prepare`]).
///
/// # Errors
///
/// See [`Error`].
pub fn quantize(graph: &Graph, statistics: &BTreeMap<String, Statistics>, config: &Config) -> Result<Outcome, Error> {
    quantize_with(graph, statistics, config, &BTreeMap::new())
}

/// As [`quantize`], with ranges that were chosen for some groups of activations (by the name that [`range_groups`]
/// gives them).
///
/// # Errors
///
/// See [`Error`].
pub fn quantize_with(
    graph: &Graph,
    statistics: &BTreeMap<String, Statistics>,
    config: &Config,
    ranges: &BTreeMap<String, Range>,
) -> Result<Outcome, Error> {
    let mut outcome = Outcome { metadata: metadata(config), container: config.container, ..Outcome::default() };
    let groups = placement::place(graph);
    outcome.float_ranges = floats::ranges(graph, &groups, statistics);
    for group in groups {
        let params = activations::params(graph, &group, statistics, config, ranges)?;
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
    let symmetry = if config.activations == ActivationType::Symmetric { "symmetric" } else { "asymmetric" };
    let bits = if config.reduce_range { 7 } else { config.bits.weights.bits() };
    let Rounding { rate, kurtosis, .. } = config.rounding;
    let terms = [("equant.rate", rate), ("equant.weight_kurtosis", kurtosis)];
    let terms = terms.into_iter().filter(|&(_, price)| price > 0.0).map(|(key, price)| (key, price.to_string()));
    let always = [
        ("equant.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("equant.observer", config.observer.map_or("layer outputs".to_owned(), |observer| observer.to_string())),
        ("equant.weights", format!("{bits}-bit symmetric {granularity}")),
        (
            "equant.activations",
            format!("{:?} {symmetry} per tensor", config.activations.dtype(config.bits.activations)).to_lowercase(),
        ),
    ];
    always.into_iter().chain(terms).map(|(key, value)| (key.to_owned(), value)).collect()
}
