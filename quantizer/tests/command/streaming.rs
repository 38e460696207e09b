//! Models that carry state from run to run: `--state` of the commands, over sequences.

use std::path::Path;

use equant::graph::{Attr, Graph, Node, Tensor};
use equant::metrics::argmax;
use equant::onnx;
use serde_json::Value;

use crate::common::{equant, input, json, npy, npz, numbers, score, stderr, stdout, succeed};

const SEQUENCES: usize = 40;
const STEPS: usize = 7;
const INPUTS: usize = 3;
const HIDDEN: usize = 5;
const CLASSES: usize = 4;
const STATE: [&str; 2] = ["--state", "h_out=h_in"];

/// Weights `[outputs, inputs]` times `x`, plus `bias`.
fn linear(weights: &[f32], x: &[f32], bias: &[f32]) -> Vec<f32> {
    let dot = |row: &[f32]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
    weights.chunks(x.len()).zip(bias).map(|(row, b)| dot(row) + b).collect()
}

/// The weights of [`cell`]: of inputs, states and scores, each with its bias.
fn weights() -> [(&'static str, Vec<usize>, Vec<f32>); 6] {
    [
        ("w", vec![HIDDEN, INPUTS], numbers(HIDDEN * INPUTS, 1)),
        ("b", vec![HIDDEN], numbers(HIDDEN, 2)),
        ("r", vec![HIDDEN, HIDDEN], numbers(HIDDEN * HIDDEN, 3).iter().map(|r| r * 0.6).collect()),
        ("d", vec![HIDDEN], vec![0.0; HIDDEN]),
        ("g", vec![CLASSES, HIDDEN], numbers(CLASSES * HIDDEN, 4)),
        ("c", vec![CLASSES], numbers(CLASSES, 5).iter().map(|c| c * 0.1).collect()),
    ]
}

/// One step: `h_out = tanh(W x + R h_in + b)`, `scores = G h_out + c`.
fn cell() -> Graph {
    let gemm = |name: &str, inputs: [&str; 3], output: &str| {
        Node::new("Gemm", name, inputs, [output]).with("transB", Attr::Int(1))
    };
    let mut graph = Graph {
        name: "cell".into(),
        opset: 17,
        inputs: vec![input("x", &[INPUTS]), input("h_in", &[HIDDEN])],
        outputs: vec![input("scores", &[CLASSES]), input("h_out", &[HIDDEN])],
        nodes: vec![
            gemm("of_x", ["x", "w", "b"], "p"),
            gemm("of_h", ["h_in", "r", "d"], "q"),
            Node::new("Add", "sum", ["p", "q"], ["s"]),
            Node::new("Tanh", "tanh", ["s"], ["h_out"]),
            gemm("fc", ["h_out", "g", "c"], "scores"),
        ],
        ..Graph::default()
    };
    for (name, shape, values) in weights() {
        graph.initializers.insert(name.into(), Tensor::from_f32(&shape, &values));
    }
    graph
}

fn sequences() -> Vec<f32> {
    numbers(SEQUENCES * STEPS * INPUTS, 6)
}

/// What [`cell`] makes of each of the sequences, from zero: scores and states of every step.
fn expected() -> Vec<[Vec<f32>; 2]> {
    let [w, b, r, d, g, c] = weights().map(|(.., values)| values);
    let run = |sequence: &[f32]| {
        let (mut h, mut all) = (vec![0.0; HIDDEN], [Vec::new(), Vec::new()]);
        for x in sequence.chunks(INPUTS) {
            let sums = linear(&w, x, &b).into_iter().zip(linear(&r, &h, &d));
            h = sums.map(|(p, q)| (p + q).tanh()).collect();
            all[0].extend(linear(&g, &h, &c));
            all[1].extend_from_slice(&h);
        }
        all
    };
    sequences().chunks(STEPS * INPUTS).map(run).collect()
}

/// The class of every sequence: that of its last step.
fn classes() -> Vec<usize> {
    let last = |[scores, _]: &[Vec<f32>; 2]| argmax(&scores[scores.len() - CLASSES..]).expect("a class");
    expected().iter().map(last).collect()
}

/// A fresh folder with `cell.onnx`, sequences with labels `test.npz` and without `calib.npz`, and what
/// `quantize` made of them.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("tempdir");
    onnx::write(&cell(), &folder.path().join("cell.onnx")).expect("model");
    let floats = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let x = npy("<f4", &[SEQUENCES, STEPS, INPUTS], floats(&sequences()));
    let y = npy("<i8", &[SEQUENCES], classes().iter().flat_map(|&class| (class as i64).to_le_bytes()).collect());
    npz(&folder.path().join("calib.npz"), &[("x", &x)]);
    npz(&folder.path().join("test.npz"), &[("x", &x), ("y", &y)]);
    succeed(folder.path(), &[&["quantize", "cell.onnx", "--calib", "calib.npz"], &STATE[..]].concat());
    folder
}

const FLOAT: &str = "cell.onnx";
const QDQ: &str = "out/cell/cell.int8.onnx";
const PLAN: &str = "out/cell/cell.plan";

/// The lines of `equant run --json`.
#[track_caller]
fn lines(folder: &Path, args: &[&str]) -> Vec<Value> {
    let text = succeed(folder, &[&["run", "--input", "test.npz", "--json"], args].concat());
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn sequences_run_step_by_step() {
    let folder = folder();
    let (expected, classes) = (expected(), classes());
    let wanted = classes.iter().collect::<std::collections::BTreeSet<_>>();
    assert!(wanted.len() > 1, "samples of one class tell nothing: {classes:?}");
    for (args, most) in [(&[FLOAT, STATE[0], STATE[1]][..], 1e-5), (&[QDQ], 0.1), (&[PLAN], 0.1)] {
        let lines = lines(folder.path(), args);
        assert_eq!(lines.len(), SEQUENCES, "{args:?}");
        assert!(lines.iter().all(|line| line["outputs"].as_array().is_some_and(|all| all.len() == 2)), "{args:?}");
        let mut right = 0;
        for (i, line) in lines.iter().enumerate() {
            for (found, wanted) in line["outputs"].as_array().expect("outputs").iter().zip(&expected[i]) {
                let found: Vec<f64> =
                    found.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect();
                assert_eq!(found.len(), wanted.len(), "{args:?}, sequence {i}");
                let apart = found.iter().zip(wanted).map(|(a, &b)| (a - f64::from(b)).abs()).fold(0.0, f64::max);
                assert!(apart < most, "{args:?}, sequence {i}: {apart}");
            }
            assert_eq!(line["label"], classes[i], "{args:?}");
            right += usize::from(line["class"] == classes[i]);
        }
        assert!(right >= if most < 0.01 { SEQUENCES } else { SEQUENCES - 2 }, "{args:?}: {right} right");
    }
}

#[test]
fn evaluations_take_the_class_of_the_last_step() {
    let folder = folder();
    let eval = |args: &[&str]| json(folder.path(), &[&["eval", "--test", "test.npz"], args].concat());
    let evaluation = eval(&[FLOAT, STATE[0], STATE[1]]);
    assert_eq!((&evaluation["metric"], score(&evaluation, "fp32", "metric")), (&Value::from("top1"), 1.0));
    // A QDQ file tells the states of the float model too; of a plan's float model they must be said.
    let of_file = eval(&[QDQ, "--reference", FLOAT]);
    let of_plan = eval(&[&[PLAN, "--reference", FLOAT], &STATE[..]].concat());
    for (evaluation, subject) in [(&of_file, "simulation"), (&of_plan, "plan")] {
        assert_eq!(evaluation["samples"], SEQUENCES, "{evaluation}");
        assert_eq!(score(evaluation, "fp32", "metric"), 1.0, "{evaluation}");
        assert!(score(evaluation, subject, "metric") >= 0.95, "{evaluation}");
        assert!(score(evaluation, subject, "sqnr_db") > 25.0, "{evaluation}");
    }
    assert_eq!(score(&eval(&[PLAN]), "plan", "metric"), score(&of_plan, "plan", "metric"));
}

#[test]
fn without_labels_every_step_counts() {
    let folder = folder();
    let report = std::fs::read(folder.path().join("out/cell/report.json")).expect("report");
    let report: Value = serde_json::from_slice(&report).expect("valid JSON");
    // What `quantize` said of the same sequences.
    let limit = report["verification"]["samples"].to_string();
    let args = ["eval", QDQ, "--test", "calib.npz", "--reference", FLOAT, "--limit", &limit];
    let evaluation = json(folder.path(), &args);
    assert_eq!(evaluation["metric"], report["calibration"]["metric"]);
    let of = |evaluation| score(evaluation, "simulation", "sqnr_db");
    let (eval, quantize) = (of(&evaluation), of(&report["calibration"]));
    assert!((eval - quantize).abs() < 1e-9, "{eval} dB, {quantize} dB");
}

#[test]
fn profiles_are_of_all_steps() {
    let folder = folder();
    let lines = lines(folder.path(), &[PLAN, "--profile", "--limit", "3"]);
    let [.., times] = &lines[..] else { panic!("no lines") };
    assert_eq!((lines.len(), &times["samples"]), (4, &Value::from(3)));
    let kinds: Vec<&str> =
        times["profile"].as_array().expect("a list").iter().flat_map(|op| op["kind"].as_str()).collect();
    assert!(kinds.contains(&"State"), "{kinds:?}");
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let folder = folder();
    let refusal = |args: &[&str]| {
        let output = equant(folder.path(), args);
        assert_eq!(stdout(&output), "", "{args:?}");
        (output.status.code(), stderr(&output))
    };
    let test = ["--input", "test.npz"];
    let run = |args: &[&str]| refusal(&[&["run"], args, &test].concat());
    for (args, code, message) in [
        (&[FLOAT, "--state", "h=h_in"][..], 2, "cell.onnx: state h=h_in: the model has no output `h`"),
        (&[FLOAT], 3, "say so with `--state OUTPUT=h_in`"),
        (&[QDQ, "--state", "scores=h_in"], 2, "--state scores=h_in: out/cell/cell.int8.onnx tells its states itself"),
    ] {
        let (found, text) = run(args);
        assert!(found == Some(code) && text.contains(message), "{args:?}: {found:?}, {text}");
    }
    let (code, text) = refusal(&["eval", PLAN, "--test", "test.npz", "--reference", FLOAT]);
    assert!(code == Some(3) && text.contains("--state OUTPUT=INPUT"), "{code:?}, {text}");
}
