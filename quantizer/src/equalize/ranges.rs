//! Ranges of rows, columns and activations for each variable.

use super::noise::{Layer, Noise};

/// Logarithms of ranges, for each variable.
#[derive(Debug, Clone)]
pub(super) struct Ranges {
    rows: Vec<Mean>,
    columns: Vec<Mean>,
    activations: Vec<Mean>,
    /// The greatest share that a weight of the variable's columns has of the greatest that shares its step.
    shares: Vec<f64>,
}

/// A mean of logarithms.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: f64,
    /// Whether one of the ranges was zero.
    dead: bool,
}

impl Mean {
    fn add(&mut self, range: f64) {
        if range > 0.0 {
            self.sum += range.ln();
            self.count += 1.0;
        } else {
            self.dead = true;
        }
    }

    fn get(self) -> Option<f64> {
        (self.count > 0.0 && !self.dead).then(|| self.sum / self.count)
    }
}

impl Ranges {
    /// The ranges of weights with factors of these logarithms, and of activations without.
    pub(super) fn of(noise: &Noise, logs: &[f64]) -> Self {
        let count = logs.len();
        let mut ranges = Self {
            rows: vec![Mean::default(); count],
            columns: vec![Mean::default(); count],
            activations: vec![Mean::default(); count],
            shares: vec![0.0; count],
        };
        for layer in &noise.layers {
            ranges.layer(layer, noise.per_row, logs);
        }
        for activation in &noise.activations {
            let greatest = activation.channels.iter().map(|c| c.low + c.high).fold(0.0, f64::max);
            for channel in activation.channels.iter().filter(|_| greatest > 0.0) {
                ranges.activations[channel.variable].add((channel.low + channel.high) / greatest);
            }
        }
        ranges
    }

    fn layer(&mut self, layer: &Layer, per_row: bool, logs: &[f64]) {
        let width = layer.form.columns;
        let mut row_ranges = vec![0f64; layer.rows.len()];
        let mut column_ranges = vec![0f64; layer.columns.len()];
        let row_greatest: Vec<f32> =
            layer.greatest.chunks(width.max(1)).map(|row| row.iter().copied().fold(0.0, f32::max)).collect();
        let greatest = row_greatest.iter().copied().fold(0.0, f32::max);
        for (i, &w) in layer.greatest.iter().enumerate() {
            let (row, column) = (i / width, i / width / layer.form.rows * width + i % width);
            let scaled = f64::from(w) * (logs[layer.rows[row]] - logs[layer.columns[column]]).exp();
            row_ranges[row] = row_ranges[row].max(scaled);
            column_ranges[column] = column_ranges[column].max(scaled);
            let most = if per_row { row_greatest[row] } else { greatest };
            let share = &mut self.shares[layer.columns[column]];
            if most > 0.0 {
                *share = share.max(f64::from(w / most));
            }
        }
        layer.rows.iter().zip(row_ranges).for_each(|(&variable, range)| self.rows[variable].add(range));
        layer.columns.iter().zip(column_ranges).for_each(|(&variable, range)| self.columns[variable].add(range));
    }

    /// Mean logarithms of the ranges of the rows that make a variable and of the columns that read it; `None` where
    /// there are none of either, or one is zero.
    pub(super) fn weights(&self, variable: usize) -> Option<(f64, f64)> {
        self.rows[variable].get().zip(self.columns[variable].get())
    }

    /// Logarithms of a variable's range in its activations and of its greatest weight, both relative to what shares their
    /// step; `None` where one is zero.
    pub(super) fn migration(&self, variable: usize) -> Option<(f64, f64)> {
        let share = Some(self.shares[variable]).filter(|&share| share > 0.0);
        self.activations[variable].get().zip(share.map(f64::ln))
    }
}
