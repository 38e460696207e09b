//! What samples tell about the layers' inputs and outputs.

use serde::Serialize;

use super::Layer;
use crate::data::Samples;
use crate::exec::{self, Backend};
use crate::graph::{Attr, Graph, Node, Tensor};

/// Second moments around one layer, means over samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Energy {
    /// E Σ ‖x_patch‖² over the positions of the output, for each group of input channels (one, except for grouped and
    /// depthwise convolutions): what the noise of one output channel's weights is multiplied by.
    pub patches: Vec<f64>,
    /// E‖y‖² of the layer's output.
    pub output: f64,
    /// Elements of the output of one sample.
    pub elements: f64,
}

/// The second moments of each layer, over all samples.
///
/// Patches are summed exactly, padding and strides included: by a convolution of x² with ones in the place of weights.
///
/// # Errors
///
/// The first error of the samples or the executor.
pub fn energies(
    graph: &Graph,
    layers: &[Layer],
    samples: &Samples,
    backend: Backend,
    threads: usize,
    advance: &dyn Fn(usize),
) -> Result<Vec<Energy>, exec::Error> {
    let mut extended = graph.clone();
    let mut names = Vec::with_capacity(2 * layers.len());
    let mut groups = Vec::with_capacity(layers.len());
    for layer in layers {
        let Some(node) = graph.nodes.get(layer.index) else { continue };
        names.push(node.output().to_owned());
        let (patches, count) = match squares(&mut extended, node) {
            Some((value, count)) => (value, count),
            // Every row of a matrix is a patch.
            None => (node.input(0).unwrap_or_default().to_owned(), 1),
        };
        names.push(patches);
        groups.push((count, matches!(node.op_type.as_str(), "Gemm" | "MatMul")));
    }
    let runner = exec::runner(&extended, &names, backend)?;
    let measure = |batch: &crate::data::Batch, values: Vec<Vec<f32>>| {
        let parts = values.chunks(2).zip(&groups).map(|(pair, &(groups, is_matrix))| {
            let (output, patches) = (&pair[0], &pair[1]);
            let square = |&x: &f32| f64::from(x) * f64::from(x);
            let sums = match is_matrix {
                true => vec![patches.iter().map(square).sum::<f64>()],
                false => by_group(patches, groups, batch.count),
            };
            (sums, output.iter().map(square).sum::<f64>(), output.len())
        });
        (batch.count, parts.collect::<Vec<_>>())
    };
    let start: Vec<(Vec<f64>, f64, usize)> = groups.iter().map(|&(groups, _)| (vec![0.0; groups], 0.0, 0)).collect();
    let totals = exec::fold(&*runner, samples, threads, measure, start, |mut totals, (count, parts)| {
        for (total, part) in totals.iter_mut().zip(parts) {
            total.0.iter_mut().zip(part.0).for_each(|(sum, more)| *sum += more);
            total.1 += part.1;
            total.2 += part.2;
        }
        advance(count);
        totals
    })?;
    let count = samples.len().max(1) as f64;
    let mean = |(patches, output, elements): (Vec<f64>, f64, usize)| Energy {
        patches: patches.into_iter().map(|sum| sum / count).collect(),
        output: output / count,
        elements: elements as f64 / count,
    };
    Ok(totals.into_iter().map(mean).collect())
}

/// Sums of `[samples, groups, positions]` over samples and positions.
fn by_group(values: &[f32], groups: usize, samples: usize) -> Vec<f64> {
    let positions = (values.len() / (groups * samples).max(1)).max(1);
    let mut sums = vec![0.0; groups];
    for (i, run) in values.chunks(positions).enumerate() {
        sums[i % groups] += run.iter().map(|&x| f64::from(x)).sum::<f64>();
    }
    sums
}

/// Adds nodes that sum the squares of each patch of a convolution: the value, `[1, groups, positions]`, and the number of
/// groups. `None` for other operators.
fn squares(graph: &mut Graph, node: &Node) -> Option<(String, usize)> {
    if !matches!(node.op_type.as_str(), "Conv" | "ConvTranspose") {
        return None;
    }
    let mut shape = graph.initializers.get(node.input(1)?)?.shape.clone();
    let groups = usize::try_from(node.int("group", 1)).ok().filter(|&groups| groups > 0)?;
    // Conv has [outputs, inputs / groups, window], ConvTranspose [inputs, outputs / groups, window]: one output a group.
    match node.op_type.as_str() {
        "Conv" => *shape.first_mut()? = groups,
        _ => *shape.get_mut(1)? = 1,
    }
    let stem = |graph: &Graph, what: &str| graph.fresh_name(&format!("{}_{what}", node.name));
    let squared = stem(graph, "squared");
    let input = node.input(0)?.to_owned();
    let square = Node::new("Mul", stem(graph, "square"), [input.clone(), input], [squared.clone()]);
    graph.nodes.push(square);
    let ones = stem(graph, "ones");
    graph.initializers.insert(ones.clone(), Tensor::from_f32(&shape, &vec![1.0; shape.iter().product()]));
    let patches = stem(graph, "patches");
    let mut sum = Node::new(&node.op_type, stem(graph, "sum"), [squared, ones], [patches.clone()]);
    sum.attrs = node.attrs.clone();
    sum.attrs.insert("group".into(), Attr::Int(node.int("group", 1)));
    graph.nodes.push(sum);
    Some((patches, groups))
}
