//! The range with the least mean squared error.

use super::{Distortion, Levels, Range, Statistics};

/// Each coarse candidate is this much smaller than the one before.
const COARSE: f64 = 0.92;
/// Coarse candidates: down to 1.5 % of the seen range.
const COARSE_COUNT: i32 = 50;
/// Candidates between two coarse ones on either side of the best.
const FINE_COUNT: i32 = 12;

pub(super) fn range(statistics: &Statistics, levels: Levels) -> Range {
    let full = statistics.range();
    let distortion = Distortion::new(statistics);
    // Both ends together, then each on its own: the granular error depends on their distance, the clipping error on
    // each end apart.
    let (mut low, mut high) = (1.0, 1.0);
    let both = search(1.0, |f| distortion.of(full.scaled(f, f), levels));
    if full.low < 0.0 && full.high > 0.0 && !levels.symmetric {
        (low, high) = (both, both);
        for _ in 0..2 {
            low = search(low, |f| distortion.of(full.scaled(f, high), levels));
            high = search(high, |f| distortion.of(full.scaled(low, f), levels));
        }
    } else {
        low *= both;
        high *= both;
    }
    full.scaled(low, high)
}

/// The factor of at most 1 with the least error: a geometric scan, then a finer one around its best. The current
/// factor stays unless another is better.
fn search(current: f64, error: impl Fn(f64) -> f64) -> f64 {
    let mut best = (error(current), current);
    let mut attempt = |factor: f64| {
        let found = error(factor);
        if found < best.0 {
            best = (found, factor);
        }
        best.1
    };
    for k in 0..COARSE_COUNT {
        attempt(COARSE.powi(k));
    }
    let centre = attempt(1.0);
    for k in -FINE_COUNT..=FINE_COUNT {
        attempt((centre * COARSE.powf(f64::from(k) / f64::from(FINE_COUNT))).min(1.0));
    }
    best.1
}
