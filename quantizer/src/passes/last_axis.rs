//! Softmax, LogSoftmax and LpNormalization over another axis than the last one: between two Transposes. Of an image whose
//! channels lie last in memory, an axis of channels is the last one already, and nothing moves.

use super::rewrite::{Rewrite, each};
use crate::graph::eval::normalize_axis;
use crate::graph::shape::infer_partial;
use crate::graph::{Attr, Graph, Node};

pub(super) fn run(graph: &mut Graph) -> usize {
    let types = infer_partial(graph, 2).types;
    each(graph, |graph, index| {
        let node = &graph.nodes[index];
        let over_one = matches!(node.op_type.as_str(), "Softmax" | "LogSoftmax" | "LpNormalization");
        let shape = types.get(node.input(0)?)?.shape.clone();
        if over_one && node.domain.is_empty() { moved(graph, index, &shape) } else { None }
    })
}

fn moved(graph: &mut Graph, index: usize, shape: &[usize]) -> Option<usize> {
    let node = graph.nodes[index].clone();
    let axis = normalize_axis(node.int("axis", -1), shape.len())?;
    if shape[axis + 1..].iter().all(|&size| size == 1) {
        return None;
    }
    let mut order: Vec<usize> = (0..shape.len()).filter(|&other| other != axis).collect();
    order.push(axis);
    let back: Vec<usize> = (0..shape.len()).map(|axis| order.iter().position(|&at| at == axis).unwrap_or(0)).collect();
    let mut rewrite = Rewrite::new(graph, index);
    let x = rewrite.transpose(node.input(0)?, &order);
    let y = rewrite.push(Node { inputs: vec![x], ..node }.with("axis", Attr::Int(-1)));
    rewrite.transpose(&y, &back);
    Some(rewrite.finish())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Model;
    use super::*;

    #[test]
    fn the_axis_becomes_the_last() {
        for (shape, axis) in [(vec![5, 4], 1), (vec![3, 4, 2], -3), (vec![3, 4, 2], 2)] {
            let mut model = Model::new(&shape);
            let y = model.node("Softmax", &["x"], &[("axis", Attr::Int(axis))]);
            model.outputs(&[&y]);
            let ops: Vec<String> = model.same_after(run).nodes.into_iter().map(|node| node.op_type).collect();
            assert_eq!(ops, ["Transpose", "Softmax", "Transpose"]);
        }
        let mut model = Model::new(&[5, 4, 1, 1]);
        model.node("Softmax", &["x"], &[("axis", Attr::Int(2))]);
        assert_eq!(run(&mut model.graph), 0, "what follows has one element");
    }
}
