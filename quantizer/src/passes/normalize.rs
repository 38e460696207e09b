//! Normalizations become LayerNormalization or RMSNormalization over the last axis, with a factor and a shift after it.
//!
//! LayerNormalization and RMSNormalization over several trailing axes, and MeanVarianceNormalization over some axes, are one
//! over the last axis of a value in which those are one. InstanceNormalization and GroupNormalization (Wu and He, "Group
//! Normalization", ECCV 2018) have rows of all elements of one or more channels; what they do to each channel afterwards is
//! a product and a sum. LpNormalization by the root of the sum of squares is RMSNormalization times `1 / sqrt(C)`.

use super::rewrite::{Rewrite, each, target};
use super::{constant, has_more_outputs};
use crate::graph::eval::{self, normalize_axis};
use crate::graph::shape::infer_partial;
use crate::graph::{Attr, Graph, Node, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    let shapes = [infer_partial(graph, 2).types, infer_partial(graph, 3).types];
    each(graph, |graph, index| {
        let node = &graph.nodes[index];
        let shape = |batch: usize| Some(shapes[batch].get(node.input(0)?)?.shape.clone());
        let (two, three) = (shape(0)?, shape(1)?);
        let fits = node.domain.is_empty() && !has_more_outputs(graph, node) && two.len() == three.len();
        if fits { rewritten(graph, index, [&two, &three]) } else { None }
    })
}

fn rewritten(graph: &mut Graph, index: usize, shapes: [&[usize]; 2]) -> Option<usize> {
    let node = graph.nodes[index].clone();
    match node.op_type.as_str() {
        "LayerNormalization" | "RMSNormalization" => over_trailing(graph, index, &node, shapes),
        "MeanVarianceNormalization" => over_axes(graph, index, &node, shapes),
        "InstanceNormalization" | "GroupNormalization" => over_channels(graph, index, &node, shapes),
        "LpNormalization"
            if node.int("p", 2) == 2
                && normalize_axis(node.int("axis", -1), shapes[0].len())? == shapes[0].len() - 1 =>
        {
            let depth = *shapes[0].last().filter(|depth| shapes[1].last() == Some(depth))?;
            let mut rewrite = Rewrite::new(graph, index);
            let scale = filled(&mut rewrite, "scale", &[depth], 1.0 / (depth as f32).sqrt())?;
            // ONNX defines no epsilon; this one keeps rows of zeros at zero.
            let attrs = [("axis", Attr::Int(-1)), ("epsilon", Attr::Float(1e-24))];
            rewrite.main("RMSNormalization", &[node.input(0)?, &scale], &attrs);
            Some(rewrite.finish())
        }
        _ => None,
    }
}

/// A constant of equal elements, if it is not too large.
fn filled(rewrite: &mut Rewrite<'_>, stem: &str, shape: &[usize], value: f32) -> Option<String> {
    let count = eval::checked_len(shape)?;
    Some(rewrite.constant(stem, Tensor::from_f32(shape, &vec![value; count])))
}

/// The last axis alone, of a value whose trailing axes from `axis` on are one.
fn over_trailing(graph: &mut Graph, index: usize, node: &Node, shapes: [&[usize]; 2]) -> Option<usize> {
    let [two, three] = shapes;
    let axis = normalize_axis(node.int("axis", -1), two.len())?;
    if axis + 1 == two.len() || two[axis..] != three[axis..] {
        return None;
    }
    let (outer, inner) = (&two[..axis], &two[axis..]);
    let row = |i: usize| -> Option<Option<Tensor>> {
        let Some(name) = node.input(i) else { return Some(None) };
        expanded(constant(graph, Some(name))?, inner).map(Some)
    };
    let (Some(scale), shift) = (row(1)?, row(2)?) else { return None };
    let depth: usize = inner.iter().product();
    let flat = target(&[outer, &[depth]].concat(), &[&three[..axis], &[depth]].concat())?;
    let back = target(two, three)?;
    let mut rewrite = Rewrite::new(graph, index);
    let x = rewrite.reshape(node.input(0)?, &flat);
    let mut inputs = vec![x, rewrite.constant("scale", scale)];
    inputs.extend(shift.map(|shift| rewrite.constant("shift", shift)));
    let y = rewrite.push(Node { inputs, ..node.clone() }.with("axis", Attr::Int(-1)));
    rewrite.reshape(&y, &back);
    Some(rewrite.finish())
}

/// A constant broadcast to `shape`, in one axis.
fn expanded(tensor: &Tensor, shape: &[usize]) -> Option<Tensor> {
    let target: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
    let target = Tensor::from_i64(&[target.len()], &target);
    let full = eval::eval(&Node::new("Expand", "", ["x", "shape"], [""]), 13, &[Some(tensor), Some(&target)])?;
    (full.shape == shape).then(|| Tensor { shape: vec![full.len()], ..full })
}

/// Zero mean and unit variance over some axes, without scale and shift.
fn over_axes(graph: &mut Graph, index: usize, node: &Node, shapes: [&[usize]; 2]) -> Option<usize> {
    let [two, three] = shapes;
    let rank = two.len();
    let axes = node.ints("axes").unwrap_or(&[0, 2, 3]);
    let axes: Vec<usize> = axes.iter().map(|&axis| normalize_axis(axis, rank)).collect::<Option<_>>()?;
    if axes.iter().any(|&axis| two[axis] != three[axis]) {
        return None;
    }
    let order: Vec<usize> = (0..rank).filter(|axis| !axes.contains(axis)).chain(axes.iter().copied()).collect();
    let back: Vec<usize> = (0..rank).map(|axis| order.iter().position(|&at| at == axis).unwrap_or(0)).collect();
    let inner: Vec<usize> = axes.iter().map(|&axis| two[axis]).collect();
    let mut rewrite = Rewrite::new(graph, index);
    let x = rewrite.transpose(node.input(0)?, &order);
    let ones = filled(&mut rewrite, "scale", &inner, 1.0)?;
    // The deviation, not the variance, has 1e-9 added to it in the definition.
    let attrs = [("axis", Attr::Int(-(axes.len() as i64))), ("epsilon", Attr::Float(1e-18))];
    let y = rewrite.main("LayerNormalization", &[&x, &ones], &attrs);
    rewrite.transpose(&y, &back);
    Some(rewrite.finish())
}

/// Rows of the elements of one channel, or of the channels of a group.
fn over_channels(graph: &mut Graph, index: usize, node: &Node, shapes: [&[usize]; 2]) -> Option<usize> {
    let [two, three] = shapes;
    let ([_, channels, spatial @ ..], true) = (two, two.len() > 2 && two[1..] == three[1..]) else { return None };
    let groups = match node.op_type.as_str() {
        "GroupNormalization" => usize::try_from(node.int("num_groups", 0)).ok()?,
        _ => *channels,
    };
    if groups == 0 || channels % groups != 0 {
        return None;
    }
    // One number for each channel; operator sets before 21 have one for each group.
    let per_channel = |i: usize| -> Option<Vec<f32>> {
        let values = constant(graph, node.input(i)).filter(|tensor| tensor.dtype.is_float())?.to_f32();
        let each = channels.checked_div(values.len()).filter(|each| each * values.len() == *channels)?;
        (each == 1 || values.len() == groups).then(|| (0..*channels).map(|c| values[c / each]).collect())
    };
    let (scale, shift) = (per_channel(1)?, per_channel(2)?);
    let depth = channels / groups * spatial.iter().product::<usize>();
    let rows = target(&[two[0], groups, depth], &[three[0], groups, depth])?;
    let back = target(two, three)?;
    let shape = [&[*channels], &vec![1; spatial.len()][..]].concat();
    let mut rewrite = Rewrite::new(graph, index);
    let x = rewrite.reshape(node.input(0)?, &rows);
    let ones = filled(&mut rewrite, "ones", &[depth], 1.0)?;
    let attrs = [("axis", Attr::Int(-1)), ("epsilon", Attr::Float(node.float("epsilon", 1e-5)))];
    let y = rewrite.main("LayerNormalization", &[&x, &ones], &attrs);
    let mut y = rewrite.reshape(&y, &back);
    if scale.iter().any(|&factor| factor != 1.0) {
        let scale = rewrite.constant("scale", Tensor::from_f32(&shape, &scale));
        y = rewrite.op("Mul", &[&y, &scale], &[]);
    }
    if shift.iter().any(|&term| term != 0.0) {
        let shift = rewrite.constant("shift", Tensor::from_f32(&shape, &shift));
        rewrite.op("Add", &[&y, &shift], &[]);
    }
    Some(rewrite.finish())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Model, ints};
    use super::*;

    /// `(x − mean) / sqrt(variance + epsilon)` of rows of an input `[1, ..]` that lie together in memory.
    fn rows(x: &[f32], depth: usize, epsilon: f64) -> Vec<f32> {
        x.chunks(depth)
            .flat_map(|row| {
                let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / depth as f64;
                let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / depth as f64;
                row.iter().map(move |&v| ((f64::from(v) - mean) / (variance + epsilon).sqrt()) as f32)
            })
            .collect()
    }

    /// What [`Model::run`] feeds.
    fn input(count: usize) -> Vec<f32> {
        (0..count).map(|at| (at as f32 * 0.9).cos()).collect()
    }

    fn all(graph: &mut Graph) -> usize {
        let count = run(graph);
        while run(graph) > 0 {}
        count
    }

    fn by_channel(values: Vec<f32>, spatial: usize, scale: &[f32], shift: &[f32]) -> Vec<f32> {
        values.into_iter().enumerate().map(|(i, v)| v * scale[i / spatial] + shift[i / spatial]).collect()
    }

    #[test]
    fn trailing_axes_are_one_row() {
        let mut model = Model::new(&[3, 4, 5]);
        let (scale, shift) = (model.constant(&[4, 5]), model.constant(&[5]));
        let y = model.node("LayerNormalization", &["x", &scale, &shift], &[("axis", Attr::Int(2))]);
        model.outputs(&[&y]);
        let (scale, shift) = (model.graph.initializers[&scale].to_f32(), model.graph.initializers[&shift].to_f32());
        let normal = rows(&input(60), 20, 1e-5);
        let expected = normal.iter().enumerate().map(|(i, v)| v * scale[i % 20] + shift[i % 5]).collect();
        model.gives_after(&[expected], all);
    }

    #[test]
    fn outputs_of_means_are_not_lost() {
        let mut model = Model::new(&[3, 4, 5]);
        let scale = model.constant(&[4, 5]);
        let y = model.node("LayerNormalization", &["x", &scale], &[("axis", Attr::Int(2))]);
        model.graph.nodes[0].outputs.push("mean".into());
        model.outputs(&[&y, "mean"]);
        assert_eq!(run(&mut model.graph), 0);
        model.outputs(&[&y]);
        assert_eq!(run(&mut model.graph), 1);
    }

    #[test]
    fn instances_and_groups() {
        for (groups, parameters) in [(6, 6), (3, 6), (3, 3), (1, 6)] {
            let mut model = Model::new(&[6, 4, 5]);
            let (scale, shift) = (model.constant(&[parameters]), model.constant(&[parameters]));
            let (op, attrs) = match groups {
                6 => ("InstanceNormalization", vec![]),
                _ => ("GroupNormalization", vec![("num_groups", Attr::Int(groups))]),
            };
            let y = model.node(op, &["x", &scale, &shift], &attrs);
            model.outputs(&[&y]);
            let each = |name: &str| -> Vec<f32> {
                let values = model.graph.initializers[name].to_f32();
                (0..6).map(|c| values[c * parameters / 6]).collect()
            };
            let normal = rows(&input(120), 120 / groups as usize, 1e-5);
            model.gives_after(&[by_channel(normal, 20, &each(&scale), &each(&shift))], all);
        }
    }

    #[test]
    fn mean_and_variance_of_some_axes() {
        let mut model = Model::new(&[6, 4, 5]);
        let y = model.node("MeanVarianceNormalization", &["x"], &[("axes", ints(&[2, 3]))]);
        model.outputs(&[&y]);
        model.gives_after(&[rows(&input(120), 20, 0.0)], all);
        // Over the batch: not for one sample.
        let mut model = Model::new(&[6, 4, 5]);
        model.node("MeanVarianceNormalization", &["x"], &[]);
        assert_eq!(run(&mut model.graph), 0);
    }

    #[test]
    fn a_euclidean_norm_is_a_root_mean_square() {
        let mut model = Model::new(&[6, 20]);
        let y = model.node("LpNormalization", &["x"], &[]);
        model.outputs(&[&y]);
        let norm = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>().sqrt();
        let expected = input(120).chunks(20).flat_map(|row| row.iter().map(|v| v / norm(row))).collect();
        model.gives_after(&[expected], all);
    }
}
