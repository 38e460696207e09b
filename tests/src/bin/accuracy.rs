//! Quantizes every model of the repository with the defaults and prints the accuracy table of `BENCHMARKS.md`:
//! `cargo run --release -p equant-tests --bin accuracy [MODEL...] [--per-tensor] [--observer NAME]`.
//!
//! The peers' figures are recorded (`tests/data/peers/w8a8.json`): the best SQNR that any method of ONNX Runtime,
//! AIMET, NNCF, Quark, ModelOpt or ONNX Neural Compressor reached on the same models and data.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use equant::exec::Backend;
use equant::observe::Observer;
use equant::pipeline::{self, Request, Silent};
use equant::quantize::Config;

const MODELS: [&str; 6] = ["resnet8", "dscnn", "dscnn_imb", "mbv1", "ae", "vit"];

struct Peer {
    name: String,
    sqnr_db: f64,
    metric: f64,
}

fn main() -> ExitCode {
    match table(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("accuracy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn table(mut args: impl Iterator<Item = String>) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    let mut models = Vec::new();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--per-tensor" => config.per_channel = false,
            "--observer" => config.observer = Some(observer(args.next().as_deref())?),
            name if MODELS.contains(&name) => models.push(arg),
            other => return Err(format!("`{other}` is no model or option; models: {}", MODELS.join(", ")).into()),
        }
    }
    if models.is_empty() {
        models = MODELS.map(str::to_owned).to_vec();
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("| model | fp32 | int8 file | plan | drop | SQNR file | SQNR plan | best peer (recorded) | seconds |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for model in &models {
        row(model, &config, threads)?;
    }
    Ok(())
}

fn row(model: &str, config: &Config, threads: usize) -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("models");
    let data = |kind: &str| -> PathBuf {
        root.join("data").join(format!("{}_{kind}.npz", if model == "ae" { "ae" } else { "fmnist" }))
    };
    let request = Request {
        model: root.join(model).join(format!("{model}.onnx")),
        calibration: data("calib512"),
        test: Some(data("test10k")),
        dims: Default::default(),
        config: config.clone(),
        backend: Backend::Tract,
        threads,
        strip_names: false,
        metric: None,
        command: String::new(),
    };
    let report = pipeline::quantize(&request, &Silent)?.report;
    let test = report.test.ok_or("no test scores")?;
    let score = |subject: &str| test.of(subject).ok_or(format!("no score of {subject}"));
    let (fp32, file, plan) = (score("fp32")?, score("simulation")?, score("plan")?);
    let percent = |x: Option<f64>| 100.0 * x.unwrap_or(f64::NAN);
    let peer = match peer(model, config.per_channel)? {
        Some(peer) => format!("{:.1} dB, {:.2} ({})", peer.sqnr_db, 100.0 * peer.metric, peer.name),
        None => "—".to_owned(),
    };
    // The test and the comparisons are not part of quantizing.
    let seconds: f64 = report.made.stages.iter().filter(|stage| stage.name != "test").map(|stage| stage.seconds).sum();
    println!(
        "| {model} | {:.2} | {:.2} | {:.2} | {:+.2} | {:.1} dB | {:.1} dB | {peer} | {seconds:.1} |",
        percent(fp32.metric),
        percent(file.metric),
        percent(plan.metric),
        percent(fp32.metric) - percent(plan.metric),
        file.sqnr_db.unwrap_or(f64::NAN),
        plan.sqnr_db.unwrap_or(f64::NAN),
    );
    Ok(())
}

fn observer(name: Option<&str>) -> Result<Observer, String> {
    match name {
        Some("minmax") => Ok(Observer::MinMax),
        Some("mse") => Ok(Observer::Mse),
        Some("entropy") => Ok(Observer::Entropy),
        Some("percentile") => Ok(Observer::Percentile(99.999)),
        other => Err(format!("observer {other:?}: minmax, mse, entropy or percentile")),
    }
}

fn peer(model: &str, per_channel: bool) -> Result<Option<Peer>, Box<dyn std::error::Error>> {
    let setting = if per_channel { "per_channel" } else { "per_tensor" };
    let peers: Vec<serde_json::Value> = serde_json::from_str(include_str!("../../data/peers/w8a8.json"))?;
    let found = peers.iter().find(|peer| peer["model"] == model && peer["setting"] == setting);
    Ok(found.map(|peer| Peer {
        name: format!("{} {}", peer["tool"].as_str().unwrap_or("?"), peer["method"].as_str().unwrap_or("?")),
        sqnr_db: peer["sqnr_db"].as_f64().unwrap_or(f64::NAN),
        metric: peer["metric"].as_f64().unwrap_or(f64::NAN),
    }))
}
