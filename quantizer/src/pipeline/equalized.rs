//! Scaling channels between observation and quantization, where that helps.

use std::collections::BTreeMap;

use super::trial::Trial;
use super::{Error, Request};
use crate::data::{Batch, Samples};
use crate::equalize::{ChannelStatistics, Channels, Clamping, Equalized, Equalizer, Method, Precision};
use crate::exec::{self, BATCH};
use crate::graph::Graph;
use crate::observe::Statistics;
use crate::quantize;

/// Samples at least for taking a Clip as not reached because no sample reaches it.
const LEAST_FOR_CLAMPS: usize = 4 * BATCH;

/// A graph and what was seen of its values.
pub(super) struct Observed {
    pub(super) graph: Graph,
    pub(super) statistics: BTreeMap<String, Statistics>,
}

/// The graph with channels scaled, if it then quantizes better on calibration samples than the one given; notes say what
/// was tried. Judged with ranges and rounding of the simplest kind.
pub(super) fn choose(
    original: Observed,
    samples: &Samples,
    trial: &Trial<'_>,
    request: &Request,
    file: &str,
    notes: &mut Vec<String>,
) -> Result<Observed, Error> {
    let candidates = candidates(&original.graph, samples, request).map_err(|source| Error::run(file, source))?;
    if candidates.is_empty() {
        return Ok(original);
    }
    let judge = |observed: &Observed| {
        let outcome = quantize::quantize(&observed.graph, &observed.statistics, &request.config)
            .map_err(|source| Error::Quantize { file: file.to_owned(), source: Box::new(source) })?;
        Ok::<_, Error>(trial.judge(&observed.graph, outcome, &|_| ())?.sqnr_db)
    };
    let before = judge(&original)?;
    let mut best = (before, original, None);
    for candidate in candidates {
        let names = quantize::values_to_observe(&candidate.graph);
        let statistics = super::statistics(&candidate.graph, names, samples, request.backend, request.threads, &|_| ())
            .map_err(|source| Error::run(file, source))?;
        let observed = Observed { graph: candidate.graph.clone(), statistics };
        let sqnr_db = judge(&observed)?;
        if sqnr_db > best.0 {
            best = (sqnr_db, observed, Some(candidate));
        }
    }
    let (after, observed, chosen) = best;
    match chosen {
        Some(chosen) => {
            notes.push(format!("channels scaled: from {before:.1} dB to {after:.1} dB on calibration samples"));
            notes.extend(describe(&chosen));
        }
        None => notes.push(format!("scaling channels did not help ({before:.1} dB on calibration samples)")),
    }
    Ok(observed)
}

fn candidates(graph: &Graph, samples: &Samples, request: &Request) -> Result<Vec<Equalized>, exec::Error> {
    let channels = Channels::of(graph);
    if !channels.any() {
        return Ok(Vec::new());
    }
    let runner = exec::runner(graph, &channels.values_to_observe(), request.backend)?;
    let part = |batch: &Batch, values: Vec<Vec<f32>>| ChannelStatistics::of(&channels, batch.count, &values);
    let seen = exec::fold(&*runner, samples, request.threads, part, ChannelStatistics::default(), |mut all, part| {
        all.merge(&part);
        all
    })?;
    let equalizer = Equalizer::new(graph, &channels, &seen, &Precision::of(graph, &request.config));
    let mut clampings = vec![Clamping::Exact];
    if channels.clamped() && samples.len() >= LEAST_FOR_CLAMPS {
        clampings.push(Clamping::AsSeen);
    }
    let methods = [Method::Predicted, Method::CrossLayer];
    let all = clampings.into_iter().flat_map(|clamping| methods.map(|method| (method, clamping)));
    Ok(all.filter_map(|(method, clamping)| equalizer.equalize(method, clamping)).collect())
}

/// What was scaled, and what that assumes.
fn describe(chosen: &Equalized) -> Vec<String> {
    let mut notes = Vec::new();
    let most = chosen.decisions.iter().max_by(|a, b| a.spread.0.total_cmp(&b.spread.0));
    if let Some(decision) = most {
        notes.push(format!(
            "`{}` gained most of {} values whose channels were scaled: the widest channel over the mean one went from \
             {:.1} to {:.1}, kurtosis from {:.1} to {:.1}",
            decision.value,
            chosen.decisions.len(),
            decision.spread.0,
            decision.spread.1,
            decision.kurtosis.0,
            decision.kurtosis.1,
        ));
    }
    let assumed: usize = chosen.decisions.iter().map(|decision| decision.assumed).sum();
    if assumed > 0 {
        notes.push(format!(
            "{assumed} scaled channels end in a Clip that no sample reaches; inputs that do reach it are cut off elsewhere"
        ));
    }
    notes
}
