//! Functions of one value that take several nodes, such as GELU written with Erf.

use std::collections::{BTreeMap, BTreeSet};

use super::placement::{Links, is_clamp};
use crate::graph::support::roots;
use crate::graph::{Graph, Node};

/// The ends of the functions of one value that are not linear: the argument and each result used elsewhere.
/// A table computes such a function from 8 bits to 8 bits, so both ends are quantized and nothing between.
/// Scaling, shifting and clamping need no table.
pub(super) fn ends(graph: &Graph, links: &Links<'_>) -> Vec<String> {
    let roots = roots(graph);
    let mut ends = Vec::new();
    for node in &graph.nodes {
        let value = node.output();
        let Some(root) = roots.get(value) else { continue };
        let leaves =
            graph.is_output(value) || links.readers(value).any(|reader| roots.get(reader.output()) != Some(root));
        if leaves && !is_linear(graph, links, &roots, value, root) {
            ends.push(links.after_clamps(root).to_owned());
            // A graph output stays in full precision.
            if !graph.is_output(value) {
                ends.push(value.to_owned());
            }
        }
    }
    ends
}

/// Whether every node between `root` and `value` scales, shifts or clamps.
fn is_linear(graph: &Graph, links: &Links<'_>, roots: &BTreeMap<String, String>, value: &str, root: &str) -> bool {
    let mut waiting = vec![value];
    let mut seen = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        if name == root || roots.get(name).is_none_or(|r| r != root) || !seen.insert(name) {
            continue;
        }
        let Some(node) = links.producer(name) else { continue };
        let data: Vec<&str> = data_inputs(graph, node).collect();
        let linear = match node.op_type.as_str() {
            "Add" | "Sub" | "Mul" => data.len() == 1,
            "Div" => data.len() == 1 && data.first().copied() == node.input(0),
            _ => is_clamp(node),
        };
        if !linear {
            return false;
        }
        waiting.extend(data);
    }
    true
}

fn data_inputs<'g>(graph: &'g Graph, node: &'g Node) -> impl Iterator<Item = &'g str> {
    node.inputs.iter().map(String::as_str).filter(|name| !name.is_empty() && !graph.initializers.contains_key(*name))
}
