//! ConvTranspose gets explicit padding; one that does not spread its input (stride 1) becomes a Conv with turned kernels.

use super::{add_constant, constant};
use crate::graph::shape::{Window, infer_partial, transposed_windows};
use crate::graph::{Attr, Graph, Node, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    let found = |node: &Node| node.op_type == "ConvTranspose" && node.domain.is_empty();
    if !graph.nodes.iter().any(found) {
        return 0;
    }
    let types = infer_partial(graph, 2).types;
    let mut count = 0;
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let shape = |i: usize| Some(types.get(node.input(i)?)?.shape.clone());
        let (true, Some(x), Some(weights)) = (found(node), shape(0), shape(1)) else { continue };
        let Some(axes) = axes(node, &x, &weights) else { continue };
        count += usize::from(explicit(&mut graph.nodes[index], &axes));
        count += usize::from(to_conv(graph, index, &axes).is_some());
    }
    count
}

/// A spatial axis: size of the input, window.
type Axis = (usize, Window);

fn axes(node: &Node, x: &[usize], weights: &[usize]) -> Option<Vec<Axis>> {
    let (spatial, kernel) = (x.get(2..)?, weights.get(2..)?);
    let windows = transposed_windows(node, spatial, kernel).ok()?;
    Some(spatial.iter().copied().zip(windows).collect())
}

/// A list attribute with a value for each axis.
fn list(axes: &[Axis], of: impl Fn(&Axis) -> Option<usize>) -> Option<Vec<i64>> {
    axes.iter().map(|axis| i64::try_from(of(axis)?).ok()).collect()
}

/// Replaces `auto_pad` and `output_shape` by `pads` and `output_padding`.
fn explicit(node: &mut Node, axes: &[Axis]) -> bool {
    let auto = node.string("auto_pad").unwrap_or("NOTSET") != "NOTSET";
    if !auto && node.ints("output_shape").is_none() {
        return false;
    }
    let begin = list(axes, |(_, window)| Some(window.pad_begin));
    let end = list(axes, |(_, window)| Some(window.pad_end));
    let more = list(axes, |(input, w)| {
        let whole = (input - 1) * w.stride + (w.kernel - 1) * w.dilation + 1;
        (w.output + w.pad_begin + w.pad_end).checked_sub(whole)
    });
    let (Some(begin), Some(end), Some(more)) = (begin, end, more) else { return false };
    node.attrs.remove("auto_pad");
    node.attrs.remove("output_shape");
    node.attrs.insert("pads".into(), Attr::Ints([begin, end].concat()));
    node.attrs.insert("output_padding".into(), Attr::Ints(more));
    true
}

/// A convolution sees the input through the turned kernel, with as much padding as the transposed one does not cut off.
fn to_conv(graph: &mut Graph, index: usize, axes: &[Axis]) -> Option<()> {
    let node = &graph.nodes[index];
    if axes.iter().any(|(_, window)| window.stride != 1) {
        return None;
    }
    let span = |w: &Window| (w.kernel - 1) * w.dilation;
    let begin = list(axes, |(_, w)| span(w).checked_sub(w.pad_begin))?;
    let end = list(axes, |(input, w)| (w.output + w.pad_begin).checked_sub(*input))?;
    let weights = constant(graph, node.input(1)).filter(|weights| weights.dtype.is_float())?;
    let groups = usize::try_from(node.int("group", 1)).ok().filter(|&groups| groups > 0)?;
    let turned = turned(weights, groups)?;
    let name = add_constant(graph, &format!("{}.turned_weight", graph.nodes[index].name), turned);
    let node = &mut graph.nodes[index];
    node.op_type = "Conv".into();
    node.inputs[1] = name;
    node.attrs.remove("output_padding");
    node.attrs.insert("pads".into(), Attr::Ints([begin, end].concat()));
    Some(())
}

/// Weights `[C, O / groups, window]` as `[O, C / groups, window]`, taps from the last to the first.
fn turned(weights: &Tensor, groups: usize) -> Option<Tensor> {
    let [inputs, per_group, window @ ..] = weights.shape.as_slice() else { return None };
    let taps: usize = window.iter().product();
    let depth = inputs / groups;
    let values = weights.to_f32();
    if inputs % groups != 0 || values.is_empty() {
        return None;
    }
    let from = |i: usize| {
        let (output, input, tap) = (i / (depth * taps), i / taps % depth, i % taps);
        let (group, output) = (output / per_group, output % per_group);
        ((group * depth + input) * per_group + output) * taps + (taps - 1 - tap)
    };
    let shape = [&[per_group * groups, depth], window].concat();
    let turned: Vec<f32> = (0..values.len()).map(|i| values[from(i)]).collect();
    Some(Tensor::from_f32(&shape, &turned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Batch;
    use crate::exec::{Backend, runner};
    use crate::graph::{DataType, Dim, ValueInfo};

    fn graph(attrs: &[(&str, Attr)], weights: &[usize], groups: i64) -> Graph {
        let dims = [Dim::Symbol("N".into()), Dim::Known(weights[0]), Dim::Known(5), Dim::Known(4)];
        let wave = |count: usize| (0..count).map(|i| (i as f32 * 1.7).sin()).collect::<Vec<f32>>();
        let mut graph = Graph {
            opset: 21,
            inputs: vec![ValueInfo { name: "x".into(), dtype: DataType::F32, shape: Some(dims.into()) }],
            outputs: vec![ValueInfo { name: "y".into(), dtype: DataType::F32, shape: None }],
            ..Graph::default()
        };
        graph.initializers.insert("w".into(), Tensor::from_f32(weights, &wave(weights.iter().product())));
        let outputs = weights[1] * groups as usize;
        graph.initializers.insert("b".into(), Tensor::from_f32(&[outputs], &wave(outputs)));
        let node = Node::new("ConvTranspose", "t", ["x", "w", "b"], ["y"]).with("group", Attr::Int(groups));
        graph.nodes.push(attrs.iter().fold(node, |node, (name, attr)| node.with(name, attr.clone())));
        graph
    }

    fn ints(values: &[i64]) -> Attr {
        Attr::Ints(values.to_vec())
    }

    fn outputs(graph: &Graph) -> Vec<f32> {
        let elements = graph.initializers["w"].shape[0] * 20;
        let x = (0..elements).map(|i| (i as f32 * 0.9).cos()).collect();
        let batch = Batch { first: 0, count: 1, inputs: vec![x] };
        runner(graph, &["y".to_owned()], Backend::Tract).unwrap().run(&batch).unwrap().remove(0)
    }

    #[test]
    fn a_stride_of_one_is_a_convolution() {
        for (weights, groups, attrs) in [
            ([4, 3, 3, 2], 1, vec![]),
            ([4, 3, 3, 2], 2, vec![("pads", ints(&[2, 0, 0, 1]))]),
            ([4, 1, 2, 3], 4, vec![("dilations", ints(&[2, 3])), ("output_padding", ints(&[1, 2]))]),
        ] {
            let mut graph = graph(&attrs, &weights, groups);
            let before = outputs(&graph);
            assert_eq!((run(&mut graph), run(&mut graph)), (1, 0), "{attrs:?}");
            assert_eq!(graph.nodes[0].op_type, "Conv");
            let after = outputs(&graph);
            assert_eq!(before.len(), after.len());
            assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5), "{attrs:?}");
        }
        // What a Conv could only do with negative padding stays.
        assert_eq!(run(&mut graph(&[("pads", ints(&[3, 0, 0, 0]))], &[2, 3, 3, 2], 1)), 0);
    }

    #[test]
    fn padding_becomes_explicit() {
        let two = ("strides", ints(&[2, 2]));
        let upper = ("auto_pad", Attr::String("SAME_UPPER".into()));
        for (attrs, pads, more) in [
            (vec![two.clone(), upper.clone()], [0, 0, 1, 0], [0, 0]),
            (vec![two.clone(), ("output_shape", ints(&[10, 9]))], [1, 0, 0, 0], [0, 1]),
            (
                vec![two.clone(), ("output_shape", ints(&[10, 8])), ("output_padding", ints(&[1, 0]))],
                [1, 0, 1, 0],
                [1, 0],
            ),
        ] {
            let mut graph = graph(&attrs, &[2, 3, 3, 2], 1);
            assert_eq!((run(&mut graph), run(&mut graph)), (1, 0));
            let node = &graph.nodes[0];
            assert_eq!(
                (node.ints("pads"), node.ints("output_padding")),
                (Some(&pads[..]), Some(&more[..])),
                "{attrs:?}"
            );
            assert_eq!((node.string("auto_pad"), node.ints("output_shape")), (None, None));
        }
        assert_eq!(run(&mut graph(&[two], &[2, 3, 3, 2], 1)), 0);
    }
}
