//! How far the distribution of weights is from a uniform one.
//!
//! `Skew² + (Kurt − 1.8)²` over the weights of a layer (weight distribution regularization, EQ-Net, Xu et al. 2023,
//! equation 6; the kurtosis alone: KURE, Shkolnik et al. 2020). 1.8 is the kurtosis of a uniform law, which uses every
//! level of a uniform grid alike. Factors of the two terms as in EQ-Net's code.

/// The kurtosis of a uniform law.
const UNIFORM: f64 = 1.8;
/// Factor of the squared skewness.
const SKEWNESS: f64 = 1.0;
/// Factor of the squared distance of the kurtosis.
const KURTOSIS: f64 = 0.015;

/// The moments of some numbers.
pub(super) struct Distribution<'x> {
    values: &'x [f64],
    mean: f64,
    /// Central moments.
    m2: f64,
    m3: f64,
    m4: f64,
}

impl<'x> Distribution<'x> {
    /// In two passes: one pass loses all digits where the mean is large against the deviation.
    pub(super) fn new(values: &'x [f64]) -> Self {
        let n = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / n;
        let moment = |power: i32| values.iter().map(|x| (x - mean).powi(power)).sum::<f64>() / n;
        Self { values, mean, m2: moment(2), m3: moment(3), m4: moment(4) }
    }

    pub(super) fn skewness(&self) -> f64 {
        self.m3 / self.m2.powf(1.5)
    }

    pub(super) fn kurtosis(&self) -> f64 {
        self.m4 / (self.m2 * self.m2)
    }

    /// The distance; only its gradient is needed to train.
    #[cfg(test)]
    fn distance(&self) -> f64 {
        SKEWNESS * self.skewness().powi(2) + KURTOSIS * (self.kurtosis() - UNIFORM).powi(2)
    }

    /// The gradient of the distance to each number. With `d = x − mean`:
    /// `∂Kurt = 4/(n m₂²) (d³ − m₃ − Kurt m₂ d)`, `∂Skew = 3/(n m₂^1.5) (d² − m₂ − Skew √m₂ d)`.
    pub(super) fn gradient(&self) -> Vec<f64> {
        let (n, deviation) = (self.values.len().max(1) as f64, self.m2.sqrt());
        // Equal numbers have no shape.
        if self.m2 <= f64::MIN_POSITIVE {
            return vec![0.0; self.values.len()];
        }
        let (skewness, kurtosis) = (self.skewness(), self.kurtosis());
        let to_kurtosis = 2.0 * KURTOSIS * (kurtosis - UNIFORM) * 4.0 / (n * self.m2 * self.m2);
        let to_skewness = 2.0 * SKEWNESS * skewness * 3.0 / (n * self.m2 * deviation);
        let one = |x: &f64| {
            let d = x - self.mean;
            to_kurtosis * (d * d * d - self.m3 - kurtosis * self.m2 * d)
                + to_skewness * (d * d - self.m2 - skewness * deviation * d)
        };
        self.values.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn normal(count: usize) -> Vec<f64> {
        let mut random = Random::at(5, [0, 0]);
        // The sum of twelve uniform numbers is close to normal.
        (0..count).map(|_| (0..12).map(|_| random.uniform()).sum::<f64>() - 6.0).collect()
    }

    #[test]
    fn moments_of_known_laws() {
        let uniform: Vec<f64> = (0..10_001).map(|i| f64::from(i) / 10_000.0).collect();
        let moments = Distribution::new(&uniform);
        assert!((moments.kurtosis() - 1.8).abs() < 1e-3 && moments.skewness().abs() < 1e-9);
        // 16 equally likely levels: (3/5) (3·16² − 7) / (16² − 1).
        let levels: Vec<f64> = (0..16).map(f64::from).collect();
        assert!((Distribution::new(&levels).kurtosis() - 0.6 * (3.0 * 256.0 - 7.0) / 255.0).abs() < 1e-12);
        assert!((Distribution::new(&normal(50_000)).kurtosis() - 2.9).abs() < 0.1);
        // A large mean costs no digits.
        let shifted: Vec<f64> = uniform.iter().map(|x| x + 1e6).collect();
        assert!((Distribution::new(&shifted).kurtosis() - 1.8).abs() < 1e-3);
    }

    #[test]
    fn the_distance_ignores_scale_and_shift() {
        let x = normal(200);
        let moved: Vec<f64> = x.iter().map(|x| 3.0 * x + 0.7).collect();
        assert!((Distribution::new(&x).distance() - Distribution::new(&moved).distance()).abs() < 1e-9);
    }

    #[test]
    fn the_gradient_follows_finite_differences() {
        let x: Vec<f64> = normal(40).iter().map(|x| x + 0.3 * x * x).collect();
        let gradient = Distribution::new(&x).gradient();
        for i in 0..x.len() {
            let at = |by: f64| {
                let mut moved = x.clone();
                moved[i] += by;
                Distribution::new(&moved).distance()
            };
            let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!(
                (gradient[i] - expected).abs() < 1e-4 * expected.abs().max(1e-3),
                "{i}: {} {expected}",
                gradient[i]
            );
        }
    }

    #[test]
    fn descent_makes_normal_weights_uniform() {
        let mut x = normal(400);
        let n = x.len() as f64;
        for _ in 0..4000 {
            let gradient = Distribution::new(&x).gradient();
            x.iter_mut().zip(gradient).for_each(|(x, g)| *x -= 0.5 * n * g);
        }
        let end = Distribution::new(&x);
        assert!((end.kurtosis() - 1.8).abs() < 0.1 && end.skewness().abs() < 0.05, "{}", end.kurtosis());
    }

    #[test]
    fn equal_weights_have_no_gradient() {
        assert_eq!(Distribution::new(&[0.5; 4]).gradient(), [0.0; 4]);
        assert!(Distribution::new(&[]).gradient().is_empty());
    }
}
