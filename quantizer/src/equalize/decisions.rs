//! What scaling did to activations.

use super::channels::Channels;
use super::statistics::{ChannelMoments, ChannelStatistics};

/// What was done to the channels of values that share a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The first of the values.
    pub value: String,
    /// Number of channels whose scale changed.
    pub scaled: usize,
    /// Range of the widest channel over the geometric mean of all that are not zero, before and after.
    pub spread: (f64, f64),
    /// Kurtosis over all elements, before and after: 3 for a normal distribution, high where few channels fill the range.
    pub kurtosis: (f64, f64),
    /// Scaled channels of which a Clip is taken as not reached.
    pub assumed: usize,
}

/// For each set of values that share a step and some of whose channels were scaled.
pub(super) fn of(channels: &Channels, seen: &ChannelStatistics, factors: &[f64]) -> Vec<Decision> {
    let decision = |values: &Vec<String>| {
        let mut all: Vec<(&ChannelMoments, f64)> = Vec::new();
        let mut assumed = 0;
        for value in values {
            let (Some(layout), Some(moments)) = (channels.layouts.get(value), seen.value(value)) else { continue };
            let own = layout.labels().iter().map(|&label| factors[channels.variable[label]]);
            let clamped = channels.clamps.iter().any(|clamp| clamp.value == *value);
            assumed += if clamped { own.clone().filter(|&factor| factor != 1.0).count() } else { 0 };
            all.extend(moments.iter().zip(own));
        }
        let scaled = all.iter().filter(|(_, factor)| *factor != 1.0).count();
        let unscaled: Vec<_> = all.iter().map(|&(moments, _)| (moments, 1.0)).collect();
        (scaled > 0).then(|| Decision {
            value: values.first().cloned().unwrap_or_default(),
            scaled,
            spread: (spread(&unscaled), spread(&all)),
            kurtosis: (kurtosis(&unscaled), kurtosis(&all)),
            assumed,
        })
    };
    channels.quantized.iter().filter_map(decision).collect()
}

fn spread(channels: &[(&ChannelMoments, f64)]) -> f64 {
    let ranges = || channels.iter().map(|(m, factor)| (m.low() + m.high()) * factor).filter(|&range| range > 0.0);
    let count = ranges().count().max(1) as f64;
    ranges().fold(0.0, f64::max) / (ranges().map(f64::ln).sum::<f64>() / count).exp()
}

fn kurtosis(channels: &[(&ChannelMoments, f64)]) -> f64 {
    let (mut count, mut sums) = (0.0, [0.0; 4]);
    for (moments, factor) in channels {
        count += moments.count as f64;
        for (power, (sum, own)) in sums.iter_mut().zip(moments.sums).enumerate() {
            *sum += own * factor.powi(power as i32 + 1);
        }
    }
    if count == 0.0 {
        return 0.0;
    }
    let [mean, second, third, fourth] = sums.map(|sum| sum / count);
    let variance = second - mean * mean;
    let central = fourth - 4.0 * mean * third + 6.0 * mean * mean * second - 3.0 * mean.powi(4);
    if variance > 0.0 { central / (variance * variance) } else { 0.0 }
}
