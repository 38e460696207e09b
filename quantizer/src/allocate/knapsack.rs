//! The multiple-choice knapsack, exactly.
//!
//! Partial choices over the first layers are kept as a list of (cost, damage), of which none is dominated (G. Nemhauser
//! and Z. Ullmann, "Discrete Dynamic Programming and Capital Allocation", Management Science, 1969). That alone is exact
//! for any real numbers, but the list may grow exponentially; so a Lagrangian relaxation supplies a good choice to begin
//! with, and a bound by which partial choices that cannot beat it are dropped (as in D. Pisinger, "A minimal algorithm
//! for the multiple-choice knapsack problem", EJOR, 1995).

use serde::Serialize;

use super::{Allocation, Error, Table, limit};

/// Partial choices kept at most. Where there are more, those with the best bounds stay, and the result says how far from
/// the optimum it may be.
const MOST_STATES: usize = 1 << 18;

/// The best allocation within a budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Solution {
    /// The allocation.
    pub allocation: Allocation,
    /// How much better than this an allocation may be at most: 0 where it is proved optimal (to the rounding of sums),
    /// which only tables with hundreds of layers and contrived numbers prevent.
    pub gap: f64,
}

/// The allocation with the least damage among those that cost at most `budget` (to a relative 1e-9).
///
/// # Errors
///
/// The table is wrong, or nothing is that cheap.
pub fn least_damage(table: &Table, budget: f64) -> Result<Solution, Error> {
    table.check_budget("cost", budget, |option| option.cost)?;
    Ok(solve(table, budget, |option| (option.damage, option.cost)))
}

/// The cheapest allocation among those that damage at most `budget` (to a relative 1e-9).
///
/// # Errors
///
/// The table is wrong, or nothing damages that little.
pub fn least_cost(table: &Table, budget: f64) -> Result<Solution, Error> {
    table.check_budget("damage", budget, |option| option.damage)?;
    Ok(solve(table, budget, |option| (option.cost, option.damage)))
}

/// One option: what is minimized, what is limited, and its index in the table.
#[derive(Debug, Clone, Copy)]
struct Item {
    value: f64,
    weight: f64,
    index: u32,
}

/// A partial choice.
#[derive(Debug, Clone, Copy)]
struct State {
    weight: f64,
    value: f64,
    /// Place of the state it extends.
    parent: u32,
    /// The option taken.
    index: u32,
}

fn solve(table: &Table, budget: f64, of: fn(&super::OptionRow) -> (f64, f64)) -> Solution {
    let limit = limit(budget);
    let layers: Vec<Vec<Item>> = table
        .layers
        .iter()
        .map(|layer| {
            let items = layer.options.iter().enumerate().map(|(index, option)| {
                let (value, weight) = of(option);
                Item { value, weight, index: index as u32 }
            });
            undominated(items.collect())
        })
        .collect();
    let multiplier = multiplier(&layers, limit);
    let mut best = first_choice(&layers, multiplier, limit);
    let (found, lower) = enumerate(&layers, multiplier, limit, value_of(&layers, &best));
    if let Some(found) = found {
        best = found;
    }
    let gap = (value_of(&layers, &best) - lower).max(0.0);
    let choice = layers.iter().zip(&best).map(|(items, &at)| items[at].index as usize).collect();
    Solution { allocation: table.allocation(choice), gap }
}

/// Items in the order of their weight, each with less value than all before; of equals the first in the table.
fn undominated(mut items: Vec<Item>) -> Vec<Item> {
    items.sort_by(|a, b| a.weight.total_cmp(&b.weight).then(a.value.total_cmp(&b.value)).then(a.index.cmp(&b.index)));
    let mut least = f64::INFINITY;
    items.retain(|item| {
        let better = item.value < least;
        least = least.min(item.value);
        better
    });
    items
}

/// The item of a layer with the least value + multiplier · weight, the lightest among equals.
fn cheapest(items: &[Item], multiplier: f64) -> usize {
    let price = |item: &Item| item.value + multiplier * item.weight;
    let mut best = 0;
    for (at, item) in items.iter().enumerate() {
        if price(item) < price(&items[best]) {
            best = at;
        }
    }
    best
}

fn weight_of(layers: &[Vec<Item>], choice: &[usize]) -> f64 {
    layers.iter().zip(choice).map(|(items, &at)| items[at].weight).sum()
}

fn value_of(layers: &[Vec<Item>], choice: &[usize]) -> f64 {
    layers.iter().zip(choice).map(|(items, &at)| items[at].value).sum()
}

/// The least price of weight at which buying the cheapest items keeps the limit: the multiplier whose Lagrangian bound is
/// the tightest.
fn multiplier(layers: &[Vec<Item>], limit: f64) -> f64 {
    let fits =
        |multiplier: f64| layers.iter().map(|items| items[cheapest(items, multiplier)].weight).sum::<f64>() <= limit;
    if fits(0.0) {
        return 0.0;
    }
    let mut high = 1.0;
    while !fits(high) && high < f64::MAX / 4.0 {
        high *= 4.0;
    }
    let mut low = 0.0;
    for _ in 0..200 {
        let middle = if low > 0.0 && high / low > 4.0 { (low * high).sqrt() } else { 0.5 * (low + high) };
        if fits(middle) { high = middle } else { low = middle }
    }
    high
}

/// A choice within the limit: that of the multiplier, improved one layer at a time while there is room.
fn first_choice(layers: &[Vec<Item>], multiplier: f64, limit: f64) -> Vec<usize> {
    let mut choice: Vec<usize> = layers.iter().map(|items| cheapest(items, multiplier)).collect();
    if weight_of(layers, &choice) > limit {
        // Only rounding can bring this about; the lightest choice fits.
        choice = vec![0; layers.len()];
    }
    loop {
        let room = limit - weight_of(layers, &choice);
        let mut best: Option<(f64, usize, usize)> = None;
        for (layer, (items, &now)) in layers.iter().zip(&choice).enumerate() {
            for (at, item) in items.iter().enumerate().skip(now + 1) {
                let gain = items[now].value - item.value;
                if item.weight - items[now].weight <= room && best.is_none_or(|(most, ..)| gain > most) {
                    best = Some((gain, layer, at));
                }
            }
        }
        let Some((_, layer, at)) = best else { return choice };
        let before = choice[layer];
        choice[layer] = at;
        if weight_of(layers, &choice) > limit {
            // What fitted by difference does not by sum: rounding again.
            choice[layer] = before;
            return choice;
        }
    }
}

/// The best choice with less value than `known`, if there is one, and a bound below which no choice can be.
fn enumerate(layers: &[Vec<Item>], multiplier: f64, limit: f64, known: f64) -> (Option<Vec<usize>>, f64) {
    // What the layers from each one on weigh and cost at the least.
    let (mut lightest, mut bound) = (vec![0.0; layers.len() + 1], vec![0.0; layers.len() + 1]);
    let mut magnitude = known.abs();
    for (k, items) in layers.iter().enumerate().rev() {
        let best = items[cheapest(items, multiplier)];
        lightest[k] = lightest[k + 1] + items[0].weight;
        bound[k] = bound[k + 1] + best.value + multiplier * best.weight;
        magnitude += best.value.abs() + (multiplier * best.weight).abs();
    }
    // Sums in another order differ in the last bits, which must drop nothing.
    let slack = 1e-12 * magnitude;
    let room = 1e-12 * (limit.abs() + lightest[0].abs());
    let bound_of = |state: &State, k: usize| state.value + multiplier * (state.weight - limit) + bound[k];
    let mut dropped = f64::INFINITY;
    let mut history: Vec<Vec<State>> = Vec::with_capacity(layers.len());
    let mut states = vec![State { weight: 0.0, value: 0.0, parent: 0, index: 0 }];
    for (k, items) in layers.iter().enumerate() {
        let mut next = Vec::with_capacity(states.len() * items.len());
        for (parent, state) in states.iter().enumerate() {
            for (index, item) in items.iter().enumerate() {
                let extended = State {
                    weight: state.weight + item.weight,
                    value: state.value + item.value,
                    parent: parent as u32,
                    index: index as u32,
                };
                let fits = extended.weight + lightest[k + 1] <= limit + room;
                if fits && bound_of(&extended, k + 1) <= known + slack {
                    next.push(extended);
                }
            }
        }
        next.sort_by(|a, b| a.weight.total_cmp(&b.weight).then(a.value.total_cmp(&b.value)));
        let mut least = f64::INFINITY;
        next.retain(|state| {
            let better = state.value < least;
            least = least.min(state.value);
            better
        });
        if next.len() > MOST_STATES {
            let mut bounds: Vec<f64> = next.iter().map(|state| bound_of(state, k + 1)).collect();
            bounds.sort_by(f64::total_cmp);
            let worst = bounds[MOST_STATES];
            dropped = dropped.min(worst);
            next.retain(|state| bound_of(state, k + 1) < worst);
        }
        history.push(std::mem::replace(&mut states, next));
    }
    // The last state has the least value of those that fit.
    let best = states.iter().rposition(|state| state.weight <= limit && state.value < known);
    let Some(best) = best else { return (None, dropped.min(known)) };
    let lower = dropped.min(states[best].value);
    let mut choice = vec![0; layers.len()];
    let mut state = states[best];
    for (k, before) in history.iter().enumerate().rev() {
        choice[k] = state.index as usize;
        state = before[state.parent as usize];
    }
    (Some(choice), lower)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{all, brute_force, random_table, table};
    use super::*;

    #[test]
    fn greedy_thinking_is_not_enough() {
        // The best value per weight (first layer's upgrade) leaves no room for the better pair of the others.
        let table = table(&[&[(10.0, 0.0), (4.0, 5.0)], &[(10.0, 0.0), (5.0, 4.5)], &[(10.0, 0.0), (5.0, 4.5)]]);
        let found = least_damage(&table, 9.0).expect("feasible");
        assert_eq!((found.allocation.choice, found.allocation.damage, found.gap), (vec![0, 1, 1], 20.0, 0.0));
    }

    #[test]
    fn no_layers_cost_nothing() {
        let found = least_damage(&Table::default(), 0.0).expect("feasible");
        assert_eq!((found.allocation.choice.len(), found.allocation.damage), (0, 0.0));
    }

    #[test]
    fn large_tables_are_solved_to_the_end() {
        for seed in 0..4 {
            let table = random_table(120, 6, seed);
            let least = table.least(|option| option.cost);
            for share in [0.1, 0.6, 1.5] {
                let found = least_damage(&table, least * (1.0 + share)).expect("feasible");
                assert!(found.gap <= 1e-12, "{}", found.gap);
                // What it damages cannot be had for less.
                let back = least_cost(&table, found.allocation.damage).expect("feasible");
                assert!(back.allocation.cost <= found.allocation.cost * (1.0 + 1e-9));
            }
        }
    }

    #[test]
    fn both_budgets_agree_with_brute_force() {
        for seed in 0..60 {
            let table = random_table(1 + seed as usize % 6, 4, seed);
            let every = all(&table);
            for allocation in every.iter().step_by(1 + every.len() / 40) {
                let found = least_damage(&table, allocation.cost).expect("feasible");
                let expected = brute_force(&table, allocation.cost).expect("feasible");
                assert!((found.allocation.damage - expected).abs() <= 1e-9 * expected.abs(), "{seed}");
                let found = least_cost(&table, allocation.damage).expect("feasible");
                let within = every.iter().filter(|a| a.damage <= limit(allocation.damage));
                let expected = within.map(|a| a.cost).fold(f64::INFINITY, f64::min);
                assert!((found.allocation.cost - expected).abs() <= 1e-9 * expected.abs(), "{seed}");
            }
        }
    }

    proptest! {
        // Small integers make ties, zeros and negative numbers likely.
        #[test]
        fn any_table_is_solved(
            rows in prop::collection::vec(prop::collection::vec((-3i8..9, -2i8..9), 1..5), 0..6),
            budget in -15i8..50,
        ) {
            let rows: Vec<Vec<(f64, f64)>> =
                rows.iter().map(|row| row.iter().map(|&(d, c)| (d.into(), c.into())).collect()).collect();
            let table = table(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let expected = brute_force(&table, budget.into());
            match least_damage(&table, budget.into()) {
                Ok(found) => {
                    prop_assert!(found.allocation.cost <= f64::from(budget));
                    prop_assert_eq!(Some(found.allocation.damage), expected);
                    prop_assert_eq!(found.gap, 0.0);
                }
                Err(error) => {
                    prop_assert!(expected.is_none(), "{}", error);
                }
            }
        }
    }
}
