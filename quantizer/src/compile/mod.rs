//! From a QDQ graph to a plan: lowering, memory planning, packing, emission.

use crate::graph::Graph;

/// Choices of the compiler.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Leave operator names out of the image.
    pub strip_names: bool,
    /// Values to keep readable after the run, as further outputs of the plan.
    pub keep: Vec<String>,
}

/// A finished plan.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The image.
    pub image: Vec<u8>,
    /// Where flash and memory go.
    pub map: MemoryMap,
}

/// Where flash and memory go.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct MemoryMap {
    /// Bytes of the arena for activations.
    pub arena: usize,
    /// The least any placement of these activations can take.
    pub arena_lower_bound: usize,
}

/// Why a graph was not compiled.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {}

/// Compiles a prepared QDQ graph ([`crate::passes::prepare_quantized`]).
///
/// # Errors
///
/// All nodes that cannot be compiled, with reasons.
pub fn compile(graph: &Graph, options: &Options) -> Result<Compiled, Error> {
    let _ = (graph, options);
    unimplemented!()
}
