//! The safety net: where a layer's output is mostly noise, the layer and what it reads get 8 bits.
//!
//! Noise adds up from layer to layer, so the first output under the floor is seen to first; what follows may then be well.

use super::make::Maker;
use super::trial::Judged;
use super::{CHECKED, Error, layers, prepared};
use crate::graph::{Graph, Node};
use crate::quantize::{Bits, Config, Outcome, Width};
use crate::{qdq, report};

/// Times at most that one output is seen to; after that all that are under the floor are, at once.
const SINGLE: usize = 8;

/// Widens layers until none is under `floor_db`, or none is left to widen; `config` is what `judged` was made with.
pub(super) fn widen(
    make: &Maker<'_>,
    judged: Judged,
    config: &Config,
    floor_db: f64,
    notes: &mut Vec<String>,
) -> Result<Judged, Error> {
    let mut config = config.clone();
    let mut judged = judged;
    for round in 0.. {
        let low: Vec<report::Layer> = outputs(make, &judged.outcome)?
            .into_iter()
            .filter(|layer| layer.sqnr_db < floor_db && narrow(make.graph, &config, &layer.node))
            .collect();
        let Some(first) = low.first() else { break };
        let some = if round < SINGLE { std::slice::from_ref(first) } else { &low[..] };
        let mut widened = config.clone();
        for layer in some {
            widen_at(make.graph, &mut widened, &layer.node);
        }
        let after = make.judge_rounded(make.model(&widened)?)?;
        for layer in some {
            notes.push(format!(
                "node `{}`: its output had an SQNR of {:.1} dB, under the floor of {floor_db} dB; it and what it reads were \
                 given 8 bits instead of {} (the model: from {:.1} dB to {:.1} dB)",
                layer.node, layer.sqnr_db, config.bits, judged.sqnr_db, after.sqnr_db
            ));
        }
        (config, judged) = (widened, after);
    }
    Ok(judged)
}

/// The SQNR of every quantized value that a node makes, in graph order.
fn outputs(make: &Maker<'_>, outcome: &Outcome) -> Result<Vec<report::Layer>, Error> {
    let (graph, request) = (make.graph, make.request);
    let quantized = prepared(qdq::export(graph, outcome), make.file)?;
    let samples = make.samples.head(CHECKED);
    layers::quality(graph, &quantized, &samples, request, &|_| ()).map_err(|source| Error::run(make.file, source))
}

/// The node and all before it up to and with the nearest that have weights.
fn with_layers_before<'g>(graph: &'g Graph, node: &str) -> Vec<&'g Node> {
    let mut found: Vec<&Node> = graph.nodes.iter().filter(|candidate| candidate.name == node).collect();
    let mut next = 0;
    while let Some(&node) = found.get(next) {
        next += 1;
        if has_weights(graph, node) {
            continue;
        }
        for input in &node.inputs {
            let maker = graph.nodes.iter().find(|candidate| candidate.outputs.contains(input));
            if let Some(maker) = maker.filter(|maker| found.iter().all(|seen| seen.name != maker.name)) {
                found.push(maker);
            }
        }
    }
    found
}

fn has_weights(graph: &Graph, node: &Node) -> bool {
    crate::target::LayerKind::of(graph, node).is_some()
}

fn readers<'g>(graph: &'g Graph, node: &str) -> impl Iterator<Item = &'g Node> {
    let outputs = graph.nodes.iter().find(|candidate| candidate.name == node).map(|node| &node.outputs);
    graph.nodes.iter().filter(move |reader| outputs.is_some_and(|o| o.iter().any(|name| reader.inputs.contains(name))))
}

/// Whether there is something to widen.
fn narrow(graph: &Graph, config: &Config, node: &str) -> bool {
    let weights = |node: &&Node| config.bits_of(&node.name) != Bits::default();
    let activations = |node: &Node| config.bits_of(&node.name).activations != Width::Eight;
    with_layers_before(graph, node).iter().any(weights) || readers(graph, node).any(activations)
}

fn widen_at(graph: &Graph, config: &mut Config, node: &str) {
    for before in with_layers_before(graph, node) {
        config.layers.insert(before.name.clone(), Bits::default());
    }
    for reader in readers(graph, node) {
        let bits = Bits { activations: Width::Eight, ..config.bits_of(&reader.name) };
        config.layers.insert(reader.name.clone(), bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Tensor;

    /// Two layers, a Relu after the first, and a sum of both.
    fn graph() -> Graph {
        let mut graph = Graph {
            nodes: vec![
                Node::new("Gemm", "a", ["x", "a.w"], ["a.y"]),
                Node::new("Relu", "relu", ["a.y"], ["r"]),
                Node::new("Gemm", "b", ["r", "b.w"], ["b.y"]),
                Node::new("Add", "add", ["r", "b.y"], ["y"]),
                Node::new("Gemm", "c", ["y", "c.w"], ["z"]),
            ],
            ..Graph::default()
        };
        for name in ["a.w", "b.w", "c.w"] {
            graph.initializers.insert(name.into(), Tensor::from_f32(&[1, 1], &[1.0]));
        }
        graph
    }

    #[test]
    fn a_layer_and_what_it_reads_are_widened_once() {
        let (graph, four): (Graph, Bits) = (graph(), "W4A4".parse().unwrap());
        let mut config = Config { bits: four, ..Config::default() };
        assert!(narrow(&graph, &config, "relu"));
        widen_at(&graph, &mut config, "relu");
        assert!(!narrow(&graph, &config, "relu"));
        let bits = |name: &str| config.bits_of(name).to_string();
        assert_eq!(
            (bits("a"), bits("b"), bits("add"), bits("c")),
            ("W8A8".into(), "W4A8".into(), "W4A8".into(), "W4A4".into())
        );
    }

    #[test]
    fn sums_widen_both_branches() {
        let (graph, four): (Graph, Bits) = (graph(), "W4A8".parse().unwrap());
        let mut config = Config { bits: four, ..Config::default() };
        widen_at(&graph, &mut config, "add");
        let bits = |name: &str| config.bits_of(name).to_string();
        assert_eq!((bits("a"), bits("b"), bits("c")), ("W8A8".into(), "W8A8".into(), "W4A8".into()));
        assert!(narrow(&graph, &config, "c") && !narrow(&graph, &config, "add"));
    }
}
