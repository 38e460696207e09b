//! Cuts a quantized model at its QuantizeLinear nodes, so that each operator can be compared on identical integers.

use std::collections::{BTreeMap, BTreeSet};

use equant::graph::shape::infer;
use equant::graph::{Dim, Graph, Node, ValueInfo};

/// A piece of a quantized graph: quantized inputs, the operators up to the next quantization, one output.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Its first operator's name and all operator types.
    pub name: String,
    /// Inputs are float values of the whole graph (quantized again as the first thing); the output is dequantized, or
    /// the whole graph's float output.
    pub graph: Graph,
}

/// All pieces of a prepared QDQ graph, in its order. Together they hold every operator that computes.
///
/// # Panics
///
/// If shapes cannot be inferred.
pub fn pieces(graph: &Graph) -> Vec<Piece> {
    let types = infer(graph, 1).unwrap_or_else(|error| panic!("{error}"));
    let makers = graph.producers();
    let maker = |value: &str| makers.get(value).map(|&index| &graph.nodes[index]);
    let mut ends: Vec<(String, Vec<usize>)> = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        // The first reader of the integers turns them back.
        if node.op_type == "QuantizeLinear"
            && let Some(back) = graph
                .nodes
                .iter()
                .position(|reader| reader.op_type == "DequantizeLinear" && reader.input(0) == Some(node.output()))
        {
            ends.push((graph.nodes[back].output().to_owned(), vec![index, back]));
        }
    }
    for output in &graph.outputs {
        if maker(&output.name).is_some_and(|node| node.op_type != "DequantizeLinear") {
            ends.push((output.name.clone(), Vec::new()));
        }
    }
    let mut found = Vec::new();
    for (output, tail) in ends {
        let mut nodes: BTreeSet<usize> = tail.iter().copied().collect();
        let mut inputs: BTreeSet<String> = BTreeSet::new();
        let mut computes = Vec::new();
        let start = tail.first().map_or(Some(output.as_str()), |&quantize| graph.nodes[quantize].input(0));
        let mut waiting: Vec<&str> = start.into_iter().collect();
        while let Some(value) = waiting.pop() {
            let Some(node) = maker(value) else { continue };
            nodes.insert(makers[value]);
            if node.op_type != "DequantizeLinear" {
                computes.push(makers[value]);
                waiting.extend(node.inputs.iter().map(String::as_str).filter(|name| !name.is_empty()));
            } else if let Some(quantize) = node.input(0).and_then(maker) {
                // An activation: its float value is fed in from outside.
                nodes.insert(makers[quantize.output()]);
                inputs.extend(quantize.input(0).map(str::to_owned));
            }
        }
        computes.sort_unstable();
        computes.dedup();
        if computes.is_empty() {
            continue;
        }
        let info = |name: &String| ValueInfo {
            name: name.clone(),
            dtype: types[name].dtype,
            shape: Some(types[name].shape.iter().map(|&size| Dim::Known(size)).collect()),
        };
        let nodes: Vec<Node> = nodes.into_iter().map(|index| graph.nodes[index].clone()).collect();
        let kinds: Vec<&str> = computes.iter().map(|&index| graph.nodes[index].op_type.as_str()).collect();
        let read: BTreeSet<&String> = nodes.iter().flat_map(|node| &node.inputs).collect();
        let initializers: BTreeMap<_, _> = graph
            .initializers
            .iter()
            .filter(|(name, _)| read.contains(name))
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect();
        found.push(Piece {
            name: format!("{} ({})", graph.nodes[computes[0]].name, kinds.join(", ")),
            graph: Graph {
                name: "piece".into(),
                opset: graph.opset,
                other_opsets: graph.other_opsets.clone(),
                nodes,
                initializers,
                inputs: inputs.iter().map(info).collect(),
                outputs: vec![info(&output)],
                ..Graph::default()
            },
        });
    }
    found
}
