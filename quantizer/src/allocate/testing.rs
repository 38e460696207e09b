//! Tables for tests, and the optimum by trying everything.

use super::{Allocation, LayerOptions, OptionRow, Table, limit};
use crate::random::Random;

/// A table of (damage, cost).
pub(super) fn table(layers: &[&[(f64, f64)]]) -> Table {
    let layer = |(i, options): (usize, &&[(f64, f64)])| LayerOptions {
        name: format!("layer {i}"),
        options: options
            .iter()
            .enumerate()
            .map(|(k, &(damage, cost))| OptionRow { label: format!("option {k}"), damage, cost })
            .collect(),
    };
    Table { layers: layers.iter().enumerate().map(layer).collect() }
}

/// Layers of very different size and sensitivity whose damage falls with cost, as bits do.
pub(super) fn random_table(layers: usize, options: usize, seed: u64) -> Table {
    let mut random = Random::new(seed);
    let rows: Vec<Vec<(f64, f64)>> = (0..layers)
        .map(|_| {
            let size = (random.uniform() * 6.0).exp();
            let sensitivity = (random.normal() * 1.5).exp();
            let mut bits = 8.0;
            (0..options)
                .map(|_| {
                    let row = (sensitivity * 4f64.powf(-bits) * (0.7 + 0.6 * random.uniform()), size * bits);
                    bits -= 6.0 / options as f64;
                    row
                })
                .collect()
        })
        .collect();
    table(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// All allocations of a table.
pub(super) fn all(table: &Table) -> Vec<Allocation> {
    let mut choices = vec![Vec::new()];
    for layer in &table.layers {
        choices = choices
            .into_iter()
            .flat_map(|choice: Vec<usize>| (0..layer.options.len()).map(move |k| [&choice[..], &[k]].concat()))
            .collect();
    }
    choices.into_iter().map(|choice| table.allocation(choice)).collect()
}

/// The least damage within a cost, if there is any.
pub(super) fn brute_force(table: &Table, budget: f64) -> Option<f64> {
    all(table).into_iter().filter(|a| a.cost <= limit(budget)).map(|a| a.damage).min_by(f64::total_cmp)
}
