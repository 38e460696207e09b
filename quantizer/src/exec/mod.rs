//! Running a graph over samples: float models by tract or ONNX Runtime, plans by the Equant runtime.

use crate::data::{Batch, Samples};
use crate::graph::Graph;

/// Why a model could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The samples cannot be read.
    #[error(transparent)]
    Data(#[from] crate::data::Error),
}

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

/// A runner for `graph` (batch 1) that gives the values named in `outputs` (any values of the graph, in this order).
///
/// # Errors
///
/// The backend is not available, or refuses the graph.
pub fn runner(graph: &Graph, outputs: &[String], backend: Backend) -> Result<Box<dyn Runner>, Error> {
    let _ = (graph, outputs, backend);
    unimplemented!()
}

/// Runs a plan image (see [`crate::compile`]) with the Equant runtime on the host; gives its outputs, dequantized,
/// in the logical (ONNX) element order.
///
/// # Errors
///
/// The runtime refuses the plan.
pub fn plan_runner(image: &[u8]) -> Result<Box<dyn Runner>, Error> {
    let _ = image;
    unimplemented!()
}

/// Number of samples in a batch of [`fold`].
pub const BATCH: usize = 16;

/// Runs all samples on `threads` threads: `map` turns each batch and its values into a result (in any order, in
/// parallel); `fold` takes the results in sample order on the calling thread, so that the outcome does not depend on
/// the number of threads. Holds a bounded number of batches at a time.
///
/// # Errors
///
/// The first error of the samples or the runner, in sample order.
pub fn fold<R: Send, A>(
    runner: &dyn Runner,
    samples: &Samples,
    threads: usize,
    map: impl Fn(&Batch, Vec<Vec<f32>>) -> R + Sync,
    start: A,
    fold: impl FnMut(A, R) -> A,
) -> Result<A, Error> {
    let _ = (runner, samples, threads, map, fold);
    Ok(start)
}
