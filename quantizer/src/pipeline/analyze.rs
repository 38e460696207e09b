//! An analysis from which any format is exported ([`crate::elastic`]), and the export.

use std::collections::BTreeMap;
use std::path::Path;

use super::allocate::{Budget, Search};
use super::equalized;
use super::make::Maker;
use super::progress::Clock;
use super::ranges::Observed;
use super::reconstruct::{add_of_bias, reconstruct};
use super::trial::Trial;
use super::{Error, Progress, Request, compile_graph, open_samples, read_float};
use crate::compile::Compiled;
use crate::data::Batch;
use crate::elastic::{Analysis, Format, Variant};
use crate::exec;
use crate::graph::Graph;
use crate::graph::shape::infer_partial;
use crate::metrics::Sqnr;
use crate::observe::Statistics;
use crate::quantize::{self, Bits, Config, Rounding, Width};
use crate::{elastic, onnx, qdq};

/// Pseudo-random samples on which an export is run before it is reported.
const TRIED: usize = 4;
/// The least SQNR in dB between plan and simulation of an export on these samples.
const LEAST_DB: f64 = 25.0;

/// Analyzes a model: calibrates for every format at once. Of `request.config` nothing but the method of rounding counts.
///
/// # Errors
///
/// See [`Error`].
pub fn analyze(request: &Request, progress: &dyn Progress) -> Result<Analysis, Error> {
    let mut clock = Clock::new(progress);
    let file = request.model.display().to_string();
    let prepared = clock.step("read and prepare", 0, |_| read_float(&request.model, &request.dims))?;
    let original = prepared.graph;
    let samples = open_samples(&request.calibration, &original, request.preprocess.as_deref())?;
    let trial = Trial::new(&original, &samples, request, &file)?;
    // One scaling serves all formats: it is judged at 8 bits.
    let eight = Request { config: Config::default(), ..request.clone() };
    let mut notes = Vec::new();
    let graph = clock.step("equalize", 0, |_| equalized::choose(&original, &trial, &eight, &file, &mut notes))?;
    let observed = clock.step("calibrate", samples.len(), |advance| {
        Observed::of(&graph, &samples, request, true, advance).map_err(|source| Error::run(&file, source))
    })?;
    let rounding = Rounding { sequential: false, ..request.config.rounding };
    let config = |width: Width, per_channel: bool| Config {
        bits: Bits { weights: width, activations: width },
        per_channel,
        rounding,
        ..Config::default()
    };
    let widths = [Width::Eight, Width::Four];
    let mut chosen = BTreeMap::new();
    for width in widths {
        let ranges = clock.step("choose ranges", 0, |_| {
            observed
                .ranges(&graph, &config(width, true), request.threads)
                .map_err(|source| Error::Quantize { file: file.clone(), source: Box::new(source) })
        })?;
        chosen.insert(width, ranges);
    }
    let mut layers: BTreeMap<String, Vec<Variant>> = BTreeMap::new();
    let mut base = None;
    for width in widths {
        for per_channel in [true, false] {
            let config = config(width, per_channel);
            let outcome = quantize::quantize_with(&graph, &observed.statistics, &config, &chosen[&width])
                .map_err(|source| Error::Quantize { file: file.clone(), source: Box::new(source) })?;
            let outcome = clock.step("round", outcome.layers.len(), |advance| {
                reconstruct(&graph, &outcome, &config, &samples, request, &file, advance).map(|rounded| rounded.outcome)
            })?;
            for (name, layer) in &outcome.layers {
                let channels = layer.weights.shape.get(layer.axis).copied().unwrap_or(1);
                let node = graph.nodes.iter().find(|node| node.name == *name);
                let add = node.and_then(|node| Some(&add_of_bias(&graph, node, channels)?.0.name));
                let constant = add.and_then(|add| Some((add.clone(), outcome.constants.get(add)?.to_f32())));
                layers.entry(name.clone()).or_default().push(Variant {
                    width,
                    per_channel,
                    integers: layer.weights.to_i64().into_iter().map(|q| q as i32).collect(),
                    scales: layer.scales.clone(),
                    bias: layer.bias.as_ref().map(quantize::Bias::real),
                    constant,
                });
            }
            base.get_or_insert(outcome);
        }
    }
    let base = base.ok_or_else(|| Error::Internal("nothing was rounded".into()))?;
    let base = trial.judge(&graph, base, &|_| ())?;
    // Every option counts; the limit itself is of no account.
    let request = Request { config: config(Width::Eight, true), ..request.clone() };
    let make =
        Maker { graph: &graph, observed: &observed, samples: &samples, trial: &trial, request: &request, file: &file };
    let search = Search { make, budget: Budget::BitOps(f64::MAX) };
    let mut damage = clock.step("measure layers", layers.len(), |advance| search.measure(&base, advance))?;
    for layer in &mut damage.layers {
        let weights = layers.get(&layer.name).and_then(|variants| Some(variants.first()?.integers.len())).unwrap_or(0);
        for row in &mut layer.options {
            let bits: Bits = row.label.parse().unwrap_or_default();
            row.cost = (weights as f64 * f64::from(bits.weights.bits()) / 8.0).ceil();
        }
    }
    Ok(Analysis {
        samples: samples.len(),
        base_db: base.sqnr_db,
        graph,
        statistics: observed.statistics,
        ranges: chosen,
        layers,
        damage,
    })
}

/// Reads an analysis.
///
/// # Errors
///
/// The file cannot be read, or is none.
pub fn read_analysis(path: &Path) -> Result<Analysis, Error> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| Error::ReadFile { file: file.clone(), source })?;
    elastic::from_bytes(&bytes, &file).map_err(|source| Error::Elastic(Box::new(source)))
}

/// The QDQ file and the plan of one format. Both are run on pseudo-random samples and compared before they are returned.
///
/// # Errors
///
/// The export cannot be compiled or run, or file and plan differ.
pub fn export(analysis: &Analysis, format: &Format, name: &str, strip: bool) -> Result<(Vec<u8>, Compiled), Error> {
    let file = format!("{name}.onnx");
    let outcome =
        analysis.outcome(format).map_err(|source| Error::Quantize { file: file.clone(), source: Box::new(source) })?;
    let bytes = onnx::to_bytes(&qdq::export(&analysis.graph, &outcome));
    let options = crate::compile::Options { strip_names: strip, ..Default::default() };
    let (quantized, compiled) = compile_graph(onnx::from_bytes(&bytes, None, &file)?, &file, &options)?;
    let run_error = |source| Error::run(&file, source);
    let outputs = super::output_names(&quantized);
    let simulation = exec::runner(&qdq::simulate(&quantized), &outputs, Default::default()).map_err(run_error)?;
    let plan = exec::plan_runner(&compiled.image).map_err(run_error)?;
    let batch = random_batch(&analysis.graph, &analysis.statistics);
    let (simulated, planned) = (simulation.run(&batch).map_err(run_error)?, plan.run(&batch).map_err(run_error)?);
    let mut sqnr = Sqnr::default();
    simulated.iter().zip(&planned).for_each(|(a, b)| sqnr.add(a, b));
    if sqnr.decibels() < LEAST_DB {
        let reason = format!("plan and simulation differ: {:.1} dB", sqnr.decibels());
        return Err(Error::Verification { file, reason });
    }
    Ok((bytes, compiled))
}

/// Samples spread evenly over what calibration saw of each input.
fn random_batch(graph: &Graph, statistics: &BTreeMap<String, Statistics>) -> Batch {
    let types = infer_partial(graph, 1).types;
    let mut random = crate::random::Random::new(0);
    let inputs = graph.inputs.iter().map(|input| {
        let elements: usize = types.get(&input.name).map_or(1, |kind| kind.shape.iter().product());
        let range = statistics.get(&input.name).map(Statistics::range).unwrap_or_default();
        (0..TRIED * elements).map(|_| (range.low + (range.high - range.low) * random.uniform()) as f32).collect()
    });
    Batch { first: 0, count: TRIED, inputs: inputs.collect() }
}
