//! The shape of a distribution: kurtosis, exactly.

/// Central moments of values, in f64. Slices are summarized in two passes, since a single pass that sums powers loses
/// everything to rounding where the mean is large against the spread; summaries are merged by the pairwise formulas of
/// P. Pébay, "Formulas for Robust, One-Pass Parallel Computation of Covariances and Arbitrary-Order Statistical
/// Moments", Sandia SAND2008-6212, 2008, equations 2.1, 3.1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moments {
    count: f64,
    mean: f64,
    /// Σ (x − mean)^k for k = 2, 3, 4.
    m2: f64,
    m3: f64,
    m4: f64,
}

impl Moments {
    /// Of values; those that are not finite are left out.
    pub fn of(values: &[f32]) -> Self {
        Self::of_iter(values.iter().copied())
    }

    /// As [`Self::of`], of values that can be gone through twice.
    pub fn of_iter(values: impl Iterator<Item = f32> + Clone) -> Self {
        let finite = || values.clone().filter(|value| value.is_finite()).map(f64::from);
        let (count, sum) = finite().fold((0.0, 0.0), |(count, sum), x| (count + 1.0, sum + x));
        if count == 0.0 {
            return Self::default();
        }
        let mean = sum / count;
        let (mut m2, mut m3, mut m4) = (0.0, 0.0, 0.0);
        for x in finite() {
            let d = x - mean;
            let square = d * d;
            m2 += square;
            m3 += square * d;
            m4 += square * square;
        }
        Self { count, mean, m2, m3, m4 }
    }

    /// Adds what another one has seen.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0.0 {
            return;
        }
        let (a, b, n) = (self.count, other.count, self.count + other.count);
        let d = other.mean - self.mean;
        let step = d / n;
        let m4 = self.m4
            + other.m4
            + d * d * step * step * a * b * (a * a - a * b + b * b) / n
            + 6.0 * step * step * (a * a * other.m2 + b * b * self.m2)
            + 4.0 * step * (a * other.m3 - b * self.m3);
        let m3 = self.m3 + other.m3 + d * step * step * a * b * (a - b) + 3.0 * step * (a * other.m2 - b * self.m2);
        let m2 = self.m2 + other.m2 + d * step * a * b;
        *self = Self { count: n, mean: self.mean + b * step, m2, m3, m4 };
    }

    /// Number of finite values.
    pub fn count(&self) -> u64 {
        self.count as u64
    }

    /// Mean; 0 of nothing.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Variance (of the values themselves, not of a law they are drawn from); 0 of nothing.
    pub fn variance(&self) -> f64 {
        if self.count > 0.0 { self.m2 / self.count } else { 0.0 }
    }

    /// Mean of the squares; 0 of nothing.
    pub fn mean_square(&self) -> f64 {
        self.variance() + self.mean * self.mean
    }

    /// Fourth standardized moment: 1.8 for a uniform law, 3 for a normal one, 6 for a Laplace one; 0 where all values
    /// are equal (to the precision of f64).
    pub fn kurtosis(&self) -> f64 {
        let variance = self.variance();
        // A constant that f32 and f64 cannot average exactly has a spread of rounding errors only.
        let floor = (self.mean * f64::EPSILON) * (self.mean * f64::EPSILON) * 16.0;
        if variance > floor { self.m4 / self.count / (variance * variance) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Uniform numbers in (0, 1).
    fn uniform(seed: u64) -> impl Iterator<Item = f64> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        })
    }

    const COUNT: usize = 400_000;

    #[test]
    fn known_laws() {
        let flat: Vec<f32> = uniform(1).take(COUNT).map(|u| u as f32).collect();
        assert!((Moments::of(&flat).kurtosis() - 1.8).abs() < 0.02);
        // Box and Muller.
        let pairs = uniform(2).take(COUNT).zip(uniform(3));
        let normal: Vec<f32> =
            pairs.map(|(u, v)| ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32).collect();
        assert!((Moments::of(&normal).kurtosis() - 3.0).abs() < 0.1);
        let laplace: Vec<f32> =
            uniform(4).take(COUNT).map(|u| ((2.0 * u.min(1.0 - u)).ln() * (u - 0.5).signum()) as f32).collect();
        assert!((Moments::of(&laplace).kurtosis() - 6.0).abs() < 0.2);
    }

    #[test]
    fn equal_levels_have_the_kurtosis_of_the_formula() {
        // (3/5)(3N² − 7)/(N² − 1) for N equally likely levels.
        let levels: Vec<f32> = (0..16u8).map(f32::from).collect();
        assert!((Moments::of(&levels).kurtosis() - 0.6 * 761.0 / 255.0).abs() < 1e-12);
    }

    #[test]
    fn a_large_mean_does_not_drown_the_spread() {
        // Values 2^20 ± 1 and ± 2, exact in f32.
        let values: Vec<f32> = [-2.0f32, -1.0, 1.0, 2.0].iter().map(|d| 1_048_576.0 + d).collect();
        // m2 = 10 / 4, m4 = 34 / 4.
        assert!((Moments::of(&values).kurtosis() - 8.5 / 6.25).abs() < 1e-9);
        // Sums of powers in f32 are lost: the variance is not even near 2.5.
        let n = values.len() as f32;
        let (sum, squares) = values.iter().fold((0f32, 0f32), |(s, q), x| (s + x, q + x * x));
        assert!((squares / n - (sum / n) * (sum / n) - 2.5).abs() > 1.0);
    }

    #[test]
    fn constants_and_nothing_have_none() {
        assert_eq!(Moments::of(&[0.1; 1000]).kurtosis(), 0.0);
        assert_eq!(Moments::of(&[]).kurtosis(), 0.0);
        assert_eq!(Moments::of(&[f32::NAN, 1.0, f32::INFINITY]).count(), 1);
    }

    proptest! {
        #[test]
        fn parts_merge_to_the_whole(values in prop::collection::vec(-100f32..100.0, 2..200), at in 0usize..200) {
            let at = at.min(values.len());
            let mut parts = Moments::of(&values[..at]);
            parts.merge(&Moments::of(&values[at..]));
            let whole = Moments::of(&values);
            prop_assert!((parts.mean() - whole.mean()).abs() < 1e-9);
            prop_assert!((parts.variance() - whole.variance()).abs() < 1e-7 * (1.0 + whole.variance()));
            prop_assert!((parts.kurtosis() - whole.kurtosis()).abs() < 1e-6 * (1.0 + whole.kurtosis()));
        }
    }
}
