//! Sum, Mean, Min and Max of any number of values become operators of two.

use super::add_constant;
use crate::graph::{Graph, Node, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut count = 0;
    let mut index = 0;
    while index < graph.nodes.len() {
        match pairs(graph, index) {
            Some(nodes) => {
                let added = nodes.len();
                graph.nodes.splice(index..=index, nodes);
                index += added;
                count += 1;
            }
            None => index += 1,
        }
    }
    count
}

/// The operators of two values that make what node `index` makes, if it is of another form.
fn pairs(graph: &mut Graph, index: usize) -> Option<Vec<Node>> {
    let node = graph.nodes[index].clone();
    let op = match node.op_type.as_str() {
        _ if !node.domain.is_empty() => return None,
        "Sum" | "Mean" => "Add",
        op @ ("Min" | "Max") if node.inputs.len() != 2 => op,
        _ => return None,
    };
    let [first, rest @ ..] = node.inputs.as_slice() else { return None };
    if node.inputs.iter().any(String::is_empty) {
        return None;
    }
    let mean = node.op_type == "Mean" && !rest.is_empty();
    let mut value = first.clone();
    let mut nodes = Vec::new();
    for (i, next) in rest.iter().enumerate() {
        let last = i + 1 == rest.len();
        let output = match last && !mean {
            true => node.output().to_owned(),
            false => graph.fresh_name(&format!("{}.{}", node.output(), i + 1)),
        };
        let name = if last { node.name.clone() } else { graph.fresh_name(&format!("{}.{}", node.name, i + 1)) };
        nodes.push(Node::new(op, name, [value, next.clone()], [output.clone()]));
        value = output;
    }
    if nodes.is_empty() {
        return Some(vec![Node::new("Identity", node.name.clone(), [value], [node.output()])]);
    }
    if mean {
        let share = Tensor::from_f32(&[], &[1.0 / node.inputs.len() as f32]);
        let share = add_constant(graph, &format!("{}.share", node.name), share);
        let name = graph.fresh_name(&format!("{}.mean", node.name));
        nodes.push(Node::new("Mul", name, [value, share], [node.output()]));
    }
    Some(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_joined_two_by_two() {
        let mut graph = Graph {
            nodes: vec![
                Node::new("Max", "m", ["a", "b", "c"], ["x"]),
                Node::new("Mean", "n", ["x", "d"], ["y"]),
                Node::new("Sum", "s", ["y"], ["z"]),
                Node::new("Min", "two", ["z", "a"], ["w"]),
            ],
            ..Graph::default()
        };
        assert_eq!((run(&mut graph), run(&mut graph)), (3, 0));
        let nodes: Vec<String> = graph
            .nodes
            .iter()
            .map(|node| format!("{} = {}({})", node.output(), node.op_type, node.inputs.join(", ")))
            .collect();
        let expected = [
            "x.1 = Max(a, b)",
            "x = Max(x.1, c)",
            "y.1 = Add(x, d)",
            "y = Mul(y.1, n.share)",
            "z = Identity(y)",
            "w = Min(z, a)",
        ];
        assert_eq!(nodes, expected);
        assert_eq!(graph.initializers["n.share"].to_f32(), [0.5]);
    }
}
