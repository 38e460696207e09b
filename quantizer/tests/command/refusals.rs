//! Bad input: the right exit code, a message that names file, reason and remedy, and nothing written.

use std::path::Path;

use crate::common::{equant, folder, input, labels, model, names, npy, npz, numbers, samples, stderr, stdout};
use equant::graph::{DataType, Node, Tensor};
use equant::onnx;

/// Runs `quantize` in a folder that already holds everything, and expects a refusal.
#[track_caller]
fn refused(folder: &Path, args: &[&str], code: i32, parts: &[&str]) {
    let before = names(folder);
    let output = equant(folder, args);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(stdout(&output), "");
    assert!(message.starts_with("error: "), "{message}");
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert_eq!(names(folder), before, "something was written");
}

const QUANTIZE: [&str; 4] = ["quantize", "model.onnx", "--calib", "calib.npz"];

#[test]
fn a_file_that_is_no_model() {
    let folder = folder();
    std::fs::write(folder.path().join("model.onnx"), "this is no model").expect("file");
    refused(folder.path(), &QUANTIZE, 3, &["model.onnx", "is not an ONNX model", "exporter"]);
    std::fs::write(folder.path().join("model.onnx"), "").expect("file");
    refused(folder.path(), &QUANTIZE, 3, &["model.onnx", "the file is empty"]);
}

#[test]
fn a_file_that_is_cut() {
    let folder = folder();
    let bytes = onnx::to_bytes(&model());
    std::fs::write(folder.path().join("model.onnx"), &bytes[..bytes.len() / 2]).expect("file");
    refused(folder.path(), &QUANTIZE, 3, &["model.onnx", "is truncated", "again"]);
}

#[test]
fn a_model_that_is_not_there() {
    let folder = folder();
    refused(folder.path(), &["quantize", "none.onnx", "--calib", "calib.npz"], 3, &["none.onnx", "cannot be read"]);
}

#[test]
fn an_operator_set_that_is_too_old() {
    let folder = folder();
    let mut graph = model();
    graph.opset = 9;
    onnx::write(&graph, &folder.path().join("model.onnx")).expect("model");
    refused(folder.path(), &QUANTIZE, 4, &["model.onnx", "opset 9", "export again with opset 17"]);
}

#[test]
fn every_unsupported_operator_is_listed() {
    let folder = folder();
    let mut graph = model();
    graph.nodes[1] = Node::new("Einsum", "ein", ["a"], ["r"]);
    graph.nodes.insert(2, Node::new("LSTM", "lstm", ["r", "w"], ["unused_by_others"]));
    graph.outputs.push(input("unused_by_others", &[2]));
    onnx::write(&graph, &folder.path().join("model.onnx")).expect("model");
    refused(
        folder.path(),
        &QUANTIZE,
        4,
        &["model.onnx", "2 node(s) cannot be quantized", "ein (Einsum)", "lstm (LSTM)"],
    );
}

#[test]
fn a_model_that_is_quantized_already() {
    let folder = folder();
    let mut graph = model();
    graph.initializers.insert("s".into(), Tensor::from_f32(&[], &[0.1]));
    graph.initializers.insert("z".into(), Tensor::from_ints(DataType::I8, &[], &[0]));
    graph.nodes.insert(0, Node::new("QuantizeLinear", "q", ["image", "s", "z"], ["iq"]));
    graph.nodes.insert(1, Node::new("DequantizeLinear", "d", ["iq", "s", "z"], ["id"]));
    graph.nodes[2].inputs[0] = "id".into();
    onnx::write(&graph, &folder.path().join("model.onnx")).expect("model");
    refused(folder.path(), &QUANTIZE, 3, &["model.onnx", "quantized already", "equant compile"]);
}

#[test]
fn samples_that_are_not_there() {
    let folder = folder();
    refused(folder.path(), &["quantize", "model.onnx", "--calib", "none.npz"], 3, &["none.npz", "cannot be read"]);
    let args = ["quantize", "model.onnx", "--calib", "calib.npz", "--test", "none.npz"];
    refused(folder.path(), &args, 3, &["none.npz", "cannot be read"]);
}

#[test]
fn samples_that_do_not_fit() {
    let folder = folder();
    let calib = folder.path().join("calib.npz");
    let floats = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let mut with_nan = numbers(2 * 72, 5);
    with_nan[100] = f32::NAN;
    type Arrays<'a> = &'a [(&'a str, &'a [u8])];
    let cases: [(Arrays<'_>, &[&str]); 6] = [
        (&[("images", &samples(2))], &["no array `x`", "images"]),
        (&[("x", &npy("<f4", &[2, 2, 6, 5], vec![0; 480]))], &["[2, 2, 6, 5]", "[N, 2, 6, 6]"]),
        (&[("x", &npy("|u1", &[2, 2, 6, 6], vec![0; 144]))], &["u1", "float32"]),
        (&[("x", &npy("<f4", &[2, 2, 6, 6], floats(&with_nan)))], &["NaN", "sample 1"]),
        (&[("x", &npy("<f4", &[0, 2, 6, 6], Vec::new()))], &["no samples"]),
        (&[("x", &samples(4)), ("y", &labels(3))], &["array `y`"]),
    ];
    for (arrays, parts) in cases {
        npz(&calib, arrays);
        let all: Vec<&str> = ["calib.npz"].iter().chain(parts).copied().collect();
        refused(folder.path(), &QUANTIZE, 3, &all);
    }
    std::fs::write(&calib, b"no archive").expect("file");
    refused(folder.path(), &QUANTIZE, 3, &["calib.npz", ".npz"]);
}

#[test]
fn a_dimension_the_model_does_not_have() {
    let folder = folder();
    let args = ["quantize", "model.onnx", "--calib", "calib.npz", "--dim", "time=3"];
    refused(folder.path(), &args, 2, &["no symbolic dimension `time`", "N"]);
}

#[test]
fn a_metric_that_does_not_fit() {
    let folder = folder();
    let quantize =
        |metric| ["quantize", "model.onnx", "--calib", "calib.npz", "--test", "test.npz", "--metric", metric];
    npz(&folder.path().join("test.npz"), &[("x", &samples(4))]);
    refused(folder.path(), &quantize("top1"), 2, &["test.npz", "needs labels", "--metric"]);
    refused(folder.path(), &quantize("auc"), 2, &["test.npz", "needs labels"]);
}

#[test]
fn bits_that_the_target_would_run_in_float() {
    let folder = folder();
    let quantize = ["quantize", "model.onnx", "--calib", "calib.npz", "--target", "tensorrt", "--bits", "W4A8"];
    refused(folder.path(), &quantize, 2, &["model.onnx", "`conv`", "`fc`", "tensorrt", "use 8-bit weights there"]);
    let quantize = ["quantize", "model.onnx", "--calib", "calib.npz", "--target", "ort-cpu", "--bits", "W8A4"];
    refused(folder.path(), &quantize, 2, &["`conv`", "ort-cpu", "8-bit activations"]);
    let quantize = ["quantize", "model.onnx", "--calib", "calib.npz", "--target", "toaster"];
    refused(folder.path(), &quantize, 2, &["toaster", "cortex-m"]);
    refused(folder.path(), &["compile", "model.onnx", "--core", "m5"], 2, &["`m5`", "m55", "rv32imac"]);
}

#[test]
fn budgets_that_cannot_be_met() {
    let folder = folder();
    let quantize = |budget| ["quantize", "model.onnx", "--calib", "calib.npz", "--budget", budget];
    // 84 weights at 4 bits each.
    refused(folder.path(), &quantize("flash=41"), 2, &["model.onnx", "41 B", "42"]);
    refused(folder.path(), &quantize("instructions=10"), 2, &["model.onnx", "10 instructions", "least possible"]);
    refused(folder.path(), &quantize("sqnr=200"), 2, &["model.onnx", "200 dB", "8 bits everywhere"]);
    refused(folder.path(), &quantize("flash=much"), 2, &["flash=100KiB"]);
}

#[test]
fn numbers_that_are_not_finite() {
    let folder = folder();
    let mut values = numbers(2 * 72, 5);
    values[100] = f32::INFINITY;
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    npz(&folder.path().join("calib.npz"), &[("x", &npy("<f4", &[2, 2, 6, 6], bytes))]);
    refused(folder.path(), &QUANTIZE, 3, &["calib.npz", "inf", "sample 1", "not a finite"]);
    npz(&folder.path().join("calib.npz"), &[("x", &samples(8))]);
    let mut graph = model();
    let mut weights = numbers(72, 1);
    weights[3] = f32::NEG_INFINITY;
    graph.initializers.insert("w".into(), Tensor::from_f32(&[4, 2, 3, 3], &weights));
    onnx::write(&graph, &folder.path().join("model.onnx")).expect("model");
    refused(folder.path(), &QUANTIZE, 3, &["model.onnx", "`conv`", "not finite"]);
}

#[test]
fn a_folder_that_cannot_be_written() {
    let folder = folder();
    std::fs::write(folder.path().join("taken"), "a file").expect("file");
    let args = ["quantize", "model.onnx", "--calib", "calib.npz", "-o", "taken/out"];
    refused(folder.path(), &args, 5, &["taken/out", "cannot be written", "choose a folder"]);
}

#[test]
fn a_plan_that_is_damaged() {
    let folder = folder();
    std::fs::write(folder.path().join("bad.plan"), b"EQPL and then nothing sensible, but long enough for a header....")
        .expect("file");
    refused(folder.path(), &["inspect", "bad.plan"], 3, &["bad.plan", "plan"]);
    std::fs::write(folder.path().join("none.plan"), b"something else").expect("file");
    refused(folder.path(), &["inspect", "none.plan"], 3, &["none.plan", "truncated"]);
}

#[test]
fn compile_wants_a_quantized_model() {
    let folder = folder();
    refused(folder.path(), &["compile", "model.onnx"], 3, &["model.onnx", "is a float model", "equant quantize"]);
}

#[test]
fn eval_needs_something_to_judge_by() {
    let folder = folder();
    npz(&folder.path().join("test.npz"), &[("x", &samples(4))]);
    refused(folder.path(), &["eval", "model.onnx", "--test", "test.npz"], 2, &["no labels", "--reference"]);
}

#[test]
fn a_float_model_has_no_profile() {
    let folder = folder();
    let args = ["run", "model.onnx", "--input", "calib.npz", "--profile"];
    refused(folder.path(), &args, 2, &["--profile", "float model"]);
}

#[test]
fn a_package_that_is_damaged() {
    let folder = folder();
    let output = equant(folder.path(), &["package", "model.onnx", "-o", "sent.eqz"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let mut package = std::fs::read(folder.path().join("sent.eqz")).expect("package");
    let middle = package.len() / 2;
    package[middle] ^= 1;
    std::fs::write(folder.path().join("damaged.eqz"), &package).expect("file");
    std::fs::write(folder.path().join("cut.eqz"), &package[..middle]).expect("file");
    refused(folder.path(), &["unpack", "damaged.eqz"], 3, &["damaged.eqz", "is damaged"]);
    refused(folder.path(), &["unpack", "cut.eqz"], 3, &["cut.eqz", "is damaged"]);
    refused(folder.path(), &["unpack", "calib.npz", "-o", "x"], 3, &["calib.npz", "is no package"]);
    refused(folder.path(), &["unpack", "none.eqz"], 3, &["none.eqz", "cannot be read"]);
    refused(folder.path(), &["unpack", "model.onnx"], 2, &["model.onnx", "-o"]);
}
