//! Weights and biases: symmetric int8 or int4 weights, int32 biases.

use std::collections::BTreeMap;

use super::{Config, Error, QParams, Width};
use crate::graph::{DataType, Graph, Node, Tensor};
use crate::observe::{Levels, Range};

/// Largest magnitude of a quantized bias. Half of what 32 bits hold: the sum of products needs room too.
const BIAS_LIMIT: f64 = (1u32 << 30) as f64;

/// Quantized weights and bias of one Conv, ConvTranspose, Gemm or MatMul.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Weights in the model's shape: int8 or int4, or uint4 whose zero point is 8.
    pub weights: Tensor,
    /// One scale, or one for each output channel, or with `block` a tensor of the weights' shape in which the blocked
    /// axis counts blocks.
    pub scales: Vec<f32>,
    /// The axis of the output channels.
    pub axis: usize,
    /// The bias, if the node has one.
    pub bias: Option<Bias>,
    /// Elements along [`Layer::input_axis`] that share a scale; the last block may be shorter.
    pub block: Option<usize>,
}

impl Layer {
    /// The zero point of the weights' type: its middle.
    pub fn zero_point(&self) -> i32 {
        if self.weights.dtype == DataType::U4 { 8 } else { 0 }
    }

    /// The axis of the weights that is summed over, along which blocks run: the other one of a matrix, the input channels
    /// of a convolution.
    pub fn input_axis(&self) -> usize {
        match self.axis {
            0 => 1,
            axis => axis - 1,
        }
    }

    /// The shape of the scales.
    pub fn scale_shape(&self) -> Vec<usize> {
        match self.block {
            Some(block) => {
                let mut shape = self.weights.shape.clone();
                if let Some(size) = shape.get_mut(self.input_axis()) {
                    *size = size.div_ceil(block.max(1));
                }
                shape
            }
            None if self.scales.len() == 1 => Vec::new(),
            None => vec![self.scales.len()],
        }
    }
}

/// A quantized bias; zero point 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Bias {
    /// int32 values, one for each output channel.
    pub values: Tensor,
    /// The input's scale times each weight scale, in f32.
    pub scales: Vec<f32>,
}

impl Bias {
    /// Quantizes a bias for the scale of the input and the weight scales.
    pub fn new(bias: impl Iterator<Item = f64>, input_scale: f32, weight_scales: &[f32]) -> Self {
        let mut scales: Vec<f32> = weight_scales.iter().map(|scale| input_scale * scale).collect();
        let values: Vec<i32> =
            bias.enumerate().map(|(i, b)| round(b, scales[i % scales.len()].into(), -i32::MAX, i32::MAX)).collect();
        // Where groups share the scales of their outputs, each bias still needs its own.
        if scales.len() > 1 && scales.len() < values.len() {
            scales = scales.iter().copied().cycle().take(values.len()).collect();
        }
        Self { values: Tensor::from_ints(DataType::I32, &[values.len()], &values), scales }
    }

    /// The real values.
    pub fn real(&self) -> Vec<f64> {
        let scale = |i: usize| f64::from(self.scales[i % self.scales.len()]);
        self.values.to_i64().iter().enumerate().map(|(i, &q)| q as f64 * scale(i)).collect()
    }

    /// Adds `shift` (real values, one for each output channel) to the bias.
    pub fn add(&mut self, shift: &[f64]) {
        let count = self.scales.len().max(1);
        let shifted: Vec<i32> = self
            .values
            .to_i64()
            .iter()
            .zip(shift)
            .enumerate()
            .map(|(i, (&q, &shift))| {
                let steps = shift / f64::from(self.scales[i % count]);
                (q as f64 + steps.round_ties_even()).clamp(-f64::from(i32::MAX), f64::from(i32::MAX)) as i32
            })
            .collect();
        self.values = Tensor::from_ints(DataType::I32, &self.values.shape.clone(), &shifted);
    }
}

/// The axis of the output channels of the weights of a Conv, ConvTranspose, Gemm or MatMul with weights of rank `rank`.
///
/// A ConvTranspose with groups has those of one group there: QDQ files can only give the same scale to the first output of
/// every group, to the second, and so on.
pub fn channel_axis(node: &Node, rank: usize) -> usize {
    match node.op_type.as_str() {
        "Conv" => 0,
        "ConvTranspose" => 1,
        "Gemm" => usize::from(node.int("transB", 0) == 0),
        _ => rank.saturating_sub(1),
    }
}

/// The weights of a node that has some and whose input is quantized.
pub(super) fn quantize(
    graph: &Graph,
    node: &Node,
    activations: &BTreeMap<String, QParams>,
    config: &Config,
    notes: &mut Vec<String>,
) -> Result<Option<Layer>, Error> {
    if !node.is_linear() {
        return Ok(None);
    }
    let constant = |i: usize| node.input(i).and_then(|name| graph.initializers.get(name));
    let input = node.input(0).and_then(|name| activations.get(name));
    let (Some(weights), Some(input)) = (constant(1), input) else { return Ok(None) };
    let values = finite(node, 1, weights)?;
    let bias = match (node.op_type.as_str(), constant(2)) {
        ("MatMul", _) | (_, None) => None,
        (_, Some(bias)) => Some(finite(node, 2, bias)?),
    };

    let axis = channel_axis(node, weights.shape.len());
    let channels = weights.shape.get(axis).copied().unwrap_or(1);
    let stride: usize = weights.shape.get(axis + 1..).unwrap_or_default().iter().product();
    let channel_of = |i: usize| if config.per_channel { i / stride.max(1) % channels.max(1) } else { 0 };
    let (dtype, levels) = levels(config, &node.name);
    let groups = node.int("group", 1);
    if node.op_type == "ConvTranspose" && groups > 1 && config.per_channel {
        notes.push(format!(
            "node `{}`: each of its {channels} weight scale(s) serves an output of all {groups} groups; QDQ files have no \
             scale for each output of a transposed convolution with groups",
            node.name
        ));
    }

    let mut largest = vec![0f32; if config.per_channel { channels } else { 1 }];
    for (i, value) in values.iter().enumerate() {
        let largest = &mut largest[channel_of(i)];
        *largest = largest.max(value.abs());
    }
    let mut scales: Vec<f32> = largest
        .iter()
        .map(|&largest| levels.affine(Range { low: -f64::from(largest), high: largest.into() }).0)
        .collect();
    if let Some(bias) = &bias {
        let widened = make_room(&mut scales, bias, input.scale);
        if widened > 0 {
            notes.push(format!(
                "node `{}`: {widened} of {} weight scales were enlarged so that the bias fits 32 bits",
                node.name,
                scales.len()
            ));
        }
    }
    let quantized: Vec<i32> = values
        .iter()
        .enumerate()
        .map(|(i, &value)| round(value.into(), scales[channel_of(i)].into(), levels.low, levels.high))
        .collect();
    let bias = bias.map(|bias| Bias::new(bias.iter().map(|&b| b.into()), input.scale, &scales));
    let weights = Tensor::from_ints(dtype, &weights.shape, &quantized);
    Ok(Some(Layer { weights, scales, axis, bias, block: None }))
}

/// Refuses weights and biases that are not finite, before any work.
pub(crate) fn all_finite(graph: &Graph) -> Result<(), Error> {
    for node in graph.nodes.iter().filter(|node| node.is_linear()) {
        for i in [1, 2] {
            if let Some(tensor) = node.input(i).and_then(|name| graph.initializers.get(name)) {
                finite(node, i, tensor)?;
            }
        }
    }
    Ok(())
}

/// Element type and levels of the weights of node `name`.
pub(crate) fn levels(config: &Config, name: &str) -> (DataType, Levels) {
    match config.bits_of(name).weights {
        Width::Four => (DataType::I4, Levels { low: -8, high: 7, symmetric: true }),
        Width::Eight => {
            let limit = if config.reduce_range { 64 } else { 127 };
            (DataType::I8, Levels { low: -limit, high: limit, symmetric: true })
        }
    }
}

/// The least weight scale with which a bias fits, for the scale of the input.
pub(crate) fn least_scale(bias: f64, input_scale: f32) -> f32 {
    (bias.abs() / (f64::from(input_scale) * BIAS_LIMIT)) as f32
}

/// A bias that stays float, one value for each output, rounded to whole steps of the sums it is added to.
pub(crate) fn on_sum_grid(bias: impl Iterator<Item = f64>, input_scale: f32, weight_scales: &[f32]) -> Vec<f32> {
    bias.enumerate()
        .map(|(i, b)| {
            let step = f64::from(input_scale) * f64::from(weight_scales[i % weight_scales.len()]);
            ((b / step).round_ties_even() * step) as f32
        })
        .collect()
}

/// Enlarges weight scales so that every bias is at most [`BIAS_LIMIT`] steps. Returns how many.
fn make_room(scales: &mut [f32], bias: &[f32], input_scale: f32) -> usize {
    let before = scales.to_vec();
    let count = scales.len();
    for (i, &b) in bias.iter().enumerate() {
        let least = least_scale(b.into(), input_scale);
        let scale = &mut scales[i % count];
        *scale = scale.max(least);
    }
    scales.iter().zip(&before).filter(|(a, b)| a != b).count()
}

/// Half to even, within the levels.
fn round(value: f64, scale: f64, low: i32, high: i32) -> i32 {
    (value / scale).round_ties_even().clamp(low.into(), high.into()) as i32
}

fn finite(node: &Node, i: usize, tensor: &Tensor) -> Result<Vec<f32>, Error> {
    let values = tensor.to_f32();
    match values.iter().all(|v| v.is_finite()) {
        true => Ok(values),
        false => Err(Error::ConstantNotFinite {
            node: node.name.clone(),
            constant: node.input(i).unwrap_or_default().to_owned(),
        }),
    }
}
