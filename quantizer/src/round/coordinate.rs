//! Local search over integers: single changes and changes of pairs while the error falls, and the best scale for the
//! integers found, in turn.

use super::linalg::dot;
use super::{Problem, Row};
use crate::observe::Levels;

/// Sweeps at most between two fits of the scale.
pub(super) const SWEEPS: usize = 30;
/// Inputs up to which pairs are searched: a sweep over pairs costs the square of the inputs.
pub(super) const PAIRS: usize = 1024;
/// Levels up to which pairs are searched: with more, steps are too small for pairs to matter.
pub(super) const COARSE: i32 = 64;

/// Improves a row; never makes it worse. With `least`, the scale is fitted too (`fits` times, not below `least`).
pub(super) fn improve(
    problem: &Problem,
    row: usize,
    start: Row,
    levels: Levels,
    least: Option<f32>,
    fits: usize,
) -> Row {
    let mut state = State::new(problem, row, start, levels);
    for fit in 0..fits.max(1) {
        for _ in 0..SWEEPS {
            if !state.singles() && !state.pairs() {
                break;
            }
        }
        let Some(least) = least else { break };
        if fit + 1 == fits || !state.refit(least) {
            break;
        }
    }
    let error = problem.error(row, &state.integers, state.scale);
    Row { integers: state.integers, scale: state.scale, error }
}

/// What one step against the slope adds to the error.
fn gain(scale: f64, slope: f64, curvature: f64) -> f64 {
    scale * (scale * curvature - 2.0 * slope.abs())
}

/// A row on its way.
pub(super) struct State<'p> {
    pub(super) depth: usize,
    gram: &'p [f64],
    pub(super) diagonal: Vec<f64>,
    target: &'p [f32],
    pub(super) low: i32,
    pub(super) high: i32,
    pub(super) integers: Vec<i32>,
    pub(super) scale: f32,
    /// `G (ŵ − w*)`.
    pub(super) gradient: Vec<f64>,
}

impl<'p> State<'p> {
    pub(super) fn new(problem: &'p Problem, row: usize, start: Row, levels: Levels) -> Self {
        let mut state = Self {
            depth: problem.depth,
            gram: &problem.gram,
            diagonal: (0..problem.depth).map(|i| problem.gram[i * problem.depth + i]).collect(),
            target: problem.target(row),
            low: levels.low,
            high: levels.high,
            integers: start.integers,
            scale: start.scale,
            gradient: Vec::new(),
        };
        state.renew();
        state
    }

    /// Row `i` of the Gram matrix.
    pub(super) fn row(&self, i: usize) -> &'p [f64] {
        &self.gram[i * self.depth..][..self.depth]
    }

    fn renew(&mut self) {
        let scale = f64::from(self.scale);
        let e: Vec<f64> =
            self.integers.iter().zip(self.target).map(|(&q, &w)| f64::from(q) * scale - f64::from(w)).collect();
        self.gradient = (0..self.depth).map(|i| dot(self.row(i), &e)).collect();
    }

    /// Adds `steps` to integer `i`.
    pub(super) fn change(&mut self, i: usize, steps: i32) {
        self.integers[i] += steps;
        let by = f64::from(steps) * f64::from(self.scale);
        let row = self.row(i);
        self.gradient.iter_mut().zip(row).for_each(|(g, r)| *g += by * r);
    }

    /// The best change of each integer alone. Whether any helped.
    fn singles(&mut self) -> bool {
        let scale = f64::from(self.scale);
        let mut changed = false;
        for i in 0..self.depth {
            let curvature = self.diagonal[i];
            let wanted = -self.gradient[i] / (curvature * scale);
            let room = (self.low - self.integers[i], self.high - self.integers[i]);
            let steps = (wanted.round_ties_even() as i32).clamp(room.0, room.1);
            // Gain: δ·(2·g + δ·G_ii) < 0, with a margin against cycles of rounding errors.
            let delta = f64::from(steps) * scale;
            if steps != 0 && delta * (2.0 * self.gradient[i] + delta * curvature) < -1e-12 * curvature * scale * scale {
                self.change(i, steps);
                changed = true;
            }
        }
        changed
    }

    /// For each integer the best change by one step together with one of another. Whether any helped.
    fn pairs(&mut self) -> bool {
        if self.depth > PAIRS || self.high - self.low > COARSE {
            return false;
        }
        let scale = f64::from(self.scale);
        let mut changed = false;
        for i in 0..self.depth {
            let row = self.row(i);
            let mut best = (-1e-9 * row[i] * scale * scale, 0, 0, 0);
            for up in [1, -1] {
                let q = self.integers[i] + up;
                if q < self.low || q > self.high {
                    continue;
                }
                let delta = f64::from(up) * scale;
                let alone = delta * (2.0 * self.gradient[i] + delta * row[i]);
                // Seldom does any pair help; that is found out without looking at the limits.
                if alone + self.least_gain(row, delta) >= best.0 {
                    continue;
                }
                let others = self.gradient.iter().zip(row).zip(&self.diagonal).enumerate();
                for (j, ((gradient, row), &curvature)) in others {
                    let slope = gradient + delta * row;
                    let other = if slope > 0.0 { -1 } else { 1 };
                    let q = self.integers[j] + other;
                    let gain = alone + gain(scale, slope, curvature);
                    if gain < best.0 && j != i && q >= self.low && q <= self.high {
                        best = (gain, up, j, other);
                    }
                }
            }
            if best.1 != 0 {
                self.change(i, best.1);
                self.change(best.2, best.3);
                changed = true;
            }
        }
        changed
    }

    /// The least that one step of any integer adds once another has moved by `delta`, in eight interleaved parts so that
    /// the compiler can keep them in vector registers.
    fn least_gain(&self, row: &[f64], delta: f64) -> f64 {
        let scale = f64::from(self.scale);
        let mut least = [f64::INFINITY; 8];
        let parts = self.gradient.chunks(8).zip(row.chunks(8)).zip(self.diagonal.chunks(8));
        for ((gradient, row), diagonal) in parts {
            for (least, ((g, r), d)) in least.iter_mut().zip(gradient.iter().zip(row).zip(diagonal)) {
                let gain = gain(scale, g + delta * r, *d);
                *least = if gain < *least { gain } else { *least };
            }
        }
        least.into_iter().fold(f64::INFINITY, f64::min)
    }

    /// The scale with the least error for these integers: `q·G w* / q·G q`. Whether it changed.
    pub(super) fn refit(&mut self, least: f32) -> bool {
        let q: Vec<f64> = self.integers.iter().map(|&q| q.into()).collect();
        let gq: Vec<f64> = (0..self.depth).map(|i| dot(self.row(i), &q)).collect();
        let curvature = dot(&q, &gq);
        let w: Vec<f64> = self.target.iter().map(|&w| w.into()).collect();
        let scale = ((dot(&gq, &w) / curvature) as f32).max(least);
        if !(scale.is_finite() && scale > 0.0) || scale == self.scale {
            return false;
        }
        self.scale = scale;
        self.renew();
        true
    }
}
