//! Simulated quantization as one operator: a pass over memory instead of six.
//!
//! [`crate::qdq::simulate`] writes it as Div, Round, Add, Clip, Sub and Mul, which any executor runs. Here such a chain
//! becomes one node, [`OP`], that gives the same values, but perhaps 0 for −0.

use std::collections::BTreeMap;

use crate::graph::{Attr, Graph, Node};
use crate::half_even::{LARGEST, half_even};

/// Operator type of the fused node, known to this crate's executor alone.
pub(super) const OP: &str = "EquantSimulatedQuantize";

/// `(clamp(x / scale, low, high) rounded half to even + offset) · step`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Simulated {
    pub(super) scale: f32,
    /// Bounds less the zero point.
    pub(super) low: f32,
    pub(super) high: f32,
    /// The zero point where the integers are wanted, 0 where their values are.
    pub(super) offset: f32,
    /// The scale where values are wanted, 1 where integers are.
    pub(super) step: f32,
}

impl Simulated {
    pub(super) fn apply(&self, values: &mut [f32]) {
        let Self { scale, low, high, offset, step } = *self;
        for x in values {
            // The bounds are integers, so that rounding after them is rounding before them.
            let bounded = (*x / scale).clamp(low, high);
            *x = (half_even(bounded) + offset) * step;
        }
    }

    /// Reads what [`fuse`] wrote.
    pub(super) fn from_attrs<E>(float: impl Fn(&str) -> Result<f32, E>) -> Result<Self, E> {
        Ok(Self {
            scale: float("scale")?,
            low: float("low")?,
            high: float("high")?,
            offset: float("offset")?,
            step: float("step")?,
        })
    }

    fn node(&self, name: &str, input: &str, output: &str) -> Node {
        let attrs = [
            ("scale", self.scale),
            ("low", self.low),
            ("high", self.high),
            ("offset", self.offset),
            ("step", self.step),
        ];
        let node = Node::new(OP, name, [input], [output]);
        attrs.into_iter().fold(node, |node, (name, value)| node.with(name, Attr::Float(value)))
    }
}

/// The graph with chains of simulated quantization fused where nothing else reads what is in between.
pub(super) fn fuse(graph: &Graph) -> Graph {
    let mut readers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|name| readers.entry(name).or_default().push(index));
    }
    // The only reader of a node's output.
    let next = |at: usize| match readers.get(graph.nodes[at].output()).map(Vec::as_slice) {
        Some(&[reader]) if !graph.is_output(graph.nodes[at].output()) => Some(reader),
        _ => None,
    };
    let mut out = Graph { nodes: Vec::new(), ..graph.clone() };
    let mut gone = vec![false; graph.nodes.len()];
    // The last node of a chain is where the fused one goes: what it reads is made before.
    let mut fused: BTreeMap<usize, Node> = BTreeMap::new();
    for at in 0..graph.nodes.len() {
        let Some((simulated, chain)) = chain(graph, at, next) else { continue };
        let (Some(&first), Some(&last)) = (chain.first(), chain.last()) else { continue };
        let (input, end) = (&graph.nodes[first].inputs[0], &graph.nodes[last]);
        fused.insert(last, simulated.node(&end.name, input, end.output()));
        chain.iter().for_each(|&index| gone[index] = true);
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        match fused.remove(&index) {
            Some(node) => out.nodes.push(node),
            None if gone[index] => {}
            None => out.nodes.push(node.clone()),
        }
    }
    out
}

/// The chain that begins with node `at`, and what it computes.
fn chain(graph: &Graph, at: usize, next: impl Fn(usize) -> Option<usize>) -> Option<(Simulated, Vec<usize>)> {
    let is = |at: usize, op: &str| graph.nodes[at].op_type == op && graph.nodes[at].domain.is_empty();
    // A constant that is the same for all elements and adds no axes.
    let constant = |at: usize, input: usize| {
        let tensor = graph.initializers.get(graph.nodes[at].input(input)?)?;
        if tensor.shape.is_empty() { tensor.scalar_f32() } else { None }
    };
    let scale = if is(at, "Div") { constant(at, 1)? } else { return None };
    let mut chain = vec![at, next(at).filter(|&round| is(round, "Round"))?];
    let mut here = next(chain[1])?;
    let mut zero_point = 0.0;
    if is(here, "Add") {
        zero_point = constant(here, 1)?;
        chain.push(here);
        here = next(here)?;
    }
    if !is(here, "Clip") {
        return None;
    }
    let (low, high) = (constant(here, 1)? - zero_point, constant(here, 2)? - zero_point);
    chain.push(here);
    let exact = low <= high && low.abs().max(high.abs()) <= LARGEST;
    let whole = [low, high, zero_point].iter().all(|value| value.fract() == 0.0);
    if !(scale > 0.0 && exact && whole) {
        return None;
    }
    let quantized = Simulated { scale, low, high, offset: zero_point, step: 1.0 };
    Some(match values(zero_point, here, is, constant, next) {
        Some((step, rest)) => {
            chain.extend(rest);
            (Simulated { offset: 0.0, step, ..quantized }, chain)
        }
        None => (quantized, chain),
    })
}

/// The nodes after `clip` that make values of integers again, and their scale.
fn values(
    zero_point: f32,
    clip: usize,
    is: impl Fn(usize, &str) -> bool,
    constant: impl Fn(usize, usize) -> Option<f32>,
    next: impl Fn(usize) -> Option<usize>,
) -> Option<(f32, Vec<usize>)> {
    let mut here = next(clip)?;
    let mut nodes = Vec::new();
    if zero_point != 0.0 {
        if !is(here, "Sub") || constant(here, 1)? != zero_point {
            return None;
        }
        nodes.push(here);
        here = next(here)?;
    }
    if !is(here, "Mul") {
        return None;
    }
    nodes.push(here);
    Some((constant(here, 1)?, nodes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{DataType, Dim, Tensor, ValueInfo};

    /// x → Div, Round, [Add], Clip, [Sub], Mul → y.
    fn graph(zero_point: Option<f32>) -> Graph {
        let mut graph = Graph { opset: 17, ..Graph::default() };
        let value = |name: &str| ValueInfo {
            name: name.into(),
            dtype: DataType::F32,
            shape: Some(vec![Dim::Known(1), Dim::Known(400)]),
        };
        graph.inputs = vec![value("x")];
        graph.outputs = vec![value("y")];
        for (name, v) in [("s", 0.37), ("z", zero_point.unwrap_or(0.0)), ("low", 0.0), ("high", 255.0)] {
            graph.initializers.insert(name.into(), Tensor::from_f32(&[], &[v]));
        }
        let mut last = "x".to_owned();
        let steps: [(&str, &[&str]); 6] = [
            ("Div", &["s"]),
            ("Round", &[]),
            ("Add", &["z"]),
            ("Clip", &["low", "high"]),
            ("Sub", &["z"]),
            ("Mul", &["s"]),
        ];
        for (op, constants) in steps {
            if zero_point.is_none() && matches!(op, "Add" | "Sub") {
                continue;
            }
            let output = if op == "Mul" { "y".to_owned() } else { format!("{op}_out") };
            let inputs = std::iter::once(last).chain(constants.iter().map(|&c| c.to_owned()));
            graph.nodes.push(Node::new(op, op.to_lowercase(), inputs, [output.clone()]));
            last = output;
        }
        graph
    }

    /// Ties, both bounds, and large values.
    fn inputs() -> Vec<f32> {
        let ties = (-150..150).map(|i| i as f32 * 0.185);
        ties.chain((0..100).map(|i| (i as f32 - 50.0) * 1e4)).collect()
    }

    fn read(node: &Node) -> Simulated {
        Simulated::from_attrs(|name| Ok::<_, ()>(node.float(name, f32::NAN))).unwrap()
    }

    fn by_steps(x: f32, zero_point: f32) -> f32 {
        (((x / 0.37).round_ties_even() + zero_point).clamp(0.0, 255.0) - zero_point) * 0.37
    }

    #[test]
    fn a_chain_is_one_node_with_the_same_values() {
        for zero_point in [None, Some(7.0), Some(128.0)] {
            let fused = fuse(&graph(zero_point));
            let [node] = &fused.nodes[..] else { panic!("{:?}", fused.nodes) };
            assert_eq!((node.op_type.as_str(), node.output()), (OP, "y"));
            let simulated = read(node);
            let mut values = inputs();
            simulated.apply(&mut values);
            let expected: Vec<f32> = inputs().iter().map(|&x| by_steps(x, zero_point.unwrap_or(0.0))).collect();
            assert_eq!(values, expected);
        }
    }

    #[test]
    fn integers_that_are_wanted_stay() {
        let mut graph = graph(Some(7.0));
        graph.outputs.push(ValueInfo { name: "Clip_out".into(), ..graph.outputs[0].clone() });
        let fused = fuse(&graph);
        let ops: Vec<&str> = fused.nodes.iter().map(|node| node.op_type.as_str()).collect();
        assert_eq!(ops, [OP, "Sub", "Mul"]);
        let simulated = read(&fused.nodes[0]);
        let mut values = [-10.0, 0.0, 0.37, 1e6];
        simulated.apply(&mut values);
        assert_eq!(values, [0.0, 7.0, 8.0, 255.0]);
    }

    #[test]
    fn what_is_read_in_between_is_left() {
        let mut rounded = graph(Some(7.0));
        rounded.outputs.push(ValueInfo { name: "Round_out".into(), ..rounded.outputs[0].clone() });
        assert_eq!(fuse(&rounded).nodes, rounded.nodes);
        let mut wide = graph(Some(7.0));
        wide.initializers.insert("high".into(), Tensor::from_f32(&[], &[1e9]));
        assert_eq!(fuse(&wide).nodes, wide.nodes);
    }
}
