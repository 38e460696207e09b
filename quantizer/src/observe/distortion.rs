//! Expected quantization error of a histogram.

use super::{Levels, Range, Statistics};

/// The expected squared quantization error of a tensor, for any range: within a bin values count as spread evenly,
/// over which the error (granular and clipping) is integrated exactly; zeros have none.
#[derive(Debug, Clone)]
pub struct Distortion {
    /// Lower edge, upper edge and share per unit of length of the bins that are not empty.
    bins: Vec<(f64, f64, f64)>,
}

impl Distortion {
    /// Of what was seen.
    pub fn new(statistics: &Statistics) -> Self {
        let total = statistics.count().max(1) as f64;
        let (min, max) = (f64::from(statistics.min()), f64::from(statistics.max()));
        let bins = statistics
            .bins()
            .map(|(low, high, count)| {
                // The outermost bins end where the values do.
                let (a, b) = (low.max(min), high.min(max));
                let (a, b) = if b > a { (a, b) } else { (low, high) };
                (a, b, count as f64 / total / (b - a))
            })
            .collect();
        Self { bins }
    }

    /// The mean squared error when `range` is quantized to `levels`.
    pub fn of(&self, range: Range, levels: Levels) -> f64 {
        let (scale, zero_point) = levels.affine(range);
        let scale = f64::from(scale);
        let low = f64::from(levels.low) - f64::from(zero_point);
        let span = f64::from(levels.high - levels.low);
        let reciprocal = 1.0 / scale;
        // An antiderivative of (u − quantized(u))², with u counted in steps from the lowest level: whole steps
        // contribute 1/12 each, and beyond the ends the distance to the last level grows.
        let integral = |x: f64| {
            let u = x * reciprocal - low;
            let level = f64::from((u.clamp(0.0, span) + 0.5) as i32);
            let e = u - level;
            level * (1.0 / 12.0) + e * e * e * (1.0 / 3.0)
        };
        let (mut edge, mut before) = (f64::NAN, 0.0);
        let mut sum = 0.0;
        for &(a, b, density) in &self.bins {
            let start = if a == edge { before } else { integral(a) };
            let end = integral(b);
            sum += density * (end - start);
            (edge, before) = (b, end);
        }
        sum * scale * scale * scale
    }
}
