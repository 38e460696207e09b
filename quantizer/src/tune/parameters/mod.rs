//! What is tuned: latent weights, weight scales, biases and the ends of activation ranges.
//!
//! Every parameter `θ` starts at 0 and is measured in units in which a change of 1 means about the same everywhere:
//! weights move by steps of their scale (`w = w₀ + s₀ θ`), biases by root mean squares of their layer's output, scales and
//! ends of ranges by factors (`s = s₀ eᶿ`), so that signs stay and one learning rate serves all layers.
//!
//! A [`Space`] renders parameters as what the exported model computes with, to the bit: scales in f32, integer zero
//! points, weights and biases on their grids. Gradients pass rounding straight through.

mod layer;
mod range;

use candle_core::{Device, Tensor as Value, Var};

use crate::diff::{Error, Leaves, Program, Quantizer};
use crate::graph::Tensor;
use crate::quantize::{Bias, Layer as Quantized, Outcome, QParams};
use layer::{Layer, Shift};
use range::Range;

/// Kinds of parameters, which have learning rates of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Weight,
    WeightScale,
    Bias,
    Range,
}

/// Values of one tensor of parameters, or their gradients.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Block {
    pub(super) kind: Kind,
    pub(super) values: Vec<f32>,
}

/// For each layer its weights, their scales and its bias; then each shift; then the two ends of each range.
pub(super) type Parameters = Vec<Block>;

/// Blocks of one layer.
const PER_LAYER: usize = 3;

/// What pulls at weights besides the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Regularizers {
    /// Factor of the distance of the weights' distribution from a uniform one ([`super::distribution`]).
    pub(super) shape: f64,
    /// Factor of the squared distance to the start, in steps, mean over weights.
    pub(super) anchor: f64,
    /// Factor and exponent of soft rounding's preference for integers.
    pub(super) decided: (f64, f64),
}

/// How parameters are rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rendering {
    /// As the exported model has them.
    Exact,
    /// With 8 bits where the exported model has 4.
    Wide,
    /// With weights between the two integers they may become, where rounding is soft ([`super::soft`]).
    Relaxed,
}

/// The start of all parameters, and how they become a quantized model.
#[derive(Debug, Clone)]
pub(super) struct Space {
    layers: Vec<Layer>,
    shifts: Vec<Shift>,
    ranges: Vec<Range>,
}

impl Space {
    /// The space around an outcome. `units`: for each layer and then each shift, the size of its outputs. `soft`: weights
    /// stay at the two integers around them.
    pub(super) fn new(program: &Program, outcome: &Outcome, units: &[f32], soft: bool) -> Result<Self, Error> {
        let mut layers = Vec::new();
        for (slot, &unit) in program.layers.iter().zip(units) {
            let mismatch = || Error::Mismatch(slot.node.clone());
            let quantized = outcome.layers.get(&slot.node).ok_or_else(mismatch)?;
            let mut layer = Layer::new(&slot.weights, quantized, slot.outputs, soft).ok_or_else(mismatch)?;
            layer.node.clone_from(&slot.node);
            (layer.unit, layer.input) = (unit, slot.input);
            layers.push(layer);
        }
        let mut shifts = Vec::new();
        for (slot, &unit) in program.shifts.iter().zip(&units[program.layers.len()..]) {
            let values = outcome.constants.get(&slot.node).unwrap_or(&slot.values).to_f32();
            if values.len() != slot.values.len() {
                return Err(Error::Mismatch(slot.node.clone()));
            }
            shifts.push(Shift { node: slot.node.clone(), shape: slot.values.shape.clone(), values, unit });
        }
        let ranges = program.groups.iter().cloned().map(Range::new).collect();
        Ok(Self { layers, shifts, ranges })
    }

    /// All parameters at 0.
    pub(super) fn zeros(&self) -> Parameters {
        let block = |kind, count| Block { kind, values: vec![0.0; count] };
        let mut blocks = Vec::new();
        for layer in &self.layers {
            blocks.push(block(Kind::Weight, layer.weights.len()));
            blocks.push(block(Kind::WeightScale, layer.scales.len()));
            blocks.push(block(Kind::Bias, layer.bias.as_ref().map_or(0, Vec::len)));
        }
        blocks.extend(self.shifts.iter().map(|shift| block(Kind::Bias, shift.values.len())));
        blocks.extend(self.ranges.iter().map(|_| block(Kind::Range, 2)));
        blocks
    }

    /// The blocks of some layers, shifts and ranges.
    pub(super) fn select(&self, layers: &[bool], shifts: &[bool], ranges: &[bool]) -> Vec<bool> {
        let layers = layers.iter().flat_map(|&chosen| [chosen; PER_LAYER]);
        layers.chain(shifts.iter().copied()).chain(ranges.iter().copied()).collect()
    }

    /// Index of the first block of shifts, and of ranges.
    fn places(&self) -> (usize, usize) {
        let shifts = PER_LAYER * self.layers.len();
        (shifts, shifts + self.shifts.len())
    }

    fn params(&self, parameters: &Parameters, rendering: Rendering) -> Vec<QParams> {
        let (_, first) = self.places();
        let blocks = self.ranges.iter().zip(&parameters[first..]);
        blocks.map(|(range, block)| range.params(&block.values, rendering)).collect()
    }

    /// The quantized model's parameters: those of blocks in `variable` as variables of a tape, the others as constants.
    pub(super) fn leaves(
        &self,
        parameters: &Parameters,
        rendering: Rendering,
        variable: &[bool],
    ) -> Result<Leaves, Error> {
        let leaf = |values: Vec<f32>, shape: &[usize], block: usize| -> Result<Value, Error> {
            Ok(match variable.get(block) {
                Some(true) => Var::from_vec(values, shape, &Device::Cpu)?.into_inner(),
                _ => Value::from_vec(values, shape, &Device::Cpu)?,
            })
        };
        let mut leaves = Leaves { weights: vec![], biases: vec![], shifts: vec![], groups: vec![] };
        let ranges = self.params(parameters, rendering);
        let (first_shift, first_range) = self.places();
        for (i, layer) in self.layers.iter().enumerate() {
            let block = PER_LAYER * i;
            let [weights, scales, bias] = [0, 1, 2].map(|part| parameters[block + part].values.as_slice());
            leaves.weights.push(leaf(layer.render(weights, scales, rendering), &layer.shape, block)?);
            let bias = layer.render_bias(scales, bias, layer.input.and_then(|range| ranges.get(range)));
            leaves.biases.push(leaf(bias, &[layer.outputs], block)?);
        }
        for (i, shift) in self.shifts.iter().enumerate() {
            let block = first_shift + i;
            leaves.shifts.push(leaf(shift.render(&parameters[block].values), &shift.shape, block)?);
        }
        for (i, (range, params)) in self.ranges.iter().zip(ranges).enumerate() {
            let (low, high) = range.levels(rendering);
            let block = first_range + i;
            leaves.groups.push(Quantizer {
                scale: leaf(vec![params.scale], &[1], block)?,
                zero_point: leaf(vec![params.zero_point as f32], &[1], block)?,
                low,
                high,
            });
        }
        Ok(leaves)
    }

    /// Gradients of the parameters for those of the leaves, which come in the order of [`Leaves::all`].
    pub(super) fn gradients(
        &self,
        parameters: &Parameters,
        of_leaves: &[Vec<f32>],
        rendering: Rendering,
    ) -> Parameters {
        let mut out = self.zeros();
        let (first_shift, first_range) = self.places();
        let (layers, rest) = of_leaves.split_at(2 * self.layers.len());
        let (shifts, ranges) = rest.split_at(self.shifts.len());
        for (i, (layer, leaves)) in self.layers.iter().zip(layers.chunks(2)).enumerate() {
            let block = PER_LAYER * i;
            let [weights, scales] = [0, 1].map(|part| parameters[block + part].values.as_slice());
            let (to_weights, to_scales) = layer.gradients(weights, scales, &leaves[0], rendering);
            out[block].values = to_weights;
            out[block + 1].values = to_scales;
            out[block + 2].values.iter_mut().zip(&leaves[1]).for_each(|(to, g)| *to = g * layer.unit);
        }
        for (i, (shift, leaf)) in self.shifts.iter().zip(shifts).enumerate() {
            out[first_shift + i].values = leaf.iter().map(|g| g * shift.unit).collect();
        }
        for (i, (range, leaves)) in self.ranges.iter().zip(ranges.chunks(2)).enumerate() {
            let g = |part: usize| leaves[part].first().copied().map_or(0.0, f64::from);
            let theta = &parameters[first_range + i].values;
            out[first_range + i].values = range.gradients(theta, g(0), g(1), rendering).to_vec();
        }
        out
    }

    /// Adds what regularizers of the weights ask for to gradients of the parameters.
    pub(super) fn regularize(&self, parameters: &Parameters, gradients: &mut Parameters, terms: &Regularizers) {
        for (i, layer) in self.layers.iter().enumerate() {
            let block = PER_LAYER * i;
            let [weights, scales] = [0, 1].map(|part| parameters[block + part].values.as_slice());
            // As in EQ-Net's code, the first layer is left as it is.
            let shape = if i == 0 { 0.0 } else { terms.shape / self.layers.len() as f64 };
            layer.regularize(weights, scales, &Regularizers { shape, ..*terms }, &mut gradients[block].values);
        }
    }

    /// The outcome that these parameters stand for.
    pub(super) fn outcome(&self, parameters: &Parameters, start: &Outcome) -> Outcome {
        let mut outcome = start.clone();
        let (first_shift, _) = self.places();
        let ranges = self.params(parameters, Rendering::Exact);
        for (range, params) in self.ranges.iter().zip(&ranges) {
            for value in &range.group.values {
                outcome.activations.insert(value.clone(), *params);
            }
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let [weights, theta, bias] = [0, 1, 2].map(|part| parameters[PER_LAYER * i + part].values.as_slice());
            let scales = layer.scales(theta);
            let integers: Vec<i32> = layer.integers(weights, &scales).iter().map(|&q| q as i32).collect();
            let input = layer.input.and_then(|range| ranges.get(range)).map_or(1.0, |params| params.scale);
            let bias = layer.bias.as_ref().map(|start| {
                let values = start.iter().zip(bias).map(|(b, theta)| f64::from(b + layer.unit * theta));
                Bias::new(values, input, &scales)
            });
            let weights = Tensor::from_ints(layer.dtype, &layer.shape, &integers);
            let made = Quantized { weights, scales, axis: layer.axis, block: None, bias };
            outcome.layers.insert(layer.node.clone(), made);
        }
        for (shift, block) in self.shifts.iter().zip(&parameters[first_shift..]) {
            if block.values.iter().any(|theta| *theta != 0.0) {
                let values = Tensor::from_f32(&shift.shape, &shift.render(&block.values));
                outcome.constants.insert(shift.node.clone(), values);
            }
        }
        outcome
    }
}
