//! The range with the least Kullback-Leibler divergence between the values' distribution and its quantized form
//! (the calibration of TensorRT, S. Migacz 2017, with zeros set apart and for ranges on both sides of zero).

use super::{Levels, Range, Statistics};

/// Number of candidate factors from the full range down.
const CANDIDATES: i32 = 160;
/// Each candidate is this much smaller than the one before.
const STEP: f64 = 0.975;
/// Bins on either side that tell what a bin would hold without a spike.
const NEIGHBOURS: usize = 16;
/// A bin that holds more than this times its neighbours' mean is a spike.
const SPIKE: f64 = 2.0;

pub(super) fn range(statistics: &Statistics, levels: Levels) -> Range {
    let full = statistics.range();
    let bins = Bins::of(statistics);
    let divergence = |range: Range| bins.divergence(range, levels);
    let mut best = (divergence(full).unwrap_or(f64::INFINITY), full);
    let mut attempt = |range: Range| {
        if let Some(found) = divergence(range)
            && found < best.0
        {
            best = (found, range);
        }
        best.1
    };
    // Both ends together, then each on its own.
    let factors = || (0..CANDIDATES).map(|k| STEP.powi(k));
    for factor in factors() {
        attempt(full.scaled(factor, factor));
    }
    if full.low < 0.0 && full.high > 0.0 && !levels.symmetric {
        for factor in factors() {
            let high = attempt(full).high;
            attempt(Range { low: full.low * factor, high });
        }
        for factor in factors() {
            let low = attempt(full).low;
            attempt(Range { low, high: full.high * factor });
        }
    }
    best.1
}

/// The bins that are not empty, in ascending order, with running sums: what a candidate costs is then read off its
/// levels, however many bins they hold.
struct Bins {
    width: f64,
    centres: Vec<f64>,
    /// Values up to each bin.
    counts: Running,
    /// The same without spikes: each is cut down to [`SPIKE`] times the mean of its neighbours. A value that occurs over
    /// and over, such as what a layer makes of an image's background, is no part of a distribution's shape; taken for
    /// one, it would call for levels as narrow as a bin.
    shapes: Running,
    /// `n ln n` of the shapes.
    logs: Running,
}

/// Sums of the elements before each index.
struct Running(Vec<f64>);

impl Running {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sums = vec![0.0];
        let mut sum = 0.0;
        sums.extend(values.map(|value| {
            sum += value;
            sum
        }));
        Self(sums)
    }

    fn sum(&self, range: std::ops::Range<usize>) -> f64 {
        self.0[range.end] - self.0[range.start]
    }
}

impl Bins {
    fn of(statistics: &Statistics) -> Self {
        let bins: Vec<(f64, f64)> =
            statistics.bins().map(|(low, high, count)| (0.5 * (low + high), count as f64)).collect();
        let counts = Running::of(bins.iter().map(|bin| bin.1));
        let shape = |i: usize| {
            let (before, after) = (i.saturating_sub(NEIGHBOURS), (i + NEIGHBOURS + 1).min(bins.len()));
            let count = bins[i].1;
            let others = (after - before - 1).max(1) as f64;
            count.min((SPIKE * (counts.sum(before..after) - count) / others).max(1.0))
        };
        let shapes: Vec<f64> = (0..bins.len()).map(shape).collect();
        Self {
            width: statistics.bin_width(),
            centres: bins.into_iter().map(|bin| bin.0).collect(),
            counts,
            logs: Running::of(shapes.iter().map(|&shape| n_ln_n(shape))),
            shapes: Running::of(shapes.into_iter()),
        }
    }

    /// Divergence `Σ p ln(p / q)` of the quantized distribution `q` from the clipped one `p`, over the bins that are not
    /// empty.
    ///
    /// Clipped values are counted where the range ends, which is where they land; the quantized distribution knows only
    /// what lies inside, spread evenly over the bins of each level. Counts of few values scatter: the divergence this
    /// alone causes, (bins − 1) / 2n for each level (Miller 1955), is subtracted, or ranges with fewer bins would always
    /// win. `None` when a level is narrower than a bin: the histogram cannot tell.
    fn divergence(&self, range: Range, levels: Levels) -> Option<f64> {
        let (scale, zero_point) = levels.affine(range);
        let scale = f64::from(scale);
        if scale < self.width {
            return None;
        }
        let lowest = scale * f64::from(levels.low - zero_point);
        let highest = scale * f64::from(levels.high - zero_point);
        let inside = |centre: f64| centre >= lowest - 0.5 * scale && centre <= highest + 0.5 * scale;
        let start = self.centres.partition_point(|&centre| !inside(centre) && centre < 0.0);
        let kept = self.centres.get(start..)?;
        let end = start + kept.partition_point(|&centre| inside(centre));
        let (below, above) = (self.counts.sum(0..start), self.counts.sum(end..self.centres.len()));
        let inner = self.shapes.sum(start..end);
        let total = below + inner + above;
        if start == end || inner <= 0.0 {
            return None;
        }
        // What the bins at the ends hold besides.
        let clipped = |range: &std::ops::Range<usize>| {
            (if range.start == start { below } else { 0.0 }) + (if range.end == end { above } else { 0.0 })
        };
        // Σ p ln p is kept in running sums, but for the two bins that clipped values are added to.
        let mut sum = self.logs.sum(start..end);
        let ends = [start..start + 1, end - 1..end];
        for bin in ends.iter().take(if start + 1 == end { 1 } else { 2 }) {
            let shape = self.shapes.sum(bin.clone());
            sum += n_ln_n(shape + clipped(bin)) - n_ln_n(shape);
        }
        sum = sum / total - total.ln();
        for cell in self.cells(start..end, scale) {
            let (shape, bins) = (self.shapes.sum(cell.clone()), cell.len() as f64);
            let (p, q) = ((shape + clipped(&cell)) / total, shape / bins / inner);
            sum -= p * q.ln() + (bins - 1.0) / (2.0 * total);
        }
        Some(sum)
    }

    /// The runs of bins of `kept` that fall on the same level.
    fn cells(&self, kept: std::ops::Range<usize>, scale: f64) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let level = move |centre: f64| (centre / scale).round_ties_even();
        let mut first = kept.start;
        std::iter::from_fn(move || {
            let bins = &self.centres[first..kept.end];
            let own = level(*bins.first()?);
            let cell = first..first + bins.partition_point(|&centre| level(centre) <= own);
            first = cell.end;
            Some(cell)
        })
    }
}

/// `n ln n`, 0 at 0.
fn n_ln_n(n: f64) -> f64 {
    if n > 0.0 { n * n.ln() } else { 0.0 }
}
