//! Operators over signals `[N, C, L]` become operators over images `[N, C, 1, L]`.
//!
//! A node is written in its form for images between an Unsqueeze and a Squeeze of axis 2. Squeezes then move behind the
//! element-wise operators, joins, pads and reductions that read them, until they meet the next Unsqueeze and both are gone:
//! a network of 1-D convolutions is one of 2-D convolutions, without anything in between. What stays is a view.

use super::rewrite::{Rewrite, each};
use super::{constant, has_more_outputs, maker};
use crate::graph::eval::{self, normalize_axis};
use crate::graph::shape::infer_partial;
use crate::graph::{Attr, Graph, Node, Tensor};

/// The axis that images have and signals have not.
const AXIS: usize = 2;

pub(super) fn run(graph: &mut Graph) -> usize {
    let types = infer_partial(graph, 2).types;
    let ranks = |name: &str| types.get(name).map(|kind| kind.shape.len());
    let count = each(graph, |graph, index| match cancelled(graph, index) {
        Some(source) => super::bypass(graph, index, &source).then_some(0),
        None => lifted(graph, index, &ranks).or_else(|| sunk(graph, index, &ranks)),
    });
    // Squeezes that nothing reads any more would count as readers.
    graph.remove_unused();
    count
}

/// What an Unsqueeze of a Squeeze of the same axis gives.
fn cancelled(graph: &Graph, index: usize) -> Option<String> {
    let node = &graph.nodes[index];
    if is_of_axis(graph, node, "Unsqueeze") { image(graph, node.input(0)?) } else { None }
}

fn is_of_axis(graph: &Graph, node: &Node, op_type: &str) -> bool {
    let axes = constant(graph, node.input(1)).map(Tensor::to_i64);
    node.op_type == op_type && node.domain.is_empty() && axes.is_some_and(|axes| axes == [AXIS as i64])
}

/// The image that a value is squeezed from.
fn image(graph: &Graph, value: &str) -> Option<String> {
    let node = &graph.nodes[maker(graph, Some(value))?];
    is_of_axis(graph, node, "Squeeze").then(|| node.input(0).map(str::to_owned)).flatten()
}

/// An activation as an image.
fn to_image(rewrite: &mut Rewrite<'_>, value: &str) -> String {
    image(rewrite.graph, value).unwrap_or_else(|| rewrite.unsqueeze(value, &[AXIS as i64]))
}

/// The node, reading `inputs` and made for images, and the signal it gives.
fn finish(mut rewrite: Rewrite<'_>, node: Node, inputs: Vec<String>) -> usize {
    let image = rewrite.push(Node { inputs, ..node });
    rewrite.squeeze(&image, &[AXIS as i64]);
    rewrite.finish()
}

/// Where an axis of a signal is in its image.
fn moved(axis: i64) -> Option<i64> {
    normalize_axis(axis, 3).map(|axis| if axis < AXIS { axis as i64 } else { axis as i64 + 1 })
}

/// Weights `[O, C, K]` as `[O, C, 1, K]`, also those that a DequantizeLinear makes of integers.
fn weights(rewrite: &mut Rewrite<'_>, value: &str) -> Option<String> {
    if let Some(tensor) = rewrite.graph.initializers.get(value) {
        let tensor = with_axis(tensor)?;
        return Some(rewrite.constant("weight", tensor));
    }
    let node = rewrite.graph.nodes[maker(rewrite.graph, Some(value))?].clone();
    if node.op_type != "DequantizeLinear" {
        return None;
    }
    let axis = moved(node.int("axis", 1))?;
    let mut inputs = Vec::new();
    for name in &node.inputs {
        let tensor = rewrite.graph.initializers.get(name)?;
        inputs.push(match with_axis(tensor) {
            Some(tensor) => rewrite.constant("weight", tensor),
            None => name.clone(),
        });
    }
    Some(rewrite.push(Node { inputs, ..node }.with("axis", Attr::Int(axis))))
}

/// A tensor of rank 3 with one more axis.
fn with_axis(tensor: &Tensor) -> Option<Tensor> {
    let [a, b, c] = tensor.shape[..] else { return None };
    Some(Tensor { shape: vec![a, b, 1, c], ..tensor.clone() })
}

/// A convolution, pool or normalization of signals.
fn lifted(graph: &mut Graph, index: usize, ranks: &impl Fn(&str) -> Option<usize>) -> Option<usize> {
    let mut node = graph.nodes[index].clone();
    let spatial = matches!(
        node.op_type.as_str(),
        "Conv" | "ConvTranspose" | "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool"
    );
    if !(spatial || node.op_type == "BatchNormalization") || !node.domain.is_empty() || has_more_outputs(graph, &node) {
        return None;
    }
    node.outputs.truncate(1);
    if ranks(node.input(0)?)? != 3 {
        return None;
    }
    for (name, attr) in &mut node.attrs {
        let Attr::Ints(values) = attr else { continue };
        *values = match (name.as_str(), values.as_slice()) {
            ("kernel_shape" | "strides" | "dilations" | "output_shape", &[one]) => vec![1, one],
            ("output_padding", &[one]) => vec![0, one],
            ("output_shape", &[n, c, one]) => vec![n, c, 1, one],
            ("pads", &[begin, end]) => vec![0, begin, 0, end],
            _ => continue,
        };
    }
    let mut rewrite = Rewrite::new(graph, index);
    let mut inputs = node.inputs.clone();
    if node.op_type.starts_with("Conv") {
        inputs[1] = weights(&mut rewrite, node.input(1)?)?;
    }
    inputs[0] = to_image(&mut rewrite, &node.inputs[0]);
    Some(finish(rewrite, node, inputs))
}

/// An operator that does the same to an image as to the signal it is squeezed to.
fn sunk(graph: &mut Graph, index: usize, ranks: &impl Fn(&str) -> Option<usize>) -> Option<usize> {
    let mut node = graph.nodes[index].clone();
    let op = node.op_type.as_str();
    let binary = matches!(op, "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" | "PRelu");
    let quantizes = matches!(op, "QuantizeLinear" | "DequantizeLinear");
    let reduces = op.starts_with("Reduce");
    let one_input = quantizes || reduces || op == "Clip" || op == "Pad" || eval::is_unary(&node);
    if !(binary || one_input || op == "Concat") || !node.domain.is_empty() || node.outputs.len() != 1 {
        return None;
    }
    let data = if one_input { 1 } else { node.inputs.len() };
    if node.inputs.len() < data {
        return None;
    }
    let fits = |name: &String| match graph.initializers.get(name) {
        Some(constant) => constant.shape.len() <= 3,
        None => ranks(name) == Some(3),
    };
    if !node.inputs[..data].iter().all(fits) || !node.inputs[..data].iter().any(|name| image(graph, name).is_some()) {
        return None;
    }
    let scalar = |i: usize| node.input(i).is_none_or(|name| graph.initializers.get(name).is_some_and(|t| t.len() == 1));
    if quantizes && !(scalar(1) && scalar(2)) {
        return None;
    }
    let mut inputs = node.inputs.clone();
    let mut other = None;
    if op == "Concat" {
        node.attrs.insert("axis".into(), Attr::Int(moved(node.int("axis", 0))?));
    } else if op == "Pad" {
        if node.input(3).is_some() {
            return None;
        }
        let [a, b, c, d, e, f] = constant(graph, node.input(1))?.to_i64()[..] else { return None };
        other = Some(vec![a, b, 0, c, d, e, 0, f]);
    } else if reduces {
        let axes = constant(graph, node.input(1))?.to_i64();
        other = Some(axes.into_iter().map(moved).collect::<Option<_>>()?);
        // What is left without the reduced axes must still have the new one in its place.
        if node.int("keepdims", 1) == 0 && other != Some(vec![3]) {
            return None;
        }
    }
    let mut rewrite = Rewrite::new(graph, index);
    for input in &mut inputs[..data] {
        *input = match rewrite.graph.initializers.get(input.as_str()).cloned() {
            // One number for each element of the last axis, or one alone.
            Some(tensor) if tensor.shape.len() < 2 => continue,
            Some(tensor) => {
                let mut shape = tensor.shape.clone();
                shape.insert(shape.len() - 1, 1);
                rewrite.constant("constant", Tensor { shape, ..tensor })
            }
            None => to_image(&mut rewrite, input),
        };
    }
    if let Some(values) = other {
        inputs[1] = rewrite.integers("axes", &values);
    }
    Some(finish(rewrite, node, inputs))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Model, ints};
    use super::*;

    /// Rewrites to the end, checks that nothing is left to do, and that outputs are the same.
    fn rewritten(model: &Model) -> Vec<String> {
        let after = model.same_after(|graph| {
            let first = run(graph);
            while run(graph) > 0 {}
            first
        });
        after.nodes.into_iter().map(|node| node.op_type).collect()
    }

    #[test]
    fn a_network_of_signals_is_one_of_images() {
        let mut model = Model::new(&[3, 20]);
        let (w, v) = (model.constant(&[6, 3, 5]), model.constant(&[6, 2, 3]));
        let (b, c, t) = (model.constant(&[6]), model.constant(&[1, 6, 1]), model.constant(&[6, 4, 2]));
        let x = model.node("Conv", &["x", &w, &b], &[("strides", ints(&[2])), ("pads", ints(&[2, 1]))]);
        let y = model.node("Relu", &[&x], &[]);
        let y = model.node("Add", &[&y, &c], &[]);
        let same = ("auto_pad", Attr::String("SAME_LOWER".into()));
        let y = model.node("Conv", &[&y, &v], &[("group", Attr::Int(3)), ("dilations", ints(&[2])), same]);
        let y = model.node("Add", &[&y, &x], &[]);
        let y = model.node("Concat", &[&y, &x], &[("axis", Attr::Int(-1))]);
        let y = model.node("ConvTranspose", &[&y, &t], &[("strides", ints(&[2])), ("output_padding", ints(&[1]))]);
        let pool = [("kernel_shape", ints(&[3])), ("strides", ints(&[2]))];
        let m = model.node("MaxPool", &[&y], &pool);
        let a = model.node("AveragePool", &[&y], &pool);
        let y = model.node("Mul", &[&m, &a], &[]);
        let axes = model.integers(&[-1]);
        let mean = model.node("ReduceMean", &[&y, &axes], &[("keepdims", Attr::Int(0))]);
        let global = model.node("GlobalAveragePool", &[&y], &[]);
        model.outputs(&[&mean, &global]);
        let ops = rewritten(&model);
        assert_eq!(ops.iter().filter(|op| *op == "Unsqueeze").count(), 1, "{ops:?}");
        assert_eq!(ops.iter().filter(|op| *op == "Squeeze").count(), 2, "{ops:?}");
    }

    #[test]
    fn quantized_weights_keep_their_scales() {
        for axis in [0, -3] {
            quantized_weights(axis);
        }
    }

    fn quantized_weights(axis: i64) {
        let mut model = Model::new(&[2, 9]);
        let weights: Vec<i32> = (0..24).map(|i| i * 11 % 255 - 127).collect();
        let tensor = Tensor::from_ints(crate::graph::DataType::I8, &[4, 2, 3], &weights);
        model.graph.initializers.insert("q".into(), tensor);
        model.graph.initializers.insert("s".into(), Tensor::from_f32(&[4], &[0.1, 0.2, 0.3, 0.4]));
        let w = model.node("DequantizeLinear", &["q", "s"], &[("axis", Attr::Int(axis))]);
        let y = model.node("Conv", &["x", &w], &[]);
        model.outputs(&[&y]);
        while run(&mut model.graph) > 0 {}
        let conv = model.graph.nodes.iter().find(|node| node.op_type == "Conv").unwrap();
        let types = infer_partial(&model.graph, 1).types;
        assert_eq!((&types[&conv.inputs[1]].shape[..], &types[&y].shape[..]), (&[4, 2, 1, 3][..], &[1, 4, 7][..]));
        let weights = model.graph.nodes.iter().find(|node| node.op_type == "DequantizeLinear").unwrap();
        assert_eq!(weights.int("axis", 1), 0);
    }

    #[test]
    fn a_constant_of_more_axes_stays() {
        let mut model = Model::new(&[3, 20]);
        let (w, c) = (model.constant(&[6, 3, 5]), model.constant(&[2, 1, 6, 1]));
        let x = model.node("Conv", &["x", &w], &[]);
        let y = model.node("Add", &[&x, &c], &[]);
        model.outputs(&[&y]);
        let add = |ops: Vec<String>| ops.iter().position(|op| op == "Add");
        assert_eq!(add(rewritten(&model)), Some(3), "behind the Squeeze");
    }

    #[test]
    fn other_ranks_stay() {
        let mut model = Model::new(&[3, 5, 5]);
        let w = model.constant(&[2, 3, 3, 3]);
        let y = model.node("Conv", &["x", &w], &[]);
        model.outputs(&[&y]);
        assert_eq!(run(&mut model.graph), 0);
    }
}
