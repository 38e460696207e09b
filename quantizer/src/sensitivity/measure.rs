//! Damage measured at the outputs of the model.

use super::{Layer, Rounding, Widths};
use crate::data::{Batch, Samples};
use crate::exec::{self, BATCH, Backend};
use crate::graph::{Graph, Node, Tensor};

/// Elements of float outputs at most that are kept to compare with.
const KEPT_ELEMENTS: usize = 1 << 24;

/// Measures what quantizing some layers does to the outputs of a model.
pub struct Judge<'a> {
    graph: &'a Graph,
    layers: &'a [Layer],
    rounding: &'a dyn Rounding,
    samples: Samples,
    backend: Backend,
    threads: usize,
    /// The float model's outputs, for each batch.
    reference: Vec<Vec<Vec<f32>>>,
    signal: f64,
}

impl std::fmt::Debug for Judge<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge").field("layers", &self.layers.len()).field("samples", &self.samples.len()).finish()
    }
}

impl<'a> Judge<'a> {
    /// Runs the float model over `samples` (the first of them, where outputs are large) and keeps its outputs.
    ///
    /// # Errors
    ///
    /// The first error of the samples or the executor.
    pub fn new(
        graph: &'a Graph,
        layers: &'a [Layer],
        rounding: &'a dyn Rounding,
        samples: &Samples,
        backend: Backend,
        threads: usize,
    ) -> Result<Self, exec::Error> {
        let outputs = output_names(graph);
        let types = crate::graph::shape::infer_partial(graph, 1).types;
        let elements: usize =
            outputs.iter().filter_map(|name| types.get(name)).map(|kind| kind.shape.iter().product::<usize>()).sum();
        let samples = samples.head((KEPT_ELEMENTS / elements.max(1)).max(BATCH));
        let runner = exec::runner(graph, &outputs, backend)?;
        let keep = |mut kept: Vec<_>, values| {
            kept.push(values);
            kept
        };
        let reference: Vec<Vec<Vec<f32>>> =
            exec::fold(&*runner, &samples, threads, |_, values| values, Vec::new(), keep)?;
        let signal = reference.iter().flatten().flatten().map(|&y| f64::from(y) * f64::from(y)).sum();
        Ok(Self { graph, layers, rounding, samples, backend, threads, reference, signal })
    }

    /// Number of samples judged by.
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    /// Noise power at the outputs relative to their signal power, with these layers (by their place in the list given to
    /// [`Self::new`]) quantized to these bits and all others left in float. 0 without signal.
    ///
    /// # Errors
    ///
    /// The first error of the samples or the executor.
    pub fn damage(&self, choices: &[(usize, Widths)]) -> Result<f64, exec::Error> {
        let mut graph = self.graph.clone();
        for &(layer, bits) in choices {
            if let Some(layer) = self.layers.get(layer) {
                quantize(&mut graph, layer, bits, self.rounding);
            }
        }
        self.run(graph)
    }

    /// The damage done by a changed graph with the same outputs; new nodes may be at its end.
    pub(super) fn run(&self, mut graph: Graph) -> Result<f64, exec::Error> {
        // What was added reads only what was there, so that this succeeds.
        let _ = graph.sort();
        let runner = exec::runner(&graph, &output_names(&graph), self.backend)?;
        let compare = |batch: &Batch, values: Vec<Vec<f32>>| {
            let reference = self.reference.get(batch.first / BATCH).map(Vec::as_slice).unwrap_or_default();
            let pairs = reference.iter().flatten().zip(values.iter().flatten());
            pairs.map(|(&r, &v)| (f64::from(r) - f64::from(v)).powi(2)).sum::<f64>()
        };
        let noise = exec::fold(&*runner, &self.samples, self.threads, compare, 0.0, |sum, part| sum + part)?;
        Ok(if self.signal > 0.0 { noise / self.signal } else { 0.0 })
    }

    pub(super) fn graph(&self) -> &'a Graph {
        self.graph
    }

    pub(super) fn layers(&self) -> &'a [Layer] {
        self.layers
    }

    pub(super) fn rounding(&self) -> &'a dyn Rounding {
        self.rounding
    }
}

fn output_names(graph: &Graph) -> Vec<String> {
    graph.outputs.iter().map(|output| output.name.clone()).collect()
}

/// Quantizes one layer of a float graph, in float operators: new weights for this node alone, and rounding between its
/// input and it. New nodes are added at the end.
fn quantize(graph: &mut Graph, layer: &Layer, bits: Widths, rounding: &dyn Rounding) {
    let Some(node) = graph.nodes.get(layer.index).cloned() else { return };
    if bits.weights != Widths::FLOAT
        && let Some(weights) = graph.initializers.get(&layer.weights)
    {
        let shape = weights.shape.clone();
        let rounded = rounding.weights(&node, weights, bits.weights).values;
        replace_weights(graph, layer, &shape, &rounded);
    }
    let input = node.input(0).filter(|_| bits.activations != Widths::FLOAT);
    if let Some((input, rounded)) = input.and_then(|input| Some((input, rounding.activation(input, bits.activations)?)))
    {
        let stem = format!("{}_input", layer.node);
        let constants = [rounded.scale, rounded.zero_point as f32, rounded.low as f32, rounded.high as f32];
        let [scale, zero_point, low, high] = constants.map(|value| {
            let name = graph.fresh_name(&format!("{stem}_constant"));
            graph.initializers.insert(name.clone(), Tensor::from_f32(&[], &[value]));
            name
        });
        let steps: [(&str, Vec<String>); 6] = [
            ("Div", vec![scale.clone()]),
            ("Round", Vec::new()),
            ("Add", vec![zero_point.clone()]),
            ("Clip", vec![low, high]),
            ("Sub", vec![zero_point]),
            ("Mul", vec![scale]),
        ];
        let mut value = input.to_owned();
        for (op, constants) in steps {
            let output = graph.fresh_name(&format!("{stem}_{op}"));
            let name = graph.fresh_name(&format!("{stem}_{op}_node"));
            let inputs = std::iter::once(value).chain(constants);
            graph.nodes.push(Node::new(op, name, inputs, [output.clone()]));
            value = output;
        }
        if let Some(first) = graph.nodes[layer.index].inputs.first_mut() {
            *first = value;
        }
    }
}

/// Gives one layer weights of its own.
pub(super) fn replace_weights(graph: &mut Graph, layer: &Layer, shape: &[usize], values: &[f32]) {
    let name = graph.fresh_name(&format!("{}_changed", layer.weights));
    graph.initializers.insert(name.clone(), Tensor::from_f32(shape, values));
    if let Some(input) = graph.nodes.get_mut(layer.index).and_then(|node| node.inputs.get_mut(1)) {
        *input = name;
    }
}
