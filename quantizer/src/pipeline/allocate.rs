//! Bits for each layer within a budget: what each layer's narrower options do to the outputs is measured one layer at a
//! time, an allocation is chosen by these figures, and the choice is rounded and measured as a whole.

use super::instructions::Instructions;
use super::make::Maker;
use super::trial::Judged;
use super::{Error, describe};
use crate::allocate::{self, Allocation, LayerOptions, OptionRow, Table, quantnas};
use crate::graph::Node;
use crate::graph::shape::infer_partial;
use crate::quantize::{Bias, Bits, Config, Outcome, Rounding, Width};
use crate::report;
use crate::target::LayerKind;

/// Points of the trade-off shown in the report.
const FRONT: usize = 40;
/// Tries at most to meet a budget of SQNR.
const MOST_TRIES: usize = 6;

/// What the table of a budget of instructions calls the operators that no bits change.
const REST: &str = "other operators";

/// What must not be exceeded.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub enum Budget {
    /// Bytes of quantized weights.
    Flash(u64),
    /// Σ multiply-accumulates × bits of weights × bits of activations, for one sample.
    BitOps(f64),
    /// Estimated instructions of one run of the whole plan on [`super::Request::core`].
    Instructions(f64),
    /// The least SQNR of the outputs, in dB, on calibration samples.
    Sqnr(f64),
}

impl std::str::FromStr for Budget {
    type Err = String;

    /// `flash=100KiB`, `bitops=120M`, `instructions=5M` or `sqnr=30`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "use flash=100KiB, bitops=120M, instructions=5M or sqnr=30".to_owned();
        let (what, amount) = text.split_once('=').ok_or_else(wrong)?;
        let digits = amount.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match amount[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" | "db" => 1.0,
            "k" | "kb" => 1e3,
            "m" | "mb" => 1e6,
            "g" | "gb" => 1e9,
            "kib" => 1024.0,
            "mib" => 1024.0 * 1024.0,
            _ => return Err(wrong()),
        };
        let number: f64 = digits.parse().map_err(|_| wrong())?;
        let amount = number * factor;
        match what {
            "flash" if amount >= 0.0 => Ok(Self::Flash(amount as u64)),
            "bitops" if amount >= 0.0 => Ok(Self::BitOps(amount)),
            "instructions" if amount >= 0.0 => Ok(Self::Instructions(amount)),
            "sqnr" if amount.is_finite() => Ok(Self::Sqnr(amount)),
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flash(bytes) => write!(f, "{} of weights", report::numbers::bytes(*bytes)),
            Self::BitOps(amount) => write!(f, "{} bit operations", report::numbers::count(*amount as u64)),
            Self::Instructions(amount) => write!(f, "{} instructions", report::numbers::count(*amount as u64)),
            Self::Sqnr(db) => write!(f, "{db} dB"),
        }
    }
}

impl Budget {
    /// The options of a layer, the widest first: bits that do not save what the budget counts are none. Nor are coarser
    /// scales and symmetric activations: a plan keeps a bias for each channel in any case, so that they save next to
    /// nothing of any budget, and both cost decibels (`BENCHMARKS.md`).
    fn options(self, base: Bits, allowed: impl Fn(Bits) -> bool) -> Vec<Bits> {
        let weights = [Width::Eight, Width::Four];
        let activations: &[Width] = match self {
            Self::BitOps(_) => &weights,
            _ => &[base.activations],
        };
        weights
            .iter()
            .flat_map(|&weights| activations.iter().map(move |&activations| Bits { weights, activations }))
            .filter(|&bits| allowed(bits))
            .collect()
    }
}

/// What a search works on.
pub(super) struct Search<'a> {
    pub(super) make: Maker<'a>,
    pub(super) budget: Budget,
}

/// An allocation, rounded and measured.
struct Attempt {
    judged: Judged,
    allocation: Allocation,
}

impl Search<'_> {
    /// The budget, and what it is counted on.
    fn budget_in_words(&self) -> String {
        match self.budget {
            Budget::Instructions(_) => format!("{} on {}", self.budget, self.make.request.core.title()),
            _ => self.budget.to_string(),
        }
    }

    /// Finds bits for every layer; `base` is the model with 8-bit weights everywhere, rounded.
    pub(super) fn run(&self, base: &Judged, advance: &dyn Fn(usize)) -> Result<(Judged, report::Mixed), Error> {
        let table = self.measure(base, advance)?;
        let refused =
            |source| Error::Budget { file: self.make.file.to_owned(), budget: self.budget_in_words(), source };
        let mut mixed = report::Mixed {
            budget: self.budget_in_words(),
            front: allocate::front(&table, FRONT).map_err(refused)?,
            tried: Vec::new(),
            layers: Vec::new(),
            table,
        };
        let best = match self.budget {
            Budget::Flash(bytes) => self.cheap_enough(base, bytes as f64, &mut mixed)?,
            Budget::BitOps(amount) | Budget::Instructions(amount) => self.cheap_enough(base, amount, &mut mixed)?,
            Budget::Sqnr(db) => self.good_enough(base, db, &mut mixed)?,
        };
        let bits = bits(&best.allocation, &mixed.table);
        mixed.layers = bits.into_iter().map(|(layer, bits)| (layer, bits.to_string())).collect();
        Ok((best.judged, mixed))
    }

    /// The best of what several methods find at this cost.
    fn cheap_enough(&self, base: &Judged, limit: f64, mixed: &mut report::Mixed) -> Result<Attempt, Error> {
        let refused =
            |source| Error::Budget { file: self.make.file.to_owned(), budget: self.budget_in_words(), source };
        let table = mixed.table.clone();
        let mut found = vec![
            ("knapsack", allocate::least_damage(&table, limit).map_err(refused)?.allocation),
            ("greedy by sensitivity", allocate::greedy(&table, limit).map_err(refused)?),
        ];
        let mut expected = quantnas::Expected::of(&table);
        match quantnas::search_within(&table, limit, &mut expected, &quantnas::Settings::default()) {
            Ok(nas) => found.push(("softmax with entropy penalty", nas.allocation)),
            Err(quantnas::Error::Table(source)) => return Err(refused(source)),
            Err(quantnas::Error::Objective(never)) => match never {},
        }
        let mut best: Option<Attempt> = None;
        for (i, &(method, ref allocation)) in found.iter().enumerate() {
            // Methods often agree; each of `mixed.tried` stands for one of `found`.
            if let Some(same) = found[..i].iter().position(|(_, earlier)| earlier.choice == allocation.choice) {
                let same = report::Tried { method, ..mixed.tried[same].clone() };
                mixed.tried.push(same);
                continue;
            }
            let attempt = self.attempt(base, method, allocation.clone(), mixed)?;
            if best.as_ref().is_none_or(|best| attempt.judged.sqnr_db > best.judged.sqnr_db) {
                best = Some(attempt);
            }
        }
        best.ok_or_else(|| Error::Internal("no allocation was tried".into()))
    }

    /// The cheapest that is measured to be this good. Predictions err to both sides, so the damage allowed shrinks until
    /// the measurement agrees.
    fn good_enough(&self, base: &Judged, db: f64, mixed: &mut report::Mixed) -> Result<Attempt, Error> {
        let most = || Error::SqnrBudget { file: self.make.file.to_owned(), asked: db, most: base.sqnr_db };
        let mut allowed = noise(db) - noise(base.sqnr_db);
        if allowed < 0.0 {
            return Err(most());
        }
        let table = mixed.table.clone();
        for _ in 0..MOST_TRIES {
            let Ok(found) = allocate::least_cost(&table, allowed) else { break };
            let attempt = self.attempt(base, "knapsack", found.allocation, mixed)?;
            if attempt.judged.sqnr_db >= db {
                return Ok(attempt);
            }
            allowed *= 0.6;
        }
        let widest = table.allocation(vec![0; table.layers.len()]);
        let attempt = self.attempt(base, "all at 8 bits", widest, mixed)?;
        if attempt.judged.sqnr_db >= db { Ok(attempt) } else { Err(most()) }
    }

    fn attempt(
        &self,
        base: &Judged,
        method: &'static str,
        allocation: Allocation,
        mixed: &mut report::Mixed,
    ) -> Result<Attempt, Error> {
        let layers = bits(&allocation, &mixed.table).into_iter().collect();
        let config = Config { layers, ..self.make.request.config.clone() };
        let judged = self.make.judge_rounded(self.make.model(&config)?)?;
        mixed.tried.push(report::Tried {
            method,
            cost: allocation.cost,
            predicted_db: -10.0 * libm::log10(noise(base.sqnr_db) + allocation.damage),
            measured_db: judged.sqnr_db,
            added_noise: (noise(judged.sqnr_db) - noise(base.sqnr_db)).max(0.0),
        });
        Ok(Attempt { judged, allocation })
    }

    /// The options of a layer on the target, the widest first.
    fn options(&self, layer: &str) -> Vec<Bits> {
        let kind = self
            .make
            .graph
            .nodes
            .iter()
            .find(|node| node.name == layer)
            .and_then(|n| LayerKind::of(self.make.graph, n));
        let rules = self.make.request.target.rules();
        // The widths given for single layers are the target's for its first and last, or the user's.
        let fixed = self.make.request.config.layers.get(layer);
        self.budget.options(self.make.request.config.bits, |bits| {
            let runs = kind.is_none_or(|kind| rules.check(kind, bits).is_ok());
            runs && fixed.is_none_or(|fixed| fixed.weights == bits.weights)
        })
    }

    /// What each option of each layer costs, and how much noise, as a share of the signal, it adds to the outputs of the
    /// model in which every other layer has 8 bits.
    pub(super) fn measure(&self, base: &Judged, advance: &dyn Fn(usize)) -> Result<Table, Error> {
        let types = infer_partial(self.make.graph, 1).types;
        // Narrow weights fitted to the float model's values, so that each can be put alone into the 8-bit model.
        let narrow = Bits { weights: Width::Four, activations: Width::Four };
        let config = Config { bits: narrow, layers: Default::default(), ..self.make.request.config.clone() };
        let config = Config { rounding: Rounding { sequential: false, ..config.rounding }, ..config };
        let narrow = self.make.model(&config)?.outcome;
        let instructions = match self.budget {
            Budget::Instructions(_) => {
                Some(Instructions::of(self.make.request.core, self.make.graph, &base.outcome, self.make.file)?)
            }
            _ => None,
        };
        let mut table = Table::default();
        for node in &self.make.graph.nodes {
            let Some(layer) = base.outcome.layers.get(&node.name) else { continue };
            let macs = describe::macs(node, &types) as f64;
            let mut rows = Vec::new();
            let options = self.options(&node.name);
            for &bits in &options {
                let (w, a) = (f64::from(bits.weights.bits()), f64::from(bits.activations.bits()));
                let cost = match (self.budget, &instructions) {
                    (_, Some(instructions)) => instructions.of_layer(&node.name, bits.weights),
                    (Budget::BitOps(_), _) => macs * w * a,
                    _ => (layer.weights.len() as f64 * w / 8.0).ceil(),
                };
                // Fewer bits often take no fewer instructions: then there is nothing to measure.
                if instructions.is_some() && rows.first().is_some_and(|widest: &OptionRow| cost >= widest.cost) {
                    continue;
                }
                let damage = match bits == options[0] {
                    true => 0.0,
                    false => {
                        let outcome = self.with_option(&base.outcome, &narrow, node, bits);
                        let judged = self.make.judge(outcome, &|_| ())?;
                        (noise(judged.sqnr_db) - noise(base.sqnr_db)).max(0.0)
                    }
                };
                rows.push(OptionRow { label: bits.to_string(), damage, cost });
            }
            table.layers.push(LayerOptions { name: node.name.clone(), options: rows });
            advance(1);
        }
        if let Some(instructions) = instructions {
            let rest = OptionRow { label: "any".to_owned(), damage: 0.0, cost: instructions.of_rest() };
            table.layers.push(LayerOptions { name: REST.to_owned(), options: vec![rest] });
        }
        Ok(table)
    }

    /// `base` with one layer at other bits, its weights and the range of what it reads taken from `narrow`.
    fn with_option(&self, base: &Outcome, narrow: &Outcome, node: &Node, bits: Bits) -> Outcome {
        let mut outcome = base.clone();
        if bits.weights == Width::Four
            && let Some(layer) = narrow.layers.get(&node.name)
        {
            outcome.layers.insert(node.name.clone(), layer.clone());
        }
        let input = node.input(0).unwrap_or_default();
        if bits.activations == Width::Four
            && let Some(old) = base.activations.get(input)
            && let Some(new) = narrow.activations.get(input)
        {
            // All values of its group.
            for (value, params) in &mut outcome.activations {
                if *params == *old && narrow.activations.get(value) == Some(new) {
                    *params = *new;
                }
            }
        }
        // Biases keep their real values at the scale of what is read now.
        for reader in &self.make.graph.nodes {
            let Some(params) = reader.input(0).and_then(|name| outcome.activations.get(name)).copied() else {
                continue;
            };
            if let Some(layer) = outcome.layers.get_mut(&reader.name)
                && let Some(bias) = &layer.bias
            {
                layer.bias = Some(Bias::new(bias.real().into_iter(), params.scale, &layer.scales));
            }
        }
        outcome
    }
}

/// The bits of each layer of an allocation.
fn bits(allocation: &Allocation, table: &Table) -> Vec<(String, Bits)> {
    let rows = allocation.choice.iter().zip(&table.layers);
    // What no bits change has a row without any.
    let bits = |choice: usize, layer: &LayerOptions| layer.options.get(choice)?.label.parse().ok();
    rows.filter_map(|(&choice, layer)| Some((layer.name.clone(), bits(choice, layer)?))).collect()
}

/// Noise as a share of the signal.
fn noise(db: f64) -> f64 {
    libm::pow(10.0, -db / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read() {
        let read = |text: &str| text.parse::<Budget>();
        assert_eq!(read("flash=2KiB"), Ok(Budget::Flash(2048)));
        assert_eq!(read("bitops=120M"), Ok(Budget::BitOps(120e6)));
        assert_eq!(read("instructions=5M"), Ok(Budget::Instructions(5e6)));
        assert_eq!(read("sqnr=30dB"), Ok(Budget::Sqnr(30.0)));
        for wrong in ["instructions", "instructions=", "instructions=-1", "instructions=5X", "cycles=5M"] {
            assert!(read(wrong).is_err_and(|error| error.contains("instructions=5M")), "{wrong}");
        }
        assert_eq!(Budget::Instructions(5e6).to_string(), "5.00 M instructions");
    }

    #[test]
    fn only_layers_have_bits() {
        let option = |label: &str| OptionRow { label: label.into(), damage: 0.0, cost: 1.0 };
        let layer = |name: &str, labels: &[&str]| LayerOptions {
            name: name.into(),
            options: labels.iter().map(|label| option(label)).collect(),
        };
        let table = Table { layers: vec![layer("conv", &["W8A8", "W4A8"]), layer(REST, &["any"])] };
        let found = bits(&table.allocation(vec![1, 0]), &table);
        let bits = Bits { weights: Width::Four, activations: Width::Eight };
        assert_eq!(found, [("conv".to_owned(), bits)]);
    }
}
