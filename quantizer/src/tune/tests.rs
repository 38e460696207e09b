//! Tuning small models.

use std::io::Write;
use std::time::Duration;

use super::*;
use crate::exec::Backend;
use crate::graph::{Attr, DataType, Dim, Node, Tensor, ValueInfo};
use crate::observe::Statistics;
use crate::quantize::{self, Bits, Config};

fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut random = crate::random::Random::at(seed, [0, 0]);
    (0..count).map(|_| (0..6).map(|_| random.uniform() as f32).sum::<f32>() - 3.0).collect()
}

fn value(name: &str, shape: &[usize]) -> ValueInfo {
    let rest = shape.iter().map(|&size| Dim::Known(size));
    let dims = std::iter::once(Dim::Symbol("N".into())).chain(rest).collect();
    ValueInfo { name: name.into(), dtype: DataType::F32, shape: Some(dims) }
}

/// Convolutions, one of them depthwise, a residual and a classifier of 5 classes over images of 2 × 6 × 6.
fn classifier() -> Graph {
    let constant = |name: &str, shape: &[usize], seed: u64, size: f32| {
        let values: Vec<f32> = noise(shape.iter().product(), seed).iter().map(|v| v * size).collect();
        (name.to_owned(), Tensor::from_f32(shape, &values))
    };
    let pads = || Attr::Ints(vec![1; 4]);
    Graph {
        opset: 21,
        nodes: vec![
            Node::new("Conv", "first", ["x", "w1", "b1"], ["a"]).with("pads", pads()),
            Node::new("Relu", "relu", ["a"], ["b"]),
            Node::new("Conv", "depthwise", ["b", "w2", "b2"], ["c"]).with("pads", pads()).with("group", Attr::Int(8)),
            Node::new("Add", "join", ["b", "c"], ["d"]),
            Node::new("Clip", "clip", ["d", "zero", "six"], ["e"]),
            Node::new("GlobalAveragePool", "pool", ["e"], ["f"]),
            Node::new("Flatten", "flat", ["f"], ["g"]),
            Node::new("Gemm", "classes", ["g", "w3", "b3"], ["y"]).with("transB", Attr::Int(1)),
        ],
        initializers: [
            constant("w1", &[8, 2, 3, 3], 1, 0.4),
            constant("b1", &[8], 2, 0.3),
            constant("w2", &[8, 1, 3, 3], 3, 0.4),
            constant("b2", &[8], 4, 0.3),
            constant("w3", &[5, 8], 5, 1.5),
            constant("b3", &[5], 6, 0.5),
            ("zero".to_owned(), Tensor::from_f32(&[], &[0.0])),
            ("six".to_owned(), Tensor::from_f32(&[], &[6.0])),
        ]
        .into(),
        inputs: vec![value("x", &[2, 6, 6])],
        outputs: vec![value("y", &[5])],
        ..Graph::default()
    }
}

/// Samples in a file: smooth images, so that there is something to learn.
fn samples(graph: &Graph, count: usize) -> (tempfile::NamedTempFile, Samples) {
    let values: Vec<f32> = noise(count * 2, 11)
        .chunks(2)
        .flat_map(|v| {
            let (a, b) = (v[0], v[1]);
            (0..72).map(move |i| (a * (i % 6) as f32 * 0.5 + b * (i / 6) as f32 * 0.4).sin() * (1.0 + a * a))
        })
        .collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, 2, 6, 6), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = tempfile::Builder::new().suffix(".npy").tempfile().unwrap();
    file.write_all(b"\x93NUMPY\x01\x00").unwrap();
    file.write_all(&(header.len() as u16).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.write_all(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let samples = Samples::open(file.path(), graph).unwrap();
    (file, samples)
}

fn quantized(graph: &Graph, samples: &Samples, bits: &str) -> Outcome {
    let names = quantize::values_to_observe(graph);
    let runner = exec::runner(graph, &names, Backend::default()).unwrap();
    let start = vec![Statistics::default(); names.len()];
    let add = |mut all: Vec<Statistics>, values: Vec<Vec<f32>>| {
        all.iter_mut().zip(values).for_each(|(statistics, values)| statistics.observe(&values));
        all
    };
    let all = exec::fold(&*runner, samples, 1, |_, values| values, start, add).unwrap();
    let bits: Bits = bits.parse().unwrap();
    let config = Config { bits, ..Config::default() };
    quantize::quantize(graph, &names.into_iter().zip(all).collect(), &config).unwrap()
}

fn options() -> Options {
    Options { steps: 60, batch: 16, every: 20, ..Options::default() }
}

fn silent(_: usize) {}

#[test]
fn tuning_comes_nearer_and_the_export_is_what_was_tuned() {
    let graph = classifier();
    let (_file, samples) = samples(&graph, 96);
    let start = quantized(&graph, &samples, "W4A4");
    let steps = std::cell::Cell::new(0);
    let tuned = tune(&graph, &start, &samples, &options(), &|n| steps.set(steps.get() + n)).unwrap();
    let report = &tuned.report;
    assert_eq!((steps.get(), report.steps, report.samples), (60, 60, (72, 24)));
    assert!(report.after.divergence < 0.7 * report.before.divergence, "{report:?}");
    assert!(report.after.sqnr_db > report.before.sqnr_db + 1.0, "{report:?}");
    assert!((report.exported.divergence / report.after.divergence - 1.0).abs() < 0.02, "{report:?}");
    // The structure is that of the outcome given.
    let outcome = &tuned.outcome;
    assert!(outcome.activations.keys().eq(start.activations.keys()) && outcome.layers.keys().eq(start.layers.keys()));
    for (name, params) in &outcome.activations {
        let (low, high) = params.dtype.quantized_range().unwrap();
        assert_eq!(params.dtype, start.activations[name].dtype);
        assert!((low..=high).contains(&params.zero_point) && params.scale > 0.0);
    }
    for (name, layer) in &outcome.layers {
        let input = outcome.activations[graph.nodes.iter().find(|n| n.name == *name).unwrap().input(0).unwrap()];
        let bias = layer.bias.as_ref().unwrap();
        assert_eq!(layer.weights.shape, start.layers[name].weights.shape);
        assert!(bias.scales.iter().zip(&layer.scales).all(|(b, w)| *b == input.scale * w));
    }
    // Values that only move elements share their quantization, and a clamp stays redundant.
    assert_eq!(outcome.activations["f"], outcome.activations["g"]);
    let clipped = outcome.activations["e"];
    assert!(clipped.zero_point == 0 && clipped.scale * 15.0 <= 6.0);
}

#[test]
fn results_depend_on_the_seed_and_not_on_threads() {
    let graph = classifier();
    let (_file, samples) = samples(&graph, 48);
    let start = quantized(&graph, &samples, "W4A4");
    let options = Options { steps: 8, every: 4, block_steps: 2, wide_steps: 2, drop: 0.3, ..options() };
    let run = |threads: usize, seed: u64| {
        tune(&graph, &start, &samples, &Options { threads, seed, ..options.clone() }, &silent).unwrap()
    };
    let one = run(1, 1);
    for threads in [2, 5] {
        let other = run(threads, 1);
        assert!(other.outcome == one.outcome && other.report.history == one.report.history, "{threads} threads");
    }
    assert_ne!(run(1, 2).outcome, one.outcome);
}

/// Every ingredient by itself improves on the start.
#[test]
fn every_way_of_tuning_works() {
    let graph = classifier();
    let (_file, samples) = samples(&graph, 96);
    let start = quantized(&graph, &samples, "W4A4");
    let base = options();
    let with = |change: &dyn Fn(&mut Options)| {
        let mut options = base.clone();
        change(&mut options);
        options
    };
    let ways: [(&str, Options); 9] = [
        ("blocks", with(&|o| (o.block_steps, o.steps, o.drop) = (20, 20, 0.5))),
        ("wide", with(&|o| (o.wide_steps, o.steps) = (20, 40))),
        ("soft", with(&|o| (o.rounding, o.rates.weights) = (Rounding::Soft(1e-4), 0.05))),
        ("tempered", with(&|o| (o.loss.exponent, o.loss.weighted) = (0.7, true))),
        ("kurtosis", with(&|o| o.loss.kurtosis = 1e-3)),
        ("shape", with(&|o| o.loss.shape = 1e-2)),
        ("anchor", with(&|o| o.loss.anchor = 1e-2)),
        ("outputs alone", with(&|o| (o.loss.divergence, o.loss.features, o.loss.outputs) = (0.0, 0.0, 1.0))),
        ("not varied", with(&|o| o.augment = Augment::NONE)),
    ];
    for (name, options) in ways {
        let report = tune(&graph, &start, &samples, &options, &silent).unwrap().report;
        assert!(report.after.divergence < 0.9 * report.before.divergence, "{name}: {report:?}");
        assert!((report.exported.divergence / report.after.divergence - 1.0).abs() < 0.02, "{name}: {report:?}");
    }
}

#[test]
fn the_start_is_kept_where_nothing_is_better() {
    let graph = classifier();
    let (_file, samples) = samples(&graph, 48);
    let start = quantized(&graph, &samples, "W8A8");
    let rates = Rates { weights: 50.0, scales: 3.0, biases: 9.0, ranges: 3.0 };
    let tuned = tune(&graph, &start, &samples, &Options { rates, ..options() }, &silent).unwrap();
    assert_eq!(tuned.outcome, start);
    assert_eq!((tuned.report.best_step, tuned.report.after), (0, tuned.report.before));
    assert!(tuned.report.notes.iter().any(|note| note.contains("no step was better")), "{:?}", tuned.report.notes);
}

#[test]
fn the_time_budget_is_obeyed() {
    let graph = classifier();
    let (_file, samples) = samples(&graph, 48);
    let start = quantized(&graph, &samples, "W4A4");
    let time_budget = Some(Duration::from_millis(300));
    let options = Options { steps: 1_000_000, block_steps: 1_000_000, time_budget, ..options() };
    let report = tune(&graph, &start, &samples, &options, &silent).unwrap().report;
    assert!(report.steps > 0 && report.steps < 100_000, "{}", report.steps);
    assert!(report.seconds < 10.0, "{}", report.seconds);
    // The last phase, which is the one judged, had its share.
    assert!(report.history.len() > 1 && report.after.divergence <= report.before.divergence);
    let none = Options { time_budget: Some(Duration::ZERO), ..options };
    assert_eq!(tune(&graph, &start, &samples, &none, &silent).unwrap().outcome, start);
}

#[test]
fn what_cannot_be_tuned_says_why() {
    let mut graph = classifier();
    let (_file, few) = samples(&graph, 12);
    let start = quantized(&graph, &few, "W4A4");
    let message =
        |graph: &Graph, outcome: &Outcome| tune(graph, outcome, &few, &options(), &silent).unwrap_err().to_string();
    assert_eq!(message(&graph, &start), "12 samples are too few to tune by: use at least 16");
    graph.nodes.push(Node::new("CumSum", "odd", ["y", "zero"], ["z"]));
    let found = message(&graph, &start);
    assert!(found.contains("node `odd` (CumSum)") && found.contains("without tuning"), "{found}");
}

/// On a normal law, four bits, learned ends come to the range with the least squared error.
#[test]
fn learned_ends_find_the_best_clip() {
    use crate::diff::{Ends, FakeQuant};
    // Quantiles of the normal law by bisection of its distribution function.
    let quantile = |p: f64| {
        let (mut low, mut high) = (-6.0, 6.0);
        for _ in 0..60 {
            let mid = 0.5 * (low + high);
            let below = 0.5 * (1.0 + libm::erf(mid / std::f64::consts::SQRT_2));
            if below < p { low = mid } else { high = mid }
        }
        low as f32
    };
    let x: Vec<f32> = (0..20_000).map(|i| quantile((f64::from(i) + 0.5) / 20_000.0)).collect();
    let quant = FakeQuant::new(-8, 7);
    let error = |ends: Ends| {
        let (scale, zero) = ends.affine(-8, 7);
        let y = quant.forward(&x, scale as f32, zero.round() as f32);
        x.iter().zip(&y).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / x.len() as f64
    };
    let (mut theta, start) = ([0.0f64; 2], 4.2f64);
    let ends = |theta: [f64; 2]| Ends { low: -start * theta[0].exp(), high: start * theta[1].exp() };
    let mut best = f64::INFINITY;
    for step in 0..400 {
        let now = ends(theta);
        best = best.min(error(now));
        let (scale, zero) = now.affine(-8, 7);
        let y = quant.forward(&x, scale as f32, zero.round() as f32);
        let g: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 2.0 * (y - x) / 20_000.0).collect();
        let found = quant.backward(&x, &g, scale as f32, zero.round() as f32);
        let (to_low, to_high) = now.gradients(-8, 7, found.scale, found.zero_point);
        let rate = 0.02 * (1.0 - f64::from(step) / 400.0);
        theta[0] -= rate * (to_low * now.low).signum();
        theta[1] -= rate * (to_high * now.high).signum();
    }
    // The optimum of the full range: 0.01186.
    assert!(best < 1.03 * 0.01186 && error(ends([0.0; 2])) > 1.5 * 0.01186, "{best}");
}
