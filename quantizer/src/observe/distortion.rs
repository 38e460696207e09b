//! Expected quantization error of a histogram.

use super::{Levels, Range, Statistics};

/// The expected squared quantization error of a tensor, for any range: within a bin values count as spread evenly,
/// over which the error (granular and clipping) is integrated exactly; zeros have none.
///
/// A bin whose neighbours are empty is taken for one value that recurs, such as a level of an image, at its centre (or
/// where the seen range ends). So a scale that hits the levels of the data is seen to have no error.
#[derive(Debug, Clone)]
pub struct Distortion {
    /// Lower edge, upper edge and share per unit of length of the bins that are not empty.
    bins: Vec<(f64, f64, f64)>,
    /// Recurring values and their shares.
    atoms: Vec<(f64, f64)>,
}

impl Distortion {
    /// Of what was seen.
    pub fn new(statistics: &Statistics) -> Self {
        let total = statistics.count().max(1) as f64;
        let (min, max) = (f64::from(statistics.min()), f64::from(statistics.max()));
        let seen: Vec<(f64, f64, u64)> = statistics.bins().collect();
        let (mut bins, mut atoms) = (Vec::new(), Vec::new());
        for (i, &(low, high, count)) in seen.iter().enumerate() {
            let share = count as f64 / total;
            // The outermost bins end where the values do.
            let (a, b) = (low.max(min), high.min(max));
            let alone =
                i.checked_sub(1).is_none_or(|i| seen[i].1 < low) && seen.get(i + 1).is_none_or(|next| high < next.0);
            match (alone, low <= min, high >= max) {
                (true, true, _) => atoms.push((min, share)),
                (true, _, true) => atoms.push((max, share)),
                (true, ..) => atoms.push((0.5 * (low + high), share)),
                _ if b > a => bins.push((a, b, share / (b - a))),
                _ => bins.push((low, high, share / (high - low))),
            }
        }
        Self { bins, atoms }
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
        let recurring: f64 = self
            .atoms
            .iter()
            .map(|&(x, share)| {
                let u = x * reciprocal - low;
                let e = u - (u.clamp(0.0, span) + 0.5).floor();
                share * e * e
            })
            .sum();
        (sum * scale + recurring) * scale * scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_an_image_are_hit_exactly() {
        // Pixels 0, 1, ..., 255 as a network sees them: the full range has only the error of shifting zero onto a
        // level, and clipping it by 1 % some hundred times more.
        let mut statistics = Statistics::default();
        let pixels: Vec<f32> = (0..=255u8).map(|p| (f32::from(p) / 255.0 - 0.2) / 0.4).collect();
        (0..8).for_each(|_| statistics.observe(&pixels));
        let distortion = Distortion::new(&statistics);
        let full = statistics.range();
        let exact = distortion.of(full, Levels::U8);
        let step = (full.high - full.low) / 255.0;
        assert!(exact < 1e-3 * step * step, "{exact}");
        assert!(distortion.of(full.scaled(0.99, 0.99), Levels::U8) > 50.0 * exact);
    }
}
