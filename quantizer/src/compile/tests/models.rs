//! Float models of several families, prepared, quantized, written, read back and compiled: plan, simulation and float model.

use std::collections::BTreeMap;

use equant_runtime::op::OpKind;

use crate::compile::{Compiled, Options, compile};
use crate::data::Batch;
use crate::exec::{Backend, plan_runner, runner};
use crate::graph::shape::infer_partial;
use crate::graph::{Attr, Dim, Graph, support};
use crate::metrics::Sqnr;
use crate::observe::Statistics;
use crate::passes::testing::{Model, ints};
use crate::passes::{Dims, prepare, prepare_quantized};
use crate::quantize::{Config, quantize, values_to_observe};
use crate::random::Random;
use crate::{onnx, qdq};

/// Samples of noise.
fn samples(graph: &Graph, count: usize, seed: u64) -> Batch {
    let types = infer_partial(graph, 1).types;
    let mut random = Random::new(seed);
    let inputs = graph.inputs.iter().map(|input| {
        let elements: usize = types[&input.name].shape.iter().product();
        // Of a mask, zeros and large negative numbers.
        (0..count * elements)
            .map(|_| match input.name.as_str() {
                "mask" => {
                    if random.chance(0.3) {
                        -10000.0
                    } else {
                        0.0
                    }
                }
                _ => random.normal() as f32,
            })
            .collect()
    });
    let inputs = inputs.collect();
    Batch { first: 0, count, inputs }
}

/// Power of a signal over that of its error, in dB.
fn sqnr(reference: &[f32], output: &[f32]) -> f64 {
    let mut ratio = Sqnr::default();
    ratio.add(reference, output);
    ratio.decibels()
}

/// Takes a model all the way and requires an SQNR of the plan's outputs: against the simulation, and against the float model.
fn check(model: &Model, against_simulation: f64, against_float: f64) -> Compiled {
    let mut graph = model.graph.clone();
    prepare(&mut graph, &Dims::new()).unwrap();
    assert_eq!(support::check(&graph), []);
    let observed = values_to_observe(&graph);
    let seen = runner(&graph, &observed, Backend::Tract).unwrap().run(&samples(&graph, 48, 1)).unwrap();
    let statistics: BTreeMap<String, Statistics> = observed
        .into_iter()
        .zip(seen)
        .map(|(name, values)| {
            let mut statistics = Statistics::default();
            statistics.observe(&values);
            (name, statistics)
        })
        .collect();
    let outcome = quantize(&graph, &statistics, &Config::default()).unwrap();
    let file = onnx::to_bytes(&qdq::export(&graph, &outcome));
    let mut quantized = onnx::from_bytes(&file, None, "test").unwrap();
    prepare_quantized(&mut quantized).unwrap();
    let compiled = compile(&quantized, &Options::default()).unwrap_or_else(|error| panic!("{error}"));

    let outputs: Vec<String> = graph.outputs.iter().map(|output| output.name.clone()).collect();
    let batch = samples(&graph, 16, 2);
    let run = |graph: &Graph| runner(graph, &outputs, Backend::Tract).unwrap().run(&batch).unwrap();
    let (float, simulated) = (run(&graph), run(&qdq::simulate(&quantized)));
    let plan = plan_runner(&compiled.image).unwrap().run(&batch).unwrap();
    for i in 0..outputs.len() {
        let (near, far) = (sqnr(&simulated[i], &plan[i]), sqnr(&float[i], &plan[i]));
        assert!(near >= against_simulation && far >= against_float, "{}: {near} dB, {far} dB", outputs[i]);
    }
    compiled
}

fn count(compiled: &Compiled, kind: OpKind) -> usize {
    compiled.map.operators.iter().filter(|row| row.kind == kind.name()).count()
}

#[test]
fn a_network_of_signals() {
    let mut model = Model::new(&[2, 160]);
    let (w, b) = (model.constant(&[8, 2, 9]), model.constant(&[8]));
    let x = model.node("Conv", &["x", &w, &b], &[("strides", ints(&[4])), ("pads", ints(&[4, 4]))]);
    let parameters: Vec<String> = (0..3).map(|_| model.constant(&[8])).collect();
    let variance = model.floats(&[8], &[4.0; 8]);
    let x = model.node("BatchNormalization", &[&x, &parameters[0], &parameters[1], &parameters[2], &variance], &[]);
    let x = model.node("Relu", &[&x], &[]);
    // Groups that are not depthwise, then depthwise ones.
    let (v, d) = (model.constant(&[8, 4, 3]), model.constant(&[8, 1, 3]));
    let same = ("auto_pad", Attr::String("SAME_UPPER".into()));
    let y = model.node("Conv", &[&x, &v], &[("group", Attr::Int(2)), ("dilations", ints(&[2])), same.clone()]);
    let y = model.node("Relu", &[&y], &[]);
    let y = model.node("Conv", &[&y, &d], &[("group", Attr::Int(8)), same]);
    let y = model.node("Add", &[&x, &y], &[]);
    let pool = [("kernel_shape", ints(&[3])), ("strides", ints(&[2])), ("ceil_mode", Attr::Int(1))];
    let included = [&pool[..], &[("pads", ints(&[1, 1])), ("count_include_pad", Attr::Int(1))]].concat();
    let y = model.node("AveragePool", &[&y], &included);
    let y = model.node("MaxPool", &[&y], &pool);
    let t = model.constant(&[8, 4, 4]);
    let y = model.node("ConvTranspose", &[&y, &t], &[("strides", ints(&[2])), ("pads", ints(&[1, 1]))]);
    let global = model.node("GlobalAveragePool", &[&y], &[]);
    let flat = model.node("Flatten", &[&global], &[]);
    let (g, c) = (model.constant(&[4, 5]), model.constant(&[5]));
    let logits = model.node("Gemm", &[&flat, &g, &c], &[]);
    model.outputs(&[&logits, &y]);
    let compiled = check(&model, 40.0, 25.0);
    assert_eq!(count(&compiled, OpKind::Transpose), 0);
    assert_eq!(count(&compiled, OpKind::Conv2d), 2);
    assert_eq!(count(&compiled, OpKind::DepthwiseConv2d), 1);
}

/// A linear layer without bias over the last axis.
fn linear(model: &mut Model, x: &str, inputs: usize, outputs: usize) -> String {
    let w = model.constant(&[inputs, outputs]);
    let w_small =
        model.graph.initializers[&w].to_f32().iter().map(|v| v * (1.5 / inputs as f32).sqrt()).collect::<Vec<_>>();
    let w = model.floats(&[inputs, outputs], &w_small);
    model.node("MatMul", &[x, &w], &[])
}

/// `x / sqrt(mean(x²) + ε) · g` as exporters write it.
fn root_mean_square(model: &mut Model, x: &str, depth: usize) -> String {
    let (two, epsilon, axes) = (model.floats(&[], &[2.0]), model.floats(&[], &[1e-5]), model.integers(&[-1]));
    let g = model.floats(&[depth], &(0..depth).map(|i| 0.5 + i as f32 / depth as f32).collect::<Vec<_>>());
    let square = model.node("Pow", &[x, &two], &[]);
    let mean = model.node("ReduceMean", &[&square, &axes], &[]);
    let safe = model.node("Add", &[&mean, &epsilon], &[]);
    let root = model.node("Sqrt", &[&safe], &[]);
    let inverse = model.node("Reciprocal", &[&root], &[]);
    let normal = model.node("Mul", &[x, &inverse], &[]);
    model.node("Mul", &[&normal, &g], &[])
}

#[test]
fn causal_attention_with_root_mean_squares() {
    let (tokens, width, heads) = (10, 24, 3);
    let depth = width / heads;
    let mut model = Model::new(&[tokens, width]);
    let mut x = linear(&mut model, "x", width, width);
    for form in 0..2 {
        let n = root_mean_square(&mut model, &x, width);
        let [q, k, v] = [[0, 2, 1, 3], [0, 2, 1, 3], [0, 2, 1, 3]].map(|perm| {
            let y = linear(&mut model, &n, width, width);
            let shape = model.integers(&[0, 0, heads as i64, depth as i64]);
            let y = model.node("Reshape", &[&y, &shape], &[]);
            model.node("Transpose", &[&y], &[("perm", ints(&perm))])
        });
        let k = model.node("Transpose", &[&k], &[("perm", ints(&[0, 1, 3, 2]))]);
        let scores = if form == 0 {
            // Scaled dot products, both operands by the fourth root.
            let root = model.floats(&[], &[(depth as f32).powf(-0.25)]);
            let (q, k) = (model.node("Mul", &[&q, &root], &[]), model.node("Mul", &[&k, &root], &[]));
            let scores = model.node("MatMul", &[&q, &k], &[]);
            let seen = (0..tokens * tokens).map(|i| i32::from(i % tokens <= i / tokens)).collect::<Vec<_>>();
            let seen = crate::graph::Tensor::from_ints(crate::graph::DataType::Bool, &[1, 1, tokens, tokens], &seen);
            model.graph.initializers.insert("seen".into(), seen);
            let low = model.floats(&[], &[f32::MIN]);
            model.node("Where", &["seen", &scores, &low], &[])
        } else {
            let scores = model.node("MatMul", &[&q, &k], &[]);
            let root = model.floats(&[], &[(depth as f32).sqrt()]);
            let scores = model.node("Div", &[&scores, &root], &[]);
            let mask = causal(&mut model, tokens, f32::NEG_INFINITY);
            model.node("Add", &[&scores, &mask], &[])
        };
        let weights = model.node("Softmax", &[&scores], &[]);
        let y = model.node("MatMul", &[&weights, &v], &[]);
        let y = model.node("Transpose", &[&y], &[("perm", ints(&[0, 2, 1, 3]))]);
        let shape = model.integers(&[0, 0, width as i64]);
        let y = model.node("Reshape", &[&y, &shape], &[]);
        let y = linear(&mut model, &y, width, width);
        x = model.node("Add", &[&x, &y], &[]);
        let n = root_mean_square(&mut model, &x, width);
        let y = linear(&mut model, &n, width, 2 * width);
        let y = model.node("Relu", &[&y], &[]);
        let y = linear(&mut model, &y, 2 * width, width);
        x = model.node("Add", &[&x, &y], &[]);
    }
    let y = root_mean_square(&mut model, &x, width);
    model.outputs(&[&y]);
    let compiled = check(&model, 30.0, 22.0);
    assert_eq!(count(&compiled, OpKind::MatMulMaskSoftmax), 2);
    assert_eq!(count(&compiled, OpKind::RmsNorm), 5);
    assert_eq!(count(&compiled, OpKind::Transpose), 0);
    assert!(compiled.map.flash.weights < 24 * 24 * 20, "a mask is stored");
}

/// 0 where a row sees a column, up to its own number, and `least` elsewhere.
fn causal(model: &mut Model, tokens: usize, least: f32) -> String {
    let mask = (0..tokens * tokens).map(|i| if i % tokens <= i / tokens { 0.0 } else { least });
    model.floats(&[tokens, tokens], &mask.collect::<Vec<_>>())
}

#[test]
fn heads_in_the_batch() {
    // Tokens first, and heads next to the batch, as PyTorch's MultiheadAttention has them.
    let (tokens, width, depth) = (8, 24, 6);
    let mut model = Model::new(&[tokens, width]);
    let x = model.node("Transpose", &["x"], &[("perm", ints(&[1, 0, 2]))]);
    let [q, k, v] = [0, 1, 2].map(|_| {
        let y = linear(&mut model, &x, width, width);
        let bias = model.constant(&[width]);
        let y = model.node("Add", &[&y, &bias], &[]);
        let shape = model.integers(&[tokens as i64, -1, depth]);
        let y = model.node("Reshape", &[&y, &shape], &[]);
        model.node("Transpose", &[&y], &[("perm", ints(&[1, 0, 2]))])
    });
    let root = model.floats(&[], &[(depth as f32).powf(-0.5)]);
    let q = model.node("Mul", &[&q, &root], &[]);
    let k = model.node("Transpose", &[&k], &[("perm", ints(&[0, 2, 1]))]);
    let scores = model.node("MatMul", &[&q, &k], &[]);
    let mask = causal(&mut model, tokens, f32::NEG_INFINITY);
    let scores = model.node("Add", &[&mask, &scores], &[]);
    let weights = model.node("Softmax", &[&scores], &[("axis", Attr::Int(-1))]);
    let y = model.node("MatMul", &[&weights, &v], &[]);
    let y = model.node("Transpose", &[&y], &[("perm", ints(&[1, 0, 2]))]);
    let shape = model.integers(&[tokens as i64, -1, width as i64]);
    let y = model.node("Reshape", &[&y, &shape], &[]);
    let y = linear(&mut model, &y, width, width);
    let y = model.node("Transpose", &[&y], &[("perm", ints(&[1, 0, 2]))]);
    model.outputs(&[&y]);
    let compiled = check(&model, 40.0, 20.0);
    assert_eq!(count(&compiled, OpKind::MatMulMaskSoftmax), 1);
    assert_eq!(count(&compiled, OpKind::Transpose), 0);
}

#[test]
fn heads_repeated_by_copies() {
    let (tokens, depth) = (7, 4);
    let mut model = Model::new(&[tokens as usize, 24]);
    let heads = |model: &mut Model, count: i64| {
        let y = linear(model, "x", 24, (count * depth) as usize);
        let shape = model.integers(&[0, 0, count, depth]);
        let y = model.node("Reshape", &[&y, &shape], &[]);
        model.node("Transpose", &[&y], &[("perm", ints(&[0, 2, 1, 3]))])
    };
    let q = heads(&mut model, 6);
    let [k, v] = [0, 1].map(|_| {
        let y = heads(&mut model, 2);
        let (axes, shape) = (model.integers(&[2]), model.integers(&[1, 2, 3, tokens, depth]));
        let y = model.node("Unsqueeze", &[&y, &axes], &[]);
        let y = model.node("Expand", &[&y, &shape], &[]);
        let shape = model.integers(&[-1, 6, tokens, depth]);
        model.node("Reshape", &[&y, &shape], &[])
    });
    let k = model.node("Transpose", &[&k], &[("perm", ints(&[0, 1, 3, 2]))]);
    let scores = model.node("MatMul", &[&q, &k], &[]);
    let root = model.floats(&[], &[0.5]);
    let scores = model.node("Mul", &[&scores, &root], &[]);
    let mask = causal(&mut model, tokens as usize, -1e9);
    let scores = model.node("Add", &[&scores, &mask], &[]);
    let weights = model.node("Softmax", &[&scores], &[]);
    let y = model.node("MatMul", &[&weights, &v], &[]);
    let y = model.node("Transpose", &[&y], &[("perm", ints(&[0, 2, 1, 3]))]);
    let shape = model.integers(&[0, 0, 24]);
    let y = model.node("Reshape", &[&y, &shape], &[]);
    let y = linear(&mut model, &y, 24, 24);
    model.outputs(&[&y]);
    let compiled = check(&model, 35.0, 25.0);
    assert_eq!(count(&compiled, OpKind::MatMulMaskSoftmax), 1);
    assert_eq!(compiled.map.flash.weights, 24 * (24 + 8 + 8 + 24) as usize, "keys, values or the mask are stored");
}

#[test]
fn shared_heads_with_a_mask_from_outside() {
    let (tokens, width) = (9, 24);
    let mut model = Model::new(&[tokens, width]);
    model.input("mask", &[1, 1, tokens]);
    let q = linear(&mut model, "x", width, width);
    let [k, v] = [0, 1].map(|_| linear(&mut model, "x", width, 8));
    // Six heads of queries, two of keys and values.
    let heads = [("q_num_heads", Attr::Int(6)), ("kv_num_heads", Attr::Int(2))];
    let y = model.node("Attention", &[&q, &k, &v, "mask"], &heads);
    let y = linear(&mut model, &y, width, width);
    let causal = [&heads[..], &[("is_causal", Attr::Int(1))]].concat();
    let z = model.node("Attention", &[&q, &k, &v], &causal);
    let z = linear(&mut model, &z, width, width);
    model.outputs(&[&y, &z]);
    let compiled = check(&model, 35.0, 25.0);
    assert_eq!(count(&compiled, OpKind::MatMulMaskSoftmax), 2);
    assert_eq!(count(&compiled, OpKind::Transpose), 0);
}

#[test]
fn groups_are_normalized_in_a_network_with_a_skip() {
    let mut model = Model::new(&[3, 12, 12]);
    let block = |model: &mut Model, x: &str, [inputs, outputs, stride]: [usize; 3], groups: i64| {
        let (w, b) = (model.constant(&[outputs, inputs, 3, 3]), model.constant(&[outputs]));
        let attrs = [("pads", ints(&[1; 4])), ("strides", ints(&[stride as i64; 2]))];
        let y = model.node("Conv", &[x, &w, &b], &attrs);
        let (scale, shift) = (model.constant(&[outputs]), model.constant(&[outputs]));
        let y = model.node("GroupNormalization", &[&y, &scale, &shift], &[("num_groups", Attr::Int(groups))]);
        let gate = model.node("Sigmoid", &[&y], &[]);
        model.node("Mul", &[&y, &gate], &[])
    };
    let x = block(&mut model, "x", [3, 8, 1], 4);
    let y = block(&mut model, &x, [8, 12, 2], 3);
    let w = model.constant(&[12, 8, 2, 2]);
    let y = model.node("ConvTranspose", &[&y, &w], &[("strides", ints(&[2, 2]))]);
    let y = model.node("Concat", &[&x, &y], &[("axis", Attr::Int(1))]);
    let (scale, shift) = (model.constant(&[16]), model.constant(&[16]));
    let y = model.node("InstanceNormalization", &[&y, &scale, &shift], &[]);
    let v = model.constant(&[4, 16, 1, 1]);
    let y = model.node("Conv", &[&y, &v], &[]);
    // A class for each pixel.
    let classes = model.node("Softmax", &[&y], &[("axis", Attr::Int(1))]);
    let logarithms = model.node("LogSoftmax", &[&y], &[("axis", Attr::Int(1))]);
    model.outputs(&[&classes, &logarithms]);
    let compiled = check(&model, 25.0, 18.0);
    assert_eq!(count(&compiled, OpKind::LayerNorm), 3);
}

#[test]
fn products_of_every_kind() {
    let mut model = Model::new(&[6, 8]);
    // One sample, so that its axis can be left out.
    model.graph.inputs[0].shape = Some([1, 6, 8].map(Dim::Known).to_vec());
    // A constant on the left, a stack of matrices, a vector, and rows that have biases of their own.
    let left = model.constant(&[5, 6]);
    let a = model.node("MatMul", &[&left, "x"], &[]);
    let shape = model.integers(&[0, 5, 2, 4]);
    let b = model.node("Reshape", &[&a, &shape], &[]);
    let b = model.node("Transpose", &[&b], &[("perm", ints(&[0, 2, 1, 3]))]);
    let stack = model.constant(&[2, 4, 7]);
    let b = model.node("MatMul", &[&b, &stack], &[]);
    let vector = model.constant(&[8]);
    let c = model.node("MatMul", &[&a, &vector], &[]);
    let axes = model.integers(&[0]);
    let rows = model.node("Squeeze", &[&a, &axes], &[]);
    let (w, bias) = (model.constant(&[8, 3]), model.constant(&[5, 1]));
    let d = model.node("Gemm", &[&rows, &w, &bias], &[("alpha", Attr::Float(0.5)), ("beta", Attr::Float(-2.0))]);
    let wide = model.constant(&[3, 8, 2]);
    let axes = model.integers(&[1]);
    let e = model.node("Unsqueeze", &["x", &axes], &[]);
    let e = model.node("MatMul", &[&e, &wide], &[]);
    // Batches that broadcast.
    let f = model.node("Transpose", &[&a], &[("perm", ints(&[0, 2, 1]))]);
    let axes = model.integers(&[1]);
    let f = model.node("Unsqueeze", &[&f, &axes], &[]);
    let f = model.node("MatMul", &[&f, &b], &[]);
    model.outputs(&[&b, &c, &d, &e, &f]);
    check(&model, 40.0, 25.0);
}

#[test]
fn normalizations_of_signals_and_several_axes() {
    let mut model = Model::new(&[4, 30]);
    let w = model.constant(&[6, 4, 3]);
    let x = model.node("Conv", &["x", &w], &[("pads", ints(&[1, 1]))]);
    let (scale, shift) = (model.constant(&[6]), model.constant(&[6]));
    let y = model.node("InstanceNormalization", &[&x, &scale, &shift], &[]);
    let v = model.constant(&[6, 6, 1]);
    let y = model.node("Conv", &[&y, &v], &[]);
    let (scale, shift) = (model.constant(&[6, 30]), model.constant(&[6, 30]));
    let y = model.node("LayerNormalization", &[&y, &scale, &shift], &[("axis", Attr::Int(1))]);
    let z = model.node("LpNormalization", &[&x], &[("axis", Attr::Int(1))]);
    let m = model.node("MeanVarianceNormalization", &[&x], &[("axes", ints(&[2]))]);
    model.outputs(&[&y, &z, &m]);
    check(&model, 35.0, 25.0);
}
