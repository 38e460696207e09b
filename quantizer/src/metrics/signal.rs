//! Distances between a reference signal and an approximation of it.

/// Largest magnitude of a ratio in decibels that is reported: 200 dB stands for no error at all (an error in the last
/// bit of an f32 is at 144 dB), −200 dB for an error without any signal.
pub const MAX_DB: f64 = 200.0;

/// Signal-to-quantization-noise ratio: `10 · log10(Σ ref² / Σ (ref − out)²)` over all elements of all samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sqnr {
    signal: f64,
    noise: f64,
}

impl Sqnr {
    /// Of sums of squares: of the reference, and of its differences to the output.
    pub fn of(signal: f64, noise: f64) -> Self {
        Self { signal, noise: noise.max(0.0) }
    }

    /// Adds elements of the reference and of what stands for it.
    pub fn add(&mut self, reference: &[f32], output: &[f32]) {
        for (&r, &o) in reference.iter().zip(output) {
            let (r, o) = (f64::from(r), f64::from(o));
            self.signal += r * r;
            self.noise += (r - o) * (r - o);
        }
    }

    /// Adds what another one has seen, which comes later in sample order.
    pub fn merge(&mut self, later: &Self) {
        self.signal += later.signal;
        self.noise += later.noise;
    }

    /// The ratio in decibels, within ±[`MAX_DB`].
    pub fn decibels(&self) -> f64 {
        match (self.signal, self.noise) {
            (_, 0.0) => MAX_DB,
            (signal, noise) => (10.0 * libm::log10(signal / noise)).clamp(-MAX_DB, MAX_DB),
        }
    }
}

/// Mean over samples of the cosine of the angle between reference and output.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cosine {
    sum: f64,
    samples: u64,
}

impl Cosine {
    /// Adds one sample. Two zero vectors are alike (1); a zero vector and another are not (0).
    pub fn add(&mut self, reference: &[f32], output: &[f32]) {
        let (mut dot, mut rr, mut oo) = (0.0f64, 0.0f64, 0.0f64);
        for (&r, &o) in reference.iter().zip(output) {
            let (r, o) = (f64::from(r), f64::from(o));
            dot += r * o;
            rr += r * r;
            oo += o * o;
        }
        self.sum += match (rr == 0.0, oo == 0.0) {
            (true, true) => 1.0,
            (false, false) => dot / (rr.sqrt() * oo.sqrt()),
            _ => 0.0,
        };
        self.samples += 1;
    }

    /// Adds what another one has seen, which comes later in sample order.
    pub fn merge(&mut self, later: &Self) {
        self.sum += later.sum;
        self.samples += later.samples;
    }

    /// The mean; `None` without samples.
    pub fn mean(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.sum / self.samples as f64)
    }
}

/// Largest absolute difference of any element, in steps: 255ths of the range that the reference's elements span
/// (widened to hold zero), which is one step of an ideal 8-bit quantizer of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MaxError {
    error: f64,
    low: f64,
    high: f64,
}

impl MaxError {
    /// Adds elements.
    pub fn add(&mut self, reference: &[f32], output: &[f32]) {
        for (&r, &o) in reference.iter().zip(output) {
            let (r, o) = (f64::from(r), f64::from(o));
            self.merge(&Self { error: (r - o).abs(), low: r, high: r });
        }
    }

    /// Adds what another one has seen.
    pub fn merge(&mut self, other: &Self) {
        self.error = self.error.max(other.error);
        self.low = self.low.min(other.low);
        self.high = self.high.max(other.high);
    }

    /// The difference in steps; `None` if there is one and the reference is zero everywhere.
    pub fn steps(&self) -> Option<f64> {
        match (self.error, self.high - self.low) {
            (0.0, _) => Some(0.0),
            (error, range) => (range > 0.0).then(|| error * 255.0 / range),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqnr_of_hand_computed_signals() {
        let mut sqnr = Sqnr::default();
        // Signal 9 + 16 = 25, noise 0.25: a ratio of 100.
        sqnr.add(&[3.0, -4.0], &[3.5, -4.0]);
        assert!((sqnr.decibels() - 20.0).abs() < 1e-12);
        // Signal 25 + 225 = 250, noise 0.25 + 2.25 = 2.5: the same ratio.
        let mut more = Sqnr::default();
        more.add(&[15.0], &[13.5]);
        sqnr.merge(&more);
        assert!((sqnr.decibels() - 20.0).abs() < 1e-12);
    }

    #[test]
    fn sqnr_is_bounded() {
        let mut exact = Sqnr::default();
        assert_eq!(exact.decibels(), MAX_DB);
        exact.add(&[1.0, 2.0], &[1.0, 2.0]);
        assert_eq!(exact.decibels(), MAX_DB);
        let mut silent = Sqnr::default();
        silent.add(&[0.0], &[1.0]);
        assert_eq!(silent.decibels(), -MAX_DB);
    }

    #[test]
    fn cosine_is_the_mean_over_samples() {
        let mut cosine = Cosine::default();
        assert_eq!(cosine.mean(), None);
        cosine.add(&[1.0, 0.0], &[1.0, 1.0]); // 45 degrees
        cosine.add(&[0.0, 0.0], &[0.0, 0.0]); // alike
        let mut later = Cosine::default();
        later.add(&[0.0, 0.0], &[1.0, 0.0]); // not alike
        later.add(&[2.0, 0.0], &[-1.0, 0.0]); // opposite
        cosine.merge(&later);
        let expected = (0.5f64.sqrt() + 1.0 + 0.0 - 1.0) / 4.0;
        assert!((cosine.mean().expect("samples") - expected).abs() < 1e-12);
    }

    #[test]
    fn the_largest_error_is_counted_in_steps() {
        let mut error = MaxError::default();
        assert_eq!(error.steps(), Some(0.0));
        error.add(&[1.0, 2.0, -3.0], &[1.25, 2.0, -4.0]);
        let mut other = MaxError::default();
        other.add(&[2.1], &[2.6]);
        error.merge(&other);
        // Error 1, range 5.1, so a step is 0.02.
        assert!((error.steps().expect("a range") - 50.0).abs() < 1e-4);
        let mut silent = MaxError::default();
        silent.add(&[0.0], &[1.0]);
        assert_eq!(silent.steps(), None);
    }
}
