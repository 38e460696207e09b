use super::super::testing::{random_table, table};
use super::super::{front, least_damage};
use super::*;

fn run(table: &Table, settings: &Settings) -> Found {
    search(table, &mut Expected::of(table), settings).expect("a search")
}

#[test]
fn an_undecided_layer_has_the_entropy_of_its_options() {
    for options in [2usize, 3, 7] {
        let p = softmax(&vec![0.0; options]);
        assert!((entropy(&p) - (options as f64).ln()).abs() < 1e-12);
    }
    assert_eq!(entropy(&[1.0, 0.0]), 0.0);
    assert!(entropy(&[1.0, 0.0]).is_sign_positive());
}

#[test]
fn entropy_and_cost_have_the_gradient_of_their_formula() {
    // One step from zero logits moves each against the sign of its gradient, by the learning rate.
    let table = table(&[&[(0.0, 3.0), (0.0, 1.0)]]);
    let schedule = Schedule { epochs: 1, warmup: 0, most: 0.0 };
    let settings = Settings { schedule, steps: 1, learning_rate: 0.1, cost_weight: 1.0, seed: 0 };
    let found = run(&table, &settings);
    let expected = softmax(&[-0.1, 0.1]);
    assert!((found.probabilities[0][0] - expected[0]).abs() < 1e-6, "{found:?}");
}

#[test]
fn the_entropy_term_makes_layers_settle() {
    let mean = |most: f64| {
        let entropy = |seed| {
            let schedule = Schedule { most, ..Schedule::default() };
            run(&random_table(16, 3, seed), &Settings { schedule, cost_weight: 0.2, ..Settings::default() }).entropy
        };
        (0..6).map(entropy).sum::<f64>() / 6.0
    };
    let (settled, free) = (mean(1e-3), mean(0.0));
    assert!(settled < 0.1, "{settled}");
    assert!(free > 1.5 * settled, "{free} {settled}");
    let strong = mean(1e-2);
    assert!(strong < 0.5 * settled, "{strong} {settled}");
}

#[test]
fn a_higher_price_never_costs_more() {
    for seed in 0..5 {
        let table = random_table(12, 3, seed);
        let cost = |cost_weight| run(&table, &Settings { cost_weight, ..Settings::default() }).allocation.cost;
        let dearest: f64 = table.layers.iter().map(|layer| layer.options[0].cost).sum();
        assert!((cost(0.0) - dearest).abs() < 1e-9, "without a price all layers keep their bits");
        let costs: Vec<f64> = [0.0, 1e-3, 1e-2, 0.1, 1.0, 10.0, 1e4].map(cost).into();
        assert!(costs.windows(2).all(|pair| pair[0] >= pair[1] - 1e-9), "{costs:?}");
        assert!((costs[6] - table.least(|option| option.cost)).abs() < 1e-9, "{costs:?}");
    }
}

#[test]
fn a_sensitive_layer_keeps_its_bits() {
    // 8, 6 and 4 bits; layer 3 of 6 minds a hundred times as much.
    let rows: Vec<Vec<(f64, f64)>> = (0..6)
        .map(|layer| {
            let sensitivity = if layer == 3 { 100.0 } else { 1.0 };
            [8.0, 6.0, 4.0].map(|bits: f64| (sensitivity * 4f64.powf(-bits), 1000.0 * bits)).into()
        })
        .collect();
    let table = table(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let budget = 5.0 * 4000.0 + 8000.0;
    let found = search_within(&table, budget, &mut Expected::of(&table), &Settings::default()).expect("a search");
    assert_eq!(found.allocation.choice, [2, 2, 2, 0, 2, 2]);
}

#[test]
fn allocations_are_near_the_optimum() {
    let (mut of_cost, mut of_budget): (f64, f64) = (1.0, 1.0);
    for seed in 0..8 {
        let table = random_table(20, 3, seed);
        for point in front(&table, 6).expect("a front") {
            let budget = point.allocation.cost;
            let found =
                search_within(&table, budget, &mut Expected::of(&table), &Settings::default()).expect("a search");
            assert!(found.allocation.cost <= limit(budget));
            let optimum = least_damage(&table, found.allocation.cost).expect("feasible").allocation.damage;
            of_cost = of_cost.max(found.allocation.damage / optimum);
            of_budget = of_budget.max(found.allocation.damage / point.allocation.damage);
        }
    }
    // What comes out is optimal for what it costs; but it leaves some of the budget unspent, as any price does.
    assert!(of_cost < 1.02, "{of_cost}");
    assert!(of_budget < 1.5, "{of_budget}");
}

#[test]
fn a_function_without_gradient_will_do() {
    let table = random_table(8, 2, 21);
    let budget = table.least(|option| option.cost) * 1.4;
    let mut expected = Expected::of(&table);
    // Measurements come with a noise of 2 % that their seed decides.
    let mut objective = Measured::new(|p: &[Vec<f64>], seed| {
        let noise = 1.0 + 0.02 * Random::new(seed).normal();
        expected.loss(p, 0).map(|loss| loss.value * noise)
    });
    let found = search_within(&table, budget, &mut objective, &Settings::default()).expect("a search");
    assert!(found.allocation.cost <= limit(budget));
    let least = least_damage(&table, budget).expect("feasible").allocation.damage;
    let most =
        super::super::testing::all(&table).iter().filter(|a| a.cost <= budget).map(|a| a.damage).fold(0.0, f64::max);
    assert!(found.allocation.damage < least + 0.1 * (most - least));
    let again = search_within(&table, budget, &mut objective, &Settings::default()).expect("a search");
    assert_eq!(again, found);
}

#[test]
fn budgets_that_cannot_be_met_are_refused() {
    let table = table(&[&[(0.0, 8.0), (1.0, 4.0)]]);
    let refused = search_within(&table, 3.0, &mut Expected::of(&table), &Settings::default());
    assert!(matches!(refused, Err(Error::Table(super::super::Error::Budget { .. }))));
    // One that only the cheapest option meets is met.
    let found = search_within(&table, 4.0, &mut Expected::of(&table), &Settings::default()).expect("a search");
    assert_eq!(found.allocation.choice, [1]);
}

#[test]
fn the_most_probable_allocation_keeps_the_budget() {
    let table = table(&[&[(0.0, 8.0), (1.0, 4.0)], &[(0.0, 8.0), (1.0, 4.0)]]);
    let p = [vec![0.9, 0.1], vec![0.6, 0.4]];
    let choice = |budget| most_probable_within(&table, &p, budget).map(|found| found.choice);
    assert_eq!(choice(16.0), Ok(vec![0, 0]));
    assert_eq!(choice(12.0), Ok(vec![0, 1]));
    assert_eq!(choice(8.0), Ok(vec![1, 1]));
    assert!(choice(7.0).is_err());
    // What was never likely is taken where nothing else fits.
    let certain = [vec![1.0, 0.0], vec![1.0, 0.0]];
    assert_eq!(most_probable_within(&table, &certain, 8.0).expect("feasible").choice, [1, 1]);
}
