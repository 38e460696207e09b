//! The activations that a QDQ graph quantizes.

use super::linear::Linear;
use crate::graph::Graph;
use crate::quantize::QParams;

/// The values, in graph order, that QuantizeLinear nodes read, with their parameters; a value quantized twice comes once.
/// Constants, and values whose parameters are not constant, have more than one scale or more than 16 bits, are left out.
pub fn activations(graph: &Graph) -> Vec<(String, QParams)> {
    let mut found: Vec<(String, QParams)> = Vec::new();
    for node in graph.nodes.iter().filter(|node| node.op_type == "QuantizeLinear") {
        let Some(value) = node.input(0).filter(|value| !graph.initializers.contains_key(*value)) else { continue };
        let Some(linear) = Linear::of(graph, node).filter(Linear::per_tensor) else { continue };
        let known = found.iter().any(|(name, _)| name == value);
        if let (Some(scale), Some(&zero_point), Some(_), false) =
            (linear.scale.scalar_f32(), linear.zero_point.first(), linear.dtype.quantized_range(), known)
        {
            // At most 16 bits.
            let params = QParams { dtype: linear.dtype, scale, zero_point: zero_point as i32 };
            found.push((value.to_owned(), params));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{DataType, Node, Tensor};

    #[test]
    fn parameters_are_read_from_the_nodes() {
        let mut graph = Graph {
            nodes: vec![
                Node::new("QuantizeLinear", "a", ["x", "s", "z"], ["xq"]),
                Node::new("QuantizeLinear", "b", ["x", "s", "z"], ["xr"]),
                Node::new("QuantizeLinear", "c", ["constant", "s", "z"], ["cq"]),
                Node::new("QuantizeLinear", "d", ["y", "many"], ["yq"]),
                Node::new("QuantizeLinear", "e", ["w", "s"], ["wq"]),
                Node::new("QuantizeLinear", "f", ["v", "made"], ["vq"]),
            ],
            ..Graph::default()
        };
        graph.initializers.insert("s".into(), Tensor::from_f32(&[], &[0.25]));
        graph.initializers.insert("many".into(), Tensor::from_f32(&[2], &[0.25, 0.5]));
        graph.initializers.insert("constant".into(), Tensor::from_f32(&[2], &[0.25, 0.5]));
        graph.initializers.insert("z".into(), Tensor::from_ints(DataType::I8, &[], &[-3]));
        let params = |dtype, zero_point| QParams { dtype, scale: 0.25, zero_point };
        let expected = [("x".to_owned(), params(DataType::I8, -3)), ("w".to_owned(), params(DataType::U8, 0))];
        assert_eq!(activations(&graph), expected);
    }
}
