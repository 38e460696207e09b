//! The integer weights of a QDQ graph.

use super::linear::Linear;
use crate::graph::{Graph, Node, Tensor};

/// An integer constant that a node reads through DequantizeLinear: weights, or a constant operand; not a bias.
#[derive(Debug, Clone)]
pub struct IntegerWeights<'g> {
    /// The node that reads it.
    pub node: &'g Node,
    /// Which of the node's inputs it is.
    pub input: usize,
    /// The initializer.
    pub name: &'g str,
    /// The integers, in the model's shape; at most 16 bits.
    pub tensor: &'g Tensor,
    linear: Linear,
}

impl IntegerWeights<'_> {
    /// The integers.
    pub fn levels(&self) -> Vec<i32> {
        // At most 16 bits, so nothing is lost.
        self.tensor.to_i64().into_iter().map(|level| level as i32).collect()
    }

    /// The real values, in f32.
    pub fn real(&self) -> Vec<f32> {
        self.linear.dequantize(self.tensor).map(|tensor| tensor.to_f32()).unwrap_or_default()
    }

    /// Whether there is more than one scale.
    pub fn has_scales(&self) -> bool {
        !self.linear.per_tensor()
    }
}

/// All of them, in graph order; a tensor read by several nodes comes once for each.
pub fn weights(graph: &Graph) -> Vec<IntegerWeights<'_>> {
    let makers = graph.producers();
    let mut found = Vec::new();
    for node in &graph.nodes {
        for (input, name) in node.inputs.iter().enumerate() {
            let Some(dequantize) = makers.get(name.as_str()).and_then(|&at| graph.nodes.get(at)) else { continue };
            found.extend(constant(graph, node, input, dequantize));
        }
    }
    found
}

fn constant<'g>(graph: &'g Graph, node: &'g Node, input: usize, dequantize: &'g Node) -> Option<IntegerWeights<'g>> {
    if dequantize.op_type != "DequantizeLinear" {
        return None;
    }
    let name = dequantize.input(0)?;
    let tensor = graph.initializers.get(name)?;
    let linear = Linear::of(graph, dequantize)?;
    // Biases have 32 bits.
    let small = tensor.dtype.quantized_range().is_some();
    // Parameters that do not fit the tensor make no values.
    (small && !tensor.is_empty() && linear.dequantize(tensor).is_some()).then_some(IntegerWeights {
        node,
        input,
        name,
        tensor,
        linear,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attr, DataType};

    /// Two Gemms read the same int4 weights, each with its own scales; the bias of one is int32.
    fn graph() -> Graph {
        let mut graph = Graph {
            nodes: vec![
                Node::new("DequantizeLinear", "a", ["w", "s"], ["wa"]).with("axis", Attr::Int(0)),
                Node::new("DequantizeLinear", "b", ["w", "t"], ["wb"]),
                Node::new("DequantizeLinear", "c", ["bias", "t"], ["bf"]),
                Node::new("DequantizeLinear", "d", ["w", "u"], ["wd"]).with("axis", Attr::Int(0)),
                Node::new("Gemm", "one", ["x", "wa", "bf"], ["y"]),
                Node::new("Gemm", "two", ["y", "wb"], ["z"]),
                Node::new("Gemm", "three", ["z", "wd"], ["v"]),
            ],
            ..Graph::default()
        };
        graph.initializers.insert("w".into(), Tensor::from_ints(DataType::I4, &[2, 3], &[-8, 7, 1, 0, -1, 2]));
        graph.initializers.insert("s".into(), Tensor::from_f32(&[2], &[0.5, 2.0]));
        graph.initializers.insert("t".into(), Tensor::from_f32(&[], &[1.0]));
        graph.initializers.insert("u".into(), Tensor::from_f32(&[5], &[1.0; 5]));
        graph.initializers.insert("bias".into(), Tensor::from_ints(DataType::I32, &[2], &[1, 2]));
        graph
    }

    #[test]
    fn weights_are_found_through_their_scales() {
        let graph = graph();
        let found = weights(&graph);
        let names: Vec<_> = found.iter().map(|w| (w.node.name.as_str(), w.input, w.name, w.has_scales())).collect();
        // The bias is none, and neither is what scales do not fit.
        assert_eq!(names, [("one", 1, "w", true), ("two", 1, "w", false)]);
        assert_eq!(found[0].levels(), [-8, 7, 1, 0, -1, 2]);
        assert_eq!(found[0].real(), [-4.0, 3.5, 0.5, 0.0, -2.0, 4.0]);
    }
}
