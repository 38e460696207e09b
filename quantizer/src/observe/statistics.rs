//! The histogram.

use super::Range;

/// Most bins of a histogram. A range seen fills more than half of them (unless it is so narrow that f32 has no
/// values between bins), which gives 16 to 32 bins for each step of an 8-bit quantizer.
pub const CAPACITY: usize = 8192;

/// Bin widths are at least 2^LEAST_EXPONENT, so that their reciprocal is an f32.
const LEAST_EXPONENT: i32 = -126;

/// Statistics of one tensor: exact count, minimum and maximum, and a histogram of the values other than zero, whose
/// bin width is a power of two anchored at zero. The width is the least with which the seen range fits [`CAPACITY`],
/// so it depends on minimum and maximum alone, and widening merges whole bins: the statistics of a set of values are
/// the same however the values were split, ordered and merged.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Statistics {
    count: u64,
    zeros: u64,
    not_finite: u64,
    min: f32,
    max: f32,
    exponent: i32,
    first: i32,
    bins: Vec<u64>,
}

/// What one pass over a slice tells.
struct Summary {
    min: f32,
    max: f32,
    zeros: u64,
    not_finite: u64,
}

impl Statistics {
    /// Adds values. Infinities and NaN are counted apart ([`Self::not_finite`]) and change nothing else.
    pub fn observe(&mut self, values: &[f32]) {
        if values.is_empty() {
            return;
        }
        let summary = summarize(values);
        if summary.not_finite > 0 {
            let finite: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
            self.not_finite += summary.not_finite;
            return self.observe(&finite);
        }
        self.widen(summary.min, summary.max);
        self.count += values.len() as u64;
        self.zeros += summary.zeros;
        let reciprocal = power_of_two(-self.exponent);
        let first = self.first;
        for &value in values {
            let bin = bin_of(value, reciprocal).wrapping_sub(first) as usize;
            // Always in bounds after `widen`; the check costs less than the increment.
            if let Some(count) = self.bins.get_mut(bin) {
                *count += 1;
            }
        }
        // Zeros went to bin 0 with the rest: a branch in the loop would cost more.
        if summary.zeros > 0
            && let Some(count) = self.bins.get_mut(first.wrapping_neg() as usize)
        {
            *count -= summary.zeros;
        }
    }

    /// The statistics of `values`.
    pub fn of(values: &[f32]) -> Self {
        let mut statistics = Self::default();
        statistics.observe(values);
        statistics
    }

    /// Lowest and highest of `values`, as statistics of these two alone: enough for [`super::Observer::MinMax`], and
    /// many times as fast.
    pub fn of_extremes(values: &[f32]) -> Self {
        let mut statistics = Self::default();
        if !values.is_empty() {
            let summary = summarize(values);
            match summary.not_finite {
                0 => statistics.observe(&[summary.min, summary.max]),
                _ => statistics.observe(values),
            }
        }
        statistics
    }

    /// Adds what another one has seen.
    pub fn merge(&mut self, other: &Self) {
        self.not_finite += other.not_finite;
        if other.count == 0 {
            return;
        }
        self.widen(other.min, other.max);
        self.count += other.count;
        self.zeros += other.zeros;
        self.add_bins(other.first, &other.bins, self.exponent - other.exponent);
    }

    /// Number of finite values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number of values equal to zero.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Number of infinities and NaN, counted nowhere else.
    pub fn not_finite(&self) -> u64 {
        self.not_finite
    }

    /// Lowest value; 0 when nothing was seen.
    pub fn min(&self) -> f32 {
        self.min
    }

    /// Highest value; 0 when nothing was seen.
    pub fn max(&self) -> f32 {
        self.max
    }

    /// Lowest and highest value, widened to hold zero.
    pub fn range(&self) -> Range {
        Range::around_zero(self.min.into(), self.max.into())
    }

    /// Width of a bin.
    pub fn bin_width(&self) -> f64 {
        2f64.powi(self.exponent)
    }

    /// The bins that are not empty, in ascending order, as lower edge, upper edge and number of values. Zeros are in
    /// none of them. Bin i ≥ 0 covers `[i·w, (i+1)·w)`; bin i < 0 covers `(i·w, (i+1)·w]`.
    pub fn bins(&self) -> impl Iterator<Item = (f64, f64, u64)> + '_ {
        let width = self.bin_width();
        self.bins.iter().enumerate().filter(|(_, count)| **count > 0).map(move |(i, &count)| {
            let low = f64::from(self.first + i as i32) * width;
            (low, low + width, count)
        })
    }

    /// The centres of the bins that are not empty, and the number of values of each; zeros, at 0, come last.
    pub fn centres(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let zeros = Some((0.0, self.zeros)).filter(|&(_, count)| count > 0);
        let (min, max) = (f64::from(self.min), f64::from(self.max));
        // The outermost bins reach beyond what was seen.
        self.bins().map(move |(low, high, count)| ((0.5 * (low + high)).clamp(min, max), count)).chain(zeros)
    }

    /// The value below which the share `q` (0 to 1) of the values lies, linear within a bin; `None` when nothing was
    /// seen.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let (min, max) = (f64::from(self.min), f64::from(self.max));
        let target = q.clamp(0.0, 1.0) * self.count as f64;
        let mut below = 0.0;
        let mut zeros = self.zeros as f64;
        for (low, high, count) in self.bins() {
            if low >= 0.0 && zeros > 0.0 {
                below += std::mem::take(&mut zeros);
                if below >= target {
                    return Some(0.0);
                }
            }
            let count = count as f64;
            if below + count >= target {
                return Some((low + (high - low) * (target - below) / count).clamp(min, max));
            }
            below += count;
        }
        Some(max)
    }

    /// Mean of the values, from the bins' centres; 0 when nothing was seen.
    pub fn mean(&self) -> f64 {
        self.moment(0.0, 1)
    }

    /// Standard deviation, from the bins' centres.
    pub fn std(&self) -> f64 {
        self.moment(self.mean(), 2).sqrt()
    }

    /// Kurtosis (fourth standardized moment: 3 for a normal distribution, 1.8 for a uniform one), from the bins'
    /// centres; 0 for a constant. High values mean outliers that a wide range would spend its levels on.
    pub fn kurtosis(&self) -> f64 {
        let mean = self.mean();
        let variance = self.moment(mean, 2);
        if variance > 0.0 { self.moment(mean, 4) / (variance * variance) } else { 0.0 }
    }

    /// Shannon entropy of the histogram in bits, zeros counted as a bin of their own.
    pub fn entropy(&self) -> f64 {
        let total = self.count as f64;
        let term = |count: u64| {
            let share = count as f64 / total;
            if count > 0 { -share * share.log2() } else { 0.0 }
        };
        if self.count == 0 { 0.0 } else { term(self.zeros) + self.bins.iter().map(|&count| term(count)).sum::<f64>() }
    }

    /// E[(x − centre)^power].
    fn moment(&self, centre: f64, power: i32) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        let zeros = self.zeros as f64 * (-centre).powi(power);
        let others: f64 =
            self.bins().map(|(low, high, count)| count as f64 * (0.5 * (low + high) - centre).powi(power)).sum();
        (zeros + others) / self.count as f64
    }

    /// Makes room for values from `min` to `max`.
    fn widen(&mut self, min: f32, max: f32) {
        let (min, max) = match self.count {
            0 => (min, max),
            _ => (self.min.min(min), self.max.max(max)),
        };
        let exponent = exponent_for(min, max);
        let reciprocal = power_of_two(-exponent);
        let first = bin_of(min, reciprocal);
        let len = (bin_of(max, reciprocal) - first + 1) as usize;
        if (exponent, first, len) != (self.exponent, self.first, self.bins.len()) {
            let shift = exponent - self.exponent;
            let (old_first, old) = (self.first, std::mem::replace(&mut self.bins, vec![0; len]));
            (self.exponent, self.first) = (exponent, first);
            self.add_bins(old_first, &old, shift);
        }
        (self.min, self.max) = (min, max);
    }

    /// Adds bins whose width is 2^shift times smaller.
    fn add_bins(&mut self, first: i32, bins: &[u64], shift: i32) {
        for (i, &count) in bins.iter().enumerate() {
            // Bins of either sign merge towards zero: ⌊i / 2^shift⌋ for both.
            let bin = (first + i as i32) >> shift.min(31);
            if let Some(sum) = self.bins.get_mut(bin.wrapping_sub(self.first) as usize) {
                *sum += count;
            }
        }
    }
}

/// The bin of a value: ⌊|x| / width⌋ for x ≥ 0, and −1 − ⌊|x| / width⌋ for x < 0. That the sides mirror each other
/// keeps this exact where x / width underflows, and free of branches.
#[inline]
fn bin_of(value: f32, reciprocal: f32) -> i32 {
    // −0 becomes +0.
    let value = value + 0.0;
    let sign = value.to_bits() as i32 >> 31;
    ((value.abs() * reciprocal) as i32) ^ sign
}

/// The least exponent of the bin width for which values from `min` to `max` take at most [`CAPACITY`] bins; bin
/// numbers stay below 2^24, where f32 counts exactly.
fn exponent_for(min: f32, max: f32) -> i32 {
    let largest = min.abs().max(max.abs());
    let mut exponent = (ilog2(largest) - 23).max(LEAST_EXPONENT);
    loop {
        let reciprocal = power_of_two(-exponent);
        let bins = i64::from(bin_of(max, reciprocal)) - i64::from(bin_of(min, reciprocal)) + 1;
        if bins <= CAPACITY as i64 {
            return exponent;
        }
        exponent += 1;
    }
}

/// Exponent of a finite value: the greatest e with 2^e ≤ value (−127 for subnormals and zero).
fn ilog2(value: f32) -> i32 {
    (value.to_bits() >> 23 & 0xff) as i32 - 127
}

/// 2^exponent, for exponents of normal f32.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// Minimum, maximum, zeros and values that are not finite, in a form the compiler vectorizes.
fn summarize(values: &[f32]) -> Summary {
    const LANES: usize = 16;
    let mut min = [f32::INFINITY; LANES];
    let mut max = [f32::NEG_INFINITY; LANES];
    let (mut zeros, mut not_finite) = (0u64, 0u64);
    // Blocks keep the 32-bit lane counters from overflowing.
    for block in values.chunks(1 << 16) {
        let mut lane_zeros = [0u32; LANES];
        let mut lane_bad = [0u32; LANES];
        let mut step = |chunk: &[f32]| {
            for (lane, &value) in chunk.iter().enumerate() {
                min[lane] = if value < min[lane] { value } else { min[lane] };
                max[lane] = if value > max[lane] { value } else { max[lane] };
                lane_zeros[lane] += u32::from(value == 0.0);
                lane_bad[lane] += u32::from(value.to_bits() & 0x7f80_0000 == 0x7f80_0000);
            }
        };
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            step(chunk);
        }
        step(rest);
        zeros += lane_zeros.iter().map(|&n| u64::from(n)).sum::<u64>();
        not_finite += lane_bad.iter().map(|&n| u64::from(n)).sum::<u64>();
    }
    Summary {
        // Adding zero makes −0 of +0's kind, whichever came first.
        min: min.into_iter().fold(f32::INFINITY, f32::min) + 0.0,
        max: max.into_iter().fold(f32::NEG_INFINITY, f32::max) + 0.0,
        zeros,
        not_finite,
    }
}
