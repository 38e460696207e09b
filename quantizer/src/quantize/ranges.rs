//! Activation ranges chosen by what they do to the outputs of the layers that read the value.
//!
//! The error of a value that is quantized, `e = Q(x) − x`, reaches a layer's output as `W·e`; its mean is taken up by the
//! bias. So a range is judged by the variance of `W·e`, relative to that of `W·x`, added up over the readers. Tried are
//! the ranges of all observers, and from the best of them a clip is learned: each end is moved by ever smaller factors
//! while the error falls. (Minimizing the error of the value itself is a poorer rule the fewer bits there are.)

use ndarray::{Array2, ArrayView2};

use crate::half_even::half_even;
use crate::observe::{Levels, Observer, Range, Statistics};

/// The observers whose ranges are tried, first the one that is right where nothing tells.
const OBSERVERS: [Observer; 6] = [
    Observer::Mse,
    Observer::MinMax,
    Observer::Percentile(99.999),
    Observer::Percentile(99.99),
    Observer::Percentile(99.9),
    Observer::Entropy,
];
/// By how much an end is moved, one after the other.
const STEPS: [f64; 4] = [0.2, 0.1, 0.05, 0.025];
/// Moves at most of each size.
const MOVES: usize = 24;

/// What one layer, or another operator, reads of a value.
#[derive(Debug, Clone)]
pub struct Reader {
    /// For each group of a layer, patches `[patches, depth]` and weights `[rows, depth]`; no weights where the value is
    /// passed on as it is.
    parts: Vec<(Array2<f32>, Option<Array2<f32>>)>,
    /// Variance of the outputs, summed.
    signal: f64,
}

impl Reader {
    /// A layer: for each group patches (`[patches, depth]`) and weights (`[rows, depth]`).
    pub fn layer(groups: Vec<(Vec<f32>, Vec<f32>)>, depth: usize) -> Self {
        let matrix = |values| matrix(values, depth);
        let parts = groups.into_iter().map(|(patches, weights)| (matrix(patches), Some(matrix(weights)))).collect();
        Self::of(parts)
    }

    /// An operator that passes single elements on.
    pub fn passing(values: Vec<f32>) -> Self {
        Self::of(vec![(matrix(values, 1), None)])
    }

    fn of(parts: Vec<(Array2<f32>, Option<Array2<f32>>)>) -> Self {
        let signal = parts.iter().map(|(patches, weights)| output_variance(patches, weights.as_ref())).sum();
        Self { parts, signal }
    }

    fn noise(&self, levels: Levels, scale: f32, zero_point: i32) -> f64 {
        let (low, high) = ((levels.low - zero_point) as f32, (levels.high - zero_point) as f32);
        // Bounds are integers, so that rounding after them is rounding before them.
        let error = |&x: &f32| half_even((x / scale).clamp(low, high)) * scale - x;
        self.parts.iter().map(|(patches, weights)| output_variance(&patches.map(error), weights.as_ref())).sum()
    }
}

/// Rows of `depth` elements.
fn matrix(mut values: Vec<f32>, depth: usize) -> Array2<f32> {
    let rows = values.len() / depth.max(1);
    values.truncate(rows * depth);
    Array2::from_shape_vec((rows, depth), values).unwrap_or_default()
}

fn output_variance(patches: &Array2<f32>, weights: Option<&Array2<f32>>) -> f64 {
    match weights {
        Some(weights) => variance(patches.dot(&weights.t()).view()),
        None => variance(patches.view()),
    }
}

/// Sum over columns of the variance.
fn variance(values: ArrayView2<'_, f32>) -> f64 {
    let (mut sum, mut squares) = (vec![0.0f64; values.ncols()], 0.0f64);
    for row in values.rows() {
        for (sum, &v) in sum.iter_mut().zip(row) {
            let v = f64::from(v);
            *sum += v;
            squares += v * v;
        }
    }
    let count = values.nrows().max(1) as f64;
    (squares - sum.iter().map(|s| s * s / count).sum::<f64>()).max(0.0) / count
}

/// What a range costs: the noise of all readers' outputs, each relative to its signal.
pub fn cost(readers: &[Reader], levels: Levels, range: Range) -> f64 {
    let (scale, zero_point) = levels.affine(range);
    let of = |reader: &Reader| reader.noise(levels, scale, zero_point) / reader.signal.max(f64::MIN_POSITIVE);
    readers.iter().filter(|reader| reader.signal > 0.0).map(of).sum()
}

/// The range that costs least, and what it costs; that of the least mean squared error where no reader tells.
pub fn choose(statistics: &Statistics, readers: &[Reader], levels: Levels) -> (Range, f64) {
    let ranges = OBSERVERS.map(|observer| observer.range(statistics, levels));
    let mut best = (ranges[0], f64::INFINITY);
    for range in ranges {
        let cost = cost(readers, levels, range);
        if cost < best.1 {
            best = (range, cost);
        }
    }
    for step in STEPS {
        for _ in 0..MOVES {
            let before = best.1;
            for (low, high) in [(1.0, 1.0 - step), (1.0, 1.0 + step), (1.0 - step, 1.0), (1.0 + step, 1.0)] {
                let moved = Range { low: best.0.low * low, high: best.0.high * high };
                let cost = if moved == best.0 { f64::INFINITY } else { cost(readers, levels, moved) };
                if cost < best.1 {
                    best = (moved, cost);
                }
            }
            if best.1 >= before {
                break;
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of uniform numbers: nearly normal.
    fn normal(count: usize) -> Vec<f32> {
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u32 << 24) as f32
        };
        (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
    }

    fn seen(values: &[f32]) -> Statistics {
        let mut statistics = Statistics::default();
        statistics.observe(values);
        statistics
    }

    #[test]
    fn a_normal_value_is_clipped_where_the_squared_error_is_least() {
        let values = normal(60_000);
        let reader = Reader::passing(values.clone());
        let (range, _) = choose(&seen(&values), &[reader], Levels::I4);
        // 16 levels over unit variance: the step with the least error is 0.335 (asymmetric grid, 4 bits).
        let step = (range.high - range.low) / 15.0;
        assert!((step / 0.335 - 1.0).abs() < 0.05, "{step}");
    }

    #[test]
    fn what_no_reader_weighs_may_be_clipped() {
        // The second of two inputs is large and has no weight.
        let patches: Vec<f32> = normal(4000).chunks(2).flat_map(|pair| [pair[0], 4.0 * pair[1]]).collect();
        let reader = |weights| Reader::layer(vec![(patches.clone(), weights)], 2);
        let statistics = seen(&patches);
        let (narrow, _) = choose(&statistics, &[reader(vec![1.0, 0.0])], Levels::U4);
        let (wide, _) = choose(&statistics, &[reader(vec![0.1, 1.0])], Levels::U4);
        assert!(narrow.high < 0.5 * wide.high, "{narrow:?} {wide:?}");
    }

    #[test]
    fn the_choice_is_at_least_as_good_as_every_observer() {
        let values: Vec<f32> = normal(3000).into_iter().map(|x| x.max(0.0) * x.max(0.0)).collect();
        let reader = Reader::layer(vec![(values.clone(), vec![0.5, -1.0, 2.0])], 3);
        let (statistics, readers) = (seen(&values), [reader]);
        let (_, chosen) = choose(&statistics, &readers, Levels::U4);
        for observer in OBSERVERS {
            assert!(chosen <= cost(&readers, Levels::U4, observer.range(&statistics, Levels::U4)));
        }
    }
}
