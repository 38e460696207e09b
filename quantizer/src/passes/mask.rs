//! Masks of attention scores take one form: a sum of scores and mask, in which minus infinity excludes.
//!
//! `Where(mask, scores, −1e9)` with a constant mask becomes such a sum, and constants that are added one after the other
//! become one. An element of a constant mask that lies far below the largest of its row excludes, whatever number the
//! exporter chose for that; the softmax of it is 0 in f32 too. The guard that turns the softmax of rows that see nothing into zeros
//! is removed where every row sees something.

use super::rewrite::{Rewrite, each};
use super::{bypass, constant, maker, only_reader};
use crate::graph::eval::{self, normalize_axis};
use crate::graph::shape::infer_partial;
use crate::graph::{Graph, Node, Tensor};

/// How far below the largest element of its row a mask's element excludes: no scores make up for that.
const EXCLUDES: f32 = 1e4;

pub(super) fn run(graph: &mut Graph) -> usize {
    let types = infer_partial(graph, 2).types;
    let shape = |name: &str| types.get(name).map(|kind| kind.shape.as_slice());
    each(graph, |graph, index| {
        let node = &graph.nodes[index];
        match node.op_type.as_str() {
            _ if !node.domain.is_empty() => None,
            "Where" => chosen(graph, index, &shape).or_else(|| unguarded(graph, index)),
            "Add" | "Sub" if leads_to_softmax(graph, node.output(), &shape) => added(graph, index),
            _ => None,
        }
    })
}

/// Whether a Softmax over the last axis alone reads a value, perhaps after the sum with another mask.
fn leads_to_softmax<'s>(graph: &Graph, value: &str, shape: &impl Fn(&str) -> Option<&'s [usize]>) -> bool {
    let mut value = value;
    loop {
        let Some(reader) = only_reader(graph, value).map(|index| &graph.nodes[index]) else { return false };
        match reader.op_type.as_str() {
            _ if !reader.domain.is_empty() => return false,
            "Softmax" => {
                let rank = shape(value).map_or(0, <[usize]>::len);
                return normalize_axis(reader.int("axis", -1), rank).is_some_and(|axis| axis + 1 == rank);
            }
            "Add" | "Sub" | "Where" => value = reader.output(),
            _ => return false,
        }
    }
}

/// A choice between scores and a number that excludes.
fn chosen<'s>(graph: &mut Graph, index: usize, shape: &impl Fn(&str) -> Option<&'s [usize]>) -> Option<usize> {
    let node = &graph.nodes[index];
    let condition = constant(graph, node.input(0))?;
    let excludes = |i: usize| {
        let values = constant(graph, node.input(i)).filter(|tensor| tensor.dtype.is_float())?.to_f32();
        (!values.is_empty() && values.iter().all(|&x| x <= -EXCLUDES)).then_some(i)
    };
    let excluded = excludes(1).or_else(|| excludes(2))?;
    let scores = node.input(3 - excluded).filter(|name| !graph.initializers.contains_key(*name))?.to_owned();
    // Mask and sum must have the axes and sizes that the choice has.
    let (of_scores, of_choice) = (shape(&scores)?, shape(node.output())?);
    let same = of_scores.len() >= condition.shape.len()
        && eval::broadcast(of_scores, &condition.shape).as_deref() == Some(of_choice);
    if !same || !leads_to_softmax(graph, node.output(), shape) {
        return None;
    }
    let values: Vec<f32> = condition
        .to_i64()
        .into_iter()
        .map(|yes| if (yes != 0) == (excluded == 1) { f32::NEG_INFINITY } else { 0.0 })
        .collect();
    let mask = Tensor::from_f32(&condition.shape.clone(), &values);
    let mut rewrite = Rewrite::new(graph, index);
    let mask = rewrite.constant("mask", mask);
    rewrite.main("Add", &[&scores, &mask], &[]);
    Some(rewrite.finish())
}

/// A choice between zero and a softmax by whether that is no number.
fn unguarded(graph: &mut Graph, index: usize) -> Option<usize> {
    let node = &graph.nodes[index];
    let of = |name: Option<&str>| maker(graph, name).map(|i| &graph.nodes[i]);
    let guard = of(node.input(0)).filter(|guard| guard.op_type == "IsNaN" && guard.input(0) == node.input(2))?;
    let softmax = of(guard.input(0)).filter(|node| node.op_type == "Softmax")?;
    let scores = of(softmax.input(0));
    let sees_something = scores.filter(|node| node.op_type == "Add").is_none_or(|sum| {
        let masks = sum.inputs.iter().filter_map(|name| graph.initializers.get(name));
        masks.into_iter().all(|mask| {
            let columns = mask.shape.last().copied().unwrap_or(1).max(1);
            mask.to_f32().chunks(columns).all(|row| row.iter().any(|x| x.is_finite()))
        })
    });
    let source = guard.input(0)?.to_owned();
    (sees_something && bypass(graph, index, &source)).then_some(0)
}

/// A sum of scores and a constant mask in its one form.
fn added(graph: &mut Graph, index: usize) -> Option<usize> {
    let node = &graph.nodes[index];
    let subtracts = node.op_type == "Sub";
    let side = if subtracts { 1 } else { (0..2).find(|&i| constant(graph, node.input(i)).is_some())? };
    let mask = constant(graph, node.input(side)).filter(|mask| mask.dtype.is_float())?;
    let scores = node.input(1 - side).filter(|name| !graph.initializers.contains_key(*name))?.to_owned();
    let mut values = mask.to_f32();
    if subtracts {
        values.iter_mut().for_each(|x| *x = -*x);
    }
    let mut tensor = Tensor::from_f32(&mask.shape.clone(), &values);
    let mut source = scores;
    let mut changed = subtracts;
    // Another constant added before.
    let before = maker(graph, Some(&source)).map(|i| &graph.nodes[i]).filter(|node| node.op_type == "Add");
    if let Some(sum) = before.filter(|_| only_reader(graph, &source) == Some(index))
        && let Some(at) = (0..2).find(|&i| constant(graph, sum.input(i)).is_some_and(|mask| mask.dtype.is_float()))
        && let Some(other) = constant(graph, sum.input(at))
    {
        let add = Node::new("Add", "", ["a", "b"], [""]);
        tensor = eval::eval(&add, graph.opset, &[Some(other), Some(&tensor)])?;
        source = sum.input(1 - at)?.to_owned();
        changed = true;
    }
    let columns = tensor.shape.last().copied().unwrap_or(1).max(1);
    let mut values = tensor.to_f32();
    for row in values.chunks_mut(columns) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for x in row.iter_mut().filter(|x| x.is_finite() && **x <= largest - EXCLUDES) {
            *x = f32::NEG_INFINITY;
            changed = true;
        }
    }
    if !changed {
        return None;
    }
    let mut rewrite = Rewrite::new(graph, index);
    let mask = rewrite.constant("mask", Tensor::from_f32(&tensor.shape, &values));
    rewrite.main("Add", &[&source, &mask], &[]);
    Some(rewrite.finish())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Model;
    use super::*;
    use crate::graph::{Attr, DataType};

    const LEAST: f32 = f32::MIN;

    fn all(graph: &mut Graph) -> usize {
        let mut count = 0;
        loop {
            let more = run(graph) + super::super::fold::run(graph);
            if more == 0 {
                graph.remove_unused();
                return count;
            }
            count += more;
        }
    }

    /// Causal: 1 where a row of 3 sees a column of 4.
    fn condition(model: &mut Model) -> String {
        let seen: Vec<i32> = (0..12).map(|i| i32::from(i % 4 <= i / 4)).collect();
        model.graph.initializers.insert("seen".into(), Tensor::from_ints(DataType::Bool, &[1, 3, 4], &seen));
        "seen".into()
    }

    fn mask_of(graph: &Graph) -> Vec<f32> {
        let sum = graph.nodes.iter().find(|node| node.op_type == "Add").unwrap();
        sum.inputs.iter().find_map(|name| graph.initializers.get(name)).unwrap().to_f32()
    }

    #[test]
    fn choices_and_large_numbers_exclude() {
        for form in 0..4 {
            let mut model = Model::new(&[2, 3, 4]);
            let seen = condition(&mut model);
            let low = model.floats(&[], &[if form == 0 { f32::NEG_INFINITY } else { LEAST }]);
            let values: Vec<f32> = (0..12).map(|i| if i % 4 <= i / 4 { 0.0 } else { 1e9 }).collect();
            let scores = match form {
                0 | 1 => model.node("Where", &[&seen, "x", &low], &[]),
                2 => {
                    let mask = model.floats(&[3, 4], &values);
                    model.node("Sub", &["x", &mask], &[])
                }
                _ => {
                    let bias = model.constant(&[2, 1, 4]);
                    let biased = model.node("Add", &["x", &bias], &[]);
                    let mask = model.floats(&[3, 4], &values.iter().map(|v| -v).collect::<Vec<_>>());
                    model.node("Add", &[&mask, &biased], &[])
                }
            };
            let y = model.node("Softmax", &[&scores], &[("axis", Attr::Int(3))]);
            let guard = model.node("IsNaN", &[&y], &[]);
            let zero = model.floats(&[], &[0.0]);
            let y = if form == 0 { model.node("Where", &[&guard, &zero, &y], &[]) } else { y };
            model.outputs(&[&y]);
            let after = match form {
                // The executor has no IsNaN.
                0 => {
                    let mut graph = model.graph.clone();
                    assert!(all(&mut graph) > 0);
                    graph
                }
                _ => model.same_after(all),
            };
            let ops: Vec<&str> = after.nodes.iter().map(|node| node.op_type.as_str()).collect();
            assert_eq!(ops, ["Add", "Softmax"], "{form}");
            let mask = mask_of(&after);
            assert_eq!(mask[mask.len() - 12..].iter().filter(|x| **x == f32::NEG_INFINITY).count(), 6);
        }
    }

    #[test]
    fn what_no_softmax_reads_stays() {
        let mut model = Model::new(&[2, 3, 4]);
        let seen = condition(&mut model);
        let low = model.floats(&[], &[LEAST]);
        let y = model.node("Where", &[&seen, "x", &low], &[]);
        model.outputs(&[&y]);
        assert_eq!(run(&mut model.graph), 0);
    }
}
