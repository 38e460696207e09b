//! How much time quantization takes, for how much accuracy.

use std::time::Duration;

use crate::observe::Observer;
use crate::quantize::{Config, Rounding};
use crate::round::Method;

/// Settings that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preset {
    /// Ranges by their own error, weights rounded layer by layer on few samples without a search: for trying things out.
    Fast,
    /// Ranges and integers are searched by what they do to the outputs of layers.
    #[default]
    Balanced,
    /// As [`Self::Balanced`], then everything tuned together, by gradients.
    Best,
}

/// Samples that weights are rounded on where it must go fast.
const FEW: usize = 128;
/// Time for tuning, at most.
const TUNING: Duration = Duration::from_secs(90);

impl Preset {
    /// Every preset, the quickest first.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Balanced, Self::Best];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Balanced => "balanced",
            Self::Best => "best",
        }
    }

    /// Sets what the preset says of ranges and rounding.
    pub fn apply(self, config: &mut Config) {
        (config.observer, config.rounding) = match self {
            Self::Fast => (Some(Observer::Mse), Rounding { method: Method::Gptq, samples: FEW, ..Rounding::default() }),
            Self::Balanced | Self::Best => (None, Rounding::default()),
        };
    }

    /// Time for tuning at most, where the preset tunes.
    pub fn tuning(self) -> Option<Duration> {
        (self == Self::Best).then_some(TUNING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_is_the_default_and_best_adds_to_it() {
        let configs = Preset::ALL.map(|preset| {
            let mut config = Config::default();
            preset.apply(&mut config);
            config
        });
        assert_eq!(configs[1], Config::default());
        assert_eq!(configs[2], configs[1]);
        assert_ne!(configs[0], configs[1]);
        assert_eq!(Preset::ALL.map(|preset| preset.tuning().is_some()), [false, false, true]);
    }
}
