//! Quantizes every model of the repository in every setting, with the defaults, and prints the accuracy table of
//! `BENCHMARKS.md` beside the figures recorded for other tools:
//! `cargo run --release -p equant-tests --bin accuracy [MODEL...] [--setting W4A8|W8A8:per-tensor...] [OPTIONS]`.
//!
//! `--seeds 3` repeats each row with calibration samples in other orders and other halves (the defaults use no other
//! randomness) and prints the spread. `--preset`, `--rounding` and `--observer` change the method. The peers' figures
//! (`tests/data/peers/peers.json`) are the best SQNR and the best metric that any method of ONNX Runtime, AIMET, NNCF,
//! Quark, ModelOpt or ONNX Neural Compressor reached on the same models and data, chosen by the test metric, in their
//! favour.

use std::process::ExitCode;

use equant::observe::Observer;
use equant::pipeline::{self, Request, Silent};
use equant::quantize::Config;
use equant::report::Report;
use equant::round::Method;
use equant::tune::Options;
use equant_tests::models;

const MODELS: [&str; 6] = ["resnet8", "dscnn", "dscnn_imb", "mbv1", "ae", "vit"];
const SETTINGS: [&str; 5] = ["W8A8", "W8A8:per-tensor", "W4A8", "W4A8:per-tensor", "W4A4"];

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match table(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("accuracy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn table(mut args: impl Iterator<Item = String>) -> Result<(), Failure> {
    let mut config = Config::default();
    let (mut models, mut settings, mut notes, mut tune) = (Vec::new(), Vec::new(), false, false);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--setting" => settings.push(value()?),
            "--rounding" => config.rounding.method = rounding(&value()?)?,
            "--observer" => config.observer = Some(observer(&value()?)?),
            "--float-prefix" => config.rounding.sequential = false,
            "--no-bias-correction" => config.rounding.bias_correction = false,
            "--no-equalize" => config.equalize = false,
            "--tune" => tune = true,
            "--notes" => notes = true,
            name if MODELS.contains(&name) => models.push(arg),
            other => return Err(format!("`{other}` is no model or option; models: {}", MODELS.join(", ")).into()),
        }
    }
    if models.is_empty() {
        models = MODELS.map(str::to_owned).to_vec();
    }
    if settings.is_empty() {
        settings = SETTINGS.map(str::to_owned).to_vec();
    }
    println!(
        "| setting | model | fp32 | file | plan | drop | SQNR file | SQNR plan | best peer by SQNR | best peer by metric | seconds |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for setting in &settings {
        for model in &models {
            let (bits, per_tensor) = match setting.split_once(':') {
                None => (setting.as_str(), false),
                Some((bits, "per-tensor")) => (bits, true),
                Some(_) => return Err(format!("setting `{setting}`: use BITS or BITS:per-tensor").into()),
            };
            let config = Config { bits: bits.parse()?, per_channel: !per_tensor, ..config.clone() };
            row(setting, model, &config, notes, tune)?;
        }
    }
    Ok(())
}

fn row(setting: &str, model: &str, config: &Config, notes: bool, tune: bool) -> Result<(), Failure> {
    let report = quantize(model, config, tune)?;
    if notes {
        report.notes.iter().for_each(|note| eprintln!("{setting} {model}: {note}"));
    }
    let test = report.test.as_ref().ok_or("no test scores")?;
    let score = |subject: &str| test.of(subject).ok_or(format!("no score of {subject}"));
    let (fp32, file, plan) = (score("fp32")?, score("simulation")?, score("plan")?);
    let percent = |x: Option<f64>| 100.0 * x.unwrap_or(f64::NAN);
    // The test is not part of quantizing.
    let seconds: f64 = report.made.stages.iter().filter(|stage| stage.name != "test").map(|stage| stage.seconds).sum();
    println!(
        "| {setting} | {model} | {:.2} | {:.2} | {:.2} | {:+.2} | {:.1} dB | {:.1} dB | {} | {} | {seconds:.1} |",
        percent(fp32.metric),
        percent(file.metric),
        percent(plan.metric),
        percent(fp32.metric) - percent(plan.metric),
        file.sqnr_db.unwrap_or(f64::NAN),
        plan.sqnr_db.unwrap_or(f64::NAN),
        peer(model, config, "by_sqnr")?,
        peer(model, config, "by_metric")?,
    );
    Ok(())
}

fn quantize(model: &str, config: &Config, tune: bool) -> Result<Report, Failure> {
    let request = Request {
        test: Some(models::samples_path(model, "test10k")),
        config: config.clone(),
        threads: models::threads(),
        tune: tune.then(|| Options { threads: models::threads(), ..Options::default() }),
        ..Request::new(models::model_path(model), models::samples_path(model, "calib512"))
    };
    Ok(pipeline::quantize(&request, &Silent)?.report)
}

fn rounding(name: &str) -> Result<Method, String> {
    match name {
        "nearest" => Ok(Method::Nearest),
        "gptq" => Ok(Method::Gptq),
        "search" => Ok(Method::Search),
        "soft" => Ok(Method::Soft),
        other => Err(format!("rounding {other}: nearest, gptq, search or soft")),
    }
}

fn observer(name: &str) -> Result<Observer, String> {
    match name {
        "minmax" => Ok(Observer::MinMax),
        "mse" => Ok(Observer::Mse),
        "entropy" => Ok(Observer::Entropy),
        "percentile" => Ok(Observer::Percentile(99.999)),
        other => Err(format!("observer {other}: minmax, mse, entropy or percentile")),
    }
}

fn peer(model: &str, config: &Config, by: &str) -> Result<String, Failure> {
    let granularity = if config.per_channel { "per_channel" } else { "per_tensor" };
    let bits = config.bits.to_string();
    let peers: Vec<serde_json::Value> = serde_json::from_str(include_str!("../../data/peers/peers.json"))?;
    let found = peers
        .iter()
        .find(|peer| peer["model"] == model && peer["bits"] == bits.as_str() && peer["granularity"] == granularity);
    Ok(found.map_or("—".to_owned(), |peer| {
        let peer = &peer[by];
        format!(
            "{:.1} dB, {:.2} ({} {}, {:.0} s)",
            peer["sqnr_db"].as_f64().unwrap_or(f64::NAN),
            100.0 * peer["metric"].as_f64().unwrap_or(f64::NAN),
            peer["tool"].as_str().unwrap_or("?"),
            peer["method"].as_str().unwrap_or("?"),
            peer["seconds"].as_f64().unwrap_or(f64::NAN),
        )
    }))
}
