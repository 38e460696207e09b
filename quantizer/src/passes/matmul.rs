//! MatMul with a constant takes one form: the constant second, a matrix `[inputs, outputs]`.
//!
//! A constant first operand changes places by transposition. Vectors become matrices with an axis of size 1. A stack of
//! matrices along axes that the activation has too is a 1×1 Conv with as many groups, which needs no copies where the activation
//! has its heads next to its features in memory; along axes that it has not, it is one wide matrix.

use super::constant;
use super::rewrite::{Rewrite, each, target};
use crate::graph::shape::{Shapes, infer_partial};
use crate::graph::{Attr, Graph, Tensor, eval};

pub(super) fn run(graph: &mut Graph) -> usize {
    let shapes = [infer_partial(graph, 2), infer_partial(graph, 3)];
    each(graph, |graph, index| {
        let node = &graph.nodes[index];
        if node.op_type == "MatMul" && node.domain.is_empty() { normalised(graph, index, &shapes) } else { None }
    })
}

fn normalised(graph: &mut Graph, index: usize, shapes: &[Shapes; 2]) -> Option<usize> {
    let node = &graph.nodes[index];
    let (a, b) = (node.input(0)?.to_owned(), node.input(1)?.to_owned());
    let shape = |name: &str, batch: usize| Some(shapes[batch].types.get(name)?.shape.clone());
    // Operands that do not fit each other are left for the check to name.
    shape(node.output(), 0)?;
    let x = (constant(graph, Some(&a)).cloned(), constant(graph, Some(&b)).cloned());
    match x {
        (Some(weights), None) => swapped(graph, index, &weights, shape(&b, 0)?.len()),
        (None, Some(weights)) => {
            let (two, three) = (shape(&a, 0)?, shape(&a, 1)?);
            match (two.len(), weights.shape.as_slice()) {
                (1, _) | (_, [_]) => vectors(graph, index, [two.len(), weights.shape.len()]),
                (_, [_, _]) => None,
                _ => stacked(graph, index, &weights, [two, three]),
            }
        }
        (None, None) => {
            let ranks = [shape(&a, 0)?.len(), shape(&b, 0)?.len()];
            if ranks.contains(&1) { vectors(graph, index, ranks) } else { None }
        }
        (Some(_), Some(_)) => None,
    }
}

/// The axes of a tensor of this rank, the last two exchanged.
fn exchanged(rank: usize) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..rank).collect();
    if let Some(first) = rank.checked_sub(2) {
        axes.swap(first, first + 1);
    }
    axes
}

/// `W · x = (xᵀ · Wᵀ)ᵀ`.
fn swapped(graph: &mut Graph, index: usize, weights: &Tensor, rank: usize) -> Option<usize> {
    let weights_rank = weights.shape.len();
    let turned = match weights_rank {
        1 => weights.clone(),
        _ => {
            let perm = exchanged(weights_rank).iter().map(|&axis| axis as i64).collect();
            let node = crate::graph::Node::new("Transpose", "", ["w"], [""]).with("perm", Attr::Ints(perm));
            eval::eval(&node, graph.opset, &[Some(weights)])?
        }
    };
    let x = graph.nodes[index].input(1)?.to_owned();
    let mut rewrite = Rewrite::new(graph, index);
    let x = rewrite.transpose(&x, &exchanged(rank));
    let turned = rewrite.constant("weight", turned);
    let y = rewrite.main("MatMul", &[&x, &turned], &[]);
    // With a vector on either side the result has no two axes to exchange.
    if rank > 1 && weights_rank > 1 {
        rewrite.transpose(&y, &exchanged(rank.max(weights_rank)));
    }
    Some(rewrite.finish())
}

/// A product with vectors as one of matrices.
fn vectors(graph: &mut Graph, index: usize, ranks: [usize; 2]) -> Option<usize> {
    let inputs = graph.nodes[index].inputs.clone();
    let mut rewrite = Rewrite::new(graph, index);
    // A row on the left, a column on the right.
    let a = if ranks[0] == 1 { rewrite.unsqueeze(&inputs[0], &[0]) } else { inputs[0].clone() };
    let b = if ranks[1] == 1 { rewrite.unsqueeze(&inputs[1], &[1]) } else { inputs[1].clone() };
    let y = rewrite.main("MatMul", &[&a, &b], &[]);
    let axes: Vec<i64> = [(ranks[0], -2), (ranks[1], -1)].into_iter().filter(|at| at.0 == 1).map(|at| at.1).collect();
    rewrite.squeeze(&y, &axes);
    Some(rewrite.finish())
}

/// A stack of matrices, whose axes either all have the sizes of the activation's or all stand where it has size 1.
fn stacked(graph: &mut Graph, index: usize, weights: &Tensor, x: [Vec<usize>; 2]) -> Option<usize> {
    if weights.is_empty() || x[0].len() != x[1].len() {
        return None;
    }
    let source = graph.nodes[index].input(0)?.to_owned();
    let rank = x[0].len().max(weights.shape.len());
    let padded = |shape: &[usize]| [vec![1; rank - shape.len()], shape.to_vec()].concat();
    let w = padded(&weights.shape);
    let [two, three] = [padded(&x[0]), padded(&x[1])];
    let batches = rank - 2;
    let [k, n] = [w[rank - 2], w[rank - 1]];
    let stack: Vec<usize> = (0..batches).filter(|&axis| w[axis] > 1).collect();
    let count: usize = stack.iter().map(|&axis| w[axis]).product();
    let shared = stack.iter().all(|&axis| two[axis] == w[axis] && three[axis] == w[axis]);
    let missing = stack.iter().all(|&axis| two[axis] == 1 && three[axis] == 1);
    if !shared && !missing {
        return None;
    }
    let leading: Vec<i64> = (0..(rank - x[0].len()) as i64).collect();
    let values = weights.to_f32();
    let others: Vec<usize> = (0..batches).filter(|axis| !stack.contains(axis)).collect();
    let inverse = |order: &[usize]| {
        let mut perm = vec![0; order.len()];
        order.iter().enumerate().for_each(|(at, &axis)| perm[axis] = at);
        perm
    };
    let mut rewrite = Rewrite::new(graph, index);
    let x = rewrite.unsqueeze(&source, &leading);
    if missing {
        // One wide matrix [K, stack · N], and the stack moved to its place.
        let wide: Vec<f32> = (0..k)
            .flat_map(|k_at| (0..count).flat_map(move |s| (0..n).map(move |n_at| (s * k + k_at) * n + n_at)))
            .map(|i| values[i])
            .collect();
        let wide = rewrite.constant("weight", Tensor::from_f32(&[k, count * n], &wide));
        let y = rewrite.main("MatMul", &[&x, &wide], &[]);
        if stack.is_empty() {
            return Some(rewrite.finish());
        }
        // [others, M, stack, N]
        let order: Vec<usize> = [&others[..], &[rank - 2], &stack, &[rank - 1]].concat();
        let sizes = |shape: &[usize]| -> Vec<usize> {
            order
                .iter()
                .map(|&axis| {
                    if axis == rank - 1 {
                        n
                    } else if stack.contains(&axis) {
                        w[axis]
                    } else {
                        shape[axis]
                    }
                })
                .collect()
        };
        let shape = target(&sizes(&two), &sizes(&three))?;
        let y = rewrite.reshape(&y, &shape);
        rewrite.transpose(&y, &inverse(&order));
        return Some(rewrite.finish());
    }
    // [others, stack, K, M], as an image [others, stack · K, M, 1].
    let order: Vec<usize> = [&others[..], &stack, &[rank - 1], &[rank - 2]].concat();
    let image = |shape: &[usize]| vec![others.iter().map(|&axis| shape[axis]).product(), count * k, shape[rank - 2], 1];
    let sizes = |shape: &[usize]| -> Vec<usize> {
        order.iter().map(|&axis| if axis == rank - 1 { n } else { shape[axis] }).collect()
    };
    let (from, to) = (target(&image(&two), &image(&three))?, target(&sizes(&two), &sizes(&three))?);
    let kernels: Vec<f32> = (0..count * n)
        .flat_map(|o| (0..k).map(move |k_at| (o / n * k + k_at) * n + o % n))
        .map(|i| values[i])
        .collect();
    let x = rewrite.transpose(&x, &order);
    let x = rewrite.reshape(&x, &from);
    let kernels = rewrite.constant("weight", Tensor::from_f32(&[count * n, k, 1, 1], &kernels));
    let y = rewrite.main("Conv", &[&x, &kernels], &[("group", Attr::Int(count as i64))]);
    let y = rewrite.reshape(&y, &to);
    rewrite.transpose(&y, &inverse(&order));
    Some(rewrite.finish())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Model;
    use super::*;

    /// The operators after folding, for an activation and a constant of these shapes (the activation's without batch).
    fn ops(x: &[usize], weights: &[usize], first: bool) -> Vec<String> {
        let mut model = Model::new(x);
        let w = model.constant(weights);
        let y = model.node("MatMul", if first { [w.as_str(), "x"] } else { ["x", w.as_str()] }.as_slice(), &[]);
        model.outputs(&[&y]);
        let after = model.same_after(|graph| {
            let mut count = 0;
            loop {
                let more = run(graph) + super::super::fold::run(graph);
                if more == 0 {
                    return count;
                }
                count += more;
            }
        });
        after.nodes.into_iter().map(|node| node.op_type).collect()
    }

    #[test]
    fn a_constant_moves_to_the_right() {
        assert_eq!(ops(&[5, 4], &[3, 5], true), ["Transpose", "MatMul", "Transpose"]);
        assert_eq!(ops(&[5, 4], &[5], true), ["Transpose", "MatMul", "Squeeze"]);
        assert_eq!(ops(&[2, 5, 4], &[2, 3, 5], true).iter().filter(|op| *op == "Conv").count(), 1);
    }

    #[test]
    fn vectors_become_matrices() {
        assert_eq!(ops(&[5, 4], &[4], false), ["MatMul", "Squeeze"]);
    }

    #[test]
    fn stacks_of_matrices_are_grouped_or_wide() {
        assert_eq!(ops(&[5, 4], &[1, 4, 3], false), ["MatMul"]);
        assert_eq!(ops(&[5, 4], &[1, 1, 4, 3], false), ["Unsqueeze", "MatMul"]);
        assert_eq!(ops(&[2, 3, 5, 4], &[2, 3, 4, 6], false), ["Transpose", "Reshape", "Conv", "Reshape", "Transpose"]);
        assert_eq!(ops(&[2, 3, 5, 4], &[3, 4, 6], false).iter().filter(|op| *op == "Conv").count(), 1);
        assert_eq!(ops(&[1, 5, 4], &[3, 4, 6], false), ["MatMul", "Reshape", "Transpose"]);
        // Neither.
        let mut model = Model::new(&[1, 2, 5, 4]);
        let w = model.constant(&[3, 2, 4, 6]);
        model.node("MatMul", &["x", &w], &[]);
        assert_eq!(run(&mut model.graph), 0);
    }
}
