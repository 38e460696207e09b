//! A network of operators that move, compare, divide and reduce, end to end: quantized from files as a user would, read
//! back, compiled, and compared with what the file says and what the float model gives.

use std::collections::BTreeMap;
use std::path::Path;

use equant::compile::{self, Options};
use equant::data::{Batch, Samples};
use equant::exec::{self, Backend};
use equant::graph::{Attr, DataType, Dim, Graph, Node, Tensor, ValueInfo, support};
use equant::metrics::Sqnr;
use equant::onnx;
use equant::passes::{self, Dims};
use equant::pipeline::{self, Artifacts, Request, Silent};
use equant_runtime::operator::AllOperators;
use equant_runtime::plan::{AlignedBytes, Plan};
use equant_tests::models::{quantized_graph, threads};
use equant_tests::npy;
use equant_tests::reference::{Reference, each_operator};

const SAMPLES: usize = 64;
const INPUT: [usize; 3] = [3, 6, 5];
const ELEMENTS: usize = 3 * 6 * 5;

fn wave(count: usize, phase: f32, size: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 1.37 + phase).sin() * (0.2 + 0.8 * ((i * 13 % 7) as f32 / 7.0)) * size).collect()
}

fn ints(values: &[i64]) -> Attr {
    Attr::Ints(values.to_vec())
}

/// Two branches of one convolution, resized apart and joined, and five outputs made of them.
fn network() -> Graph {
    let text = |value: &str| Attr::String(value.into());
    let numbers = |values: &[i64]| Tensor::from_i64(&[values.len()], values);
    let value = |name: &str, dtype: DataType, shape: Option<Vec<Dim>>| ValueInfo { name: name.into(), dtype, shape };
    let dims = std::iter::once(Dim::Symbol("N".into())).chain(INPUT.map(Dim::Known)).collect();
    Graph {
        name: "breadth".into(),
        opset: 21,
        nodes: vec![
            Node::new("Conv", "conv", ["x", "w0", "b0"], ["c"]).with("pads", ints(&[1, 1, 1, 1])),
            Node::new("PRelu", "prelu", ["c", "slopes"], ["p"]),
            Node::new("Split", "split", ["p", "parts"], ["s0", "s1"]).with("axis", Attr::Int(1)),
            Node::new("Resize", "linear", ["s0", "", "twice"], ["u0"]).with("mode", text("linear")),
            Node::new("Resize", "nearest", ["s1", "", "twice"], ["u1"])
                .with("mode", text("nearest"))
                .with("coordinate_transformation_mode", text("asymmetric"))
                .with("nearest_mode", text("floor")),
            Node::new("Max", "larger", ["u0", "u1"], ["m"]),
            Node::new("Min", "smaller", ["u0", "u1"], ["l"]),
            Node::new("Sub", "difference", ["m", "l"], ["d"]),
            Node::new("Slice", "every", ["d", "starts", "ends", "axes", "steps"], ["e"]),
            Node::new("Pad", "mirror", ["e", "pads"], ["f"]).with("mode", text("reflect")),
            Node::new("Conv", "after", ["f", "w1", "b1"], ["g"]),
            Node::new("Relu", "relu", ["g"], ["h"]),
            Node::new("SpaceToDepth", "blocks", ["h"], ["k"]).with("blocksize", Attr::Int(2)),
            Node::new("ReduceMax", "largest", ["k", "spatial"], ["top"]).with("keepdims", Attr::Int(0)),
            Node::new("ReduceSum", "total", ["k", "spatial"], ["sum"]).with("keepdims", Attr::Int(0)),
            Node::new("Add", "one", ["sum", "one_"], ["positive"]),
            Node::new("Div", "share", ["top", "positive"], ["ratio"]),
            Node::new("Gather", "order", ["top", "picked"], ["chosen"]).with("axis", Attr::Int(1)),
            Node::new("ArgMax", "class", ["top"], ["best"]).with("axis", Attr::Int(1)),
            Node::new("ReduceMin", "least", ["m", "spatial"], ["low"]),
            Node::new("Mul", "scaled", ["d", "low"], ["product"]),
        ],
        initializers: BTreeMap::from([
            ("w0".to_owned(), Tensor::from_f32(&[8, 3, 3, 3], &wave(216, 0.0, 0.5))),
            ("b0".to_owned(), Tensor::from_f32(&[8], &wave(8, 0.3, 0.3))),
            ("slopes".to_owned(), Tensor::from_f32(&[8, 1, 1], &[0.1, 0.5, -0.3, 0.0, 1.5, 0.25, 0.9, 0.05])),
            ("parts".to_owned(), numbers(&[4, 4])),
            ("twice".to_owned(), Tensor::from_f32(&[4], &[1.0, 1.0, 2.0, 2.0])),
            ("starts".to_owned(), numbers(&[-1, 0])),
            ("ends".to_owned(), numbers(&[i64::MIN, 9])),
            ("axes".to_owned(), numbers(&[2, 3])),
            ("steps".to_owned(), numbers(&[-2, 1])),
            ("pads".to_owned(), numbers(&[0, 0, 2, 1, 0, 0, 1, 1])),
            ("w1".to_owned(), Tensor::from_f32(&[5, 4, 2, 2], &wave(80, 1.7, 0.6))),
            ("b1".to_owned(), Tensor::from_f32(&[5], &wave(5, 0.6, 0.3))),
            ("spatial".to_owned(), numbers(&[2, 3])),
            ("one_".to_owned(), Tensor::from_f32(&[], &[1.0])),
            ("picked".to_owned(), numbers(&[3, 0, 3, 19])),
        ]),
        inputs: vec![value("x", DataType::F32, Some(dims))],
        outputs: vec![
            value("ratio", DataType::F32, None),
            value("chosen", DataType::F32, None),
            value("s1", DataType::F32, None),
            value("best", DataType::I64, None),
            value("product", DataType::F32, None),
        ],
        ..Graph::default()
    }
}

fn samples() -> Vec<f32> {
    wave(SAMPLES * ELEMENTS, 0.4, 1.0)
}

fn quantize(folder: &Path) -> Artifacts {
    let (model, calibration) = (folder.join("breadth.onnx"), folder.join("samples.npy"));
    std::fs::write(&model, onnx::to_bytes(&network())).unwrap();
    let shape: Vec<u64> = std::iter::once(SAMPLES).chain(INPUT).map(|size| size as u64).collect();
    npy::write(&calibration, &shape, &samples());
    let request = Request { threads: threads(), ..Request::new(model, &calibration) };
    pipeline::quantize(&request, &Silent).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn plan_file_and_float_model_agree() {
    let mut float = network();
    passes::prepare(&mut float, &Dims::new()).unwrap();
    assert_eq!(support::check(&float), []);
    let folder = tempfile::tempdir().unwrap();
    let artifacts = quantize(folder.path());
    let graph = quantized_graph(&artifacts.onnx);
    let compiled = compile::compile(&graph, &Options::default()).unwrap();
    assert!(compiled.image == artifacts.plan, "the plan is that of the file");
    let image = AlignedBytes::from(&artifacts.plan[..]);
    let plan = Plan::<AllOperators>::parse(&image).unwrap();
    let kinds: Vec<&str> = plan.ops().map(|op| op.kind.name()).collect();
    for kind in ["Take", "Resize2d", "Div", "ArgMax", "MaxPool2d", "AvgPool2d"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    let few = Batch { first: 0, count: 4, inputs: vec![samples()[..4 * ELEMENTS].to_vec()] };
    for reference in [Reference::Simulation, Reference::Ort] {
        if reference.available(&graph) {
            let (count, share) = each_operator("breadth", &graph, &few, reference);
            println!("{reference:?}: {count} pieces, {:.3} % of elements one step apart", 100.0 * share);
            assert!(share < 0.02, "{share}");
        }
    }
    let outputs: Vec<String> = float.outputs.iter().map(|output| output.name.clone()).collect();
    let calibration = Samples::open(&folder.path().join("samples.npy"), &float).unwrap();
    let all = calibration.batches(SAMPLES).unwrap().next().unwrap().unwrap();
    let expected = exec::runner(&float, &outputs, Backend::Tract).unwrap().run(&all).unwrap();
    let actual = exec::plan_runner(&artifacts.plan).unwrap().run(&all).unwrap();
    for ((name, expected), actual) in outputs.iter().zip(&expected).zip(&actual) {
        assert_eq!(expected.len(), actual.len(), "{name}");
        if name == "best" {
            let equal = expected.iter().zip(actual).filter(|(a, b)| a == b).count();
            assert!(equal * 10 >= expected.len() * 9, "{equal} of {} classes", expected.len());
            continue;
        }
        let mut ratio = Sqnr::default();
        ratio.add(expected, actual);
        println!("{name}: {:.1} dB", ratio.decibels());
        assert!(ratio.decibels() > 25.0, "{name}: {} dB", ratio.decibels());
    }
}

#[test]
fn samples_of_a_batch_stay_apart() {
    for node in [
        Node::new("ReduceMax", "n", ["x", "zero"], ["y"]),
        Node::new("ArgMax", "n", ["x"], ["y"]),
        Node::new("Gather", "n", ["x", "zero"], ["y"]),
        Node::new("Slice", "n", ["x", "zero", "one", "zero"], ["y"]),
        Node::new("Concat", "n", ["x", "x"], ["y"]).with("axis", Attr::Int(0)),
    ] {
        let mut graph = network();
        graph.nodes = vec![node];
        graph.initializers = BTreeMap::from([
            ("zero".to_owned(), Tensor::from_i64(&[1], &[0])),
            ("one".to_owned(), Tensor::from_i64(&[1], &[1])),
        ]);
        graph.outputs = vec![ValueInfo { name: "y".into(), dtype: DataType::F32, shape: None }];
        let op_type = graph.nodes[0].op_type.clone();
        passes::prepare(&mut graph, &Dims::new()).unwrap();
        let reasons: Vec<String> = support::check(&graph).into_iter().map(|found| found.reason).collect();
        assert!(reasons.iter().any(|reason| reason.contains("is the batch")), "{op_type}: {reasons:?}");
    }
}
