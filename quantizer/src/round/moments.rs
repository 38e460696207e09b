//! Second moments of a layer's inputs, in the float model and after the quantized layers before.

use super::linalg;

/// Sums over patches of one group: of `x̂` and `x`, `x̂ x̂ᵀ` and `x x̂ᵀ`.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    depth: usize,
    count: f64,
    sum: Vec<f64>,
    sum_q: Vec<f64>,
    gram: Vec<f64>,
    /// Row `i`, column `j`: Σ x_i x̂_j.
    cross: Vec<f64>,
}

/// The same over some patches, in f32: what threads make.
#[derive(Debug, Clone, PartialEq)]
pub struct Partial {
    depth: usize,
    count: usize,
    sum: Vec<f32>,
    sum_q: Vec<f32>,
    gram: Vec<f32>,
    cross: Vec<f32>,
}

impl Partial {
    /// The moments of patches, `[count, depth]` each. With `same`, the quantized patches equal the float ones.
    pub fn of(float: &[f32], quantized: &[f32], depth: usize) -> Self {
        let count = float.len() / depth.max(1);
        let sum = |patches: &[f32]| {
            let mut sum = vec![0.0; depth];
            for patch in patches.chunks(depth.max(1)) {
                sum.iter_mut().zip(patch).for_each(|(s, x)| *s += x);
            }
            sum
        };
        Self {
            depth,
            count,
            sum: sum(float),
            sum_q: sum(quantized),
            gram: transposed_product(quantized, quantized, count, depth),
            cross: transposed_product(float, quantized, count, depth),
        }
    }
}

/// `aᵀ b` of `[count, depth]` matrices.
fn transposed_product(a: &[f32], b: &[f32], count: usize, depth: usize) -> Vec<f32> {
    if depth <= 32 {
        let mut out = vec![0.0; depth * depth];
        for (a, b) in a.chunks(depth.max(1)).zip(b.chunks(depth.max(1))) {
            for (&x, out) in a.iter().zip(out.chunks_mut(depth)) {
                out.iter_mut().zip(b).for_each(|(out, y)| *out += x * y);
            }
        }
        return out;
    }
    linalg::transposed_product(a, b, depth, count, depth)
}

impl Moments {
    /// No patches of `depth` elements.
    pub fn new(depth: usize) -> Self {
        Self {
            depth,
            count: 0.0,
            sum: vec![0.0; depth],
            sum_q: vec![0.0; depth],
            gram: vec![0.0; depth * depth],
            cross: vec![0.0; depth * depth],
        }
    }

    /// Adds patches.
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

    /// `Cov(x̂)` and `Cov(x, x̂)`; uncentred moments if not `centred`.
    pub(super) fn covariances(&self, centred: bool) -> (Vec<f64>, Vec<f64>) {
        let n = self.count.max(1.0);
        let (mean, mean_q) = self.means();
        let of = |sums: &[f64], rows: &[f64], columns: &[f64]| {
            let mut out: Vec<f64> = sums.iter().map(|s| s / n).collect();
            if centred {
                for (out, r) in out.chunks_mut(self.depth.max(1)).zip(rows) {
                    out.iter_mut().zip(columns).for_each(|(out, c)| *out -= r * c);
                }
            }
            out
        };
        (of(&self.gram, &mean_q, &mean_q), of(&self.cross, &mean, &mean_q))
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
