//! A Mul or Add by a per-channel constant folds into the Conv or ConvTranspose before it.

use super::batch_norm::{Affine, fold_affine, outputs};
use super::{constant, maker, only_reader};
use crate::graph::{Graph, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut count = 0;
    for index in (0..graph.nodes.len()).rev() {
        if fold(graph, index).is_some() {
            count += 1;
        }
    }
    count
}

fn fold(graph: &mut Graph, index: usize) -> Option<()> {
    let node = &graph.nodes[index];
    if !matches!(node.op_type.as_str(), "Mul" | "Add") || !node.domain.is_empty() {
        return None;
    }
    let side = (0..2).find(|&i| constant(graph, node.input(i)).is_some())?;
    let source = node.input(1 - side)?;
    let before = maker(graph, Some(source))?;
    let maker = &graph.nodes[before];
    if !matches!(maker.op_type.as_str(), "Conv" | "ConvTranspose") || only_reader(graph, source)? != index {
        return None;
    }
    let (channels, _) = outputs(maker, &constant(graph, maker.input(1))?.shape)?;
    let values = per_channel(constant(graph, node.input(side))?, channels)?;
    let affine = match node.op_type.as_str() {
        "Mul" => Affine { factor: values, shift: vec![0.0; channels] },
        _ => Affine { factor: vec![1.0; channels], shift: values },
    };
    let output = node.output().to_owned();
    fold_affine(graph, before, &affine)?;
    graph.nodes[before].outputs[0] = output;
    graph.nodes.remove(index);
    Some(())
}

/// The constant's value for each channel of an [N, C, H, W] tensor, if it is the same at every position.
fn per_channel(tensor: &Tensor, channels: usize) -> Option<Vec<f64>> {
    if !tensor.dtype.is_float() {
        return None;
    }
    let values: Vec<f64> = tensor.to_f32().into_iter().map(f64::from).collect();
    match tensor.shape.as_slice() {
        _ if values.len() == 1 && tensor.shape.len() <= 4 => Some(vec![values[0]; channels]),
        [c, 1, 1] | [1, c, 1, 1] if *c == channels => Some(values),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;

    #[test]
    fn a_scaled_convolution_is_one_convolution() {
        let mut graph = Graph { opset: 17, ..Graph::default() };
        graph.initializers.insert("w".into(), Tensor::from_f32(&[2, 1, 1, 1], &[1.0, 2.0]));
        graph.initializers.insert("b".into(), Tensor::from_f32(&[2], &[1.0, 1.0]));
        graph.initializers.insert("m".into(), Tensor::from_f32(&[2, 1, 1], &[3.0, 4.0]));
        graph.initializers.insert("a".into(), Tensor::from_f32(&[], &[0.5]));
        graph.nodes.push(Node::new("Conv", "c", ["x", "w", "b"], ["u"]));
        graph.nodes.push(Node::new("Mul", "m", ["u", "m"], ["v"]));
        graph.nodes.push(Node::new("Add", "a", ["a", "v"], ["y"]));
        while run(&mut graph) > 0 {}
        assert_eq!((graph.nodes.len(), graph.nodes[0].output()), (1, "y"));
        assert_eq!(graph.initializers[&graph.nodes[0].inputs[1]].to_f32(), [3.0, 8.0]);
        assert_eq!(graph.initializers[&graph.nodes[0].inputs[2]].to_f32(), [3.5, 4.5]);
    }
}
