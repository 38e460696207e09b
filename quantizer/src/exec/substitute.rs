//! Resize as operators that tract computes as ONNX defines them: picks for nearest neighbours, products with matrices of
//! weights for linear interpolation.

use crate::graph::interpolation::{Interpolation, Taps};
use crate::graph::shape::infer_partial;
use crate::graph::{Attr, Graph, Node, Tensor};

/// The graph without Resize, as far as its parameters are constants.
pub(super) fn substitute(graph: &Graph) -> Graph {
    let mut out = graph.clone();
    let shapes = infer_partial(graph, 1);
    for node in graph.nodes.iter().filter(|node| node.op_type == "Resize" && node.domain.is_empty()) {
        let Some(shape) = node.input(0).and_then(|name| Some(&shapes.types.get(name)?.shape)) else { continue };
        let constant = |i: usize| node.input(i).and_then(|name| graph.initializers.get(name));
        let axes = Interpolation::of(node, shape, constant).and_then(|interpolation| interpolation.axes());
        // What is not supported is left for tract to refuse.
        let Ok(axes) = axes else { continue };
        let steps = resize(&mut out, node, shape, axes);
        if let Some(at) = out.nodes.iter().position(|known| known.name == node.name) {
            out.nodes.splice(at..=at, steps);
        }
    }
    out
}

/// One axis after the other.
fn resize(graph: &mut Graph, node: &Node, shape: &[usize], axes: Vec<Option<Vec<Taps>>>) -> Vec<Node> {
    let mut steps = Vec::new();
    let mut value = node.inputs[0].clone();
    let changed = axes.into_iter().enumerate().filter_map(|(axis, taps)| Some((axis, taps?)));
    for (axis, taps) in changed {
        let name = |graph: &Graph, what: &str| graph.fresh_name(&format!("{}.{what}{axis}", node.name));
        let single: Option<Vec<i64>> =
            taps.iter().map(|taps| if let [(index, _)] = taps[..] { Some(index as i64) } else { None }).collect();
        let resized = name(graph, "resized");
        if let Some(indices) = single {
            let index = name(graph, "indices");
            graph.initializers.insert(index.clone(), Tensor::from_i64(&[indices.len()], &indices));
            let gather = Node::new("Gather", resized.clone(), [value, index], [resized.clone()]);
            steps.push(gather.with("axis", Attr::Int(axis as i64)));
        } else {
            let (size, last, columns) = (shape[axis], shape.len() - 1, taps.len());
            let mut weights = vec![0.0f32; size * columns];
            for (to, taps) in taps.iter().enumerate() {
                for &(from, weight) in taps {
                    weights[from * columns + to] += weight as f32;
                }
            }
            let matrix = name(graph, "weights");
            graph.initializers.insert(matrix.clone(), Tensor::from_f32(&[size, columns], &weights));
            // The axis goes last, and back.
            let mut perm: Vec<i64> = (0..shape.len() as i64).collect();
            perm.swap(axis, last);
            let (turned, product) = (name(graph, "turned"), name(graph, "product"));
            let transpose = |from: String, to: &str| {
                Node::new("Transpose", to.to_owned(), [from], [to]).with("perm", Attr::Ints(perm.clone()))
            };
            steps.push(transpose(value, &turned));
            steps.push(Node::new("MatMul", product.clone(), [turned, matrix], [product.clone()]));
            steps.push(transpose(product, &resized));
        }
        value = resized;
    }
    match steps.last_mut() {
        Some(last) => last.outputs = vec![node.output().to_owned()],
        None => steps.push(Node::new("Identity", node.name.clone(), [value], [node.output()])),
    }
    steps
}
