//! What a search minimizes besides entropy and cost.

use std::convert::Infallible;

use super::super::Table;
use super::{softmax, through_softmax};
use crate::random::Random;

/// A loss, and its gradient by the logits of each layer's options.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// The loss; about 1 where every layer is at its worst, so that the weights of entropy and cost keep their meaning.
    pub value: f64,
    /// For each layer and option.
    pub gradient: Vec<Vec<f64>>,
}

/// What a search minimizes.
pub trait Objective {
    /// Why it cannot be evaluated.
    type Error: std::error::Error + 'static;

    /// The loss when each layer's options have these probabilities. `seed` differs from step to step: what is drawn at
    /// random comes from it alone.
    ///
    /// # Errors
    ///
    /// The loss cannot be evaluated.
    fn loss(&mut self, probabilities: &[Vec<f64>], seed: u64) -> Result<Loss, Self::Error>;
}

/// The expected damage of a table, in shares of the difference between the worst and the best allocation.
#[derive(Debug, Clone)]
pub struct Expected {
    damages: Vec<Vec<f64>>,
}

impl Expected {
    /// Of a table.
    pub fn of(table: &Table) -> Self {
        let range = |layer: &super::super::LayerOptions| {
            let damages = || layer.options.iter().map(|option| option.damage);
            (damages().fold(f64::INFINITY, f64::min), damages().fold(f64::NEG_INFINITY, f64::max))
        };
        let spread: f64 = table.layers.iter().map(range).map(|(best, worst)| worst - best).sum();
        let scale = if spread > 0.0 && spread.is_finite() { 1.0 / spread } else { 0.0 };
        let damages = table.layers.iter().map(|layer| {
            let best = range(layer).0;
            layer.options.iter().map(|option| (option.damage - best) * scale).collect()
        });
        Self { damages: damages.collect() }
    }
}

impl Objective for Expected {
    type Error = Infallible;

    fn loss(&mut self, probabilities: &[Vec<f64>], _: u64) -> Result<Loss, Infallible> {
        let layers = || probabilities.iter().zip(&self.damages);
        let value = layers().flat_map(|(p, damages)| p.iter().zip(damages)).map(|(p, damage)| p * damage).sum();
        Ok(Loss { value, gradient: layers().map(|(p, damages)| through_softmax(p, damages)).collect() })
    }
}

/// A function of the probabilities that gives no gradient, such as the error of a network with noise. The gradient is
/// estimated from two evaluations a step, at logits all moved by ±width at random and back (J. Spall, "Multivariate
/// Stochastic Approximation Using a Simultaneous Perturbation Gradient Approximation", IEEE Trans. Automatic Control,
/// 1992). Both evaluations get the same seed, so that noise they share cancels.
#[derive(Debug, Clone)]
pub struct Measured<F> {
    /// The function; about 1 where every layer is at its worst.
    function: F,
    width: f64,
}

impl<F, E> Measured<F>
where
    F: FnMut(&[Vec<f64>], u64) -> Result<f64, E>,
    E: std::error::Error + 'static,
{
    /// With moves of 0.5 in each logit: wide against the noise of a measurement, and still the slope of a softmax.
    pub fn new(function: F) -> Self {
        Self { function, width: 0.5 }
    }
}

impl<F, E> Objective for Measured<F>
where
    F: FnMut(&[Vec<f64>], u64) -> Result<f64, E>,
    E: std::error::Error + 'static,
{
    type Error = E;

    fn loss(&mut self, probabilities: &[Vec<f64>], seed: u64) -> Result<Loss, E> {
        let mut random = Random::new(seed);
        let signs: Vec<Vec<f64>> = probabilities
            .iter()
            .map(|p| p.iter().map(|_| if random.chance(0.5) { 1.0 } else { -1.0 }).collect())
            .collect();
        let noise = random.bits();
        let mut at = |side: f64| {
            let moved = |(p, signs): (&Vec<f64>, &Vec<f64>)| {
                let logit = |(p, sign): (&f64, &f64)| libm::log(p.max(f64::MIN_POSITIVE)) + side * self.width * sign;
                softmax(&p.iter().zip(signs).map(logit).collect::<Vec<_>>())
            };
            (self.function)(&probabilities.iter().zip(&signs).map(moved).collect::<Vec<_>>(), noise)
        };
        let (up, down) = (at(1.0)?, at(-1.0)?);
        let slope = (up - down) / (2.0 * self.width);
        let gradient = signs.iter().map(|signs| signs.iter().map(|sign| slope * sign).collect()).collect();
        Ok(Loss { value: 0.5 * (up + down), gradient })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::table;
    use super::*;

    #[test]
    fn the_table_is_brought_to_one() {
        let table = table(&[&[(1.0, 8.0), (4.0, 4.0)], &[(0.0, 8.0), (2.0, 4.0), (7.0, 2.0)]]);
        let mut expected = Expected::of(&table);
        let mut at = |p: &[Vec<f64>]| expected.loss(p, 0).expect("a loss").value;
        assert_eq!(at(&[vec![1.0, 0.0], vec![1.0, 0.0, 0.0]]), 0.0);
        assert!((at(&[vec![0.0, 1.0], vec![0.0, 0.0, 1.0]]) - 1.0).abs() < 1e-12);
        assert!((at(&[vec![0.5, 0.5], vec![0.0, 1.0, 0.0]]) - 0.35).abs() < 1e-12);
    }

    #[test]
    fn gradients_are_those_of_differences() {
        let table = table(&[&[(1.0, 8.0), (4.0, 4.0)], &[(0.0, 8.0), (2.0, 4.0), (7.0, 2.0)]]);
        let mut expected = Expected::of(&table);
        let logits = vec![vec![0.3, -0.2], vec![0.1, 0.9, -1.0]];
        let p = |logits: &[Vec<f64>]| logits.iter().map(|l| softmax(l)).collect::<Vec<_>>();
        let loss = expected.loss(&p(&logits), 0).expect("a loss");
        for layer in 0..2 {
            for option in 0..logits[layer].len() {
                let mut at = |step: f64| {
                    let mut moved = logits.clone();
                    moved[layer][option] += step;
                    expected.loss(&p(&moved), 0).expect("a loss").value
                };
                let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!((slope - loss.gradient[layer][option]).abs() < 1e-8);
            }
        }
    }

    #[test]
    fn measured_gradients_are_right_on_average() {
        let table = table(&[&[(1.0, 8.0), (4.0, 4.0)], &[(0.0, 8.0), (2.0, 4.0), (7.0, 2.0)]]);
        let mut exact = Expected::of(&table);
        let mut measured = Measured {
            width: 0.05,
            ..Measured::new(|p: &[Vec<f64>], _| Expected::of(&table).loss(p, 0).map(|l| l.value))
        };
        let p = [vec![0.6, 0.4], vec![0.2, 0.5, 0.3]];
        let expected = exact.loss(&p, 0).expect("a loss").gradient;
        let mut sums = vec![vec![0.0; 2], vec![0.0; 3]];
        for seed in 0..4000 {
            let gradient = measured.loss(&p, seed).expect("a loss").gradient;
            sums.iter_mut().flatten().zip(gradient.iter().flatten()).for_each(|(sum, g)| *sum += g / 4000.0);
        }
        for (mean, exact) in sums.iter().flatten().zip(expected.iter().flatten()) {
            assert!((mean - exact).abs() < 0.01, "{sums:?} {expected:?}");
        }
    }
}
