//! Calibration: observing values, choosing the observer, and restoring the means of the outputs.
//!
//! Quantization shifts the mean of the outputs; the shift seen in calibration is taken off the last bias (empirical
//! bias correction, Nagel et al., "Data-Free Quantization", 2019, section 4.2). Whether that helps is judged by cross
//! validation: the samples are split in two by batches, and each half is corrected by the shift of the other.
//!
//! With an observer asked for, it is taken. Otherwise each of [`CANDIDATES`] is tried, and the one whose outputs,
//! cross-validated like this, have the highest SQNR is kept. What is judged is the very model that would be exported,
//! since small changes of a scale move a network's SQNR by more than observers differ on average.

use std::collections::BTreeMap;

use super::progress::Clock;
use super::{Error, Request, output_names, quantized_runner};
use crate::data::{Batch, Samples};
use crate::exec::{self, BATCH};
use crate::graph::Graph;
use crate::graph::shape::infer_partial;
use crate::metrics::Sqnr;
use crate::observe::{Observer, Statistics};
use crate::quantize::{self, Config, Outcome};
use crate::{passes, qdq};

/// The observers tried when none is asked for, the first where they are equal.
const CANDIDATES: [Observer; 4] =
    [Observer::Mse, Observer::MinMax, Observer::Percentile(99.999), Observer::Percentile(99.99)];
/// Samples at most on which quantized candidates are run.
const JUDGED: usize = 256;
/// Samples at least: fewer are no ground for a choice.
const LEAST: usize = 4 * BATCH;
/// Elements of float outputs at most that are kept to compare candidates with.
const KEPT_ELEMENTS: usize = 1 << 24;

/// What calibration came to.
pub(super) struct Calibrated {
    pub(super) outcome: Outcome,
    pub(super) statistics: BTreeMap<String, Statistics>,
}

/// Observes, chooses, quantizes and corrects.
pub(super) fn calibrate(
    graph: &Graph,
    samples: &Samples,
    request: &Request,
    file: &str,
    clock: &mut Clock<'_>,
) -> Result<Calibrated, Error> {
    let statistics = clock.step("calibrate", samples.len(), |advance| {
        observe(graph, samples, request, advance).map_err(|source| Error::run(file, source))
    })?;
    let mut candidates: Vec<Observer> = match request.config.observer {
        Some(observer) => vec![observer],
        None => CANDIDATES.to_vec(),
    };
    let mut notes = Vec::new();
    if candidates.len() > 1 && samples.len() < LEAST {
        candidates.truncate(1);
        notes.push(format!("{} samples are too few to choose by: ranges by {}", samples.len(), candidates[0]));
    }
    let trial = Trial::new(graph, samples, request, file)?;
    let mut judged = clock.step("quantize", candidates.len() * trial.samples.len(), |advance| {
        candidates
            .iter()
            .map(|&observer| {
                let config = Config { observer: Some(observer), ..request.config.clone() };
                let outcome = quantize::quantize(graph, &statistics, &config)
                    .map_err(|source| Error::Quantize { file: file.to_owned(), source: Box::new(source) })?;
                let errors = trial.run(&outcome, advance)?;
                Ok(Candidate { observer, outcome, sqnr_db: sqnr(&errors), errors })
            })
            .collect::<Result<Vec<_>, Error>>()
    })?;
    let mut best = 0;
    for (i, candidate) in judged.iter().enumerate() {
        if candidate.sqnr_db > judged[best].sqnr_db {
            best = i;
        }
    }
    if judged.len() > 1 {
        let scores: Vec<String> = judged.iter().map(|c| format!("{} {:.1} dB", c.observer, c.sqnr_db)).collect();
        notes.push(format!("ranges by {}, by calibration samples: {}", judged[best].observer, scores.join(", ")));
    }
    let Candidate { mut outcome, errors, .. } = judged.swap_remove(best);
    for error in errors.iter().filter(|error| error.helps()) {
        if let Some(bias) = outcome.layers.get_mut(&error.node).and_then(|layer| layer.bias.as_mut()) {
            bias.add(&error.shift());
            notes.push(format!("node `{}`: its bias takes up the mean error of the outputs", error.node));
        }
    }
    outcome.notes.extend(notes);
    outcome.metadata.insert("equant.calibration_samples".into(), samples.len().to_string());
    Ok(Calibrated { outcome, statistics })
}

/// One way to quantize, and how it did.
struct Candidate {
    observer: Observer,
    outcome: Outcome,
    errors: Vec<OutputError>,
    sqnr_db: f64,
}

/// Statistics of every value that needs them, over all samples.
fn observe(
    graph: &Graph,
    samples: &Samples,
    request: &Request,
    advance: &dyn Fn(usize),
) -> Result<BTreeMap<String, Statistics>, exec::Error> {
    let names = quantize::values_to_observe(graph);
    let runner = exec::runner(graph, &names, request.backend)?;
    let summarize = |batch: &Batch, values: Vec<Vec<f32>>| {
        let statistics: Vec<Statistics> = values
            .iter()
            .map(|values| {
                let mut statistics = Statistics::default();
                statistics.observe(values);
                statistics
            })
            .collect();
        (batch.count, statistics)
    };
    let start = vec![Statistics::default(); names.len()];
    let all = exec::fold(&*runner, samples, request.threads, summarize, start, |mut all, (count, part)| {
        all.iter_mut().zip(&part).for_each(|(total, part)| total.merge(part));
        advance(count);
        all
    })?;
    Ok(names.into_iter().zip(all).collect())
}

/// Runs quantized candidates and compares them with the float model.
struct Trial<'a> {
    graph: &'a Graph,
    samples: Samples,
    request: &'a Request,
    file: &'a str,
    /// The float model's outputs, for each batch.
    float: Vec<Vec<Vec<f32>>>,
}

impl<'a> Trial<'a> {
    fn new(graph: &'a Graph, samples: &Samples, request: &'a Request, file: &'a str) -> Result<Self, Error> {
        let run_error = |source| Error::run(file, source);
        let types = infer_partial(graph, 1).types;
        let elements: usize =
            graph.outputs.iter().filter_map(|o| types.get(&o.name)).map(|t| t.shape.iter().product::<usize>()).sum();
        let samples = samples.head(JUDGED.min(KEPT_ELEMENTS / elements.max(1)).max(LEAST));
        let runner = exec::runner(graph, &output_names(graph), request.backend).map_err(run_error)?;
        let keep = |mut kept: Vec<_>, values| {
            kept.push(values);
            kept
        };
        let float = exec::fold(&*runner, &samples, request.threads, |_, values| values, Vec::new(), keep);
        Ok(Self { graph, samples, request, file, float: float.map_err(run_error)? })
    }

    fn run(&self, outcome: &Outcome, advance: &dyn Fn(usize)) -> Result<Vec<OutputError>, Error> {
        let mut quantized = qdq::export(self.graph, outcome);
        passes::prepare_quantized(&mut quantized)
            .map_err(|source| Error::Prepare { file: self.file.to_owned(), source: Box::new(source) })?;
        let names = output_names(self.graph);
        let run_error = |source| Error::run(self.file, source);
        let simulation = quantized_runner(&quantized, &names, self.request.backend).map_err(run_error)?;
        let start: Vec<OutputError> = names.iter().map(|name| OutputError::new(self.graph, outcome, name)).collect();
        let empty = start.clone();
        let compare = |batch: &Batch, values: Vec<Vec<f32>>| {
            let mut parts = empty.clone();
            let reference = self.float.get(batch.first / BATCH).map(Vec::as_slice).unwrap_or_default();
            for ((part, r), v) in parts.iter_mut().zip(reference).zip(&values) {
                part.add(r, v, batch.count, batch.first / BATCH % 2);
            }
            (batch.count, parts)
        };
        let add = |mut totals: Vec<OutputError>, (count, part): (usize, Vec<OutputError>)| {
            totals.iter_mut().zip(&part).for_each(|(total, part)| total.merge(part));
            advance(count);
            totals
        };
        exec::fold(&*simulation, &self.samples, self.request.threads, compare, start, add).map_err(run_error)
    }
}

/// SQNR in dB over all outputs, cross-validated, with the corrections that help.
fn sqnr(outputs: &[OutputError]) -> f64 {
    let signal: f64 = outputs.iter().flat_map(|output| &output.halves).map(|half| half.signal).sum();
    let noise: f64 = outputs.iter().map(|output| output.noise(output.helps())).sum();
    Sqnr::of(signal, noise).decibels()
}

/// Differences between the float and the quantized output, per channel of the bias that could take up their mean.
#[derive(Debug, Clone)]
struct OutputError {
    /// The node that makes the output, if it has a quantized bias.
    node: String,
    /// Whether channels are the innermost axis, and not followed by spatial axes.
    innermost: bool,
    halves: [Differences; 2],
}

/// Sums over samples and positions, per channel.
#[derive(Debug, Clone)]
struct Differences {
    count: f64,
    sum: Vec<f64>,
    squares: Vec<f64>,
    signal: f64,
}

impl Differences {
    fn new(channels: usize) -> Self {
        Self { count: 0.0, sum: vec![0.0; channels], squares: vec![0.0; channels], signal: 0.0 }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.signal += other.signal;
        self.sum.iter_mut().zip(&other.sum).for_each(|(a, b)| *a += b);
        self.squares.iter_mut().zip(&other.squares).for_each(|(a, b)| *a += b);
    }

    /// The mean difference of each channel.
    fn shift(&self) -> Vec<f64> {
        self.sum.iter().map(|sum| if self.count > 0.0 { sum / self.count } else { 0.0 }).collect()
    }

    /// Σ (difference − shift)².
    fn noise(&self, shift: Option<&[f64]>) -> f64 {
        let shift_of = |channel: usize| shift.and_then(|shift| shift.get(channel)).copied().unwrap_or(0.0);
        let channels = self.sum.iter().zip(&self.squares).enumerate();
        channels.map(|(c, (sum, squares))| squares - shift_of(c) * (2.0 * sum - shift_of(c) * self.count)).sum()
    }
}

impl OutputError {
    fn new(graph: &Graph, outcome: &Outcome, output: &str) -> Self {
        let maker = graph.nodes.iter().find(|node| node.outputs.iter().any(|name| name == output));
        let bias = maker.and_then(|node| outcome.layers.get(&node.name)?.bias.as_ref());
        let channels = bias.map_or(1, |bias| bias.values.len().max(1));
        Self {
            node: maker.filter(|_| bias.is_some()).map(|node| node.name.clone()).unwrap_or_default(),
            innermost: maker.is_some_and(|node| node.op_type == "Gemm"),
            halves: [Differences::new(channels), Differences::new(channels)],
        }
    }

    fn add(&mut self, reference: &[f32], values: &[f32], samples: usize, half: usize) {
        let part = &mut self.halves[half];
        let channels = part.sum.len();
        let inner = if self.innermost { 1 } else { (reference.len() / (samples * channels).max(1)).max(1) };
        for (i, (&r, &v)) in reference.iter().zip(values).enumerate() {
            let (r, d) = (f64::from(r), f64::from(r) - f64::from(v));
            let channel = i / inner % channels;
            part.sum[channel] += d;
            part.squares[channel] += d * d;
            part.signal += r * r;
        }
        part.count += reference.len() as f64 / channels as f64;
    }

    fn merge(&mut self, other: &Self) {
        self.halves.iter_mut().zip(&other.halves).for_each(|(half, other)| half.merge(other));
    }

    /// Σ difference², each half corrected by the shift of the other or not at all.
    fn noise(&self, corrected: bool) -> f64 {
        let [a, b] = &self.halves;
        if corrected { a.noise(Some(&b.shift())) + b.noise(Some(&a.shift())) } else { a.noise(None) + b.noise(None) }
    }

    /// Whether taking off the shift helps samples that it was not measured on.
    fn helps(&self) -> bool {
        let measured = self.halves.iter().all(|half| half.count > 0.0);
        !self.node.is_empty() && measured && self.noise(true) < self.noise(false)
    }

    /// The shift over all samples.
    fn shift(&self) -> Vec<f64> {
        let mut all = self.halves[0].clone();
        all.merge(&self.halves[1]);
        all.shift()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;

    fn error() -> OutputError {
        let graph = Graph { nodes: vec![Node::new("Gemm", "fc", ["x"], ["y"])], ..Graph::default() };
        let bias = quantize::Bias {
            values: crate::graph::Tensor::from_ints(crate::graph::DataType::I32, &[2], &[0, 0]),
            scales: vec![0.5],
        };
        let layer = quantize::Layer {
            weights: crate::graph::Tensor::from_ints(crate::graph::DataType::I8, &[2, 1], &[1, 1]),
            scales: vec![1.0],
            axis: 0,
            bias: Some(bias),
        };
        let outcome = Outcome { layers: BTreeMap::from([("fc".to_owned(), layer)]), ..Outcome::default() };
        OutputError::new(&graph, &outcome, "y")
    }

    #[test]
    fn a_constant_shift_is_found_and_helps() {
        let mut error = error();
        error.add(&[1.0, 2.0, 3.0, 4.0], &[0.5, 2.0, 2.5, 4.0], 2, 0);
        error.add(&[5.0, 6.0], &[4.5, 6.0], 1, 1);
        assert!(error.helps());
        assert_eq!(error.shift(), [0.5, 0.0]);
        assert_eq!((error.noise(false), error.noise(true)), (0.75, 0.0));
    }

    #[test]
    fn a_shift_that_the_halves_do_not_share_is_left() {
        let mut error = error();
        error.add(&[1.0, 2.0], &[0.0, 2.0], 1, 0);
        error.add(&[5.0, 6.0], &[6.0, 6.0], 1, 1);
        assert!(!error.helps());
    }

    #[test]
    fn a_bias_takes_whole_steps() {
        let values = crate::graph::Tensor::from_ints(crate::graph::DataType::I32, &[2], &[3, -1]);
        let mut bias = quantize::Bias { values, scales: vec![0.5, 0.25] };
        bias.add(&[1.1, -0.3]);
        assert_eq!(bias.values.to_i64(), [5, -2]);
    }
}
