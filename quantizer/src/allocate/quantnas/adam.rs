//! Adam (D. Kingma and J. Ba, 2015), with QuantNAS's moments for logits.

/// Decay of the mean of gradients, and of their squares.
const BETAS: (f64, f64) = (0.5, 0.999);
const EPSILON: f64 = 1e-8;

/// The state of a descent.
pub(super) struct Adam {
    rate: f64,
    steps: i32,
    /// For each logit, the running means of gradients and of their squares.
    moments: Vec<Vec<(f64, f64)>>,
}

impl Adam {
    pub(super) fn new(logits: &[Vec<f64>], rate: f64) -> Self {
        Self { rate, steps: 0, moments: logits.iter().map(|logits| vec![(0.0, 0.0); logits.len()]).collect() }
    }

    /// Moves logits against the gradient.
    pub(super) fn step(&mut self, logits: &mut [Vec<f64>], gradient: &[Vec<f64>]) {
        self.steps = self.steps.saturating_add(1);
        let bias = (1.0 - BETAS.0.powi(self.steps), 1.0 - BETAS.1.powi(self.steps));
        let layers = logits.iter_mut().zip(gradient).zip(&mut self.moments);
        for ((logit, &gradient), moment) in layers.flat_map(|((l, g), m)| l.iter_mut().zip(g).zip(m)) {
            moment.0 = BETAS.0 * moment.0 + (1.0 - BETAS.0) * gradient;
            moment.1 = BETAS.1 * moment.1 + (1.0 - BETAS.1) * gradient * gradient;
            *logit -= self.rate * (moment.0 / bias.0) / (libm::sqrt(moment.1 / bias.1) + EPSILON);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_is_as_long_as_the_rate() {
        let mut logits = vec![vec![0.0, 1.0], vec![2.0]];
        Adam::new(&logits, 0.1).step(&mut logits, &[vec![1e-3, -50.0], vec![0.0]]);
        assert!((logits[0][0] + 0.1).abs() < 1e-5 && (logits[0][1] - 1.1).abs() < 1e-5);
        assert_eq!(logits[1][0], 2.0);
    }

    #[test]
    fn a_bowl_is_descended() {
        let mut logits = vec![vec![3.0, -2.0]];
        let mut adam = Adam::new(&logits, 0.05);
        for _ in 0..400 {
            let gradient = vec![vec![2.0 * (logits[0][0] - 1.0), 20.0 * (logits[0][1] - 0.5)]];
            adam.step(&mut logits, &gradient);
        }
        assert!((logits[0][0] - 1.0).abs() < 0.05 && (logits[0][1] - 0.5).abs() < 0.05, "{logits:?}");
    }
}
