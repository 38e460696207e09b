//! Running a graph over samples: float models by tract or ONNX Runtime, plans by the Equant runtime.

mod error;
mod fold;
#[cfg(feature = "tract")]
mod fused;
#[cfg(feature = "ort")]
mod ort;
mod plan;
mod select;
mod stateful;
#[cfg(feature = "tract")]
mod substitute;
#[cfg(feature = "tract")]
mod tract;

pub use error::Error;
pub use fold::{BATCH, fold, fold_batches};
#[cfg(feature = "ort")]
pub use ort::use_onnx_runtime;
pub use plan::{OpProfile, PlanRunner, RawOutput};
pub use stateful::{LastStep, Stateful, Trace};

use crate::data::Batch;
use crate::graph::Graph;
use crate::passes::rms_norm;

/// What runs a float graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Backend {
    /// tract: pure Rust, always there. Refuses graphs that hold QuantizeLinear or DequantizeLinear
    /// (simulate them first: [`crate::qdq::simulate`]).
    #[default]
    Tract,
    /// ONNX Runtime, loaded dynamically, with its graph optimizations off: the numeric oracle.
    Ort,
}

/// Runs a model on samples, one at a time, and gives chosen values.
pub trait Runner: Send + Sync {
    /// For each chosen value, its elements for every sample of the batch: `[count, shape of the value]`.
    ///
    /// # Errors
    ///
    /// The executor failed.
    fn run(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, Error>;
}

/// Runs a graph whose every output is wanted on one sample.
trait Single: Send + Sync {
    /// Runs one sample; `inputs` has one slice for each graph input. Hands over each output's index and elements.
    fn run(&self, inputs: &[&[f32]], give: &mut dyn FnMut(usize, &[f32])) -> Result<(), Error>;
}

/// A runner for `graph` (batch 1) that gives the values named in `outputs` (any values of the graph, in this order;
/// a value may be named twice, and may be a graph input or an initializer). Values that are no floats are converted.
///
/// # Errors
///
/// A value is not in the graph; the backend is not available, or refuses the graph.
pub fn runner(graph: &Graph, outputs: &[String], backend: Backend) -> Result<Box<dyn Runner>, Error> {
    let mut selection = select::select(graph, outputs)?;
    rms_norm::expand(&mut selection.graph);
    let single = match selection.graph.outputs.is_empty() {
        // Everything asked for is an input or a constant.
        true => None,
        false => Some(single(&selection.graph, backend)?),
    };
    Ok(Box::new(select::Selected::new(selection, single)))
}

fn single(graph: &Graph, backend: Backend) -> Result<Box<dyn Single>, Error> {
    match backend {
        #[cfg(feature = "tract")]
        Backend::Tract => tract::load(graph),
        #[cfg(feature = "ort")]
        Backend::Ort => ort::load(graph),
        #[cfg(not(feature = "tract"))]
        Backend::Tract => not_built(graph, backend),
        #[cfg(not(feature = "ort"))]
        Backend::Ort => not_built(graph, backend),
    }
}

#[cfg(not(all(feature = "tract", feature = "ort")))]
fn not_built(_: &Graph, backend: Backend) -> Result<Box<dyn Single>, Error> {
    Err(Error::NotBuilt(backend))
}

/// Runs a plan image (see [`crate::compile`]) with the Equant runtime on the host; gives its outputs, dequantized,
/// in the logical (ONNX) element order. [`PlanRunner`] also gives the stored integers and times.
///
/// # Errors
///
/// The runtime refuses the plan.
pub fn plan_runner(image: &[u8]) -> Result<Box<dyn Runner>, Error> {
    plan::load(image)
}

#[cfg(test)]
mod tests;
