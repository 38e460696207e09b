//! The law that weights follow.

use serde::Serialize;

use super::ChannelMeans;
use crate::graph::Node;
use crate::metrics::Moments;

/// What makes weights hard to quantize.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightLaw {
    /// Kurtosis of the whole tensor: 1.8 for a uniform law, which uses levels best, 3 for a normal one. Channels of
    /// different size raise it; scales per channel take care of those.
    pub kurtosis: f64,
    /// The largest kurtosis of an output channel.
    pub channel_kurtosis: f64,
    /// The largest ratio of an output channel's largest magnitude to its median: how much its scale is stretched. 0
    /// where all medians are zero.
    pub largest_to_median: f64,
    /// Input channels whose mean magnitude exceeds [`super::OUTLIER_FACTOR`] times that of all.
    pub outlier_channels: Vec<usize>,
}

impl WeightLaw {
    /// Of weights of this shape, with output channels along axis `outputs` and input channels along `inputs`, if there
    /// are any.
    pub fn of(values: &[f32], shape: &[usize], outputs: usize, inputs: Option<usize>) -> Self {
        let channels = shape.get(outputs).copied().unwrap_or(1).max(1);
        let inner: usize = shape.iter().skip(outputs + 1).product::<usize>().max(1);
        let mut rows: Vec<Vec<f32>> = vec![Vec::new(); channels];
        for (i, run) in values.chunks(inner).enumerate() {
            rows[i % channels].extend_from_slice(run);
        }
        let outlier_channels = inputs.map(|axis| {
            let mut means = ChannelMeans::new(shape, axis);
            means.observe(values);
            means.outliers()
        });
        Self {
            kurtosis: Moments::of(values).kurtosis(),
            channel_kurtosis: rows.iter().map(|row| Moments::of(row).kurtosis()).fold(0.0, f64::max),
            largest_to_median: rows.iter_mut().map(|row| largest_to_median(row)).fold(0.0, f64::max),
            outlier_channels: outlier_channels.unwrap_or_default(),
        }
    }
}

/// Largest magnitude over median magnitude; 0 where the median is.
fn largest_to_median(row: &mut [f32]) -> f64 {
    row.iter_mut().for_each(|value| *value = value.abs());
    row.sort_unstable_by(f32::total_cmp);
    let (Some(&largest), Some(&median)) = (row.last(), row.get(row.len() / 2)) else { return 0.0 };
    if median > 0.0 { f64::from(largest) / f64::from(median) } else { 0.0 }
}

/// Weights rounded to 8 bits, −127 to 127, with a scale for each channel along `axis` that covers its largest magnitude.
pub fn int8_levels(values: &[f32], shape: &[usize], axis: usize) -> Vec<i32> {
    let channels = shape.get(axis).copied().unwrap_or(1).max(1);
    let inner: usize = shape.iter().skip(axis + 1).product::<usize>().max(1);
    let mut largest = vec![0f32; channels];
    for (i, value) in values.iter().enumerate() {
        let largest = &mut largest[i / inner % channels];
        *largest = largest.max(value.abs());
    }
    let level = |(i, &value): (usize, &f32)| match largest[i / inner % channels] {
        0.0 => 0,
        largest => (f64::from(value) * 127.0 / f64::from(largest)).round_ties_even() as i32,
    };
    values.iter().enumerate().map(level).collect()
}

/// The axis of the input channels of the weights of a Conv, ConvTranspose, Gemm or MatMul with weights of rank `rank`;
/// `None` for other nodes.
pub fn input_axis(node: &Node, rank: usize) -> Option<usize> {
    match node.op_type.as_str() {
        "Conv" => Some(1),
        "ConvTranspose" => Some(0),
        "Gemm" => Some(usize::from(node.int("transB", 0) != 0)),
        "MatMul" => rank.checked_sub(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attr;
    use crate::quantize::channel_axis;

    #[test]
    fn channels_are_judged_one_by_one() {
        // Two output channels of uniform weights, one a hundred times the other: each has the kurtosis of its levels,
        // both together look heavy-tailed.
        let levels: Vec<f32> = (0..64u8).map(|i| f32::from(i) - 31.5).collect();
        let values: Vec<f32> = levels.iter().map(|x| x * 100.0).chain(levels.iter().copied()).collect();
        let law = WeightLaw::of(&values, &[2, 64], 0, Some(1));
        let uniform = 0.6 * (3.0 * 4096.0 - 7.0) / 4095.0;
        assert!((law.channel_kurtosis - uniform).abs() < 1e-9, "{law:?}");
        assert!(law.kurtosis > 1.9 * uniform, "{law:?}");
        // Magnitudes 0.5, 0.5, 1.5, …, 31.5: the 33rd of 64 is 16.5 − 0.
        assert!((law.largest_to_median - 31.5 / 16.5).abs() < 1e-9, "{law:?}");
        assert_eq!(law.outlier_channels, [0usize; 0]);
    }

    #[test]
    fn migrated_outliers_are_seen_in_weights() {
        // Input channel 5 of 32 carries what was an outlier of the activation.
        let mut values: Vec<f32> = (0..16 * 32).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        values.iter_mut().skip(5).step_by(32).for_each(|value| *value = 25.0);
        let law = WeightLaw::of(&values, &[16, 32], 0, Some(1));
        assert_eq!(law.outlier_channels, [5]);
        assert!(law.channel_kurtosis > 20.0 && law.largest_to_median > 30.0, "{law:?}");
        // The same weights as MatMul has them.
        let transposed: Vec<f32> = (0..32 * 16).map(|i| values[i % 16 * 32 + i / 16]).collect();
        let same = WeightLaw::of(&transposed, &[32, 16], 1, Some(0));
        assert_eq!((same.outlier_channels, same.largest_to_median), (law.outlier_channels, law.largest_to_median));
    }

    #[test]
    fn axes_of_every_linear_operator() {
        let node = |op: &str| Node::new(op, "n", ["x", "w"], ["y"]);
        let axes = |node: &Node, rank| (channel_axis(node, rank), input_axis(node, rank));
        assert_eq!(axes(&node("Conv"), 4), (0, Some(1)));
        assert_eq!(axes(&node("ConvTranspose"), 4), (1, Some(0)));
        assert_eq!(axes(&node("Gemm"), 2), (1, Some(0)));
        assert_eq!(axes(&node("Gemm").with("transB", Attr::Int(1)), 2), (0, Some(1)));
        assert_eq!(axes(&node("MatMul"), 2), (1, Some(0)));
        assert_eq!(input_axis(&node("Add"), 2), None);
    }

    #[test]
    fn levels_cover_each_channel() {
        let levels = int8_levels(&[1.0, -100.0, -0.5, 50.0, 0.0, 0.0], &[2, 3], 1);
        assert_eq!(levels, [3, -127, -127, 127, 0, 0]);
        assert_eq!(int8_levels(&[], &[0, 3], 1), [0i32; 0]);
    }

    #[test]
    fn nothing_and_zeros() {
        let law = WeightLaw::of(&[], &[0, 4], 0, Some(1));
        assert_eq!((law.kurtosis, law.largest_to_median), (0.0, 0.0));
        let law = WeightLaw::of(&[0.0; 8], &[2, 4], 0, Some(1));
        assert_eq!((law.kurtosis, law.channel_kurtosis, law.largest_to_median), (0.0, 0.0, 0.0));
    }
}
