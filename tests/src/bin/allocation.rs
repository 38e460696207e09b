//! Ways to deal out bits, compared: `cargo run --release -p equant-tests --bin allocation [MODEL...]`.
//!
//! For each committed model every linear layer gets weights of 8, 6 or 4 bits (inputs of 8), at an average of 5.5 bits a
//! weight. Damages are measured layer by layer on the first 64 calibration samples; what comes out is judged as a whole on
//! all of them. Below each table stand the time of a run with noise over one with rounding, and how well the order of
//! layers is predicted. `EQUANT_PLOTS=DIR` writes the trade-off of each model.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use equant::allocate::quantnas::{self, Expected, Measured};
use equant::allocate::{Allocation, Evolution, LayerOptions, OptionRow, Table, front, genetic, greedy, least_damage};
use equant::data::Samples;
use equant::exec::Backend;
use equant::graph::Graph;
use equant::metrics::spearman;
use equant::observe::{Observer, Statistics};
use equant::passes::Dims;
use equant::pipeline;
use equant::report::plots;
use equant::sensitivity::{Judge, LayerDamage, Nearest, NoiseLaw, NoiseModel, NoiseProbe, Widths};
use equant::sensitivity::{energies, gains, layers, rank};
use equant_tests::models::{MODELS, model_path, samples_path, threads};

/// Samples by which damages are measured.
const MEASURED: usize = 64;
/// Widths of a weight on average.
const AVERAGE: f64 = 5.5;

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    for model in MODELS {
        if asked.is_empty() || asked.iter().any(|name| name == model) {
            compare(model);
        }
    }
}

fn compare(model: &str) {
    let graph = pipeline::read_float(&model_path(model), &Dims::new()).expect("a committed model").graph;
    let all = pipeline::open_samples(&samples_path(model, "calib512"), &graph, None).expect("committed samples");
    let few = all.head(MEASURED);
    let layers = layers(&graph);
    let statistics = statistics(&graph, &all);
    let nearest = Nearest { statistics: &statistics, observer: Observer::Mse };
    let judge = |samples| Judge::new(&graph, &layers, &nearest, samples, Backend::Tract, threads()).expect("a judge");
    let (few_judge, all_judge) = (judge(&few), judge(&all));
    let options: Vec<Widths> = [8, 6, 4].map(|bits| Widths::new(bits, 8).expect("widths")).into();

    let energies = energies(&graph, &layers, &few, Backend::Tract, threads(), &|_| {}).expect("energies");
    let gains = gains(&few_judge, &energies, 2, &|_| {}).expect("gains");
    let start = Instant::now();
    let ranking = rank(&few_judge, &energies, &gains, &options, &|_| {}).expect("a ranking");
    let rounding_time = start.elapsed().as_secs_f64() / ranking.len() as f64;

    let table = |damage: fn(&LayerDamage) -> f64| Table {
        layers: layers
            .iter()
            .zip(ranking.chunks(options.len()))
            .map(|(layer, damages)| LayerOptions {
                name: layer.node.clone(),
                options: damages
                    .iter()
                    .map(|d| OptionRow {
                        label: d.bits.to_string(),
                        damage: damage(d),
                        cost: layer.parameters as f64 * f64::from(d.bits.weights) / 8.0,
                    })
                    .collect(),
            })
            .collect(),
    };
    let (measured, predicted) = (table(|d| d.measured), table(|d| d.predicted));
    let budget = layers.iter().map(|layer| layer.parameters as f64).sum::<f64>() * AVERAGE / 8.0;
    let choices = |choice: &[usize]| choice.iter().enumerate().map(|(i, &k)| (i, options[k])).collect::<Vec<_>>();
    let whole = |judge: &Judge<'_>, choice: &[usize]| judge.damage(&choices(choice)).expect("a run");

    println!("{model}: {} layers, {budget:.0} bytes of weights", layers.len());
    println!("{:<34} {:>9} {:>11} {:>11} {:>8}", "", "bytes", "table", "measured", "seconds");
    let mut shown: Vec<(&str, Allocation)> = Vec::new();
    let mut show = |name: &'static str, make: &mut dyn FnMut() -> Allocation| {
        let start = Instant::now();
        let found = make();
        let seconds = start.elapsed().as_secs_f64();
        // One table for all, whatever each went by.
        let found = measured.allocation(found.choice);
        let damage = whole(&all_judge, &found.choice);
        println!("{name:<34} {:>9.0} {:>11.3e} {damage:>11.3e} {seconds:>8.2}", found.cost, found.damage);
        shown.push((name, found));
    };
    let settings = quantnas::Settings::default();
    show("all layers alike (4 bits)", &mut || measured.allocation(vec![2; layers.len()]));
    show("greedy", &mut || greedy(&measured, budget).expect("feasible"));
    show("knapsack", &mut || least_damage(&measured, budget).expect("feasible").allocation);
    show("knapsack on predictions", &mut || least_damage(&predicted, budget).expect("feasible").allocation);
    show("quantnas by the table", &mut || {
        quantnas::search_within(&measured, budget, &mut Expected::of(&measured), &settings)
            .expect("feasible")
            .allocation
    });
    let probe = NoiseProbe::new(&few_judge, &vec![options.clone(); layers.len()], NoiseLaw::Normal, NoiseModel::Error);
    let mut noise_runs = (0u32, 0.0);
    let worst: Vec<Vec<f64>> = layers.iter().map(|_| vec![0.0, 0.0, 1.0]).collect();
    let scale = probe.damage(&worst, 0).expect("a run").max(f64::MIN_POSITIVE);
    show("quantnas under noise", &mut || {
        let objective = |p: &[Vec<f64>], seed| {
            let start = Instant::now();
            let damage = probe.damage(p, seed).map(|damage| damage / scale);
            noise_runs = (noise_runs.0 + 1, noise_runs.1 + start.elapsed().as_secs_f64());
            damage
        };
        // One search, at the price that keeps the table's own search within the budget; what comes out is held to it.
        let price = least_price(&measured, budget);
        let settings = quantnas::Settings { steps: 15, learning_rate: 0.1, cost_weight: price, ..settings.clone() };
        let found = quantnas::search(&measured, &mut Measured::new(objective), &settings).expect("a search");
        quantnas::most_probable_within(&measured, &found.probabilities, budget).expect("feasible")
    });
    show("genetic, from the knapsack", &mut || {
        let start = vec![least_damage(&measured, budget).expect("feasible").allocation.choice];
        let evolution = Evolution { population: 20, judgements: 150, start, ..Evolution::default() };
        genetic(&measured, budget, &evolution, |choice| whole(&few_judge, choice)).expect("feasible")
    });
    println!(
        "a run with noise takes {:.2} of one with rounding; order by noise: {}\n",
        noise_runs.1 / f64::from(noise_runs.0.max(1)) / rounding_time,
        options.iter().map(|&bits| agreement(&ranking, bits)).collect::<Vec<_>>().join(", "),
    );
    if let Some(folder) = std::env::var_os("EQUANT_PLOTS") {
        let points = front(&measured, 60).expect("a front");
        let others: Vec<(&str, &Allocation)> = shown.iter().map(|(name, found)| (*name, found)).collect();
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = Path::new(&folder).join(format!("{model}.svg"));
        std::fs::write(path, plots::front(&points, &others)).expect("a plot");
    }
}

/// The price of cost with which the table's own search keeps the budget.
fn least_price(table: &Table, budget: f64) -> f64 {
    let run = |cost_weight: f64| {
        let settings = quantnas::Settings { cost_weight, ..quantnas::Settings::default() };
        quantnas::search(table, &mut Expected::of(table), &settings).expect("a search").allocation.cost
    };
    let (mut low, mut high) = (1e-4, 1e2);
    for _ in 0..12 {
        let middle = f64::sqrt(low * high);
        if run(middle) <= budget { high = middle } else { low = middle }
    }
    high
}

fn statistics(graph: &Graph, samples: &Samples) -> BTreeMap<String, Statistics> {
    let mut inputs: Vec<String> =
        layers(graph).iter().filter_map(|layer| graph.nodes.get(layer.index)?.input(0).map(str::to_owned)).collect();
    inputs.sort_unstable();
    inputs.dedup();
    pipeline::statistics(graph, inputs, samples, Backend::Tract, threads(), &|_| {}).expect("statistics")
}

fn agreement(ranking: &[LayerDamage], bits: Widths) -> String {
    let of = |damage: fn(&LayerDamage) -> f64| -> Vec<f64> {
        ranking.iter().filter(|layer| layer.bits == bits).map(damage).collect()
    };
    let rho = spearman(&of(|d| d.predicted), &of(|d| d.measured)).unwrap_or(0.0);
    format!("{bits} {rho:.2} (layer alone {:.2})", spearman(&of(|d| d.local), &of(|d| d.measured)).unwrap_or(0.0))
}
