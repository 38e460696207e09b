//! Quantizes every model of the repository in every setting, with the defaults, and prints the accuracy table of
//! `BENCHMARKS.md` beside the figures recorded for other tools:
//! `cargo run --release -p equant-tests --bin accuracy [MODEL...] [--setting W4A8|W8A8:per-tensor...] [OPTIONS]`.
//!
//! `--seeds 3` repeats each row with the calibration samples in other orders (and so other halves for what is held out; the
//! defaults use no other randomness) and prints beside the figure of the first order the lowest and the highest. `--preset`,
//! `--rounding`, `--observer`, `--rate` and `--weight-kurtosis` change the method, the `--no-…` options leave an ingredient out. The setting `mixed`
//! deals out 4 and 8 bits within three quarters of what 8-bit weights take, and prints what each way of dealing them out
//! reached. The peers' figures (`tests/data/peers/peers.json`) are the best SQNR and the best metric that any method of
//! ONNX Runtime, AIMET, NNCF, Quark, ModelOpt or ONNX Neural Compressor reached on the same models and data, chosen by the
//! test metric, in their favour.

use std::path::PathBuf;
use std::process::ExitCode;

use equant::observe::Observer;
use equant::pipeline::{self, Budget, Preset, Request, Silent};
use equant::quantize::Config;
use equant::random::Random;
use equant::report::Report;
use equant::round::Method;
use equant::tune::Options;
use equant_tests::models;

const MODELS: [&str; 6] = ["resnet8", "dscnn", "dscnn_imb", "mbv1", "ae", "vit"];
const SETTINGS: [&str; 6] = ["W8A8", "W8A8:per-tensor", "W4A8", "W4A8:per-tensor", "W4A4", MIXED];
/// 4 and 8 bits within [`SHARE`] of the bytes of 8-bit weights.
const MIXED: &str = "mixed";
const SHARE: f64 = 0.75;

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

/// What is the same for all rows.
struct Choices {
    config: Config,
    preset: Preset,
    tune: bool,
    notes: bool,
    seeds: u64,
    floor_db: Option<f64>,
}

fn table(mut args: impl Iterator<Item = String>) -> Result<(), Failure> {
    let mut choices = Choices {
        config: Config::default(),
        preset: Preset::Balanced,
        tune: false,
        notes: false,
        seeds: 1,
        floor_db: Some(pipeline::FLOOR_DB),
    };
    let (mut models, mut settings) = (Vec::new(), Vec::new());
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        let config = &mut choices.config;
        match arg.as_str() {
            "--setting" => settings.push(value()?),
            "--preset" => {
                let name = value()?;
                let known = Preset::ALL.into_iter().find(|preset| preset.name() == name);
                choices.preset = known.ok_or(format!("preset {name}: fast, balanced or best"))?;
                choices.preset.apply(config);
            }
            "--rounding" => config.rounding.method = rounding(&value()?)?,
            "--observer" => config.observer = Some(observer(&value()?)?),
            "--float-prefix" => config.rounding.sequential = false,
            "--no-bias-correction" => config.rounding.bias_correction = false,
            "--rate" => config.rounding.rate = value()?.parse()?,
            "--weight-kurtosis" => config.rounding.kurtosis = value()?.parse()?,
            "--no-equalize" => config.equalize = false,
            "--no-floor" => choices.floor_db = None,
            "--tune" => choices.tune = true,
            "--seeds" => choices.seeds = value()?.parse()?,
            "--notes" => choices.notes = true,
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
            row(setting, model, &choices)?;
        }
    }
    Ok(())
}

fn row(setting: &str, model: &str, choices: &Choices) -> Result<(), Failure> {
    let config = match setting.split_once(':') {
        None if setting == MIXED => choices.config.clone(),
        None => Config { bits: setting.parse()?, ..choices.config.clone() },
        Some((bits, "per-tensor")) => Config { bits: bits.parse()?, per_channel: false, ..choices.config.clone() },
        Some(_) => return Err(format!("setting `{setting}`: use BITS, BITS:per-tensor or {MIXED}").into()),
    };
    let mut reports = Vec::new();
    for seed in 0..choices.seeds.max(1) {
        let report = quantize(model, &config, setting == MIXED, choices, seed)?;
        if choices.notes {
            report.notes.iter().for_each(|note| eprintln!("{setting} {model}: {note}"));
        }
        for tried in report.mixed.iter().flat_map(|mixed| &mixed.tried) {
            eprintln!("{setting} {model}: {}: {:.1} dB on calibration samples", tried.method, tried.measured_db);
        }
        reports.push(report);
    }
    let all = |of: &dyn Fn(&Report) -> f64| reports.iter().map(of).collect::<Vec<f64>>();
    let score = |subject: &'static str| move |report: &Report| report.test.as_ref()?.of(subject).cloned();
    let percent = |subject| all(&move |r| 100.0 * score(subject)(r).and_then(|s| s.metric).unwrap_or(f64::NAN));
    let sqnr = |subject| all(&move |r| score(subject)(r).and_then(|s| s.sqnr_db).unwrap_or(f64::NAN));
    // The test is not part of quantizing.
    let seconds = all(&|r| r.made.stages.iter().filter(|stage| stage.name != "test").map(|stage| stage.seconds).sum());
    let drops: Vec<f64> = percent("fp32").iter().zip(percent("plan")).map(|(fp32, plan)| fp32 - plan).collect();
    println!(
        "| {setting} | {model} | {:.2} | {} | {} | {} | {} dB | {} dB | {} | {} | {} |",
        percent("fp32")[0],
        spread(&percent("simulation"), 2),
        spread(&percent("plan"), 2),
        spread(&drops, 2),
        spread(&sqnr("simulation"), 1),
        spread(&sqnr("plan"), 1),
        peer(setting, model, &config, "by_sqnr")?,
        peer(setting, model, &config, "by_metric")?,
        spread(&seconds, 1),
    );
    Ok(())
}

/// The first; of several also the lowest and the highest.
fn spread(values: &[f64], digits: usize) -> String {
    let first = values.first().copied().unwrap_or(f64::NAN);
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
    match values.len() {
        1 => format!("{first:.digits$}"),
        _ => format!("{first:.digits$} ({low:.digits$} to {high:.digits$})"),
    }
}

fn quantize(model: &str, config: &Config, mixed: bool, choices: &Choices, seed: u64) -> Result<Report, Failure> {
    let folder = tempfile::tempdir()?;
    let calibration = match seed {
        0 => models::samples_path(model, "calib512"),
        _ => shuffled(model, folder.path(), seed)?,
    };
    let tuning = choices.preset.tuning();
    let mut request = Request {
        test: Some(models::samples_path(model, "test10k")),
        config: config.clone(),
        floor_db: choices.floor_db,
        threads: models::threads(),
        tune: (choices.tune || tuning.is_some()).then(|| Options {
            threads: models::threads(),
            time_budget: tuning,
            seed,
            ..Options::default()
        }),
        ..Request::new(models::model_path(model), calibration)
    };
    if mixed {
        let graph = pipeline::read_float(&request.model, &request.dims)?.graph;
        let weights: usize = pipeline::weights(&graph).iter().map(|w| w.shape.iter().product::<usize>()).sum();
        request.budget = Some(Budget::Flash((SHARE * weights as f64) as u64));
    }
    Ok(pipeline::quantize(&request, &Silent)?.report)
}

/// The calibration samples in another order.
fn shuffled(model: &str, folder: &std::path::Path, seed: u64) -> Result<PathBuf, Failure> {
    let graph = pipeline::read_float(&models::model_path(model), &Default::default())?.graph;
    let path = models::samples_path(model, "calib512");
    let count = pipeline::open_samples(&path, &graph, None)?.len();
    let values = models::first_samples(&path, &graph, count).inputs.swap_remove(0);
    let order = Random::new(seed).permutation(count);
    let elements = values.len() / count;
    let values: Vec<f32> = order.iter().flat_map(|&i| values[i * elements..][..elements].to_vec()).collect();
    let path = folder.join("calibration.npy");
    models::write_samples(&path, &graph, count, &values);
    Ok(path)
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

fn peer(setting: &str, model: &str, config: &Config, by: &str) -> Result<String, Failure> {
    if setting == MIXED {
        return Ok("—".to_owned());
    }
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
