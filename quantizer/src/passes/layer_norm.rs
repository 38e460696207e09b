//! Layer normalization written as elementary operators becomes `LayerNormalization` over the last axis.
//!
//! Recognised: d = x − mean(x); y = d / sqrt(mean(d²) + ε) with an optional scale and shift, the square as Pow
//! or Mul, the quotient as Div or as Mul with a Reciprocal.

use super::{constant, maker, only_reader, scalar};
use crate::graph::shape::infer_partial;
use crate::graph::{Attr, Graph, Node, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut count = 0;
    let mut index = 0;
    while index < graph.nodes.len() {
        if let Some(found) = find(graph, index) {
            apply(graph, index, found);
            count += 1;
        }
        index += 1;
    }
    count
}

struct Found {
    /// The normalized value's name.
    source: String,
    /// Size of the last axis.
    size: usize,
    epsilon: f32,
    scale: Option<Tensor>,
    shift: Option<Tensor>,
    /// The node that makes the result: the quotient, or the scale or shift after it.
    last: usize,
}

fn find(graph: &Graph, quotient: usize) -> Option<Found> {
    let node = &graph.nodes[quotient];
    let (centred, root) = match node.op_type.as_str() {
        "Div" => (node.input(0)?, node.input(1)?),
        "Mul" => {
            let side = (0..2).find(|&i| is(graph, node.input(i), "Reciprocal").is_some())?;
            (node.input(1 - side)?, is(graph, node.input(side), "Reciprocal")?.input(0)?)
        }
        _ => return None,
    };
    let sum = is(graph, is(graph, Some(root), "Sqrt")?.input(0), "Add")?;
    let side = (0..2).find(|&i| scalar(graph, sum.input(i)).is_some())?;
    let epsilon = scalar(graph, sum.input(side))?;
    let square_mean = is(graph, sum.input(1 - side), "ReduceMean")?;
    let difference = is(graph, Some(centred), "Sub")?;
    let (source, mean) = (difference.input(0)?, is(graph, difference.input(1), "ReduceMean")?);
    if mean.input(0) != Some(source) {
        return None;
    }
    // Some exporters subtract the mean twice, once for each use.
    let is_centred = |name: Option<&str>| {
        name == Some(centred)
            || is(graph, name, "Sub")
                .is_some_and(|sub| sub.input(0) == Some(source) && sub.inputs[1] == difference.inputs[1])
    };
    let square = maker(graph, square_mean.input(0)).map(|i| &graph.nodes[i])?;
    let squares = is_centred(square.input(0))
        && match square.op_type.as_str() {
            "Pow" => scalar(graph, square.input(1)) == Some(2.0),
            "Mul" => is_centred(square.input(1)),
            _ => false,
        };
    let types = infer_partial(graph, 2).types;
    let shape = &types.get(source)?.shape;
    let over_last = |node: &Node| {
        let axes = match node.input(1) {
            Some(_) => constant(graph, node.input(1)).map(Tensor::to_i64),
            None => node.ints("axes").map(<[i64]>::to_vec),
        };
        let last = shape.len() as i64 - 1;
        node.int("keepdims", 1) != 0 && axes.is_some_and(|axes| axes == [-1] || axes == [last])
    };
    if !squares || !over_last(mean) || !over_last(square_mean) || epsilon.is_nan() || epsilon < 0.0 {
        return None;
    }
    let size = *shape.last()?;
    let mut found = Found { source: source.to_owned(), size, epsilon, scale: None, shift: None, last: quotient };
    // A scale, then a shift, each read by nothing else.
    for (op, slot) in [("Mul", 0), ("Add", 1)] {
        let Some(next) = only_reader(graph, graph.nodes[found.last].output()) else { break };
        let node = &graph.nodes[next];
        let row = (0..2).find_map(|i| constant(graph, node.input(i))).filter(|t| {
            t.dtype.is_float() && t.len() == size && t.shape.last() == Some(&size) && t.shape.len() <= shape.len()
        });
        let Some(row) = row.filter(|_| node.op_type == op) else { continue };
        let row = Some(Tensor::from_f32(&[size], &row.to_f32()));
        if slot == 0 {
            found.scale = row
        } else {
            found.shift = row
        }
        found.last = next;
    }
    Some(found)
}

/// The node that makes a value, if it is of this type.
fn is<'g>(graph: &'g Graph, value: Option<&str>, op_type: &str) -> Option<&'g Node> {
    maker(graph, value).map(|i| &graph.nodes[i]).filter(|node| node.op_type == op_type && node.domain.is_empty())
}

fn apply(graph: &mut Graph, quotient: usize, found: Found) {
    let name = graph.nodes[quotient].name.clone();
    let scale = found.scale.unwrap_or_else(|| Tensor::from_f32(&[found.size], &vec![1.0; found.size]));
    let scale = super::add_constant(graph, &format!("{name}.scale"), scale);
    let mut inputs = vec![found.source, scale];
    if let Some(shift) = found.shift {
        inputs.push(super::add_constant(graph, &format!("{name}.shift"), shift));
    }
    let output = graph.nodes[found.last].output().to_owned();
    // What the result no longer reads is removed with the other unused nodes.
    graph.nodes[found.last] = Node::new("LayerNormalization", name, inputs, [output])
        .with("axis", Attr::Int(-1))
        .with("epsilon", Attr::Float(found.epsilon));
    graph.opset = graph.opset.max(17);
    graph.remove_unused();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{DataType, Dim, ValueInfo};

    #[test]
    fn the_elementary_form_is_recognised() {
        let dims = vec![Dim::Symbol("N".into()), Dim::Known(5), Dim::Known(4)];
        let value = |name: &str| ValueInfo { name: name.into(), dtype: DataType::F32, shape: Some(dims.clone()) };
        let mut graph = Graph { opset: 13, inputs: vec![value("x")], outputs: vec![value("y")], ..Graph::default() };
        for (name, shape, values) in [
            ("two", vec![], vec![2.0]),
            ("eps", vec![], vec![1e-5]),
            ("g", vec![4], vec![1.0, 2.0, 3.0, 4.0]),
            ("b", vec![4], vec![0.5; 4]),
        ] {
            graph.initializers.insert(name.into(), Tensor::from_f32(&shape, &values));
        }
        let mean = |name: &str, input: &str, output: &str| {
            Node::new("ReduceMean", name, [input], [output]).with("axes", Attr::Ints(vec![-1]))
        };
        graph.nodes = vec![
            mean("m", "x", "mean"),
            Node::new("Sub", "d", ["x", "mean"], ["diff"]),
            Node::new("Pow", "p", ["diff", "two"], ["square"]),
            mean("v", "square", "var"),
            Node::new("Add", "e", ["var", "eps"], ["safe"]),
            Node::new("Sqrt", "s", ["safe"], ["root"]),
            Node::new("Div", "q", ["diff", "root"], ["norm"]),
            Node::new("Mul", "w", ["norm", "g"], ["scaled"]),
            Node::new("Add", "a", ["scaled", "b"], ["y"]),
        ];
        assert_eq!(run(&mut graph), 1);
        assert_eq!(graph.nodes.len(), 1);
        let node = &graph.nodes[0];
        assert_eq!((node.op_type.as_str(), node.inputs[0].as_str(), node.output()), ("LayerNormalization", "x", "y"));
        assert_eq!(graph.initializers[&node.inputs[1]].to_f32(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(graph.initializers[&node.inputs[2]].to_f32(), [0.5; 4]);
    }
}
