//! Several nodes in place of one.

use super::add_constant;
use crate::graph::{Attr, Graph, Node, Tensor};

/// Tries a rewrite on every node, in order, and goes on behind the nodes that it puts in a node's place, as many as it says.
/// Returns how often it applied.
pub(super) fn each(graph: &mut Graph, mut rewrite: impl FnMut(&mut Graph, usize) -> Option<usize>) -> usize {
    let (mut count, mut index) = (0, 0);
    while index < graph.nodes.len() {
        let nodes = rewrite(graph, index);
        count += usize::from(nodes.is_some());
        index += nodes.unwrap_or(1);
    }
    count
}

/// Nodes in the making that will stand where one node stands. Their values and constants are named after that node.
pub(super) struct Rewrite<'g> {
    pub(super) graph: &'g mut Graph,
    index: usize,
    name: String,
    nodes: Vec<Node>,
}

impl<'g> Rewrite<'g> {
    /// A rewrite of node `index`.
    pub(super) fn new(graph: &'g mut Graph, index: usize) -> Self {
        let name = graph.nodes[index].name.clone();
        Self { graph, index, name, nodes: Vec::new() }
    }

    /// A name that neither the graph nor the new nodes use.
    fn fresh(&self, stem: &str) -> String {
        let taken = |name: &str| {
            self.graph.fresh_name(name) != name
                || self.nodes.iter().any(|node| node.name == name || node.outputs.iter().any(|output| output == name))
        };
        let stem = format!("{}.{stem}", self.name);
        let numbered = (1..).map(|i| format!("{stem}_{i}"));
        std::iter::once(stem.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(stem)
    }

    /// A new constant.
    pub(super) fn constant(&mut self, stem: &str, tensor: Tensor) -> String {
        let name = self.fresh(stem);
        add_constant(self.graph, &name, tensor)
    }

    /// A new constant of integers.
    pub(super) fn integers(&mut self, stem: &str, values: &[i64]) -> String {
        self.constant(stem, Tensor::from_i64(&[values.len()], values))
    }

    /// Appends a node, under the old one's name if that is free, and returns its output.
    pub(super) fn push(&mut self, mut node: Node) -> String {
        let stem = node.op_type.to_lowercase();
        if node.name != self.name || self.nodes.iter().any(|known| known.name == self.name) {
            node.name = self.fresh(&stem);
        }
        let output = self.fresh(&format!("{stem}_output"));
        node.outputs = vec![output.clone()];
        self.nodes.push(node);
        output
    }

    /// Appends an operator and returns its output.
    pub(super) fn op(&mut self, op_type: &str, inputs: &[&str], attrs: &[(&str, Attr)]) -> String {
        let node = Node::new(op_type, "", inputs.iter().copied(), [""]);
        self.push(attrs.iter().fold(node, |node, (name, attr)| node.with(name, attr.clone())))
    }

    /// As [`Self::op`] for the operator that does the old node's work, and takes its name.
    pub(super) fn main(&mut self, op_type: &str, inputs: &[&str], attrs: &[(&str, Attr)]) -> String {
        let node = Node::new(op_type, self.name.clone(), inputs.iter().copied(), [""]);
        self.push(attrs.iter().fold(node, |node, (name, attr)| node.with(name, attr.clone())))
    }

    /// `x` with its axes in another order.
    pub(super) fn transpose(&mut self, x: &str, perm: &[usize]) -> String {
        if perm.is_sorted() {
            return x.to_owned();
        }
        let perm = perm.iter().map(|&axis| axis as i64).collect();
        self.op("Transpose", &[x], &[("perm", Attr::Ints(perm))])
    }

    /// `x` in another shape.
    pub(super) fn reshape(&mut self, x: &str, target: &[i64]) -> String {
        let shape = self.integers("shape", target);
        self.op("Reshape", &[x, &shape], &[])
    }

    /// `x` with new axes of size 1.
    pub(super) fn unsqueeze(&mut self, x: &str, axes: &[i64]) -> String {
        self.with_axes("Unsqueeze", x, axes)
    }

    /// `x` without these axes of size 1.
    pub(super) fn squeeze(&mut self, x: &str, axes: &[i64]) -> String {
        self.with_axes("Squeeze", x, axes)
    }

    fn with_axes(&mut self, op_type: &str, x: &str, axes: &[i64]) -> String {
        if axes.is_empty() {
            return x.to_owned();
        }
        let axes = self.integers("axes", axes);
        self.op(op_type, &[x, &axes], &[])
    }

    /// Puts the nodes in the old one's place; the last of them takes over its output. Returns how many they are.
    pub(super) fn finish(mut self) -> usize {
        let output = self.graph.nodes[self.index].output().to_owned();
        if let Some(last) = self.nodes.last_mut() {
            last.outputs = vec![output];
        }
        let count = self.nodes.len();
        self.graph.nodes.splice(self.index..=self.index, self.nodes);
        count
    }
}

/// Target of a Reshape to `two` that also serves another batch, for which it is `three`: the size that differs is inferred.
pub(super) fn target(two: &[usize], three: &[usize]) -> Option<Vec<i64>> {
    let dims: Vec<i64> = two.iter().zip(three).map(|(&a, &b)| if a == b { a as i64 } else { -1 }).collect();
    let inferred = dims.iter().filter(|&&dim| dim == -1).count();
    (two.len() == three.len() && inferred <= 1).then_some(dims)
}
