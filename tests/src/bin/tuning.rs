//! Tunes models and prints how near they come to the float model:
//! `cargo run --release -p equant-tests --bin tuning [MODEL...] [--bits W4A4] [--NAME VALUE...]`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use equant::data::{Batch, Samples};
use equant::exec::{self, Backend};
use equant::graph::Graph;
use equant::metrics::{Metric, Observation, Scores, Tally};
use equant::observe::Statistics;
use equant::quantize::{self, Config, Outcome};
use equant::{pipeline, qdq, tune};
use equant_tests::models::{model_path, samples_path};

const MODELS: [&str; 6] = ["resnet8", "dscnn", "dscnn_imb", "mbv1", "ae", "vit"];

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tuning: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: impl Iterator<Item = String>) -> Result<(), Failure> {
    let mut options = tune::Options::default();
    let mut config = Config { bits: "W4A4".parse()?, ..Config::default() };
    let mut models = Vec::new();
    let mut test = 0;
    let mut verbose = false;
    while let Some(arg) = args.next() {
        if MODELS.contains(&arg.as_str()) {
            models.push(arg);
            continue;
        }
        let value = args.next().unwrap_or_default();
        let number = || value.parse::<f64>().map_err(|_| format!("{arg} {value}: not a number"));
        match arg.as_str() {
            "--bits" => config.bits = value.parse()?,
            "--test" => test = number()? as usize,
            "--verbose" => verbose = number()? != 0.0,
            "--steps" => options.steps = number()? as usize,
            "--batch" => options.batch = number()? as usize,
            "--seed" => options.seed = number()? as u64,
            "--threads" => options.threads = number()? as usize,
            "--seconds" => options.time_budget = Some(Duration::from_secs_f64(number()?)),
            "--held-out" => options.held_out = number()?,
            "--lr-weights" => options.rates.weights = number()? as f32,
            "--lr-scales" => options.rates.scales = number()? as f32,
            "--lr-biases" => options.rates.biases = number()? as f32,
            "--lr-ranges" => options.rates.ranges = number()? as f32,
            "--shift" => options.augment.shift = number()? as usize,
            "--flip" => options.augment.flip = number()? != 0.0,
            "--mix" => options.augment.mix = number()? as f32,
            "--kl" => options.loss.divergence = number()?,
            "--logits" => options.loss.outputs = number()?,
            "--features" => options.loss.features = number()?,
            "--exponent" => options.loss.exponent = number()?,
            "--weighted" => options.loss.weighted = number()? != 0.0,
            "--drop" => options.drop = number()?,
            "--kurtosis" => options.loss.kurtosis = number()?,
            "--shape" => options.loss.shape = number()?,
            "--anchor" => options.loss.anchor = number()?,
            "--soft" => options.rounding = tune::Rounding::Soft(number()?),
            "--block-steps" => options.block_steps = number()? as usize,
            "--wide-steps" => options.wide_steps = number()? as usize,
            "--every" => options.every = number()? as usize,
            other => return Err(format!("`{other}` is no model or option").into()),
        }
    }
    if models.is_empty() {
        models = MODELS.map(str::to_owned).to_vec();
    }
    for model in &models {
        one(model, &config, &options, test, verbose)?;
    }
    Ok(())
}

fn one(model: &str, config: &Config, options: &tune::Options, test: usize, verbose: bool) -> Result<(), Failure> {
    let prepared = pipeline::read_float(&model_path(model), &Default::default())?;
    let graph = &prepared.graph;
    let samples = Samples::open(&samples_path(model, "calib512"), graph)?;
    let start = quantized(graph, &samples, config)?;
    let tuned = tune::tune(graph, &start, &samples, options, &|_| ())?;
    let report = &tuned.report;
    if verbose {
        for tune::Look { step, distance: d } in &report.history {
            println!("  {step:5} KL {:.4} agreement {:.3} SQNR {:.2}", d.divergence, d.agreement, d.sqnr_db);
        }
        println!("  {:?} {:?}", report.exported, report.notes);
    }
    print!(
        "{model} {}: {} steps, {:.1} s, held out KL {:.4} -> {:.4}, agreement {:.3} -> {:.3}, SQNR {:.2} -> {:.2}",
        config.bits,
        report.steps,
        report.seconds,
        report.before.divergence,
        report.after.divergence,
        report.before.agreement,
        report.after.agreement,
        report.before.sqnr_db,
        report.after.sqnr_db,
    );
    if test > 0 {
        let samples = Samples::open(&samples_path(model, "test10k"), graph)?.head(test);
        let time = Instant::now();
        let score = scores(graph, &tuned.outcome, &samples)?;
        print!(
            " | test {:.2} %, agreement {:.2} %, {:.2} dB ({:.0} s)",
            100.0 * score.metric.unwrap_or(f64::NAN),
            100.0 * score.agreement.unwrap_or(f64::NAN),
            score.sqnr_db.unwrap_or(f64::NAN),
            time.elapsed().as_secs_f64()
        );
    }
    println!();
    Ok(())
}

fn quantized(graph: &Graph, samples: &Samples, config: &Config) -> Result<Outcome, Failure> {
    let names = quantize::values_to_observe(graph);
    let runner = exec::runner(graph, &names, Backend::Tract)?;
    let summarize = |_: &Batch, values: Vec<Vec<f32>>| {
        let statistics = values.iter().map(|values| {
            let mut statistics = Statistics::default();
            statistics.observe(values);
            statistics
        });
        statistics.collect::<Vec<_>>()
    };
    let start = vec![Statistics::default(); names.len()];
    let all = exec::fold(&*runner, samples, 2, summarize, start, |mut all, part| {
        all.iter_mut().zip(&part).for_each(|(total, part)| total.merge(part));
        all
    })?;
    let statistics: BTreeMap<String, Statistics> = names.into_iter().zip(all).collect();
    Ok(quantize::quantize(graph, &statistics, config)?)
}

fn scores(graph: &Graph, outcome: &Outcome, samples: &Samples) -> Result<Scores, Failure> {
    let metric = pipeline::metric(None, graph, samples)?;
    let names = pipeline::output_names(graph);
    let float = exec::runner(graph, &names, Backend::Tract)?;
    let simulation = exec::runner(&qdq::simulate(&qdq::export(graph, outcome)), &names, Backend::Tract)?;
    let labels = samples.labels().map(<[i64]>::to_vec);
    let add = |batch: &Batch, values: Vec<Vec<f32>>| -> Result<Tally, exec::Error> {
        let reference = float.run(batch)?;
        let mut tally = Tally::new(metric);
        for i in 0..batch.count {
            let of = |all: &'_ [f32]| -> std::ops::Range<usize> {
                let size = all.len() / batch.count;
                i * size..(i + 1) * size
            };
            let outputs: Vec<&[f32]> = values.iter().map(|v| &v[of(v)]).collect();
            let reference: Vec<&[f32]> = reference.iter().map(|v| &v[of(v)]).collect();
            tally.add(&Observation {
                input: &batch.inputs[0][of(&batch.inputs[0])],
                outputs: &outputs,
                reference: Some(&reference),
                label: labels.as_ref().map(|labels| labels[batch.first + i]),
            });
        }
        Ok(tally)
    };
    let start = Ok(Tally::new(if matches!(metric, Metric::Auc) { Metric::Auc } else { metric }));
    let total = exec::fold(&*simulation, samples, 2, add, start, |total: Result<Tally, exec::Error>, part| {
        let mut total = total?;
        total.merge(&part?);
        Ok(total)
    })??;
    Ok(total.scores("tuned"))
}
