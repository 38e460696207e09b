//! Attention (ONNX operator set 23) in products, a mask and a Softmax.
//!
//! Queries `[N, T, heads · D]` or `[N, heads, T, D]`; keys and values may have fewer heads, each shared by as many heads of the
//! queries, over which the products broadcast. Caches of keys and values, soft caps and further outputs are not rewritten.

use super::rewrite::{Rewrite, each, target};
use super::{constant, has_more_outputs};
use crate::graph::shape::{Shapes, infer_partial};
use crate::graph::{Attr, Graph, Node, Tensor, eval};

pub(super) fn run(graph: &mut Graph) -> usize {
    if !graph.nodes.iter().any(|node| node.op_type == "Attention" && node.domain.is_empty()) {
        return 0;
    }
    let shapes = [infer_partial(graph, 2), infer_partial(graph, 3)];
    each(graph, |graph, index| {
        let node = &graph.nodes[index];
        let found = node.op_type == "Attention" && node.domain.is_empty();
        found.then(|| written_out(graph, index, &shapes)).flatten()
    })
}

/// Sizes that an Attention node works with.
struct Sizes {
    /// Whether heads lie next to each other in the last axis.
    joined: bool,
    /// Heads of keys and values.
    heads: usize,
    /// Heads of queries for each of those.
    times: usize,
    rows: usize,
    columns: usize,
    /// Elements of a head: of queries and keys, of values.
    depths: [usize; 2],
}

impl Sizes {
    fn of(node: &Node, [q, k, v]: [&[usize]; 3]) -> Option<Self> {
        let count = |name: &str| usize::try_from(node.int(name, 0)).ok().filter(|&heads| heads > 0);
        let (joined, q_heads, heads, rows, columns, depths) = match (q, k, v) {
            (&[_, rows, q], &[_, columns, _], &[_, _, v]) => {
                let (q_heads, heads) = (count("q_num_heads")?, count("kv_num_heads")?);
                let whole = q.is_multiple_of(q_heads) && v.is_multiple_of(heads);
                (true, q_heads, heads, rows, columns, whole.then_some([q / q_heads, v / heads])?)
            }
            (&[_, q_heads, rows, depth], &[_, heads, columns, _], &[_, _, _, v]) => {
                (false, q_heads, heads, rows, columns, [depth, v])
            }
            _ => return None,
        };
        let times = q_heads.checked_div(heads).filter(|times| times * heads == q_heads && *times > 0)?;
        Some(Self { joined, heads, times, rows, columns, depths })
    }
}

fn written_out(graph: &mut Graph, index: usize, shapes: &[Shapes; 2]) -> Option<usize> {
    let node = graph.nodes[index].clone();
    let plain = (4..node.inputs.len()).all(|i| node.input(i).is_none())
        && node.float("softcap", 0.0) == 0.0
        && !has_more_outputs(graph, &node);
    if !plain {
        return None;
    }
    let shape = |batch: usize, i: usize| shapes[batch].types.get(node.input(i)?).map(|kind| kind.shape.clone());
    let sizes = Sizes::of(&node, [&shape(0, 0)?, &shape(0, 1)?, &shape(0, 2)?])?;
    let masks = masks(graph, &node, &sizes, shapes)?;
    let batches = [*shape(0, 0)?.first()?, *shape(1, 0)?.first()?];
    let Sizes { joined, heads, times, rows, columns, depths: [depth, v_depth] } = sizes;
    let whole = |sizes: &[usize]| target(&[&[batches[0]], sizes].concat(), &[&[batches[1]], sizes].concat());
    let mut rewrite = Rewrite::new(graph, index);
    // [N, heads, times, rows, depth], without the third axis where nothing is shared.
    let shared = times > 1;
    let operand = |rewrite: &mut Rewrite<'_>, i: usize, times: usize, rows: usize, depth: usize| -> Option<String> {
        let x = node.input(i)?;
        Some(match (joined, shared) {
            (true, false) => {
                let x = rewrite.reshape(x, &whole(&[rows, heads, depth])?);
                rewrite.transpose(&x, &[0, 2, 1, 3])
            }
            (true, true) => {
                let x = rewrite.reshape(x, &whole(&[rows, heads, times, depth])?);
                rewrite.transpose(&x, &[0, 2, 3, 1, 4])
            }
            (false, true) => rewrite.reshape(x, &whole(&[heads, times, rows, depth])?),
            (false, false) => x.to_owned(),
        })
    };
    let q = operand(&mut rewrite, 0, times, rows, depth)?;
    let k = operand(&mut rewrite, 1, 1, columns, depth)?;
    let v = operand(&mut rewrite, 2, 1, columns, v_depth)?;
    let k = rewrite.transpose(&k, if shared { &[0, 1, 2, 4, 3] } else { &[0, 1, 3, 2] });
    let scores = rewrite.main("MatMul", &[&q, &k], &[]);
    let scale = match node.attrs.get("scale") {
        Some(Attr::Float(scale)) => *scale,
        _ => 1.0 / (depth as f32).sqrt(),
    };
    let scale = rewrite.constant("scale", Tensor::from_f32(&[], &[scale]));
    let mut scores = rewrite.op("Mul", &[&scores, &scale], &[]);
    for mask in masks {
        let mask = match mask {
            Mask::Const(mask) => rewrite.constant("mask", mask),
            Mask::Activation(name, None) => name,
            Mask::Activation(name, Some(target)) => rewrite.reshape(&name, &target),
        };
        scores = rewrite.op("Add", &[&scores, &mask], &[]);
    }
    let weights = rewrite.op("Softmax", &[&scores], &[("axis", Attr::Int(-1))]);
    let y = rewrite.op("MatMul", &[&weights, &v], &[]);
    match (joined, shared) {
        (true, _) => {
            let y = rewrite.transpose(&y, if shared { &[0, 3, 1, 2, 4] } else { &[0, 2, 1, 3] });
            rewrite.reshape(&y, &whole(&[rows, heads * times * v_depth])?);
        }
        (false, true) => drop(rewrite.reshape(&y, &whole(&[heads * times, rows, v_depth])?)),
        (false, false) => {}
    }
    Some(rewrite.finish())
}

enum Mask {
    Const(Tensor),
    /// A value, and the shape it must get.
    Activation(String, Option<Vec<i64>>),
}

/// What is added to the scores: nothing, a causal mask, the node's own, or both.
fn masks(graph: &Graph, node: &Node, sizes: &Sizes, shapes: &[Shapes; 2]) -> Option<Vec<Mask>> {
    let &Sizes { heads, times, rows, columns, .. } = sizes;
    let mut masks = Vec::new();
    if node.int("is_causal", 0) != 0 {
        let values = (0..eval::checked_len(&[rows, columns])?)
            .map(|i| if i % columns <= i / columns { 0.0 } else { f32::NEG_INFINITY });
        masks.push(Mask::Const(Tensor::from_f32(&[rows, columns], &values.collect::<Vec<_>>())));
    }
    let Some(name) = node.input(3) else { return Some(masks) };
    // With shared heads the axis of heads is two.
    let split = |shape: &[usize]| -> Option<Vec<usize>> {
        Some(match *shape {
            _ if times == 1 => shape.to_vec(),
            [n, 1, m, c] => vec![n, 1, 1, m, c],
            [n, h, m, c] if h == heads * times => vec![n, heads, times, m, c],
            [1, m, c] => vec![1, 1, m, c],
            [h, m, c] if h == heads * times => vec![heads, times, m, c],
            [_, _] => shape.to_vec(),
            _ => return None,
        })
    };
    if let Some(mask) = constant(graph, Some(name)) {
        let values = match mask.dtype.is_float() {
            true => mask.to_f32(),
            false => mask.to_i64().iter().map(|&seen| if seen != 0 { 0.0 } else { f32::NEG_INFINITY }).collect(),
        };
        masks.push(Mask::Const(Tensor::from_f32(&split(&mask.shape)?, &values)));
        return Some(masks);
    }
    let kinds = [shapes[0].types.get(name)?, shapes[1].types.get(name)?];
    if !kinds[0].dtype.is_float() {
        return None;
    }
    let reshaped = if times > 1 { Some(target(&split(&kinds[0].shape)?, &split(&kinds[1].shape)?)?) } else { None };
    masks.push(Mask::Activation(name.to_owned(), reshaped));
    Some(masks)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Model;
    use super::*;

    /// The operator's definition for `[heads, rows, depth]` of queries, keys and values that [`Model::run`] feeds.
    fn defined(
        [q, k, v]: [&[f32]; 3],
        [q_heads, heads, rows, columns, depth]: [usize; 5],
        causal: bool,
        mask: &[f32],
    ) -> Vec<f32> {
        let mut out = Vec::new();
        for head in 0..q_heads {
            let shared = head / (q_heads / heads);
            for row in 0..rows {
                let score = |column: usize| {
                    let dot: f32 = (0..depth)
                        .map(|d| q[(head * rows + row) * depth + d] * k[(shared * columns + column) * depth + d])
                        .sum();
                    let hidden = if causal && column > row { f32::NEG_INFINITY } else { 0.0 };
                    (dot / (depth as f32).sqrt() + hidden + mask[row * columns + column]).exp()
                };
                let sum: f32 = (0..columns).map(score).sum();
                for d in 0..depth {
                    let value = |column: usize| v[(shared * columns + column) * depth + d];
                    out.push((0..columns).map(|column| score(column) / sum * value(column)).sum());
                }
            }
        }
        out
    }

    fn input(i: usize, count: usize) -> Vec<f32> {
        (0..count).map(|at| (at as f32 * 0.9 + i as f32).cos()).collect()
    }

    /// `[heads, rows, depth]` of values that lie as `[rows, heads, depth]`, or the other way round.
    fn exchanged(x: &[f32], outer: usize, inner: usize, depth: usize) -> Vec<f32> {
        let at = |i: usize| {
            let (a, b, d) = (i / (outer * depth), i / depth % outer, i % depth);
            x[(b * inner + a) * depth + d]
        };
        (0..x.len()).map(at).collect()
    }

    #[test]
    fn heads_apart_and_joined_shared_and_not() {
        let (rows, columns, depth) = (5, 6, 4);
        for (q_heads, heads, joined, causal, masked) in [
            (2, 2, false, false, false),
            (4, 2, false, true, true),
            (2, 2, true, true, false),
            (6, 2, true, true, true),
            (3, 1, true, false, true),
        ] {
            let shape = |heads: usize, rows: usize| match joined {
                true => vec![rows, heads * depth],
                false => vec![heads, rows, depth],
            };
            let mut model = Model::new(&shape(q_heads, rows));
            model.input("k", &shape(heads, columns));
            model.input("v", &shape(heads, columns));
            let mut inputs = vec!["x", "k", "v"];
            let mask = model.constant(&[rows, columns]);
            if masked {
                inputs.push(&mask);
            }
            let mut attrs = vec![("is_causal", Attr::Int(i64::from(causal)))];
            if joined {
                attrs.push(("q_num_heads", Attr::Int(q_heads as i64)));
                attrs.push(("kv_num_heads", Attr::Int(heads as i64)));
            }
            let y = model.node("Attention", &inputs, &attrs);
            model.outputs(&[&y]);
            let added = match masked {
                true => model.graph.initializers[&mask].to_f32(),
                false => vec![0.0; rows * columns],
            };
            let value = |i: usize, heads: usize, rows: usize| {
                let x = input(i, heads * rows * depth);
                if joined { exchanged(&x, rows, heads, depth) } else { x }
            };
            let (q, k, v) = (value(0, q_heads, rows), value(1, heads, columns), value(2, heads, columns));
            let expected = defined([&q, &k, &v], [q_heads, heads, rows, columns, depth], causal, &added);
            let expected = if joined { exchanged(&expected, q_heads, rows, depth) } else { expected };
            model.gives_after(&[expected], run);
        }
    }

    #[test]
    fn a_cache_is_not_rewritten() {
        let mut model = Model::new(&[2, 5, 4]);
        model.input("past", &[2, 3, 4]);
        model.node("Attention", &["x", "x", "x", "", "past", "past"], &[]);
        assert_eq!(run(&mut model.graph), 0);
    }
}
