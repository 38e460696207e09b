//! Statistics of the quantized activations, condensed for the report.

use std::collections::BTreeMap;

use super::describe::dtype_name;
use crate::graph::Graph;
use crate::observe::Statistics;
use crate::quantize::{Outcome, QParams};
use crate::report::{Activation, Histogram, Observed};

/// Bins of a condensed histogram.
const BINS: usize = 80;

/// The quantized activations in graph order: inputs, then what each node makes.
pub(super) fn activations(
    graph: &Graph,
    outcome: &Outcome,
    statistics: &BTreeMap<String, Statistics>,
) -> Vec<Activation> {
    let inputs = graph.inputs.iter().map(|input| input.name.as_str());
    let made = graph.nodes.iter().flat_map(|node| node.outputs.iter().map(String::as_str));
    inputs
        .chain(made)
        .filter_map(|value| {
            let params = outcome.activations.get(value)?;
            let levels = params.dtype.quantized_range()?;
            let real = |q: i32| f64::from(q - params.zero_point) * f64::from(params.scale);
            let seen = statistics.get(value).filter(|statistics| statistics.count() > 0);
            Some(Activation {
                value: value.to_owned(),
                dtype: dtype_name(params.dtype).to_owned(),
                scale: params.scale,
                zero_point: params.zero_point,
                low: real(levels.0),
                high: real(levels.1),
                observed: seen.map(|statistics| observed(statistics, params, levels)),
            })
        })
        .collect()
}

fn observed(statistics: &Statistics, params: &QParams, levels: (i32, i32)) -> Observed {
    let scale = f64::from(params.scale);
    let mut clipped = 0u64;
    let mut uses: BTreeMap<i32, u64> = BTreeMap::new();
    // A value less than half a step beyond the last level is rounded, not clipped.
    for (centre, count) in centres(statistics) {
        let level = (centre / scale).round_ties_even() + f64::from(params.zero_point);
        if level < f64::from(levels.0) || level > f64::from(levels.1) {
            clipped += count;
        }
        *uses.entry(level.clamp(levels.0.into(), levels.1.into()) as i32).or_default() += count;
    }
    let total = statistics.count() as f64;
    let entropy_bits = uses.values().map(|&count| count as f64 / total).map(|share| -share * share.log2()).sum::<f64>();
    Observed {
        count: statistics.count(),
        min: statistics.min().into(),
        max: statistics.max().into(),
        clipped: clipped as f64 / total,
        kurtosis: statistics.kurtosis(),
        // A sum of nothing but -0.0 reads better as 0.
        entropy_bits: entropy_bits.abs(),
        histogram: histogram(statistics),
    }
}

/// The centres of the bins, with the zeros at 0.
fn centres(statistics: &Statistics) -> impl Iterator<Item = (f64, u64)> {
    let zeros = Some((0.0, statistics.zeros())).filter(|&(_, count)| count > 0);
    let (min, max) = (f64::from(statistics.min()), f64::from(statistics.max()));
    // The outermost bins reach beyond what was seen.
    statistics.bins().map(move |(low, high, count)| ((0.5 * (low + high)).clamp(min, max), count)).chain(zeros)
}

fn histogram(statistics: &Statistics) -> Histogram {
    let (start, end) = (f64::from(statistics.min()), f64::from(statistics.max()));
    let bins = if end > start { BINS } else { 1 };
    let width = (end - start) / bins as f64;
    let mut counts = vec![0; bins];
    for (centre, count) in centres(statistics) {
        let bin = if width > 0.0 { (((centre - start) / width) as usize).min(bins - 1) } else { 0 };
        counts[bin] += count;
    }
    Histogram { start, width, counts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::DataType;

    #[test]
    fn a_clipped_tail_is_counted() {
        let mut statistics = Statistics::default();
        let values: Vec<f32> = (0..=100).map(|i| i as f32 / 100.0).collect();
        statistics.observe(&values);
        // Levels 0 to 255 of 1/510: the range is [0, 0.5]; everything from 0.51 on is clipped: 50 of 101 values.
        let params = QParams { dtype: DataType::U8, scale: 1.0 / 510.0, zero_point: 0 };
        let seen = observed(&statistics, &params, (0, 255));
        assert!((seen.clipped - 50.0 / 101.0).abs() < 1e-12, "{}", seen.clipped);
        assert_eq!((seen.min, seen.max, seen.count), (0.0, 1.0, 101));
        assert_eq!(seen.histogram.counts.iter().sum::<u64>(), 101);
        // 50 levels used once, one (the highest) 51 times.
        let expected = 50.0 / 101.0 * 101f64.log2() - 51.0 / 101.0 * (51.0f64 / 101.0).log2();
        assert!((seen.entropy_bits - expected).abs() < 1e-9, "{} {expected}", seen.entropy_bits);
    }

    #[test]
    fn a_constant_has_one_bin() {
        let mut statistics = Statistics::default();
        statistics.observe(&[0.0, 0.0]);
        let params = QParams { dtype: DataType::I8, scale: 1.0, zero_point: 0 };
        let seen = observed(&statistics, &params, (-128, 127));
        assert_eq!((seen.histogram.counts, seen.entropy_bits, seen.clipped), (vec![2], 0.0, 0.0));
    }
}
