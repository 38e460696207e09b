//! One analysis of a model from which any format is exported without calibrating again.
//!
//! After EQ-Net (Xu et al., "EQ-Net: Elastic Quantization Neural Networks", ICCV 2023), the calibration part: its elastic
//! space is bits × granularity × symmetry, and every point of it has scales of its own. Here the weights are frozen, so
//! that an [`Analysis`] keeps, for each layer, rounded weights for each width and granularity, and for each activation
//! what was seen and the range for each width. An export puts these together ([`Analysis::outcome`]). Weights are fitted
//! to the float model's values, since the layers before may have any width.
//!
//! What each layer's options do to the outputs was measured once ([`Analysis::damage`]), so that mixed precision is a
//! search in a table ([`crate::allocate::genetic`]).

mod file;

use std::collections::BTreeMap;

pub use file::{Error, from_bytes, to_bytes};

use crate::allocate::Table;
use crate::graph::{Graph, Tensor};
use crate::observe::{Range, Statistics};
use crate::quantize::{self, ActivationType, Bias, Bits, Config, Layer, Outcome, Width};

/// Everything that calibration found out.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// The prepared float graph.
    pub graph: Graph,
    /// Calibration samples.
    pub samples: usize,
    /// What was seen of each value.
    pub statistics: BTreeMap<String, Statistics>,
    /// Ranges chosen for the layers' outputs, by width and group ([`quantize::range_groups`]).
    pub ranges: BTreeMap<Width, BTreeMap<String, Range>>,
    /// The rounded weights of each layer.
    pub layers: BTreeMap<String, Vec<Variant>>,
    /// What each layer's options add to the noise of the outputs, as a share of the signal; the cost is bytes of
    /// weights. Options in the order W8A8, W8A4, W4A8, W4A4.
    pub damage: Table,
    /// The SQNR of the outputs with 8 bits everywhere, in dB, on calibration samples.
    pub base_db: f64,
}

/// A layer's weights in one format.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Width of the weights.
    pub width: Width,
    /// Whether each output channel has a scale.
    pub per_channel: bool,
    /// The integers, in the order of the model's weights.
    pub integers: Vec<i32>,
    /// One scale, or one for each output channel.
    pub scales: Vec<f32>,
    /// The bias with the shift of the mean taken up, in real values: the layer's own.
    pub bias: Option<Vec<f64>>,
    /// The same for a bias in the constant of an Add that follows: the Add's name, and the values.
    pub constant: Option<(String, Vec<f32>)>,
}

/// A format to export.
#[derive(Debug, Clone, PartialEq)]
pub struct Format {
    /// Bits where nothing else is said.
    pub bits: Bits,
    /// Bits of single layers.
    pub layers: BTreeMap<String, Bits>,
    /// Weight scales per output channel.
    pub per_channel: bool,
    /// Signedness and symmetry of activations.
    pub activations: ActivationType,
}

impl Analysis {
    /// The decisions for a format.
    ///
    /// # Errors
    ///
    /// A value was not observed: the analysis is of another graph.
    pub fn outcome(&self, format: &Format) -> Result<Outcome, quantize::Error> {
        let config = Config {
            bits: format.bits,
            layers: format.layers.clone(),
            per_channel: format.per_channel,
            activations: format.activations,
            ..Config::default()
        };
        let mut outcome = quantize::quantize_with(&self.graph, &self.statistics, &config, &self.ranges_of(&config)?)?;
        for (name, variants) in &self.layers {
            let width = config.bits_of(name).weights;
            let wanted = variants.iter().find(|v| v.width == width && v.per_channel == format.per_channel);
            let (Some(variant), Some(layer)) = (wanted, outcome.layers.get_mut(name)) else { continue };
            let node = self.graph.nodes.iter().find(|node| node.name == *name);
            let input = node.and_then(|node| outcome.activations.get(node.input(0)?));
            let Some(&input) = input else { continue };
            let (dtype, _) = quantize::levels(&config, name);
            let bias = match (&layer.bias, &variant.bias) {
                (Some(_), Some(bias)) => Some(Bias::new(bias.iter().copied(), input.scale, &variant.scales)),
                (bias, _) => bias.clone(),
            };
            *layer = Layer {
                weights: Tensor::from_ints(dtype, &layer.weights.shape, &variant.integers),
                scales: variant.scales.clone(),
                axis: layer.axis,
                block: None,
                bias,
            };
            if let Some((add, values)) = &variant.constant {
                let values = values.iter().map(|&b| f64::from(b));
                let values = quantize::on_sum_grid(values, input.scale, &variant.scales);
                outcome.constants.insert(add.clone(), Tensor::from_f32(&[values.len()], &values));
            }
        }
        outcome.metadata.insert("equant.calibration_samples".into(), self.samples.to_string());
        Ok(outcome)
    }

    /// The range of each group at the width that the format gives it.
    fn ranges_of(&self, config: &Config) -> Result<BTreeMap<String, Range>, quantize::Error> {
        let groups = quantize::range_groups(&self.graph, &self.statistics, config)?;
        let range = |group: quantize::RangeGroup| {
            let width = if group.levels.high - group.levels.low < 16 { Width::Four } else { Width::Eight };
            Some((group.value.clone(), *self.ranges.get(&width)?.get(&group.value)?))
        };
        Ok(groups.into_iter().filter_map(range).collect())
    }
}
