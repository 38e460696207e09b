//! The baseline: layers go down in the order of their sensitivity.

use super::{Allocation, Error, Table, limit};

/// Gives every layer its least damaging option, then takes the layers one after the other, the least sensitive first,
/// to their cheapest option, until the whole costs at most `budget`. A layer is the more sensitive the more damage that
/// adds; what it saves does not count. This is what a ranking of layers alone can do.
///
/// # Errors
///
/// The table is wrong, or nothing is that cheap.
pub fn greedy(table: &Table, budget: f64) -> Result<Allocation, Error> {
    table.check_budget("cost", budget, |option| option.cost)?;
    let best = |of: fn(&super::OptionRow) -> (f64, f64)| -> Vec<usize> {
        let layers = table.layers.iter().map(|layer| {
            let order = |&i: &usize, &j: &usize| {
                let (a, b) = (of(&layer.options[i]), of(&layer.options[j]));
                a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
            };
            (0..layer.options.len()).min_by(order).unwrap_or(0)
        });
        layers.collect()
    };
    let mut choice = best(|option| (option.damage, option.cost));
    let cheapest = best(|option| (option.cost, option.damage));
    let damage = |layer: usize, option: usize| table.layers[layer].options[option].damage;
    let added = |layer: usize| damage(layer, cheapest[layer]) - damage(layer, choice[layer]);
    let mut order: Vec<usize> = (0..table.layers.len()).collect();
    order.sort_by(|&i, &j| added(i).total_cmp(&added(j)));
    let mut allocation = table.allocation(choice.clone());
    for layer in order {
        if allocation.cost <= limit(budget) {
            break;
        }
        choice[layer] = cheapest[layer];
        allocation = table.allocation(choice.clone());
    }
    Ok(allocation)
}

#[cfg(test)]
mod tests {
    use super::super::testing::table;
    use super::*;

    #[test]
    fn the_least_sensitive_layers_go_first() {
        let table = table(&[&[(0.0, 8.0), (5.0, 4.0)], &[(0.0, 80.0), (0.1, 40.0)], &[(0.0, 8.0), (0.2, 4.0)]]);
        let choice = |budget: f64| greedy(&table, budget).expect("feasible").choice;
        assert_eq!(choice(96.0), [0, 0, 0]);
        assert_eq!(choice(95.0), [0, 1, 0]);
        assert_eq!(choice(55.0), [0, 1, 1]);
        assert_eq!(choice(48.0), [1, 1, 1]);
    }
}
