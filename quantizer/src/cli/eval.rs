//! `equant eval`.

use super::args::EvalArgs;
use super::error::Failure;
use super::model::{Kind, Model};
use super::output::{Output, most};
use super::quantize::scores;
use crate::exec::Runner;
use crate::graph::state;
use crate::metrics::Evaluation;
use crate::pipeline::{self, Comparison, Progress as _, Run, evaluate};

pub(super) fn run(args: EvalArgs, output: &Output) -> Result<(), Failure> {
    let is_plan = args.model.extension().is_some_and(|extension| extension == "plan");
    let dims = args.exec.dims();
    // With a reference, sizes of dimensions are about the float model.
    let no_dims = crate::passes::Dims::new();
    let own_dims = if args.reference.is_some() && is_plan { &no_dims } else { &dims };
    let model = Model::streaming(&args.model, own_dims, &args.streaming.state)?;
    // A QDQ file tells the states of the float model that it was made from.
    let told = model.states()?;
    let states = if told.is_empty() { &args.streaming.state } else { &told };
    let reference = args.reference.as_deref().map(|path| Model::streaming(path, &dims, states)).transpose()?;
    if let Some(reference) = &reference {
        compatible(&model, reference)?;
    }
    // The float model knows the names of the inputs; a plan does not.
    let graph = &reference.as_ref().unwrap_or(&model).graph;
    let preprocess = args.reading.preprocess.as_deref();
    let samples = pipeline::open_samples(&args.test, graph, preprocess)?.head(most(args.limit));
    let metric = metric(&args, reference.as_ref().unwrap_or(&model), &samples)?;

    let backend = args.exec.backend.backend();
    let mut subjects: Vec<(&str, &Model)> = Vec::new();
    if let Some(reference) = &reference {
        subjects.push(("fp32", reference));
    }
    let name = match model.kind {
        Kind::Float => "fp32",
        Kind::Quantized => "simulation",
        Kind::Plan(_) => "plan",
    };
    subjects.push((if reference.is_some() && name == "fp32" { "model" } else { name }, &model));
    let runners: Vec<Box<dyn Runner>> =
        subjects.iter().map(|(_, model)| model.runner(backend)).collect::<Result<_, _>>()?;
    let runners: Vec<Box<dyn Runner + '_>> =
        runners.iter().map(|runner| pipeline::judged(&**runner, graph, metric)).collect();
    let runners: Vec<&dyn Runner> = runners.iter().map(|runner| &**runner).collect();
    let comparisons: Vec<Comparison> =
        (0..subjects.len()).map(|subject| Comparison { subject, reference: (subject > 0).then_some(0) }).collect();
    let progress = output.progress();
    progress.begin("evaluate", samples.len());
    let start = std::time::Instant::now();
    let run = Run { metric, threads: args.exec.threads() };
    let tallies = evaluate(&runners, &comparisons, &samples, run, &|done| progress.advance(done))
        .map_err(|source| pipeline::Error::run(&model.file, source))?;
    progress.end("evaluate", start.elapsed().as_secs_f64());
    let evaluation = Evaluation {
        file: args.test.display().to_string(),
        samples: tallies.first().map_or(0, |tally| tally.samples()),
        metric,
        scores: tallies.iter().zip(&subjects).map(|(tally, (name, _))| tally.scores(name)).collect(),
    };
    output.result(&evaluation, || {
        format!("{}on {} samples of {}\n", scores(&evaluation), evaluation.samples, evaluation.file)
    })
}

fn metric(args: &EvalArgs, model: &Model, samples: &crate::data::Samples) -> Result<crate::metrics::Metric, Failure> {
    let (inputs, outputs) = model.shapes();
    let first = |shapes: Vec<Vec<usize>>| shapes.into_iter().next().unwrap_or_default();
    let asked = pipeline::asked_metric(args.judge.metric.metric(), &model.graph, samples);
    let metric = pipeline::choose_metric(asked, &first(inputs), &first(outputs), samples)?;
    if samples.labels().is_none() && args.reference.is_none() {
        return Err(Failure::Usage(format!(
            "{}: has no labels (array `y`, or `labels.csv` in a folder), and there is no model to compare with: add \
             `--reference FP32.onnx`",
            args.test.display()
        )));
    }
    Ok(metric)
}

/// Both models must take and give the same shapes.
fn compatible(model: &Model, reference: &Model) -> Result<(), Failure> {
    let (a, b) = (model.shapes(), reference.shapes());
    if a == b {
        return Ok(());
    }
    let hint = match state::is_streaming(&model.graph) && !state::is_streaming(&reference.graph) {
        true => ", and say what is its state with --state OUTPUT=INPUT",
        false => "",
    };
    Err(Failure::Input(format!(
        "{}: inputs {:?} and outputs {:?} differ from those of the reference {}: inputs {:?} and outputs {:?}; give \
         the float model this one was made from{hint}",
        model.file, a.0, a.1, reference.file, b.0, b.1
    )))
}
