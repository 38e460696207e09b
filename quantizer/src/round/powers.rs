//! Kurtosis of integers that change one at a time.

/// The kurtosis of a uniform law, which uses every level equally (the target of Shkolnik et al., "Robust Quantization:
/// One Model to Rule Them All", NeurIPS 2020).
const UNIFORM: f64 = 1.8;

/// Sums of the first four powers of integers: whole numbers, so adding and taking away lose nothing (below 2⁵³).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Powers {
    count: f64,
    sums: [f64; 4],
}

impl Powers {
    pub(super) fn of(integers: &[i32]) -> Self {
        integers.iter().fold(Self::default(), |powers, &q| powers.with(q, 1.0))
    }

    fn with(mut self, q: i32, times: f64) -> Self {
        let q = f64::from(q);
        self.count += times;
        let mut power = times;
        for sum in &mut self.sums {
            power *= q;
            *sum += power;
        }
        self
    }

    /// One integer's move.
    pub(super) fn moved(self, from: i32, to: i32) -> Self {
        self.with(from, -1.0).with(to, 1.0)
    }

    /// Those of `self` with `new` in the place of `old`.
    pub(super) fn exchanged(mut self, old: &Self, new: &Self) -> Self {
        self.count += new.count - old.count;
        self.sums.iter_mut().zip(old.sums.iter().zip(&new.sums)).for_each(|(sum, (old, new))| *sum += new - old);
        self
    }

    /// Fourth standardized moment; `None` where all integers are equal.
    pub(super) fn kurtosis(&self) -> Option<f64> {
        let [mean, square, cube, fourth] = self.sums.map(|sum| sum / self.count);
        let variance = square - mean * mean;
        let m4 = fourth - 4.0 * mean * cube + 6.0 * mean * mean * square - 3.0 * mean * mean * mean * mean;
        (variance > 1e-9).then(|| m4 / (variance * variance))
    }

    /// How far the kurtosis is from a uniform law's; `None` where all integers are equal.
    pub(super) fn gap(&self) -> Option<f64> {
        self.kurtosis().map(|kurtosis| (kurtosis - UNIFORM).abs())
    }

    /// By how much [`Self::gap`] grows on the way to `other`. Equal integers have none to lose, and are no way out.
    pub(super) fn growth(&self, other: &Self) -> f64 {
        match (self.gap(), other.gap()) {
            (Some(before), Some(after)) => after - before,
            (Some(_), None) => f64::INFINITY,
            (None, _) => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Moments;

    #[test]
    fn sums_that_follow_changes_give_the_kurtosis_of_the_integers() {
        let mut integers: Vec<i32> = (0..500).map(|i| (i * i * 7 + i) % 255 - 127).collect();
        let mut powers = Powers::of(&integers);
        for (i, integer) in integers.iter_mut().take(250).enumerate() {
            powers = powers.moved(*integer, i as i32 % 16 - 3);
            *integer = i as i32 % 16 - 3;
        }
        let direct = Moments::of_iter(integers.iter().map(|&q| q as f32)).kurtosis();
        assert!((powers.kurtosis().unwrap() - direct).abs() < 1e-9 * direct);
        assert_eq!(powers, Powers::of(&integers));
    }

    #[test]
    fn equal_integers_have_no_kurtosis_and_are_not_sought() {
        let (flat, two) = (Powers::of(&[3; 4]), Powers::of(&[3, 3, 3, 4]));
        assert_eq!((flat.gap(), flat.growth(&two), two.growth(&flat)), (None, 0.0, f64::INFINITY));
        // Sixteen levels equally often: 3/5 · (3·16² − 7) / (16² − 1).
        let levels: Vec<i32> = (-8..8).collect();
        assert!((Powers::of(&levels).kurtosis().unwrap() - 0.6 * 761.0 / 255.0).abs() < 1e-12);
    }
}
