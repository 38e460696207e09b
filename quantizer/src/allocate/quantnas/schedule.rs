//! How strongly options are urged to separate.

/// The weight of the entropy over the epochs, as in QuantNAS's released code: nothing while options are compared, then
/// rising, so that each layer settles on one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Epochs E.
    pub epochs: usize,
    /// Epochs e0 at the start in which logits rest.
    pub warmup: usize,
    /// The weight μ0 that is reached in the last epoch.
    pub most: f64,
}

impl Default for Schedule {
    /// 20 epochs, 9 of them warm-up, up to 1e-3.
    fn default() -> Self {
        Self { epochs: 20, warmup: 9, most: 1e-3 }
    }
}

impl Schedule {
    /// μ of an epoch, counted from 0: μ0 · w1 · w2 with w1 = (e − e0) / (E − 1 − e0), k = ⌊(E − e0) / 4⌋ and
    /// w2 = 0 for e − e0 < k, else ln(e − k − e0 + 2) / ln(E − k − e0 + 1).
    pub fn entropy_weight(&self, epoch: usize) -> f64 {
        let (Some(past), Some(active)) = (epoch.checked_sub(self.warmup), self.epochs.checked_sub(self.warmup)) else {
            return 0.0;
        };
        let quarter = active / 4;
        if past < quarter || active < 2 {
            return 0.0;
        }
        let linear = past as f64 / (active - 1) as f64;
        let late = libm::log((past - quarter + 2) as f64) / libm::log((active - quarter + 1) as f64);
        self.most * linear * late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_of_the_released_code() {
        let schedule = Schedule { epochs: 20, warmup: 9, most: 1.0 };
        let expected = [0.0, 0.0, 0.060, 0.143, 0.241, 0.349, 0.467, 0.592, 0.722, 0.859, 1.0];
        for (epoch, expected) in (9..20).zip(expected) {
            let found = schedule.entropy_weight(epoch);
            assert!((found - expected).abs() < 5.1e-4, "epoch {epoch}: {found}");
        }
        assert!((0..9).all(|epoch| schedule.entropy_weight(epoch) == 0.0));
        assert!((Schedule { most: 1e-3, ..schedule }.entropy_weight(19) - 1e-3).abs() < 1e-15);
    }

    #[test]
    fn short_searches_have_a_schedule_too() {
        for (epochs, warmup) in [(0, 0), (1, 0), (2, 5), (3, 2), (4, 0), (2, 0)] {
            let schedule = Schedule { epochs, warmup, most: 1.0 };
            for epoch in 0..6 {
                let weight = schedule.entropy_weight(epoch);
                assert!(weight.is_finite() && weight >= 0.0, "{epochs} {warmup} {epoch}: {weight}");
            }
        }
    }
}
