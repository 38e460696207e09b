//! What quantization did to each layer's output and to each node's weights.

use std::collections::{BTreeMap, HashMap};

use super::describe::dtype_name;
use super::{Request, quantized_runner};
use crate::data::Samples;
use crate::diagnose::WeightLaw;
use crate::exec;
use crate::graph::{Graph, Node, Tensor};
use crate::metrics::Sqnr;
use crate::quantize::channel_axis;
use crate::rate::shannon_bits;
use crate::report::{Layer, Weights};
use crate::{diagnose, qdq};

/// A layer's output in both models.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    node: String,
    op_type: String,
    /// Its name in the float graph.
    float: String,
    /// The value that stands for it in the quantized graph, as the next layer reads it.
    quantized: String,
}

/// The values of the float graph that the quantized graph quantizes, in graph order.
fn pairs(float: &Graph, quantized: &Graph) -> Vec<Pair> {
    let read_as = dequantized(quantized);
    float
        .nodes
        .iter()
        .filter_map(|node| {
            let value = node.output();
            Some(Pair {
                node: node.name.clone(),
                op_type: node.op_type.clone(),
                float: value.to_owned(),
                quantized: (*read_as.get(value)?).to_owned(),
            })
        })
        .collect()
}

/// For every value that passes through QuantizeLinear and DequantizeLinear, the name it comes out under.
fn dequantized(graph: &Graph) -> HashMap<&str, &str> {
    let of = |op: &str| -> HashMap<&str, &str> {
        let nodes = graph.nodes.iter().filter(|node| node.op_type == op);
        nodes.filter_map(|node| Some((node.input(0)?, node.output()))).collect()
    };
    let (quantize, dequantize) = (of("QuantizeLinear"), of("DequantizeLinear"));
    let mut map = HashMap::new();
    for node in &graph.nodes {
        for value in node.inputs.iter().chain(&node.outputs) {
            if let Some(out) = quantize.get(value.as_str()).and_then(|q| dequantize.get(q)) {
                map.insert(value.as_str(), *out);
            }
        }
    }
    map
}

/// The SQNR of each value that the quantized graph quantizes, on `samples`, in graph order.
pub(super) fn quality(
    float: &Graph,
    quantized: &Graph,
    samples: &Samples,
    request: &Request,
    advance: &dyn Fn(usize),
) -> Result<Vec<Layer>, exec::Error> {
    let pairs = pairs(float, quantized);
    let names = |of: fn(&Pair) -> &String| pairs.iter().map(|pair| of(pair).clone()).collect::<Vec<_>>();
    let float = exec::runner(float, &names(|pair| &pair.float), request.backend)?;
    let quantized = quantized_runner(quantized, &names(|pair| &pair.quantized), request.backend)?;
    let compare = |batch: &crate::data::Batch, reference: Vec<Vec<f32>>| -> Result<_, exec::Error> {
        let values = quantized.run(batch)?;
        let mut parts = vec![Sqnr::default(); pairs.len()];
        for ((part, r), v) in parts.iter_mut().zip(&reference).zip(&values) {
            part.add(r, v);
        }
        Ok((batch.count, parts))
    };
    let start: Result<Vec<Sqnr>, exec::Error> = Ok(vec![Sqnr::default(); pairs.len()]);
    let totals = exec::fold(&*float, samples, request.threads, compare, start, |totals, part| {
        let (mut totals, (count, part)) = (totals?, part?);
        totals.iter_mut().zip(&part).for_each(|(total, more)| total.merge(more));
        advance(count);
        Ok(totals)
    })??;
    Ok(pairs
        .iter()
        .zip(totals)
        .map(|(pair, total)| Layer {
            node: pair.node.clone(),
            op_type: pair.op_type.clone(),
            value: pair.float.clone(),
            sqnr_db: total.decibels(),
        })
        .collect())
}

/// The quantized weights of each node, compared with those of the float node of the same name.
pub(super) fn weights(float: &Graph, quantized: &Graph) -> Vec<Weights> {
    let nodes: BTreeMap<&str, &Node> = float.nodes.iter().map(|node| (node.name.as_str(), node)).collect();
    let describe = |found: &qdq::IntegerWeights<'_>| {
        let original = nodes
            .get(found.node.name.as_str())
            .and_then(|node| float.initializers.get(node.input(found.input)?))
            .filter(|original| original.shape == found.tensor.shape);
        let values = found.real();
        let reference = original.map_or_else(|| values.clone(), Tensor::to_f32);
        let sqnr_db = original.is_some().then(|| {
            let mut sqnr = Sqnr::default();
            sqnr.add(&reference, &values);
            sqnr.decibels()
        });
        let (min, max) =
            reference.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v.into()), b.max(v.into())));
        Weights {
            node: found.node.name.clone(),
            op_type: found.node.op_type.clone(),
            tensor: found.name.to_owned(),
            shape: found.tensor.shape.clone(),
            dtype: dtype_name(found.tensor.dtype).to_owned(),
            per_channel: found.has_scales(),
            min,
            max,
            sqnr_db,
            law: law(found.node, &reference, &found.tensor.shape),
            stored_bits: found.tensor.dtype.bits(),
            entropy_bits: shannon_bits(&found.levels()),
        }
    };
    qdq::weights(quantized).iter().map(describe).collect()
}

/// The constant weights of the linear nodes of a float graph. Their entropy is that of 8-bit integers with a scale for
/// each output channel.
pub(super) fn float_weights(graph: &Graph) -> Vec<Weights> {
    let describe = |node: &Node| {
        let linear = diagnose::input_axis(node, 2).is_some();
        let name = node.input(1).filter(|_| linear)?;
        let tensor = graph.initializers.get(name).filter(|tensor| !tensor.is_empty())?;
        let values = tensor.to_f32();
        let levels = diagnose::int8_levels(&values, &tensor.shape, channel_axis(node, tensor.shape.len()));
        let (min, max) = range(&values);
        Some(Weights {
            node: node.name.clone(),
            op_type: node.op_type.clone(),
            tensor: name.to_owned(),
            shape: tensor.shape.clone(),
            dtype: dtype_name(tensor.dtype).to_owned(),
            per_channel: true,
            min,
            max,
            sqnr_db: None,
            law: law(node, &values, &tensor.shape),
            stored_bits: tensor.dtype.bits(),
            entropy_bits: shannon_bits(&levels),
        })
    };
    graph.nodes.iter().filter_map(describe).collect()
}

fn law(node: &Node, values: &[f32], shape: &[usize]) -> WeightLaw {
    let rank = shape.len();
    WeightLaw::of(values, shape, channel_axis(node, rank), diagnose::input_axis(node, rank))
}

/// Lowest and highest value.
fn range(values: &[f32]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v.into()), b.max(v.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attr, DataType};

    fn graphs() -> (Graph, Graph) {
        let mut float = Graph { nodes: vec![Node::new("Gemm", "fc", ["x", "w"], ["y"])], ..Graph::default() };
        float.initializers.insert("w".into(), Tensor::from_f32(&[2, 2], &[1.0, -2.0, 0.5, 0.2]));
        let mut quantized = Graph {
            nodes: vec![
                Node::new("DequantizeLinear", "dw", ["wq", "ws"], ["wd"]).with("axis", Attr::Int(0)),
                Node::new("Gemm", "fc", ["x", "wd"], ["y"]),
                Node::new("QuantizeLinear", "q", ["y", "s"], ["yq"]),
                Node::new("DequantizeLinear", "d", ["yq", "s"], ["yd"]),
            ],
            ..Graph::default()
        };
        quantized.initializers.insert("wq".into(), Tensor::from_ints(DataType::I8, &[2, 2], &[1, -2, 2, 1]));
        quantized.initializers.insert("ws".into(), Tensor::from_f32(&[2], &[1.0, 0.25]));
        (float, quantized)
    }

    #[test]
    fn layers_are_compared_as_the_next_one_reads_them() {
        let (float, quantized) = graphs();
        let found = pairs(&float, &quantized);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].float.as_str(), found[0].quantized.as_str()), ("y", "yd"));
    }

    #[test]
    fn weights_are_compared_channel_by_channel() {
        let (float, quantized) = graphs();
        let found = weights(&float, &quantized);
        assert_eq!(found.len(), 1);
        let w = &found[0];
        assert_eq!((w.node.as_str(), w.dtype.as_str(), w.per_channel), ("fc", "int8", true));
        assert_eq!((w.min, w.max), (-2.0, 1.0));
        // Signal 1 + 4 + 0.25 + 0.04 = 5.29, noise 0.05² = 0.0025: 33.255 dB.
        assert!((w.sqnr_db.expect("compared") - 33.255).abs() < 1e-2, "{w:?}");
        // Levels 1, −2, 2, 1.
        assert_eq!((w.stored_bits, w.entropy_bits), (8, 1.5));
    }
}
