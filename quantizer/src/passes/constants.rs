//! `Constant` nodes become initializers.

use crate::graph::{Graph, eval};

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut found = Vec::new();
    graph.nodes.retain(|node| {
        if node.op_type == "Constant"
            && node.domain.is_empty()
            && node.outputs.len() == 1
            && let Some(value) = eval::constant(node)
        {
            found.push((node.output().to_owned(), value));
            return false;
        }
        true
    });
    let count = found.len();
    graph.initializers.extend(found);
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attr, Node};

    #[test]
    fn every_kind_of_number() {
        let mut graph = Graph::default();
        graph.nodes.push(Node::new("Constant", "a", [""; 0], ["a"]).with("value_float", Attr::Float(2.5)));
        graph.nodes.push(Node::new("Constant", "b", [""; 0], ["b"]).with("value_ints", Attr::Ints(vec![1, 2])));
        graph.nodes.push(Node::new("Constant", "c", [""; 0], ["c"]).with("value_string", Attr::String("x".into())));
        assert_eq!(run(&mut graph), 2);
        assert_eq!(graph.initializers["a"].scalar_f32(), Some(2.5));
        assert_eq!(graph.initializers["b"].to_i64(), [1, 2]);
        assert_eq!(graph.nodes.len(), 1);
    }
}
