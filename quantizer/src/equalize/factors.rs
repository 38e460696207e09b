//! Rules for the factors.

use super::Clamping;
use super::channels::{Channels, FIXED};
use super::descent;
use super::noise::Noise;
use super::ranges::Ranges;
use super::statistics::ChannelStatistics;

/// Greatest magnitude of a factor's binary logarithm.
const MOST_OCTAVES: f64 = 20.0;
/// A clamp is taken as not reached where the values seen, times this, stay within it.
const CLAMP_MARGIN: f64 = 1.25;
/// Rounds of cross-layer equalization; each halves the distance from the balance.
const ROUNDS: usize = 40;

/// How factors are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Method {
    /// Equal ranges of what makes and what reads a channel: `m = √(r₂ / r₁)` with the greatest magnitudes `r₁` of the
    /// rows and `r₂` of the columns (Nagel et al., "Data-Free Quantization", 2019, section 4.1), where there are several
    /// of either their geometric mean.
    CrossLayer,
    /// Ranges of activations moved into the weights that read them: `m = w^(1−α) / x^α` with the range `x` of the channel
    /// and the greatest weight `w` that reads it (Xiao et al., "SmoothQuant", 2023, equation 4), each relative to
    /// what shares its step. The strength α is in [0, 1]; at 1 all channels of a value have the same range.
    Migrate(f64),
    /// The least predicted noise.
    Predicted,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CrossLayer => write!(f, "equal weight ranges"),
            Self::Migrate(strength) => write!(f, "activation ranges, strength {strength}"),
            Self::Predicted => write!(f, "predicted noise"),
        }
    }
}

/// Which factors are allowed.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Greatest logarithm of each variable's factor; `None` where it must be 1.
    most: Vec<Option<f64>>,
}

impl Limits {
    pub(super) fn of(channels: &Channels, seen: &ChannelStatistics, clamping: Clamping) -> Self {
        let octaves = MOST_OCTAVES * std::f64::consts::LN_2;
        let mut most = vec![Some(octaves); channels.variables];
        most[FIXED] = None;
        for clamp in &channels.clamps {
            let Some(layout) = channels.layouts.get(&clamp.value) else { continue };
            let moments = seen.value(channels.origin(&clamp.value)).filter(|_| clamping == Clamping::AsSeen);
            for (i, &label) in layout.labels().iter().enumerate() {
                let most = &mut most[channels.variable[label]];
                let room = moments.and_then(|moments| moments.get(i)).map_or(0.0, |seen| {
                    let side =
                        |seen: f64, bound: f64| if seen > 0.0 { bound / (CLAMP_MARGIN * seen) } else { f64::INFINITY };
                    side(seen.high(), clamp.high).min(side(seen.low(), -clamp.low))
                });
                *most = most.filter(|_| room >= 1.0).map(|most| most.min(room.ln()));
            }
        }
        Self { most }
    }

    /// Brings logarithms into the allowed range.
    pub(super) fn apply(&self, logs: &mut [f64]) {
        let least = -MOST_OCTAVES * std::f64::consts::LN_2;
        for (log, most) in logs.iter_mut().zip(&self.most) {
            *log = most.map_or(0.0, |most| if log.is_finite() { log.clamp(least, most) } else { 0.0 });
        }
    }
}

/// The logarithms of all variables' factors by a method.
pub(super) fn logs(method: Method, noise: &Noise, limits: &Limits) -> Vec<f64> {
    let count = limits.most.len();
    let mut logs = vec![0.0; count];
    match method {
        Method::CrossLayer => {
            for _ in 0..ROUNDS {
                let ranges = Ranges::of(noise, &logs);
                for (variable, log) in logs.iter_mut().enumerate() {
                    if let Some((made, read)) = ranges.weights(variable) {
                        // Half of the step to the balance: neighbours move at the same time.
                        *log += 0.25 * (read - made);
                    }
                }
                limits.apply(&mut logs);
            }
        }
        Method::Migrate(strength) => {
            let ranges = Ranges::of(noise, &logs);
            for (variable, log) in logs.iter_mut().enumerate() {
                if let Some((activation, weight)) = ranges.migration(variable) {
                    *log = (1.0 - strength) * weight - strength * activation;
                }
            }
            limits.apply(&mut logs);
        }
        Method::Predicted => logs = descent::least(noise, limits, count),
    }
    logs
}
