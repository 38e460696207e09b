//! Calibration, step by step: values are observed, channels scaled, ranges chosen, weights rounded, and the means of the
//! outputs restored. After each step the model is judged on calibration samples ([`super::trial`]); a step that does not help is undone.

use std::collections::BTreeMap;

use super::allocate::Search;
use super::equalized::{self, Observed};
use super::progress::Clock;
use super::reconstruct::reconstruct;
use super::trial::{Judged, Trial};
use super::{Error, Request, ranges};
use crate::data::Samples;
use crate::graph::Graph;
use crate::observe::Statistics;
use crate::quantize::{self, Bits, Config, Outcome, Width};
use crate::report;
use crate::round::Method;
#[cfg(feature = "tune")]
use crate::tune;

/// What calibration came to.
pub(super) struct Calibrated {
    /// The graph that was quantized: computes what the model does, perhaps with channels scaled.
    pub(super) graph: Graph,
    pub(super) outcome: Outcome,
    pub(super) statistics: BTreeMap<String, Statistics>,
    /// How bits were dealt out.
    pub(super) mixed: Option<report::Mixed>,
}

/// Observes, chooses, quantizes and corrects.
pub(super) fn calibrate(
    graph: &Graph,
    samples: &Samples,
    request: &Request,
    file: &str,
    clock: &mut Clock<'_>,
) -> Result<Calibrated, Error> {
    // A budget deals out bits from 8 everywhere.
    let request = &match request.budget {
        Some(_) => {
            let bits = Bits { weights: Width::Eight, ..request.config.bits };
            Request { config: Config { bits, ..request.config.clone() }, ..request.clone() }
        }
        None => request.clone(),
    };
    let statistics = clock.step("calibrate", samples.len(), |advance| {
        let names = quantize::values_to_observe(graph);
        super::statistics(graph, names, samples, request.backend, request.threads, advance)
            .map_err(|source| Error::run(file, source))
    })?;
    let mut notes = Vec::new();
    let trial = Trial::new(graph, samples, request, file)?;
    let original = Observed { graph: graph.clone(), statistics };
    let Observed { graph, statistics } = match request.config.equalize {
        true => {
            clock.step("equalize", 0, |_| equalized::choose(original, samples, &trial, request, file, &mut notes))?
        }
        false => original,
    };
    let graph = &graph;
    let chosen = match request.config.observer {
        Some(_) => BTreeMap::new(),
        None => clock.step("choose ranges", 0, |_| ranges::choose(graph, &statistics, samples, request, file))?,
    };
    let mut judged = clock.step("quantize", trial.len(), |advance| {
        let outcome = quantize::quantize_with(graph, &statistics, &request.config, &chosen)
            .map_err(|source| Error::Quantize { file: file.to_owned(), source: Box::new(source) })?;
        trial.judge(graph, outcome, advance)
    })?;
    if request.config.rounding.method != Method::Nearest {
        judged = clock.step("round", judged.outcome.layers.len(), |advance| {
            let outcome = reconstruct(graph, &judged.outcome, &request.config, samples, request, file, advance)?;
            let rounded = trial.judge(graph, outcome, &|_| ())?;
            Ok::<_, Error>(better(judged, rounded, "rounding for the outputs of layers", &mut notes))
        })?;
    }
    let mixed = match request.budget {
        None => None,
        Some(budget) => {
            let search = Search { graph, statistics: &statistics, samples, trial: &trial, request, file, budget };
            let layers = judged.outcome.layers.len();
            let (found, mixed) = clock.step("deal out bits", layers, |advance| search.run(&judged, advance))?;
            judged = found;
            Some(mixed)
        }
    };
    #[cfg(feature = "tune")]
    if let Some(options) = &request.tune {
        let steps = tune::steps(graph, &judged.outcome, options).unwrap_or(options.steps);
        judged = clock.step("tune", steps, |advance| {
            let tuned = match tune::tune(graph, &judged.outcome, samples, options, advance) {
                Ok(tuned) => tuned,
                Err(error) => {
                    notes.push(format!("not tuned: {error}"));
                    return Ok(judged);
                }
            };
            notes.extend(tuned.report.notes);
            let tuned = trial.judge(graph, tuned.outcome, &|_| ())?;
            Ok::<_, Error>(better(judged, tuned, "tuning to the float outputs", &mut notes))
        })?;
    }
    let mut outcome = judged.corrected(&mut notes);
    outcome.notes.extend(notes);
    outcome.metadata.insert("equant.calibration_samples".into(), samples.len().to_string());
    Ok(Calibrated { graph: graph.clone(), outcome, statistics, mixed })
}

/// The better of two; a note says which, and by how much.
fn better(before: Judged, after: Judged, step: &str, notes: &mut Vec<String>) -> Judged {
    let (old, new) = (before.sqnr_db, after.sqnr_db);
    let helps = new > old;
    let undone = if helps { "" } else { ", and was undone" };
    notes.push(format!("{step}: from {old:.1} dB to {new:.1} dB on calibration samples{undone}"));
    if helps { after } else { before }
}
