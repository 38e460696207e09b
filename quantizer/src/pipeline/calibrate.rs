//! Calibration: observing values, choosing the observer, and restoring the means of the outputs.
//!
//! Every fourth batch is held out: it takes no part in what it judges. With an observer asked for, it is taken;
//! otherwise each of [`CANDIDATES`] is tried and judged by the SQNR of the outputs on the held-out samples. Of those
//! that come within [`TOLERANCE_DB`] of the best, the widest range is kept: few samples cannot tell them apart, and
//! they underestimate what clipping does to rare values. Quantization shifts the mean of the outputs; the shift seen in calibration is taken off the last bias
//! (empirical bias correction, Nagel et al., "Data-Free Quantization", 2019, section 4.2), where that helps the
//! held-out samples. The final ranges and shifts come from all samples.

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

/// The observers tried when none is asked for, wide ranges first.
const CANDIDATES: [Observer; 3] = [Observer::MinMax, Observer::Percentile(99.999), Observer::Mse];
/// Differences of SQNR that held-out samples cannot tell from chance.
const TOLERANCE_DB: f64 = 1.0;
/// One batch of this many is held out.
const HELD_OUT: usize = 4;
/// Samples at most on which quantized candidates are run.
const JUDGED: usize = 512;
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
    let seen = clock.step("calibrate", samples.len(), |advance| {
        observe(graph, samples, request, advance).map_err(|source| Error::run(file, source))
    })?;
    let quantize = |statistics: &BTreeMap<String, Statistics>, config: &Config| {
        quantize::quantize(graph, statistics, config)
            .map_err(|source| Error::Quantize { file: file.to_owned(), source: Box::new(source) })
    };
    let trial = Trial::new(graph, samples, request, file)?;
    let mut config = request.config.clone();
    let mut notes = Vec::new();
    if config.observer.is_none() {
        if trial.samples.len() < HELD_OUT * BATCH {
            notes.push(format!(
                "{} samples are too few to hold some out: ranges by {}",
                samples.len(),
                config.observer()
            ));
        } else {
            let judged = clock.step("choose ranges", CANDIDATES.len() * trial.samples.len(), |advance| {
                CANDIDATES
                    .iter()
                    .map(|&observer| {
                        let config = Config { observer: Some(observer), ..config.clone() };
                        let judged = trial.run(&quantize(&seen.fitted, &config)?, advance)?;
                        Ok((observer, judged.best()))
                    })
                    .collect::<Result<Vec<_>, Error>>()
            })?;
            let highest = judged.iter().map(|&(_, db)| db).fold(f64::NEG_INFINITY, f64::max);
            let best = judged.iter().copied().find(|&(_, db)| db >= highest - TOLERANCE_DB).unwrap_or(judged[0]);
            let others = judged.iter().filter(|other| other.0 != best.0);
            let others: Vec<String> = others.map(|(observer, db)| format!("{observer} {db:.1} dB")).collect();
            notes.push(format!(
                "ranges by {}: {:.1} dB on held-out calibration samples ({})",
                best.0,
                best.1,
                others.join(", ")
            ));
            config.observer = Some(best.0);
        }
    }
    let (mut outcome, judged) = clock.step("quantize", trial.samples.len(), |advance| {
        let outcome = quantize(&seen.all, &config)?;
        let judged = trial.run(&outcome, advance)?;
        Ok::<_, Error>((outcome, judged))
    })?;
    for (output, shift) in judged.outputs.iter().filter(|output| output.helps()).map(|output| (output, output.shift()))
    {
        if let Some(bias) = outcome.layers.get_mut(&output.node).and_then(|layer| layer.bias.as_mut()) {
            bias.add(&shift);
            notes.push(format!("node `{}`: its bias takes up the mean error of the outputs", output.node));
        }
    }
    outcome.notes.extend(notes);
    outcome.metadata.insert("equant.calibration_samples".into(), samples.len().to_string());
    Ok(Calibrated { outcome, statistics: seen.all })
}

/// Statistics of the samples that are not held out, and of all.
struct Seen {
    fitted: BTreeMap<String, Statistics>,
    all: BTreeMap<String, Statistics>,
}

/// Whether the batch is one that judges.
fn is_held_out(batch: &Batch) -> bool {
    batch.first / BATCH % HELD_OUT == HELD_OUT - 1
}

fn observe(graph: &Graph, samples: &Samples, request: &Request, advance: &dyn Fn(usize)) -> Result<Seen, exec::Error> {
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
        (batch.count, is_held_out(batch), statistics)
    };
    let start = [(); 2].map(|()| vec![Statistics::default(); names.len()]);
    let [mut fitted, held_out] =
        exec::fold(&*runner, samples, request.threads, summarize, start, |mut parts, (count, held_out, part)| {
            parts[usize::from(held_out)].iter_mut().zip(&part).for_each(|(total, part)| total.merge(part));
            advance(count);
            parts
        })?;
    let all = fitted.clone().into_iter().zip(&held_out).map(|(mut all, part)| {
        all.merge(part);
        all
    });
    let all = names.iter().cloned().zip(all).collect();
    Ok(Seen { fitted: names.into_iter().zip(fitted.drain(..)).collect(), all })
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
        let samples = samples.first(JUDGED.min(KEPT_ELEMENTS / elements.max(1)).max(HELD_OUT * BATCH));
        let runner = exec::runner(graph, &output_names(graph), request.backend).map_err(run_error)?;
        let keep = |mut kept: Vec<_>, values| {
            kept.push(values);
            kept
        };
        let float = exec::fold(&*runner, &samples, request.threads, |_, values| values, Vec::new(), keep);
        Ok(Self { graph, samples, request, file, float: float.map_err(run_error)? })
    }

    fn run(&self, outcome: &Outcome, advance: &dyn Fn(usize)) -> Result<Judged, Error> {
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
                part.add(r, v, batch.count, is_held_out(batch));
            }
            (batch.count, parts)
        };
        let add = |mut totals: Vec<OutputError>, (count, part): (usize, Vec<OutputError>)| {
            totals.iter_mut().zip(&part).for_each(|(total, part)| total.merge(part));
            advance(count);
            totals
        };
        let outputs = exec::fold(&*simulation, &self.samples, self.request.threads, compare, start, add);
        Ok(Judged { outputs: outputs.map_err(run_error)? })
    }
}

/// The errors of all outputs of a candidate.
struct Judged {
    outputs: Vec<OutputError>,
}

impl Judged {
    /// SQNR in dB over all outputs on the held-out samples, with the corrections that help.
    fn best(&self) -> f64 {
        let signal: f64 = self.outputs.iter().map(|output| output.held_out.signal).sum();
        let noise: f64 =
            self.outputs.iter().map(|o| o.held_out.noise(o.helps().then(|| o.fitted.shift()).as_deref())).sum();
        Sqnr::of(signal, noise).decibels()
    }
}

/// Differences between the float and the quantized output, per channel of the bias that could take up their mean.
#[derive(Debug, Clone)]
struct OutputError {
    /// The node that makes the output, if it has a quantized bias.
    node: String,
    /// Whether channels are the innermost axis, and not followed by spatial axes.
    innermost: bool,
    fitted: Differences,
    held_out: Differences,
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
            fitted: Differences::new(channels),
            held_out: Differences::new(channels),
        }
    }

    fn add(&mut self, reference: &[f32], values: &[f32], samples: usize, held_out: bool) {
        let part = if held_out { &mut self.held_out } else { &mut self.fitted };
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
        self.fitted.merge(&other.fitted);
        self.held_out.merge(&other.held_out);
    }

    /// Whether the held-out samples gain when the shift of the others is taken off.
    fn helps(&self) -> bool {
        let shift = self.fitted.shift();
        !self.node.is_empty()
            && self.held_out.count > 0.0
            && self.held_out.noise(Some(&shift)) < self.held_out.noise(None)
    }

    /// The shift over all samples.
    fn shift(&self) -> Vec<f64> {
        let mut all = self.fitted.clone();
        all.merge(&self.held_out);
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
        error.add(&[1.0, 2.0, 3.0, 4.0], &[0.5, 2.0, 2.5, 4.0], 2, false);
        error.add(&[5.0, 6.0], &[4.5, 6.0], 1, true);
        assert!(error.helps());
        assert_eq!(error.shift(), [0.5, 0.0]);
        assert_eq!(error.held_out.noise(None), 0.25);
        assert_eq!(error.held_out.noise(Some(&error.fitted.shift())), 0.0);
    }

    #[test]
    fn a_shift_that_the_held_out_samples_do_not_share_is_left() {
        let mut error = error();
        error.add(&[1.0, 2.0], &[0.0, 2.0], 1, false);
        error.add(&[5.0, 6.0], &[6.0, 6.0], 1, true);
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
