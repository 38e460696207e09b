//! Nodes whose inputs are all constants become constants. DequantizeLinear stays: it is what marks weights.

use crate::graph::{Graph, Tensor, eval};

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut count = 0;
    for node in std::mem::take(&mut graph.nodes) {
        let inputs: Option<Vec<Option<&Tensor>>> = node
            .inputs
            .iter()
            .map(|name| if name.is_empty() { Some(None) } else { graph.initializers.get(name).map(Some) })
            .collect();
        let foldable = node.outputs.len() == 1 && !graph.outputs.iter().any(|o| o.name == node.outputs[0]);
        let value = inputs.filter(|_| foldable).and_then(|inputs| eval::eval(&node, graph.opset, &inputs));
        match value {
            Some(value) => {
                graph.initializers.insert(node.output().to_owned(), value);
                count += 1;
            }
            None => graph.nodes.push(node),
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;

    #[test]
    fn chains_fold_in_one_run() {
        let mut graph = Graph { opset: 17, ..Graph::default() };
        graph.initializers.insert("a".into(), Tensor::from_f32(&[2], &[1.0, 4.0]));
        graph.nodes.push(Node::new("Sqrt", "s", ["a"], ["b"]));
        graph.nodes.push(Node::new("Add", "t", ["a", "b"], ["c"]));
        assert_eq!(run(&mut graph), 2);
        assert_eq!(graph.initializers["c"].to_f32(), [2.0, 6.0]);
    }

    #[test]
    fn weights_stay_marked() {
        let mut graph = Graph { opset: 17, ..Graph::default() };
        graph.initializers.insert("q".into(), Tensor::from_ints(crate::graph::DataType::I8, &[1], &[3]));
        graph.initializers.insert("s".into(), Tensor::from_f32(&[], &[0.5]));
        graph.nodes.push(Node::new("DequantizeLinear", "d", ["q", "s"], ["w"]));
        assert_eq!(run(&mut graph), 0);
    }
}
