//! Scaling channels before observation and quantization, where that helps.

use std::collections::BTreeMap;

use super::statistics::{each, statistics_by};
use super::trial::Trial;
use super::{Error, Request};
use crate::data::{Batch, Samples};
use crate::equalize::{ChannelStatistics, Channels, Clamping, Equalized, Equalizer, Method, Precision};
use crate::exec::{self, BATCH};
use crate::graph::Graph;
use crate::observe::{Observer, Statistics};
use crate::parallel::in_parallel;
use crate::quantize::{self, Config};

/// Samples at least for taking a Clip as not reached because no sample reaches it.
const LEAST_FOR_CLAMPS: usize = 4 * BATCH;

/// What scaling channels must gain, in dB.
const LEAST_GAIN_DB: f64 = 0.5;

/// The graph with channels scaled, if it then quantizes better on calibration samples than the one given; notes say what
/// was tried. Judged with ranges and rounding of the simplest kind. Half of the trial's samples choose scalings, the others
/// compare them: once every channel of a value fills its range, each may be cut off for other samples, so that those seen
/// flatter the scaling.
pub(super) fn choose(
    original: &Graph,
    trial: &Trial<'_>,
    request: &Request,
    file: &str,
    notes: &mut Vec<String>,
) -> Result<Graph, Error> {
    let run_error = |source| Error::run(file, source);
    let all = trial.samples();
    let seen = all.len().div_ceil(BATCH) / 2;
    // A single batch must do for both.
    let few = if seen == 0 { all.clone() } else { all.head(seen * BATCH) };
    let channels = Channels::of(original);
    if !channels.any() {
        return Ok(original.clone());
    }
    // With 8 bits there is room for all that was seen; ranges that leave some out are chosen later, by more.
    let observer = (!request.config.has_narrow()).then_some(Observer::MinMax).or(request.config.observer);
    let of = if observer == Some(Observer::MinMax) { Statistics::of_extremes } else { Statistics::of };
    let (candidates, own) = candidates(original, &channels, of, &few, request).map_err(run_error)?;
    if candidates.is_empty() {
        return Ok(original.clone());
    }
    let trial = trial.after(seen);
    let observe = |graph: &Graph| {
        let names = quantize::values_to_observe(graph);
        statistics_by(of, graph, names, &few, request.backend, request.threads, &|_| ()).map_err(run_error)
    };
    let config = Config { observer, ..request.config.clone() };
    let judge = |graph: &Graph, statistics: &Observations| {
        let outcome = quantize::quantize(graph, statistics, &config)
            .map_err(|source| Error::Quantize { file: file.to_owned(), source: Box::new(source) })?;
        Ok::<_, Error>(trial.judge(graph, outcome, &|_| ())?.sqnr_db)
    };
    let before = judge(original, &own)?;
    let (mut after, mut best) = (f64::NEG_INFINITY, None);
    for candidate in candidates {
        let sqnr_db = judge(&candidate.graph, &observe(&candidate.graph)?)?;
        if sqnr_db > after {
            (after, best) = (sqnr_db, Some(candidate));
        }
    }
    match best {
        Some(best) if after >= before + LEAST_GAIN_DB => {
            notes.push(format!("channels scaled: from {before:.1} dB to {after:.1} dB on other calibration samples"));
            notes.extend(describe(&best));
            Ok(best.graph)
        }
        _ => {
            notes.push(format!(
                "channels were left as they are: scaling them takes {before:.1} dB to {after:.1} dB on other calibration \
                 samples"
            ));
            Ok(original.clone())
        }
    }
}

/// Statistics of values, by name.
type Observations = BTreeMap<String, Statistics>;

/// The graph scaled in several ways, and the statistics of its own values, seen on the way.
fn candidates(
    graph: &Graph,
    channels: &Channels,
    of: fn(&[f32]) -> Statistics,
    samples: &Samples,
    request: &Request,
) -> Result<(Vec<Equalized>, Observations), exec::Error> {
    let (scaled, quantized) = (channels.values_to_observe(), quantize::values_to_observe(graph));
    let names: Vec<String> = scaled.iter().chain(&quantized).cloned().collect();
    let runner = exec::runner(graph, &names, request.backend)?;
    let part = |batch: &Batch, values: Vec<Vec<f32>>| {
        let (of_channels, whole) = values.split_at(scaled.len());
        (ChannelStatistics::of(channels, batch.count, of_channels), each(of, whole))
    };
    let start = (ChannelStatistics::default(), vec![Statistics::default(); quantized.len()]);
    let (seen, own) = exec::fold(&*runner, samples, request.threads, part, start, |mut all, part| {
        all.0.merge(&part.0);
        all.1.iter_mut().zip(&part.1).for_each(|(all, part)| all.merge(part));
        all
    })?;
    let equalizer = Equalizer::new(graph, channels, &seen, &Precision::of(graph, &request.config));
    let mut clampings = vec![Clamping::Exact];
    if channels.clamped() && samples.len() >= LEAST_FOR_CLAMPS {
        clampings.push(Clamping::AsSeen);
    }
    let methods = [Method::Predicted, Method::CrossLayer];
    let all: Vec<_> = clampings.into_iter().flat_map(|clamping| methods.map(|method| (method, clamping))).collect();
    let found = in_parallel(all.len(), request.threads, |i| equalizer.equalize(all[i].0, all[i].1));
    Ok((found.into_iter().flatten().collect(), quantized.into_iter().zip(own).collect()))
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
