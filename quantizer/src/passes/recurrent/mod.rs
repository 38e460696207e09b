//! LSTM, GRU and RNN become their steps: products, sums and functions of single values, on weights that all steps share.
//!
//! What is exported is then standard at every step, and a quantized file, its simulation and its plan agree by
//! construction. Values that are the same at different steps are tied ([`crate::graph::Tied`]): calibration gives them one
//! scale. The state that sums up over the steps (the cell of an LSTM, the output of a GRU) is kept in 16 bits; whatever
//! else reads it reads it narrowed to 8 bits, which a Clip without effect marks.

mod cell;
mod layer;
mod steps;

use crate::graph::shape::infer_partial;
use crate::graph::{Graph, Node};

use layer::Layer;

/// Whether a node is one of the operators that this unrolls.
pub(crate) fn is_recurrent(node: &Node) -> bool {
    node.domain.is_empty() && matches!(node.op_type.as_str(), "LSTM" | "GRU" | "RNN")
}

/// Why a recurrent node cannot be unrolled.
pub(crate) fn refusal(graph: &Graph, node: &Node) -> Option<String> {
    Layer::of(graph, node, &infer_partial(graph, 1)).err()
}

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut count = 0;
    while let Some((index, steps)) = next(graph) {
        graph.nodes.splice(index..=index, steps.nodes);
        graph.initializers.extend(steps.constants);
        graph.tied.extend(steps.tied);
        count += 1;
    }
    count
}

/// The first recurrent node that can be unrolled, and what it becomes.
fn next(graph: &Graph) -> Option<(usize, steps::Steps)> {
    if !graph.nodes.iter().any(is_recurrent) {
        return None;
    }
    let shapes = infer_partial(graph, 1);
    graph.nodes.iter().enumerate().find_map(|(index, node)| {
        let layer = Layer::of(graph, node, &shapes).ok()?;
        Some((index, cell::unroll(graph, node, &layer)))
    })
}

#[cfg(test)]
mod tests;
