//! Gemm with constant weights takes one form: alpha = beta = 1, transB = 1 (weights [outputs, inputs]), bias [outputs].
//! What does not fit it becomes operators around it, or a MatMul where the weights are no constants.

use super::rewrite::{Rewrite, each};
use super::{add_constant, constant};
use crate::graph::{Attr, Graph, Node, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    each(graph, |graph, index| match normalise(graph, index) {
        Some(()) => Some(1),
        None => taken_apart(graph, index),
    })
}

/// A Gemm of which a part is an operator of its own: a transposed first operand, activations as weights, a bias that is an
/// activation or differs between rows.
fn taken_apart(graph: &mut Graph, index: usize) -> Option<usize> {
    let node = graph.nodes[index].clone();
    if node.op_type != "Gemm" || !node.domain.is_empty() {
        return None;
    }
    let (a, b) = (node.input(0)?, node.input(1)?);
    let weights = is_matrix(graph, b);
    let outputs = constant(graph, Some(b)).and_then(|b| b.shape.get(usize::from(node.int("transB", 0) == 0)).copied());
    let bias = node.input(2).filter(|bias| {
        let one_each =
            |bias: &Tensor| bias.len() == 1 || Some(bias.len()) == outputs && bias.shape.last() == outputs.as_ref();
        !weights || !is_given(graph, bias) || graph.initializers.get(*bias).is_some_and(|bias| !one_each(bias))
    });
    let transposed = node.int("transA", 0) != 0;
    if !transposed && weights && bias.is_none() {
        return None;
    }
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    let mut rewrite = Rewrite::new(graph, index);
    let scaled = |rewrite: &mut Rewrite<'_>, x: String, factor: f32| match factor {
        1.0 => x,
        _ => {
            let factor = rewrite.constant("factor", Tensor::from_f32(&[], &[factor]));
            rewrite.op("Mul", &[&x, &factor], &[])
        }
    };
    let a = if transposed { rewrite.transpose(a, &[1, 0]) } else { a.to_owned() };
    let product = match weights {
        true => {
            let mut gemm = Node { inputs: vec![a, b.to_owned()], ..node.clone() };
            if bias.is_none() {
                gemm.inputs.extend(node.input(2).map(str::to_owned));
            }
            gemm.attrs.remove("transA");
            rewrite.push(gemm)
        }
        false => {
            let b = if node.int("transB", 0) != 0 { rewrite.transpose(b, &[1, 0]) } else { b.to_owned() };
            let product = rewrite.main("MatMul", &[&a, &b], &[]);
            scaled(&mut rewrite, product, alpha)
        }
    };
    if let Some(bias) = bias {
        let bias = scaled(&mut rewrite, bias.to_owned(), beta);
        rewrite.op("Add", &[&product, &bias], &[]);
    }
    Some(rewrite.finish())
}

/// Whether a value is known before the model runs: a constant, perhaps one stored as integers.
fn is_given(graph: &Graph, value: &str) -> bool {
    let stored = super::maker(graph, Some(value)).map(|i| &graph.nodes[i]);
    graph.initializers.contains_key(value)
        || stored.is_some_and(|node| {
            node.op_type == "DequantizeLinear" && node.inputs.iter().all(|name| graph.initializers.contains_key(name))
        })
}

/// Whether a value is a given matrix of weights.
fn is_matrix(graph: &Graph, value: &str) -> bool {
    is_given(graph, value)
        && graph.initializers.get(value).is_none_or(|weights| weights.shape.len() == 2 && weights.dtype.is_float())
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
    use super::super::testing::Model;
    use super::*;

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

    #[test]
    fn what_does_not_fit_stands_around_it() {
        /// Shapes of the weights and the bias, flags, and the operators they become.
        type Case = (&'static [usize], &'static [usize], Vec<(&'static str, Attr)>, &'static [&'static str]);

        let factors = [("alpha", Attr::Float(0.7)), ("beta", Attr::Float(-1.5))];
        let flag = |name| (name, Attr::Int(1));
        let cases: [Case; 5] = [
            (&[4, 6], &[3, 6], vec![], &["Gemm", "Add"]),
            (&[6, 4], &[3, 1], vec![flag("transB")], &["Gemm", "Add"]),
            (&[4, 6], &[], vec![], &["Gemm"]),
            (&[3, 6], &[1, 6], vec![flag("transA")], &["Transpose", "Gemm"]),
            (&[6, 3], &[4, 6], vec![flag("transA"), flag("transB")], &["Transpose", "Gemm", "Add"]),
        ];
        for (weights, bias, flags, expected) in cases {
            let mut model = Model::new(&[12]);
            let shape = model.integers(&[3, 4]);
            let x = model.node("Reshape", &["x", &shape], &[]);
            let (w, b) = (model.constant(weights), model.constant(bias));
            let y = model.node("Gemm", &[&x, &w, &b], &[&factors[..], &flags].concat());
            model.outputs(&[&y]);
            let after = model.same_after(|graph| {
                let count = run(graph);
                while run(graph) + super::super::fold::run(graph) > 0 {}
                count
            });
            let ops: Vec<&str> = after.nodes[1..].iter().map(|node| node.op_type.as_str()).collect();
            assert_eq!(ops, expected);
        }
    }

    #[test]
    fn activations_as_weights_are_a_product() {
        for transposed in [0, 1] {
            let mut model = Model::new(&[12]);
            let shape = model.integers(&[3, 4]);
            let a = model.node("Reshape", &["x", &shape], &[]);
            let shape = model.integers(if transposed == 0 { &[4, 3] } else { &[3, 4] });
            let b = model.node("Reshape", &["x", &shape], &[]);
            let bias = model.constant(&[3]);
            let attrs = [("transB", Attr::Int(transposed)), ("alpha", Attr::Float(0.5)), ("beta", Attr::Float(2.0))];
            let y = model.node("Gemm", &[&a, &b, &bias], &attrs);
            model.outputs(&[&y]);
            let after = model.same_after(run);
            assert!(after.nodes.iter().all(|node| node.op_type != "Gemm"));
        }
    }
}
