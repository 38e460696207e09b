//! Rounding weights so that the layer's output changes least, rather than the weights.
//!
//! A layer reads patches `x` in the float model and `x̂` once all before it is quantized. Its quantized weights `ŵ` (one
//! row for each output) should make `ŵ·x̂` follow `w·x`. With the bias free to take up the difference of the means,
//! what is left to minimize for each row is
//!
//! `E (ŵ·(x̂ − E x̂) − w·(x − E x))² = (ŵ − w*)ᵀ G (ŵ − w*) + constant`, `G = Cov(x̂)`, `w* = G⁻¹ Cov(x̂, x) w`,
//!
//! so second moments are all that is needed of the samples: memory does not depend on their number. `G` is damped by a
//! share of its mean diagonal, and `w*` by more, towards `w`, where samples are few for the number of inputs.
//!
//! Integers may be chosen by more than the error: by what they take in an entropy coder and by their kurtosis
//! ([`refine`]).

mod coordinate;
mod linalg;
mod moments;
mod nearest_plane;
mod patches;
mod powers;
mod priced;
mod rows;
mod soft;

pub use moments::{Crossed, Moments, Partial};
pub use patches::Patches;
pub use priced::{Group, Terms, refine};
pub use rows::Rows;
pub use soft::{SoftOptions, entropy_weight};

use crate::observe::Levels;
use crate::parallel::in_parallel;
use linalg::Factor;

/// Share of the mean diagonal of the Gram matrix that is added to it. (GPTQ, Frantar et al. 2023, takes 0.01; between
/// 0.001 and 0.2 the error on calibration samples held out is flat, with the best around here, at 4 and at 8 bits.)
const DAMPING: f64 = 0.1;
/// Patches for each input of which a layer has enough for `w*`.
const ENOUGH: f64 = 32.0;
/// What `w*` is damped by besides, in [`DAMPING`]s, for each input a patch that is missing. (On calibration samples held
/// out, with two or three inputs a patch, 10 to 30 gains 0.5 to 0.8 dB at W4A4 and 0.2 to 0.4 dB at W8A8, and costs 0.2
/// to 0.3 dB at W4A8.)
const SCARCITY: f64 = 20.0;
/// Factors of the scale that just covers a row, tried one after the other.
const SHRINK: [f64; 16] =
    [1.0, 0.96, 0.92, 0.88, 0.84, 0.80, 0.76, 0.72, 0.68, 0.64, 0.60, 0.56, 0.52, 0.48, 0.44, 0.40];
/// Times that integers and scale are improved in turn.
const REFITS: usize = 4;

/// How integers are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub enum Method {
    /// Each weight to the nearest level.
    Nearest,
    /// One weight after the other, errors passed on to those that follow: GPTQ (Frantar et al. 2023), in the equivalent
    /// form of Babai's nearest plane.
    Gptq,
    /// As [`Self::Gptq`], then single and paired changes while they help, and the scale fitted anew.
    Search,
    /// Soft rounding with an entropy regularizer annealed to a hard choice (AdaRound, Nagel et al. 2020, on the Gram
    /// matrix), from where [`Self::Gptq`] ends, and then as [`Self::Search`].
    Soft,
}

/// One group of a layer: rows that read the same inputs.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Inputs of a row.
    depth: usize,
    /// The damped Gram matrix, `depth × depth`.
    gram: Vec<f64>,
    factor: Factor,
    /// The weights that would be best without rounding, `rows × depth`.
    target: Vec<f32>,
}

/// Integers and scales of the rows of a problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// `rows × depth`.
    pub integers: Vec<i32>,
    /// One for each row.
    pub scales: Vec<f32>,
    /// Sum over rows of the error that remains, in the units of the layer's output squared.
    pub error: f64,
}

/// What limits a solution.
#[derive(Debug, Clone, PartialEq)]
pub struct Constraints<'a> {
    /// The integers allowed.
    pub levels: Levels,
    /// The least scale of each row, so that its bias fits.
    pub least_scale: &'a [f32],
    /// Whether each row has a scale of its own.
    pub per_row: bool,
}

impl Problem {
    /// The problem of rows of `weights` (`rows × depth`) over inputs with these moments. `centred`: a bias takes up
    /// differences of the mean.
    pub fn new(weights: &[f32], moments: &Moments, centred: bool) -> Self {
        let depth = moments.depth();
        let gram = moments.covariance(centred);
        let mean_diagonal = (0..depth).map(|i| gram[i * depth + i]).sum::<f64>() / depth.max(1) as f64;
        let damping = if mean_diagonal > 0.0 { DAMPING * mean_diagonal } else { 1.0 };
        let damped = |damping: f64| {
            let mut damped = gram.clone();
            damped.iter_mut().step_by(depth + 1).for_each(|diagonal| *diagonal += damping);
            damped
        };
        let (own, missing) = (damped(damping), depth as f64 / moments.count().max(1.0) - 1.0 / ENOUGH);
        let factor = Factor::new(&own, depth);
        let w: Vec<f64> = weights.iter().map(|&w| w.into()).collect();
        // Rows of w·Cov(x, x̂) + damping·w, then solved with the Gram matrix.
        let mut linear = moments.cross_covariance(&w, centred);
        let mut solve = |factor: &Factor, damping: f64| {
            linear.iter_mut().zip(&w).for_each(|(l, w)| *l += damping * w);
            linear.chunks_mut(depth.max(1)).for_each(|row| factor.solve(row));
        };
        if missing > 0.0 {
            let damping = damping * (1.0 + SCARCITY * missing);
            solve(&Factor::new(&damped(damping), depth), damping);
        } else {
            solve(&factor, damping);
        }
        Self { depth, gram: own, factor, target: linear.iter().map(|&v| v as f32).collect() }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.target.len() / self.depth.max(1)
    }

    /// Integers and scales of all rows. The result does not depend on `threads`.
    pub fn solve(&self, method: Method, limits: &Constraints<'_>, threads: usize) -> Solution {
        if limits.per_row {
            let solve = |row: usize| self.solve_row(row, method, limits);
            return self.join(in_parallel(self.rows(), threads, solve));
        }
        self.solve_together(method, limits, threads)
    }

    fn join(&self, rows: Vec<Row>) -> Solution {
        let mut solution = Solution { integers: Vec::new(), scales: Vec::new(), error: 0.0 };
        for row in rows {
            solution.integers.extend(row.integers);
            solution.scales.push(row.scale);
            solution.error += row.error;
        }
        solution
    }

    fn target(&self, row: usize) -> &[f32] {
        &self.target[row * self.depth..][..self.depth]
    }

    /// The scale with which the levels just cover a row.
    fn covering_scale(&self, row: usize, levels: Levels) -> f64 {
        let (low, high) = (f64::from(levels.low), f64::from(levels.high));
        self.target(row)
            .iter()
            .map(|&w| if w < 0.0 { f64::from(w) / low } else { f64::from(w) / high })
            .fold(0.0, f64::max)
    }

    fn solve_row(&self, row: usize, method: Method, limits: &Constraints<'_>) -> Row {
        let least = limits.least_scale.get(row).copied().unwrap_or(0.0);
        let covering = self.covering_scale(row, limits.levels);
        if covering <= 0.0 {
            return Row { integers: vec![0; self.depth], scale: least.max(1.0), error: 0.0 };
        }
        let mut best: Option<Row> = None;
        for shrink in SHRINK {
            let scale = ((covering * shrink) as f32).max(least).max(f32::MIN_POSITIVE);
            let candidate = self.round(row, scale, method, limits.levels);
            if best.as_ref().is_none_or(|best| candidate.error < best.error) {
                best = Some(candidate);
            }
        }
        let mut best = best.unwrap_or_else(|| self.round(row, least.max(1.0), method, limits.levels));
        if method == Method::Soft {
            best = soft::improve(self, row, best, limits.levels, &SoftOptions::default());
        }
        if matches!(method, Method::Search | Method::Soft) {
            best = coordinate::improve(self, row, best, limits.levels, Some(least), REFITS);
        }
        best
    }

    /// All rows with one scale.
    fn solve_together(&self, method: Method, limits: &Constraints<'_>, threads: usize) -> Solution {
        let rows = self.rows();
        let least = limits.least_scale.iter().copied().fold(0.0, f32::max);
        let covering = (0..rows).map(|row| self.covering_scale(row, limits.levels)).fold(0.0, f64::max);
        let covering = if covering > 0.0 { covering } else { 1.0 };
        let mut best: Option<Solution> = None;
        for shrink in SHRINK {
            let scale = ((covering * shrink) as f32).max(least).max(f32::MIN_POSITIVE);
            let all = in_parallel(rows, threads, |row| self.round(row, scale, method, limits.levels));
            let candidate = self.join(all);
            if best.as_ref().is_none_or(|best| candidate.error < best.error) {
                best = Some(candidate);
            }
        }
        let best = best.unwrap_or_else(|| self.join(Vec::new()));
        if method == Method::Nearest || method == Method::Gptq {
            return best;
        }
        let improve = |row: usize| {
            let integers = best.integers[row * self.depth..][..self.depth].to_vec();
            let start = Row { integers, scale: best.scales[row], error: f64::INFINITY };
            let start = match method {
                Method::Soft => soft::improve(self, row, start, limits.levels, &SoftOptions::default()),
                _ => start,
            };
            coordinate::improve(self, row, start, limits.levels, None, 1)
        };
        self.join(in_parallel(rows, threads, improve))
    }

    fn round(&self, row: usize, scale: f32, method: Method, levels: Levels) -> Row {
        match method {
            Method::Nearest => {
                let (low, high) = (f64::from(levels.low), f64::from(levels.high));
                let nearest = |&w: &f32| (f64::from(w) / f64::from(scale)).round_ties_even().clamp(low, high) as i32;
                let integers: Vec<i32> = self.target(row).iter().map(nearest).collect();
                let error = self.error(row, &integers, scale);
                Row { integers, scale, error }
            }
            _ => nearest_plane::round(&self.factor, self.target(row), scale, levels),
        }
    }

    /// `(ŵ − w*)ᵀ G (ŵ − w*)`.
    fn error(&self, row: usize, integers: &[i32], scale: f32) -> f64 {
        let e: Vec<f64> = integers
            .iter()
            .zip(self.target(row))
            .map(|(&q, &w)| f64::from(q) * f64::from(scale) - f64::from(w))
            .collect();
        e.iter().zip(self.gram.chunks(self.depth.max(1))).map(|(&e_i, row)| e_i * linalg::dot(row, &e)).sum()
    }
}

/// One row solved.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    integers: Vec<i32>,
    scale: f32,
    error: f64,
}

#[cfg(test)]
mod tests;
