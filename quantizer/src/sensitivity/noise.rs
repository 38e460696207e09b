//! Noise in the place of rounding.

use super::measure::replace_weights;
use super::{Judge, Layer, NoiseModel, Widths};
use crate::exec;
use crate::graph::shape::infer_partial;
use crate::graph::{Graph, Node, Tensor};
use crate::quantize::channel_axis;
use crate::random::Random;

/// The law of noise that stands for rounding to steps Δ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoiseLaw {
    /// Uniform in ±Δ/2: variance Δ²/12, as rounding has.
    Uniform,
    /// Normal with variance Δ²/4, as QuantNAS has by default: three times the power of rounding.
    Normal,
}

impl NoiseLaw {
    /// One draw for a step of 1.
    pub fn draw(self, random: &mut Random) -> f64 {
        match self {
            Self::Uniform => random.uniform() - 0.5,
            Self::Normal => 0.5 * random.normal(),
        }
    }
}

/// Measures a model with noise in the weights and inputs of its layers, mixed over the widths of each: W_eff = W +
/// Σ_k p_k · noise_k (QuantNAS). The steps are those of the layer's rounding, per channel and clipped as it is, or those
/// with which Δ²/12 is the rounding's own squared error ([`NoiseModel`]); for inputs, whose exact zeros rounding does not
/// touch, always the latter.
#[derive(Debug)]
pub struct NoiseProbe<'j, 'a> {
    judge: &'j Judge<'a>,
    /// For each layer, what its options are.
    options: Vec<Vec<Widths>>,
    law: NoiseLaw,
    /// For each layer and option, the step of each output channel, and that of the input.
    steps: Vec<Vec<(Vec<f64>, f64)>>,
    /// For each layer, the shape of one sample of its input.
    inputs: Vec<Vec<usize>>,
}

impl<'j, 'a> NoiseProbe<'j, 'a> {
    /// With these options for each of the judge's layers.
    pub fn new(judge: &'j Judge<'a>, options: &[Vec<Widths>], law: NoiseLaw, model: NoiseModel) -> Self {
        let graph = judge.graph();
        let types = infer_partial(graph, 1).types;
        let (mut steps, mut inputs) = (Vec::new(), Vec::new());
        for (layer, options) in judge.layers().iter().zip(options) {
            let node = graph.nodes.get(layer.index);
            let input = node.and_then(|node| node.input(0)).unwrap_or_default();
            let of = |bits: &Widths| {
                let weights = match (bits.weights, node.zip(graph.initializers.get(&layer.weights))) {
                    (Widths::FLOAT, _) | (_, None) => Vec::new(),
                    (width, Some((node, weights))) => {
                        let rounded = judge.rounding().weights(node, weights, width);
                        let variances = model.variances(node, weights, &rounded);
                        variances.into_iter().map(|variance| libm::sqrt(12.0 * variance)).collect()
                    }
                };
                let activation = match bits.activations {
                    Widths::FLOAT => 0.0,
                    width => judge.rounding().activation(input, width).map_or(0.0, |a| libm::sqrt(12.0 * a.noise)),
                };
                (weights, activation)
            };
            steps.push(options.iter().map(of).collect());
            inputs.push(types.get(input).map(|kind| kind.shape.clone()).unwrap_or_default());
        }
        Self { judge, options: options.to_vec(), law, steps, inputs }
    }

    /// The options of each layer.
    pub fn options(&self) -> &[Vec<Widths>] {
        &self.options
    }

    /// Noise power at the outputs relative to their signal power when each layer's options have these probabilities. All
    /// noise comes from `seed`, and is the same for all samples.
    ///
    /// # Errors
    ///
    /// The first error of the samples or the executor.
    pub fn damage(&self, probabilities: &[Vec<f64>], seed: u64) -> Result<f64, exec::Error> {
        let mut graph = self.judge.graph().clone();
        let mut random = Random::new(seed);
        let layers = self.judge.layers().iter().zip(probabilities).zip(&self.steps).zip(&self.inputs);
        for (((layer, p), steps), shape) in layers {
            let (mut weights, mut input) = (self.weights_of(layer), vec![0f32; shape.iter().product()]);
            let mut disturbed = (false, false);
            for (&p, (weight_steps, input_step)) in p.iter().zip(steps) {
                // Every option draws from sources of its own, so that probabilities change nothing of what others draw.
                let mut sources = (Random::new(random.bits()), Random::new(random.bits()));
                if let Some(weights) = weights.as_mut().filter(|_| p > 0.0 && weight_steps.iter().any(|&s| s > 0.0)) {
                    for (i, value) in weights.values.iter_mut().enumerate() {
                        let step = weight_steps[i / weights.inner % weights.channels % weight_steps.len()];
                        *value += (p * step * self.law.draw(&mut sources.0)) as f32;
                    }
                    disturbed.0 = true;
                }
                if p * input_step > 0.0 {
                    let draw = |source: &mut Random| (p * input_step * self.law.draw(source)) as f32;
                    input.iter_mut().for_each(|noise| *noise += draw(&mut sources.1));
                    disturbed.1 = true;
                }
            }
            if let Some(weights) = weights.filter(|_| disturbed.0) {
                replace_weights(&mut graph, layer, &weights.shape, &weights.values);
            }
            if disturbed.1 {
                add_to_input(&mut graph, layer, Tensor::from_f32(shape, &input));
            }
        }
        self.judge.run(graph)
    }

    fn weights_of(&self, layer: &Layer) -> Option<Weights> {
        let graph = self.judge.graph();
        let (node, tensor) = graph.nodes.get(layer.index).zip(graph.initializers.get(&layer.weights))?;
        let axis = channel_axis(node, tensor.shape.len());
        Some(Weights {
            values: tensor.to_f32(),
            channels: tensor.shape.get(axis).copied().unwrap_or(1).max(1),
            inner: tensor.shape.iter().skip(axis + 1).product::<usize>().max(1),
            shape: tensor.shape.clone(),
        })
    }
}

/// Weights to be disturbed.
struct Weights {
    values: Vec<f32>,
    shape: Vec<usize>,
    /// Output channels, and elements of one that follow each other.
    channels: usize,
    inner: usize,
}

/// Adds a constant to what one layer reads; the new node is at the end.
fn add_to_input(graph: &mut Graph, layer: &Layer, noise: Tensor) {
    let constant = graph.fresh_name(&format!("{}_noise", layer.node));
    graph.initializers.insert(constant.clone(), noise);
    let sum = graph.fresh_name(&format!("{}_noisy", layer.node));
    let name = graph.fresh_name(&format!("{}_noise_node", layer.node));
    if let Some(input) = graph.nodes.get_mut(layer.index).and_then(|node| node.inputs.first_mut()) {
        let input = std::mem::replace(input, sum.clone());
        graph.nodes.push(Node::new("Add", name, [input, constant], [sum]));
    }
}
