//! Tuning: a quantized model is distilled to the float model's outputs, without labels.
//!
//! From an [`Outcome`] on, weights, weight scales, biases and activation ranges move down the gradient of the distance
//! to the float model (quantization-aware distillation with learned step sizes: LSQ, Esser et al. 2020; LSQ+, Bhalgat
//! et al. 2020), on varied calibration samples, for which the float model says what the outputs should be. A part of the
//! samples is held out: it decides which step is kept, and the outcome given is kept when no step is better.
//!
//! What is minimized and how is chosen by [`Options`]: block by block first (BRECQ, Li et al. 2021) or all at once, with
//! activations left in float at random (QDrop, Wei et al. 2022), weights straight through or softly rounded (AdaRound,
//! Nagel et al. 2020), 8 bits before 4 (after EQ-Net, Xu et al. 2023).

mod adam;
mod augment;
mod distribution;
mod loss;
mod objective;
mod options;
mod parameters;
mod report;
mod samples;
mod schedule;
mod shards;
mod soft;

#[cfg(test)]
mod tests;

use std::time::Instant;

pub use adam::Rates;
pub use augment::Augment;
pub use options::{LEAST_SAMPLES, Loss, MOST_SAMPLES, Options, Rounding};
pub use report::{Distance, Look, Report, Tuned};

use crate::data::Samples;
use crate::diff::Program;
use crate::exec;
use crate::graph::Graph;
use crate::metrics::Metric;
use crate::qdq;
use crate::quantize::Outcome;
use objective::Objective;
use parameters::Space;
use samples::Memory;
use schedule::Run;

/// Why an outcome was not tuned. The outcome itself is as good as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The graph holds an operator without a gradient, or does not fit the outcome.
    #[error("{0}; the model cannot be tuned, quantize it without tuning")]
    Diff(#[from] crate::diff::Error),
    /// The samples cannot be read.
    #[error(transparent)]
    Samples(#[from] crate::data::Error),
    /// There are too few samples to train on some and hold out others.
    #[error("{0} samples are too few to tune by: use at least {LEAST_SAMPLES}")]
    TooFew(usize),
    /// The exported model cannot be run.
    #[error("the tuned model cannot be run: {0}")]
    Run(#[from] exec::Error),
}

/// Relative difference between the divergence or noise that tuning computed and that of the exported model, up to which
/// they count as equal: sums in another order move values across the borders between two integers.
const TOLERANCE: f64 = 0.25;

/// Tunes an outcome of [`crate::quantize::quantize`] for a prepared graph.
///
/// The outcome returned quantizes the same values and layers with the same element types; scales, zero points, integers,
/// biases and float constants that are added after layers differ. Its held-out distance is at most that of `outcome`.
/// `progress` is called with the number of steps done since the last call, [`steps`] in all.
///
/// # Errors
///
/// See [`Error`].
pub fn tune(
    graph: &Graph,
    outcome: &Outcome,
    samples: &Samples,
    options: &Options,
    progress: &dyn Fn(usize),
) -> Result<Tuned, Error> {
    let start = Instant::now();
    let program = Program::new(graph, outcome)?;
    let memory = Memory::read(samples, options.held_out, options.seed)?;
    let (objective, units) = Objective::new(&program, options, &memory, classes(&program))?;
    let soft = matches!(options.rounding, Rounding::Soft(_));
    let space = Space::new(&program, outcome, &units, soft)?;
    let mut run = Run::new(&objective, &space, options, &memory, start)?;
    run.all(&program, progress)?;
    let (best_step, after, parameters) = run.best();
    let mut tuned = match best_step {
        0 => outcome.clone(),
        _ => space.outcome(parameters, outcome),
    };
    let mut report = Report {
        steps: run.steps,
        seconds: 0.0,
        samples: (memory.train.len(), memory.held.len()),
        before: run.history[0].distance,
        after,
        exported: after,
        best_step,
        history: run.history,
        notes: run.notes,
    };
    if best_step > 0 {
        let exported = exported(graph, &tuned, &objective, &memory, options)?;
        let (badness, expected) = (objective.badness(&exported), objective.badness(&after));
        report.exported = exported;
        if badness > expected * (1.0 + TOLERANCE) && badness >= objective.badness(&report.before) {
            report.notes.push(format!(
                "tuning was undone: the exported model is at {:.1} dB, and not at {:.1} dB as computed",
                exported.sqnr_db, after.sqnr_db
            ));
            (report.after, report.exported, report.best_step) = (report.before, report.before, 0);
            tuned = outcome.clone();
        }
    } else {
        report.notes.push("no step was better than the start on held-out samples".to_owned());
    }
    report.seconds = start.elapsed().as_secs_f64();
    let done = report.best_step > 0;
    if done {
        tuned.metadata.insert("equant.tuning".into(), format!("{} steps, seed {}", report.steps, options.seed));
    }
    Ok(Tuned { outcome: tuned, report })
}

/// The number of steps that [`tune`] makes without a time budget.
///
/// # Errors
///
/// The graph has no gradient.
pub fn steps(graph: &Graph, outcome: &Outcome, options: &Options) -> Result<usize, Error> {
    let spans = if options.block_steps > 0 { Program::new(graph, outcome)?.spans().len() } else { 0 };
    Ok(options.wide_steps + options.block_steps * spans + options.steps)
}

/// The number of classes that the first output tells apart.
fn classes(program: &Program) -> Option<usize> {
    let sample = |shape: Option<&[usize]>| shape.and_then(|shape| shape.get(1..)).unwrap_or_default().to_vec();
    let input = sample(program.input_shapes().next());
    let output = sample(program.outputs.first().map(|&output| program.shape(output)));
    match (Metric::choose(&input, &output, None), output.as_slice()) {
        (Metric::Agreement, [classes]) => Some(*classes),
        _ => None,
    }
}

/// The distance of the exported model.
fn exported(
    graph: &Graph,
    outcome: &Outcome,
    objective: &Objective<'_>,
    memory: &Memory,
    options: &Options,
) -> Result<Distance, exec::Error> {
    let names: Vec<String> = graph.outputs.iter().map(|output| output.name.clone()).collect();
    let file = qdq::export(graph, outcome);
    let quantized = match options.backend {
        exec::Backend::Ort => exec::runner(&file, &names, options.backend)?,
        _ => exec::runner(&qdq::simulate(&file), &names, options.backend)?,
    };
    let float = exec::runner(graph, &names, options.backend)?;
    let shards: Vec<&[usize]> = memory.held.chunks(exec::BATCH).collect();
    objective.distance(shards::in_parallel(shards.len(), options.threads, |i| {
        let batch = memory.batch(shards[i]);
        Ok::<_, exec::Error>(objective.compare(batch.count, &float.run(&batch)?, &quantized.run(&batch)?))
    }))
}
