//! Writing an outcome as a QDQ graph.

use std::collections::BTreeMap;

use super::float_ranges::{self, FLOAT_RANGES};
use super::names::Names;
use crate::graph::{Attr, DataType, Graph, Node, Tensor};
use crate::passes::rms_norm;
use crate::quantize::{self, Layer, Outcome, QParams};

/// The first operator set whose QuantizeLinear knows 16 and 4 bits.
const OPSET: i64 = 21;

/// How weights of 4 bits are stored in a file. Their values are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub enum Container {
    /// Two to a byte, as ONNX INT4 or UINT4 (opset 21): the small file. ONNX Runtime's CPU provider has no integer kernels
    /// for it: it turns weights to float in every run.
    #[default]
    Packed,
    /// INT8 with values in `-8..=7`: twice as large, and every runtime with integer kernels uses them.
    Int8,
}

impl Container {
    /// The weights as the file holds them, and their zero point.
    fn store(self, layer: &Layer) -> (Tensor, i32) {
        let weights = &layer.weights;
        if self == Self::Packed || !matches!(weights.dtype, DataType::I4 | DataType::U4) {
            return (weights.clone(), layer.zero_point());
        }
        let steps: Vec<i32> = weights.to_i64().into_iter().map(|q| q as i32 - layer.zero_point()).collect();
        (Tensor::from_ints(DataType::I8, &weights.shape, &steps), 0)
    }
}

/// The QDQ graph of an outcome: opset 21 or the model's own, raw payloads, with metadata of how it was made.
///
/// Float values keep their names: `x` is quantized to `x_quantized`, and its readers read `x_dequantized`, with
/// `x_scale` and `x_zero_point`; weights `w` become the initializer `w_quantized`, read as `w_dequantized`.
/// A graph output that is quantized is the exception: it carries dequantized values under its own name, and
/// `x_float` is what is quantized. Float constants that stay are rounded to what an integer runtime stores of them. Float
/// weights that nobody reads any more are gone.
pub fn export(graph: &Graph, outcome: &Outcome) -> Graph {
    let mut out = Graph {
        name: graph.name.clone(),
        opset: graph.opset.max(OPSET),
        other_opsets: graph.other_opsets.clone(),
        nodes: Vec::new(),
        initializers: graph.initializers.clone(),
        inputs: graph.inputs.clone(),
        outputs: graph.outputs.clone(),
        metadata: graph.metadata.clone(),
        tied: Vec::new(),
    };
    out.metadata.extend(outcome.metadata.clone());
    if !outcome.float_ranges.is_empty() {
        out.metadata.insert(FLOAT_RANGES.to_owned(), float_ranges::to_text(&outcome.float_ranges));
    }
    out.initializers.extend(quantize::rounded(graph, outcome));
    let (dequantized, stored) = (BTreeMap::new(), BTreeMap::new());
    let mut export = Export { outcome, names: Names::of(graph), dequantized, stored, out };
    for (name, tensor) in &graph.initializers {
        if let Some(params) = outcome.activations.get(name) {
            export.constant(name, tensor, *params);
        }
    }
    for input in &graph.inputs {
        export.activation(&input.name, &input.name);
    }
    for node in &graph.nodes {
        export.node(graph, node);
    }
    export.out.remove_unused();
    rms_norm::expand(&mut export.out);
    export.out
}

struct Export<'a> {
    outcome: &'a Outcome,
    names: Names,
    /// What readers of a value read instead.
    dequantized: BTreeMap<String, String>,
    /// How each constant is stored, and what readers of that read.
    stored: BTreeMap<String, Vec<(Stored, String)>>,
    out: Graph,
}

/// Integers that a DequantizeLinear reads.
#[derive(PartialEq)]
struct Stored {
    weights: Tensor,
    zero_point: i32,
    /// Of the scales.
    shape: Vec<usize>,
    scales: Vec<f32>,
    /// Attributes of the node.
    along: Vec<(&'static str, usize)>,
}

impl Export<'_> {
    fn node(&mut self, graph: &Graph, node: &Node) {
        let mut copy = node.clone();
        for input in &mut copy.inputs {
            if let Some(name) = self.dequantized.get(input) {
                input.clone_from(name);
            }
        }
        if let Some(tensor) = self.outcome.constants.get(&node.name)
            && let Some(at) = node.inputs.iter().position(|name| graph.initializers.contains_key(name))
        {
            copy.inputs[at] = self.initializer(format!("{}_corrected", node.inputs[at]), tensor.clone());
        }
        if let Some(layer) = self.outcome.layers.get(&node.name) {
            self.layer(node, &mut copy, layer);
        }
        let outputs = copy.outputs.clone();
        let mut quantized = Vec::new();
        for (name, output) in outputs.iter().zip(&mut copy.outputs) {
            if self.outcome.activations.contains_key(name) {
                if graph.is_output(name) {
                    *output = self.names.fresh(format!("{name}_float"));
                }
                quantized.push((name.clone(), output.clone()));
            }
        }
        self.out.nodes.push(copy);
        for (name, float) in quantized {
            self.activation(&name, &float);
        }
    }

    /// QuantizeLinear and DequantizeLinear after value `name`, which the graph holds as `float`.
    fn activation(&mut self, name: &str, float: &str) {
        let Some(params) = self.outcome.activations.get(name).copied() else { return };
        let (scale, zero_point) = self.params(name, params);
        let quantized = self.names.fresh(format!("{name}_quantized"));
        let dequantized = match float == name {
            true => self.names.fresh(format!("{name}_dequantized")),
            false => name.to_owned(),
        };
        let q = self.names.fresh(format!("{name}_QuantizeLinear"));
        self.out.nodes.push(Node::new("QuantizeLinear", q, [float, &scale, &zero_point], [quantized.clone()]));
        self.dequantize(name, [quantized, scale, zero_point], &dequantized, &[]);
        self.dequantized.insert(name.to_owned(), dequantized);
    }

    /// A constant among activations (one that is concatenated to them), quantized offline.
    fn constant(&mut self, name: &str, tensor: &Tensor, params: QParams) {
        let (low, high) = params.dtype.quantized_range().unwrap_or((0, 255));
        let values: Vec<i32> = tensor
            .to_f32()
            .into_iter()
            .map(|v| {
                let steps = (f64::from(v) / f64::from(params.scale)).round_ties_even();
                (steps + f64::from(params.zero_point)).clamp(low.into(), high.into()) as i32
            })
            .collect();
        let (scale, zero_point) = self.params(name, params);
        let tensor = Tensor::from_ints(params.dtype, &tensor.shape, &values);
        let quantized = self.initializer(format!("{name}_quantized"), tensor);
        let dequantized = self.names.fresh(format!("{name}_dequantized"));
        self.dequantize(name, [quantized, scale, zero_point], &dequantized, &[]);
        self.dequantized.insert(name.to_owned(), dequantized);
    }

    /// Weights and bias of a layer. What several nodes share, quantized alike, is in the file once.
    fn layer(&mut self, node: &Node, copy: &mut Node, layer: &Layer) {
        let (weights, zero_point) = self.outcome.container.store(layer);
        let along = match layer.block {
            Some(block) => vec![("axis", layer.input_axis()), ("block_size", block)],
            None if layer.scales.len() > 1 => vec![("axis", layer.axis)],
            None => Vec::new(),
        };
        let shape = layer.scale_shape();
        copy.inputs[1] =
            self.weights(&node.inputs[1], Stored { weights, zero_point, shape, scales: layer.scales.clone(), along });
        let (Some(bias), Some(stem)) = (&layer.bias, node.input(2)) else { return };
        let shape = if bias.scales.len() == 1 { Vec::new() } else { vec![bias.scales.len()] };
        let along = if shape.is_empty() { Vec::new() } else { vec![("axis", 0)] };
        let (weights, scales) = (bias.values.clone(), bias.scales.clone());
        copy.inputs[2] = self.weights(stem, Stored { weights, zero_point: 0, shape, scales, along });
    }

    /// The dequantized value of constant `stem` that is stored like this, made once.
    fn weights(&mut self, stem: &str, stored: Stored) -> String {
        let known = self.stored.get(stem).into_iter().flatten().find(|(known, _)| *known == stored);
        if let Some((_, name)) = known {
            return name.clone();
        }
        let quantized = self.initializer(format!("{stem}_quantized"), stored.weights.clone());
        let scale = self.scales(stem, &stored.shape, &stored.scales);
        let zero_point = self.zero_points(stem, stored.weights.dtype, &stored.shape, stored.zero_point);
        let dequantized = self.names.fresh(format!("{stem}_dequantized"));
        self.dequantize(stem, [quantized, scale, zero_point], &dequantized, &stored.along);
        self.stored.entry(stem.to_owned()).or_default().push((stored, dequantized.clone()));
        dequantized
    }

    fn dequantize(&mut self, stem: &str, inputs: [String; 3], output: &str, along: &[(&str, usize)]) {
        let name = self.names.fresh(format!("{stem}_DequantizeLinear"));
        let mut node = Node::new("DequantizeLinear", name, inputs, [output]);
        for &(attribute, value) in along {
            node = node.with(attribute, Attr::Int(value as i64));
        }
        self.out.nodes.push(node);
    }

    fn params(&mut self, stem: &str, params: QParams) -> (String, String) {
        let scale = self.scales(stem, &[], &[params.scale]);
        let zero_point = self.zero_points(stem, params.dtype, &[], params.zero_point);
        (scale, zero_point)
    }

    fn scales(&mut self, stem: &str, shape: &[usize], scales: &[f32]) -> String {
        self.initializer(format!("{stem}_scale"), Tensor::from_f32(shape, scales))
    }

    fn zero_points(&mut self, stem: &str, dtype: DataType, shape: &[usize], value: i32) -> String {
        let values = vec![value; shape.iter().product()];
        self.initializer(format!("{stem}_zero_point"), Tensor::from_ints(dtype, shape, &values))
    }

    fn initializer(&mut self, stem: String, tensor: Tensor) -> String {
        let name = self.names.fresh(stem);
        self.out.initializers.insert(name.clone(), tensor);
        name
    }
}
