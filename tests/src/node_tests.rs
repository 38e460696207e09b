//! The tests of single operators that the PyPI package `onnx` ships: a model, its inputs, and what it must give.

use std::path::{Path, PathBuf};

use equant::data::Batch;
use equant::graph::{DataType, Dim, Graph, Tensor};
use equant::onnx;

use crate::models::root;

/// One test.
#[derive(Debug, Clone)]
pub struct NodeTest {
    /// Its folder's name.
    pub name: String,
    /// The model, every input of the shape that the test gives.
    pub graph: Graph,
    /// A tensor for each graph input.
    pub inputs: Vec<Tensor>,
    /// A tensor for each graph output.
    pub outputs: Vec<Tensor>,
}

/// Where `tests/run` puts them; `None` where they are not.
pub fn folder() -> Option<PathBuf> {
    let folder = root().join(".equant/onnx-node-tests");
    folder.is_dir().then_some(folder)
}

/// The folders of the tests, by name.
///
/// # Panics
///
/// If the folder cannot be read.
pub fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a readable folder");
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    found.retain(|path| path.join("model.onnx").is_file());
    found.sort();
    found
}

impl NodeTest {
    /// Reads a test.
    ///
    /// # Errors
    ///
    /// What the importer does not read, in words: the model, or a tensor.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut graph = onnx::read(&folder.join("model.onnx")).map_err(|error| error.kind.to_string())?;
        let data = folder.join("test_data_set_0");
        let tensors = |what: &str, count: usize| -> Result<Vec<Tensor>, String> {
            let read = |i: usize| {
                let file = data.join(format!("{what}_{i}.pb"));
                let bytes = std::fs::read(&file).map_err(|error| error.to_string())?;
                onnx::tensor_from_bytes(&bytes, what).map_err(|error| error.kind.to_string())
            };
            (0..count).map(read).collect()
        };
        let inputs = tensors("input", graph.inputs.len())?;
        let outputs = tensors("output", graph.outputs.len())?;
        for (input, tensor) in graph.inputs.iter_mut().zip(&inputs) {
            input.shape = Some(tensor.shape.iter().map(|&size| Dim::Known(size)).collect());
        }
        Ok(Self { name, graph, inputs, outputs })
    }

    /// Whether a tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.inputs.iter().chain(&self.outputs).any(Tensor::is_empty)
    }

    /// The same with every input but the first float one as a constant: what models have as parameters. `None` where
    /// that is the same test.
    #[must_use]
    pub fn with_parameters(&self) -> Option<Self> {
        let data = self.graph.inputs.iter().position(|input| input.dtype.is_float())?;
        if self.graph.inputs.len() < 2 {
            return None;
        }
        let mut test = self.clone();
        let inputs = std::mem::take(&mut test.graph.inputs).into_iter().zip(std::mem::take(&mut test.inputs));
        for (i, (input, tensor)) in inputs.enumerate() {
            if i == data {
                test.graph.inputs.push(input);
                test.inputs.push(tensor);
            } else {
                test.graph.initializers.insert(input.name, tensor);
            }
        }
        Some(test)
    }

    /// Whether every input is float32.
    pub fn is_f32(&self) -> bool {
        self.inputs.iter().all(|input| input.dtype == DataType::F32)
    }

    /// The inputs as one sample.
    pub fn batch(&self) -> Batch {
        Batch { first: 0, count: 1, inputs: self.inputs.iter().map(Tensor::to_f32).collect() }
    }

    /// The names of the outputs.
    pub fn output_names(&self) -> Vec<String> {
        self.graph.outputs.iter().map(|output| output.name.clone()).collect()
    }
}
