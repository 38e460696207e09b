//! The trade-off between damage and cost.

use serde::Serialize;

use super::{Allocation, Error, Table, least_damage};

/// A point of the front.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// The allocation.
    pub allocation: Allocation,
    /// How much less damage the same cost may allow at most; see [`super::Solution::gap`].
    pub gap: f64,
}

/// Allocations of which none is both cheaper and less damaging than another: the optima at `budgets` (at least 2)
/// budgets evenly spaced from the least possible cost to the cost of the least damage. Cost rises, damage falls; the ends
/// are always there.
///
/// # Errors
///
/// The table is wrong.
pub fn front(table: &Table, budgets: usize) -> Result<Vec<Point>, Error> {
    table.check()?;
    let least = table.least(|option| option.cost);
    let dearest = super::least_cost(table, table.least(|option| option.damage))?.allocation.cost;
    let steps = budgets.max(2) - 1;
    let mut points: Vec<Point> = Vec::new();
    for step in 0..=steps {
        let budget = least + (dearest - least) * step as f64 / steps as f64;
        let found = least_damage(table, budget)?;
        // A budget that buys nothing new gives the same point again, or a dearer one of equal damage.
        if points.last().is_none_or(|last| found.allocation.damage < last.allocation.damage) {
            points.push(Point { allocation: found.allocation, gap: found.gap });
        }
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{all, random_table, table};
    use super::*;

    #[test]
    fn cost_rises_and_damage_falls() {
        let table = random_table(20, 3, 5);
        let points = front(&table, 40).expect("a front");
        assert!(points.len() > 10, "{}", points.len());
        for pair in points.windows(2) {
            assert!(pair[0].allocation.cost < pair[1].allocation.cost);
            assert!(pair[0].allocation.damage > pair[1].allocation.damage);
        }
        assert!((points[0].allocation.cost - table.least(|o| o.cost)).abs() < 1e-9);
        let last = points.last().expect("points");
        assert!((last.allocation.damage - table.least(|o| o.damage)).abs() < 1e-12);
    }

    #[test]
    fn no_allocation_beats_a_point() {
        let table = random_table(5, 4, 9);
        let every = all(&table);
        for point in front(&table, 200).expect("a front") {
            let Allocation { damage, cost, .. } = point.allocation;
            assert!(!every.iter().any(|a| a.damage < damage - 1e-12 && a.cost < cost - 1e-9));
        }
    }

    #[test]
    fn a_table_without_choice_is_one_point() {
        let points = front(&table(&[&[(1.0, 2.0)], &[(3.0, 4.0)]]), 10).expect("a front");
        assert_eq!(points.len(), 1);
        assert_eq!((points[0].allocation.damage, points[0].allocation.cost), (4.0, 6.0));
    }
}
