//! Older operator sets are raised, so that later stages meet one form of each operator.
//!
//! Differences that concern supported operators: axes of Squeeze, Unsqueeze and reductions moved from attributes
//! to inputs (13, 18); Softmax below 13 normalised over all axes from `axis` on.

use super::add_constant;
use crate::graph::eval::normalize_axis;
use crate::graph::shape::infer_partial;
use crate::graph::{Attr, Graph, Node, Tensor};

pub(super) fn run(graph: &mut Graph, target: i64) -> usize {
    let from = graph.opset;
    if from >= target {
        return 0;
    }
    if from < 13 {
        softmax(graph);
    }
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let moved = match node.op_type.as_str() {
            "Squeeze" | "Unsqueeze" | "ReduceSum" => from < 13,
            "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1" | "ReduceL2" | "ReduceSumSquare"
            | "ReduceLogSum" | "ReduceLogSumExp" => from < 18,
            _ => false,
        };
        if !moved || !node.domain.is_empty() {
            continue;
        }
        let (name, axes) = (node.name.clone(), node.ints("axes").map(<[i64]>::to_vec));
        if let Some(axes) = axes {
            let constant = add_constant(graph, &format!("{name}.axes"), Tensor::from_i64(&[axes.len()], &axes));
            let node = &mut graph.nodes[index];
            node.attrs.remove("axes");
            node.inputs.truncate(1);
            node.inputs.push(constant);
        }
    }
    graph.opset = target;
    1
}

/// Softmax over several trailing axes as Softmax over one: flattened before, restored after.
fn softmax(graph: &mut Graph) {
    let (two, three) = (infer_partial(graph, 2), infer_partial(graph, 3));
    let mut index = 0;
    while index < graph.nodes.len() {
        let node = &graph.nodes[index];
        let shape = node.input(0).and_then(|name| two.types.get(name)).map(|kind| kind.shape.clone());
        let other = node.input(0).and_then(|name| three.types.get(name)).map(|kind| kind.shape.clone());
        let (Some(shape), Some(other), true) =
            (shape, other, matches!(node.op_type.as_str(), "Softmax" | "LogSoftmax") && node.domain.is_empty())
        else {
            index += 1;
            continue;
        };
        let Some(axis) = normalize_axis(node.int("axis", 1), shape.len()) else {
            index += 1;
            continue;
        };
        if shape[axis + 1..].iter().all(|&size| size == 1) {
            graph.nodes[index].attrs.insert("axis".into(), Attr::Int(axis as i64));
            index += 1;
            continue;
        }
        let op_type = node.op_type.clone();
        let (name, source, output) = (node.name.clone(), node.inputs[0].clone(), node.output().to_owned());
        let target: Vec<i64> = shape.iter().zip(&other).map(|(&a, &b)| if a == b { a as i64 } else { 0 }).collect();
        // Copying (0) from the flattened value works for the first axis only, which is where the batch is.
        let target: Vec<i64> =
            target.iter().enumerate().map(|(i, &d)| if d == 0 && (i > 0 || axis > 1) { -1 } else { d }).collect();
        let shape = add_constant(graph, &format!("{name}.shape"), Tensor::from_i64(&[target.len()], &target));
        let (flat, soft) = (graph.fresh_name(&format!("{name}.flat")), graph.fresh_name(&format!("{name}.soft")));
        let nodes = [
            Node::new("Flatten", format!("{name}.flatten"), [source], [flat.clone()])
                .with("axis", Attr::Int(axis as i64)),
            Node::new(&op_type, name.clone(), [flat], [soft.clone()]).with("axis", Attr::Int(-1)),
            Node::new("Reshape", format!("{name}.restore"), [soft, shape], [output]),
        ];
        graph.nodes.splice(index..=index, nodes);
        index += 3;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{DataType, Dim, ValueInfo};

    #[test]
    fn axes_become_inputs_and_old_softmax_is_flattened() {
        let dims = vec![Dim::Symbol("N".into()), Dim::Known(3), Dim::Known(4)];
        let mut graph = Graph {
            opset: 11,
            inputs: vec![ValueInfo { name: "x".into(), dtype: DataType::F32, shape: Some(dims) }],
            outputs: vec![ValueInfo { name: "z".into(), dtype: DataType::F32, shape: None }],
            ..Graph::default()
        };
        graph.nodes.push(Node::new("Softmax", "s", ["x"], ["y"]));
        graph.nodes.push(Node::new("ReduceMean", "m", ["y"], ["z"]).with("axes", Attr::Ints(vec![2])));
        assert_eq!((run(&mut graph, 21), run(&mut graph, 21)), (1, 0));
        let ops: Vec<&str> = graph.nodes.iter().map(|n| n.op_type.as_str()).collect();
        assert_eq!(ops, ["Flatten", "Softmax", "Reshape", "ReduceMean"]);
        let types = infer_partial(&graph, 5).types;
        assert_eq!(types["y"].shape, [5, 3, 4]);
        assert_eq!(types["z"].shape, [5, 3, 1]);
    }
}
