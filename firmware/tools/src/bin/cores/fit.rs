//! Fits what an operator of each class costs on a core to the instructions that were measured, and writes the fit down as
//! the table that `quantizer/src/compile/cost/tables.rs` holds.

use std::fmt::Write;

use equant_runtime::Plan;
use equant_runtime::operator::AllOperators;
use equant_runtime::plan::AlignedBytes;
use equant_runtime::work::{Class, Work};

use crate::Error;
use crate::baseline::{Bits, Row};
use crate::core::Core;
use crate::firmware::Measured;

/// A layer with what it costs.
struct Sample {
    counts: Vec<f64>,
    instructions: f64,
}

/// The table of a core.
pub(crate) fn table(core: &Core, rows: &[Row], plans: &[AlignedBytes], measured: &[Measured]) -> Result<String, Error> {
    let mut lines = String::new();
    let mut all = Vec::new();
    for class in Class::ALL {
        let widths: &[Bits] = if class.is_weighted() { &[Bits::Eight, Bits::Four] } else { &[Bits::Eight] };
        for &bits in widths {
            let samples = samples(class, bits, rows, plans, measured)?;
            let costs = fit(&samples.iter().collect::<Vec<_>>());
            let errors = left_out(&samples);
            let [median, largest] = summary(&errors);
            let (count, per) = (samples.len(), list(&costs));
            let bits = bits.number();
            // Writing to a string does not fail.
            let _ = writeln!(
                lines,
                "        Fit {{ class: Class::{class:?}, bits: {bits}, layers: {count}, median: {median:.1}, largest: \
                 {largest:.1}, per: &[{per}] }},"
            );
            all.extend(errors);
        }
    }
    let [median, largest] = summary(&all);
    let Core { name, title, .. } = core;
    Ok(format!(
        "/// {title}: `cores -- {name} --fit`.\npub(super) static {}: Table = Table {{\n    name: \"{name}\",\n    title: \"{title}\",\n    layers: {},\n    \
         median: {median:.1},\n    largest: {largest:.1},\n    fits: &[\n{lines}    ],\n}};\n",
        name.to_uppercase(),
        all.len(),
    ))
}

/// The layers of a class, with weights of this width if they have any.
fn samples(
    class: Class,
    bits: Bits,
    rows: &[Row],
    plans: &[AlignedBytes],
    measured: &[Measured],
) -> Result<Vec<Sample>, Error> {
    let mut samples = Vec::new();
    for ((row, plan), measured) in rows.iter().zip(plans).zip(measured).filter(|((row, _), _)| row.bits == bits) {
        let plan = Plan::<AllOperators>::parse(plan).map_err(|error| format!("{}: {error}", row.name()))?;
        let work = plan.ops().next().and_then(|op| Work::of(&op, &plan));
        let work = work.ok_or_else(|| format!("{}: its work cannot be counted", row.name()))?;
        if work.class == class {
            let counts = work.counts().iter().map(|&count| count as f64).collect();
            samples.push(Sample { counts, instructions: measured.instructions as f64 });
        }
    }
    Ok(samples)
}

/// The cost of each count, none below 0, with the least squares of relative errors. A count whose cost would be negative
/// explains nothing: it costs nothing, and the others are fitted again.
fn fit(samples: &[&Sample]) -> Vec<f64> {
    let counts = samples.first().map_or(0, |sample| sample.counts.len());
    let mut used: Vec<usize> = (0..counts).collect();
    loop {
        let costs = least_squares(samples, &used);
        // The count that pulls the estimates down the most.
        let pull = |(place, _): &(usize, usize)| {
            let shares = samples.iter().map(|sample| costs[*place] * sample.counts[used[*place]] / sample.instructions);
            shares.sum::<f64>()
        };
        let worst = used.iter().copied().enumerate().min_by(|a, b| pull(a).total_cmp(&pull(b)));
        match worst {
            Some((place, _)) if costs[place] < 0.0 => used.remove(place),
            _ => {
                let mut all = vec![0.0; counts];
                used.iter().zip(costs).for_each(|(&count, cost)| all[count] = cost);
                return all;
            }
        };
    }
}

/// Costs of the counts `used`: normal equations of counts by measured instruction, each count scaled to length 1.
fn least_squares(samples: &[&Sample], used: &[usize]) -> Vec<f64> {
    let column = |count: usize| samples.iter().map(move |sample| sample.counts[count] / sample.instructions);
    let length = |count: usize| column(count).map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    let columns: Vec<Vec<f64>> = used.iter().map(|&count| column(count).map(|x| x / length(count)).collect()).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut rows: Vec<Vec<f64>> =
        columns.iter().map(|a| columns.iter().map(|b| dot(a, b)).chain([a.iter().sum()]).collect()).collect();
    for (i, row) in rows.iter_mut().enumerate() {
        // Counts that always go together share their cost.
        row[i] += 1e-9;
    }
    solve(&mut rows);
    rows.iter().zip(used).map(|(row, &count)| row[used.len()] / length(count)).collect()
}

/// Solves equations whose matrix is positive definite, which needs no pivots. The last column becomes the solution.
fn solve(rows: &mut [Vec<f64>]) {
    for i in 0..rows.len() {
        let pivot = rows[i][i];
        rows[i].iter_mut().for_each(|x| *x /= pivot);
        let row = rows[i].clone();
        for (_, other) in rows.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            let factor = other[i];
            other.iter_mut().zip(&row).for_each(|(x, r)| *x -= factor * r);
        }
    }
}

/// Errors of the estimates as shares of what was measured, each by a fit to the other layers: what to expect of a layer
/// that was not measured.
fn left_out(samples: &[Sample]) -> Vec<f64> {
    let error = |i: usize| {
        let (others, sample) = (samples[..i].iter().chain(&samples[i + 1..]), &samples[i]);
        let costs = fit(&others.collect::<Vec<_>>());
        let estimate: f64 = sample.counts.iter().zip(costs).map(|(count, cost)| count * cost).sum();
        (estimate / sample.instructions - 1.0).abs()
    };
    (0..samples.len()).map(error).collect()
}

/// The median and the largest, in percent.
fn summary(errors: &[f64]) -> [f64; 2] {
    let mut sorted = errors.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |i: usize| sorted.get(i).copied().unwrap_or(0.0);
    let len = sorted.len();
    let median = (at(len.saturating_sub(1) / 2) + at(len / 2)) / 2.0;
    [100.0 * median, 100.0 * at(len.saturating_sub(1))]
}

/// Four significant digits, in the form that rustfmt leaves alone.
fn list(costs: &[f64]) -> String {
    let costs: Vec<String> = costs.iter().map(|&cost| number(cost)).collect();
    costs.join(", ")
}

fn number(x: f64) -> String {
    let digits = if x > 0.0 { (3 - x.log10().floor() as i32).clamp(1, 6) as usize } else { 1 };
    format!("{x:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::CORES;
    use crate::layers;

    fn samples(costs: [f64; 3]) -> Vec<Sample> {
        let counts = [[9.0, 1.0, 1.0], [2.0, 7.0, 1.0], [30.0, 4.0, 1.0], [5.0, 50.0, 1.0], [800.0, 300.0, 1.0]];
        let sample = |counts: [f64; 3]| Sample {
            counts: counts.to_vec(),
            instructions: counts.iter().zip(costs).map(|(count, cost)| count * cost).sum(),
        };
        counts.map(sample).into()
    }

    #[test]
    fn costs_are_found() {
        let samples = samples([2.0, 0.5, 100.0]);
        let costs = fit(&samples.iter().collect::<Vec<_>>());
        for (found, cost) in costs.iter().zip([2.0, 0.5, 100.0]) {
            assert!((found / cost - 1.0).abs() < 1e-4, "{costs:?}");
        }
        assert!(left_out(&samples).iter().all(|&error| error < 1e-4));
    }

    #[test]
    fn no_cost_is_negative() {
        let samples = samples([2.0, -0.01, 100.0]);
        let costs = fit(&samples.iter().collect::<Vec<_>>());
        assert!(costs[1] == 0.0 && costs[0] > 0.0 && costs[2] > 0.0, "{costs:?}");
    }

    #[test]
    fn numbers_have_four_digits() {
        assert_eq!([0.83219, 12.0, 3483.71, 18637.3, 0.0].map(number), ["0.8322", "12.00", "3483.7", "18637.3", "0.0"]);
        assert_eq!(summary(&[0.03, 0.01]), [2.0, 3.0]);
    }

    const RESULTS: &str = include_str!("../../../../bench/results.md");
    const TABLES: &str = include_str!("../../../../../quantizer/src/compile/cost/tables.rs");

    /// What the recorded results say of a core's layers.
    fn recorded(core: &Core, rows: &[Row]) -> Vec<Measured> {
        let section = RESULTS.split("\n## ").find(|section| section.lines().next() == Some(core.title)).unwrap();
        rows.iter()
            .map(|row| {
                let start = format!("| {} | {} | {} |", row.bits.name(), row.model, row.text);
                let line = section.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{start}"));
                let instructions = line.split('|').nth(6).unwrap().trim().parse().unwrap();
                Measured { digest: 0, instructions }
            })
            .collect()
    }

    /// Without what rustfmt adds.
    fn bare(text: &str) -> String {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        text.replace(",}", "}").replace(",]", "]")
    }

    /// The tables of costs are those of the recorded results, and as near to these as they say.
    #[test]
    fn tables_are_fitted_to_recorded_results() {
        let (rows, plans) = layers().unwrap();
        let (tables, mut wrong) = (bare(TABLES), Vec::new());
        for core in CORES.iter().filter(|core| TABLES.contains(&format!("\"{}\"", core.title))) {
            let measured = recorded(core, &rows);
            let table = table(core, &rows, &plans, &measured).unwrap();
            if !tables.contains(&bare(&table)) {
                wrong.push(table);
            }
            for class in Class::ALL {
                let samples = super::samples(class, Bits::Eight, &rows, &plans, &measured).unwrap();
                let costs = fit(&samples.iter().collect::<Vec<_>>());
                let [_, largest] = summary(&left_out(&samples));
                for sample in &samples {
                    let estimate: f64 = sample.counts.iter().zip(&costs).map(|(count, cost)| count * cost).sum();
                    let error = 100.0 * (estimate / sample.instructions - 1.0).abs();
                    assert!(error <= largest + 0.1, "{}: {class:?}: {error} % above {largest} %", core.title);
                }
            }
        }
        assert!(wrong.is_empty(), "`cores --fit` gives\n{}", wrong.join("\n"));
        assert_eq!(TABLES.matches("static").count(), 7);
    }
}
