//! Second moments of a layer's inputs, in the float model and after the quantized layers before.

use super::linalg;

/// What the moments between the float model and the quantized one are of.
#[derive(Debug, Clone, Copy)]
pub enum Crossed<'w> {
    /// The float inputs: `depth × depth` sums.
    Inputs,
    /// The float outputs, by the weights (`rows × depth`): `rows × depth` sums.
    Outputs(&'w [f32]),
}

impl<'w> Crossed<'w> {
    /// The one that takes less work for these weights.
    pub fn cheaper(weights: &'w [f32], depth: usize) -> Self {
        if 2 * weights.len() < depth * depth { Self::Outputs(weights) } else { Self::Inputs }
    }

    fn rows(self, depth: usize) -> usize {
        match self {
            Self::Inputs => depth,
            Self::Outputs(weights) => weights.len() / depth.max(1),
        }
    }
}

/// Sums over patches of one group: of `x̂` and `x`, `x̂ x̂ᵀ`, and `x x̂ᵀ` or `w x x̂ᵀ` ([`Crossed`]).
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    depth: usize,
    count: f64,
    sum: Vec<f64>,
    sum_q: Vec<f64>,
    gram: Vec<f64>,
    cross: Vec<f64>,
    /// Whether `cross` is of outputs.
    outputs: bool,
}

/// The same over some patches, in f32: what threads make.
#[derive(Debug, Clone, PartialEq)]
pub struct Partial {
    count: usize,
    sum: Vec<f32>,
    sum_q: Vec<f32>,
    gram: Vec<f32>,
    cross: Vec<f32>,
}

impl Partial {
    /// The moments of patches, `[count, depth]` each.
    pub fn of(float: &[f32], quantized: &[f32], depth: usize, crossed: Crossed<'_>) -> Self {
        let count = float.len() / depth.max(1);
        let sum = |patches: &[f32]| {
            let mut sum = vec![0.0; depth];
            for patch in patches.chunks(depth.max(1)) {
                sum.iter_mut().zip(patch).for_each(|(s, x)| *s += x);
            }
            sum
        };
        let rows = crossed.rows(depth);
        let cross = match crossed {
            Crossed::Inputs => linalg::transposed_product(float, quantized, depth, count, depth),
            Crossed::Outputs(weights) => {
                let outputs = linalg::product_transposed(float, weights, count, depth, rows);
                linalg::transposed_product(&outputs, quantized, rows, count, depth)
            }
        };
        Self { count, sum: sum(float), sum_q: sum(quantized), gram: linalg::gram(quantized, count, depth), cross }
    }
}

impl Moments {
    /// No patches of `depth` elements.
    pub fn new(depth: usize, crossed: Crossed<'_>) -> Self {
        Self {
            depth,
            count: 0.0,
            sum: vec![0.0; depth],
            sum_q: vec![0.0; depth],
            gram: vec![0.0; depth * depth],
            cross: vec![0.0; crossed.rows(depth) * depth],
            outputs: matches!(crossed, Crossed::Outputs(_)),
        }
    }

    /// Adds patches, whose partial sums are of the same kind.
    pub fn add(&mut self, part: &Partial) {
        let add = |total: &mut [f64], part: &[f32]| total.iter_mut().zip(part).for_each(|(t, &p)| *t += f64::from(p));
        self.count += part.count as f64;
        add(&mut self.sum, &part.sum);
        add(&mut self.sum_q, &part.sum_q);
        add(&mut self.gram, &part.gram);
        add(&mut self.cross, &part.cross);
    }

    /// Elements of a patch.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Number of patches.
    pub fn count(&self) -> f64 {
        self.count
    }

    /// The mean patch of the float model, and that after quantized layers.
    pub fn means(&self) -> (Vec<f64>, Vec<f64>) {
        let mean = |sum: &[f64]| sum.iter().map(|s| s / self.count.max(1.0)).collect();
        (mean(&self.sum), mean(&self.sum_q))
    }

    /// `Cov(x̂)`; uncentred moments if not `centred`.
    pub(super) fn covariance(&self, centred: bool) -> Vec<f64> {
        let (_, mean_q) = self.means();
        self.normalized(&self.gram, centred.then_some(&mean_q), &mean_q)
    }

    /// `w · Cov(x, x̂)` for weights `w` (`rows × depth`, those that [`Crossed::Outputs`] was given), or the uncentred
    /// moments.
    pub(super) fn cross_covariance(&self, weights: &[f64], centred: bool) -> Vec<f64> {
        let (mean, mean_q) = self.means();
        let rows = weights.len() / self.depth.max(1);
        let outputs: Vec<f64> = weights.chunks(self.depth.max(1)).map(|row| linalg::dot(row, &mean)).collect();
        let of_inputs;
        let sums = if self.outputs {
            &self.cross
        } else {
            of_inputs = linalg::product(weights, &self.cross, rows, self.depth, self.depth);
            &of_inputs
        };
        self.normalized(sums, centred.then_some(&outputs), &mean_q)
    }

    /// Sums over the count, less the product of means.
    fn normalized(&self, sums: &[f64], rows: Option<&Vec<f64>>, columns: &[f64]) -> Vec<f64> {
        let n = self.count.max(1.0);
        let mut out: Vec<f64> = sums.iter().map(|s| s / n).collect();
        for (out, r) in out.chunks_mut(self.depth.max(1)).zip(rows.into_iter().flatten()) {
            out.iter_mut().zip(columns).for_each(|(out, c)| *out -= r * c);
        }
        out
    }

    /// Makes elements independent.
    #[cfg(test)]
    pub(super) fn keep_diagonal(&mut self) {
        for i in 0..self.depth * self.depth {
            if i % (self.depth + 1) != 0 {
                self.gram[i] = 0.0;
                self.cross[i] = 0.0;
            }
        }
    }
}
