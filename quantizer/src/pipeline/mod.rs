//! From files to files: what `equant quantize` does, as a library function.

mod allocate;
mod analyze;
mod calibrate;
mod describe;
mod equalized;
mod error;
mod evaluate;
mod instructions;
mod layers;
mod make;
mod observed;
mod patches;
mod prefix;
mod preset;
mod progress;
mod ranges;
mod reconstruct;
mod safety;
mod statistics;
mod streaming;
mod trial;
mod verify;

use std::path::{Path, PathBuf};

pub use allocate::Budget;
pub use analyze::{analyze, export, read_analysis};
pub use describe::{dtype_name, macs, parameters, sample_shape, size, stem};
pub use error::Error;
pub use evaluate::{Comparison, Run, evaluate};
pub use preset::Preset;
pub use progress::{Progress, Silent};
pub use statistics::statistics;
pub use streaming::{declare, float_runner, judged, whole_runner};

use crate::compile::Compiled;
use crate::compile::cost::Core;
use crate::data::Samples;
use crate::exec::{self, Backend, Runner};
use crate::graph::shape::infer_partial;
use crate::graph::state::{self, Pair};
use crate::graph::{DataType, Graph, support};
use crate::metrics::Metric;
use crate::passes::{self, Dims, PassReport};
use crate::quantize::{self, Config};
use crate::report::{self, MemoryReport, Report};
use crate::target::Target;
use crate::{files, onnx, qdq};
use progress::Clock;

/// Calibration samples on which the results are compared with each other.
pub const CHECKED: usize = 64;

/// What to quantize, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// The float model.
    pub model: PathBuf,
    /// Calibration samples.
    pub calibration: PathBuf,
    /// Test samples, never seen by calibration.
    pub test: Option<PathBuf>,
    /// How images or WAV files become samples, for folders without a description of their own or instead of it
    /// ([`Samples::open_with`]).
    pub preprocess: Option<PathBuf>,
    /// Sizes of symbolic dimensions.
    pub dims: Dims,
    /// Outputs that are inputs of the next run: samples are then sequences.
    pub states: Vec<Pair>,
    /// How ranges and scales are chosen.
    pub config: Config,
    /// What the model goes to: bits that it has no integer kernels for are refused.
    pub target: Target,
    /// The core that instructions are estimated for.
    pub core: Core,
    /// Layers whose output has an SQNR below this, in dB, on calibration samples are given 8 bits; `None` leaves them.
    pub floor_db: Option<f64>,
    /// What runs the float model.
    pub backend: Backend,
    /// Number of threads; results do not depend on it.
    pub threads: usize,
    /// Leave operator names out of the plan.
    pub strip_names: bool,
    /// What the models are judged by; `None` chooses by shapes and labels ([`Metric::choose`]).
    pub metric: Option<Metric>,
    /// What the bits of layers must not exceed; `None` gives all layers those of the configuration.
    pub budget: Option<Budget>,
    /// How the quantized model is tuned to the float model's outputs; `None` leaves it as it is.
    #[cfg(feature = "tune")]
    pub tune: Option<crate::tune::Options>,
    /// The command line, for the report.
    pub command: String,
}

/// [`Request::floor_db`] unless something else is asked for: the noise has a quarter of the signal's power.
pub const FLOOR_DB: f64 = 6.0;

impl Request {
    /// The defaults for a model and samples, on one thread.
    pub fn new(model: impl Into<PathBuf>, calibration: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            calibration: calibration.into(),
            test: None,
            preprocess: None,
            dims: Dims::new(),
            states: Vec::new(),
            config: Config::default(),
            target: Target::default(),
            core: Core::default(),
            floor_db: Some(FLOOR_DB),
            backend: Backend::default(),
            threads: 1,
            strip_names: false,
            metric: None,
            budget: None,
            #[cfg(feature = "tune")]
            tune: None,
            command: String::new(),
        }
    }
}

/// The results, in memory.
#[derive(Debug, Clone)]
pub struct Artifacts {
    /// The QDQ ONNX file.
    pub onnx: Vec<u8>,
    /// The plan.
    pub plan: Vec<u8>,
    /// What happened.
    pub report: Report,
}

impl Artifacts {
    /// Writes `NAME.int8.onnx`, `NAME.plan`, `report.html` and `report.json` into a folder: all of them or none.
    ///
    /// # Errors
    ///
    /// The file that cannot be written.
    pub fn write(self, folder: &Path) -> Result<Vec<PathBuf>, Error> {
        let name = &self.report.model.name;
        let json = self.report.to_json().map_err(|e| Error::Internal(format!("the report is no valid JSON: {e}")))?;
        let set = [
            (format!("{name}.int8.onnx"), self.onnx),
            (format!("{name}.plan"), self.plan),
            ("report.html".to_owned(), self.report.to_html().into_bytes()),
            ("report.json".to_owned(), json.into_bytes()),
        ];
        Ok(files::write_all(folder, &set)?)
    }
}

/// A prepared float model.
#[derive(Debug)]
pub struct Prepared {
    /// The graph after [`passes::prepare`].
    pub graph: Graph,
    /// The rewrites that were applied.
    pub passes: PassReport,
    /// Operator set of the file.
    pub opset: i64,
    /// Nodes in the file.
    pub nodes_in_file: usize,
}

/// Reads and prepares a float model; everything that cannot be quantized is reported at once.
///
/// # Errors
///
/// The file cannot be read, is quantized already, or holds unsupported nodes.
pub fn read_float(path: &Path, dims: &Dims) -> Result<Prepared, Error> {
    let file = path.display().to_string();
    let mut graph = onnx::read(path)?;
    if support::is_quantized(&graph) {
        return Err(Error::AlreadyQuantized(file));
    }
    let (opset, nodes_in_file) = (graph.opset, graph.nodes.len());
    let passes = passes::prepare(&mut graph, dims)
        .map_err(|source| Error::Prepare { file: file.clone(), source: Box::new(source) })?;
    let nodes = support::check(&graph);
    if nodes.is_empty() {
        Ok(Prepared { graph, passes, opset, nodes_in_file })
    } else {
        Err(Error::Unsupported { file, nodes })
    }
}

/// Opens samples ([`Samples::open_with`]) and refuses a file without any.
///
/// # Errors
///
/// The samples do not fit the model.
pub fn open_samples(path: &Path, graph: &Graph, preprocess: Option<&Path>) -> Result<Samples, Error> {
    let samples = Samples::open_with(path, graph, preprocess)?;
    if samples.is_empty() { Err(Error::NoSamples(path.display().to_string())) } else { Ok(samples) }
}

/// The metric for a model and samples: the one asked for, or the one that fits.
///
/// # Errors
///
/// It cannot be computed.
pub fn metric(asked: Option<Metric>, graph: &Graph, samples: &Samples) -> Result<Metric, Error> {
    let types = infer_partial(graph, 1).types;
    let shape = |value: Option<&crate::graph::ValueInfo>| value.map(|v| sample_shape(&types, v)).unwrap_or_default();
    let asked = asked_metric(asked, graph, samples);
    // State is no input that a reconstruction could be of.
    let input = state::given(graph).unwrap_or_default().first().and_then(|&i| graph.inputs.get(i));
    choose_metric(asked, &shape(input), &shape(graph.outputs.first()), samples)
}

/// The metric asked for, if any is: of sequences without labels every step counts, so that they have no class.
pub fn asked_metric(asked: Option<Metric>, graph: &Graph, samples: &Samples) -> Option<Metric> {
    asked.or((state::is_streaming(graph) && samples.labels().is_none()).then_some(Metric::Sqnr))
}

/// As [`metric`], by the shapes of one sample of the first input and the first output.
///
/// # Errors
///
/// It cannot be computed.
pub fn choose_metric(
    asked: Option<Metric>,
    input: &[usize],
    output: &[usize],
    samples: &Samples,
) -> Result<Metric, Error> {
    let metric = asked.unwrap_or_else(|| Metric::choose(input, output, samples.labels()));
    match metric.refuse(input, output, samples.labels()) {
        None => Ok(metric),
        Some(reason) => {
            Err(Error::Metric { file: samples.path().display().to_string(), metric: metric.name(), reason })
        }
    }
}

/// The weights of a prepared graph alone, of either kind: the integer weights of a QDQ graph, of which the law is that of
/// the values they stand for, or the float weights of the linear nodes, of which the entropy is that of their 8-bit
/// integers.
pub fn weights(graph: &Graph) -> Vec<report::Weights> {
    match support::is_quantized(graph) {
        true => layers::weights(&Graph::default(), graph),
        false => layers::float_weights(graph),
    }
}

/// The names of a graph's outputs.
pub fn output_names(graph: &Graph) -> Vec<String> {
    graph.outputs.iter().map(|output| output.name.clone()).collect()
}

/// A runner for a QDQ graph: its float simulation, or the graph itself where ONNX Runtime runs it.
///
/// # Errors
///
/// As [`exec::runner`].
pub fn quantized_runner(graph: &Graph, outputs: &[String], backend: Backend) -> Result<Box<dyn Runner>, exec::Error> {
    match backend {
        Backend::Ort => exec::runner(graph, outputs, backend),
        _ => exec::runner(&qdq::simulate(graph), outputs, backend),
    }
}

/// Prepares a QDQ graph, as read from `file` or made for it.
fn prepared(mut graph: Graph, file: &str) -> Result<Graph, Error> {
    passes::prepare_quantized(&mut graph)
        .map_err(|source| Error::Prepare { file: file.to_owned(), source: Box::new(source) })?;
    Ok(graph)
}

/// Prepares a QDQ graph, as read from `file`, and compiles it.
///
/// # Errors
///
/// It cannot be prepared or compiled.
pub fn compile_graph(graph: Graph, file: &str, options: &crate::compile::Options) -> Result<(Graph, Compiled), Error> {
    let graph = prepared(graph, file)?;
    let compiled = crate::compile::compile(&graph, options)
        .map_err(|source| Error::Compile { file: file.to_owned(), source: Box::new(source) })?;
    Ok((graph, compiled))
}

/// Quantizes a model. Nothing is written.
///
/// # Errors
///
/// See [`Error`].
pub fn quantize(request: &Request, progress: &dyn Progress) -> Result<Artifacts, Error> {
    let mut clock = Clock::new(progress);
    let file = request.model.display().to_string();
    let run_error = |source| Error::run(&file, source);

    let mut prepared = clock.step("read and prepare", 0, |_| read_float(&request.model, &request.dims))?;
    streaming::declare(&mut prepared.graph, &request.states, &file)?;
    let graph = &prepared.graph;
    quantize::all_finite(graph).map_err(|source| Error::Quantize { file: file.clone(), source: Box::new(source) })?;
    let rules = request.target.rules();
    let request = &Request { config: rules.ends_widened(graph, &request.config), ..request.clone() };
    let refusals = rules.refusals(graph, &request.config);
    if !refusals.is_empty() {
        return Err(Error::Target { file, refusals });
    }
    let preprocess = request.preprocess.as_deref();
    let sequences = open_samples(&request.calibration, graph, preprocess)?;
    let calibration = streaming::steps(graph, &sequences, request, &file)?;
    let test = request.test.as_deref().map(|path| open_samples(path, graph, preprocess)).transpose()?;
    let test_metric = test.as_ref().map(|samples| metric(request.metric, graph, samples)).transpose()?;

    let calibrated = calibrate::calibrate(graph, &calibration, request, &file, &mut clock)?;
    let calibrate::Calibrated { graph: scaled, outcome, statistics, mixed } = calibrated;
    let onnx = clock.step("export", 0, |_| Ok::<_, Error>(onnx::to_bytes(&qdq::export(&scaled, &outcome))))?;
    let label = format!("{}.int8.onnx", stem(&request.model));
    let (quantized, compiled) = clock.step("compile", 0, |_| {
        // What is compiled and verified is what was written, read back.
        let options = crate::compile::Options { strip_names: request.strip_names, ..Default::default() };
        compile_graph(onnx::from_bytes(&onnx, None, &label)?, &label, &options)
    })?;
    let mut memory = MemoryReport::of(&compiled.image, request.core)
        .map_err(|source| Error::Plan { file: format!("{}.plan", stem(&request.model)), source })?;
    memory.arena_lower_bound = Some(compiled.map.arena_lower_bound);

    let outputs = output_names(graph);
    let float = float_runner(graph, &outputs, request.backend).map_err(run_error)?;
    let simulation = whole_runner(&quantized, &outputs, request.backend).map_err(run_error)?;
    let plan = exec::plan_runner(&compiled.image).map_err(run_error)?;
    let judge = |metric| {
        let [float, simulation, plan] = [&float, &simulation, &plan].map(|runner| judged(&**runner, graph, metric));
        verify::Models { float, simulation, plan }
    };

    let checked = calibration.head(CHECKED);
    // Of a model that carries state whole sequences, so that what it does over many steps is seen.
    let whole = sequences.head(streaming::about(CHECKED, sequences.len(), calibration.len()));
    let (scores, verification) = clock.step("verify", whole.len(), |advance| {
        let run = Run { metric: unlabelled(graph), threads: request.threads };
        verify::verify(&judge(run.metric), &whole, run, advance).map_err(run_error)
    })?;
    let narrow = outcome.activations.values().any(|params| matches!(params.dtype, DataType::U4 | DataType::I4));
    let mut notes = [&outcome.notes[..], &compiled.notes[..]].concat();
    if let Some(reason) = verify::contradiction(&verification, &scores, narrow) {
        if !verify::as_near(&scores) {
            return Err(Error::Verification { file, reason });
        }
        notes.push(format!(
            "{reason}; the plan is as near to the float model, so that roundings that differ explain it"
        ));
    }
    // Layers are compared in the scales that were quantized.
    let layers = clock.step("measure layers", checked.len(), |advance| {
        layers::quality(&scaled, &quantized, &checked, request, advance).map_err(run_error)
    })?;
    let tested = match test.as_ref().zip(test_metric) {
        Some((samples, metric)) => Some(clock.step("test", samples.len(), |advance| {
            let run = Run { metric, threads: request.threads };
            verify::scores(&judge(metric), samples, run, advance).map_err(run_error)
        })?),
        None => None,
    };

    let weights = layers::weights(&scaled, &quantized);
    let report = Report {
        schema: report::SCHEMA,
        equant: env!("CARGO_PKG_VERSION"),
        model: describe::model(&request.model, prepared.opset, prepared.nodes_in_file, graph),
        made: made(request, &calibration, test.as_ref(), clock.stages),
        sizes: report::Sizes {
            float: size(&request.model, graph),
            onnx: onnx.len() as u64,
            plan: compiled.image.len() as u64,
        },
        test: tested,
        calibration: scores,
        verification,
        layers,
        activations: observed::activations(&scaled, &outcome, &statistics),
        weight_bytes: report::WeightBytes::of(&weights),
        weights,
        memory,
        passes: passes_applied(&prepared.passes),
        mixed,
        notes,
        float_islands: qdq::float_islands(&quantized),
    };
    Ok(Artifacts { onnx, plan: compiled.image, report })
}

/// The metric that needs no labels.
fn unlabelled(graph: &Graph) -> Metric {
    if state::is_streaming(graph) {
        return Metric::Sqnr;
    }
    let types = infer_partial(graph, 1).types;
    let shape = |value: Option<&crate::graph::ValueInfo>| value.map(|v| sample_shape(&types, v)).unwrap_or_default();
    Metric::choose(&shape(graph.inputs.first()), &shape(graph.outputs.first()), None)
}

fn made(request: &Request, calibration: &Samples, test: Option<&Samples>, stages: Vec<report::Stage>) -> report::Made {
    let file =
        |samples: &Samples| report::SampleFile { file: samples.path().display().to_string(), samples: samples.len() };
    report::Made {
        command: request.command.clone(),
        config: request.config.clone(),
        target: request.target,
        backend: match request.backend {
            Backend::Ort => "ONNX Runtime",
            _ => "tract",
        },
        threads: request.threads,
        calibration: file(calibration),
        test: test.map(file),
        stages,
    }
}

fn passes_applied(passes: &PassReport) -> Vec<report::Pass> {
    passes.applied.iter().map(|&(name, places)| report::Pass { name, places }).collect()
}

#[cfg(test)]
mod tests;
