//! What quantization did to each layer's output and to each node's weights.

use std::collections::{BTreeMap, HashMap};

use super::describe::dtype_name;
use crate::data::Samples;
use crate::exec::{self, Runner};
use crate::graph::{DataType, Graph, Node, Tensor};
use crate::metrics::Sqnr;
use crate::report::{Layer, Weights};

/// A layer's output in both models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) node: String,
    pub(super) op_type: String,
    /// Its name in the float graph.
    pub(super) float: String,
    /// The value that stands for it in the quantized graph, as the next layer reads it.
    pub(super) quantized: String,
}

/// The values of the float graph that the quantized graph quantizes, in graph order.
pub(super) fn pairs(float: &Graph, quantized: &Graph) -> Vec<Pair> {
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

/// The SQNR of each pair. The runners give the float and the quantized values of `pairs`, in order.
pub(super) fn quality(
    pairs: &[Pair],
    float: &dyn Runner,
    quantized: &dyn Runner,
    samples: &Samples,
    threads: usize,
    advance: &dyn Fn(usize),
) -> Result<Vec<Layer>, exec::Error> {
    let compare = |batch: &crate::data::Batch, reference: Vec<Vec<f32>>| -> Result<_, exec::Error> {
        let values = quantized.run(batch)?;
        let mut parts = vec![Sqnr::default(); pairs.len()];
        for ((part, r), v) in parts.iter_mut().zip(&reference).zip(&values) {
            part.add(r, v);
        }
        Ok((batch.count, parts))
    };
    let start: Result<Vec<Sqnr>, exec::Error> = Ok(vec![Sqnr::default(); pairs.len()]);
    let totals = exec::fold(float, samples, threads, compare, start, |totals, part| {
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
    let makers = quantized.producers();
    let nodes: BTreeMap<&str, &Node> = float.nodes.iter().map(|node| (node.name.as_str(), node)).collect();
    let mut found = Vec::new();
    for node in &quantized.nodes {
        for (i, input) in node.inputs.iter().enumerate() {
            let Some(dequantize) = makers.get(input.as_str()).map(|&at| &quantized.nodes[at]) else { continue };
            let Some(parts) = constant(quantized, dequantize) else { continue };
            let original = nodes
                .get(node.name.as_str())
                .and_then(|node| float.initializers.get(node.input(i)?))
                .filter(|original| original.shape == parts.tensor.shape);
            let values = parts.real();
            let reference = original.map_or_else(|| values.clone(), Tensor::to_f32);
            let sqnr_db = original.is_some().then(|| {
                let mut sqnr = Sqnr::default();
                sqnr.add(&reference, &values);
                sqnr.decibels()
            });
            let (min, max) = reference
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v.into()), b.max(v.into())));
            found.push(Weights {
                node: node.name.clone(),
                op_type: node.op_type.clone(),
                shape: parts.tensor.shape.clone(),
                dtype: dtype_name(parts.tensor.dtype).to_owned(),
                per_channel: parts.scales.len() > 1,
                min,
                max,
                sqnr_db,
            });
        }
    }
    found
}

/// A quantized constant.
struct Constant<'g> {
    tensor: &'g Tensor,
    scales: Vec<f32>,
    zero_points: Vec<i64>,
    axis: usize,
}

/// The constant a DequantizeLinear makes real, unless it is a bias or quantized in blocks.
fn constant<'g>(graph: &'g Graph, node: &Node) -> Option<Constant<'g>> {
    if node.op_type != "DequantizeLinear" || node.int("block_size", 0) != 0 {
        return None;
    }
    let tensor = graph.initializers.get(node.input(0)?)?;
    if tensor.dtype == DataType::I32 || tensor.is_empty() {
        return None;
    }
    let scales = graph.initializers.get(node.input(1)?)?.to_f32();
    let zero_points = node.input(2).and_then(|name| graph.initializers.get(name)).map(Tensor::to_i64);
    let axis = crate::graph::eval::normalize_axis(node.int("axis", 1), tensor.shape.len()).unwrap_or(0);
    let fits = scales.len() == 1 || tensor.shape.get(axis) == Some(&scales.len());
    let zero_points = zero_points.unwrap_or_else(|| vec![0; scales.len()]);
    (fits && zero_points.len() == scales.len()).then_some(Constant { tensor, scales, zero_points, axis })
}

impl Constant<'_> {
    /// The real values.
    fn real(&self) -> Vec<f32> {
        let inner: usize = self.tensor.shape.iter().skip(self.axis + 1).product();
        let channels = self.scales.len();
        let integers = self.tensor.to_i64();
        let real = |(i, q): (usize, i64)| {
            let channel = i / inner.max(1) % channels;
            (q - self.zero_points[channel]) as f32 * self.scales[channel]
        };
        integers.into_iter().enumerate().map(real).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attr;

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
    }
}
