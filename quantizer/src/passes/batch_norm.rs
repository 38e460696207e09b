//! BatchNormalization folds into the Conv, ConvTranspose, Gemm or MatMul before it; one that stands alone over an image
//! becomes a depthwise 1×1 Conv.

use super::{add_constant, constant, maker, only_reader};
use crate::graph::shape::infer_partial;
use crate::graph::{Attr, Graph, Node, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut count = 0;
    for index in (0..graph.nodes.len()).rev() {
        if graph.nodes[index].op_type == "BatchNormalization" && graph.nodes[index].domain.is_empty() {
            let Some(affine) = affine(graph, &graph.nodes[index]) else { continue };
            let applied = fold(graph, index, &affine).is_some()
                || stands_alone(graph, index) && to_depthwise(graph, index, &affine).is_some();
            count += usize::from(applied);
        }
    }
    count
}

/// y = factor · x + shift, per channel.
pub(super) struct Affine {
    pub(super) factor: Vec<f64>,
    pub(super) shift: Vec<f64>,
}

fn affine(graph: &Graph, node: &Node) -> Option<Affine> {
    if node.int("training_mode", 0) != 0 {
        return None;
    }
    let list =
        |i: usize| constant(graph, node.input(i)).map(|t| t.to_f32().into_iter().map(f64::from).collect::<Vec<_>>());
    let (gamma, beta, mean, var) = (list(1)?, list(2)?, list(3)?, list(4)?);
    let epsilon = f64::from(node.float("epsilon", 1e-5));
    if [&beta, &mean, &var].iter().any(|other| other.len() != gamma.len()) {
        return None;
    }
    let factor: Vec<f64> = gamma.iter().zip(&var).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
    let shift = (0..factor.len()).map(|c| beta[c] - mean[c] * factor[c]).collect();
    Some(Affine { factor, shift })
}

fn fold(graph: &mut Graph, index: usize, affine: &Affine) -> Option<()> {
    let source = graph.nodes[index].input(0)?.to_owned();
    let before = maker(graph, Some(&source))?;
    if only_reader(graph, &source)? != index {
        return None;
    }
    if graph.nodes[before].op_type == "MatMul" {
        matmul_to_gemm(graph, before)?;
    }
    fold_affine(graph, before, affine)?;
    let output = graph.nodes[index].output().to_owned();
    graph.nodes[before].outputs[0] = output;
    graph.nodes.remove(index);
    Some(())
}

/// Output channels of a Conv, ConvTranspose or Gemm (in its normal form) with weights of this shape, and the one that
/// each weight belongs to.
pub(super) fn outputs(node: &Node, weights: &[usize]) -> Option<(usize, impl Fn(usize) -> usize + use<>)> {
    let rows = *weights.first()?;
    // Weights are [groups, inputs of a group, outputs of a group, inner] then.
    let (groups, inputs, outputs) = match node.op_type.as_str() {
        "Conv" => (1, 1, rows),
        "Gemm" if node.int("transB", 0) != 0 && node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0 => {
            (1, 1, rows)
        }
        "ConvTranspose" => {
            let groups = usize::try_from(node.int("group", 1)).ok().filter(|&groups| groups > 0)?;
            (groups, rows / groups, *weights.get(1)?)
        }
        _ => return None,
    };
    let inner = weights.iter().product::<usize>().checked_div(groups * inputs * outputs).filter(|&inner| inner > 0)?;
    let channel = move |i: usize| {
        let pair = i / inner;
        pair / (inputs * outputs) * outputs + pair % outputs
    };
    (node.domain.is_empty() && rows % groups == 0).then_some((groups * outputs, channel))
}

/// Multiplies the outputs of a Conv, ConvTranspose or Gemm with constant weights by `factor` and adds `shift`, per channel.
pub(super) fn fold_affine(graph: &mut Graph, index: usize, affine: &Affine) -> Option<()> {
    let node = &graph.nodes[index];
    let weights = constant(graph, node.input(1)).filter(|w| w.dtype.is_float())?;
    let (channels, channel) = outputs(node, &weights.shape)?;
    if affine.factor.len() != channels {
        return None;
    }
    let bias = match node.input(2) {
        Some(name) => graph.initializers.get(name).filter(|b| b.len() == channels)?.to_f32(),
        None => vec![0.0; channels],
    };
    let values = weights.to_f32();
    let scaled: Vec<f32> =
        values.iter().enumerate().map(|(i, &w)| (f64::from(w) * affine.factor[channel(i)]) as f32).collect();
    let shifted: Vec<f32> =
        (0..channels).map(|c| (f64::from(bias[c]) * affine.factor[c] + affine.shift[c]) as f32).collect();
    let weights = Tensor::from_f32(&weights.shape.clone(), &scaled);
    let name = node.name.clone();
    let weights = add_constant(graph, &format!("{name}.folded_weight"), weights);
    let bias = add_constant(graph, &format!("{name}.folded_bias"), Tensor::from_f32(&[channels], &shifted));
    let node = &mut graph.nodes[index];
    node.inputs.truncate(1);
    node.inputs.extend([weights, bias]);
    Some(())
}

/// A rank-2 MatMul with constant weights as Gemm, which has a bias.
fn matmul_to_gemm(graph: &mut Graph, index: usize) -> Option<()> {
    let weights = constant(graph, graph.nodes[index].input(1)).filter(|w| w.dtype.is_float() && w.shape.len() == 2)?;
    let (inputs, outputs) = (weights.shape[0], weights.shape[1]);
    let old = weights.to_f32();
    let values: Vec<f32> =
        (0..outputs).flat_map(|o| (0..inputs).map(move |i| i * outputs + o)).map(|i| old[i]).collect();
    let types = infer_partial(graph, 2).types;
    if types.get(graph.nodes[index].input(0)?)?.shape.len() != 2 {
        return None;
    }
    let name = graph.nodes[index].name.clone();
    let weights = add_constant(graph, &format!("{name}.weight"), Tensor::from_f32(&[outputs, inputs], &values));
    let node = &mut graph.nodes[index];
    node.op_type = "Gemm".into();
    node.inputs[1] = weights;
    node.attrs.insert("transB".into(), Attr::Int(1));
    Some(())
}

/// Whether no later rewrite can still fold it: what it reads is neither a convolution nor a matrix product.
fn stands_alone(graph: &Graph, index: usize) -> bool {
    let before = maker(graph, graph.nodes[index].input(0)).map(|i| &graph.nodes[i]);
    !before.is_some_and(|node| node.is_linear() && only_reader(graph, node.output()) == Some(index))
}

fn to_depthwise(graph: &mut Graph, index: usize, affine: &Affine) -> Option<()> {
    let types = infer_partial(graph, 2).types;
    if types.get(graph.nodes[index].input(0)?)?.shape.len() != 4 {
        return None;
    }
    let channels = affine.factor.len();
    let list = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
    let name = graph.nodes[index].name.clone();
    let weights = Tensor::from_f32(&[channels, 1, 1, 1], &list(&affine.factor));
    let weights = add_constant(graph, &format!("{name}.weight"), weights);
    let bias = add_constant(graph, &format!("{name}.bias"), Tensor::from_f32(&[channels], &list(&affine.shift)));
    let node = &mut graph.nodes[index];
    let (source, output) = (node.inputs[0].clone(), node.outputs[0].clone());
    *node = Node::new("Conv", name, [source, weights, bias], [output])
        .with("group", Attr::Int(channels as i64))
        .with("kernel_shape", Attr::Ints(vec![1, 1]));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm(graph: &mut Graph, source: &str) {
        for (name, values) in [("gamma", [2.0, 1.0]), ("beta", [1.0, 0.0]), ("mean", [0.5, -1.0]), ("var", [4.0, 1.0])]
        {
            graph.initializers.insert(name.into(), Tensor::from_f32(&[2], &values));
        }
        let node = Node::new("BatchNormalization", "bn", [source, "gamma", "beta", "mean", "var"], ["y"]);
        graph.nodes.push(node.with("epsilon", Attr::Float(0.0)));
    }

    #[test]
    fn folds_into_gemm() {
        let mut graph = Graph { opset: 17, ..Graph::default() };
        graph.initializers.insert("w".into(), Tensor::from_f32(&[2, 1], &[3.0, 5.0]));
        graph.nodes.push(Node::new("Gemm", "g", ["x", "w"], ["a"]).with("transB", Attr::Int(1)));
        norm(&mut graph, "a");
        assert_eq!((run(&mut graph), run(&mut graph)), (1, 0));
        // (w·x − mean)·gamma/sqrt(var) + beta with gamma/sqrt(var) = [1, 1].
        let node = &graph.nodes[0];
        assert_eq!((graph.nodes.len(), node.output()), (1, "y"));
        assert_eq!(graph.initializers[&node.inputs[1]].to_f32(), [3.0, 5.0]);
        assert_eq!(graph.initializers[&node.inputs[2]].to_f32(), [0.5, 1.0]);
    }

    #[test]
    fn folds_into_each_output_of_a_transposed_convolution() {
        let mut graph = Graph { opset: 17, ..Graph::default() };
        // Two groups of two inputs and one output each; two taps.
        let weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        graph.initializers.insert("w".into(), Tensor::from_f32(&[4, 1, 1, 2], &weights));
        graph.nodes.push(Node::new("ConvTranspose", "t", ["x", "w"], ["a"]).with("group", Attr::Int(2)));
        norm(&mut graph, "a");
        let scale = Tensor::from_f32(&[2], &[4.0, 1.0]);
        graph.initializers.insert("gamma".into(), scale);
        assert_eq!((run(&mut graph), graph.nodes.len()), (1, 1));
        let node = &graph.nodes[0];
        // gamma / sqrt(var) = [2, 1].
        assert_eq!(graph.initializers[&node.inputs[1]].to_f32(), [2.0, 4.0, 6.0, 8.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(graph.initializers[&node.inputs[2]].to_f32(), [0.0, 1.0]);
        // One group: outputs are the second axis.
        let mut graph = Graph { opset: 17, ..Graph::default() };
        graph.initializers.insert("w".into(), Tensor::from_f32(&[2, 2, 1, 1], &weights[..4]));
        graph.nodes.push(Node::new("ConvTranspose", "t", ["x", "w"], ["a"]));
        norm(&mut graph, "a");
        graph.initializers.insert("gamma".into(), Tensor::from_f32(&[2], &[4.0, 1.0]));
        assert_eq!(run(&mut graph), 1);
        assert_eq!(graph.initializers[&graph.nodes[0].inputs[1]].to_f32(), [2.0, 2.0, 6.0, 4.0]);
    }

    #[test]
    fn a_shared_producer_is_left_alone() {
        let mut graph = Graph { opset: 17, ..Graph::default() };
        graph.initializers.insert("w".into(), Tensor::from_f32(&[2, 1], &[3.0, 5.0]));
        graph.nodes.push(Node::new("Gemm", "g", ["x", "w"], ["a"]).with("transB", Attr::Int(1)));
        norm(&mut graph, "a");
        graph.nodes.push(Node::new("Relu", "r", ["a"], ["z"]));
        assert_eq!(run(&mut graph), 0);
    }
}
