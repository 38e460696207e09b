//! Which layer gets how many bits: one option for each layer, within a budget.
//!
//! A [`Table`] tells for each layer what each option damages and what it costs, in any units: damage may be predicted
//! or measured ([`crate::sensitivity`]), cost may be bytes of flash, multiply-accumulates times bits, or nanoseconds. That
//! the damages of layers add up is an assumption, good where each is small; whoever chooses by a table measures the
//! choice as a whole afterwards.
//!
//! - [`least_damage`] and [`least_cost`] solve the multiple-choice knapsack exactly; [`front`] gives the whole trade-off.
//! - [`greedy`] is the usual baseline: layers go down in the order of their sensitivity.
//! - [`quantnas`] relaxes the choice to probabilities and descends, by the table or by what a network does under noise.
//! - [`genetic`] searches where damages do not add up, with any function as judge.

mod front;
mod genetic;
mod greedy;
mod knapsack;
pub mod quantnas;
#[cfg(test)]
mod testing;

use serde::Serialize;

pub use front::{Point, front};
pub use genetic::{Evolution, genetic};
pub use greedy::greedy;
pub use knapsack::{Solution, least_cost, least_damage};

/// How far above a budget sums of f64 may come out, as a share of it.
const TOLERANCE: f64 = 1e-9;

/// What each layer can be given.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Table {
    /// The layers, in any order.
    pub layers: Vec<LayerOptions>,
}

/// What one layer can be given.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerOptions {
    /// The layer's name.
    pub name: String,
    /// At least one.
    pub options: Vec<OptionRow>,
}

/// One option of a layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OptionRow {
    /// Its name, such as `w4a8`.
    pub label: String,
    /// What it damages, in the table's unit; finite.
    pub damage: f64,
    /// What it costs, in the table's unit; finite.
    pub cost: f64,
}

/// One option for each layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Allocation {
    /// The index of the option, for each layer of the table.
    pub choice: Vec<usize>,
    /// Sum of the damages.
    pub damage: f64,
    /// Sum of the costs.
    pub cost: f64,
}

/// Why there is no allocation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No choice meets the budget.
    #[error("a {what} of at most {asked} cannot be met: the least possible is {least}")]
    Budget {
        /// `cost` or `damage`.
        what: &'static str,
        /// The budget.
        asked: f64,
        /// The least possible.
        least: f64,
    },
    /// A layer without options.
    #[error("layer `{0}` has no options")]
    Empty(String),
    /// A damage or cost that is infinite or not a number, or such a budget.
    #[error("{0} is not finite")]
    NotFinite(String),
}

impl Table {
    /// Checks that every layer has options, and every number is finite.
    ///
    /// # Errors
    ///
    /// The first layer or option that is wrong.
    pub fn check(&self) -> Result<(), Error> {
        for layer in &self.layers {
            if layer.options.is_empty() {
                return Err(Error::Empty(layer.name.clone()));
            }
            for option in &layer.options {
                for (what, number) in [("damage", option.damage), ("cost", option.cost)] {
                    if !number.is_finite() {
                        return Err(Error::NotFinite(format!("the {what} of `{}` as {}", layer.name, option.label)));
                    }
                }
            }
        }
        Ok(())
    }

    /// An allocation with its sums; an index beyond a layer's options counts as its last one.
    pub fn allocation(&self, choice: Vec<usize>) -> Allocation {
        let (mut damage, mut cost) = (0.0, 0.0);
        for (layer, &index) in self.layers.iter().zip(&choice) {
            if let Some(option) = layer.options.get(index).or(layer.options.last()) {
                damage += option.damage;
                cost += option.cost;
            }
        }
        Allocation { choice, damage, cost }
    }

    /// The least of a quantity over all choices.
    fn least(&self, of: fn(&OptionRow) -> f64) -> f64 {
        self.layers.iter().map(|layer| layer.options.iter().map(of).fold(f64::INFINITY, f64::min)).sum()
    }

    /// Refuses a budget that no choice meets.
    fn check_budget(&self, what: &'static str, asked: f64, of: fn(&OptionRow) -> f64) -> Result<(), Error> {
        self.check()?;
        if !asked.is_finite() {
            return Err(Error::NotFinite(format!("the budget of {what}")));
        }
        let least = self.least(of);
        if least > limit(asked) { Err(Error::Budget { what, asked, least }) } else { Ok(()) }
    }
}

/// The largest sum that counts as within a budget.
fn limit(budget: f64) -> f64 {
    budget + TOLERANCE * budget.abs()
}

#[cfg(test)]
mod tests {
    use super::testing::{random_table, table};
    use super::*;

    #[test]
    fn sums_belong_to_a_choice() {
        let table = table(&[&[(1.0, 8.0), (2.0, 4.0)], &[(0.5, 16.0), (3.0, 8.0)]]);
        let found = table.allocation(vec![1, 0]);
        assert_eq!((found.damage, found.cost), (2.5, 20.0));
    }

    #[test]
    fn wrong_tables_are_named() {
        let empty = Table { layers: vec![LayerOptions { name: "fc".into(), options: Vec::new() }] };
        assert_eq!(empty.check(), Err(Error::Empty("fc".into())));
        let nan = table(&[&[(f64::NAN, 1.0)]]);
        assert!(matches!(nan.check(), Err(Error::NotFinite(what)) if what.contains("damage")));
        assert!(least_damage(&nan, 1.0).is_err());
        assert!(matches!(least_damage(&table(&[&[(0.0, 1.0)]]), f64::NAN), Err(Error::NotFinite(_))));
    }

    #[test]
    fn a_budget_that_cannot_be_met_says_what_can() {
        let table = table(&[&[(1.0, 8.0), (2.0, 4.0)], &[(0.5, 16.0), (3.0, 8.0)]]);
        let error = Error::Budget { what: "cost", asked: 11.0, least: 12.0 };
        assert_eq!(least_damage(&table, 11.0), Err(error.clone()));
        assert_eq!(greedy(&table, 11.0), Err(error.clone()));
        assert_eq!(error.to_string(), "a cost of at most 11 cannot be met: the least possible is 12");
        assert_eq!(least_cost(&table, 1.0), Err(Error::Budget { what: "damage", asked: 1.0, least: 1.5 }));
    }

    #[test]
    fn every_method_keeps_the_budget() {
        for seed in 0..20 {
            let table = random_table(12, 4, seed);
            let least = table.least(|option| option.cost);
            for share in [0.0, 0.2, 0.5, 1.0] {
                let budget = least * (1.0 + share);
                let optimum = least_damage(&table, budget).expect("feasible");
                assert!(optimum.allocation.cost <= limit(budget));
                let others = [
                    greedy(&table, budget).expect("feasible"),
                    genetic(&table, budget, &Evolution { generations: 30, ..Evolution::default() }, |choice| {
                        table.allocation(choice.to_vec()).damage
                    })
                    .expect("feasible"),
                ];
                for other in others {
                    assert!(other.cost <= limit(budget));
                    assert!(other.damage >= optimum.allocation.damage - 1e-9);
                }
            }
        }
    }
}
