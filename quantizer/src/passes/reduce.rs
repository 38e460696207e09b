//! Reductions that are a function of a sum: ReduceL1, ReduceL2, ReduceSumSquare and ReduceLogSum.

use crate::graph::{Graph, Node};

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut count = 0;
    for index in (0..graph.nodes.len()).rev() {
        let node = graph.nodes[index].clone();
        let (before, after) = match node.op_type.as_str() {
            _ if !node.domain.is_empty() => continue,
            "ReduceL1" => (Some("Abs"), None),
            "ReduceL2" => (Some("Mul"), Some("Sqrt")),
            "ReduceSumSquare" => (Some("Mul"), None),
            "ReduceLogSum" => (None, Some("Log")),
            _ => continue,
        };
        let Some(source) = node.input(0) else { continue };
        let mut nodes = Vec::new();
        let mut sum = Node { op_type: "ReduceSum".into(), ..node.clone() };
        if let Some(op) = before {
            let value = graph.fresh_name(&format!("{}.{}", node.name, op.to_lowercase()));
            let inputs = vec![source; if op == "Mul" { 2 } else { 1 }];
            nodes.push(Node::new(op, value.clone(), inputs, [value.clone()]));
            sum.inputs[0] = value;
        }
        if let Some(op) = after {
            let value = graph.fresh_name(&format!("{}.sum", node.name));
            sum.outputs = vec![value.clone()];
            let name = graph.fresh_name(&format!("{}.{}", node.name, op.to_lowercase()));
            nodes.push(sum);
            nodes.push(Node::new(op, name, [value], [node.output()]));
        } else {
            nodes.push(sum);
        }
        graph.nodes.splice(index..=index, nodes);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_norm_is_the_root_of_a_sum_of_squares() {
        let mut graph = Graph { nodes: vec![Node::new("ReduceL2", "n", ["x", "axes"], ["y"])], ..Graph::default() };
        assert_eq!((run(&mut graph), run(&mut graph)), (1, 0));
        let ops: Vec<&str> = graph.nodes.iter().map(|node| node.op_type.as_str()).collect();
        assert_eq!(ops, ["Mul", "ReduceSum", "Sqrt"]);
        assert_eq!(graph.nodes[0].inputs, ["x", "x"]);
        assert_eq!(graph.nodes[1].inputs, ["n.mul", "axes"]);
        assert_eq!(graph.nodes[2].output(), "y");
    }
}
