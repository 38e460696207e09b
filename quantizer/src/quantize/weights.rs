//! Weights and biases: symmetric int8 weights, int32 biases.

use std::collections::BTreeMap;

use super::{Config, Error, QParams};
use crate::graph::{DataType, Graph, Node, Tensor};
use crate::observe::{Levels, Range};

/// Largest magnitude of a quantized bias. Half of what 32 bits hold: the sum of products needs room too.
const BIAS_LIMIT: f64 = (1u32 << 30) as f64;

/// Quantized weights and bias of one Conv, Gemm or MatMul.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// int8 weights in the model's shape; zero point 0.
    pub weights: Tensor,
    /// One scale, or one for each output channel.
    pub scales: Vec<f32>,
    /// The axis of the output channels.
    pub axis: usize,
    /// The bias, if the node has one.
    pub bias: Option<Bias>,
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
    if !matches!(node.op_type.as_str(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul") {
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
    let limit = if config.reduce_range { 64 } else { 127 };
    let levels = Levels { low: -limit, high: limit, symmetric: true };

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
        .map(|(i, &value)| round(value.into(), scales[channel_of(i)].into(), f64::from(limit)))
        .collect();
    let bias = bias.map(|bias| {
        let scales: Vec<f32> = scales.iter().map(|scale| input.scale * scale).collect();
        let values: Vec<i32> = bias
            .iter()
            .enumerate()
            .map(|(i, &b)| round(b.into(), scales[i % scales.len()].into(), f64::from(i32::MAX)))
            .collect();
        Bias { values: Tensor::from_ints(DataType::I32, &[values.len()], &values), scales }
    });
    let weights = Tensor::from_ints(DataType::I8, &weights.shape, &quantized);
    Ok(Some(Layer { weights, scales, axis, bias }))
}

/// Enlarges weight scales so that every bias is at most [`BIAS_LIMIT`] steps. Returns how many.
fn make_room(scales: &mut [f32], bias: &[f32], input_scale: f32) -> usize {
    let before = scales.to_vec();
    let count = scales.len();
    for (i, &b) in bias.iter().enumerate() {
        let least = (f64::from(b.abs()) / (f64::from(input_scale) * BIAS_LIMIT)) as f32;
        let scale = &mut scales[i % count];
        *scale = scale.max(least);
    }
    scales.iter().zip(&before).filter(|(a, b)| a != b).count()
}

/// Half to even, within ±limit.
fn round(value: f64, scale: f64, limit: f64) -> i32 {
    (value / scale).round_ties_even().clamp(-limit, limit) as i32
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
