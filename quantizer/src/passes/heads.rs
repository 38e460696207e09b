//! What stands between queries, keys and their product goes behind it, or away.
//!
//! Factors of both operands of a product (exporters scale queries and keys by `d^-1/4` each) become one factor of the scores.
//! Keys and values that several heads share are repeated by broadcasting, not by an Expand that would copy them.

use super::rewrite::{Rewrite, each, target};
use super::{constant, maker, only_reader, scalar};
use crate::graph::eval;
use crate::graph::shape::{Shapes, infer_partial};
use crate::graph::{Graph, Node, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    let shapes = [infer_partial(graph, 2), infer_partial(graph, 3)];
    let count = each(graph, |graph, index| {
        let node = &graph.nodes[index];
        let is_product = node.op_type == "MatMul"
            && node.domain.is_empty()
            && node.inputs.iter().all(|name| constant(graph, Some(name)).is_none());
        is_product.then(|| scaled_after(graph, index).or_else(|| shared(graph, index, &shapes))).flatten()
    });
    graph.remove_unused();
    count
}

/// A positive factor, with the node that multiplies by it and what that multiplies: behind Transposes, each read by nothing
/// else.
fn factor<'g>(graph: &'g Graph, value: &'g str, reader: usize) -> Option<(usize, &'g str, f32)> {
    let (mut value, mut reader) = (value, reader);
    let (at, node) = loop {
        if only_reader(graph, value)? != reader {
            return None;
        }
        let at = maker(graph, Some(value))?;
        let node = &graph.nodes[at];
        match node.op_type.as_str() {
            _ if !node.domain.is_empty() => return None,
            "Transpose" => (value, reader) = (node.input(0)?, at),
            _ => break (at, node),
        }
    };
    // One that adds no axes.
    let scalar = |i: usize| {
        let plain = constant(graph, node.input(i)).is_some_and(|tensor| tensor.shape.len() < 2);
        scalar(graph, node.input(i)).filter(|_| plain)
    };
    match node.op_type.as_str() {
        "Mul" => (0..2).find_map(|i| Some((at, node.input(1 - i)?, scalar(i)?))),
        "Div" => Some((at, node.input(0)?, 1.0 / scalar(1)?)),
        _ => None,
    }
    .filter(|(.., factor)| *factor > 0.0 && factor.is_finite())
}

fn scaled_after(graph: &mut Graph, index: usize) -> Option<usize> {
    let node = &graph.nodes[index];
    let operands = [node.input(0)?, node.input(1)?];
    let found: Vec<(usize, &str, f32)> = operands.iter().filter_map(|name| factor(graph, name, index)).collect();
    let product = found.iter().map(|(.., factor)| f64::from(*factor)).product::<f64>() as f32;
    if found.is_empty() || !product.is_normal() {
        return None;
    }
    let moved: Vec<(String, String)> =
        found.iter().map(|(at, source, _)| (graph.nodes[*at].output().to_owned(), (*source).to_owned())).collect();
    for (from, to) in &moved {
        // Its reader is a Transpose, or the product itself.
        graph.replace_uses(from, to);
    }
    let inputs = graph.nodes[index].inputs.clone();
    let mut rewrite = Rewrite::new(graph, index);
    let factor = rewrite.constant("factor", Tensor::from_f32(&[], &[product]));
    let scores = rewrite.main("MatMul", &[&inputs[0], &inputs[1]], &[]);
    rewrite.op("Mul", &[&scores, &factor], &[]);
    Some(rewrite.finish())
}

/// Heads that are repeated: what they are repeated from, `[N, heads, 1, ..]`, and how often.
struct Repeated {
    source: String,
    heads: usize,
    times: usize,
    /// Whether the last two axes are exchanged after that.
    transposed: bool,
}

/// Finds `Transpose(Reshape(Expand(Unsqueeze(x))))`, with or without the Transpose.
fn repeated(graph: &Graph, value: &str, shapes: &Shapes) -> Option<Repeated> {
    let of = |name: Option<&str>| maker(graph, name).map(|i| &graph.nodes[i]).filter(|node| node.domain.is_empty());
    let shape = |name: Option<&str>| shapes.types.get(name?).map(|kind| kind.shape.clone());
    let mut node = of(Some(value))?;
    let mut transposed = false;
    if node.op_type == "Transpose" {
        transposed = eval::permutation(node, 4)? == [0, 1, 3, 2];
        if !transposed {
            return None;
        }
        node = of(node.input(0))?;
    }
    let expand = of(node.input(0)).filter(|expand| node.op_type == "Reshape" && expand.op_type == "Expand")?;
    let source = expand.input(0)?.to_owned();
    let (from, to, merged) = (shape(Some(&source))?, shape(Some(expand.output()))?, shape(Some(node.output()))?);
    let [n, heads, 1, rows, columns] = from[..] else { return None };
    let times = *to.get(2)?;
    let fits = to == [n, heads, times, rows, columns] && merged == [n, heads * times, rows, columns];
    fits.then_some(Repeated { source, heads, times, transposed })
}

/// A product with repeated heads as one that broadcasts over the heads that share.
fn shared(graph: &mut Graph, index: usize, shapes: &[Shapes; 2]) -> Option<usize> {
    let node = graph.nodes[index].clone();
    let found = repeated(graph, node.input(1)?, &shapes[0])?;
    let shape = |batch: usize, name: &str| shapes[batch].types.get(name).map(|kind| kind.shape.clone());
    let split = |batch: usize| -> Option<[Vec<usize>; 2]> {
        let (a, y) = (shape(batch, node.input(0)?)?, shape(batch, node.output())?);
        let (&[n, heads, rows, columns], &[_, _, _, out]) = (&a[..], &y[..]) else { return None };
        let whole = heads == found.heads * found.times;
        whole.then(|| [vec![n, found.heads, found.times, rows, columns], vec![n, heads, rows, out]])
    };
    let ([apart_two, whole_two], [apart_three, whole_three]) = (split(0)?, split(1)?);
    let (apart, whole) = (target(&apart_two, &apart_three)?, target(&whole_two, &whole_three)?);
    let mut rewrite = Rewrite::new(graph, index);
    let a = rewrite.reshape(node.input(0)?, &apart);
    let b = if found.transposed { rewrite.transpose(&found.source, &[0, 1, 2, 4, 3]) } else { found.source };
    let y = rewrite.push(Node { inputs: vec![a, b], ..node });
    rewrite.reshape(&y, &whole);
    Some(rewrite.finish())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Model, ints};
    use super::*;

    #[test]
    fn factors_of_operands_are_one_of_the_product() {
        let mut model = Model::new(&[2, 5, 4]);
        let (quarter, root) = (model.floats(&[], &[0.7]), model.floats(&[1], &[1.4]));
        let q = model.node("Mul", &["x", &quarter], &[]);
        let k = model.node("Div", &["x", &root], &[]);
        let k = model.node("Transpose", &[&k], &[("perm", ints(&[0, 1, 3, 2]))]);
        let y = model.node("MatMul", &[&q, &k], &[]);
        model.outputs(&[&y]);
        let after = model.same_after(run);
        let ops: Vec<&str> = after.nodes.iter().map(|node| node.op_type.as_str()).collect();
        assert_eq!(ops, ["Transpose", "MatMul", "Mul"]);
    }

    #[test]
    fn a_factor_that_others_read_stays() {
        let mut model = Model::new(&[2, 5, 5]);
        let factor = model.floats(&[], &[0.7]);
        let q = model.node("Mul", &["x", &factor], &[]);
        let y = model.node("MatMul", &[&q, "x"], &[]);
        model.outputs(&[&y, &q]);
        assert_eq!(run(&mut model.graph), 0);
    }

    #[test]
    fn repeated_heads_broadcast() {
        for transposed in [false, true] {
            let mut model = Model::new(&[6, 5, 5]);
            model.input("k", &[2, 5, 5]);
            let axes = model.integers(&[2]);
            let k = model.node("Unsqueeze", &["k", &axes], &[]);
            let shape = model.integers(&[1, 2, 3, 5, 5]);
            let k = model.node("Expand", &[&k, &shape], &[]);
            let shape = model.integers(&[0, 6, 5, 5]);
            let mut k = model.node("Reshape", &[&k, &shape], &[]);
            if transposed {
                k = model.node("Transpose", &[&k], &[("perm", ints(&[0, 1, 3, 2]))]);
            }
            let y = model.node("MatMul", &["x", &k], &[]);
            model.outputs(&[&y]);
            let after = model.same_after(run);
            assert!(after.nodes.iter().all(|node| node.op_type != "Expand"));
        }
    }
}
