//! The range with the least Kullback-Leibler divergence between the values' distribution and its quantized form
//! (the calibration of TensorRT, S. Migacz 2017, with zeros set apart and for ranges on both sides of zero).

use super::{Levels, Range, Statistics};

/// Number of candidate factors from the full range down.
const CANDIDATES: i32 = 160;
/// Each candidate is this much smaller than the one before.
const STEP: f64 = 0.975;

pub(super) fn range(statistics: &Statistics, levels: Levels) -> Range {
    let full = statistics.range();
    let bins: Vec<(f64, f64)> =
        statistics.bins().map(|(low, high, count)| (0.5 * (low + high), count as f64)).collect();
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

/// Divergence of the quantized distribution from the clipped one, over the bins (centre, count) that are not empty.
///
/// Clipped values are counted where the range ends, which is where they land; the quantized distribution knows only
/// what lies inside, spread evenly over the bins of each level. `None` when a level is narrower than a bin (the
/// histogram cannot tell) or values would land where there were none.
fn divergence(bins: &[(f64, f64)], bin_width: f64, range: Range, levels: Levels) -> Option<f64> {
    let (scale, zero_point) = levels.affine(range);
    let scale = f64::from(scale);
    if scale < bin_width {
        return None;
    }
    let lowest = scale * f64::from(levels.low - zero_point);
    let highest = scale * f64::from(levels.high - zero_point);
    let inside = |centre: f64| centre >= lowest - 0.5 * scale && centre <= highest + 0.5 * scale;
    let start = bins.partition_point(|&(centre, _)| !inside(centre) && centre < 0.0);
    let end = start + bins.get(start..)?.partition_point(|&(centre, _)| inside(centre));
    let kept = bins.get(start..end)?;
    let mass = |bins: &[(f64, f64)]| bins.iter().map(|bin| bin.1).sum::<f64>();
    let (below, inner, above) = (mass(&bins[..start]), mass(kept), mass(&bins[end..]));
    let total = below + inner + above;
    if inner <= 0.0 {
        return None;
    }
    let level = |centre: f64| (centre / scale).round_ties_even();
    let mut sum = 0.0;
    for (first, cell) in cells(kept, level) {
        let q = mass(cell) / cell.len() as f64 / inner;
        for (i, &(_, count)) in cell.iter().enumerate() {
            let at = first + i;
            let mut clipped = 0.0;
            if at == 0 {
                clipped += below;
            }
            if at + 1 == kept.len() {
                clipped += above;
            }
            let p = (count + clipped) / total;
            sum += p * (p / q).ln();
        }
    }
    Some(sum)
}

/// The runs of bins that fall on the same level, each with the index of its first bin.
fn cells<'a>(
    bins: &'a [(f64, f64)],
    level: impl Fn(f64) -> f64 + 'a,
) -> impl Iterator<Item = (usize, &'a [(f64, f64)])> + 'a {
    let mut first = 0;
    bins.chunk_by(move |a, b| level(a.0) == level(b.0)).map(move |cell| {
        let at = first;
        first += cell.len();
        (at, cell)
    })
}
