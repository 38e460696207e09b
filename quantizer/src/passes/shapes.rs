//! Shape arithmetic becomes constants. A batch that stays dynamic is written as 0 or −1 in Reshape targets.

use super::add_constant;
use crate::graph::shape::infer_partial;
use crate::graph::{Graph, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    let (two, three) = (infer_partial(graph, 2), infer_partial(graph, 3));
    let mut count = 0;
    // What has the same value for every batch is a constant.
    let mut constants = Vec::new();
    let outputs: Vec<String> = graph.outputs.iter().map(|output| output.name.clone()).collect();
    graph.nodes.retain(|node| {
        let name = node.output();
        if outputs.iter().any(|output| output == name) {
            return true;
        }
        let value = two.values.get(name).filter(|value| three.values.get(name) == Some(value));
        match value {
            // Shapes and other single-output arithmetic only: `values` holds nothing else.
            Some(value) if node.outputs.len() == 1 && !node.op_type.ends_with("QuantizeLinear") => {
                constants.push((name.to_owned(), value.clone()));
                false
            }
            _ => true,
        }
    });
    count += constants.len();
    graph.initializers.extend(constants);

    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        if node.op_type != "Reshape" || !node.domain.is_empty() {
            continue;
        }
        let (Some(data), Some(target)) = (node.input(0), node.input(1)) else { continue };
        if graph.initializers.contains_key(target) {
            continue;
        }
        let shapes =
            [&two, &three].map(|s| Some((s.types.get(data)?.shape.clone(), s.types.get(node.output())?.shape.clone())));
        let [Some((from2, to2)), Some((from3, to3))] = shapes else { continue };
        let Some(dims) = target_for_any_batch((&from2, &to2), (&from3, &to3)) else { continue };
        let tensor = Tensor::from_i64(&[dims.len()], &dims);
        let stem = format!("{target}_constant");
        let name = add_constant(graph, &stem, tensor);
        let node = &mut graph.nodes[index];
        node.inputs[1] = name;
        node.attrs.remove("allowzero");
        count += 1;
    }
    count
}

/// A Reshape target that gives both results, from (input, output) shapes for two batches.
fn target_for_any_batch(two: (&[usize], &[usize]), three: (&[usize], &[usize])) -> Option<Vec<i64>> {
    let mut dims = Vec::with_capacity(two.1.len());
    let mut inferred = false;
    for (i, (&a, &b)) in two.1.iter().zip(three.1).enumerate() {
        dims.push(if a == b {
            a as i64
        } else if two.0.get(i) == Some(&a) && three.0.get(i) == Some(&b) {
            0
        } else if !inferred {
            inferred = true;
            -1
        } else {
            return None;
        });
    }
    // 0 means "copy" in a target: a true size of 0 cannot be written.
    (!two.1.contains(&0)).then_some(dims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attr, DataType, Dim, Node, ValueInfo};

    #[test]
    fn the_batch_stays_dynamic() {
        let dims = vec![Dim::Symbol("N".into()), Dim::Known(6), Dim::Known(4)];
        let mut graph = Graph {
            opset: 17,
            inputs: vec![ValueInfo { name: "x".into(), dtype: DataType::F32, shape: Some(dims) }],
            outputs: vec![ValueInfo { name: "y".into(), dtype: DataType::F32, shape: None }],
            ..Graph::default()
        };
        graph.initializers.insert("zero".into(), Tensor::from_i64(&[1], &[0]));
        graph.initializers.insert("rest".into(), Tensor::from_i64(&[2], &[2, -1]));
        graph.nodes.push(Node::new("Shape", "s", ["x"], ["shape"]));
        graph.nodes.push(Node::new("Gather", "g", ["shape", "zero"], ["n"]));
        graph.nodes.push(Node::new("Concat", "c", ["n", "rest"], ["target"]).with("axis", Attr::Int(0)));
        graph.nodes.push(Node::new("Reshape", "r", ["x", "target"], ["y"]));
        assert_eq!(run(&mut graph), 1);
        graph.remove_unused();
        assert_eq!(graph.nodes.len(), 1);
        assert_eq!(graph.initializers[&graph.nodes[0].inputs[1]].to_i64(), [0, 2, 12]);
        assert_eq!(run(&mut graph), 0);
    }

    #[test]
    fn a_batch_merged_with_another_axis_is_inferred() {
        assert_eq!(target_for_any_batch((&[2, 4, 8], &[8, 8]), (&[3, 4, 8], &[12, 8])), Some(vec![-1, 8]));
    }
}
