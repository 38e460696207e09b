//! Files of 4 bits: what is exported loads and runs in ONNX Runtime, computes what the simulation says whatever the
//! container, and compiles to a plan that agrees.

use std::collections::BTreeMap;

use equant::compile::{self, Options};
use equant::data::Batch;
use equant::exec::{self, Backend};
use equant::graph::{Attr, DataType, Dim, Graph, Node, Tensor, ValueInfo};
use equant::observe::Statistics;
use equant::onnx;
use equant::qdq::{Container, export, simulate};
use equant::quantize::{self, Bits, Config, Outcome};
use equant_tests::models::quantized_graph;
use equant_tests::reference::{Reference, each_operator};

const SAMPLES: usize = 8;
const INPUT: [usize; 3] = [4, 8, 8];

fn wave(count: usize, phase: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 1.37 + phase).sin() * (0.2 + 0.8 * ((i * 13 % 7) as f32 / 7.0))).collect()
}

/// Conv, depthwise Conv, a product of tokens (MatMul) and Gemm.
fn network() -> Graph {
    let weights = |shape: &[usize], phase: f32| Tensor::from_f32(shape, &wave(shape.iter().product(), phase));
    let value = |shape: &[usize]| {
        let dims = shape.iter().map(|&size| Dim::Known(size));
        Some(std::iter::once(Dim::Symbol("N".into())).chain(dims).collect())
    };
    let same = ("pads", Attr::Ints(vec![1; 4]));
    Graph {
        name: "network".into(),
        opset: 21,
        nodes: vec![
            Node::new("Conv", "conv", ["x", "w0", "b0"], ["a"]).with(same.0, same.1.clone()),
            Node::new("Relu", "relu", ["a"], ["r"]),
            Node::new("Conv", "depthwise", ["r", "w1", "b1"], ["d"]).with(same.0, same.1).with("group", Attr::Int(16)),
            Node::new("Reshape", "tokens", ["d", "shape"], ["t"]),
            Node::new("MatMul", "matmul", ["t", "w2"], ["m"]),
            Node::new("Flatten", "flatten", ["m"], ["f"]),
            Node::new("Gemm", "gemm", ["f", "w3", "b3"], ["y"]).with("transB", Attr::Int(1)),
        ],
        initializers: BTreeMap::from([
            ("w0".to_owned(), weights(&[16, 4, 3, 3], 0.0)),
            ("b0".to_owned(), weights(&[16], 0.3)),
            ("w1".to_owned(), weights(&[16, 1, 3, 3], 0.7)),
            ("b1".to_owned(), weights(&[16], 0.1)),
            ("shape".to_owned(), Tensor::from_i64(&[3], &[0, 16, 64])),
            ("w2".to_owned(), weights(&[64, 12], 1.7)),
            ("w3".to_owned(), weights(&[10, 192], 0.9)),
            ("b3".to_owned(), weights(&[10], 2.2)),
        ]),
        inputs: vec![ValueInfo { name: "x".into(), dtype: DataType::F32, shape: value(&INPUT) }],
        outputs: vec![ValueInfo { name: "y".into(), dtype: DataType::F32, shape: value(&[10]) }],
        ..Graph::default()
    }
}

fn batch() -> Batch {
    Batch { first: 0, count: SAMPLES, inputs: vec![wave(SAMPLES * INPUT.iter().product::<usize>(), 0.4)] }
}

fn outcome(graph: &Graph, bits: &str) -> Outcome {
    let names = quantize::values_to_observe(graph);
    let values = exec::runner(graph, &names, Backend::Tract).unwrap().run(&batch()).unwrap();
    let seen = names.into_iter().zip(values).map(|(name, values)| {
        let mut statistics = Statistics::default();
        statistics.observe(&values);
        (name, statistics)
    });
    let bits: Bits = bits.parse().unwrap();
    quantize::quantize(graph, &seen.collect(), &Config { bits, ..Config::default() }).unwrap()
}

/// Exports, and reads the file back.
fn file(graph: &Graph, outcome: &Outcome, container: Container) -> Graph {
    let outcome = Outcome { container, ..outcome.clone() };
    quantized_graph(&onnx::to_bytes(&export(graph, &outcome)))
}

fn run(runner: Result<Box<dyn exec::Runner>, exec::Error>) -> Vec<f32> {
    runner.and_then(|runner| runner.run(&batch())).unwrap_or_else(|error| panic!("{error}")).remove(0)
}

/// Distance over all outputs, as a share of their norm.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

/// What every outcome's files must be, in both containers; returns the graphs.
fn check(what: &str, graph: &Graph, outcome: &Outcome) -> [Graph; 2] {
    let outputs = ["y".to_owned()];
    let files = [Container::Packed, Container::Int8].map(|container| file(graph, outcome, container));
    let simulated = files.each_ref().map(|file| run(exec::runner(&simulate(file), &outputs, Backend::Tract)));
    assert_eq!(simulated[0], simulated[1], "{what}: values do not depend on the container");
    for (file, container) in files.iter().zip(["packed", "int8"]) {
        let what = format!("{what}, {container}");
        if Reference::Ort.available(file) {
            let actual = run(Reference::Ort.runner(file, &outputs));
            let distance = distance(&actual, &simulated[0]);
            println!("{what}: ONNX Runtime within {:.3} % of the simulation", 100.0 * distance);
            // Integer kernels may round an element of a layer to the step beside.
            assert!(distance < 0.02, "{what}: {distance}");
        }
    }
    files
}

/// The plan of each file: the same bytes, and operator by operator what the file says.
fn compiles(what: &str, files: &[Graph; 2]) -> compile::Compiled {
    let [packed, int8] = files.each_ref().map(|file| compile::compile(file, &Options::default()).unwrap());
    assert!(packed.image == int8.image, "{what}: the plan does not depend on the container");
    let batch = Batch { first: 0, count: 2, inputs: vec![batch().inputs[0][..2 * 256].to_vec()] };
    for (file, reference) in files.iter().zip([Reference::Simulation, Reference::Ort]) {
        if reference.available(file) {
            let (count, share) = each_operator(what, file, &batch, reference);
            println!("{what}: {count} operators, {:.3} % of elements one step apart, none further", 100.0 * share);
        }
    }
    packed
}

fn is_packed(dtype: DataType) -> bool {
    matches!(dtype, DataType::I4 | DataType::U4)
}

#[test]
fn weights_of_four_bits() {
    let graph = network();
    let mut outcome = outcome(&graph, "W4A8");
    let signed = check("int4 weights", &graph, &outcome);
    let kinds: Vec<&str> = compiles("int4 weights", &signed).operators.iter().map(|kind| kind.name()).collect();
    assert_eq!(kinds, ["Transpose", "Conv2dI4", "DepthwiseConv2dI4", "FullyConnectedI4"]);
    for (file, packed) in signed.iter().zip([4, 0]) {
        let count = file.initializers.iter().filter(|(name, t)| name.ends_with("_quantized") && is_packed(t.dtype));
        assert_eq!(count.count(), packed);
    }
    // The same integers as uint4 around 8.
    for layer in outcome.layers.values_mut() {
        let shifted: Vec<i32> = layer.weights.to_i64().into_iter().map(|q| q as i32 + 8).collect();
        layer.weights = Tensor::from_ints(DataType::U4, &layer.weights.shape.clone(), &shifted);
    }
    let unsigned = check("uint4 weights", &graph, &outcome);
    assert!(unsigned[0].initializers.values().any(|t| t.dtype == DataType::U4));
    assert_eq!(unsigned[1], signed[1], "the int8 container is the same");
    let plans = [&signed[0], &unsigned[0]].map(|file| compile::compile(file, &Options::default()).unwrap().image);
    assert!(plans[0] == plans[1]);
}

#[test]
fn activations_of_four_bits() {
    let graph = network();
    for activations in [quantize::ActivationType::Unsigned, quantize::ActivationType::Signed] {
        for bits in ["W4A4", "W8A4"] {
            let what = format!("{bits} {activations:?}");
            let mut outcome = outcome(&graph, bits);
            if activations == quantize::ActivationType::Signed {
                for params in outcome.activations.values_mut().filter(|params| params.dtype == DataType::U4) {
                    (params.dtype, params.zero_point) = (DataType::I4, params.zero_point - 8);
                }
            }
            let files = check(&what, &graph, &outcome);
            let narrow = files[0].initializers.iter().filter(|(n, t)| n.ends_with("_zero_point") && is_packed(t.dtype));
            assert!(narrow.count() >= 4, "{what}");
            compiles(&what, &files);
        }
    }
}

#[test]
fn blocks_are_for_servers() {
    let graph = network();
    let mut outcome = outcome(&graph, "W4A8");
    for (node, block) in [("conv", 2), ("matmul", 16), ("gemm", 32)] {
        let layer = outcome.layers.get_mut(node).unwrap();
        layer.block = Some(block);
        layer.bias = None;
        // Each scale somewhat smaller than the channel's, another for each block.
        let shape = layer.scale_shape();
        let after: usize = shape[layer.axis + 1..].iter().product();
        let channels = layer.scales.clone();
        layer.scales = (0..shape.iter().product())
            .map(|i| channels[i / after % shape[layer.axis]] * (1.0 - 0.07 * (i * 5 % 7) as f32))
            .collect();
    }
    let files = check("blocks", &graph, &outcome);
    let error = compile::compile(&files[0], &Options::default()).unwrap_err().to_string();
    // The first of them; what depends on it is not refused again.
    assert!(error.contains("conv (Conv)") && error.contains("block_size"), "{error}");
    // One scale for all blocks of a channel: nothing is lost without blocks.
    for node in ["conv", "matmul", "gemm"] {
        let layer = outcome.layers.get_mut(node).unwrap();
        let shape = layer.scale_shape();
        let after: usize = shape[layer.axis + 1..].iter().product();
        layer.scales =
            (0..shape.iter().product()).map(|i| 0.05 + 0.01 * (i / after % shape[layer.axis]) as f32).collect();
    }
    compiles("equal blocks", &check("equal blocks", &graph, &outcome));
}
