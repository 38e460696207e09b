//! What the tests share: random models, sample files, and the forms a model takes.

use std::io::Write as _;
use std::path::Path;

use crate::data::{Batch, Samples};
use crate::exec::{self, Backend, PlanRunner};
use crate::graph::{DataType, Dim, Graph, Tensor, ValueInfo};
use crate::pipeline::{self, Artifacts, Request, Silent};
use crate::{onnx, qdq};
use equant_runtime::plan::AlignedBytes;
use npyz::WriterBuilder as _;
use tempfile::TempDir;

/// xorshift64.
pub(super) struct Random(pub(crate) u64);

impl Random {
    /// In [0, 1).
    pub(super) fn unit(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u32 << 24) as f32
    }

    pub(super) fn values(&mut self, count: usize, bound: f32) -> Vec<f32> {
        (0..count).map(|_| (2.0 * self.unit() - 1.0) * bound).collect()
    }

    pub(super) fn tensor(&mut self, shape: &[usize], bound: f32) -> Tensor {
        let values = self.values(shape.iter().product(), bound);
        Tensor::from_f32(shape, &values)
    }
}

/// A graph input or output `[N, dims...]`.
pub(super) fn value(name: &str, dtype: DataType, dims: &[usize]) -> ValueInfo {
    let dims = std::iter::once(Dim::Symbol("N".into())).chain(dims.iter().map(|&dim| Dim::Known(dim)));
    ValueInfo { name: name.into(), dtype, shape: Some(dims.collect()) }
}

/// An array of samples.
pub(super) enum Array {
    Floats(Vec<f32>),
    Ints(Vec<i64>),
}

/// The bytes of an array.
fn npy<T: npyz::AutoSerialize + Copy>(shape: &[usize], values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let shape: Vec<u64> = shape.iter().map(|&dim| dim as u64).collect();
    let mut writer =
        npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes).begin_nd().expect("a header");
    writer.extend(values.iter().copied()).expect("elements");
    writer.finish().expect("an array");
    bytes
}

/// Writes an `.npz`; shapes count the samples first.
pub(super) fn npz(path: &Path, arrays: &[(&str, &[usize], Array)]) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).expect("a file"));
    for (name, shape, array) in arrays {
        archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).expect("an entry");
        let bytes = match array {
            Array::Floats(values) => npy(shape, values),
            Array::Ints(values) => npy(shape, values),
        };
        archive.write_all(&bytes).expect("an array");
    }
    archive.finish().expect("an archive");
}

/// A model with its samples, and what it was quantized to.
pub(super) struct Quantized {
    pub(super) folder: TempDir,
    pub(super) artifacts: Artifacts,
    /// The QDQ file, prepared for compilation.
    pub(super) qdq: Graph,
    pub(super) plan: AlignedBytes,
}

/// Quantizes a model; samples are calibration and test data.
pub(super) fn quantize(model: &Graph, arrays: &[(&str, &[usize], Array)], edit: impl Fn(&mut Request)) -> Quantized {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, samples) = (folder.path().join("model.onnx"), folder.path().join("x.npz"));
    onnx::write(model, &path).expect("the model");
    npz(&samples, arrays);
    let mut request = Request::new(&path, &samples);
    edit(&mut request);
    let artifacts = pipeline::quantize(&request, &Silent).unwrap_or_else(|error| panic!("{error}"));
    let graph = onnx::from_bytes(&artifacts.onnx, None, "model.int8.onnx").expect("the file");
    let (qdq, compiled) = pipeline::compile_graph(graph, "model.int8.onnx", &Default::default()).expect("a plan");
    assert_eq!(compiled.image, artifacts.plan, "the file alone gives the plan");
    let plan = AlignedBytes::from(&artifacts.plan[..]);
    Quantized { folder, artifacts, qdq, plan }
}

/// Largest difference of two outputs, and root of their mean squared difference, each relative to the largest element of
/// the second.
pub(super) fn difference(a: &[f32], b: &[f32]) -> (f32, f32) {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
    let worst = a.iter().zip(b).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
    let squares: f32 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    (worst / largest, (squares / a.len() as f32).sqrt() / largest)
}

impl Quantized {
    pub(super) fn batch(&self) -> Batch {
        let samples = Samples::open(&self.folder.path().join("x.npz"), &self.qdq).expect("samples");
        samples.batches(samples.len()).expect("a thread").next().expect("a batch").expect("samples that can be read")
    }

    /// Outputs of the float model, the simulation and the plan, on all samples.
    pub(super) fn outputs(&self) -> [Vec<Vec<f32>>; 3] {
        let batch = self.batch();
        let prepared = pipeline::read_float(&self.folder.path().join("model.onnx"), &Default::default());
        let graph = prepared.expect("the float model").graph;
        let run = |graph: &Graph| {
            let runner = exec::runner(graph, &pipeline::output_names(graph), Backend::Tract).expect("a runner");
            runner.run(&batch).expect("outputs")
        };
        let plan = exec::Runner::run(&PlanRunner::new(&self.plan).expect("a plan"), &batch).expect("outputs");
        [run(&graph), run(&qdq::simulate(&self.qdq)), plan]
    }

    /// Outputs of the file in ONNX Runtime, where that is installed; of a model that carries state over its sequences.
    pub(super) fn ort(&self) -> Option<Vec<Vec<f32>>> {
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.equant/onnxruntime/libonnxruntime.so");
        if !library.exists() {
            return None;
        }
        exec::use_onnx_runtime(Some(&library)).expect("ONNX Runtime loads");
        let graph = onnx::from_bytes(&self.artifacts.onnx, None, "model.int8.onnx").expect("the file");
        let names = pipeline::output_names(&graph);
        let runner = pipeline::whole_runner(&graph, &names, Backend::Ort).expect("the file is accepted");
        Some(runner.run(&self.batch()).expect("outputs"))
    }
}
