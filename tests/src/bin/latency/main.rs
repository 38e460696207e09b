//! Time of one inference on this CPU, one thread, batch 1, beside ONNX Runtime and tract:
//! `cargo run --release -p equant-tests --bin latency [MODEL...] [--bits W4A8] [--rounds N] [--layers]`.
//!
//! All contestants run the same sample in turn, once each round, so that what disturbs the machine meets all alike; the
//! figures are medians. ONNX Runtime runs the same quantized file and the float model, tract the float model.
//! `--layers` prints the time of each large layer instead, and its share of the peak of `vpmaddwd` on this core.

mod layers;

use std::process::ExitCode;

use equant::data::Samples;
use equant::exec::{self, Backend};
use equant::graph::Graph;
use equant::onnx;
use equant::passes;
use equant::pipeline::{self, Artifacts, Request};
use equant::quantize::Config;
use equant_runtime::plan::{AlignedBytes, Plan, arena_len};
use equant_server::bench::{Timing, interleave};
use equant_server::{Input, Options, Runtime, Session};
use equant_tests::models;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("latency: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut asked = Vec::new();
    let (mut config, mut rounds, mut layers) = (Config::default(), 2000, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} takes a value"));
        match arg.as_str() {
            "--bits" => config.bits = value()?.parse()?,
            "--rounds" => rounds = value()?.parse()?,
            "--layers" => layers = true,
            name if models::MODELS.contains(&name) => asked.push(arg),
            wrong => return Err(format!("`{wrong}` is no model; use {}", models::MODELS.join(", ")).into()),
        }
    }
    let chosen = models::MODELS.into_iter().filter(|m| asked.is_empty() || asked.iter().any(|a| a == m));
    if layers {
        println!("| model | layer | kind | MACs | µs | GMAC/s | share of peak |");
        println!("|---|---|---|--:|--:|--:|--:|");
        return chosen.into_iter().try_for_each(|model| {
            let (artifacts, _, samples) = quantized(model, &config)?;
            layers::rows(model, &artifacts.plan, &samples)
        });
    }
    // The other contestants are worth a table of their own.
    let runtime = Runtime::load(None).inspect_err(|error| eprintln!("latency: without ONNX Runtime: {error}")).ok();
    println!(
        "| model | Equant µs | ONNX Runtime, same file | float | tract, float | ratio to ONNX Runtime | of shortest rounds |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for model in chosen {
        row(model, &config, rounds, runtime.as_ref())?;
    }
    Ok(())
}

/// A quantized model, its float graph, and samples.
fn quantized(model: &str, config: &Config) -> Result<(Artifacts, Graph, Samples), Failure> {
    let calibration = models::samples_path(model, "calib512");
    let request = Request {
        config: config.clone(),
        threads: models::threads(),
        ..Request::new(models::model_path(model), &calibration)
    };
    let artifacts = pipeline::quantize(&request, &pipeline::Silent)?;
    let mut graph = onnx::read(&models::model_path(model))?;
    passes::prepare(&mut graph, &Default::default())?;
    let samples = Samples::open(&calibration, &graph)?;
    Ok((artifacts, graph, samples))
}

/// Times a quantized model and prints a row of the table.
fn row(model: &str, config: &Config, rounds: usize, runtime: Option<&Runtime>) -> Result<(), Failure> {
    let (artifacts, graph, samples) = quantized(model, config)?;
    let samples = samples.head(1);
    let batch = samples.batches(1)?.next().ok_or("no samples")??;
    let values = batch.inputs.first().ok_or("no inputs")?;

    let image = AlignedBytes::from(&artifacts.plan[..]);
    let mut arena = AlignedBytes::zeroed(arena_len(&image));
    let mut session: equant_runtime::Session<'_, '_> = equant_runtime::Session::new(Plan::parse(&image)?, &mut arena)?;
    session.quantize_input(0, values)?;
    let input = session.input_mut(0)?.to_vec();
    let mut ours = || -> Result<(), Failure> {
        session.input_mut(0)?.copy_from_slice(&input);
        Ok(session.run()?)
    };

    let names = graph.outputs.iter().map(|output| output.name.clone()).collect::<Vec<_>>();
    let tract = exec::runner(&graph, &names, Backend::Tract)?;
    let mut tract = || -> Result<(), Failure> { Ok(tract.run(&batch).map(drop)?) };
    let timings = match runtime {
        Some(runtime) => {
            let shape: Vec<usize> = std::iter::once(1).chain(samples_shape(&graph)).collect();
            let input = [Input { shape: &shape, values }];
            let options = Options::default();
            let mut int8 = Session::from_bytes(runtime, "quantized", &artifacts.onnx, &options)?;
            let mut float = Session::from_file(runtime, &models::model_path(model), &options)?;
            let mut int8 = || -> Result<(), Failure> { Ok(int8.run(&input).map(drop)?) };
            let mut float = || -> Result<(), Failure> { Ok(float.run(&input).map(drop)?) };
            interleave(&mut [&mut ours, &mut int8, &mut float, &mut tract], rounds / 10, rounds)?
        }
        None => interleave(&mut [&mut ours, &mut tract], rounds / 10, rounds)?,
    };
    let us = |timing: Option<&Timing>| timing.map_or("-".into(), |timing| format!("{:.1}", timing.median_us));
    match timings.as_slice() {
        [ours, int8, float, tract] => println!(
            "| {model} | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} |",
            ours.median_us,
            int8.median_us,
            float.median_us,
            tract.median_us,
            int8.median_us / ours.median_us,
            int8.least_us / ours.least_us
        ),
        timings => println!("| {model} | {} | - | - | {} | - | - |", us(timings.first()), us(timings.last())),
    }
    Ok(())
}

/// The shape of a sample of the model's first input.
fn samples_shape(graph: &Graph) -> Vec<usize> {
    let types = equant::graph::shape::infer_partial(graph, 1).types;
    graph.inputs.first().and_then(|input| types.get(&input.name)).map_or(Vec::new(), |t| t.shape[1..].to_vec())
}
