//! Judging a quantized model by its outputs on calibration samples.
//!
//! Quantization shifts the mean of the outputs; the shift seen in calibration can be taken off the last bias (empirical
//! bias correction, Nagel et al., "Data-Free Quantization", 2019, section 4.2). Whether that helps is judged by cross
//! validation: the samples are split in two by batches, and each half is corrected by the shift of the other.

use super::{Error, Request, output_names, prepared, quantized_runner};
use crate::data::{Batch, Samples};
use crate::exec::{self, BATCH};
use crate::graph::Graph;
use crate::graph::shape::infer_partial;
use crate::metrics::Sqnr;
use crate::qdq;
use crate::quantize::Outcome;

/// Samples at most on which quantized models are judged.
const JUDGED: usize = 256;
/// Samples at least, if there are as many.
const LEAST: usize = 4 * BATCH;
/// Elements of float outputs at most that are kept to compare with.
const KEPT_ELEMENTS: usize = 1 << 24;

/// Runs quantized candidates and compares them with the float model.
pub(super) struct Trial<'a> {
    graph: &'a Graph,
    samples: Samples,
    /// Batches at the beginning that are left out.
    seen: usize,
    request: &'a Request,
    file: &'a str,
    /// The float model's outputs, for each batch.
    float: Vec<Vec<Vec<f32>>>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(graph: &'a Graph, samples: &Samples, request: &'a Request, file: &'a str) -> Result<Self, Error> {
        let types = infer_partial(graph, 1).types;
        let elements: usize =
            graph.outputs.iter().filter_map(|o| types.get(&o.name)).map(|t| t.shape.iter().product::<usize>()).sum();
        let samples = samples.head(JUDGED.min(KEPT_ELEMENTS / elements.max(1)).max(LEAST));
        let run_error = |source| Error::run(file, source);
        let runner = exec::runner(graph, &output_names(graph), request.backend).map_err(run_error)?;
        let keep = |mut kept: Vec<_>, values| {
            kept.push(values);
            kept
        };
        let float = exec::fold(&*runner, &samples, request.threads, |_, values| values, Vec::new(), keep);
        Ok(Self { graph, samples, seen: 0, request, file, float: float.map_err(run_error)? })
    }

    /// The samples it judges on.
    pub(super) fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Judges on the samples after the first `seen` batches.
    pub(super) fn after(&self, seen: usize) -> Self {
        let seen = self.seen + seen;
        Self {
            samples: self.samples.clone(),
            seen,
            float: self.float.get(seen..).unwrap_or_default().to_vec(),
            ..*self
        }
    }

    /// Number of samples.
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// Judges `outcome` of `graph`, which computes what the graph of this trial does.
    pub(super) fn judge(&self, graph: &Graph, outcome: Outcome, advance: &dyn Fn(usize)) -> Result<Judged, Error> {
        let errors = self.run(graph, &outcome, advance)?;
        Ok(Judged { sqnr_db: sqnr(&errors), outcome, errors })
    }

    /// Judges `outcome` by what it makes of each batch of the trial: its outputs, in place of the batch's inputs.
    pub(super) fn judge_outputs(&self, graph: &Graph, outcome: Outcome, batches: &[Batch]) -> Judged {
        let start = self.nothing(graph, &outcome);
        let parts = batches.iter().map(|batch| self.compare(&start, batch, &batch.inputs));
        let errors = parts.fold(start.clone(), |totals, part| merged(totals, &part));
        Judged { sqnr_db: sqnr(&errors), outcome, errors }
    }

    /// Whether the batches of the first `samples` samples begin with those of this trial.
    pub(super) fn begins(&self, samples: usize) -> bool {
        self.seen == 0 && (samples == self.len() || samples > self.len() && self.len().is_multiple_of(BATCH))
    }

    /// Errors of the outputs over no samples.
    fn nothing(&self, graph: &Graph, outcome: &Outcome) -> Vec<OutputError> {
        output_names(self.graph).iter().map(|name| OutputError::new(graph, outcome, name)).collect()
    }

    /// Errors of the outputs `values` of a batch.
    fn compare(&self, nothing: &[OutputError], batch: &Batch, values: &[Vec<f32>]) -> Vec<OutputError> {
        let mut errors = nothing.to_vec();
        let reference = self.float.get(batch.first / BATCH - self.seen).map(Vec::as_slice).unwrap_or_default();
        for ((error, r), v) in errors.iter_mut().zip(reference).zip(values) {
            error.add(r, v, batch.count, batch.first / BATCH % 2);
        }
        errors
    }

    fn run(&self, graph: &Graph, outcome: &Outcome, advance: &dyn Fn(usize)) -> Result<Vec<OutputError>, Error> {
        let quantized = prepared(qdq::export(graph, outcome), self.file)?;
        let names = output_names(self.graph);
        let run_error = |source| Error::run(self.file, source);
        let simulation = quantized_runner(&quantized, &names, self.request.backend).map_err(run_error)?;
        let start = self.nothing(graph, outcome);
        let compare = |batch: &Batch, values: Vec<Vec<f32>>| (batch.count, self.compare(&start, batch, &values));
        let add = |totals: Vec<OutputError>, (count, part): (usize, Vec<OutputError>)| {
            advance(count);
            merged(totals, &part)
        };
        let batches = self.samples.batches(BATCH).map_err(|source| run_error(source.into()))?.skip(self.seen);
        exec::fold_batches(&*simulation, batches, self.request.threads, compare, start.clone(), add).map_err(run_error)
    }
}

/// A quantized model and how its outputs compare.
pub(super) struct Judged {
    pub(super) outcome: Outcome,
    /// Cross-validated, with the corrections that help.
    pub(super) sqnr_db: f64,
    errors: Vec<OutputError>,
}

impl Judged {
    /// The outcome with the means of its outputs restored where that helps; notes say where.
    pub(super) fn corrected(self, notes: &mut Vec<String>) -> Outcome {
        let mut outcome = self.outcome;
        for error in self.errors.iter().filter(|error| error.helps()) {
            if let Some(bias) = outcome.layers.get_mut(&error.node).and_then(|layer| layer.bias.as_mut()) {
                bias.add(&error.shift());
                notes.push(format!("node `{}`: its bias takes up the mean error of the outputs", error.node));
            }
        }
        outcome
    }
}

fn merged(mut totals: Vec<OutputError>, part: &[OutputError]) -> Vec<OutputError> {
    totals.iter_mut().zip(part).for_each(|(total, part)| total.merge(part));
    totals
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::graph::Node;
    use crate::quantize;

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
            block: None,
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
