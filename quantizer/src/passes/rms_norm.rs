//! RMSNormalization in elementary operators: for executors and files of operator sets that do not have it (it came with 23).

use super::constant;
use super::rewrite::{Rewrite, each};
use crate::graph::{Graph, Tensor};

/// Writes every RMSNormalization over the last axis out. Returns how many there were.
pub(crate) fn expand(graph: &mut Graph) -> usize {
    each(graph, expanded)
}

fn expanded(graph: &mut Graph, index: usize) -> Option<usize> {
    let node = graph.nodes[index].clone();
    let last = node.int("axis", -1) == -1;
    if node.op_type != "RMSNormalization" || !node.domain.is_empty() || !last {
        return None;
    }
    let (x, scale) = (node.input(0)?, node.input(1)?);
    let is_one = constant(graph, Some(scale)).is_some_and(|scale| scale.to_f32().iter().all(|&factor| factor == 1.0));
    let mut rewrite = Rewrite::new(graph, index);
    let axes = rewrite.integers("axes", &[-1]);
    let epsilon = rewrite.constant("epsilon", Tensor::from_f32(&[], &[node.float("epsilon", 1e-5)]));
    let square = rewrite.op("Mul", &[x, x], &[]);
    let mean = rewrite.op("ReduceMean", &[&square, &axes], &[]);
    let safe = rewrite.op("Add", &[&mean, &epsilon], &[]);
    let root = rewrite.op("Sqrt", &[&safe], &[]);
    let normal = rewrite.main("Div", &[x, &root], &[]);
    if !is_one {
        rewrite.op("Mul", &[&normal, scale], &[]);
    }
    Some(rewrite.finish())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Model;
    use super::*;

    #[test]
    fn what_is_written_out_is_recognised_again() {
        for scaled in [false, true] {
            let mut model = Model::new(&[5, 4]);
            let scale = if scaled { model.constant(&[4]) } else { model.floats(&[4], &[1.0; 4]) };
            let y = model.node("RMSNormalization", &["x", &scale], &[]);
            model.outputs(&[&y]);
            let mut graph = model.graph.clone();
            assert_eq!((expand(&mut graph), expand(&mut graph)), (1, 0));
            assert_eq!(super::super::layer_norm::run(&mut graph), 1);
            let node = &graph.nodes[0];
            assert_eq!((node.op_type.as_str(), node.float("epsilon", 0.0)), ("RMSNormalization", 1e-5));
            assert_eq!(graph.initializers[&node.inputs[1]].to_f32(), model.graph.initializers[&scale].to_f32());
        }
    }
}
