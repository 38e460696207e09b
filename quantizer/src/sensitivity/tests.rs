use std::collections::BTreeMap;
use std::io::Write as _;

use super::*;
use crate::data::Samples;
use crate::exec::Backend;
use crate::graph::{Attr, DataType, Dim, Graph, Node, Tensor, ValueInfo};
use crate::metrics::{Moments, spearman};
use crate::observe::{Levels, Observer, Range, Statistics};
use crate::pipeline;
use crate::random::Random;

fn normals(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.normal() as f32).collect()
}

/// A graph from `x` to `y`; the shape is one sample's.
fn graph(shape: &[usize], nodes: Vec<Node>, constants: &[(&str, Tensor)]) -> Graph {
    let dims = std::iter::once(Dim::Symbol("N".into())).chain(shape.iter().map(|&dim| Dim::Known(dim)));
    let value = |name: &str, shape| ValueInfo { name: name.into(), dtype: DataType::F32, shape };
    Graph {
        opset: 21,
        nodes,
        initializers: constants.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect(),
        inputs: vec![value("x", Some(dims.collect()))],
        outputs: vec![value("y", None)],
        ..Graph::default()
    }
}

/// Normal samples for a graph, in a file that lives as long as the first value.
fn samples(graph: &Graph, shape: &[usize], count: usize, seed: u64) -> (tempfile::NamedTempFile, Samples) {
    let elements: usize = shape.iter().product();
    let dims: String = shape.iter().map(|dim| format!("{dim},")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({count},{dims}), }}");
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = tempfile::Builder::new().suffix(".npy").tempfile().expect("a file");
    file.write_all(b"\x93NUMPY\x01\x00").expect("written");
    file.write_all(&(header.len() as u16).to_le_bytes()).expect("written");
    file.write_all(header.as_bytes()).expect("written");
    let bytes: Vec<u8> = normals(count * elements, seed).iter().flat_map(|x| x.to_le_bytes()).collect();
    file.write_all(&bytes).expect("written");
    let samples = Samples::open(file.path(), graph).expect("samples");
    (file, samples)
}

/// Statistics of the inputs of all layers.
fn statistics(graph: &Graph, layers: &[Layer], samples: &Samples) -> BTreeMap<String, Statistics> {
    let names = layers.iter().filter_map(|layer| graph.nodes[layer.index].input(0).map(str::to_owned)).collect();
    pipeline::statistics(graph, names, samples, Backend::Tract, 2, &|_| {}).expect("statistics")
}

/// Predicted and measured damage of the only layer of a graph at each width.
fn both(graph: &Graph, samples: &Samples, bits: &[Widths], model: NoiseModel) -> Vec<(f64, f64)> {
    let layers = layers(graph);
    assert_eq!(layers.len(), 1);
    let statistics = statistics(graph, &layers, samples);
    let nearest = Nearest { statistics: &statistics, observer: Observer::MinMax };
    let energies = energies(graph, &layers, samples, Backend::Tract, 2, &|_| {}).expect("energies");
    let judge = Judge::new(graph, &layers, &nearest, samples, Backend::Tract, 2).expect("a judge");
    let predicted = |&bits: &Widths| {
        let signal = energies[0].output;
        let noise = predict(graph, &layers[0], &energies[0], &nearest, bits, model);
        assert_eq!(noise.signal, signal);
        (noise.damage(), judge.damage(&[(0, bits)]).expect("a run"))
    };
    bits.iter().map(predicted).collect()
}

fn widths(bits: impl IntoIterator<Item = u32>, activations: bool) -> Vec<Widths> {
    let of = |bits| if activations { Widths::new(Widths::FLOAT, bits) } else { Widths::new(bits, Widths::FLOAT) };
    bits.into_iter().map(|bits| of(bits).expect("widths")).collect()
}

/// Asserts that predictions hold at 4 to 8 bits: within 5 % from 6 bits on, within 15 % below.
fn assert_predicted(found: &[(f64, f64)], first: u32) {
    for (bits, (predicted, measured)) in (first..).zip(found) {
        let tolerance = if bits >= 6 { 0.05 } else { 0.15 };
        assert!((predicted / measured - 1.0).abs() < tolerance, "{bits} bits: {predicted} {measured}");
    }
}

fn gemm() -> Graph {
    let node = Node::new("Gemm", "fc", ["x", "w"], ["y"]).with("transB", Attr::Int(1));
    graph(&[256], vec![node], &[("w", Tensor::from_f32(&[96, 256], &normals(96 * 256, 1)))])
}

#[test]
fn weight_noise_of_a_linear_layer_is_predicted() {
    let graph = gemm();
    let (_file, samples) = samples(&graph, &[256], 96, 2);
    let found = both(&graph, &samples, &widths(4..=8, false), NoiseModel::Step);
    assert_predicted(&found, 4);
    // Steps of 1 / (2^(b−1) − 1): from 4 to 8 bits the variance falls by log2((127 / 7)²) / 4 = 2.09 a bit.
    let slope = |of: fn(&(f64, f64)) -> f64| (of(&found[4]).log2() - of(&found[0]).log2()) / 4.0;
    assert!((slope(|f| f.0) + 2.09).abs() < 0.01, "{}", slope(|f| f.0));
    assert!((slope(|f| f.1) + 2.09).abs() < 0.05, "{}", slope(|f| f.1));
}

#[test]
fn damage_falls_with_every_bit() {
    let graph = gemm();
    let (_file, samples) = samples(&graph, &[256], 32, 3);
    for activations in [false, true] {
        let found = both(&graph, &samples, &widths(2..=8, activations), NoiseModel::Step);
        assert!(found.windows(2).all(|pair| pair[0].0 > pair[1].0), "{found:?}");
    }
}

#[test]
fn a_variance_of_the_step_fails_at_two_bits() {
    // Three levels: most weights round to 0, so that the error is the weight itself and not uniform in a step.
    let graph = gemm();
    let (_file, samples) = samples(&graph, &[256], 64, 4);
    let (predicted, measured) = both(&graph, &samples, &widths([2], false), NoiseModel::Step)[0];
    assert!((predicted / measured - 1.0).abs() > 0.15, "{predicted} {measured}");
    // The error's own size does not.
    assert_predicted(&both(&graph, &samples, &widths(2..=8, false), NoiseModel::Error), 2);
}

#[test]
fn weight_noise_of_convolutions_is_predicted() {
    let pads = |node: Node| node.with("pads", Attr::Ints(vec![1, 1, 1, 1])).with("strides", Attr::Ints(vec![2, 2]));
    let conv = |groups: usize| pads(Node::new("Conv", "c", ["x", "w"], ["y"])).with("group", Attr::Int(groups as i64));
    // Two groups, and depthwise with two outputs for each input.
    for (groups, shape) in [(2, [32, 8, 3, 3]), (16, [128, 1, 3, 3])] {
        let weights = normals(shape.iter().product(), 5);
        let graph = graph(&[16, 9, 9], vec![conv(groups)], &[("w", Tensor::from_f32(&shape, &weights))]);
        let (_file, samples) = samples(&graph, &[16, 9, 9], 64, 6);
        assert_predicted(&both(&graph, &samples, &widths(3..=8, false), NoiseModel::Error), 3);
        let by_step = both(&graph, &samples, &widths(4..=8, false), NoiseModel::Step);
        match groups {
            2 => assert_predicted(&by_step, 4),
            // One of nine weights is the largest, and exact.
            _ => assert!(by_step.iter().all(|(predicted, measured)| predicted / measured > 1.05), "{by_step:?}"),
        }
    }
}

#[test]
fn input_noise_is_predicted() {
    let conv = Node::new("Conv", "c", ["x", "w"], ["y"]);
    let conv = graph(&[8, 12, 12], vec![conv], &[("w", Tensor::from_f32(&[16, 8, 3, 3], &normals(1152, 7)))]);
    let transposed = Node::new("ConvTranspose", "t", ["x", "w"], ["y"]).with("strides", Attr::Ints(vec![2, 2]));
    let transposed =
        graph(&[8, 12, 12], vec![transposed], &[("w", Tensor::from_f32(&[8, 16, 2, 2], &normals(512, 8)))]);
    let matmul = Node::new("MatMul", "m", ["x", "w"], ["y"]);
    let matmul = graph(&[8, 12, 12], vec![matmul], &[("w", Tensor::from_f32(&[12, 20], &normals(240, 9)))]);
    for graph in [conv, transposed, matmul] {
        let (_file, samples) = samples(&graph, &[8, 12, 12], 64, 10);
        assert_predicted(&both(&graph, &samples, &widths(4..=8, true), NoiseModel::Step), 4);
    }
}

#[test]
fn energies_count_every_window() {
    // Ones of 4 × 4, windows of 3 × 3 with padding: corners see 4 of them, edges 6, the middle 9.
    let conv = Node::new("Conv", "c", ["x", "w"], ["y"]).with("pads", Attr::Ints(vec![1, 1, 1, 1]));
    let weights = Tensor::from_f32(&[5, 2, 3, 3], &[0.5; 90]);
    let graph = graph(&[2, 4, 4], vec![conv], &[("w", weights)]);
    let (_file, samples) = samples(&graph, &[2, 4, 4], 7, 11);
    let found = energies(&graph, &layers(&graph), &samples, Backend::Tract, 1, &|_| {}).expect("energies");
    let x = normals(7 * 32, 11);
    let seen = |i: usize| [2.0, 3.0, 3.0, 2.0][i / 4 % 4] * [2.0, 3.0, 3.0, 2.0][i % 4];
    let expected: f64 = x.iter().enumerate().map(|(i, &x)| f64::from(x * x) * seen(i)).sum::<f64>() / 7.0;
    assert_eq!((found[0].patches.len(), found[0].elements), (1, 80.0));
    assert!((found[0].patches[0] - expected).abs() < 1e-4 * expected, "{found:?} {expected}");
}

/// Six layers with Relu between, whose weights have tails of very different length, so that some mind few bits more.
fn chain() -> Graph {
    let mut random = Random::new(12);
    let (mut nodes, mut constants) = (Vec::new(), Vec::new());
    let names: Vec<String> = (0..6).map(|i| format!("w{i}")).collect();
    for (i, name) in names.iter().enumerate() {
        let power = [0.4, 2.2, 1.0, 1.6, 0.7, 3.0][i];
        let mut draw = || {
            let x = random.normal();
            (libm::pow(x.abs(), power) * x.signum()) as f32
        };
        let mut weights: Vec<f32> = (0..48 * 48).map(|_| draw()).collect();
        let size = (Moments::of(&weights).variance() * 24.0).sqrt() as f32;
        weights.iter_mut().for_each(|w| *w /= size);
        constants.push((name.as_str(), Tensor::from_f32(&[48, 48], &weights)));
        let input = if i == 0 { "x".to_owned() } else { format!("r{}", i - 1) };
        let output = if i == 5 { "y".to_owned() } else { format!("h{i}") };
        nodes.push(Node::new("MatMul", format!("m{i}"), [input.as_str(), name], [output.as_str()]));
        if i < 5 {
            nodes.push(Node::new("Relu", format!("relu{i}"), [output], [format!("r{i}")]));
        }
    }
    graph(&[48], nodes, &constants)
}

#[test]
fn predictions_and_noise_rank_layers_as_rounding_does() {
    let graph = chain();
    let (_file, samples) = samples(&graph, &[48], 128, 13);
    let layers = layers(&graph);
    let statistics = statistics(&graph, &layers, &samples);
    let nearest = Nearest { statistics: &statistics, observer: Observer::MinMax };
    let energies = energies(&graph, &layers, &samples, Backend::Tract, 2, &|_| {}).expect("energies");
    let judge = Judge::new(&graph, &layers, &nearest, &samples, Backend::Tract, 2).expect("a judge");
    let bits = Widths::new(4, Widths::FLOAT).expect("widths");
    let gains = gains(&judge, &energies, 4, &|_| {}).expect("gains");
    let ranking = rank(&judge, &energies, &gains, &[bits], &|_| {}).expect("a ranking");
    let measured: Vec<f64> = ranking.iter().map(|layer| layer.measured).collect();
    let predicted: Vec<f64> = ranking.iter().map(|layer| layer.predicted).collect();
    let local: Vec<f64> = ranking.iter().map(|layer| layer.local).collect();
    assert!(spearman(&local, &measured).expect("ranks") > 0.7, "{local:?} {measured:?}");
    assert!(spearman(&predicted, &measured).expect("ranks") > 0.8, "{predicted:?} {measured:?}");
    // The last layer's output is the model's: what reaches it is all there is.
    let signal = energies[5].output;
    assert!(
        (gains[5].weights * signal - 1.0).abs() < 0.15 && (gains[5].activations * signal - 1.0).abs() < 0.3,
        "{gains:?}"
    );
    let float = Widths::new(Widths::FLOAT, Widths::FLOAT).expect("widths");
    let options = vec![vec![bits, float]; layers.len()];
    for law in [NoiseLaw::Uniform, NoiseLaw::Normal] {
        let probe = NoiseProbe::new(&judge, &options, law, NoiseModel::Error);
        let noisy: Vec<f64> = (0..layers.len())
            .map(|layer| {
                let p: Vec<Vec<f64>> =
                    (0..layers.len()).map(|i| if i == layer { vec![1.0, 0.0] } else { vec![0.0, 1.0] }).collect();
                (0..12).map(|seed| probe.damage(&p, seed).expect("a run")).sum::<f64>() / 12.0
            })
            .collect();
        assert!(spearman(&noisy, &measured).expect("ranks") > 0.8, "{law:?} {noisy:?} {measured:?}");
        let factor = if law == NoiseLaw::Normal { 3.0 } else { 1.0 };
        let ratio: f64 = noisy.iter().zip(&measured).map(|(n, m)| (n / m / factor).ln()).sum::<f64>() / 6.0;
        assert!(ratio.abs() < 0.25, "{law:?} {noisy:?} {measured:?}");
    }
}

#[test]
fn noise_has_the_size_of_its_step() {
    let range = Range { low: -1.0, high: 3.0 };
    let step = |high| f64::from(Levels { low: 0, high, symmetric: false }.affine(range).0);
    // From 4 to 8 bits steps shrink 255 / 15 = 17 times.
    assert!((step(15) / step(255) - 17.0).abs() < 1e-4);
    for (law, divisor) in [(NoiseLaw::Normal, 2.0), (NoiseLaw::Uniform, 12f64.sqrt())] {
        let mut random = Random::new(14);
        let noise: Vec<f32> = (0..100_000).map(|_| (step(15) * law.draw(&mut random)) as f32).collect();
        let std = Moments::of(&noise).variance().sqrt();
        assert!((std / (step(15) / divisor) - 1.0).abs() < 0.02, "{law:?} {std}");
    }
}

#[test]
fn several_layers_are_measured_together_and_nothing_else_is_touched() {
    let graph = chain();
    let (_file, samples) = samples(&graph, &[48], 48, 15);
    let layers = layers(&graph);
    let statistics = statistics(&graph, &layers, &samples);
    let nearest = Nearest { statistics: &statistics, observer: Observer::MinMax };
    let judge = Judge::new(&graph, &layers, &nearest, &samples, Backend::Tract, 2).expect("a judge");
    assert_eq!(judge.damage(&[]).expect("a run"), 0.0);
    let float = Widths::new(Widths::FLOAT, Widths::FLOAT).expect("widths");
    assert_eq!(judge.damage(&[(0, float), (3, float)]).expect("a run"), 0.0);
    let one = judge.damage(&[(0, Widths::W4A8)]).expect("a run");
    let all: Vec<(usize, Widths)> = (0..6).map(|i| (i, Widths::W4A8)).collect();
    assert!(judge.damage(&all).expect("a run") > one);
    let other = Judge::new(&graph, &layers, &nearest, &samples, Backend::Tract, 3).expect("a judge");
    assert_eq!(other.damage(&all).expect("a run"), judge.damage(&all).expect("a run"));
}

#[test]
fn shared_weights_and_inputs_are_changed_for_one_layer_alone() {
    let nodes = vec![
        Node::new("MatMul", "a", ["x", "w"], ["p"]),
        Node::new("MatMul", "b", ["x", "w"], ["q"]),
        Node::new("Sub", "s", ["p", "q"], ["y"]),
    ];
    let graph = graph(&[16], nodes, &[("w", Tensor::from_f32(&[16, 16], &normals(256, 16)))]);
    let (_file, samples) = samples(&graph, &[16], 16, 17);
    let layers = layers(&graph);
    let statistics = statistics(&graph, &layers, &samples);
    let nearest = Nearest { statistics: &statistics, observer: Observer::MinMax };
    let judge = Judge::new(&graph, &layers, &nearest, &samples, Backend::Tract, 1).expect("a judge");
    // The float output is zero, so there is no signal to compare with.
    assert_eq!(judge.damage(&[(0, Widths::W4A8)]).expect("a run"), 0.0);
    let mut halved = graph.clone();
    halved.nodes[2] = Node::new("Add", "s", ["p", "q"], ["y"]);
    let judge = Judge::new(&halved, &layers, &nearest, &samples, Backend::Tract, 1).expect("a judge");
    let (one, both) = (judge.damage(&[(0, Widths::W4A8)]), judge.damage(&[(0, Widths::W4A8), (1, Widths::W4A8)]));
    // The same error twice has four times the power.
    assert!((both.expect("a run") / one.expect("a run") - 4.0).abs() < 1e-3);
}
