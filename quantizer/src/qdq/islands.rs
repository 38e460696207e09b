//! Which compute nodes of a QDQ graph stay float in ONNX Runtime.

use super::linear::Linear;
use crate::graph::{DataType, Graph, Node, Tensor};
use std::collections::HashMap;

/// A compute node that ONNX Runtime cannot fuse into an integer kernel.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Island {
    /// The node's name.
    pub node: String,
    /// Its operator type.
    pub op_type: String,
    /// What is missing.
    pub reason: String,
}

/// Conv, ConvTranspose, Gemm and MatMul nodes of a QDQ graph that stay float in ONNX Runtime's CPU provider.
///
/// The rules are those of its QDQ selectors, as found with version 1.32:
///
/// - input and weights come from a DequantizeLinear of 8 bits with constant parameters;
/// - a Conv is followed by a QuantizeLinear of its input's type and nothing else; Gemm and MatMul may write float.
///   A Relu or Clip between counts as absent where the integer range makes it redundant;
/// - a ConvTranspose has no integer kernel at all;
/// - activations are uint8. (On x86 ONNX Runtime turns int8 into uint8, but not where a value has several readers.)
/// - a bias comes from a DequantizeLinear of int32, for a Conv with about the product of the other scales. (A constant
///   float bias is quantized by ONNX Runtime itself where the output is quantized.)
pub fn float_islands(graph: &Graph) -> Vec<Island> {
    let check = Check { graph, producers: graph.producers(), consumers: graph.consumers() };
    graph
        .nodes
        .iter()
        .filter(|node| node.is_linear())
        .filter_map(|node| {
            let reason = check.node(node).err()?;
            Some(Island { node: node.name.clone(), op_type: node.op_type.clone(), reason })
        })
        .collect()
}

struct Check<'g> {
    graph: &'g Graph,
    producers: HashMap<&'g str, usize>,
    consumers: HashMap<&'g str, Vec<usize>>,
}

impl Check<'_> {
    fn node(&self, node: &Node) -> Result<(), String> {
        if node.op_type == "ConvTranspose" {
            return Err("ONNX Runtime's CPU provider has no integer kernel for it".into());
        }
        let input = self.eight_bits(node, 0, "input")?;
        let weights = self.eight_bits(node, 1, "weights")?;
        if self.stays_int8(node, 0, &input) || self.stays_int8(node, 1, &weights) {
            return Err("it reads an int8 value that has several readers".into());
        }
        let output = self.output(node.output())?;
        match output {
            Some(DataType::I8) => return Err("it writes an int8 value that has several readers".into()),
            Some(DataType::U8) => {}
            None if node.op_type != "Conv" => {}
            Some(dtype) => return Err(format!("its output is {dtype:?}, not 8-bit")),
            None => return Err("its output is not quantized".into()),
        }
        if node.op_type == "Gemm" && node.float("beta", 1.0) != 1.0 {
            return Err("beta is not 1".into());
        }
        let Some(bias) = node.input(2) else { return Ok(()) };
        match self.dequantized(bias) {
            Some(linear) if linear.dtype != DataType::I32 => Err(format!("its bias is {:?}, not int32", linear.dtype)),
            Some(linear) if node.op_type == "Conv" && !is_product(&linear, &input, &weights) => {
                Err("the scale of its bias is not the product of the scales of input and weights".into())
            }
            Some(_) => Ok(()),
            None if output.is_some() && self.graph.initializers.contains_key(bias) => Ok(()),
            None => Err("its bias is float".into()),
        }
    }

    /// The parameters of an input that comes from DequantizeLinear of 8 bits.
    fn eight_bits(&self, node: &Node, i: usize, what: &str) -> Result<Linear, String> {
        let linear =
            node.input(i).and_then(|name| self.dequantized(name)).ok_or_else(|| format!("its {what} is float"))?;
        match linear.dtype {
            DataType::U8 | DataType::I8 if linear.blocked() => Err(format!("its {what} is quantized in blocks")),
            DataType::U8 | DataType::I8 if i == 0 && !linear.per_tensor() => {
                Err(format!("its {what} is quantized per channel"))
            }
            DataType::U8 | DataType::I8 => Ok(linear),
            DataType::U4 | DataType::I4 if i == 1 => Err(format!(
                "its {what} take 4 bits each; ONNX Runtime has integer kernels for the int8 container only"
            )),
            other => Err(format!("its {what} is {other:?}, not 8-bit")),
        }
    }

    /// Whether an input is an int8 activation that ONNX Runtime cannot turn into uint8.
    fn stays_int8(&self, node: &Node, i: usize, linear: &Linear) -> bool {
        let dequantize = node.input(i).and_then(|name| self.producers.get(name)).map(|&maker| &self.graph.nodes[maker]);
        let quantized = dequantize.and_then(|node| node.input(0));
        linear.dtype == DataType::I8
            && quantized.is_some_and(|name| !self.graph.initializers.contains_key(name) && self.final_readers(name) > 1)
    }

    /// The readers of the DequantizeLinear nodes that read a quantized value.
    fn final_readers(&self, quantized: &str) -> usize {
        let readers = |name: &str| self.consumers.get(name).into_iter().flatten();
        readers(quantized)
            .map(|&i| {
                let output = self.graph.nodes[i].output();
                readers(output).count() + usize::from(self.graph.is_output(output))
            })
            .sum()
    }

    /// The parameters of the DequantizeLinear that makes a value.
    fn dequantized(&self, value: &str) -> Option<Linear> {
        let node = self.graph.nodes.get(*self.producers.get(value)?)?;
        let mut linear = (node.op_type == "DequantizeLinear").then(|| Linear::of(self.graph, node))??;
        // Weights that the file keeps as float are quantized first.
        if node.input(2).is_none()
            && let Some(&maker) = node.input(0).and_then(|name| self.producers.get(name))
            && let Some(quantizer) = Linear::of(self.graph, &self.graph.nodes[maker])
        {
            linear.dtype = quantizer.dtype;
        }
        Some(linear)
    }

    /// The integer type a value is quantized to, if QuantizeLinear is all that reads it.
    fn output(&self, value: &str) -> Result<Option<DataType>, String> {
        let readers: Vec<&Node> =
            self.consumers.get(value).into_iter().flatten().map(|&i| &self.graph.nodes[i]).collect();
        if let [clamp] = readers.as_slice()
            && matches!(clamp.op_type.as_str(), "Relu" | "Clip")
            && !self.graph.is_output(value)
        {
            return match self.output(clamp.output())? {
                Some(dtype) if self.redundant(clamp) => Ok(Some(dtype)),
                Some(_) => Err(format!("{} stands between it and QuantizeLinear", clamp.op_type)),
                None => Ok(None),
            };
        }
        let dtypes: Vec<DataType> = readers
            .iter()
            .filter(|reader| reader.op_type == "QuantizeLinear")
            .filter_map(|reader| Some((Linear::of(self.graph, reader)?.dtype, self.final_readers(reader.output()))))
            .map(|(dtype, readers)| if dtype == DataType::I8 && readers == 1 { DataType::U8 } else { dtype })
            .collect();
        match dtypes.first() {
            None => Ok(None),
            Some(_) if dtypes.len() != readers.len() || self.graph.is_output(value) => {
                Err("its output is read both quantized and as float".into())
            }
            Some(_) if dtypes.len() > 1 => Err("its output is quantized more than once".into()),
            Some(dtype) => Ok(Some(*dtype)),
        }
    }

    /// Whether the range of the QuantizeLinear after a clamp lies within the clamp.
    fn redundant(&self, clamp: &Node) -> bool {
        let Some(readers) = self.consumers.get(clamp.output()) else { return false };
        let [reader] = readers.as_slice() else { return false };
        let Some(linear) = Linear::of(self.graph, &self.graph.nodes[*reader]) else { return false };
        if !linear.per_tensor() {
            return false;
        }
        let scale = linear.scale.to_f32().first().copied().unwrap_or_default();
        let zero_point = linear.zero_point.first().copied().unwrap_or_default() as f64;
        let (low, high) = linear.limits();
        if clamp.op_type == "Relu" {
            return zero_point == low;
        }
        let bound = |i: usize, absent: f32| match clamp.input(i) {
            None => Some(absent),
            Some(name) => self.graph.initializers.get(name).and_then(Tensor::scalar_f32),
        };
        let (Some(min), Some(max)) = (bound(1, f32::MIN), bound(2, f32::MAX)) else { return false };
        // A clamp that rounds to the outermost levels changes nothing.
        let level = |bound: f32| f64::from((bound / scale).round_ties_even()) + zero_point;
        level(min) <= low && level(max) >= high
    }
}

/// Whether the scale of a bias is what integer kernels take it for, within ONNX Runtime's tolerance.
fn is_product(bias: &Linear, input: &Linear, weights: &Linear) -> bool {
    let (bias, weights) = (bias.scale.to_f32(), weights.scale.to_f32());
    let input = input.scale.to_f32().first().copied().unwrap_or_default();
    (0..bias.len().max(weights.len())).all(|i| {
        let product = input * weights[i % weights.len()];
        (bias[i % bias.len()] - product).abs() <= 1e-6 + 0.01 * product
    })
}
