//! Soft rounding: each weight lies between its two neighbouring levels, at a share `h ∈ [0, 1]` that is learned, while a
//! regularizer that vanishes only at 0 and 1 is annealed in.

use super::linalg::dot;
use super::{Problem, Row};
use crate::observe::Levels;

/// Schedule and strength.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftOptions {
    /// Steps of Adam.
    pub steps: usize,
    /// Step size of Adam on the rounding variables.
    pub rate: f64,
    /// Largest weight of the entropy of the rounding variables, relative to the error of rounding to nearest.
    pub strength: f64,
    /// Share of the steps without the regularizer.
    pub warm_up: f64,
}

impl Default for SoftOptions {
    fn default() -> Self {
        Self { steps: 400, rate: 0.02, strength: 0.3, warm_up: 0.2 }
    }
}

/// The weight of the entropy term at step `step`, as a share of its largest: 0 during the warm-up, then linear to 1.
pub fn entropy_weight(options: &SoftOptions, step: usize) -> f64 {
    let start = options.warm_up * options.steps as f64;
    let span = (options.steps as f64 - start).max(1.0);
    ((step as f64 - start) / span).clamp(0.0, 1.0)
}

/// The stretched sigmoid of AdaRound: `h = clip(1.2·σ(v) − 0.1, 0, 1)`, and its derivative.
fn share(v: f64) -> (f64, f64) {
    let sigmoid = 1.0 / (1.0 + libm::exp(-v));
    let h = 1.2 * sigmoid - 0.1;
    match h {
        h if h <= 0.0 => (0.0, 0.0),
        h if h >= 1.0 => (1.0, 0.0),
        h => (h, 1.2 * sigmoid * (1.0 - sigmoid)),
    }
}

/// Binary entropy in nats, and its derivative, bounded.
fn entropy(h: f64) -> (f64, f64) {
    if h <= 0.0 || h >= 1.0 {
        return (0.0, 0.0);
    }
    let value = -h * libm::log(h) - (1.0 - h) * libm::log(1.0 - h);
    (value, (libm::log(1.0 - h) - libm::log(h)).clamp(-4.0, 4.0))
}

/// Improves a row for its scale; never makes it worse.
pub(super) fn improve(problem: &Problem, row: usize, start: Row, levels: Levels, options: &SoftOptions) -> Row {
    let depth = problem.depth;
    let scale = f64::from(start.scale);
    let target: Vec<f64> = problem.target(row).iter().map(|&w| f64::from(w) / scale).collect();
    // The lower neighbour of the best real value near the start: the start itself where it is one of the neighbours.
    let floor: Vec<f64> = target
        .iter()
        .zip(&start.integers)
        .map(|(&w, &q)| {
            let floor = w.floor();
            let near = if f64::from(q) < floor {
                f64::from(q)
            } else if f64::from(q) > floor + 1.0 {
                f64::from(q) - 1.0
            } else {
                floor
            };
            near.clamp(levels.low.into(), f64::from(levels.high) - 1.0)
        })
        .collect();
    let mut v: Vec<f64> = floor
        .iter()
        .zip(target.iter().zip(&start.integers))
        .map(|(&floor, (&w, &q))| {
            // Between where the weight lies and where the start put it.
            let share = (0.5 * (w - floor).clamp(0.0, 1.0) + 0.5 * (f64::from(q) - floor)).clamp(0.02, 0.98);
            -libm::log(1.2 / (share + 0.1) - 1.0)
        })
        .collect();
    let start_error = problem.error(row, &start.integers, start.scale);
    let unit = (start_error / (scale * scale) / depth.max(1) as f64).max(f64::MIN_POSITIVE);
    let (mut first, mut second) = (vec![0.0; depth], vec![0.0; depth]);
    let mut e = vec![0.0; depth];
    for step in 0..options.steps {
        let weight = options.strength * unit * entropy_weight(options, step);
        for i in 0..depth {
            e[i] = floor[i] + share(v[i]).0 - target[i];
        }
        let (c1, c2) = (1.0 - libm::pow(0.9, step as f64 + 1.0), 1.0 - libm::pow(0.999, step as f64 + 1.0));
        for i in 0..depth {
            let (h, slope) = share(v[i]);
            let gradient = slope * (2.0 * dot(&problem.gram[i * depth..][..depth], &e) + weight * entropy(h).1) / unit;
            first[i] = 0.9 * first[i] + 0.1 * gradient;
            second[i] = 0.999 * second[i] + 0.001 * gradient * gradient;
            v[i] -= options.rate * (first[i] / c1) / ((second[i] / c2).sqrt() + 1e-8);
        }
    }
    let integers: Vec<i32> = floor.iter().zip(&v).map(|(&floor, &v)| floor as i32 + i32::from(v >= 0.0)).collect();
    let error = problem.error(row, &integers, start.scale);
    match error < start_error {
        true => Row { integers, scale: start.scale, error },
        false => Row { error: start_error, ..start },
    }
}
