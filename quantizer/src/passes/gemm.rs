//! Gemm with constant weights takes one form: alpha = beta = 1, transB = 1 (weights [outputs, inputs]), bias [outputs].

use super::{add_constant, constant};
use crate::graph::{Attr, Graph, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    (0..graph.nodes.len()).filter(|&index| normalise(graph, index).is_some()).count()
}

fn normalise(graph: &mut Graph, index: usize) -> Option<()> {
    let node = &graph.nodes[index];
    if node.op_type != "Gemm" || !node.domain.is_empty() || node.int("transA", 0) != 0 {
        return None;
    }
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    let transposed = node.int("transB", 0) != 0;
    let name = node.name.clone();
    let weights = constant(graph, node.input(1)).filter(|w| w.dtype.is_float() && w.shape.len() == 2)?;
    let outputs = weights.shape[usize::from(!transposed)];
    let inputs = weights.shape[usize::from(transposed)];
    let bias = match node.input(2) {
        None => None,
        Some(bias) => Some(graph.initializers.get(bias)?),
    };
    let bias_done = bias.is_none_or(|bias| bias.shape == [outputs] && beta == 1.0);
    let weights_done = transposed && alpha == 1.0;
    if weights_done && bias_done {
        return None;
    }
    let new_bias = match bias {
        Some(bias) if !bias_done => {
            let values = bias.to_f32();
            // A bias that differs between rows has no place in the one form.
            let row: Vec<f32> = match values.len() {
                1 => vec![values[0] * beta; outputs],
                n if n == outputs && bias.shape.last() == Some(&outputs) => values.iter().map(|v| v * beta).collect(),
                _ => return None,
            };
            Some(Tensor::from_f32(&[outputs], &row))
        }
        _ => None,
    };
    let new_weights = (!weights_done).then(|| {
        let old = weights.to_f32();
        let at = |o: usize, i: usize| if transposed { old[o * inputs + i] } else { old[i * outputs + o] };
        let values: Vec<f32> =
            (0..outputs).flat_map(|o| (0..inputs).map(move |i| (o, i))).map(|(o, i)| alpha * at(o, i)).collect();
        Tensor::from_f32(&[outputs, inputs], &values)
    });
    if let Some(tensor) = new_weights {
        let fresh = add_constant(graph, &format!("{name}.weight"), tensor);
        graph.nodes[index].inputs[1] = fresh;
    }
    if let Some(tensor) = new_bias {
        let fresh = add_constant(graph, &format!("{name}.bias"), tensor);
        graph.nodes[index].inputs[2] = fresh;
    }
    let node = &mut graph.nodes[index];
    node.attrs.remove("alpha");
    node.attrs.remove("beta");
    node.attrs.insert("transB".into(), Attr::Int(1));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;

    #[test]
    fn factors_and_transposition_move_into_the_constants() {
        let mut graph = Graph { opset: 17, ..Graph::default() };
        graph.initializers.insert("w".into(), Tensor::from_f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        graph.initializers.insert("b".into(), Tensor::from_f32(&[1, 3], &[1.0, 2.0, 3.0]));
        let node = Node::new("Gemm", "g", ["x", "w", "b"], ["y"]);
        graph.nodes.push(node.with("alpha", Attr::Float(2.0)).with("beta", Attr::Float(0.5)));
        assert_eq!((run(&mut graph), run(&mut graph)), (1, 0));
        let node = &graph.nodes[0];
        assert_eq!(node.int("transB", 0), 1);
        let weights = &graph.initializers[&node.inputs[1]];
        assert_eq!(
            (weights.shape.as_slice(), weights.to_f32()),
            ([3, 2].as_slice(), vec![2.0, 8.0, 4.0, 10.0, 6.0, 12.0])
        );
        assert_eq!(graph.initializers[&node.inputs[2]].to_f32(), [0.5, 1.0, 1.5]);
    }
}
