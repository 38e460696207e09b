//! How a quantizer's levels are used.

use std::collections::BTreeMap;

use super::Statistics;

/// How the levels of a quantizer are used by values whose distribution is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelUse {
    /// Share of the values beyond the last level by half a step or more, 0 to 1 (to the resolution of the histogram).
    pub clipped: f64,
    /// Shannon entropy of the quantized value in bits: how much of the integer type is used.
    pub entropy_bits: f64,
}

impl LevelUse {
    /// Of values `statistics` tells of, at least one, quantized to the levels `low` to `high`.
    pub fn of(statistics: &Statistics, scale: f32, zero_point: i32, (low, high): (i32, i32)) -> Self {
        let mut clipped = 0u64;
        let mut uses: BTreeMap<i32, u64> = BTreeMap::new();
        // A value less than half a step beyond the last level is rounded, not clipped.
        for (centre, count) in statistics.centres() {
            let level = (centre / f64::from(scale)).round_ties_even() + f64::from(zero_point);
            if level < f64::from(low) || level > f64::from(high) {
                clipped += count;
            }
            *uses.entry(level.clamp(low.into(), high.into()) as i32).or_default() += count;
        }
        let total = statistics.count() as f64;
        let bits = uses.values().map(|&count| count as f64 / total).map(|share| -share * share.log2()).sum::<f64>();
        // A sum of nothing but -0.0 reads better as 0.
        Self { clipped: clipped as f64 / total, entropy_bits: bits.abs() }
    }
}
