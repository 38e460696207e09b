//! Layer normalization written as elementary operators becomes `LayerNormalization` over the last axis, and root mean square
//! normalization (Zhang and Sennrich, NeurIPS 2019) `RMSNormalization`.
//!
//! Recognised: y = d / sqrt(mean(d²) + ε) with an optional scale and shift, where d = x − mean(x) or d = x; the square as Pow
//! or Mul, the quotient as Div or as Mul with a Reciprocal or with 1 divided by the root.

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
    /// Whether the mean is taken off.
    centred: bool,
    /// Size of the last axis.
    size: usize,
    epsilon: f32,
    scale: Option<Tensor>,
    shift: Option<Tensor>,
    /// The node that makes the result: the quotient, or the scale or shift after it.
    last: usize,
}

/// The numerator of a quotient and the root it is divided by.
fn quotient<'g>(graph: &'g Graph, node: &'g Node) -> Option<(&'g str, &'g str)> {
    // What is 1 divided by a value.
    let inverse = |name: Option<&str>| -> Option<&'g str> {
        is(graph, name, "Reciprocal").and_then(|node| node.input(0)).or_else(|| {
            let node = is(graph, name, "Div")?;
            if scalar(graph, node.input(0)) == Some(1.0) { node.input(1) } else { None }
        })
    };
    match node.op_type.as_str() {
        "Div" => Some((node.input(0)?, node.input(1)?)),
        "Mul" => (0..2).find_map(|i| Some((node.input(1 - i)?, inverse(node.input(i))?))),
        _ => None,
    }
}

fn find(graph: &Graph, index: usize) -> Option<Found> {
    let (numerator, root) = quotient(graph, &graph.nodes[index])?;
    let sum = is(graph, is(graph, Some(root), "Sqrt")?.input(0), "Add")?;
    let side = (0..2).find(|&i| scalar(graph, sum.input(i)).is_some())?;
    let epsilon = scalar(graph, sum.input(side))?;
    let square_mean = is(graph, sum.input(1 - side), "ReduceMean")?;
    let square = maker(graph, square_mean.input(0)).map(|i| &graph.nodes[i])?;
    // x and the node of mean(x), where the numerator is their difference.
    let difference = |name: Option<&str>| -> Option<(&str, &Node)> {
        let node = is(graph, name, "Sub")?;
        let mean = is(graph, node.input(1), "ReduceMean").filter(|mean| mean.input(0) == node.input(0))?;
        Some((node.input(0)?, mean))
    };
    let centre = difference(Some(numerator));
    // Some exporters subtract the mean twice, once for each use.
    let is_numerator = |name: Option<&str>| {
        name == Some(numerator)
            || centre.is_some_and(|(source, mean)| {
                is(graph, name, "Sub")
                    .is_some_and(|sub| sub.input(0) == Some(source) && sub.input(1) == Some(mean.output()))
            })
    };
    let squares = is_numerator(square.input(0))
        && match square.op_type.as_str() {
            "Pow" => scalar(graph, square.input(1)) == Some(2.0),
            "Mul" => is_numerator(square.input(1)),
            _ => false,
        };
    let source = centre.map_or(numerator, |(source, _)| source);
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
    let means = centre.is_none_or(|(_, mean)| over_last(mean)) && over_last(square_mean);
    if !squares || !means || epsilon.is_nan() || epsilon < 0.0 {
        return None;
    }
    let (source, centred, size) = (source.to_owned(), centre.is_some(), *shape.last()?);
    let mut found = Found { source, centred, size, epsilon, scale: None, shift: None, last: index };
    // A scale, then a shift, each read by nothing else.
    for op in if centred { &["Mul", "Add"][..] } else { &["Mul"] } {
        let Some(next) = only_reader(graph, graph.nodes[found.last].output()) else { break };
        let node = &graph.nodes[next];
        let row = (0..2).find_map(|i| constant(graph, node.input(i))).filter(|t| {
            t.dtype.is_float() && t.len() == size && t.shape.last() == Some(&size) && t.shape.len() <= shape.len()
        });
        let Some(row) = row.filter(|_| node.op_type == *op) else { continue };
        let row = Some(Tensor::from_f32(&[size], &row.to_f32()));
        if *op == "Mul" {
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
    let op = if found.centred { "LayerNormalization" } else { "RMSNormalization" };
    graph.nodes[found.last] =
        Node::new(op, name, inputs, [output]).with("axis", Attr::Int(-1)).with("epsilon", Attr::Float(found.epsilon));
    graph.opset = graph.opset.max(17);
    graph.remove_unused();
}

#[cfg(test)]
mod tests {
    use super::super::testing::Model;
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

    #[test]
    fn root_mean_squares_in_every_form() {
        for form in 0..3 {
            let mut model = Model::new(&[5, 4]);
            let (two, epsilon, one) =
                (model.floats(&[], &[2.0]), model.floats(&[], &[1e-6]), model.floats(&[], &[1.0]));
            let (axes, weight) = (model.integers(&[-1]), model.constant(&[4]));
            let square =
                if form == 1 { model.node("Mul", &["x", "x"], &[]) } else { model.node("Pow", &["x", &two], &[]) };
            let mean = model.node("ReduceMean", &[&square, &axes], &[]);
            let safe = model.node("Add", &[&mean, &epsilon], &[]);
            let root = model.node("Sqrt", &[&safe], &[]);
            let y = match form {
                0 => model.node("Div", &["x", &root], &[]),
                1 => {
                    let inverse = model.node("Reciprocal", &[&root], &[]);
                    model.node("Mul", &["x", &inverse], &[])
                }
                _ => {
                    let inverse = model.node("Div", &[&one, &root], &[]);
                    model.node("Mul", &[&inverse, "x"], &[])
                }
            };
            let y = model.node("Mul", &[&weight, &y], &[]);
            model.outputs(&[&y]);
            let after = model.same_after(run);
            assert_eq!((after.nodes.len(), after.nodes[0].op_type.as_str()), (1, "RMSNormalization"));
        }
    }
}
