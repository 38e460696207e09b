//! Differentiable search for bit widths under quantization noise.
//!
//! After QuantNAS (Shvetsov et al., "QuantNAS for Super Resolution: Searching for Efficient Quantization-Friendly
//! Architectures Against Quantization Noise", IEEE Access 2024, arXiv 2208.14839, and its released code), with a layer's
//! options in the place of operations. Every layer has logits α, at first 0, and p = softmax(α) over its options. What
//! is minimized over α is
//!
//! ```text
//! loss(p) + μ(epoch) · Σ H(p of a layer) + η · C(p) / C0
//! ```
//!
//! with H the entropy in nats, C the expected cost and C0 that at uniform p; at the end each layer takes its most probable
//! option. Weights are frozen, so that the warm-up epochs, in which the original trains only those, take no time; the
//! schedule counts them all the same.
//!
//! The loss is an [`Objective`]: [`Expected`] takes it from a table (damages add up), [`Measured`] from any function of
//! the probabilities, such as the network's error with the noise of all options mixed into it
//! ([`crate::sensitivity::NoiseProbe`]).

mod adam;
mod objective;
mod schedule;

pub use objective::{Expected, Loss, Measured, Objective};
pub use schedule::Schedule;

use serde::Serialize;

use self::adam::Adam;
use super::{Allocation, Table, limit};
use crate::random::Random;

/// Rounds of halving in [`search_within`].
const HALVINGS: usize = 14;

/// How a search goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Epochs, and the weight of the entropy in each.
    pub schedule: Schedule,
    /// Steps of each epoch after the warm-up.
    pub steps: usize,
    /// Adam's learning rate. The original's 3e-4 is for thousands of steps.
    pub learning_rate: f64,
    /// Weight η of the cost.
    pub cost_weight: f64,
    /// Seed of what the objective draws.
    pub seed: u64,
}

impl Default for Settings {
    /// The original's schedule, in fewer and longer steps.
    fn default() -> Self {
        Self { schedule: Schedule::default(), steps: 30, learning_rate: 0.05, cost_weight: 0.0, seed: 0 }
    }
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    /// The most probable option of each layer; damage and cost are sums of the table.
    pub allocation: Allocation,
    /// The probabilities of each layer's options.
    pub probabilities: Vec<Vec<f64>>,
    /// Mean over the layers that have a choice of H(p) / ln(options): 1 is undecided, 0 decided.
    pub entropy: f64,
    /// The loss of the last step, without entropy and cost.
    pub loss: f64,
}

/// Why a search failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error<E: std::error::Error + 'static> {
    /// The table or the budget.
    #[error(transparent)]
    Table(#[from] super::Error),
    /// The objective could not be evaluated.
    #[error(transparent)]
    Objective(E),
}

/// Searches with a given weight of the cost. Equal seeds give equal results, if the objective's do.
///
/// # Errors
///
/// The table is wrong, or the objective fails.
pub fn search<O: Objective>(table: &Table, objective: &mut O, settings: &Settings) -> Result<Found, Error<O::Error>> {
    table.check()?;
    let mut random = Random::new(settings.seed);
    let mut logits: Vec<Vec<f64>> = table.layers.iter().map(|layer| vec![0.0; layer.options.len()]).collect();
    let uniform: Vec<Vec<f64>> = logits.iter().map(|logits| softmax(logits)).collect();
    let first_cost = expected_cost(table, &uniform);
    let cost_scale = if first_cost.abs() > 0.0 { settings.cost_weight / first_cost } else { 0.0 };
    let mut adam = Adam::new(&logits, settings.learning_rate);
    let mut loss = f64::NAN;
    for epoch in settings.schedule.warmup..settings.schedule.epochs {
        let entropy_weight = settings.schedule.entropy_weight(epoch);
        for _ in 0..settings.steps {
            let probabilities: Vec<Vec<f64>> = logits.iter().map(|logits| softmax(logits)).collect();
            let evaluated = objective.loss(&probabilities, random.bits()).map_err(Error::Objective)?;
            loss = evaluated.value;
            let mut gradient = evaluated.gradient;
            for ((gradient, p), layer) in gradient.iter_mut().zip(&probabilities).zip(&table.layers) {
                // d/dp of μ Σ −p ln p + η C / C0, the constant of the entropy left out: it cancels in the softmax.
                let direct: Vec<f64> = p
                    .iter()
                    .zip(&layer.options)
                    .map(|(&p, option)| cost_scale * option.cost - entropy_weight * libm::log(p.max(f64::MIN_POSITIVE)))
                    .collect();
                gradient.iter_mut().zip(through_softmax(p, &direct)).for_each(|(sum, more)| *sum += more);
            }
            adam.step(&mut logits, &gradient);
        }
    }
    let probabilities: Vec<Vec<f64>> = logits.iter().map(|logits| softmax(logits)).collect();
    let choice = probabilities.iter().map(|p| most_probable(p)).collect();
    let open: Vec<f64> =
        probabilities.iter().filter(|p| p.len() > 1).map(|p| entropy(p) / (p.len() as f64).ln()).collect();
    Ok(Found {
        allocation: table.allocation(choice),
        entropy: open.iter().sum::<f64>() / open.len().max(1) as f64,
        probabilities,
        loss,
    })
}

/// Searches for the least weight of the cost with which the allocation costs at most `budget`, by halving.
///
/// # Errors
///
/// As [`search`]; nothing is that cheap.
pub fn search_within<O: Objective>(
    table: &Table,
    budget: f64,
    objective: &mut O,
    settings: &Settings,
) -> Result<Found, Error<O::Error>> {
    table.check_budget("cost", budget, |option| option.cost)?;
    let mut run = |cost_weight: f64| search(table, objective, &Settings { cost_weight, ..settings.clone() });
    let fits = |found: &Found| found.allocation.cost <= limit(budget);
    let found = run(0.0)?;
    if fits(&found) {
        return Ok(found);
    }
    let (mut low, mut high) = (0.0, 1.0);
    let mut best = run(high)?;
    // With the cost alone in the loss, the cheapest allocation comes out, which fits.
    while !fits(&best) && high < 1e12 {
        low = high;
        high *= 8.0;
        best = run(high)?;
    }
    for _ in 0..HALVINGS {
        let middle = if low > 0.0 { libm::sqrt(low * high) } else { high / 8.0 };
        let found = run(middle)?;
        match fits(&found) {
            true => (high, best) = (middle, found),
            false => low = middle,
        }
    }
    if !fits(&best) {
        // Options of nearly the same cost, between which no price decides.
        best.allocation = most_probable_within(table, &best.probabilities, budget)?;
    }
    Ok(best)
}

/// The allocation with the largest product of probabilities among those that cost at most `budget`: what to take from one
/// search whose price came near the budget, where each evaluation is too dear for [`search_within`].
///
/// # Errors
///
/// The table is wrong, or nothing is that cheap.
pub fn most_probable_within(
    table: &Table,
    probabilities: &[Vec<f64>],
    budget: f64,
) -> Result<Allocation, super::Error> {
    let mut surprise = table.clone();
    for (layer, p) in surprise.layers.iter_mut().zip(probabilities) {
        for (option, &p) in layer.options.iter_mut().zip(p) {
            option.damage = -libm::log(p.max(f64::MIN_POSITIVE));
        }
    }
    Ok(table.allocation(super::least_damage(&surprise, budget)?.allocation.choice))
}

/// The probabilities of logits.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| libm::exp(logit - largest)).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Entropy in nats.
pub fn entropy(probabilities: &[f64]) -> f64 {
    probabilities.iter().filter(|&&p| p > 0.0).map(|&p| -p * libm::log(p)).sum::<f64>().abs()
}

/// The gradient by logits, given that by their softmax.
pub fn through_softmax(probabilities: &[f64], gradient: &[f64]) -> Vec<f64> {
    let mean: f64 = probabilities.iter().zip(gradient).map(|(p, g)| p * g).sum();
    probabilities.iter().zip(gradient).map(|(p, g)| p * (g - mean)).collect()
}

fn expected_cost(table: &Table, probabilities: &[Vec<f64>]) -> f64 {
    let layers = table.layers.iter().zip(probabilities);
    layers.flat_map(|(layer, p)| layer.options.iter().zip(p)).map(|(option, p)| p * option.cost).sum()
}

/// The first of the most probable options.
fn most_probable(probabilities: &[f64]) -> usize {
    let mut best = 0;
    for (k, &p) in probabilities.iter().enumerate() {
        if p > probabilities[best] {
            best = k;
        }
    }
    best
}

#[cfg(test)]
mod tests;
