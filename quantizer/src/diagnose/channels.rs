//! Channels that are larger than the others.

/// How many times the mean magnitude of all channels an outlier channel's exceeds.
pub const OUTLIER_FACTOR: f64 = 6.0;

/// The mean magnitude of each channel of a tensor. Sums are in f64; parts merge.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelMeans {
    /// Elements of one channel that follow each other.
    inner: usize,
    sums: Vec<f64>,
    counts: Vec<u64>,
}

impl ChannelMeans {
    /// Of tensors of this shape, with channels along `axis`; one channel if there is no such axis.
    pub fn new(shape: &[usize], axis: usize) -> Self {
        let channels = shape.get(axis).copied().unwrap_or(1).max(1);
        let inner: usize = shape.iter().skip(axis + 1).product();
        Self { inner: inner.max(1), sums: vec![0.0; channels], counts: vec![0; channels] }
    }

    /// Adds the elements of one or more tensors; those that are not finite are left out.
    pub fn observe(&mut self, values: &[f32]) {
        let channels = self.sums.len();
        for (i, run) in values.chunks(self.inner).enumerate() {
            let finite = run.iter().filter(|value| value.is_finite());
            let (count, sum) = finite.fold((0, 0.0), |(count, sum), value| (count + 1, sum + f64::from(value.abs())));
            self.sums[i % channels] += sum;
            self.counts[i % channels] += count;
        }
    }

    /// Adds what another one of the same shape has seen.
    pub fn merge(&mut self, other: &Self) {
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, more)| *sum += more);
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.sums.len()
    }

    /// For each channel, how many times the mean magnitude of all elements its own is; 0 where all are zero.
    pub fn ratios(&self) -> Vec<f64> {
        let mean = self.sums.iter().sum::<f64>() / self.counts.iter().sum::<u64>().max(1) as f64;
        let ratio = |(sum, &count): (&f64, &u64)| if mean > 0.0 { sum / count.max(1) as f64 / mean } else { 0.0 };
        self.sums.iter().zip(&self.counts).map(ratio).collect()
    }

    /// The largest of [`Self::ratios`]: 1 where all channels are alike, at most the number of channels.
    pub fn largest_ratio(&self) -> f64 {
        self.ratios().into_iter().fold(0.0, f64::max)
    }

    /// The channels whose ratio exceeds [`OUTLIER_FACTOR`]; there are none among six channels or fewer.
    pub fn outliers(&self) -> Vec<usize> {
        let ratios = self.ratios();
        (0..ratios.len()).filter(|&channel| ratios[channel] > OUTLIER_FACTOR).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in [−1, 1).
    fn noise(count: usize) -> Vec<f32> {
        let mut state = 0x1234_5678_9abc_def1u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn exactly_the_planted_channels_are_flagged() {
        // [2 tensors, 24 channels, 5 × 5]; channels 3 and 17 are 20 times as large, channel 9 4 times.
        let mut values = noise(2 * 24 * 25);
        for (i, value) in values.iter_mut().enumerate() {
            *value *= match i / 25 % 24 {
                3 | 17 => 20.0,
                9 => 4.0,
                _ => 1.0,
            };
        }
        let mut means = ChannelMeans::new(&[1, 24, 5, 5], 1);
        means.observe(&values[..24 * 25]);
        let mut later = ChannelMeans::new(&[1, 24, 5, 5], 1);
        later.observe(&values[24 * 25..]);
        means.merge(&later);
        // Of a mean of (21 + 4 + 40) / 24 = 2.7, the planted channels are 7.4 times.
        assert_eq!(means.outliers(), [3, 17]);
        assert!((means.largest_ratio() - 7.4).abs() < 1.0, "{}", means.largest_ratio());
    }

    #[test]
    fn features_of_tokens_are_channels_too() {
        let mut values = noise(50 * 32);
        values.iter_mut().skip(7).step_by(32).for_each(|value| *value = 30.0);
        let mut means = ChannelMeans::new(&[1, 50, 32], 2);
        means.observe(&values);
        assert_eq!((means.channels(), means.outliers()), (32, vec![7]));
    }

    #[test]
    fn alike_channels_and_zeros_have_no_outliers() {
        let mut means = ChannelMeans::new(&[1, 16], 1);
        means.observe(&[0.0; 64]);
        assert_eq!((means.largest_ratio(), means.outliers()), (0.0, vec![]));
        means.observe(&[f32::NAN; 16]);
        means.observe(&[-2.0; 64]);
        assert_eq!((means.largest_ratio(), means.outliers()), (1.0, vec![]));
    }
}
