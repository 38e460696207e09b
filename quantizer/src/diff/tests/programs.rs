//! Programs against the float executor: in float, and quantized against the simulation of the exported file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor as Value};

use super::super::{Error, Leaves, Program, Quantization, Quantizer, levels, to_vec};
use crate::data::{Batch, Samples};
use crate::exec::{self, Backend};
use crate::graph::{Attr, DataType, Dim, Graph, Node, Tensor, ValueInfo};
use crate::observe::Statistics;
use crate::passes::{Dims, prepare};
use crate::qdq;
use crate::quantize::{self, Bits, Config, Outcome};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn value(name: &str, shape: &[usize]) -> ValueInfo {
    let rest = shape.iter().map(|&size| Dim::Known(size));
    let dims = std::iter::once(Dim::Symbol("N".into())).chain(rest).collect();
    ValueInfo { name: name.into(), dtype: DataType::F32, shape: Some(dims) }
}

fn wave(shape: &[usize], rate: f32) -> Tensor {
    let count = shape.iter().product();
    Tensor::from_f32(shape, &(0..count).map(|i| (i as f32 * rate).sin() * 0.7).collect::<Vec<f32>>())
}

fn graph(input: &[usize], nodes: Vec<Node>, constants: &[(&str, Tensor)], output: &str) -> Graph {
    Graph {
        opset: 21,
        nodes,
        initializers: constants.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect(),
        inputs: vec![value("x", input)],
        outputs: vec![ValueInfo { name: output.into(), dtype: DataType::F32, shape: None }],
        ..Graph::default()
    }
}

fn batch(count: usize, elements: usize) -> Batch {
    let values = (0..count * elements).map(|i| (i as f32 * 0.37).sin() * 2.0).collect();
    Batch { first: 0, count, inputs: vec![values] }
}

fn executed(graph: &Graph, batch: &Batch) -> Vec<f32> {
    let name = graph.outputs[0].name.clone();
    exec::runner(graph, &[name], Backend::Tract).unwrap().run(batch).unwrap().remove(0)
}

/// The first output of a program, in float.
fn computed(graph: &Graph, batch: &Batch) -> Vec<f32> {
    let program = Program::new(graph, &Outcome::default()).unwrap();
    to_vec(&program.run(&batch.inputs, None, &program.outputs).unwrap()[0]).unwrap()
}

#[track_caller]
fn near(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-3f32, |a, b| a.max(b.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "element {i}: {a} for {b}");
    }
}

fn node(op: &str, inputs: &[&str], output: &str) -> Node {
    Node::new(op, format!("{op}_{output}"), inputs.iter().copied(), [output])
}

#[test]
fn image_operators_follow_the_executor() {
    let ints = |values: &[i64]| Attr::Ints(values.to_vec());
    let nodes = vec![
        node("Conv", &["x", "w1", "b1"], "a").with("pads", ints(&[1, 0, 0, 1])).with("strides", ints(&[1, 2])),
        node("LeakyRelu", &["a"], "b").with("alpha", Attr::Float(0.2)),
        node("Conv", &["b", "w2"], "c").with("group", Attr::Int(4)).with("auto_pad", Attr::String("SAME_UPPER".into())),
        node("Clip", &["c", "", "one"], "d"),
        node("Add", &["b", "d"], "e"),
        node("MaxPool", &["e"], "f").with("kernel_shape", ints(&[2, 2])).with("strides", ints(&[2, 1])),
        node("Pad", &["f", "pads", "half"], "g"),
        node("AveragePool", &["g"], "h").with("kernel_shape", ints(&[3, 3])).with("pads", ints(&[1, 1, 1, 1])),
        node("Mul", &["h", "channels"], "i"),
        node("Concat", &["i", "h"], "j").with("axis", Attr::Int(1)),
        node("ReduceMean", &["j", "axes"], "k").with("keepdims", Attr::Int(0)),
        node("Sigmoid", &["k"], "l"),
        node("Sub", &["one", "l"], "m"),
        node("Unsqueeze", &["m", "last"], "n"),
        node("Flatten", &["n"], "o"),
        node("Gemm", &["o", "w3", "b3"], "y").with("transB", Attr::Int(1)),
    ];
    let constants = [
        ("w1", wave(&[4, 2, 3, 3], 0.9)),
        ("b1", wave(&[4], 0.3)),
        ("w2", wave(&[4, 1, 3, 3], 1.7)),
        ("one", Tensor::from_f32(&[], &[1.0])),
        ("half", Tensor::from_f32(&[], &[0.5])),
        ("pads", Tensor::from_i64(&[8], &[0, 0, 1, 0, 0, 0, 0, 2])),
        ("channels", wave(&[1, 4, 1, 1], 1.1)),
        ("axes", Tensor::from_i64(&[2], &[2, 3])),
        ("last", Tensor::from_i64(&[1], &[2])),
        ("w3", wave(&[3, 8], 0.8)),
        ("b3", wave(&[3], 2.0)),
    ];
    let graph = graph(&[2, 8, 9], nodes, &constants, "y");
    let batch = batch(3, 144);
    near(&computed(&graph, &batch), &executed(&graph, &batch), 1e-5);
}

#[test]
fn token_operators_follow_the_executor() {
    let ints = |values: &[i64]| Attr::Ints(values.to_vec());
    let nodes = vec![
        node("Add", &["x", "positions"], "a"),
        node("LayerNormalization", &["a", "scale", "shift"], "b").with("axis", Attr::Int(-1)),
        node("MatMul", &["b", "w"], "c"),
        node("Add", &["bias", "c"], "d"),
        node("Reshape", &["d", "heads"], "e"),
        node("Transpose", &["e"], "f").with("perm", ints(&[0, 2, 1, 3])),
        node("Transpose", &["e"], "g").with("perm", ints(&[0, 2, 3, 1])),
        node("MatMul", &["f", "g"], "h"),
        node("Mul", &["h", "half"], "i"),
        node("Softmax", &["i"], "j").with("axis", Attr::Int(-1)),
        node("MatMul", &["j", "f"], "k"),
        node("Transpose", &["k"], "l").with("perm", ints(&[0, 2, 1, 3])),
        node("Reshape", &["l", "tokens"], "m"),
        node("Div", &["m", "root"], "n"),
        node("Erf", &["n"], "o"),
        node("Add", &["o", "one"], "p"),
        node("Mul", &["m", "p"], "q"),
        node("Tanh", &["q"], "r"),
        node("Exp", &["r"], "s"),
        node("Add", &["a", "s"], "y"),
    ];
    let constants = [
        ("positions", wave(&[1, 5, 8], 0.9)),
        ("scale", wave(&[8], 0.3)),
        ("shift", wave(&[8], 1.3)),
        ("w", wave(&[8, 8], 1.7)),
        ("bias", wave(&[8], 0.7)),
        ("heads", Tensor::from_i64(&[4], &[0, 5, 2, 4])),
        ("tokens", Tensor::from_i64(&[3], &[-1, 5, 8])),
        ("half", Tensor::from_f32(&[], &[0.5])),
        ("root", Tensor::from_f32(&[], &[std::f32::consts::SQRT_2])),
        ("one", Tensor::from_f32(&[1], &[1.0])),
    ];
    let graph = graph(&[5, 8], nodes, &constants, "y");
    let batch = batch(3, 40);
    near(&computed(&graph, &batch), &executed(&graph, &batch), 1e-5);
}

#[test]
fn what_has_no_gradient_is_named() {
    let reason = |nodes: Vec<Node>| match Program::new(&graph(&[4, 6], nodes, &[], "y"), &Outcome::default()) {
        Err(Error::Unsupported { node, reason, .. }) => format!("{node}: {reason}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(vec![node("LSTM", &["x"], "y")]), "LSTM_y: it has no gradient here");
    let swapped = node("Transpose", &["x"], "y").with("perm", Attr::Ints(vec![1, 0, 2]));
    assert_eq!(reason(vec![swapped]), "Transpose_y: it moves the batch axis");
    let stranger = Outcome { activations: BTreeMap::from([("z".into(), QU8)]), ..Outcome::default() };
    let plain = graph(&[4], vec![node("Relu", &["x"], "y")], &[], "y");
    assert_eq!(Program::new(&plain, &stranger).unwrap_err(), Error::Mismatch("z".into()));
}

const QU8: quantize::QParams = quantize::QParams { dtype: DataType::U8, scale: 0.1, zero_point: 7 };

fn prepared(name: &str) -> (Graph, Samples) {
    let mut graph = crate::onnx::read(&models().join(format!("{name}/{name}.onnx"))).unwrap();
    prepare(&mut graph, &Dims::new()).unwrap();
    let data = if name == "ae" { "ae" } else { "fmnist" };
    let samples = Samples::open(&models().join(format!("data/{data}_calib512.npz")), &graph).unwrap();
    (graph, samples)
}

fn quantized(graph: &Graph, batch: &Batch, bits: Bits) -> Outcome {
    let names = quantize::values_to_observe(graph);
    let values = exec::runner(graph, &names, Backend::Tract).unwrap().run(batch).unwrap();
    let observed = names.into_iter().zip(values).map(|(name, values)| {
        let mut statistics = Statistics::default();
        statistics.observe(&values);
        (name, statistics)
    });
    let config = Config { bits, ..Config::default() };
    quantize::quantize(graph, &observed.collect(), &config).unwrap()
}

/// The leaves of an outcome as it is.
fn leaves(program: &Program, outcome: &Outcome) -> Leaves {
    let tensor = |values: Vec<f32>, shape: &[usize]| Value::from_vec(values, shape, &Device::Cpu).unwrap();
    let scaled = |tensor: &Tensor, scales: &[f32], run: usize| -> Vec<f32> {
        tensor.to_i64().iter().enumerate().map(|(i, &q)| q as f32 * scales[i / run % scales.len()]).collect()
    };
    let mut leaves = Leaves { weights: vec![], biases: vec![], shifts: vec![], groups: vec![] };
    for slot in &program.layers {
        let layer = &outcome.layers[&slot.node];
        let run = layer.weights.shape[layer.axis + 1..].iter().product();
        leaves.weights.push(tensor(scaled(&layer.weights, &layer.scales, run), &layer.weights.shape));
        let bias = match &layer.bias {
            Some(bias) => scaled(&bias.values, &bias.scales, 1),
            None => vec![0.0; slot.outputs],
        };
        leaves.biases.push(tensor(bias, &[slot.outputs]));
    }
    leaves.shifts = program.shifts.iter().map(|slot| tensor(slot.values.to_f32(), &slot.values.shape)).collect();
    for group in &program.groups {
        let (low, high) = levels(group.params);
        leaves.groups.push(Quantizer {
            scale: tensor(vec![group.params.scale], &[1]),
            zero_point: tensor(vec![group.params.zero_point as f32], &[1]),
            low,
            high,
        });
    }
    leaves
}

#[test]
fn models_are_computed_as_exported() {
    for (name, bits) in [("resnet8", "W4A4"), ("mbv1", "W4A8"), ("vit", "W8A8"), ("ae", "W8A8")] {
        let (graph, samples) = prepared(name);
        let batch = samples.batches(8).unwrap().next().unwrap().unwrap();
        near(&computed(&graph, &batch), &executed(&graph, &batch), 1e-4);

        let outcome = quantized(&graph, &batch, bits.parse().unwrap());
        let program = Program::new(&graph, &outcome).unwrap();
        let leaves = leaves(&program, &outcome);
        let quantization = Quantization { leaves: &leaves, drop: None };
        let found = program.run(&batch.inputs, Some(&quantization), &program.outputs).unwrap();
        let expected = executed(&qdq::simulate(&qdq::export(&graph, &outcome)), &batch);
        // Another order of sums may move a value across the border between two integers, rarely.
        let (mut signal, mut noise) = (0.0f64, 0.0f64);
        for (a, b) in to_vec(&found[0]).unwrap().iter().zip(&expected) {
            signal += f64::from(*b).powi(2);
            noise += f64::from(a - b).powi(2);
        }
        // An export also rounds float biases to whole steps of the sums they are added to.
        let most = if program.shifts.is_empty() { 1e-4 } else { 1e-3 };
        assert!(noise < most * signal, "{name}: {noise} of {signal}");
    }
}

#[test]
fn spans_are_residual_blocks_or_layers() {
    for (name, expected) in
        [("resnet8", vec![1, 2, 3, 3, 1]), ("vit", vec![1, 4, 2, 4, 2, 4, 2, 4, 2, 1]), ("ae", vec![1; 10])]
    {
        let (graph, samples) = prepared(name);
        let batch = samples.batches(2).unwrap().next().unwrap().unwrap();
        let outcome = quantized(&graph, &batch, Bits::default());
        let program = Program::new(&graph, &outcome).unwrap();
        let spans = program.spans();
        let layers: Vec<usize> = spans.iter().map(|span| span.layers.len()).collect();
        assert_eq!(layers, expected, "{name}");
        // Everything is in one part.
        let mut all: Vec<usize> = spans.iter().flat_map(|span| span.layers.clone()).collect();
        assert_eq!(all, (0..program.layers.len()).collect::<Vec<_>>());
        all = spans.iter().flat_map(|span| span.groups.clone()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..program.groups.len()).collect::<Vec<_>>(), "{name}");
        assert_eq!(spans.iter().map(|span| span.shifts.len()).sum::<usize>(), program.shifts.len());
        assert_eq!(spans.last().unwrap().end, program.outputs[0]);
    }
}
