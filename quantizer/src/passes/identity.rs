//! Removes nodes that change nothing: Identity, Dropout in inference, casts to the same type or between types of
//! indices, sums with zero (a mask that hides nothing), and layout operators whose result is their input.

use super::{bypass, constant, has_more_outputs};
use crate::graph::shape::{Shapes, TensorType, infer_partial};
use crate::graph::{DataType, Graph, Node, Tensor, eval, indices};

pub(super) fn run(graph: &mut Graph) -> usize {
    // Two batches tell a shape that only happens to agree from one that always does.
    let shapes = [infer_partial(graph, 2), infer_partial(graph, 3)];
    let mut count = 0;
    let mut index = 0;
    while index < graph.nodes.len() {
        let node = &graph.nodes[index];
        let source = equal_input(graph, node, &shapes).map(|i| node.inputs[i].clone());
        if source.is_some_and(|source| bypass(graph, index, &source)) {
            count += 1;
            continue;
        }
        index += 1;
    }
    count
}

/// The input that a node's first output equals.
fn equal_input(graph: &Graph, node: &Node, shapes: &[Shapes; 2]) -> Option<usize> {
    if !node.domain.is_empty() || node.input(0).is_none() {
        return None;
    }
    let kept = usize::from(node.op_type == "Add" && is_zero(graph, node, 0));
    let kinds = |i: usize| (node.input(kept).and_then(|x| shapes[i].types.get(x)), shapes[i].types.get(node.output()));
    let same = || (0..2).all(|i| matches!(kinds(i), (Some(a), Some(b)) if a == b));
    let equal = match node.op_type.as_str() {
        "Identity" => true,
        "Dropout" => {
            let training = constant(graph, node.input(2)).map(Tensor::to_i64);
            !has_more_outputs(graph, node)
                && (node.input(2).is_none() || training.is_some_and(|t| t.iter().all(|&v| v == 0)))
        }
        "Cast" if is_index_cast(graph, node, kinds(0)) => true,
        "Cast" | "CastLike" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Expand" => same(),
        // A reversal and a shift have the shape of their input too.
        "Slice" => (node.input(4).is_none() || all_at_least(graph, node, 4, 1)) && same(),
        "Pad" => all_at_least(graph, node, 1, 0) && same(),
        "Add" => is_zero(graph, node, 1 - kept) && same(),
        "Concat" => node.inputs.len() == 1,
        "Transpose" => kinds(0).0.is_some_and(|kind| {
            let rank = kind.shape.len();
            eval::permutation(node, rank).is_some_and(|perm| perm.iter().copied().eq(0..rank))
        }),
        _ => false,
    };
    equal.then_some(kept)
}

/// Whether an input is constant, and none of its integers is smaller.
fn all_at_least(graph: &Graph, node: &Node, i: usize, least: i64) -> bool {
    constant(graph, node.input(i)).is_some_and(|tensor| tensor.to_i64().iter().all(|&value| value >= least))
}

/// Whether an operand is a float constant of zeros.
fn is_zero(graph: &Graph, node: &Node, operand: usize) -> bool {
    constant(graph, node.input(operand))
        .is_some_and(|tensor| tensor.dtype.is_float() && tensor.to_f32().iter().all(|&value| value == 0.0))
}

/// Whether a node makes int64 of int32 or the reverse, and everything that reads it takes the result for indices.
fn is_index_cast(graph: &Graph, node: &Node, (from, to): (Option<&TensorType>, Option<&TensorType>)) -> bool {
    let is_index = |kind: Option<&TensorType>| kind.is_some_and(|k| matches!(k.dtype, DataType::I32 | DataType::I64));
    let name = node.output();
    let mut readers = graph.nodes.iter().filter(|reader| reader.inputs.iter().any(|input| input == name)).peekable();
    is_index(from)
        && is_index(to)
        && !graph.is_output(name)
        && readers.peek().is_some()
        && readers.all(|reader| indices::is_lookup(graph, reader) && reader.input(0) != Some(name))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Model;
    use super::*;
    use crate::graph::{Dim, ValueInfo};

    fn value(name: &str) -> ValueInfo {
        ValueInfo { name: name.into(), dtype: DataType::F32, shape: Some(vec![Dim::Symbol("N".into()), Dim::Known(2)]) }
    }

    #[test]
    fn outputs_keep_their_names() {
        let mut graph = Graph { opset: 17, inputs: vec![value("x")], outputs: vec![value("y")], ..Graph::default() };
        graph.nodes.push(Node::new("Relu", "r", ["x"], ["a"]));
        graph.nodes.push(Node::new("Dropout", "d", ["a"], ["b", "mask"]));
        graph.nodes.push(Node::new("Identity", "i", ["b"], ["y"]));
        assert_eq!(run(&mut graph), 2);
        assert_eq!(graph.nodes, [Node::new("Relu", "r", ["x"], ["y"])]);
        assert_eq!(run(&mut graph), 0);
    }

    #[test]
    fn sums_with_zero_go_unless_they_broadcast() {
        let mut graph = Graph { opset: 17, inputs: vec![value("x")], outputs: vec![value("y")], ..Graph::default() };
        graph.initializers.insert("none".into(), Tensor::from_f32(&[2], &[0.0, -0.0]));
        graph.initializers.insert("rows".into(), Tensor::from_f32(&[3, 1, 2], &[0.0; 6]));
        graph.nodes.push(Node::new("Add", "a", ["x", "none"], ["b"]));
        graph.nodes.push(Node::new("Add", "c", ["none", "b"], ["d"]));
        graph.nodes.push(Node::new("Add", "e", ["d", "rows"], ["y"]));
        assert_eq!(run(&mut graph), 2);
        assert_eq!(graph.nodes, [Node::new("Add", "e", ["x", "rows"], ["y"])]);
    }

    #[test]
    fn reversals_and_shifts_stay() {
        // First, end and step of a slice, pads at both ends, and how many nodes go: the output's own stays.
        for (slice, pads, expected) in [([0, i64::MAX, 1], [0, 0], 1), ([-1, i64::MIN, -1], [1, -1], 0)] {
            let mut model = Model::new(&[5, 4]);
            let [first, end, step] = slice.map(|value| model.integers(&[value]));
            let axes = model.integers(&[1]);
            let x = model.node("Slice", &["x", &first, &end, &axes, &step], &[]);
            let pads = model.integers(&[0, pads[0], 0, 0, pads[1], 0]);
            let y = model.node("Pad", &[&x, &pads], &[]);
            model.outputs(&[&y]);
            assert_eq!(run(&mut model.graph), expected);
        }
    }

    #[test]
    fn a_reshape_to_a_fixed_batch_stays() {
        let mut graph = Graph { opset: 17, inputs: vec![value("x")], outputs: vec![value("y")], ..Graph::default() };
        graph.initializers.insert("shape".into(), Tensor::from_i64(&[2], &[2, 2]));
        graph.nodes.push(Node::new("Reshape", "r", ["x", "shape"], ["y"]));
        assert_eq!(run(&mut graph), 0);
    }
}
