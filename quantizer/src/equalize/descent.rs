//! The factors of the least predicted noise.

use super::factors::{Limits, Method, logs};
use super::noise::Noise;

/// Degrees of the norms that stand for greatest values, one after the other.
const DEGREES: [f64; 3] = [8.0, 24.0, 64.0];
/// Steps at each degree.
const STEPS: usize = 60;
/// Products of rows and columns that may be evaluated altogether.
const WORK: usize = 1 << 27;
/// Step sizes in logarithms of factors: at the beginning, and at the end of each degree's steps.
const PACE: (f64, f64) = (0.2, 0.01);
/// Weight of the mean square of the logarithms, which keeps factors that do not matter at 1.
const PULL: f64 = 1e-3;
/// Strengths of migration to start from.
const STARTS: [f64; 5] = [0.25, 0.5, 0.65, 0.75, 1.0];

/// Descends from the best of the simple rules and gives the best factors that were met.
///
/// Adam (Kingma and Ba, 2015) on the logarithm of the noise, with the greatest of several numbers smoothed by norms of rising
/// degree; the problem is convex, so the start matters for speed only.
pub(super) fn least(noise: &Noise, limits: &Limits, count: usize) -> Vec<f64> {
    let mut best = (noise.at(&vec![0.0; count]), vec![0.0; count]);
    let starts = STARTS.map(Method::Migrate).into_iter().chain([Method::CrossLayer]);
    for start in starts.map(|method| logs(method, noise, limits)) {
        keep(&mut best, noise.at(&start), &start);
    }
    let steps = (WORK / noise.work().max(1) / DEGREES.len()).clamp(4, STEPS);
    for degree in DEGREES {
        let mut logs = best.1.clone();
        let (mut gradient, mut mean, mut square) = (vec![0.0; count], vec![0.0; count], vec![0.0; count]);
        for step in 0..steps {
            let value = noise.smooth(&logs, degree, &mut gradient);
            if !(value > 0.0 && value.is_finite()) {
                break;
            }
            let pace = PACE.0 * (PACE.1 / PACE.0).powf(step as f64 / steps as f64);
            let (a, b) = (1.0 - 0.9f64.powi(step as i32 + 1), 1.0 - 0.99f64.powi(step as i32 + 1));
            for i in 0..count {
                let slope = gradient[i] / value + 2.0 * PULL * logs[i] / count as f64;
                mean[i] = 0.9 * mean[i] + 0.1 * slope;
                square[i] = 0.99 * square[i] + 0.01 * slope * slope;
                logs[i] -= pace * (mean[i] / a) / ((square[i] / b).sqrt() + 1e-12);
            }
            limits.apply(&mut logs);
            keep(&mut best, noise.at(&logs), &logs);
        }
    }
    best.1
}

fn keep(best: &mut (f64, Vec<f64>), value: f64, logs: &[f64]) {
    if value < best.0 {
        *best = (value, logs.to_vec());
    }
}
