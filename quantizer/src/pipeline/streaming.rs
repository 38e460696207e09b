//! Models that carry state: calibrated on what the float model's states are along whole sequences, and judged over them.

use super::{Error, Request, output_names};
use crate::data::Samples;
use crate::exec::{self, BATCH, Backend, LastStep, Runner, Stateful, fold};
use crate::graph::shape::infer_partial;
use crate::graph::state::{self, Pair};
use crate::graph::{Dim, Graph, ValueInfo};
use crate::metrics::Metric;
use crate::qdq;

/// Makes `graph`, as read from `file`, a model that carries state.
///
/// # Errors
///
/// [`Error::State`]: a pair does not fit the graph.
pub fn declare(graph: &mut Graph, pairs: &[Pair], file: &str) -> Result<(), Error> {
    state::declare(graph, pairs).map_err(|reason| Error::State { file: file.to_owned(), reason })
}

/// A runner for values of a float graph: of a model that carries state over sequences.
///
/// # Errors
///
/// As [`exec::runner`].
pub fn float_runner(graph: &Graph, outputs: &[String], backend: Backend) -> Result<Box<dyn Runner>, exec::Error> {
    match state::is_streaming(graph) {
        true => Ok(Box::new(Stateful::new(graph, outputs, backend)?)),
        false => exec::runner(graph, outputs, backend),
    }
}

/// As [`float_runner`] for a QDQ graph: its float simulation, or the graph itself where ONNX Runtime runs it.
///
/// # Errors
///
/// As [`exec::runner`].
pub fn whole_runner(graph: &Graph, outputs: &[String], backend: Backend) -> Result<Box<dyn Runner>, exec::Error> {
    match backend {
        Backend::Ort => float_runner(graph, outputs, backend),
        _ => float_runner(&qdq::simulate(graph), outputs, backend),
    }
}

/// A runner as `metric` needs it: classes are those after the last step of a sequence.
pub fn judged<'r>(runner: &'r dyn Runner, graph: &Graph, metric: Metric) -> Box<dyn Runner + 'r> {
    let steps = state::is_streaming(graph) && matches!(metric, Metric::Top1 | Metric::Agreement);
    let types = infer_partial(graph, 1).types;
    // Nothing makes the outputs of a plan's graph: what it declares is what there is.
    let declared = |output: &ValueInfo| {
        let sizes = output.shape.iter().flatten().map(|dim| if let Dim::Known(size) = dim { *size } else { 1 });
        sizes.product::<usize>()
    };
    let of = |output: &ValueInfo| {
        types.get(&output.name).map_or_else(|| declared(output), |kind| kind.shape.iter().product())
    };
    let elements = if steps { Some(graph.outputs.iter().map(of).collect()) } else { None };
    Box::new(LastStep { runner, elements })
}

/// Every step of some sequences as a sample of its own, with the float model's states as inputs; samples of other models
/// as they are.
pub(super) fn steps(graph: &Graph, samples: &Samples, request: &Request, file: &str) -> Result<Samples, Error> {
    if !state::is_streaming(graph) {
        return Ok(samples.clone());
    }
    let run_error = |source| Error::run(file, source);
    let runner = Stateful::new(graph, &output_names(graph), request.backend).map_err(run_error)?;
    // What the fold runs is not what is wanted of it: the inputs of every step.
    let trace = |batch: &crate::data::Batch, _: Vec<Vec<f32>>| runner.trace(batch).map(|trace| trace.inputs);
    let start = Ok(vec![Vec::new(); graph.inputs.len()]);
    let join = |all: Result<Vec<Vec<f32>>, exec::Error>, part: Result<Vec<Vec<f32>>, exec::Error>| {
        let (mut all, part) = (all?, part?);
        all.iter_mut().zip(part).for_each(|(all, part)| all.extend(part));
        Ok(all)
    };
    let inputs = fold(&Nothing, samples, request.threads, trace, start, join).map_err(run_error)?.map_err(run_error)?;
    let types = infer_partial(graph, 1).types;
    let first = graph.inputs.first().and_then(|input| types.get(&input.name));
    let elements = first.map_or(1, |kind| kind.shape.iter().product::<usize>().max(1));
    let len = inputs.first().map_or(0, Vec::len) / elements;
    Ok(Samples::of_memory(samples.path(), inputs, len))
}

/// A runner without outputs.
struct Nothing;

impl Runner for Nothing {
    fn run(&self, _: &crate::data::Batch) -> Result<Vec<Vec<f32>>, exec::Error> {
        Ok(Vec::new())
    }
}

/// So many sequences that their steps are about `steps`, of `all` steps in `count` sequences.
pub(super) fn about(steps: usize, count: usize, all: usize) -> usize {
    (steps * count).div_ceil(all.max(1)).clamp(1, count.max(1)).max(BATCH.min(count))
}
