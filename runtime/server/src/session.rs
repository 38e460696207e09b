//! One model in ONNX Runtime.

use std::path::Path;

use ort::ep::{self, ExecutionProvider};
use ort::session::SessionInputValue;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{TensorRef, Value};

use crate::tensor::extract;
use crate::{Error, Runtime, Tensor, TensorInfo};

/// Who executes the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Provider {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU through CUDA; needs the library of the `onnxruntime-gpu` wheel, CUDA and cuDNN.
    Cuda,
    /// An NVIDIA GPU through TensorRT; nodes it does not take run through CUDA.
    TensorRt,
}

impl Provider {
    /// Its name in ONNX Runtime.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPUExecutionProvider",
            Self::Cuda => ep::CUDA::NAME,
            Self::TensorRt => ep::TensorRT::NAME,
        }
    }
}

/// How a model is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whether ONNX Runtime may rewrite the graph, which is what fuses QuantizeLinear and DequantizeLinear into
    /// integer kernels. Off, every node is computed as ONNX defines it.
    pub optimize: bool,
    /// Threads within a node; 0 leaves the number to ONNX Runtime.
    pub threads: usize,
    /// Who executes the nodes.
    pub provider: Provider,
}

impl Default for Options {
    fn default() -> Self {
        Self { optimize: true, threads: 1, provider: Provider::Cpu }
    }
}

/// A tensor for a model input. Where the model takes int32 or int64, the elements must be such integers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Input<'a> {
    /// Its shape.
    pub shape: &'a [usize],
    /// Its elements, row-major.
    pub values: &'a [f32],
}

/// A model, loaded.
#[derive(Debug)]
pub struct Session {
    name: String,
    session: ort::session::Session,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
}

impl Session {
    /// Loads a file.
    ///
    /// # Errors
    ///
    /// [`Error::Provider`], [`Error::Model`].
    pub fn from_file(runtime: &Runtime, path: &Path, options: &Options) -> Result<Self, Error> {
        let name = path.display().to_string();
        Self::new(runtime, name, options, |builder| builder.commit_from_file(path))
    }

    /// Loads the bytes of a file; `name` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Provider`], [`Error::Model`].
    pub fn from_bytes(runtime: &Runtime, name: &str, bytes: &[u8], options: &Options) -> Result<Self, Error> {
        Self::new(runtime, name.to_owned(), options, |builder| builder.commit_from_memory(bytes))
    }

    fn new(
        runtime: &Runtime,
        name: String,
        options: &Options,
        commit: impl FnOnce(&mut SessionBuilder) -> ort::Result<ort::session::Session>,
    ) -> Result<Self, Error> {
        let level = match options.optimize {
            true => GraphOptimizationLevel::All,
            false => GraphOptimizationLevel::Disable,
        };
        let refused = |reason: String| Error::Model { model: name.clone(), reason };
        let mut builder = ort::session::Session::builder(&runtime.environment)
            .map_err(|error| refused(error.to_string()))?
            .with_optimization_level(level)
            .map_err(|error| refused(error.to_string()))?
            .with_intra_threads(options.threads)
            .map_err(|error| refused(error.to_string()))?;
        match options.provider {
            Provider::Cpu => {}
            Provider::Cuda => register(&ep::CUDA::default(), &mut builder)?,
            Provider::TensorRt => {
                register(&ep::TensorRT::default(), &mut builder)?;
                register(&ep::CUDA::default(), &mut builder)?;
            }
        }
        let session = commit(&mut builder).map_err(|error| refused(error.to_string()))?;
        let inputs = session.inputs().iter().map(TensorInfo::new).collect();
        let outputs = session.outputs().iter().map(TensorInfo::new).collect();
        Ok(Self { name, session, inputs, outputs })
    }

    /// The file, or the name given to the bytes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model's inputs.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    /// The model's outputs.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// Runs the model once; gives its outputs in their order.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] when the inputs are not as many as the model's, or their shapes and lengths differ;
    /// [`Error::Run`], [`Error::Output`].
    pub fn run(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, Error> {
        let misfit = |reason: String| Error::Input { model: self.name.clone(), reason };
        if inputs.len() != self.inputs.len() {
            return Err(misfit(format!("{} input(s) were given, and it has {}", inputs.len(), self.inputs.len())));
        }
        let mut named = Vec::with_capacity(inputs.len());
        for (input, info) in inputs.iter().zip(&self.inputs) {
            if input.shape.iter().product::<usize>() != input.values.len() {
                let found = input.values.len();
                return Err(misfit(format!("input `{}`: {found} elements for shape {:?}", info.name, input.shape)));
            }
            let value =
                value(input, &info.element).map_err(|reason| misfit(format!("input `{}`: {reason}", info.name)))?;
            named.push((info.name.as_str(), value));
        }
        let failed = |error: ort::Error| Error::Run { model: self.name.clone(), reason: error.to_string() };
        let outputs = self.session.run(named).map_err(failed)?;
        let mut tensors = Vec::with_capacity(self.outputs.len());
        for info in &self.outputs {
            let refused = |kind| Error::Output { model: self.name.clone(), output: info.name.clone(), kind };
            let value = outputs.get(&info.name).ok_or_else(|| refused("missing".into()))?;
            tensors.push(extract(value).map_err(refused)?);
        }
        Ok(tensors)
    }
}

/// A tensor of the element type that the model takes.
fn value<'v>(input: &Input<'v>, element: &str) -> Result<SessionInputValue<'v>, String> {
    let whole = || match input.values.iter().find(|value| value.fract() != 0.0 || value.abs() >= 2f32.powi(31)) {
        Some(value) => Err(format!("{value} is no integer of 32 bits")),
        None => Ok(input.values.iter().map(|&value| value as i32)),
    };
    let refused = |error: ort::Error| error.to_string();
    Ok(match element {
        "Int32" => Value::from_array((input.shape, whole()?.collect::<Vec<i32>>())).map_err(refused)?.into(),
        "Int64" => {
            Value::from_array((input.shape, whole()?.map(i64::from).collect::<Vec<i64>>())).map_err(refused)?.into()
        }
        _ => TensorRef::from_array_view((input.shape, input.values)).map_err(refused)?.into(),
    })
}

/// Makes an execution provider take what nodes it can; that it cannot be used at all is an error.
fn register<E: ExecutionProvider>(provider: &E, builder: &mut SessionBuilder) -> Result<(), Error> {
    let missing = |reason: String| Error::Provider { provider: E::NAME, reason };
    if !E::is_available().map_err(|error| missing(error.to_string()))? {
        return Err(missing(
            "this build of ONNX Runtime does not have it; use that of the `onnxruntime-gpu` wheel".into(),
        ));
    }
    provider.register(builder).map_err(|error| missing(error.to_string()))
}
