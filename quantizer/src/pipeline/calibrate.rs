//! Calibration, step by step: channels are scaled, values observed, ranges chosen, weights rounded, and the means of the
//! outputs restored. After each step the model is judged on calibration samples ([`super::trial`]); a step that does not help is undone.

use std::collections::BTreeMap;

use super::allocate::Search;
use super::equalized;
use super::make::Maker;
use super::progress::Clock;
use super::ranges::Observed;
use super::trial::{Judged, Trial};
use super::{Error, Request, safety};
use crate::data::Samples;
use crate::graph::Graph;
use crate::observe::Statistics;
use crate::quantize::{Bits, Config, Outcome, Width};
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
    let mut notes = Vec::new();
    let trial = Trial::new(graph, samples, request, file)?;
    let graph = match request.config.equalize {
        true => clock.step("equalize", 0, |_| equalized::choose(graph, &trial, request, file, &mut notes))?,
        false => graph.clone(),
    };
    let observed = clock.step("calibrate", samples.len(), |advance| {
        let by_readers = request.config.observer.is_none();
        Observed::of(&graph, samples, request, by_readers, advance).map_err(|source| Error::run(file, source))
    })?;
    let graph = &graph;
    let make = Maker { graph, observed: &observed, samples, trial: &trial, request, file };
    let config = &request.config;
    let chosen = clock.step("choose ranges", 0, |_| make.ranges(config))?;
    let mut judged =
        clock.step("quantize", trial.len(), |advance| make.judge(make.nearest(config, &chosen)?, advance))?;
    let asked = config.rounding.terms().active();
    if config.rounding.method != Method::Nearest || asked {
        judged = clock.step("round", judged.outcome.layers.len(), |advance| {
            let rounded = make.judge_rounded(make.rounded(&judged.outcome, config, advance)?)?;
            if asked {
                // Its price was agreed to.
                let (old, new) = (judged.sqnr_db, rounded.sqnr_db);
                notes.push(format!(
                    "rounding by rate or kurtosis: {new:.1} dB on calibration samples, {old:.1} dB with rounding to nearest"
                ));
                return Ok(rounded);
            }
            Ok::<_, Error>(better(judged, rounded, "rounding for the outputs of layers", &mut notes))
        })?;
    }
    let mut mixed = None;
    if let Some(budget) = request.budget {
        let layers = judged.outcome.layers.len();
        let (found, how) =
            clock.step("deal out bits", layers, |advance| Search { make, budget }.run(&judged, advance))?;
        (judged, mixed) = (found, Some(how));
    } else if let Some(floor_db) = request.floor_db.filter(|_| config.has_narrow()) {
        judged = clock.step("safety net", 0, |_| safety::widen(&make, judged, config, floor_db, &mut notes))?;
    }
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
    Ok(Calibrated { graph: graph.clone(), outcome, statistics: observed.statistics, mixed })
}

/// The better of two; a note says which, and by how much.
fn better(before: Judged, after: Judged, step: &str, notes: &mut Vec<String>) -> Judged {
    let (old, new) = (before.sqnr_db, after.sqnr_db);
    let helps = new > old;
    let undone = if helps { "" } else { ", and was undone" };
    notes.push(format!("{step}: from {old:.1} dB to {new:.1} dB on calibration samples{undone}"));
    if helps { after } else { before }
}
