//! Factors taken in by what makes channels and given back by what reads them.

use std::collections::BTreeMap;

use super::channels::{Channels, Linear, Place};
use crate::graph::{Graph, Tensor};

/// The graph with every channel multiplied by its variable's factor. Computes the same outputs up to f32 rounding.
pub(super) fn rewrite(graph: &Graph, channels: &Channels, factors: &[f64]) -> Graph {
    let mut rewrite = Rewrite { out: graph.clone(), made: BTreeMap::new() };
    let of = |label: usize| factors[channels.variable[label]];
    for place in &channels.places {
        match place {
            Place::Linear(linear) => rewrite.linear(linear, of),
            Place::Affine { node, labels } => {
                for input in 1..3 {
                    rewrite.constant(*node, input, |i| labels.get(i).map_or(1.0, |&label| of(label)));
                }
            }
            Place::Constant { node, input, layout } => {
                let labels = layout.elements();
                rewrite.constant(*node, *input, |i| labels.get(i).map_or(1.0, |&label| of(label)));
            }
        }
    }
    rewrite.out.remove_unused();
    rewrite.out
}

struct Rewrite {
    out: Graph,
    /// What each original constant became, for other nodes that read it with the same factors.
    made: BTreeMap<String, Vec<String>>,
}

impl Rewrite {
    fn linear(&mut self, linear: &Linear, of: impl Fn(usize) -> f64) {
        let weight = |i: usize| {
            let (row, column) = linear.form.place(i);
            of(linear.rows[row]) / of(linear.columns[column])
        };
        self.constant(linear.node, 1, weight);
        if self.out.nodes[linear.node].op_type != "MatMul" {
            self.constant(linear.node, 2, |row| linear.rows.get(row).map_or(1.0, |&label| of(label)));
        }
    }

    /// Multiplies each element of a constant input by its factor. Other readers of the constant keep it as it was.
    fn constant(&mut self, node: usize, input: usize, factor: impl Fn(usize) -> f64) {
        let Some(name) = self.out.nodes[node].input(input).map(str::to_owned) else { return };
        let Some(tensor) = self.out.initializers.get(&name) else { return };
        let factors: Vec<f64> = (0..tensor.len()).map(factor).collect();
        if factors.iter().all(|&factor| factor == 1.0) {
            return;
        }
        let scaled: Vec<f32> =
            tensor.to_f32().iter().zip(&factors).map(|(&v, factor)| (f64::from(v) * factor) as f32).collect();
        let scaled = Tensor::from_f32(&tensor.shape, &scaled);
        let known =
            self.made.get(&name).into_iter().flatten().find(|made| self.out.initializers.get(*made) == Some(&scaled));
        let fresh = match known {
            Some(made) => made.clone(),
            None => {
                let fresh = self.out.fresh_name(&format!("{name}_equalized"));
                self.out.initializers.insert(fresh.clone(), scaled);
                self.made.entry(name).or_default().push(fresh.clone());
                fresh
            }
        };
        self.out.nodes[node].inputs[input] = fresh;
    }
}
