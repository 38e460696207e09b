//! Statistics of the quantized activations, condensed for the report.

use std::collections::BTreeMap;

use super::describe::dtype_name;
use crate::graph::Graph;
use crate::observe::{LevelUse, Statistics};
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
    let used = LevelUse::of(statistics, params.scale, params.zero_point, levels);
    Observed {
        count: statistics.count(),
        min: statistics.min().into(),
        max: statistics.max().into(),
        clipped: used.clipped,
        kurtosis: statistics.kurtosis(),
        entropy_bits: used.entropy_bits,
        histogram: histogram(statistics),
    }
}

fn histogram(statistics: &Statistics) -> Histogram {
    let (start, end) = (f64::from(statistics.min()), f64::from(statistics.max()));
    let bins = if end > start { BINS } else { 1 };
    let width = (end - start) / bins as f64;
    let mut counts = vec![0; bins];
    for (centre, count) in statistics.centres() {
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
