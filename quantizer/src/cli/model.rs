//! A model file of any kind, ready to be looked at or run.

use std::path::Path;

use equant_runtime::op::OpKind;
use equant_runtime::plan::{AlignedBytes, DType, LOGICAL_NCHW, MAGIC, Plan, TensorRecord};

use super::error::Failure;
use crate::exec::{self, Backend, Runner};
use crate::graph::shape::infer_partial;
use crate::graph::state::{self, Pair, STATE};
use crate::graph::{DataType, Dim, Graph, ValueInfo, support};
use crate::passes::{self, Dims};
use crate::{onnx, pipeline};

/// What a file holds.
pub(super) enum Kind {
    /// A float model, prepared.
    Float,
    /// A QDQ model, prepared for compilation.
    Quantized,
    /// A plan: its image.
    Plan(Vec<u8>),
}

/// A model file.
pub(super) struct Model {
    /// The file, as the caller named it.
    pub(super) file: String,
    /// What it holds.
    pub(super) kind: Kind,
    /// The graph; for a plan only inputs and outputs.
    pub(super) graph: Graph,
}

impl Model {
    /// Reads a file.
    pub(super) fn open(path: &Path, dims: &Dims) -> Result<Self, Failure> {
        let file = path.display().to_string();
        let bytes =
            std::fs::read(path).map_err(|e| onnx::Error { file: file.clone(), kind: onnx::ErrorKind::Read(e) })?;
        if bytes.starts_with(&MAGIC) || path.extension().is_some_and(|extension| extension == "plan") {
            if let Some(name) = dims.keys().next() {
                return Err(Failure::Usage(format!("--dim {name}: {file} is a plan, whose dimensions are fixed")));
            }
            let graph = signature(&bytes).map_err(|source| pipeline::Error::Plan { file: file.clone(), source })?;
            return Ok(Self { file, kind: Kind::Plan(bytes), graph });
        }
        let mut graph = onnx::from_bytes(&bytes, path.parent(), &file)?;
        let prepare = |source| pipeline::Error::Prepare { file: file.clone(), source: Box::new(source) };
        let kind = if support::is_quantized(&graph) {
            if let Some(name) = dims.keys().next() {
                return Err(Failure::Usage(format!("--dim {name}: only for float models")));
            }
            passes::prepare_quantized(&mut graph).map_err(prepare)?;
            Kind::Quantized
        } else {
            passes::prepare(&mut graph, dims).map_err(prepare)?;
            Kind::Float
        };
        Ok(Self { file, kind, graph })
    }

    /// As [`Self::open`], a float model with state that it carries from run to run; the others tell theirs themselves.
    pub(super) fn streaming(path: &Path, dims: &Dims, states: &[Pair]) -> Result<Self, Failure> {
        let mut model = Self::open(path, dims)?;
        let file = &model.file;
        match model.kind {
            Kind::Float => pipeline::declare(&mut model.graph, states, file)?,
            Kind::Quantized => {
                let told = model.states()?;
                if let Some(Pair { output, input }) = states.iter().find(|pair| !told.contains(pair)) {
                    return Err(Failure::Usage(format!(
                        "--state {output}={input}: {file} tells its states itself, and this is none of them; leave it \
                         out, or quantize the float model with it"
                    )));
                }
            }
            Kind::Plan(_) if !states.is_empty() && !state::is_streaming(&model.graph) => {
                return Err(Failure::Usage(format!(
                    "--state: {file} is a plan that carries no state; quantize the float model with --state"
                )));
            }
            Kind::Plan(_) => {}
        }
        Ok(model)
    }

    /// The states that the file tells; none of a plan, which does not know their names.
    pub(super) fn states(&self) -> Result<Vec<Pair>, Failure> {
        state::pairs(&self.graph).map_err(|reason| Failure::Input(format!("{}: {reason}", self.file)))
    }

    /// A runner for the model's outputs.
    pub(super) fn runner(&self, backend: Backend) -> Result<Box<dyn Runner>, Failure> {
        self.runner_of(&pipeline::output_names(&self.graph), backend)
    }

    /// A runner for values of the model; a plan gives its outputs, whatever is asked for.
    pub(super) fn runner_of(&self, values: &[String], backend: Backend) -> Result<Box<dyn Runner>, Failure> {
        let runner = match &self.kind {
            Kind::Float => pipeline::float_runner(&self.graph, values, backend),
            Kind::Quantized => pipeline::whole_runner(&self.graph, values, backend),
            Kind::Plan(image) => exec::plan_runner(image),
        };
        runner.map_err(|source| pipeline::Error::run(&self.file, source).into())
    }

    /// The plan: the file's, or that of a QDQ model.
    pub(super) fn plan(&self) -> Result<Option<Vec<u8>>, Failure> {
        match &self.kind {
            Kind::Float => Ok(None),
            Kind::Quantized => {
                let compiled = crate::compile::compile(&self.graph, &crate::compile::Options::default())
                    .map_err(|source| pipeline::Error::Compile { file: self.file.clone(), source: Box::new(source) })?;
                Ok(Some(compiled.image))
            }
            Kind::Plan(image) => Ok(Some(image.clone())),
        }
    }

    /// What it is, for people.
    pub(super) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Float => "float",
            Kind::Quantized => "QDQ",
            Kind::Plan(_) => "plan",
        }
    }

    /// Shapes of one sample of the inputs and of the outputs.
    pub(super) fn shapes(&self) -> (Vec<Vec<usize>>, Vec<Vec<usize>>) {
        let types = infer_partial(&self.graph, 1).types;
        let shapes =
            |values: &[ValueInfo]| values.iter().map(|value| pipeline::sample_shape(&types, value)).collect::<Vec<_>>();
        // Malformed metadata are told of where states are needed.
        let given = state::given(&self.graph).unwrap_or_default();
        let inputs: Vec<ValueInfo> = given.into_iter().filter_map(|i| self.graph.inputs.get(i).cloned()).collect();
        let inputs = shapes(&inputs);
        match self.kind {
            // Nothing makes the outputs of a plan's graph, so no shape is inferred for them.
            Kind::Plan(_) => {
                let declared = |value: &ValueInfo| {
                    let dims = value.shape.as_deref().unwrap_or_default().iter().skip(1);
                    dims.filter_map(|dim| if let Dim::Known(size) = dim { Some(*size) } else { None }).collect()
                };
                (inputs, self.graph.outputs.iter().map(declared).collect())
            }
            _ => (inputs, shapes(&self.graph.outputs)),
        }
    }
}

/// A graph with a plan's inputs and outputs in the model's own axis order, and no nodes.
fn signature(image: &[u8]) -> Result<Graph, equant_runtime::Error> {
    let image = AlignedBytes::from(image);
    let plan = Plan::<equant_runtime::operator::AllOperators>::parse(&image)?;
    let value = |name: String, record: TensorRecord| {
        let mut shape: Vec<usize> = record.shape().iter().map(|&size| size as usize).collect();
        if record.flags & LOGICAL_NCHW != 0
            && let Some(axes) = shape.get_mut(1..)
        {
            axes.rotate_right(1);
        }
        // Only indices come in 32 bits.
        let dtype = if record.dtype == DType::I32 { DataType::I32 } else { DataType::F32 };
        ValueInfo { name, dtype, shape: Some(shape.into_iter().map(Dim::Known).collect()) }
    };
    let inputs = (0..plan.input_count()).filter_map(|i| Some(value(format!("input_{i}"), plan.model_input(i)?)));
    let outputs = (0..plan.output_count()).filter_map(|i| Some(value(format!("output_{i}"), plan.model_output(i)?)));
    let mut graph = Graph { inputs: inputs.collect(), outputs: outputs.collect(), ..Graph::default() };
    if plan.ops().any(|op| op.kind == OpKind::State) {
        // What it carries are none of its inputs; that it does carry something is what samples go by.
        graph.metadata.insert(STATE.to_owned(), "[]".to_owned());
    }
    Ok(graph)
}
