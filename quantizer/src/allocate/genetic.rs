//! Genetic search over allocations, for damages that do not add up.
//!
//! After EQ-Net (Xu et al., "EQ-Net: Elastic Quantization Neural Networks", ICCV 2023, and its released search): a
//! quarter of the population are parents; half of the children are mutants, in which each layer changes with
//! probability 0.3, half are crossed from two parents. Every member keeps the budget.

use std::collections::BTreeMap;

use super::{Allocation, Error, Table, limit};
use crate::random::Random;

/// How a search goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Evolution {
    /// Members of a generation, at least 4.
    pub population: usize,
    /// Generations.
    pub generations: usize,
    /// Share of the population that has children, 0 to 1.
    pub parents: f64,
    /// Probability that a layer of a mutant changes.
    pub mutation: f64,
    /// Allocations that are judged at most; each is judged once.
    pub judgements: usize,
    /// Allocations to begin with, such as a knapsack's; one that costs too much is made cheaper. The result is never
    /// worse than those within the budget.
    pub start: Vec<Vec<usize>>,
    /// Seed.
    pub seed: u64,
}

impl Default for Evolution {
    /// EQ-Net's: a population of 100 for 500 generations, 25 % parents, mutation with probability 0.3.
    fn default() -> Self {
        Self {
            population: 100,
            generations: 500,
            parents: 0.25,
            mutation: 0.3,
            judgements: usize::MAX,
            start: Vec::new(),
            seed: 0,
        }
    }
}

/// The best allocation found that costs at most `budget`, by `damage`, which may be any function: the sum of a table, or
/// what a network does. It is asked once for each choice, and less is better; what is no number counts as the worst. The
/// damage of the result is the function's. Equal seeds give equal results.
///
/// # Errors
///
/// The table is wrong, or nothing is that cheap.
pub fn genetic(
    table: &Table,
    budget: f64,
    evolution: &Evolution,
    mut damage: impl FnMut(&[usize]) -> f64,
) -> Result<Allocation, Error> {
    table.check_budget("cost", budget, |option| option.cost)?;
    let mut breeder = Breeder::new(table, budget, evolution);
    let mut known: BTreeMap<Vec<usize>, f64> = BTreeMap::new();
    let size = evolution.population.max(4);
    let parents = ((size as f64 * evolution.parents) as usize).clamp(2, size);
    let mut generation: Vec<Vec<usize>> = evolution.start.iter().map(|choice| breeder.known(choice)).collect();
    generation.extend((generation.len()..size).map(|_| breeder.random()));
    let mut best: Vec<(f64, Vec<usize>)> = Vec::new();
    for _ in 0..=evolution.generations {
        for choice in &generation {
            if !known.contains_key(choice) && known.len() < evolution.judgements.max(1) {
                let judged = damage(choice);
                known.insert(choice.clone(), if judged.is_nan() { f64::INFINITY } else { judged });
            }
        }
        // Parents come from all that was ever seen, as in the released search.
        best.extend(generation.iter().filter_map(|choice| Some((*known.get(choice)?, choice.clone()))));
        best.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        best.dedup();
        best.truncate(parents);
        if known.len() >= evolution.judgements.max(1) {
            break;
        }
        generation = (0..size)
            .map(|i| match i < size / 2 {
                true => breeder.mutant(&best),
                false => breeder.crossed(&best),
            })
            .collect();
    }
    // At least one member of the first generation was judged.
    let (judged, choice) = best.into_iter().next().unwrap_or((f64::INFINITY, breeder.random()));
    Ok(Allocation { damage: judged, ..table.allocation(choice) })
}

/// Makes allocations within the budget.
struct Breeder<'t> {
    table: &'t Table,
    limit: f64,
    mutation: f64,
    random: Random,
    /// The cheapest option of each layer.
    cheapest: Vec<usize>,
}

impl<'t> Breeder<'t> {
    fn new(table: &'t Table, budget: f64, evolution: &Evolution) -> Self {
        let cheapest = table.layers.iter().map(|layer| {
            let cost = |&i: &usize, &j: &usize| layer.options[i].cost.total_cmp(&layer.options[j].cost);
            (0..layer.options.len()).min_by(cost).unwrap_or(0)
        });
        Self {
            cheapest: cheapest.collect(),
            table,
            limit: limit(budget),
            mutation: evolution.mutation,
            random: Random::new(evolution.seed),
        }
    }

    fn option(&mut self, layer: usize) -> usize {
        self.random.below(self.table.layers[layer].options.len())
    }

    /// An allocation of the caller's; where it names no option, the layer's cheapest takes its place.
    fn known(&mut self, choice: &[usize]) -> Vec<usize> {
        let options = self.table.layers.iter().map(|layer| layer.options.len());
        let taken = options.zip(&self.cheapest).enumerate().map(|(layer, (options, &cheapest))| {
            choice.get(layer).copied().filter(|&option| option < options).unwrap_or(cheapest)
        });
        let choice = taken.collect();
        self.repaired(choice)
    }

    fn random(&mut self) -> Vec<usize> {
        let choice = (0..self.table.layers.len()).map(|layer| self.option(layer)).collect();
        self.repaired(choice)
    }

    fn mutant(&mut self, parents: &[(f64, Vec<usize>)]) -> Vec<usize> {
        let mut choice = parents[self.random.below(parents.len())].1.clone();
        for (layer, option) in choice.iter_mut().enumerate() {
            if self.random.chance(self.mutation) {
                *option = self.option(layer);
            }
        }
        self.repaired(choice)
    }

    fn crossed(&mut self, parents: &[(f64, Vec<usize>)]) -> Vec<usize> {
        let (a, b) = (self.random.below(parents.len()), self.random.below(parents.len()));
        let genes = parents[a].1.iter().zip(&parents[b].1);
        let choice = genes.map(|(&a, &b)| if self.random.chance(0.5) { a } else { b }).collect();
        self.repaired(choice)
    }

    /// Takes layers in random order to an option that is cheaper, until the whole is within the budget.
    fn repaired(&mut self, mut choice: Vec<usize>) -> Vec<usize> {
        let table = self.table;
        let mut dear: Vec<usize> = (0..choice.len()).filter(|&layer| choice[layer] != self.cheapest[layer]).collect();
        while table.allocation(choice.clone()).cost > self.limit && !dear.is_empty() {
            let at = self.random.below(dear.len());
            let layer = dear[at];
            let options = &table.layers[layer].options;
            let now = options[choice[layer]].cost;
            let cheaper: Vec<usize> = (0..options.len()).filter(|&option| options[option].cost < now).collect();
            match cheaper.is_empty() {
                true => drop(dear.swap_remove(at)),
                false => choice[layer] = cheaper[self.random.below(cheaper.len())],
            }
        }
        choice
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{brute_force, random_table};
    use super::*;

    #[test]
    fn small_tables_are_solved() {
        for seed in 0..10 {
            let table = random_table(6, 3, seed);
            let budget = table.least(|option| option.cost) * 1.4;
            let evolution = Evolution { generations: 60, seed, ..Evolution::default() };
            let found = genetic(&table, budget, &evolution, |choice| table.allocation(choice.to_vec()).damage);
            let expected = brute_force(&table, budget).expect("feasible");
            assert!((found.expect("feasible").damage - expected).abs() < 1e-12, "{seed}");
        }
    }

    #[test]
    fn every_judged_allocation_is_within_the_budget() {
        let table = random_table(15, 4, 3);
        for share in [1.0, 1.05, 1.7] {
            let budget = table.least(|option| option.cost) * share;
            let evolution = Evolution { generations: 20, ..Evolution::default() };
            genetic(&table, budget, &evolution, |choice| {
                let allocation = table.allocation(choice.to_vec());
                assert!(allocation.cost <= limit(budget));
                allocation.damage
            })
            .expect("feasible");
        }
    }

    #[test]
    fn seeds_decide_and_judgements_are_bounded() {
        let table = random_table(15, 4, 4);
        let budget = table.least(|option| option.cost) * 1.3;
        let run = |seed, judgements| {
            let mut asked = 0;
            let evolution = Evolution { generations: 8, seed, judgements, ..Evolution::default() };
            let found = genetic(&table, budget, &evolution, |choice| {
                asked += 1;
                // Not additive: layers hurt each other.
                let allocation = table.allocation(choice.to_vec());
                allocation.damage + choice.windows(2).filter(|pair| pair[0] == 3 && pair[1] == 3).count() as f64
            });
            (found.expect("feasible"), asked)
        };
        assert_eq!(run(1, usize::MAX), run(1, usize::MAX));
        assert_ne!(run(1, usize::MAX).1, run(2, usize::MAX).1);
        assert_eq!(run(1, 37).1, 37);
        assert!(run(1, usize::MAX).0.damage <= run(1, 37).0.damage);
    }

    #[test]
    fn what_it_begins_with_is_not_lost() {
        let table = random_table(30, 4, 5);
        let budget = table.least(|option| option.cost) * 1.3;
        let optimum = super::super::least_damage(&table, budget).expect("feasible").allocation;
        let start = vec![vec![9; 2], vec![0; 30], optimum.choice.clone()];
        let evolution = Evolution { generations: 3, start, ..Evolution::default() };
        let found = genetic(&table, budget, &evolution, |choice| {
            assert!(table.allocation(choice.to_vec()).cost <= limit(budget));
            table.allocation(choice.to_vec()).damage
        });
        assert_eq!(found.expect("feasible").choice, optimum.choice);
    }

    #[test]
    fn what_is_no_number_is_never_chosen() {
        let table = random_table(3, 3, 1);
        let found = genetic(&table, 1e9, &Evolution { generations: 20, ..Evolution::default() }, |choice| {
            if choice[0] == 0 { f64::NAN } else { choice.iter().sum::<usize>() as f64 }
        });
        assert_eq!(found.expect("feasible").choice, [1, 0, 0]);
    }
}
