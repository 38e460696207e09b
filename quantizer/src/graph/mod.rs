//! The graph between reading and writing ONNX: named values, nodes in topological order.
//!
//! The graph records faithfully what the file says (operator type, attributes, initializers);
//! what is unsupported is decided by later stages, with the node's name.

pub(crate) mod einsum;
pub mod eval;
pub mod indices;
pub mod interpolation;
pub mod movement;
pub mod shape;
pub mod state;
pub mod support;
mod tensor;

pub use tensor::{DataType, Tensor};

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// One dimension of a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A known size.
    Known(usize),
    /// A symbolic size (`N`), or an empty name when the file gives none.
    Symbol(String),
}

/// A graph input or output as the file declares it.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueInfo {
    /// The value's name.
    pub name: String,
    /// Its element type.
    pub dtype: DataType,
    /// Its shape; `None` when the file declares no shape.
    pub shape: Option<Vec<Dim>>,
}

/// An attribute of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Attr {
    /// `INT`.
    Int(i64),
    /// `FLOAT`.
    Float(f32),
    /// `STRING` (UTF-8).
    String(String),
    /// `TENSOR`.
    Tensor(Tensor),
    /// `INTS`.
    Ints(Vec<i64>),
    /// `FLOATS`.
    Floats(Vec<f32>),
    /// `STRINGS`.
    Strings(Vec<String>),
    /// Anything else (sub-graphs, sparse tensors, types): its ONNX attribute type number.
    Unsupported(i32),
}

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// A name unique in the graph; the reader makes one up (`Conv_12`) where the file has none.
    pub name: String,
    /// ONNX operator type, such as `Conv`.
    pub op_type: String,
    /// Operator domain; empty for the default `ai.onnx`.
    pub domain: String,
    /// Names of the inputs; an empty name is an absent optional input.
    pub inputs: Vec<String>,
    /// Names of the outputs; an empty name is an unused output.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attrs: BTreeMap<String, Attr>,
}

impl Node {
    /// A node of the default domain without attributes.
    pub fn new(
        op_type: &str,
        name: impl Into<String>,
        inputs: impl IntoIterator<Item = impl Into<String>>,
        outputs: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            name: name.into(),
            op_type: op_type.to_owned(),
            domain: String::new(),
            inputs: inputs.into_iter().map(Into::into).collect(),
            outputs: outputs.into_iter().map(Into::into).collect(),
            attrs: BTreeMap::new(),
        }
    }

    /// The same node with one more attribute.
    #[must_use]
    pub fn with(mut self, name: &str, attr: Attr) -> Self {
        self.attrs.insert(name.to_owned(), attr);
        self
    }

    /// Whether it multiplies its input 0 by its input 1, which may be weights: Conv, ConvTranspose, Gemm or MatMul.
    pub fn is_linear(&self) -> bool {
        self.domain.is_empty() && matches!(self.op_type.as_str(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul")
    }

    /// Input `i`, if present and not the empty name.
    pub fn input(&self, i: usize) -> Option<&str> {
        self.inputs.get(i).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Output 0 (every supported operator has one).
    pub fn output(&self) -> &str {
        self.outputs.first().map_or("", String::as_str)
    }

    /// An `INT` attribute, or its default.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.attrs.get(name) {
            Some(Attr::Int(v)) => *v,
            _ => default,
        }
    }

    /// A `FLOAT` attribute, or its default.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        match self.attrs.get(name) {
            Some(Attr::Float(v)) => *v,
            _ => default,
        }
    }

    /// An `INTS` attribute.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attrs.get(name) {
            Some(Attr::Ints(v)) => Some(v),
            _ => None,
        }
    }

    /// A `STRING` attribute.
    pub fn string(&self, name: &str) -> Option<&str> {
        match self.attrs.get(name) {
            Some(Attr::String(v)) => Some(v),
            _ => None,
        }
    }
}

/// A model: nodes in topological order over named values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    /// The graph's name.
    pub name: String,
    /// Version of the default operator set.
    pub opset: i64,
    /// Versions of the other operator sets the file imports, by domain.
    pub other_opsets: BTreeMap<String, i64>,
    /// The nodes, each after the producers of its inputs.
    pub nodes: Vec<Node>,
    /// Constant values by name.
    pub initializers: BTreeMap<String, Tensor>,
    /// Inputs without initializers, in order.
    pub inputs: Vec<ValueInfo>,
    /// Outputs, in order.
    pub outputs: Vec<ValueInfo>,
    /// `metadata_props` of the file.
    pub metadata: BTreeMap<String, String>,
    /// Values that are to be quantized alike; no part of a file.
    pub tied: Vec<Tied>,
}

/// Values that are to be quantized with one scale and zero point: those that play one role at several steps of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tied {
    /// The values; names that are no longer in the graph do not matter.
    pub values: Vec<String>,
    /// Whether they sum up over the steps, which takes 16 bits.
    pub wide: bool,
}

impl Graph {
    /// Index of the node that makes each value.
    pub fn producers(&self) -> HashMap<&str, usize> {
        let mut map = HashMap::new();
        for (i, node) in self.nodes.iter().enumerate() {
            for output in node.outputs.iter().filter(|name| !name.is_empty()) {
                map.insert(output.as_str(), i);
            }
        }
        map
    }

    /// Indices of the nodes that read each value, in order, once per reading input.
    pub fn consumers(&self) -> HashMap<&str, Vec<usize>> {
        let mut map: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, node) in self.nodes.iter().enumerate() {
            for input in node.inputs.iter().filter(|name| !name.is_empty()) {
                map.entry(input.as_str()).or_default().push(i);
            }
        }
        map
    }

    /// Whether the value is a graph output.
    pub fn is_output(&self, name: &str) -> bool {
        self.outputs.iter().any(|output| output.name == name)
    }

    /// Whether anything reads a value: a node, or who runs the model. The empty name is no value.
    pub fn is_read(&self, name: &str) -> bool {
        let by = |node: &Node| node.inputs.iter().any(|input| input == name);
        !name.is_empty() && (self.is_output(name) || self.nodes.iter().any(by))
    }

    /// Replaces every use of value `from` by `to`, also among the graph outputs' producers:
    /// a graph output keeps its name, so callers rename the producer instead when `from` is an output.
    pub fn replace_uses(&mut self, from: &str, to: &str) {
        for node in &mut self.nodes {
            for input in &mut node.inputs {
                if input == from {
                    to.clone_into(input);
                }
            }
        }
    }

    /// Whether a value is one of those that sum up over the steps of a sequence.
    pub fn is_wide(&self, name: &str) -> bool {
        self.tied.iter().any(|tied| tied.wide && tied.values.iter().any(|value| value == name))
    }

    /// A name not yet used by any value or node, beginning with `stem`.
    pub fn fresh_name(&self, stem: &str) -> String {
        let taken = |name: &str| {
            self.initializers.contains_key(name)
                || self.inputs.iter().any(|v| v.name == name)
                || self.nodes.iter().any(|n| n.name == name || n.outputs.iter().any(|o| o == name))
        };
        if !taken(stem) {
            return stem.to_owned();
        }
        (1..).map(|i| format!("{stem}_{i}")).find(|name| !taken(name)).unwrap_or_default()
    }

    /// Removes nodes none of whose outputs is used and initializers nobody reads.
    pub fn remove_unused(&mut self) {
        let mut used: BTreeSet<String> = self.outputs.iter().map(|o| o.name.clone()).collect();
        let mut keep = vec![false; self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate().rev() {
            if node.outputs.iter().any(|o| used.contains(o)) {
                keep[i] = true;
                used.extend(node.inputs.iter().filter(|name| !name.is_empty()).cloned());
            }
        }
        let mut kept = keep.into_iter();
        self.nodes.retain(|_| kept.next().unwrap_or(false));
        self.initializers.retain(|name, _| used.contains(name));
    }

    /// Puts the nodes into topological order, keeping their order where it is free.
    ///
    /// # Errors
    ///
    /// The name of a node on a cycle, or of one that reads a value nobody makes.
    pub fn sort(&mut self) -> Result<(), String> {
        let mut known: BTreeSet<String> = self.inputs.iter().map(|v| v.name.clone()).collect();
        known.extend(self.initializers.keys().cloned());
        let mut waiting: Vec<Node> = std::mem::take(&mut self.nodes);
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut blocked = Vec::new();
            for node in waiting {
                if node.inputs.iter().all(|name| name.is_empty() || known.contains(name)) {
                    known.extend(node.outputs.iter().cloned());
                    self.nodes.push(node);
                } else {
                    blocked.push(node);
                }
            }
            if blocked.len() == before {
                let name = blocked[0].name.clone();
                self.nodes.append(&mut blocked);
                return Err(name);
            }
            waiting = blocked;
        }
        Ok(())
    }
}
