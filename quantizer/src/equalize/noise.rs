//! Predicted quantization noise as a function of the channels' factors.
//!
//! Rounding to a step Δ adds noise of power Δ²/12. With factor `m` for each channel (the channel's values become `m`
//! times what they were), the noise of the model's outputs is, to first order, the sum of
//!
//! - for each set of activations that share a step: `Δ²/12 · Σ_c t_c / m_c²`, where Δ is the range of the channels times
//!   their factors, over the number of steps, and `t_c` the power that noise of power 1 in channel `c` has in the outputs;
//! - for each row `r` of weights: `Δ_r²/12 · t_r / m_r² · Σ_c m_c² · E x_c²`, where Δ_r is the greatest
//!   `|w_rc| · m_r / m_c`, over the number of steps (over the greatest of all rows where they share a scale).
//!
//! Both are generalized posynomials of the factors, so the logarithm of the sum is convex in their logarithms (Boyd et al.,
//! "A tutorial on geometric programming", 2007, section 5): descent finds the best factors.
//!
//! `t` follows errors back from the outputs through weights (column norms), clamps (share of active elements) and means;
//! where channels are fixed, the error relative to the value's power counts too.

use std::collections::BTreeMap;

use super::channels::{Channels, FIXED, Flow, Form, Linear, Place};
use super::layout::Layout;
use super::statistics::{ChannelMoments, ChannelStatistics};
use crate::graph::{Graph, Node};
use crate::quantize::{self, Config};

/// How finely values are quantized.
#[derive(Debug, Clone, PartialEq)]
pub struct Precision {
    /// Steps of activations over their range, such as 255.
    pub activation_steps: f64,
    /// Whether the range of activations reaches as far below zero as above.
    pub symmetric: bool,
    /// Steps of weights up to the greatest magnitude, such as 127, for each node.
    pub weight_steps: BTreeMap<String, f64>,
    /// Whether each row of weights has its own scale.
    pub per_row: bool,
}

impl Precision {
    /// That of a configuration.
    pub fn of(graph: &Graph, config: &Config) -> Self {
        let activations = quantize::activation_levels(config);
        let steps = |node: &Node| (node.name.clone(), f64::from(quantize::levels(config, &node.name).1.high));
        Self {
            activation_steps: f64::from(activations.high - activations.low),
            symmetric: activations.symmetric,
            weight_steps: graph.nodes.iter().map(steps).collect(),
            per_row: config.per_channel,
        }
    }
}

/// The noise of a graph.
#[derive(Debug, Clone)]
pub(super) struct Noise {
    pub(super) activations: Vec<Activation>,
    pub(super) layers: Vec<Layer>,
    pub(super) per_row: bool,
}

/// Activations that share a step.
#[derive(Debug, Clone)]
pub(super) struct Activation {
    steps: f64,
    pub(super) channels: Vec<Channel>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Channel {
    pub(super) variable: usize,
    pub(super) low: f64,
    pub(super) high: f64,
    effect: f64,
}

#[derive(Debug, Clone)]
pub(super) struct Layer {
    steps: f64,
    pub(super) form: Form,
    pub(super) rows: Vec<usize>,
    pub(super) columns: Vec<usize>,
    /// Power in the outputs of noise of power 1 in each row's result.
    effects: Vec<f64>,
    /// Second moment of each column's input, times the taps that land on an output.
    powers: Vec<f64>,
    /// The greatest magnitude of each row's weights for each column of its group.
    pub(super) greatest: Vec<f32>,
}

/// Adds to a gradient; `None` where only the value is wanted.
type Gradient<'a> = Option<&'a mut [f64]>;

impl Noise {
    pub(super) fn of(graph: &Graph, channels: &Channels, seen: &ChannelStatistics, precision: &Precision) -> Self {
        let effects = Effects::of(graph, channels, seen);
        let activation = |values: &Vec<String>| {
            let parts = values.iter().filter_map(|value| {
                let (layout, moments) = (channels.layouts.get(value)?, seen.value(value)?);
                let effects = effects.of_labels(value)?;
                let one = |((&label, moments), effect): ((&usize, &ChannelMoments), f64)| {
                    let (low, high) = (moments.low(), moments.high());
                    let (low, high) = if precision.symmetric { (low.max(high), low.max(high)) } else { (low, high) };
                    // Zero is represented exactly.
                    Channel { variable: channels.variable[label], low, high, effect: effect * moments.active() }
                };
                Some(layout.labels().iter().zip(moments).zip(effects).map(one).collect::<Vec<Channel>>())
            });
            Activation { steps: precision.activation_steps, channels: parts.flatten().collect() }
        };
        let layer = |linear: &Linear| {
            let node = graph.nodes.get(linear.node)?;
            let weights = graph.initializers.get(node.input(1)?)?.to_f32();
            let mut greatest = vec![0f32; linear.form.rows * linear.form.groups * linear.form.columns];
            for (i, w) in weights.iter().enumerate() {
                let (row, column) = linear.form.place(i);
                let pair = &mut greatest[row * linear.form.columns + column % linear.form.columns];
                *pair = pair.max(w.abs());
            }
            let powers = powers(channels, seen, linear)?;
            Some(Layer {
                steps: precision.weight_steps.get(&node.name).copied().unwrap_or(127.0),
                form: linear.form,
                rows: channels.variables_of(&linear.rows),
                columns: channels.variables_of(&linear.columns),
                effects: effects.of_labels(&linear.output)?,
                powers: powers.into_iter().map(|power| power * linear.form.landing()).collect(),
                greatest,
            })
        };
        Self {
            activations: channels.quantized.iter().map(activation).filter(|a| !a.channels.is_empty()).collect(),
            layers: channels.linears().filter_map(layer).collect(),
            per_row: precision.per_row,
        }
    }

    /// Number of products of a row and a column: what one evaluation takes.
    pub(super) fn work(&self) -> usize {
        self.layers.iter().map(|layer| layer.greatest.len()).sum()
    }

    /// The noise for the logarithms of the factors.
    pub(super) fn at(&self, logs: &[f64]) -> f64 {
        self.evaluate(logs, f64::INFINITY, None)
    }

    /// The noise with every greatest of several numbers replaced by their norm of degree `degree`, and its gradient.
    pub(super) fn smooth(&self, logs: &[f64], degree: f64, gradient: &mut [f64]) -> f64 {
        gradient.fill(0.0);
        self.evaluate(logs, degree, Some(gradient))
    }

    fn evaluate(&self, logs: &[f64], degree: f64, mut gradient: Gradient<'_>) -> f64 {
        let mut total = 0.0;
        for activation in &self.activations {
            total += activation.evaluate(logs, degree, gradient.as_deref_mut());
        }
        for layer in &self.layers {
            total += layer.evaluate(logs, degree, self.per_row, gradient.as_deref_mut());
        }
        total
    }
}

impl Activation {
    fn evaluate(&self, logs: &[f64], degree: f64, gradient: Gradient<'_>) -> f64 {
        let factor = |channel: &Channel| logs[channel.variable].exp();
        let effect: f64 = self.channels.iter().map(|c| c.effect / factor(c).powi(2)).sum();
        let side = |of: fn(&Channel) -> f64| norm(self.channels.iter().map(|c| of(c) * factor(c)), degree);
        let (low, high) = (side(|c| c.low), side(|c| c.high));
        let range = low + high;
        let unit = 1.0 / (12.0 * self.steps * self.steps);
        if let Some(gradient) = gradient {
            for c in self.channels.iter().filter(|c| c.variable != FIXED) {
                let m = factor(c);
                let slope = share(c.low * m, low, degree) * low + share(c.high * m, high, degree) * high;
                gradient[c.variable] += 2.0 * unit * range * (effect * slope - range * c.effect / (m * m));
            }
        }
        unit * range * range * effect
    }
}

impl Layer {
    fn evaluate(&self, logs: &[f64], degree: f64, per_row: bool, gradient: Gradient<'_>) -> f64 {
        let row_factors: Vec<f64> = self.rows.iter().map(|&v| logs[v].exp()).collect();
        let column_factors: Vec<f64> = self.columns.iter().map(|&v| logs[v].exp()).collect();
        let unit = 1.0 / (12.0 * self.steps * self.steps);
        let powers: Vec<f64> = self.powers.iter().zip(&column_factors).map(|(p, m)| p * m * m).collect();
        let group_power: Vec<f64> = powers.chunks(self.form.columns).map(|group| group.iter().sum()).collect();
        // Over the columns of the row's group.
        let scaled = |row: usize| {
            let group = row / self.form.rows * self.form.columns;
            let weights = &self.greatest[row * self.form.columns..][..self.form.columns];
            let columns = &column_factors[group..][..self.form.columns];
            weights.iter().zip(columns).map(|(&w, m)| f64::from(w) / m)
        };
        let greatest: Vec<f64> = (0..self.rows.len()).map(|row| norm(scaled(row), degree)).collect();
        let ranges = greatest.iter().zip(&row_factors).map(|(g, m)| g * m);
        let shared = if per_row { 0.0 } else { norm(ranges, degree) };
        // Noise of each row over the power of its inputs.
        let step = |row: usize| if per_row { greatest[row] } else { shared / row_factors[row] };
        let noises: Vec<f64> = (0..self.rows.len()).map(|row| unit * self.effects[row] * step(row).powi(2)).collect();
        let noise = |row: usize| noises[row] * group_power[row / self.form.rows];
        let total: f64 = (0..self.rows.len()).map(noise).sum();
        let Some(gradient) = gradient else { return total };
        let mut column_slopes = vec![0.0; self.columns.len()];
        for row in 0..self.rows.len() {
            let group = row / self.form.rows * self.form.columns;
            // How much of the total's slope by the range comes from this row.
            let part = match per_row {
                true => noise(row),
                false => total * share(greatest[row] * row_factors[row], shared, degree),
            };
            for (column, w) in scaled(row).enumerate() {
                column_slopes[group + column] -= 2.0 * part * share(w, greatest[row], degree);
            }
            if !per_row && self.rows[row] != FIXED {
                gradient[self.rows[row]] += 2.0 * (part - noise(row));
            }
        }
        let mut group_noise = vec![0.0; self.form.groups];
        noises.iter().enumerate().for_each(|(row, noise)| group_noise[row / self.form.rows] += noise);
        for (column, &variable) in self.columns.iter().enumerate().filter(|(_, variable)| **variable != FIXED) {
            let slope = 2.0 * powers[column] * group_noise[column / self.form.columns];
            gradient[variable] += column_slopes[column] + slope;
        }
        total
    }
}

/// The norm of numbers that are not negative; of infinite degree: the greatest.
fn norm(values: impl Iterator<Item = f64> + Clone, degree: f64) -> f64 {
    let greatest = values.clone().fold(0.0, f64::max);
    if degree.is_infinite() || greatest <= 0.0 {
        return greatest;
    }
    greatest * values.map(|v| power(v / greatest, degree)).sum::<f64>().powf(1.0 / degree)
}

/// The share of one number in the slope of their norm: `(v / norm)^degree`.
fn share(value: f64, norm: f64, degree: f64) -> f64 {
    if norm > 0.0 { power(value / norm, degree) } else { 0.0 }
}

/// A power of a number of at most 1; small ones are 0.
fn power(x: f64, degree: f64) -> f64 {
    // Degrees are whole numbers: a few products instead of a logarithm and an exponential.
    if x < 0.3 && degree > 16.0 { 0.0 } else { x.powi(degree as i32) }
}

/// Second moment of each column's input.
fn powers(channels: &Channels, seen: &ChannelStatistics, linear: &Linear) -> Option<Vec<f64>> {
    let origin = channels.origin(&linear.input);
    let (layout, moments) = (channels.layouts.get(origin)?, seen.value(origin)?);
    let mean =
        |moments: &[&ChannelMoments]| moments.iter().map(|m| m.power()).sum::<f64>() / moments.len().max(1) as f64;
    let mut by_label: BTreeMap<usize, Vec<&ChannelMoments>> = BTreeMap::new();
    for (&label, moments) in layout.labels().iter().zip(moments) {
        by_label.entry(label).or_default().push(moments);
    }
    let all: Vec<&ChannelMoments> = moments.iter().collect();
    Some(linear.columns.iter().map(|label| mean(by_label.get(label).unwrap_or(&all))).collect())
}

/// The power in the outputs of noise of power 1 in all elements of a variable of a value, relative to the outputs' power.
struct Effects<'c> {
    channels: &'c Channels,
    /// For each value, by variable.
    totals: BTreeMap<&'c str, BTreeMap<usize, f64>>,
}

impl<'c> Effects<'c> {
    fn of(graph: &Graph, channels: &'c Channels, seen: &ChannelStatistics) -> Self {
        let mut effects = Self { channels, totals: BTreeMap::new() };
        for end in &channels.ends {
            let origin = channels.origin(end);
            let (Some(layout), Some(moments)) = (channels.layouts.get(origin), seen.value(origin)) else { continue };
            let power = total_power(layout, moments);
            for (&label, count) in layout.labels().iter().zip(layout.counts()).filter(|_| power > 0.0) {
                effects.add(end, channels.variable[label], count as f64 / power);
            }
        }
        // Flows are in the order of the nodes.
        for flow in channels.flows.iter().rev() {
            match flow {
                Flow::Pass { from, to, gain, gated } => {
                    let active = if *gated { seen.value(channels.origin(to)) } else { None };
                    effects.pass(from, to, *gain, active);
                }
                Flow::Linear(place) => {
                    if let Some(Place::Linear(linear)) = channels.places.get(*place) {
                        effects.linear(graph, linear);
                    }
                }
            }
        }
        effects
    }

    fn add(&mut self, value: &'c str, variable: usize, effect: f64) {
        *self.totals.entry(value).or_default().entry(variable).or_default() += effect;
    }

    fn pass(&mut self, from: &'c str, to: &'c str, gain: f64, seen: Option<&[ChannelMoments]>) {
        let totals = self.totals.get(to).cloned().unwrap_or_default();
        let mut active: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        let labels = self.channels.layouts.get(to).map(Layout::labels).unwrap_or_default();
        for (&label, moments) in labels.iter().zip(seen.unwrap_or_default()) {
            let entry = active.entry(self.channels.variable[label]).or_default();
            *entry = (entry.0 + moments.nonzero as f64, entry.1 + moments.count as f64);
        }
        for (variable, total) in totals {
            let share = active.get(&variable).filter(|(_, all)| *all > 0.0).map_or(1.0, |(some, all)| some / all);
            self.add(from, variable, gain * share * total);
        }
    }

    fn linear(&mut self, graph: &Graph, linear: &'c Linear) {
        let weights = graph.nodes.get(linear.node).and_then(|node| graph.initializers.get(node.input(1)?));
        let (Some(weights), Some(rows)) = (weights, self.of_labels(&linear.output)) else { return };
        let mut columns = vec![0.0; linear.columns.len()];
        for (i, w) in weights.to_f32().into_iter().enumerate() {
            let (row, column) = linear.form.place(i);
            columns[column] += rows[row] * f64::from(w).powi(2) / linear.form.spread as f64;
        }
        for (&label, effect) in linear.columns.iter().zip(columns) {
            self.add(&linear.input, self.channels.variable[label], effect);
        }
    }

    /// The effect of each label of a value's layout: a variable's is divided among its labels by elements.
    fn of_labels(&self, value: &str) -> Option<Vec<f64>> {
        let layout = self.channels.layouts.get(value)?;
        let totals = self.totals.get(value);
        let counts = layout.counts();
        let variables = self.channels.variables_of(layout.labels());
        let mut elements: BTreeMap<usize, usize> = BTreeMap::new();
        for (&variable, count) in variables.iter().zip(&counts) {
            *elements.entry(variable).or_default() += count;
        }
        let effect = |(variable, &count): (&usize, &usize)| {
            let total = totals.and_then(|totals| totals.get(variable)).copied().unwrap_or(0.0);
            total * count as f64 / elements.get(variable).copied().unwrap_or(1).max(1) as f64
        };
        Some(variables.iter().zip(&counts).map(effect).collect())
    }
}

/// Power of a value in a sample, over all its elements.
fn total_power(layout: &Layout, moments: &[ChannelMoments]) -> f64 {
    layout.counts().iter().zip(moments).map(|(&count, moments)| count as f64 * moments.power()).sum()
}
