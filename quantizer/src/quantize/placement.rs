//! Which values are quantized, and which of them share their parameters.
//!
//! The policy, after what ONNX Runtime's CPU kernels fuse and what the Equant runtime executes:
//!
//! - *Integer kernels read 8 bits*: the inputs of Conv, Gemm, MatMul, of pooling and of products of two activations
//!   are quantized.
//! - *Conv writes 8 bits*: its output is quantized, after the Relu or Clip that follows, which the integer range then
//!   makes redundant. (ONNX Runtime has no integer Conv with float output.)
//! - *Gemm and MatMul may write float*: their outputs are quantized only where a reader needs it. So logits and
//!   attention scores keep full precision.
//! - *Add, LayerNormalization and Softmax take what they get*: the residual stream of a transformer stays in float
//!   (32-bit integers in a plan), the residual sums of a convolutional network are 8-bit as all around them is.
//! - *A function of one value is a table*, quantized at both ends only (see [`super::chains`]).
//! - *Tables are quantized*: what a model looks up by indices is 8 bits wide where it is stored.
//! - *Steps of a sequence are quantized alike*: values that play one role at several steps form one group; those that sum
//!   up over the steps have 16 bits. A state and the output it comes from are two such steps.
//! - *Operators that move data keep parameters*: Reshape, Transpose, MaxPool, Concat, Pad, Slice, Resize and their like do
//!   not requantize; their inputs and outputs form one group.
//! - *Graph inputs are quantized*: a plan takes integers in. *Graph outputs stay float*, unless their group is quantized
//!   for another reason.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::chains;
use crate::graph::indices::is_lookup;
use crate::graph::support::roots;
use crate::graph::{Graph, Node, movement, state};

/// Values that share scale and zero point.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Group {
    /// All of them, in graph order.
    pub(super) values: Vec<String>,
    /// Those whose statistics decide: not made from others of the group by moving data.
    pub(super) sources: Vec<String>,
    /// Constants among them (in `values` too).
    pub(super) constants: Vec<String>,
    /// Single numbers that appear among the values: what Pad pads with.
    pub(super) numbers: Vec<f32>,
    /// What the clamps that make the sources let through, when each source is made by one.
    pub(super) bounds: Option<(f32, f32)>,
    /// Whether all sources are outputs of Softmax.
    pub(super) is_softmax: bool,
    /// Whether it takes 16 bits: values that sum up over the steps of a sequence ([`crate::graph::Tied`]).
    pub(super) is_wide: bool,
}

impl Group {
    /// Whether scale and zero point follow from what the values are, or from their extremes, and nothing is to choose.
    pub(super) fn is_fixed(&self) -> bool {
        self.is_softmax || self.is_wide
    }
}

/// Producers and readers of values.
pub(super) struct Links<'g> {
    graph: &'g Graph,
    producers: HashMap<&'g str, usize>,
    consumers: HashMap<&'g str, Vec<usize>>,
}

impl<'g> Links<'g> {
    pub(super) fn new(graph: &'g Graph) -> Self {
        Self { graph, producers: graph.producers(), consumers: graph.consumers() }
    }

    pub(super) fn producer(&self, value: &str) -> Option<&'g Node> {
        self.graph.nodes.get(*self.producers.get(value)?)
    }

    /// The nodes that read a value, once per reading input.
    pub(super) fn readers(&self, value: &str) -> impl Iterator<Item = &'g Node> + '_ {
        self.consumers.get(value).into_iter().flatten().filter_map(|&i| self.graph.nodes.get(i))
    }

    /// The value after the clamps (Relu, Clip) that alone read `value`.
    pub(super) fn after_clamps<'v>(&self, mut value: &'v str) -> &'v str
    where
        'g: 'v,
    {
        while !self.graph.is_output(value)
            && let mut readers = self.readers(value)
            && let (Some(clamp), None) = (readers.next(), readers.next())
            && is_clamp(clamp)
        {
            value = clamp.output();
        }
        value
    }
}

/// Whether a node is Relu or Clip.
pub(super) fn is_clamp(node: &Node) -> bool {
    matches!(node.op_type.as_str(), "Relu" | "Clip") && node.domain.is_empty()
}

/// The inputs whose elements an operator moves unchanged; none for operators that compute.
fn moved(node: &Node) -> &[String] {
    match node.op_type.as_str() {
        "Gather" => node.inputs.get(..1).unwrap_or_default(),
        "Concat" => &node.inputs,
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Identity" | "Dropout" | "MaxPool"
        | "GlobalMaxPool" | "ReduceMax" | "ReduceMin" | "Pad" | "DepthToSpace" | "SpaceToDepth" | "Resize" => {
            node.inputs.get(..1).unwrap_or_default()
        }
        _ if movement::moves(node) => node.inputs.get(..1).unwrap_or_default(),
        _ => &[],
    }
}

/// The groups of quantized values, in graph order.
pub(super) fn place(graph: &Graph) -> Vec<Group> {
    let links = Links::new(graph);
    let needed = needed(graph, &links);
    let groups = Groups::new(graph);
    let wanted: BTreeSet<usize> = needed.iter().filter_map(|value| groups.of(value)).collect();
    let mut found: BTreeMap<usize, Group> = BTreeMap::new();
    for (i, value) in groups.values.iter().enumerate() {
        let leader = groups.leader(i);
        if wanted.contains(&leader) {
            add(graph, &links, found.entry(leader).or_default(), value);
        }
    }
    let mut found: Vec<Group> = found.into_values().collect();
    for group in &mut found {
        finish(graph, &links, group);
    }
    found
}

/// The values that operators need quantized.
fn needed(graph: &Graph, links: &Links<'_>) -> BTreeSet<String> {
    let mut needed: BTreeSet<String> = chains::ends(graph, links).into_iter().collect();
    // A plan takes integers in.
    let read =
        graph.inputs.iter().filter(|input| input.dtype.is_float() && links.readers(&input.name).next().is_some());
    needed.extend(read.map(|input| input.name.clone()));
    let roots = roots(graph);
    let constant = |name: &str| graph.initializers.contains_key(name);
    for node in graph.nodes.iter().filter(|node| node.domain.is_empty()) {
        let inputs = match node.op_type.as_str() {
            _ if node.is_linear() => 2,
            "AveragePool" | "GlobalAveragePool" | "MaxPool" | "GlobalMaxPool" | "ReduceMin" => 1,
            // The mean over tokens after a normalization is taken in full precision.
            "ReduceMean" | "ReduceSum" if !is_normalized(links, node) => 1,
            "Mul" if !roots.contains_key(node.output()) && !node.inputs.iter().any(|name| constant(name)) => 2,
            _ => 0,
        };
        needed.extend(node.inputs.iter().take(inputs).filter(|name| !name.is_empty() && !constant(name)).cloned());
        if is_lookup(graph, node) {
            needed.insert(node.output().to_owned());
        }
        if matches!(node.op_type.as_str(), "Conv" | "ConvTranspose") {
            needed.insert(links.after_clamps(node.output()).to_owned());
        }
    }
    needed
}

fn is_normalized(links: &Links<'_>, node: &Node) -> bool {
    node.input(0)
        .and_then(|value| links.producer(value))
        .is_some_and(|maker| matches!(maker.op_type.as_str(), "LayerNormalization" | "RMSNormalization"))
}

fn add(graph: &Graph, links: &Links<'_>, group: &mut Group, value: &str) {
    group.values.push(value.to_owned());
    if graph.initializers.contains_key(value) {
        return group.constants.push(value.to_owned());
    }
    match links.producer(value) {
        Some(node) if !moved(node).is_empty() => {
            if node.op_type == "Pad" {
                let pad = node.input(2).and_then(|name| graph.initializers.get(name)?.scalar_f32());
                group.numbers.extend(pad);
            }
        }
        _ => group.sources.push(value.to_owned()),
    }
}

fn finish(graph: &Graph, links: &Links<'_>, group: &mut Group) {
    let makers: Vec<Option<&Node>> = group.sources.iter().map(|value| links.producer(value)).collect();
    group.is_wide = group.values.iter().any(|value| graph.is_wide(value));
    group.is_softmax = !makers.is_empty()
        && group.constants.is_empty()
        && group.numbers.iter().all(|number| (0.0..1.0).contains(number))
        && makers.iter().all(|maker| maker.is_some_and(|node| node.op_type == "Softmax"));
    let all: Option<Vec<(f32, f32)>> = makers.iter().map(|maker| bounds(graph, (*maker)?)).collect();
    group.bounds = all.unwrap_or_default().into_iter().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
}

/// The values a clamp with constant bounds lets through.
pub(super) fn bounds(graph: &Graph, node: &Node) -> Option<(f32, f32)> {
    let bound = |i: usize, absent: f32| match node.input(i) {
        None => Some(absent),
        Some(name) => graph.initializers.get(name)?.scalar_f32(),
    };
    match node.op_type.as_str() {
        "Relu" => Some((0.0, f32::INFINITY)),
        "Clip" => Some((bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?)),
        _ => None,
    }
}

/// Values joined by operators that move data (union-find; the leader is the first in graph order).
struct Groups<'g> {
    values: Vec<&'g str>,
    index: HashMap<&'g str, usize>,
    parent: Vec<usize>,
}

impl<'g> Groups<'g> {
    fn new(graph: &'g Graph) -> Self {
        let mut groups = Self { values: Vec::new(), index: HashMap::new(), parent: Vec::new() };
        for input in &graph.inputs {
            groups.insert(&input.name);
        }
        for node in &graph.nodes {
            let outputs: Vec<usize> =
                node.outputs.iter().filter(|name| !name.is_empty()).map(|name| groups.insert(name)).collect();
            for input in moved(node).iter().filter(|name| !name.is_empty()) {
                let input = groups.insert(input);
                // All parts of a Split; other outputs hold something else.
                for &output in outputs.iter().take(if node.op_type == "Split" { usize::MAX } else { 1 }) {
                    groups.join(input, output);
                }
            }
        }
        // Metadata that cannot be read are refused before anything is quantized.
        let states = state::pairs(graph).unwrap_or_default().into_iter().map(|pair| vec![pair.output, pair.input]);
        for tied in graph.tied.iter().map(|tied| tied.values.clone()).chain(states) {
            let known: Vec<usize> = tied.iter().filter_map(|value| groups.index.get(value.as_str()).copied()).collect();
            known.windows(2).for_each(|pair| groups.join(pair[0], pair[1]));
        }
        groups
    }

    fn insert(&mut self, value: &'g str) -> usize {
        *self.index.entry(value).or_insert_with(|| {
            self.values.push(value);
            self.parent.push(self.parent.len());
            self.parent.len() - 1
        })
    }

    fn leader(&self, mut i: usize) -> usize {
        while self.parent[i] != i {
            i = self.parent[i];
        }
        i
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.leader(a), self.leader(b));
        self.parent[a.max(b)] = a.min(b);
    }

    fn of(&self, value: &str) -> Option<usize> {
        self.index.get(value).map(|&i| self.leader(i))
    }
}
