//! Nodes in the making, under names of their own.

use std::collections::BTreeMap;

use crate::graph::{Attr, Graph, Node, Tensor, Tied};

/// What a recurrent node becomes.
pub(super) struct Steps {
    pub(super) nodes: Vec<Node>,
    pub(super) constants: Vec<(String, Tensor)>,
    pub(super) tied: Vec<Tied>,
    /// Begins every name.
    stem: String,
    ties: BTreeMap<&'static str, usize>,
}

impl Steps {
    pub(super) fn new(graph: &Graph, name: &str) -> Self {
        let taken = |stem: &str| {
            let begins = |name: &String| name.starts_with(stem);
            graph.initializers.keys().any(begins)
                || graph.inputs.iter().any(|input| begins(&input.name))
                || graph.nodes.iter().any(|node| begins(&node.name) || node.outputs.iter().any(begins))
        };
        let stems = std::iter::once(format!("{name}/")).chain((1..).map(|i| format!("{name}.{i}/")));
        let stem = stems.into_iter().find(|stem| !taken(stem)).unwrap_or_default();
        Self { nodes: Vec::new(), constants: Vec::new(), tied: Vec::new(), stem, ties: BTreeMap::new() }
    }

    /// A constant under a name.
    pub(super) fn constant(&mut self, name: &str, tensor: Tensor) -> String {
        let name = format!("{}{name}", self.stem);
        if !self.constants.iter().any(|(known, _)| *known == name) {
            self.constants.push((name.clone(), tensor));
        }
        name
    }

    /// A node, whose output is given the node's own name.
    pub(super) fn node(&mut self, op: &str, name: &str, inputs: &[&str], attrs: &[(&str, Attr)]) -> String {
        let name = format!("{}{name}", self.stem);
        let node = Node::new(op, name.clone(), inputs.iter().copied(), [name.clone()]);
        self.nodes.push(attrs.iter().fold(node, |node, (key, attr)| node.with(key, attr.clone())));
        name
    }

    /// The values are to share one scale with others of this label; `wide`: in 16 bits.
    pub(super) fn tie(&mut self, label: &'static str, value: &str, wide: bool) {
        let index = *self.ties.entry(label).or_insert_with(|| {
            self.tied.push(Tied { values: Vec::new(), wide });
            self.tied.len() - 1
        });
        self.tied[index].values.push(value.to_owned());
    }

    /// What follows has labels of its own.
    pub(super) fn untie(&mut self) {
        self.ties.clear();
    }

    /// Slice `index` of `value` along `axis`, which goes.
    pub(super) fn slice(&mut self, name: &str, value: &str, axis: usize, index: usize) -> String {
        let at = self.constant(&format!("index_{index}"), Tensor::from_i64(&[], &[index as i64]));
        self.node("Gather", name, &[value, &at], &[("axis", Attr::Int(axis as i64))])
    }

    /// Joins values along an axis, as many to a node as a plan takes.
    pub(super) fn concat(&mut self, name: &str, values: &[String], axis: usize) -> String {
        const MOST: usize = 128;
        let axis_attr = [("axis", Attr::Int(axis as i64))];
        let parts: Vec<String> = match values.len() > MOST {
            true => {
                let parts = values.chunks(MOST).enumerate();
                parts.map(|(i, part)| self.concat(&format!("{name}_part_{i}"), part, axis)).collect()
            }
            false => values.to_vec(),
        };
        let inputs: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.node("Concat", name, &inputs, &axis_attr)
    }

    /// Axes of one where `axes` say.
    pub(super) fn unsqueeze(&mut self, name: &str, value: &str, axes: &[i64]) -> String {
        let label = axes.iter().map(i64::to_string).collect::<Vec<_>>().join("_");
        let axes = self.constant(&format!("axes_{label}"), Tensor::from_i64(&[axes.len()], axes));
        self.node("Unsqueeze", name, &[value, &axes], &[])
    }

    /// Gives the value a name of the graph.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let values = self.nodes.iter_mut().flat_map(|node| node.inputs.iter_mut().chain(&mut node.outputs));
        for value in values.chain(self.tied.iter_mut().flat_map(|tied| &mut tied.values)) {
            if value == from {
                to.clone_into(value);
            }
        }
    }
}
