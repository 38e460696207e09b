//! Float constants that the file keeps, rounded to what an integer runtime stores of them.
//!
//! A Conv or Gemm has its bias in int32 steps of the sums it is added to, by definition of the file. A bias that the model
//! adds after a MatMul, and a table such as positional embeddings, stay float; integer arithmetic has to round them,
//! and that rounding alone moves elements across rounding boundaries later on. Rounded here instead, to whole steps of
//! the product's sums and to 16 bits, they mean the same everywhere, at no cost in accuracy worth measuring.

use std::collections::BTreeMap;

use super::Outcome;
use super::placement::Links;
use crate::graph::{Graph, Node, Tensor};
use crate::qdq::sixteen_bit_scale;

/// The constants of `graph` to replace in the file that `outcome` makes of it, by name.
///
/// [`Outcome::constants`] are not among them: whoever corrects a bias rounds it.
pub(crate) fn rounded(graph: &Graph, outcome: &Outcome) -> BTreeMap<String, Tensor> {
    let links = Links::new(graph);
    let mut replaced = BTreeMap::new();
    for node in graph.nodes.iter().filter(|node| matches!(node.op_type.as_str(), "Add" | "Sub" | "Mul")) {
        let [a, b] = node.inputs.as_slice() else { continue };
        for (name, value) in [(a, b), (b, a)] {
            let Some(tensor) = graph.initializers.get(name) else { continue };
            let stays = tensor.dtype.is_float() && tensor.len() > 1 && !outcome.activations.contains_key(name);
            let finite = tensor.to_f32().iter().all(|x| x.is_finite());
            if !stays || !finite || graph.initializers.contains_key(value) {
                continue;
            }
            let steps = if node.op_type == "Mul" { None } else { sum_steps(outcome, &links, value) };
            let alone = links.readers(name).count() == 1;
            let tensor = match steps {
                Some(steps) if alone && fits(tensor, steps.len()) => on_grid(tensor, |i| steps[i % steps.len()]),
                _ => {
                    let bound = tensor.to_f32().iter().fold(0.0f64, |bound, &x| bound.max(f64::from(x.abs())));
                    let step = sixteen_bit_step(bound);
                    on_grid(tensor, |_| step)
                }
            };
            replaced.insert(name.clone(), tensor);
        }
    }
    replaced
}

/// One step of each channel's sums, if `value` is what a MatMul or Gemm with quantized weights makes.
fn sum_steps(outcome: &Outcome, links: &Links<'_>, value: &str) -> Option<Vec<f64>> {
    let maker: &Node = links.producer(value)?;
    if !matches!(maker.op_type.as_str(), "MatMul" | "Gemm") || outcome.activations.contains_key(value) {
        return None;
    }
    let layer = outcome.layers.get(&maker.name)?;
    let input = outcome.activations.get(maker.input(0)?)?;
    let channels = layer.weights.shape.get(layer.axis).copied()?;
    let step = |o: usize| f64::from(input.scale) * f64::from(layer.scales[o % layer.scales.len()]);
    Some((0..channels).map(step).collect())
}

/// The step of 16 bits that hold `±bound`, such that the largest of its multiples, which the file has in f32, leads back
/// to the same step.
fn sixteen_bit_step(bound: f64) -> f64 {
    let largest = |step: f32| f64::from((f64::from(step) * 32767.0) as f32);
    let mut step = sixteen_bit_scale(bound);
    // Every other number or so does.
    for _ in 0..16 {
        if sixteen_bit_scale(largest(step)) == step {
            break;
        }
        step = step.next_up();
    }
    f64::from(step)
}

/// Whether a constant is one number for each of `channels` on the last axis.
fn fits(tensor: &Tensor, channels: usize) -> bool {
    tensor.shape.last() == Some(&channels) && tensor.len() == channels
}

/// The nearest multiples of each element's step.
fn on_grid(tensor: &Tensor, step: impl Fn(usize) -> f64) -> Tensor {
    let values: Vec<f32> = tensor
        .to_f32()
        .into_iter()
        .enumerate()
        .map(|(i, x)| ((f64::from(x) / step(i)).round_ties_even() * step(i)) as f32)
        .collect();
    Tensor::from_f32(&tensor.shape, &values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::DataType;
    use crate::quantize::{Layer, QParams};

    fn graph() -> Graph {
        Graph {
            nodes: vec![
                Node::new("MatMul", "mm", ["x", "w"], ["p"]),
                Node::new("Add", "add", ["bias", "p"], ["y"]),
                Node::new("Add", "pos", ["y", "table"], ["z"]),
                Node::new("Add", "scalar", ["z", "one"], ["out"]),
            ],
            initializers: BTreeMap::from([
                ("w".to_owned(), Tensor::from_f32(&[1, 2], &[1.0, 1.0])),
                ("bias".to_owned(), Tensor::from_f32(&[2], &[0.3, -0.3])),
                ("table".to_owned(), Tensor::from_f32(&[2, 2], &[0.1, 0.7, -0.2, 0.5])),
                ("one".to_owned(), Tensor::from_f32(&[], &[0.123])),
            ]),
            ..Graph::default()
        }
    }

    fn outcome() -> Outcome {
        let params = QParams { dtype: DataType::U8, scale: 0.5, zero_point: 0 };
        let weights = Tensor::from_ints(DataType::I8, &[1, 2], &[127, 127]);
        let layer = Layer { weights, scales: vec![0.25, 0.5], axis: 1, bias: None, block: None };
        Outcome {
            activations: BTreeMap::from([("x".to_owned(), params)]),
            layers: BTreeMap::from([("mm".to_owned(), layer)]),
            ..Outcome::default()
        }
    }

    #[test]
    fn biases_take_steps_of_the_sum_and_tables_16_bits() {
        let rounded = rounded(&graph(), &outcome());
        assert_eq!(rounded.keys().collect::<Vec<_>>(), ["bias", "table"]);
        assert_eq!(rounded["bias"].to_f32(), [0.25, -0.25]);
        let after = rounded["table"].to_f32().into_iter().fold(0.0f32, |bound, x| bound.max(x.abs()));
        // What the compiler makes of the rounded table.
        let scale = sixteen_bit_scale(f64::from(after));
        for (before, after) in [0.1f32, 0.7, -0.2, 0.5].into_iter().zip(rounded["table"].to_f32()) {
            let steps = f64::from(after) / f64::from(scale);
            assert!((steps - steps.round()).abs() < 0.002, "{after}");
            assert!((before - after).abs() <= scale * 0.501);
        }
    }

    #[test]
    fn what_is_quantized_anyway_or_shared_is_left() {
        let mut quantized = outcome();
        let params = QParams { dtype: DataType::U8, scale: 0.1, zero_point: 0 };
        quantized.activations.insert("table".into(), params);
        assert!(!rounded(&graph(), &quantized).contains_key("table"));
        let mut graph = graph();
        graph.nodes.push(Node::new("Add", "again", ["out", "bias"], ["o"]));
        let rounded = rounded(&graph, &outcome());
        assert!((rounded["bias"].to_f32()[0] - 0.3).abs() < 1e-4, "16 bits, not steps of the first product");
    }
}
