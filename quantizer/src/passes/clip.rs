//! Clamps take one form: Relu, or Clip with two constant bounds. Min and Max with a constant are clamps,
//! and clamps that follow each other are one.

use super::{add_constant, bypass, maker, only_reader, scalar};
use crate::graph::{Graph, Node, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut count = 0;
    let mut index = 0;
    while index < graph.nodes.len() {
        if let Some((source, low, high)) = clamp(graph, &graph.nodes[index]) {
            if low == f32::NEG_INFINITY && high == f32::INFINITY {
                if bypass(graph, index, &source) {
                    count += 1;
                    continue;
                }
            } else if let Some((first, merged)) = merge(graph, index, &source, low, high) {
                let output = graph.nodes[index].output().to_owned();
                graph.nodes[first].outputs[0] = output;
                set(graph, first, merged.0, merged.1);
                graph.nodes.remove(index);
                count += 1;
                continue;
            } else if set(graph, index, low, high) {
                count += 1;
            }
        }
        index += 1;
    }
    count
}

/// The value clamped and the bounds, if the node is a clamp with constant bounds.
fn clamp(graph: &Graph, node: &Node) -> Option<(String, f32, f32)> {
    if !node.domain.is_empty() {
        return None;
    }
    let bound = |i: usize, absent: f32| match node.input(i) {
        None => Some(absent),
        name => scalar(graph, name),
    };
    let (source, low, high) = match node.op_type.as_str() {
        "Relu" => (node.input(0)?, 0.0, f32::INFINITY),
        "Clip" => (node.input(0)?, bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?),
        "Min" | "Max" if node.inputs.len() == 2 => {
            let side = (0..2).find(|&i| scalar(graph, node.input(i)).is_some())?;
            let value = scalar(graph, node.input(side))?;
            let tensor = graph.initializers.get(node.input(side)?)?;
            if !tensor.dtype.is_float() || tensor.shape.len() > 1 {
                return None;
            }
            let source = node.input(1 - side)?;
            if node.op_type == "Min" { (source, f32::NEG_INFINITY, value) } else { (source, value, f32::INFINITY) }
        }
        _ => return None,
    };
    // The lowest and highest float are how some exporters write "no bound".
    let low = if low <= f32::MIN { f32::NEG_INFINITY } else { low };
    let high = if high >= f32::MAX { f32::INFINITY } else { high };
    (low <= high && !graph.initializers.contains_key(source)).then(|| (source.to_owned(), low, high))
}

/// The clamp before this one, and the bounds of both together, if nothing else reads what lies between.
fn merge(graph: &Graph, index: usize, source: &str, low: f32, high: f32) -> Option<(usize, (f32, f32))> {
    let first = maker(graph, Some(source))?;
    if only_reader(graph, source)? != index {
        return None;
    }
    let (_, first_low, first_high) = clamp(graph, &graph.nodes[first])?;
    Some((first, (first_low.clamp(low, high), first_high.clamp(low, high))))
}

/// Writes the clamp in its one form. Returns whether that changed anything.
fn set(graph: &mut Graph, index: usize, low: f32, high: f32) -> bool {
    let node = &graph.nodes[index];
    let side = usize::from(matches!(node.op_type.as_str(), "Min" | "Max") && scalar(graph, node.input(0)).is_some());
    let source = node.inputs[side].clone();
    if low == 0.0 && high == f32::INFINITY {
        let changed = node.op_type != "Relu";
        let node = &mut graph.nodes[index];
        node.op_type = "Relu".into();
        node.inputs = vec![source];
        return changed;
    }
    // A missing bound is written as the extreme float: then both are always there.
    let (low, high) = (low.max(f32::MIN), high.min(f32::MAX));
    let done = node.op_type == "Clip"
        && node.inputs.len() == 3
        && scalar(graph, node.input(1)) == Some(low)
        && scalar(graph, node.input(2)) == Some(high);
    if done {
        return false;
    }
    let name = node.name.clone();
    let low = add_constant(graph, &format!("{name}.min"), Tensor::from_f32(&[], &[low]));
    let high = add_constant(graph, &format!("{name}.max"), Tensor::from_f32(&[], &[high]));
    let node = &mut graph.nodes[index];
    node.op_type = "Clip".into();
    node.inputs = vec![source, low, high];
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: Vec<Node>) -> Graph {
        let mut graph = Graph { opset: 17, nodes, ..Graph::default() };
        graph.initializers.insert("zero".into(), Tensor::from_f32(&[], &[0.0]));
        graph.initializers.insert("six".into(), Tensor::from_f32(&[], &[6.0]));
        graph
    }

    fn bounds(graph: &Graph) -> (f32, f32) {
        let (_, low, high) = clamp(graph, &graph.nodes[0]).unwrap();
        (low, high)
    }

    #[test]
    fn relu_then_min_is_one_clip() {
        let mut graph = graph(vec![Node::new("Relu", "r", ["x"], ["a"]), Node::new("Min", "m", ["six", "a"], ["y"])]);
        while run(&mut graph) > 0 {}
        assert_eq!((graph.nodes.len(), graph.nodes[0].op_type.as_str(), graph.nodes[0].output()), (1, "Clip", "y"));
        assert_eq!(bounds(&graph), (0.0, 6.0));
    }

    #[test]
    fn open_clips_are_relu_or_nothing() {
        let mut graph =
            graph(vec![Node::new("Clip", "c", ["x", "zero"], ["a"]), Node::new("Clip", "d", ["a", "", ""], ["b"])]);
        graph.nodes.push(Node::new("Neg", "n", ["b"], ["y"]));
        while run(&mut graph) > 0 {}
        assert_eq!(graph.nodes, [Node::new("Relu", "c", ["x"], ["a"]), Node::new("Neg", "n", ["a"], ["y"])]);
    }

    #[test]
    fn two_clips_with_a_bound_missing_settle() {
        let mut graph = graph(vec![Node::new("Clip", "c", ["x", "", "six"], ["y"])]);
        assert_eq!((run(&mut graph), run(&mut graph)), (1, 0));
        assert_eq!(bounds(&graph), (f32::NEG_INFINITY, 6.0));
    }
}
