//! What the command-level tests share: the binary, small models, sample files.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use equant::graph::{Attr, DataType, Dim, Graph, Node, Tensor, ValueInfo};
use equant::onnx;
use serde_json::Value;

/// The built command, run in `folder`.
pub(crate) fn equant(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_equant")).args(args).current_dir(folder).output().expect("the command starts")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("stdout is UTF-8")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("stderr is UTF-8")
}

/// Runs the command, which must succeed, and gives what it printed.
#[track_caller]
pub(crate) fn succeed(folder: &Path, args: &[&str]) -> String {
    let output = equant(folder, args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stdout(&output)
}

/// As [`succeed`], with `--json`.
#[track_caller]
pub(crate) fn json(folder: &Path, args: &[&str]) -> Value {
    let text = succeed(folder, &[args, &["--json"]].concat());
    serde_json::from_str(&text).expect("stdout is JSON")
}

/// A figure of one of the models that an evaluation compares.
pub(crate) fn score(evaluation: &Value, subject: &str, field: &str) -> f64 {
    let scores = evaluation["scores"].as_array().expect("scores");
    let found = scores.iter().find(|scores| scores["subject"] == subject).expect("subject");
    found[field].as_f64().unwrap_or_else(|| panic!("{subject} has no {field}: {found}"))
}

/// A file of the workspace.
pub(crate) fn workspace(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path).display().to_string()
}

/// A fresh folder with a small model `model.onnx` and calibration samples `calib.npz`.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("tempdir");
    onnx::write(&model(), &folder.path().join("model.onnx")).expect("model");
    npz(&folder.path().join("calib.npz"), &[("x", &samples(8)), ("y", &labels(8))]);
    folder
}

/// Names of everything in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub(crate) fn input(name: &str, dims: &[usize]) -> ValueInfo {
    let dims = std::iter::once(Dim::Symbol("N".into())).chain(dims.iter().map(|&dim| Dim::Known(dim)));
    ValueInfo { name: name.into(), dtype: DataType::F32, shape: Some(dims.collect()) }
}

/// Numbers that look random and are the same everywhere, in [−1, 1).
pub(crate) fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// `[N, 2, 6, 6]` → Conv 3×3 to 4 channels → Relu → global average → Gemm to 3 classes.
pub(crate) fn model() -> Graph {
    let mut graph = Graph {
        name: "small".into(),
        opset: 17,
        inputs: vec![input("image", &[2, 6, 6])],
        outputs: vec![input("scores", &[3])],
        nodes: vec![
            Node::new("Conv", "conv", ["image", "w", "b"], ["a"]).with("pads", Attr::Ints(vec![1, 1, 1, 1])),
            Node::new("Relu", "relu", ["a"], ["r"]),
            Node::new("GlobalAveragePool", "pool", ["r"], ["p"]),
            Node::new("Flatten", "flat", ["p"], ["f"]),
            Node::new("Gemm", "fc", ["f", "g", "c"], ["scores"]).with("transB", Attr::Int(1)),
        ],
        ..Graph::default()
    };
    graph.initializers.insert("w".into(), Tensor::from_f32(&[4, 2, 3, 3], &numbers(72, 1)));
    graph.initializers.insert("b".into(), Tensor::from_f32(&[4], &numbers(4, 2)));
    graph.initializers.insert("g".into(), Tensor::from_f32(&[3, 4], &numbers(12, 3)));
    graph.initializers.insert("c".into(), Tensor::from_f32(&[3], &numbers(3, 4)));
    graph
}

/// Samples for [`model`] as the bytes of a NumPy array.
pub(crate) fn samples(count: usize) -> Vec<u8> {
    npy("<f4", &[count, 2, 6, 6], numbers(count * 72, 5).iter().flat_map(|x| x.to_le_bytes()).collect())
}

pub(crate) fn labels(count: usize) -> Vec<u8> {
    npy("<i8", &[count], (0..count as i64).flat_map(|i| (i % 3).to_le_bytes()).collect())
}

/// The bytes of a NumPy array (format 1.0).
pub(crate) fn npy(dtype: &str, shape: &[usize], data: Vec<u8>) -> Vec<u8> {
    let dims: String = shape.iter().map(|dim| format!("{dim},")).collect();
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({dims}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&u16::try_from(header.len()).expect("short header").to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&data);
    bytes
}

/// Writes arrays as an `.npz` file.
pub(crate) fn npz(path: &Path, arrays: &[(&str, &[u8])]) -> PathBuf {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).expect("npz"));
    for (name, bytes) in arrays {
        archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).expect("entry");
        archive.write_all(bytes).expect("array");
    }
    archive.finish().expect("npz");
    path.to_owned()
}
