//! Rewrites that bring a graph into the one form that quantization and compilation know.
//!
//! Each file is one idempotent rewrite that returns how often it applied. [`prepare`] runs them over a float
//! model, [`prepare_quantized`] over a file that holds QuantizeLinear and DequantizeLinear already.

mod affine;
mod attention;
mod avg_pool;
mod batch_norm;
mod clip;
mod constants;
mod conv_transpose;
mod einsum;
mod floats;
mod fold;
mod gemm;
mod heads;
mod identity;
mod last_axis;
mod layer_norm;
mod lift;
mod mask;
mod matmul;
mod normalize;
mod opset;
pub(crate) mod recurrent;
mod reduce;
mod rewrite;
pub(crate) mod rms_norm;
mod shapes;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod variadic;

use std::collections::BTreeMap;

use crate::graph::shape::ShapeError;
use crate::graph::{Dim, Graph, Node, Tensor};

/// Sizes for symbolic dimensions, by name.
pub type Dims = BTreeMap<String, usize>;

/// The operator set that prepared float models use: the first with 16-bit and 4-bit QuantizeLinear.
pub const OPSET: i64 = 21;

/// How often each rewrite applied, in the order of first application.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct PassReport {
    /// Name of the rewrite and number of places it changed.
    pub applied: Vec<(&'static str, usize)>,
}

impl PassReport {
    fn add(&mut self, name: &'static str, count: usize) -> usize {
        if count > 0 {
            match self.applied.iter_mut().find(|(known, _)| *known == name) {
                Some(entry) => entry.1 += count,
                None => self.applied.push((name, count)),
            }
        }
        count
    }
}

/// Why a graph cannot be prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shape cannot be inferred.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The batch is fixed to more than one sample.
    #[error(
        "graph input `{input}` has a fixed batch of {size}; export the model with a dynamic first axis, or with batch 1"
    )]
    FixedBatch {
        /// The input.
        input: String,
        /// Its first dimension.
        size: usize,
    },
    /// A size was given for a dimension the model does not have.
    #[error("the model has no symbolic dimension `{name}`; it has: {known}")]
    UnknownDim {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
}

/// Rounds after which rewriting stops; each round must have changed something, so real models need few.
const MAX_ROUNDS: usize = 32;

/// Prepares a float model: constants folded, weights in f32, batch normalization folded, clips and layer
/// normalizations recognised, one operator set. The batch stays dynamic where the file has it dynamic.
///
/// # Errors
///
/// Sizes that do not fit the model. Shapes that cannot be inferred because of unsupported operators are no error
/// here: [`crate::graph::support::check`] reports them all.
pub fn prepare(graph: &mut Graph, dims: &Dims) -> Result<PassReport, Error> {
    one_sample(graph, dims)?;
    prepare_unbatched(graph, dims)
}

/// As [`prepare`], for a model whose first axes are no batch: a sample is all of every input.
///
/// # Errors
///
/// As [`prepare`], but for the size of the first axis.
pub fn prepare_unbatched(graph: &mut Graph, dims: &Dims) -> Result<PassReport, Error> {
    fix_dims(graph, dims)?;
    Ok(rewrite_all(graph, OPSET, Kind::Float))
}

/// Prepares a quantized model for compilation: constants and shape arithmetic folded (QuantizeLinear of float
/// constants too, DequantizeLinear never), identities removed.
///
/// # Errors
///
/// As [`prepare`].
pub fn prepare_quantized(graph: &mut Graph) -> Result<PassReport, Error> {
    one_sample(graph, &Dims::new())?;
    Ok(prepare_quantized_unbatched(graph))
}

/// As [`prepare_quantized`], for a model whose first axes are no batch: a sample is all of every input.
pub fn prepare_quantized_unbatched(graph: &mut Graph) -> PassReport {
    let opset = graph.opset.max(18);
    rewrite_all(graph, opset, Kind::Quantized)
}

/// What a graph is before it is prepared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float,
    Quantized,
}

/// Rewrites to the end. Some are for float models alone: they would change what a quantized model computes, or meet nothing
/// in it.
fn rewrite_all(graph: &mut Graph, opset: i64, kind: Kind) -> PassReport {
    /// A name in reports, the rewrite, and whether it is for float models alone.
    type Pass = (&'static str, fn(&mut Graph) -> usize, bool);

    const ROUND: [Pass; 19] = [
        ("identities removed", identity::run, false),
        ("shape arithmetic folded", shapes::run, false),
        ("constants folded", fold::run, false),
        ("signals as images", lift::run, false),
        ("dilated AveragePool as Conv", avg_pool::run, false),
        ("Einsum as MatMul", einsum::run, false),
        ("Attention written out", attention::run, false),
        ("last axis", last_axis::run, false),
        ("masks of scores", mask::run, false),
        ("normalizations of rows", normalize::run, false),
        ("Gemm normalised", gemm::run, false),
        ("MatMul normalised", matmul::run, false),
        ("heads of attention", heads::run, true),
        ("ConvTranspose normalised", conv_transpose::run, false),
        ("BatchNormalization folded", batch_norm::run, true),
        ("scale and shift folded", affine::run, true),
        ("Clip recognised", clip::run, false),
        ("LayerNormalization recognised", layer_norm::run, false),
        ("recurrent layers unrolled", recurrent::run, true),
    ];

    let mut report = PassReport::default();
    report.add("constants", constants::run(graph));
    report.add("floats to f32", floats::run(graph));
    report.add("opset", opset::run(graph, opset));
    report.add("operators of two values", variadic::run(graph));
    report.add("reductions written as sums", reduce::run(graph));
    for _ in 0..MAX_ROUNDS {
        let mut changed = 0;
        for (name, pass, only_float) in ROUND {
            if kind == Kind::Float || !only_float {
                changed += report.add(name, pass(graph));
            }
        }
        graph.remove_unused();
        if changed == 0 {
            break;
        }
    }
    report
}

fn fix_dims(graph: &mut Graph, dims: &Dims) -> Result<(), Error> {
    let mut known: Vec<String> = Vec::new();
    for dim in graph.inputs.iter().filter_map(|input| input.shape.as_ref()).flatten() {
        if let Dim::Symbol(name) = dim {
            known.push(name.clone());
        }
    }
    if let Some(name) = dims.keys().find(|name| !known.contains(name)) {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Error::UnknownDim { name: name.clone(), known });
    }
    for value in graph.inputs.iter_mut().chain(&mut graph.outputs) {
        for dim in value.shape.iter_mut().flatten() {
            if let Dim::Symbol(name) = dim
                && let Some(&size) = dims.get(name)
            {
                *dim = Dim::Known(size);
            }
        }
    }
    Ok(())
}

/// Refuses inputs whose first axis, the batch, is fixed to several samples.
fn one_sample(graph: &Graph, dims: &Dims) -> Result<(), Error> {
    for input in &graph.inputs {
        let Some([first, _, ..]) = input.shape.as_deref() else { continue };
        let size = match first {
            Dim::Known(size) => Some(*size),
            Dim::Symbol(name) => dims.get(name).copied(),
        };
        if let Some(size) = size.filter(|&size| size > 1) {
            return Err(Error::FixedBatch { input: input.name.clone(), size });
        }
    }
    Ok(())
}

/// The constant a value is, if it is one.
fn constant<'g>(graph: &'g Graph, name: Option<&str>) -> Option<&'g Tensor> {
    graph.initializers.get(name?)
}

/// The constant a value is, if it has one element.
fn scalar(graph: &Graph, name: Option<&str>) -> Option<f32> {
    constant(graph, name)?.scalar_f32()
}

/// The index of the only reader of a value that is not a graph output.
fn only_reader(graph: &Graph, value: &str) -> Option<usize> {
    if graph.is_output(value) {
        return None;
    }
    let mut readers = graph.nodes.iter().enumerate().filter(|(_, node)| node.inputs.iter().any(|name| name == value));
    match (readers.next(), readers.next()) {
        (Some((index, node)), None) if node.inputs.iter().filter(|name| *name == value).count() == 1 => Some(index),
        _ => None,
    }
}

/// Whether something reads an output of a node besides the first: a rewrite that makes the first alone must not apply.
fn has_more_outputs(graph: &Graph, node: &Node) -> bool {
    node.outputs.iter().skip(1).any(|name| graph.is_read(name))
}

/// The index of the node that makes a value.
fn maker(graph: &Graph, value: Option<&str>) -> Option<usize> {
    let value = value?;
    graph.nodes.iter().position(|node| node.outputs.iter().any(|name| name == value))
}

/// Adds an initializer under a new name beginning with `stem`, and returns the name.
fn add_constant(graph: &mut Graph, stem: &str, tensor: Tensor) -> String {
    let name = graph.fresh_name(stem);
    graph.initializers.insert(name.clone(), tensor);
    name
}

/// Removes node `index`, whose output equals the value `source`. Returns whether that was possible: the node must have an
/// output, and a graph output needs a node that makes it under its name.
fn bypass(graph: &mut Graph, index: usize, source: &str) -> bool {
    let output = graph.nodes[index].output().to_owned();
    if output.is_empty() {
        return false;
    }
    if !graph.is_output(&output) {
        graph.nodes.remove(index);
        graph.replace_uses(&output, source);
        return true;
    }
    let Some(origin) = maker(graph, Some(source)) else { return false };
    if graph.is_output(source) {
        return false;
    }
    graph.nodes.remove(index);
    let origin = if origin > index { origin - 1 } else { origin };
    let tied = graph.tied.iter_mut().flat_map(|tied| &mut tied.values);
    for name in graph.nodes[origin].outputs.iter_mut().chain(tied) {
        if name == source {
            name.clone_from(&output);
        }
    }
    graph.replace_uses(source, &output);
    true
}
