//! What is known of a tensor's values: a mergeable histogram, and the ranges that observers derive from it.

mod distortion;
mod entropy;
mod grid;
mod levels;
mod mse;
mod statistics;

pub use distortion::Distortion;
pub use grid::{Levels, Range};
pub use levels::LevelUse;
pub use statistics::{CAPACITY, Statistics};

/// How a range is chosen.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub enum Observer {
    /// Lowest and highest value.
    MinMax,
    /// The central share of the values, in percent (such as 99.99).
    Percentile(f64),
    /// The range with the least mean squared quantization error.
    Mse,
    /// The range with the least Kullback-Leibler divergence between the histogram and its quantized form.
    Entropy,
}

impl Observer {
    /// The range to quantize to `levels`. It always holds zero, lies within the seen values (and zero), and is
    /// `[0, 0]` when nothing but zeros was seen.
    pub fn range(self, statistics: &Statistics, levels: Levels) -> Range {
        match self {
            Self::MinMax => statistics.range(),
            Self::Percentile(percent) => {
                let tail = (1.0 - percent.clamp(0.0, 100.0) / 100.0) / 2.0;
                let low = statistics.quantile(tail).unwrap_or(0.0);
                let high = statistics.quantile(1.0 - tail).unwrap_or(0.0);
                Range::around_zero(low, high)
            }
            Self::Mse => mse::range(statistics, levels),
            Self::Entropy => entropy::range(statistics, levels),
        }
    }
}

impl std::fmt::Display for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MinMax => write!(f, "min-max"),
            Self::Percentile(percent) => write!(f, "percentile {percent}"),
            Self::Mse => write!(f, "mse"),
            Self::Entropy => write!(f, "entropy"),
        }
    }
}

#[cfg(test)]
mod tests;
