//! A decoder with transposed convolutions, end to end: quantized from files as a user would, read back, compiled, and
//! compared with what the file says.

use std::collections::BTreeMap;
use std::path::Path;

use equant::compile::{self, Options};
use equant::data::Batch;
use equant::elastic::{self, Format};
use equant::exec::{self, Backend};
use equant::graph::{Attr, DataType, Dim, Graph, Node, Tensor, ValueInfo};
use equant::onnx;
use equant::passes::Dims;
use equant::pipeline::{self, Artifacts, Request, Silent};
use equant::quantize::{ActivationType, Config};
use equant::round::Method;
use equant::tune;
use equant_runtime::operator::AllOperators;
use equant_runtime::plan::{AlignedBytes, Plan};
use equant_tests::models::{quantized_graph, threads};
use equant_tests::npy;
use equant_tests::reference::{Reference, each_operator};

const SAMPLES: usize = 96;
const INPUT: [usize; 3] = [6, 5, 4];
const ELEMENTS: usize = 6 * 5 * 4;

fn wave(count: usize, phase: f32, size: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 1.37 + phase).sin() * (0.2 + 0.8 * ((i * 13 % 7) as f32 / 7.0)) * size).collect()
}

/// Twice the size, normalized, in one group; twice the size in two groups; the size kept; a convolution.
fn decoder() -> Graph {
    let weights =
        |shape: &[usize], phase: f32, size: f32| Tensor::from_f32(shape, &wave(shape.iter().product(), phase, size));
    let dims = |shape: &[usize]| {
        let dims = shape.iter().map(|&size| Dim::Known(size));
        Some(std::iter::once(Dim::Symbol("N".into())).chain(dims).collect())
    };
    let ints = |values: &[i64]| Attr::Ints(values.to_vec());
    let transposed = |name: &str, inputs: [&str; 3], output: &str| Node::new("ConvTranspose", name, inputs, [output]);
    Graph {
        name: "decoder".into(),
        opset: 21,
        nodes: vec![
            transposed("up", ["x", "w0", "b0"], "a")
                .with("strides", ints(&[2, 2]))
                .with("pads", ints(&[1, 1, 1, 1]))
                .with("output_padding", ints(&[1, 1])),
            Node::new("BatchNormalization", "norm", ["a", "gamma", "beta", "mean", "var"], ["n"]),
            Node::new("Relu", "relu", ["n"], ["r"]),
            transposed("groups", ["r", "w1", "b1"], "c")
                .with("strides", ints(&[2, 2]))
                .with("group", Attr::Int(2))
                .with("auto_pad", Attr::String("SAME_UPPER".into())),
            Node::new("Relu", "again", ["c"], ["d"]),
            transposed("turned", ["d", "w2", "b2"], "e").with("pads", ints(&[1, 1, 1, 1])),
            Node::new("Relu", "third", ["e"], ["f"]),
            Node::new("Conv", "conv", ["f", "w3", "b3"], ["y"]).with("pads", ints(&[1, 1, 1, 1])),
        ],
        initializers: BTreeMap::from([
            ("w0".to_owned(), weights(&[6, 8, 3, 3], 0.0, 0.5)),
            ("b0".to_owned(), weights(&[8], 0.3, 0.3)),
            ("gamma".to_owned(), Tensor::from_f32(&[8], &[1.0, 0.8, 1.3, 0.5, 1.1, 2.0, 0.7, 0.9])),
            ("beta".to_owned(), weights(&[8], 0.1, 0.2)),
            ("mean".to_owned(), weights(&[8], 0.5, 0.1)),
            ("var".to_owned(), Tensor::from_f32(&[8], &[0.9, 1.2, 0.8, 1.0, 0.7, 1.1, 1.3, 0.6])),
            ("w1".to_owned(), weights(&[8, 3, 2, 4], 0.7, 0.6)),
            ("b1".to_owned(), weights(&[6], 0.1, 0.3)),
            ("w2".to_owned(), weights(&[6, 5, 3, 3], 1.9, 0.4)),
            ("b2".to_owned(), weights(&[5], 0.6, 0.3)),
            ("w3".to_owned(), weights(&[3, 5, 3, 3], 1.7, 0.4)),
            ("b3".to_owned(), weights(&[3], 2.2, 0.3)),
        ]),
        inputs: vec![ValueInfo { name: "x".into(), dtype: DataType::F32, shape: dims(&INPUT) }],
        outputs: vec![ValueInfo { name: "y".into(), dtype: DataType::F32, shape: dims(&[3, 20, 16]) }],
        ..Graph::default()
    }
}

fn samples() -> Vec<f32> {
    wave(SAMPLES * ELEMENTS, 0.4, 1.0)
}

/// The model and its samples in a folder, and what to do with them.
fn request(folder: &Path, bits: &str) -> Request {
    let (model, calibration) = (folder.join("decoder.onnx"), folder.join("samples.npy"));
    std::fs::write(&model, onnx::to_bytes(&decoder())).unwrap();
    let shape: Vec<u64> = std::iter::once(SAMPLES).chain(INPUT).map(|size| size as u64).collect();
    npy::write(&calibration, &shape, &samples());
    let config = Config { bits: bits.parse().unwrap(), ..Config::default() };
    Request { config, threads: threads(), ..Request::new(model, calibration) }
}

fn quantize(bits: &str) -> Artifacts {
    let folder = tempfile::tempdir().unwrap();
    let request = request(folder.path(), bits);
    pipeline::quantize(&request, &Silent).unwrap_or_else(|error| panic!("{bits}: {error}"))
}

/// Compiles the file again, and compares operator by operator.
fn agrees(what: &str, file: &[u8], plan: &[u8], expected: &[&str]) {
    let graph = quantized_graph(file);
    let compiled = compile::compile(&graph, &Options::default()).unwrap();
    assert!(compiled.image == plan, "{what}: the plan is that of the file");
    let image = AlignedBytes::from(plan);
    let plan = Plan::<AllOperators>::parse(&image).unwrap();
    let kinds: Vec<&str> = plan.ops().map(|op| op.kind.name()).collect();
    assert_eq!(kinds, expected, "{what}");
    let few = Batch { first: 0, count: 4, inputs: vec![samples()[..4 * ELEMENTS].to_vec()] };
    for reference in [Reference::Simulation, Reference::Ort] {
        if reference.available(&graph) {
            let (count, share) = each_operator(what, &graph, &few, reference);
            println!("{what}, {reference:?}: {count} operators, {:.3} % of elements one step apart", 100.0 * share);
            assert!(count == expected.len() && share < 0.01, "{what}");
        }
    }
}

const EIGHT: [&str; 4] = ["ConvTranspose2d", "ConvTranspose2d", "Conv2d", "Conv2d"];
const FOUR: [&str; 4] = ["ConvTranspose2dI4", "ConvTranspose2dI4", "Conv2dI4", "Conv2dI4"];

fn sqnr(artifacts: &Artifacts) -> f64 {
    artifacts.report.calibration.of("plan").unwrap().sqnr_db.unwrap()
}

#[test]
fn eight_bits() {
    let artifacts = quantize("W8A8");
    agrees("W8A8", &artifacts.onnx, &artifacts.plan, &EIGHT);
    assert!(sqnr(&artifacts) > 30.0, "{}", sqnr(&artifacts));
    let notes = &artifacts.report.notes;
    for part in ["scale(s) serves an output of all 2 groups", "rounded to nearest"] {
        assert!(notes.iter().any(|note| note.contains("`groups`") && note.contains(part)), "{notes:?}");
    }
    // ONNX Runtime computes these in float, the convolutions (one of which was transposed) in integers.
    let islands: Vec<&str> = artifacts.report.float_islands.iter().map(|island| island.node.as_str()).collect();
    assert_eq!(islands, ["up", "groups"]);
}

#[test]
fn four_bits() {
    let artifacts = quantize("W4A8");
    agrees("W4A8", &artifacts.onnx, &artifacts.plan, &FOUR);
    assert!(sqnr(&artifacts) > 12.0, "{}", sqnr(&artifacts));
    let eight = quantize("W8A8");
    assert!(artifacts.plan.len() < eight.plan.len() && sqnr(&artifacts) < sqnr(&eight));
}

#[test]
fn tuning_goes_through_transposed_convolutions() {
    let folder = tempfile::tempdir().unwrap();
    // From nearest rounding, which leaves much to gain.
    let mut plain = request(folder.path(), "W4A8");
    plain.config.rounding.method = Method::Nearest;
    let options = tune::Options { steps: 60, batch: 16, every: 20, ..tune::Options::default() };
    let tuned = Request { tune: Some(options), ..plain.clone() };
    let [plain, tuned] = [plain, tuned].map(|request| pipeline::quantize(&request, &Silent).unwrap());
    agrees("tuned", &tuned.onnx, &tuned.plan, &FOUR);
    assert!(sqnr(&tuned) > sqnr(&plain), "{} {}", sqnr(&plain), sqnr(&tuned));
    assert!(tuned.report.notes.iter().any(|note| note.starts_with("tuning")), "{:?}", tuned.report.notes);
}

#[test]
fn an_analysis_keeps_and_exports_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let analysis = pipeline::analyze(&request(folder.path(), "W8A8"), &Silent).unwrap();
    let bytes = elastic::to_bytes(&analysis).unwrap();
    let analysis = elastic::from_bytes(&bytes, "decoder.eqcal").unwrap();
    for (bits, per_channel, kinds) in [("W8A8", true, EIGHT), ("W4A8", true, FOUR), ("W8A8", false, EIGHT)] {
        let bits = bits.parse().unwrap();
        let format = Format { bits, layers: BTreeMap::new(), per_channel, activations: ActivationType::Unsigned };
        let (file, compiled) = pipeline::export(&analysis, &format, "decoder", false).unwrap();
        agrees("analysis", &file, &compiled.image, &kinds);
    }
}

#[test]
fn float_execution_is_that_of_the_prepared_graph() {
    let mut graph = decoder();
    let mut prepared = graph.clone();
    // The executor does not know this padding of a kernel that is not larger than the stride.
    let groups = graph.nodes.iter_mut().find(|node| node.name == "groups").unwrap();
    groups.attrs.remove("auto_pad");
    groups.attrs.insert("pads".into(), Attr::Ints(vec![0, 1, 0, 1]));
    equant::passes::prepare(&mut prepared, &Dims::new()).unwrap();
    let ops: Vec<&str> = prepared.nodes.iter().map(|node| node.op_type.as_str()).collect();
    assert_eq!(ops, ["ConvTranspose", "Relu", "ConvTranspose", "Relu", "Conv", "Relu", "Conv"]);
    let batch = Batch { first: 0, count: 2, inputs: vec![samples()[..2 * ELEMENTS].to_vec()] };
    let run = |graph: &Graph| exec::runner(graph, &["y".to_owned()], Backend::Tract).unwrap().run(&batch).unwrap();
    let (before, after) = (run(&graph).remove(0), run(&prepared).remove(0));
    assert_eq!(before.len(), 2 * 3 * 20 * 16);
    assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-4));
}

/// Every form of padding, as ONNX Runtime has it.
#[test]
fn padding_is_that_of_onnx_runtime() {
    let ints = |values: &[i64]| Attr::Ints(values.to_vec());
    let (upper, lower) = (Attr::String("SAME_UPPER".into()), Attr::String("SAME_LOWER".into()));
    for attrs in [
        vec![("auto_pad", upper.clone())],
        vec![("auto_pad", lower.clone())],
        vec![("auto_pad", lower), ("output_padding", ints(&[1, 0]))],
        vec![("output_shape", ints(&[10, 9]))],
        vec![("output_shape", ints(&[9, 8])), ("auto_pad", upper)],
        vec![("pads", ints(&[1, 0, 0, 2])), ("output_padding", ints(&[1, 1]))],
        vec![("dilations", ints(&[2, 3])), ("pads", ints(&[0, 3, 2, 1])), ("group", Attr::Int(2))],
    ] {
        let mut graph = decoder();
        graph.nodes.truncate(1);
        graph.nodes[0].attrs = [("strides".to_owned(), ints(&[2, 2]))].into();
        graph.nodes[0].attrs.extend(attrs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        if graph.nodes[0].int("group", 1) == 2 {
            graph.initializers.insert("w0".into(), Tensor::from_f32(&[6, 4, 3, 3], &wave(216, 0.0, 0.5)));
        }
        graph.outputs = vec![ValueInfo { name: "a".into(), dtype: DataType::F32, shape: None }];
        let mut prepared = graph.clone();
        equant::passes::prepare(&mut prepared, &Dims::new()).unwrap();
        if !Reference::Ort.available(&graph) {
            return;
        }
        let batch = Batch { first: 0, count: 2, inputs: vec![samples()[..2 * ELEMENTS].to_vec()] };
        let run =
            |graph: &Graph, backend| exec::runner(graph, &["a".to_owned()], backend).unwrap().run(&batch).unwrap();
        let expected = run(&graph, Backend::Ort).remove(0);
        let actual = run(&prepared, Backend::Tract).remove(0);
        assert_eq!(expected.len(), actual.len(), "{attrs:?}");
        assert!(expected.iter().zip(&actual).all(|(a, b)| (a - b).abs() < 1e-5), "{attrs:?}");
    }
}
