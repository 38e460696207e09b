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
    let bins = smooth(statistics);
    let least = statistics.bin_width();
    let divergence = |range: Range| divergence(&bins, least, range, levels);
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

/// A bin that is not empty.
struct Bin {
    centre: f64,
    /// Number of values.
    count: f64,
    /// The same without spikes.
    shape: f64,
}

/// The bins with spikes cut down to [`SPIKE`] times the mean of their neighbours. A value that occurs over and over,
/// such as what a layer makes of an image's background, is no part of a distribution's shape; taken for one, it would
/// call for levels as narrow as a bin.
fn smooth(statistics: &Statistics) -> Vec<Bin> {
    let bins: Vec<(f64, f64)> =
        statistics.bins().map(|(low, high, count)| (0.5 * (low + high), count as f64)).collect();
    let smoothed = (0..bins.len()).map(|i| {
        let (before, after) = (i.saturating_sub(NEIGHBOURS), (i + NEIGHBOURS + 1).min(bins.len()));
        let sum: f64 = bins[before..after].iter().map(|bin| bin.1).sum();
        let (centre, count) = bins[i];
        let others = (after - before - 1).max(1) as f64;
        Bin { centre, count, shape: count.min((SPIKE * (sum - count) / others).max(1.0)) }
    });
    smoothed.collect()
}

/// Divergence of the quantized distribution from the clipped one, over the bins that are not empty.
///
/// Clipped values are counted where the range ends, which is where they land; the quantized distribution knows only
/// what lies inside, spread evenly over the bins of each level. Counts of few values scatter: the divergence this
/// alone causes, (bins − 1) / 2n for each level (Miller 1955), is subtracted, or ranges with fewer bins would always
/// win. `None` when a level is narrower than a bin: the histogram cannot tell.
fn divergence(bins: &[Bin], bin_width: f64, range: Range, levels: Levels) -> Option<f64> {
    let (scale, zero_point) = levels.affine(range);
    let scale = f64::from(scale);
    if scale < bin_width {
        return None;
    }
    let lowest = scale * f64::from(levels.low - zero_point);
    let highest = scale * f64::from(levels.high - zero_point);
    let inside = |centre: f64| centre >= lowest - 0.5 * scale && centre <= highest + 0.5 * scale;
    let start = bins.partition_point(|bin| !inside(bin.centre) && bin.centre < 0.0);
    let end = start + bins.get(start..)?.partition_point(|bin| inside(bin.centre));
    let kept = bins.get(start..end)?;
    let shape = |bins: &[Bin]| bins.iter().map(|bin| bin.shape).sum::<f64>();
    let count = |bins: &[Bin]| bins.iter().map(|bin| bin.count).sum::<f64>();
    let (below, inner, above) = (count(&bins[..start]), shape(kept), count(&bins[end..]));
    let total = below + inner + above;
    if inner <= 0.0 {
        return None;
    }
    let level = |centre: f64| (centre / scale).round_ties_even();
    let mut sum = 0.0;
    for (first, cell) in cells(kept, level) {
        let q = shape(cell) / cell.len() as f64 / inner;
        sum -= (cell.len() - 1) as f64 / (2.0 * total);
        for (i, bin) in cell.iter().enumerate() {
            let at = first + i;
            let mut clipped = 0.0;
            if at == 0 {
                clipped += below;
            }
            if at + 1 == kept.len() {
                clipped += above;
            }
            let p = (bin.shape + clipped) / total;
            sum += p * (p / q).ln();
        }
    }
    Some(sum)
}

/// The runs of bins that fall on the same level, each with the index of its first bin.
fn cells<'a>(bins: &'a [Bin], level: impl Fn(f64) -> f64 + 'a) -> impl Iterator<Item = (usize, &'a [Bin])> + 'a {
    let mut first = 0;
    bins.chunk_by(move |a, b| level(a.centre) == level(b.centre)).map(move |cell| {
        let at = first;
        first += cell.len();
        (at, cell)
    })
}
