//! Seeded random numbers, the same on every machine: PCG-XSH-RR (M. O'Neill, "PCG: A Family of Simple Fast
//! Space-Efficient Statistically Good Algorithms for Random Number Generation", HMC-CS-2014-0905).

use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};

/// A source of random numbers. Equal seeds give equal numbers.
#[derive(Debug, Clone)]
pub struct Random(Pcg32);

impl Random {
    /// The source for a seed.
    pub fn new(seed: u64) -> Self {
        Self(Pcg32::seed_from_u64(seed))
    }

    /// The source for a seed and a place (such as a step and a sample), unlike those of other places.
    pub fn at(seed: u64, place: [u64; 2]) -> Self {
        Self::new(place.into_iter().fold(seed, |seed, part| Self::new(seed).bits() ^ part))
    }

    /// Any number of 64 bits: a seed for another source.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1), a multiple of 2^−53.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform among 0, 1, …, `count` − 1; 0 if `count` is 0.
    pub fn below(&mut self, count: usize) -> usize {
        // The bias of the product is below 2^−32 for any count that occurs.
        ((u128::from(self.bits()) * count as u128) >> 64) as usize
    }

    /// The numbers below `count` in random order.
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Normal with mean 0 and variance 1 (G. Box and M. Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        libm::sqrt(-2.0 * libm::log(u)) * libm::cos(std::f64::consts::TAU * v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Moments;

    #[test]
    fn seeds_decide() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..5).map(|_| random.bits()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let bits = |place| Random::at(7, place).bits();
        assert_eq!(bits([1, 2]), bits([1, 2]));
        assert!(bits([1, 2]) != bits([2, 1]) && bits([1, 2]) != bits([1, 3]));
    }

    #[test]
    fn permutations_hold_every_number_once() {
        let order = Random::new(3).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        assert_eq!(order.into_iter().collect::<std::collections::BTreeSet<_>>(), (0..100).collect());
        assert!(Random::new(3).permutation(0).is_empty());
    }

    #[test]
    fn laws_have_their_moments() {
        let mut random = Random::new(1);
        let normal: Vec<f32> = (0..200_000).map(|_| random.normal() as f32).collect();
        let moments = Moments::of(&normal);
        assert!(moments.mean().abs() < 0.01 && (moments.variance() - 1.0).abs() < 0.02);
        assert!((moments.kurtosis() - 3.0).abs() < 0.1);
        let uniform: Vec<f32> = (0..200_000).map(|_| random.uniform() as f32).collect();
        assert!((Moments::of(&uniform).mean() - 0.5).abs() < 0.01);
        let mut counts = [0u32; 5];
        (0..50_000).for_each(|_| counts[random.below(5)] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert_eq!(random.below(0), 0);
    }
}
