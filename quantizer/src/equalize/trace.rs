//! Finding channels: one rule for each operator.

use std::collections::BTreeMap;

use super::channels::{Channels, Clamp, FIXED, Flow, Form, Linear, Place};
use super::layout::Layout;
use crate::graph::eval::{broadcast, normalize_axis, permutation};
use crate::graph::shape::{TensorType, infer_partial};
use crate::graph::{Graph, Node, Tensor};
use crate::quantize;

/// Channels at most that are told apart in a sum, a concatenation or a constant.
const MOST_LABELS: usize = 1 << 18;

/// Finds the channels of a prepared float graph.
pub(super) fn trace(graph: &Graph) -> Channels {
    let mut trace = Trace {
        graph,
        shapes: infer_partial(graph, 1).types,
        parent: vec![FIXED],
        found: Channels {
            layouts: BTreeMap::new(),
            variable: Vec::new(),
            variables: 0,
            places: Vec::new(),
            flows: Vec::new(),
            clamps: Vec::new(),
            ends: Vec::new(),
            quantized: quantize::sources(graph),
            origins: BTreeMap::new(),
        },
    };
    for input in &graph.inputs {
        trace.fixed_value(&input.name);
    }
    for index in 0..graph.nodes.len() {
        trace.visit(index);
    }
    for output in &graph.outputs {
        trace.end(&output.name);
    }
    trace.finish()
}

struct Trace<'g> {
    graph: &'g Graph,
    /// Shapes for a batch of one sample.
    shapes: BTreeMap<String, TensorType>,
    /// Labels that are one channel (union-find).
    parent: Vec<usize>,
    found: Channels,
}

impl<'g> Trace<'g> {
    fn visit(&mut self, index: usize) {
        let node = &self.graph.nodes[index];
        let layout = if node.domain.is_empty() { self.rule(index, node) } else { None };
        match layout {
            Some(layout) => drop(self.found.layouts.insert(node.output().to_owned(), layout)),
            None => {
                for input in &node.inputs {
                    self.end(input);
                }
                node.outputs.iter().for_each(|output| self.fixed_value(output));
            }
        }
    }

    /// The layout of the output; `None` where the operator does not commute with factors of its input's channels.
    fn rule(&mut self, index: usize, node: &'g Node) -> Option<Layout> {
        match node.op_type.as_str() {
            "Conv" | "ConvTranspose" | "Gemm" => self.linear(index, node),
            "MatMul" if self.constant(node, 1).is_some() => self.linear(index, node),
            "MatMul" => self.product(node),
            "LayerNormalization" => self.normalization(index, node),
            "Relu" => self.pass(node, 0, 1.0, true),
            "LeakyRelu" | "Neg" | "Abs" => self.pass(node, 0, 1.0, false),
            "Identity" | "Dropout" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
                self.moved(node);
                self.pass(node, 0, 1.0, false)
            }
            "Transpose" => {
                let shape = self.shape(node.input(0)?)?.to_vec();
                let perm = permutation(node, shape.len())?;
                let layout = self.layout(node.input(0)?)?.transposed(&shape, &perm)?;
                self.moved(node);
                self.pass(node, 0, 1.0, false)?;
                Some(layout)
            }
            "Clip" => self.clamp(node),
            "MaxPool" | "AveragePool" | "GlobalAveragePool" => self.pool(node),
            "ReduceMean" => self.mean(node),
            "Add" => self.sum(index, node),
            "Mul" | "Div" => self.scaled(node),
            "Pad" => self.padded(node),
            "Concat" => self.joined(index, node),
            _ => None,
        }
    }

    fn linear(&mut self, index: usize, node: &'g Node) -> Option<Layout> {
        let weights = self.constant(node, 1)?;
        let form = Form::of(node, weights)?;
        let bias = node.input(2).filter(|_| node.op_type != "MatMul");
        if bias.is_some() && self.constant(node, 2)?.len() != form.groups * form.rows {
            return None;
        }
        let (input, output) = (node.input(0)?, node.output());
        let (shape, out_shape) = (self.shape(input)?.to_vec(), self.shape(output)?.to_vec());
        let spatial = node.op_type.starts_with("Conv");
        let axis = |shape: &[usize]| if spatial { Some(1) } else { shape.len().checked_sub(1) };
        let columns = self.layout(input)?.axis(&shape, axis(&shape)?);
        let columns = columns.filter(|columns| columns.len() == form.groups * form.columns);
        let columns = columns.unwrap_or_else(|| {
            self.fix(input);
            vec![FIXED; form.groups * form.columns]
        });
        let rows = self.fresh(form.groups * form.rows);
        let layout = Layout::along(&out_shape, axis(&out_shape)?, rows.clone());
        self.found.flows.push(Flow::Linear(self.found.places.len()));
        let (input, output) = (input.to_owned(), output.to_owned());
        self.found.places.push(Place::Linear(Linear { node: index, input, output, rows, columns, form }));
        Some(layout)
    }

    /// A product of two activations passes the channels of one where the other is fixed: of attention, those of the
    /// values, since probabilities are fixed.
    fn product(&mut self, node: &Node) -> Option<Layout> {
        let (a, b) = (node.input(0)?, node.input(1)?);
        let (a_shape, b_shape, shape) = (self.shape(a)?, self.shape(b)?, self.shape(node.output())?);
        let rank = shape.len();
        if rank < 2 || a_shape.len() != rank || b_shape.len() != rank || a_shape[..rank - 2] != b_shape[..rank - 2] {
            return None;
        }
        let shape = shape.to_vec();
        let (free, side, summed, kept) = match (self.is_fixed(a), self.is_fixed(b)) {
            (true, _) => (b, 1, rank - 2, rank - 1),
            (_, true) => (a, 0, rank - 1, rank - 2),
            _ => return None,
        };
        let layout = self.layout(free)?;
        let mut strides = layout.strides(self.shape(free)?)?;
        if strides[summed] != 0 {
            return None;
        }
        strides[rank - 1] = if kept == rank - 1 { strides[kept] } else { 0 };
        strides[rank - 2] = if kept == rank - 2 { strides[kept] } else { 0 };
        let layout = Layout::strided(&shape, &strides, layout.labels().to_vec());
        self.end(if side == 0 { b } else { a });
        self.pass(node, side, 1.0, false)?;
        Some(layout)
    }

    fn normalization(&mut self, index: usize, node: &Node) -> Option<Layout> {
        let shape = self.shape(node.output())?.to_vec();
        let (axis, size) = (shape.len().checked_sub(1)?, *shape.last()?);
        let plain = normalize_axis(node.int("axis", -1), shape.len()) == Some(axis)
            && self.constant(node, 1)?.len() == size
            && (node.input(2).is_none() || self.constant(node, 2)?.len() == size);
        if !plain {
            return None;
        }
        self.end(node.input(0)?);
        let labels = self.fresh(size);
        self.found.places.push(Place::Affine { node: index, labels: labels.clone() });
        Some(Layout::along(&shape, axis, labels))
    }

    fn clamp(&mut self, node: &Node) -> Option<Layout> {
        let bound = |i: usize| Some(f64::from(self.constant(node, i)?.scalar_f32()?));
        let (low, high) = (bound(1)?, bound(2)?);
        if !(low <= 0.0 && high >= 0.0) {
            return None;
        }
        self.found.clamps.push(Clamp { value: node.output().to_owned(), low, high });
        self.pass(node, 0, 1.0, true)
    }

    fn pool(&mut self, node: &Node) -> Option<Layout> {
        let (shape, out_shape) = (self.shape(node.input(0)?)?.to_vec(), self.shape(node.output())?.to_vec());
        let labels = self.layout(node.input(0)?)?.axis(&shape, 1)?;
        // Each of K elements goes into the mean with a weight of 1/K.
        let window = match node.op_type.as_str() {
            "MaxPool" => 1,
            "AveragePool" => node.ints("kernel_shape")?.iter().map(|&k| k.max(1) as usize).product(),
            _ => shape.iter().skip(2).product::<usize>(),
        };
        self.pass(node, 0, 1.0 / window.max(1) as f64, false)?;
        Some(Layout::along(&out_shape, 1, labels))
    }

    fn mean(&mut self, node: &Node) -> Option<Layout> {
        let axes = match node.input(1) {
            Some(_) => self.constant(node, 1)?.to_i64(),
            None => node.ints("axes")?.to_vec(),
        };
        let shape = self.shape(node.input(0)?)?.to_vec();
        let axes: Vec<usize> = axes.iter().map(|&axis| normalize_axis(axis, shape.len())).collect::<Option<_>>()?;
        let layout = self.layout(node.input(0)?)?;
        let strides = layout.strides(&shape)?;
        let window: usize = axes.iter().map(|&axis| shape[axis]).product();
        // No axes may mean all of them.
        if axes.is_empty() || axes.iter().any(|&axis| strides[axis] != 0) {
            return None;
        }
        let kept: Vec<usize> = (0..shape.len()).filter(|axis| !axes.contains(axis)).collect();
        let pick = |all: &[usize]| kept.iter().map(|&axis| all[axis]).collect::<Vec<_>>();
        let layout = Layout::strided(&pick(&shape), &pick(&strides), layout.labels().to_vec());
        self.pass(node, 0, 1.0 / window.max(1) as f64, false)?;
        Some(layout)
    }

    fn sum(&mut self, index: usize, node: &Node) -> Option<Layout> {
        let shape = self.shape(node.output())?.to_vec();
        if let Some(side) = (0..2).find(|&i| self.constant(node, i).is_some()) {
            let constant = self.constant(node, side)?;
            let layout = self.repeated(node.input(1 - side)?, &shape)?;
            let strides = layout.strides(&shape)?;
            // The constant must tell apart the channels that it is added to: a single number does not.
            let padding = shape.len().checked_sub(constant.shape.len())?;
            let own = |axis: usize| axis.checked_sub(padding).map_or(1, |axis| constant.shape[axis]);
            if (0..shape.len()).any(|axis| strides[axis] != 0 && own(axis) != shape[axis]) {
                return None;
            }
            let strides: Vec<usize> =
                (padding..shape.len()).map(|axis| if own(axis) == 1 { 0 } else { strides[axis] }).collect();
            let of_constant = Layout::strided(&constant.shape, &strides, layout.labels().to_vec());
            self.found.places.push(Place::Constant { node: index, input: side, layout: of_constant });
            self.pass(node, 1 - side, 1.0, false)?;
            return Some(layout);
        }
        let (a, b) = (self.repeated(node.input(0)?, &shape)?, self.repeated(node.input(1)?, &shape)?);
        let (a_strides, b_strides) = (a.strides(&shape)?, b.strides(&shape)?);
        let labelled: Vec<usize> = (0..shape.len()).filter(|&axis| a_strides[axis] + b_strides[axis] > 0).collect();
        let sizes: Vec<usize> = labelled.iter().map(|&axis| shape[axis]).collect();
        let of = |strides: &[usize]| labelled.iter().map(|&axis| strides[axis]).collect::<Vec<_>>();
        for (i, j) in positions(&sizes, &of(&a_strides))?.into_iter().zip(positions(&sizes, &of(&b_strides))?) {
            self.join(a.labels()[i], b.labels()[j]);
        }
        self.pass(node, 0, 1.0, false)?;
        self.pass(node, 1, 1.0, false)?;
        Some(a)
    }

    /// A product with a constant, or with a value that is fixed (a gate).
    fn scaled(&mut self, node: &Node) -> Option<Layout> {
        let shape = self.shape(node.output())?.to_vec();
        let constant = (0..2).find(|&i| self.constant(node, i).is_some());
        let (side, gain) = match constant {
            Some(1) if node.op_type == "Div" => (0, power(self.constant(node, 1)?, |v| 1.0 / v)),
            Some(side) if node.op_type == "Mul" => (1 - side, power(self.constant(node, side)?, |v| v)),
            None if node.op_type == "Mul" => {
                let side = (0..2).find(|&i| node.input(1 - i).is_some_and(|gate| self.is_fixed(gate)))?;
                self.end(node.input(1 - side)?);
                (side, 1.0)
            }
            _ => return None,
        };
        let layout = self.repeated(node.input(side)?, &shape)?;
        self.pass(node, side, gain, false)?;
        Some(layout)
    }

    fn padded(&mut self, node: &Node) -> Option<Layout> {
        let (shape, out_shape) = (self.shape(node.input(0)?)?.to_vec(), self.shape(node.output())?.to_vec());
        let pads = self.constant(node, 1)?.to_i64();
        let zero = node.input(2).is_none() || self.constant(node, 2)?.scalar_f32()? == 0.0;
        let plain = node.string("mode").unwrap_or("constant") == "constant" && node.input(3).is_none();
        if !zero || !plain || pads.len() != 2 * shape.len() || pads.iter().any(|&pad| pad < 0) {
            return None;
        }
        let layout = self.layout(node.input(0)?)?.clone();
        let strides = layout.strides(&shape)?;
        let grown: Vec<usize> = (0..shape.len()).filter(|&axis| out_shape[axis] != shape[axis]).collect();
        let layout = match grown.iter().find(|&&axis| strides[axis] != 0) {
            // Channels of zeros, which any factor leaves as they are.
            Some(&axis) => {
                let mut labels = self.fresh(pads[axis] as usize);
                labels.extend(layout.axis(&shape, axis)?);
                labels.extend(self.fresh(pads[shape.len() + axis] as usize));
                Layout::along(&out_shape, axis, labels)
            }
            None => Layout::strided(&out_shape, &strides, layout.labels().to_vec()),
        };
        self.pass(node, 0, 1.0, false)?;
        Some(layout)
    }

    fn joined(&mut self, index: usize, node: &Node) -> Option<Layout> {
        let shape = self.shape(node.output())?.to_vec();
        let axis = normalize_axis(node.int("axis", 0), shape.len())?;
        let mut parts = Vec::new();
        for (i, name) in node.inputs.iter().enumerate() {
            let part = self.shape(name)?.to_vec();
            let layout = match self.constant(node, i) {
                Some(tensor) if tensor.len() > MOST_LABELS => return None,
                Some(tensor) => {
                    let strides = row_major(&part);
                    let layout = Layout::strided(&part, &strides, self.fresh(tensor.len()));
                    self.found.places.push(Place::Constant { node: index, input: i, layout: layout.clone() });
                    layout
                }
                None => self.layout(name)?.clone(),
            };
            let strides = layout.strides(&part)?;
            parts.push((part, strides, layout, self.constant(node, i).is_none()));
        }
        // A constant alone does not tell channels apart.
        let told = |axis: usize| parts.iter().any(|(_, strides, _, data)| *data && strides[axis] != 0);
        let labelled: Vec<usize> = (0..shape.len()).filter(|&axis| told(axis)).collect();
        let sizes = |shape: &[usize]| labelled.iter().map(|&axis| shape[axis]).collect::<Vec<_>>();
        let table_strides = row_major(&sizes(&shape));
        let length: usize = sizes(&shape).iter().product();
        if length > MOST_LABELS {
            return None;
        }
        let mut table: Vec<Option<usize>> = vec![None; length];
        let mut strides = vec![0; shape.len()];
        for (&axis, &stride) in labelled.iter().zip(&table_strides) {
            strides[axis] = stride;
        }
        let mut offset = 0;
        for (part, own, layout, _) in &parts {
            // Channels that differ along other axes than those of the table are joined.
            let differ: Vec<usize> = (0..shape.len()).filter(|&axis| strides[axis] + own[axis] > 0).collect();
            let of = |all: &[usize]| differ.iter().map(|&axis| all[axis]).collect::<Vec<_>>();
            let wanted = positions(&of(part), &of(&strides))?;
            for (at, label) in wanted.into_iter().zip(positions(&of(part), &of(own))?) {
                let (slot, label) = (&mut table[at + offset * strides[axis]], layout.labels()[label]);
                match *slot {
                    Some(known) => self.join(known, label),
                    None => *slot = Some(label),
                }
            }
            offset += part[axis];
        }
        for i in 0..node.inputs.len() {
            if self.constant(node, i).is_none() {
                self.pass(node, i, 1.0, false)?;
            }
        }
        Some(Layout::strided(&shape, &strides, table.into_iter().collect::<Option<_>>()?))
    }

    /// Input `side` goes on to the output; its layout.
    fn pass(&mut self, node: &Node, side: usize, gain: f64, gated: bool) -> Option<Layout> {
        let layout = self.layout(node.input(side)?)?.clone();
        let (from, to) = (node.input(side)?.to_owned(), node.output().to_owned());
        self.found.flows.push(Flow::Pass { from, to, gain, gated });
        Some(layout)
    }

    /// The output holds the same elements as input 0.
    fn moved(&mut self, node: &Node) {
        if let Some(input) = node.input(0) {
            let origin = self.found.origin(input).to_owned();
            self.found.origins.insert(node.output().to_owned(), origin);
        }
    }

    /// The layout of a value that is broadcast to `shape`.
    fn repeated(&self, value: &str, shape: &[usize]) -> Option<Layout> {
        let own = self.shape(value)?;
        if broadcast(own, shape)?.as_slice() != shape {
            return None;
        }
        let layout = self.layout(value)?;
        let mut strides = vec![0; shape.len() - own.len()];
        strides.extend(layout.strides(own)?);
        Some(Layout::strided(shape, &strides, layout.labels().to_vec()))
    }

    /// The channels of a value are fixed, and its error counts.
    fn end(&mut self, value: &str) {
        if self.found.layouts.contains_key(value) {
            self.fix(value);
            if !self.found.ends.iter().any(|end| end == value) {
                self.found.ends.push(value.to_owned());
            }
        }
    }

    fn fix(&mut self, value: &str) {
        let labels = self.layout(value).map(|layout| layout.labels().to_vec()).unwrap_or_default();
        labels.into_iter().for_each(|label| self.join(label, FIXED));
    }

    fn is_fixed(&self, value: &str) -> bool {
        self.layout(value).is_some_and(|layout| layout.labels().iter().all(|&label| self.leader(label) == FIXED))
    }

    fn fixed_value(&mut self, value: &str) {
        if let Some(shape) = self.shape(value).map(<[usize]>::to_vec) {
            self.found.layouts.insert(value.to_owned(), Layout::uniform(&shape, FIXED));
        }
    }

    fn layout(&self, value: &str) -> Option<&Layout> {
        self.found.layouts.get(value)
    }

    fn shape(&self, value: &str) -> Option<&[usize]> {
        self.shapes.get(value).map(|kind| kind.shape.as_slice())
    }

    fn constant(&self, node: &Node, input: usize) -> Option<&'g Tensor> {
        self.graph.initializers.get(node.input(input)?)
    }

    fn fresh(&mut self, count: usize) -> Vec<usize> {
        let start = self.parent.len();
        self.parent.extend(start..start + count);
        (start..start + count).collect()
    }

    fn leader(&self, mut label: usize) -> usize {
        while self.parent[label] != label {
            label = self.parent[label];
        }
        label
    }

    fn join(&mut self, a: usize, b: usize) {
        let (first, second) = (self.leader(a), self.leader(b));
        let leader = first.min(second);
        for mut label in [a, b] {
            while self.parent[label] != label {
                label = std::mem::replace(&mut self.parent[label], leader);
            }
            self.parent[label] = leader;
        }
    }

    fn finish(mut self) -> Channels {
        let mut variable = vec![FIXED; self.parent.len()];
        let mut count = 1;
        for label in 1..self.parent.len() {
            let leader = self.leader(label);
            variable[label] = if leader == label {
                count += 1;
                count - 1
            } else {
                variable[leader]
            };
        }
        self.found.variable = variable;
        self.found.variables = count;
        self.found
    }
}

fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Σ index · stride of every index of `shape`, in row-major order; `None` where there are too many.
fn positions(shape: &[usize], strides: &[usize]) -> Option<Vec<usize>> {
    let mut positions = vec![0];
    for (&size, &stride) in shape.iter().zip(strides) {
        if positions.len() * size > MOST_LABELS {
            return None;
        }
        positions = positions.iter().flat_map(|&at| (0..size).map(move |i| at + i * stride)).collect();
    }
    Some(positions)
}

/// Mean square of a function of a constant's elements.
fn power(constant: &Tensor, f: impl Fn(f64) -> f64) -> f64 {
    let values = constant.to_f32();
    values.iter().map(|&v| f(v.into()).powi(2)).sum::<f64>() / values.len().max(1) as f64
}
