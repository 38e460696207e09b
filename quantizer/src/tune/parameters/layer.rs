//! The weights of a layer, and float constants added after one.

use super::super::{distribution, soft};
use super::{Regularizers, Rendering};
use crate::diff::FakeQuant;
use crate::graph::{DataType, Tensor};
use crate::quantize::{Layer as Quantized, QParams};

/// How far a latent weight is kept from the ends of the cell of its integer at the start, in steps.
const MARGIN: f32 = 1e-3;
/// Steps of the wide rendering in one step of 4 bits.
const WIDE: i32 = 16;

/// A layer's start.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) node: String,
    pub(super) shape: Vec<usize>,
    pub(super) dtype: DataType,
    /// Lowest and highest integer.
    levels: (i32, i32),
    pub(super) axis: usize,
    /// Number of weights that follow each other with the same scale.
    run: usize,
    /// Latent weights, each in the cell of the integer that the outcome has for it.
    pub(super) weights: Vec<f32>,
    pub(super) scales: Vec<f32>,
    pub(super) bias: Option<Vec<f32>>,
    pub(super) outputs: usize,
    /// Unit of the bias.
    pub(super) unit: f32,
    /// The range its input is quantized with.
    pub(super) input: Option<usize>,
    /// Whether the parameters of the weights are the variables of soft rounding.
    soft: bool,
}

impl Layer {
    /// The start from float weights and what an outcome makes of them; `None` when they do not fit.
    pub(super) fn new(float: &Tensor, quantized: &Quantized, outputs: usize, soft: bool) -> Option<Self> {
        let (float, integers) = (float.to_f32(), quantized.weights.to_i64());
        let scales = quantized.scales.clone();
        if integers.len() != float.len() || scales.is_empty() {
            return None;
        }
        let levels = match quantized.weights.dtype {
            // int8 is used symmetrically, and only 7 bits of it where CPUs without VNNI ask for that.
            DataType::I8 if integers.iter().all(|q| q.abs() <= 64) => (-64, 64),
            DataType::I8 => (-127, 127),
            dtype => dtype.quantized_range()?,
        };
        let run = match scales.len() {
            1 => float.len(),
            _ => quantized.weights.shape.get(quantized.axis + 1..)?.iter().product(),
        };
        let bias = quantized.bias.as_ref().map(|bias| {
            let values = bias.values.to_i64().into_iter().enumerate();
            values.map(|(i, q)| q as f32 * bias.scales[i % bias.scales.len().max(1)]).collect()
        });
        let mut layer = Self {
            node: String::new(),
            shape: quantized.weights.shape.clone(),
            dtype: quantized.weights.dtype,
            levels,
            axis: quantized.axis,
            run: run.max(1),
            weights: Vec::new(),
            scales,
            bias,
            outputs,
            unit: 0.0,
            input: None,
            soft,
        };
        let latent = |(i, (&w, &q)): (usize, (&f32, &i64))| {
            // As near to the float weight as the cell of the integer allows.
            let (scale, q) = (layer.scales[layer.channel(i)], q as f32);
            let least = if q <= levels.0 as f32 { f32::NEG_INFINITY } else { q - 0.5 + MARGIN };
            let most = if q >= levels.1 as f32 { f32::INFINITY } else { q + 0.5 - MARGIN };
            (w / scale).max(least).min(most) * scale
        };
        layer.weights = float.iter().zip(&integers).enumerate().map(latent).collect();
        Some(layer)
    }

    /// The index of the scale of weight `i`.
    fn channel(&self, i: usize) -> usize {
        i / self.run % self.scales.len()
    }

    pub(super) fn scales(&self, theta: &[f32]) -> Vec<f32> {
        self.scales.iter().zip(theta).map(|(scale, theta)| scale * theta.exp()).collect()
    }

    fn latent(&self, theta: &[f32]) -> Vec<f32> {
        let weights = self.weights.iter().zip(theta).enumerate();
        weights.map(|(i, (w, theta))| w + self.scales[self.channel(i)] * theta).collect()
    }

    /// What weight `i` starts at, in steps.
    fn start(&self, i: usize) -> f32 {
        self.weights[i] / self.scales[self.channel(i)]
    }

    /// How many times finer the steps are.
    fn refinement(&self, rendering: Rendering) -> i32 {
        if rendering == Rendering::Wide && self.dtype == DataType::I4 { WIDE } else { 1 }
    }

    fn quantizer(&self, rendering: Rendering) -> FakeQuant {
        let finer = self.refinement(rendering);
        FakeQuant::new(self.levels.0 * finer, self.levels.1 * finer + finer - 1)
    }

    /// The integers, as floats.
    pub(super) fn integers(&self, theta: &[f32], scales: &[f32]) -> Vec<f32> {
        let (low, high) = (self.levels.0 as f32, self.levels.1 as f32);
        if self.soft {
            let rounded = theta.iter().enumerate().map(|(i, theta)| soft::decided(self.start(i), *theta));
            return rounded.map(|q| q.max(low).min(high)).collect();
        }
        let latent = self.latent(theta).into_iter().enumerate();
        latent.map(|(i, w)| (w / scales[self.channel(i)]).round_ties_even().max(low).min(high)).collect()
    }

    /// The weights.
    pub(super) fn render(&self, theta: &[f32], scales: &[f32], rendering: Rendering) -> Vec<f32> {
        let scales = self.scales(scales);
        let (low, high) = (self.levels.0 as f32, self.levels.1 as f32);
        let steps: Vec<f32> = match rendering {
            Rendering::Relaxed if self.soft => {
                let relaxed = theta.iter().enumerate().map(|(i, theta)| soft::relaxed(self.start(i), *theta));
                relaxed.map(|q| q.max(low).min(high)).collect()
            }
            Rendering::Wide if !self.soft => {
                let finer = self.refinement(rendering) as f32;
                let quant = self.quantizer(rendering);
                let latent = self.latent(theta).into_iter().enumerate();
                let round = |(i, w): (usize, f32)| {
                    (w * finer / scales[self.channel(i)]).round_ties_even().max(quant.low).min(quant.high) / finer
                };
                latent.map(round).collect()
            }
            _ => self.integers(theta, &scales),
        };
        steps.into_iter().enumerate().map(|(i, q)| q * scales[self.channel(i)]).collect()
    }

    /// The bias (zeros if there is none) on its grid, whose steps are products of the input's scale and the weights'.
    pub(super) fn render_bias(&self, scales: &[f32], theta: &[f32], input: Option<&QParams>) -> Vec<f32> {
        let Some(start) = &self.bias else { return vec![0.0; self.outputs] };
        let scales = self.scales(scales);
        let values = start.iter().zip(theta).enumerate();
        values
            .map(|(i, (b, theta))| {
                let b = b + self.unit * theta;
                match input.map(|params| params.scale * scales[i % scales.len()]) {
                    Some(step) => (f64::from(b) / f64::from(step)).round_ties_even() as f32 * step,
                    None => b,
                }
            })
            .collect()
    }

    /// Gradients of the parameters of weights and scales for the gradient `g` of the weights.
    pub(super) fn gradients(
        &self,
        theta: &[f32],
        scales: &[f32],
        g: &[f32],
        rendering: Rendering,
    ) -> (Vec<f32>, Vec<f32>) {
        let scales = self.scales(scales);
        let mut to_weights = vec![0.0; g.len()];
        let mut to_scales = vec![0.0f64; scales.len()];
        if self.soft {
            let (low, high) = (self.levels.0 as f32, self.levels.1 as f32);
            for (i, (to, &g)) in to_weights.iter_mut().zip(g).enumerate() {
                let (channel, q) = (self.channel(i), soft::relaxed(self.start(i), theta[i]));
                if q >= low && q <= high {
                    *to = g * scales[channel] * soft::slope(self.start(i), theta[i]);
                }
                to_scales[channel] += f64::from(g * q.max(low).min(high));
            }
        } else {
            let (latent, quant) = (self.latent(theta), self.quantizer(rendering));
            let finer = self.refinement(rendering) as f32;
            for first in (0..latent.len()).step_by(self.run) {
                let (run, channel) = (first..first + self.run, self.channel(first));
                let found = quant.backward(&latent[run.clone()], &g[run.clone()], scales[channel] / finer, 0.0);
                to_scales[channel] += found.scale / f64::from(finer);
                let to = to_weights[run].iter_mut().zip(found.x);
                to.for_each(|(to, g)| *to = g * self.scales[channel]);
            }
        }
        let to_scales = to_scales.iter().zip(&scales).map(|(&g, scale)| g as f32 * scale);
        (to_weights, to_scales.collect())
    }

    /// Adds the gradients of regularizers.
    pub(super) fn regularize(&self, theta: &[f32], scales: &[f32], terms: &Regularizers, gradients: &mut [f32]) {
        if self.soft {
            let (factor, exponent) = terms.decided;
            for (i, (to, theta)) in gradients.iter_mut().zip(theta).enumerate() {
                *to += (factor * soft::indecision_slope(self.start(i), *theta, exponent)) as f32;
            }
            return;
        }
        if terms.anchor > 0.0 {
            let factor = (2.0 * terms.anchor / theta.len().max(1) as f64) as f32;
            gradients.iter_mut().zip(theta).for_each(|(to, theta)| *to += factor * theta);
        }
        if terms.shape > 0.0 {
            let scales = self.scales(scales);
            let steps: Vec<f64> = self
                .latent(theta)
                .iter()
                .enumerate()
                .map(|(i, w)| f64::from(*w) / f64::from(scales[self.channel(i)]))
                .collect();
            let slopes = distribution::Distribution::new(&steps).gradient();
            // A parameter of 1 is one step of the scale at the start.
            for (i, (to, slope)) in gradients.iter_mut().zip(slopes).enumerate() {
                let channel = self.channel(i);
                *to += (terms.shape * slope) as f32 * self.scales[channel] / scales[channel];
            }
        }
    }
}

/// A float constant's start.
#[derive(Debug, Clone)]
pub(super) struct Shift {
    pub(super) node: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
    pub(super) unit: f32,
}

impl Shift {
    pub(super) fn render(&self, theta: &[f32]) -> Vec<f32> {
        self.values.iter().zip(theta).map(|(v, theta)| v + self.unit * theta).collect()
    }
}
