//! The committed models, quantized once for each test program.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use equant::data::{Batch, Samples};
use equant::graph::Graph;
use equant::graph::shape::infer_partial;
use equant::onnx;
use equant::passes;
use equant::pipeline::{self, Artifacts, Request};
use equant::quantize::Config;

/// The models that every end-to-end test covers.
pub const MODELS: [&str; 5] = ["resnet8", "dscnn", "mbv1", "ae", "vit"];

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository")
}

/// The float model.
pub fn model_path(model: &str) -> PathBuf {
    root().join("models").join(model).join(format!("{model}.onnx"))
}

/// The calibration (`calib512`) or test (`test10k`) samples of a model.
pub fn samples_path(model: &str, part: &str) -> PathBuf {
    let data = if model == "ae" { "ae" } else { "fmnist" };
    root().join("models/data").join(format!("{data}_{part}.npz"))
}

/// Threads for the tests' own loops.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The model quantized with the default configuration, without test samples.
///
/// # Panics
///
/// If quantization fails, or the model is not one of [`MODELS`].
pub fn artifacts(model: &str) -> &'static Artifacts {
    static DONE: [OnceLock<Artifacts>; MODELS.len()] = [const { OnceLock::new() }; MODELS.len()];
    let index = MODELS.iter().position(|known| *known == model).expect("a committed model");
    DONE[index].get_or_init(|| quantize(model, &samples_path(model, "calib512"), Config::default()))
}

/// The model quantized as a user would.
///
/// # Panics
///
/// If quantization fails.
pub fn quantize(model: &str, calibration: &Path, config: Config) -> Artifacts {
    let request = Request { config, threads: threads(), ..Request::new(model_path(model), calibration) };
    pipeline::quantize(&request, &pipeline::Silent).unwrap_or_else(|error| panic!("{model}: {error}"))
}

/// The quantized file of a model, read back and prepared for compilation.
///
/// # Panics
///
/// If the file cannot be read back.
pub fn quantized_graph(bytes: &[u8]) -> Graph {
    let mut graph = onnx::from_bytes(bytes, None, "quantized").unwrap_or_else(|error| panic!("{error}"));
    passes::prepare_quantized(&mut graph).unwrap_or_else(|error| panic!("{error}"));
    graph
}

/// Writes samples for a model as `.npy`: `values` are those of `count` samples of its first input.
///
/// # Panics
///
/// If the file cannot be written.
pub fn write_samples(path: &Path, graph: &Graph, count: usize, values: &[f32]) {
    let types = infer_partial(graph, count).types;
    let shape: Vec<u64> = types[&graph.inputs[0].name].shape.iter().map(|&size| size as u64).collect();
    crate::npy::write(path, &shape, values);
}

/// The first `count` samples of a file, as one batch.
///
/// # Panics
///
/// If the file cannot be read.
pub fn first_samples(path: &Path, graph: &Graph, count: usize) -> Batch {
    let samples = Samples::open(path, graph).unwrap_or_else(|error| panic!("{error}"));
    let mut batches = samples.batches(count).unwrap_or_else(|error| panic!("{error}"));
    batches.next().expect("a sample").unwrap_or_else(|error| panic!("{error}"))
}
