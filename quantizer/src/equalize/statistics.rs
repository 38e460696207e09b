//! What calibration saw of each channel.

use std::collections::BTreeMap;

use super::channels::Channels;
use super::layout::Layout;

/// Moments and range of one channel of a value. Values that are not finite are left out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ChannelMoments {
    /// Number of values.
    pub count: u64,
    /// Number of values that are not zero.
    pub nonzero: u64,
    /// Lowest value; 0 when nothing was seen.
    pub min: f32,
    /// Highest value; 0 when nothing was seen.
    pub max: f32,
    /// Sums of the first four powers.
    pub sums: [f64; 4],
}

impl ChannelMoments {
    fn observe(&mut self, values: &[f32]) {
        for &value in values.iter().filter(|value| value.is_finite()) {
            let first = self.count == 0;
            self.min = if first || value < self.min { value } else { self.min };
            self.max = if first || value > self.max { value } else { self.max };
            self.count += 1;
            self.nonzero += u64::from(value != 0.0);
            let x = f64::from(value);
            let square = x * x;
            for (sum, power) in self.sums.iter_mut().zip([x, square, square * x, square * square]) {
                *sum += power;
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        if other.count > 0 {
            let first = self.count == 0;
            self.min = if first { other.min } else { self.min.min(other.min) };
            self.max = if first { other.max } else { self.max.max(other.max) };
            self.count += other.count;
            self.nonzero += other.nonzero;
            self.sums.iter_mut().zip(&other.sums).for_each(|(a, b)| *a += b);
        }
    }

    /// Mean square; 0 when nothing was seen.
    pub fn power(&self) -> f64 {
        if self.count > 0 { self.sums[1] / self.count as f64 } else { 0.0 }
    }

    /// Share of values that are not zero.
    pub fn active(&self) -> f64 {
        if self.count > 0 { self.nonzero as f64 / self.count as f64 } else { 0.0 }
    }

    /// How far the values reach below zero.
    pub fn low(&self) -> f64 {
        f64::from(-self.min).max(0.0)
    }

    /// How far the values reach above zero.
    pub fn high(&self) -> f64 {
        f64::from(self.max).max(0.0)
    }
}

/// [`ChannelMoments`] of every channel of the values of [`Channels::values_to_observe`]. Memory does not depend on the
/// number of samples; parts seen apart are merged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChannelStatistics {
    values: BTreeMap<String, Vec<ChannelMoments>>,
}

impl ChannelStatistics {
    /// Statistics of `samples` samples. `values` are the elements of the values of [`Channels::values_to_observe`], in
    /// that order, each `[samples, shape of the value]`.
    pub fn of(channels: &Channels, samples: usize, values: &[Vec<f32>]) -> Self {
        let names = channels.values_to_observe();
        let seen = names.into_iter().zip(values).filter_map(|(name, values)| {
            let moments = observe(channels.layouts.get(&name)?, samples, values);
            Some((name, moments))
        });
        Self { values: seen.collect() }
    }

    /// Adds what others have seen of the same graph.
    pub fn merge(&mut self, other: &Self) {
        for (name, moments) in &other.values {
            match self.values.get_mut(name) {
                Some(known) => known.iter_mut().zip(moments).for_each(|(a, b)| a.merge(b)),
                None => drop(self.values.insert(name.clone(), moments.clone())),
            }
        }
    }

    /// For each label of the value's layout.
    pub(super) fn value(&self, name: &str) -> Option<&[ChannelMoments]> {
        self.values.get(name).map(Vec::as_slice)
    }
}

fn observe(layout: &Layout, samples: usize, values: &[f32]) -> Vec<ChannelMoments> {
    let mut moments = vec![ChannelMoments::default(); layout.labels().len()];
    for sample in values.chunks(layout.len().max(1)).take(samples) {
        let mut rest = sample;
        layout.runs(|count, position| {
            let (run, more) = rest.split_at(count.min(rest.len()));
            moments[position].observe(run);
            rest = more;
        });
    }
    moments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_told_apart_and_parts_merge() {
        let layout = Layout::along(&[1, 2, 3], 1, vec![4, 5]);
        let values = [1.0, 0.0, -3.0, 2.0, f32::NAN, 2.0, 5.0, 5.0, 5.0, 0.0, 0.0, 0.0];
        let whole = observe(&layout, 2, &values);
        assert_eq!((whole[0].count, whole[0].nonzero, whole[0].min, whole[0].max), (6, 5, -3.0, 5.0));
        assert_eq!((whole[1].count, whole[1].low(), whole[1].high()), (5, 0.0, 2.0));
        assert_eq!(whole[0].sums, [13.0, 85.0, 349.0, 1957.0]);
        let mut parts = observe(&layout, 1, &values[..6]);
        parts.iter_mut().zip(observe(&layout, 1, &values[6..])).for_each(|(a, b)| a.merge(&b));
        assert_eq!(parts, whole);
    }
}
