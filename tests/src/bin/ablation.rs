//! What each ingredient of calibration is worth:
//! `cargo run --release -p equant-tests --bin ablation [MODEL...] [--setting W4A4] [--tune]`.
//!
//! Every model is quantized with the defaults, then with one ingredient left out or replaced, or one that is off by
//! default added; the figures are SQNR (and top-1 or AUC) of the plan on the test samples, which decide nothing.
//! `--setting` takes one of the two settings alone; `--tune` adds a row with a minute of tuning.

use std::process::ExitCode;
use std::time::Duration;

use equant::observe::Observer;
use equant::pipeline::{self, Request, Silent};
use equant::quantize::Config;
use equant::round::Method;
use equant::tune::Options;
use equant_tests::models;

const MODELS: [&str; 6] = ["resnet8", "dscnn", "dscnn_imb", "mbv1", "ae", "vit"];
const SETTINGS: [&str; 2] = ["W4A8", "W4A4"];
/// Time for tuning.
const TUNING: Duration = Duration::from_secs(60);

type Change = fn(&mut Request);

const ROWS: [(&str, Change); 14] = [
    ("defaults", |_| ()),
    ("no equalization", |r| r.config.equalize = false),
    ("ranges: min-max", |r| r.config.observer = Some(Observer::MinMax)),
    ("ranges: least squared error", |r| r.config.observer = Some(Observer::Mse)),
    ("ranges: entropy (Kullback-Leibler)", |r| r.config.observer = Some(Observer::Entropy)),
    ("rounding: to nearest", |r| r.config.rounding.method = Method::Nearest),
    ("rounding: GPTQ", |r| r.config.rounding.method = Method::Gptq),
    ("rounding: soft with entropy, then search", |r| r.config.rounding.method = Method::Soft),
    ("prefix in float", |r| r.config.rounding.sequential = false),
    ("rounding: with a price on bits (1)", |r| r.config.rounding.rate = 1.0),
    ("rounding: with a price on kurtosis (1)", |r| r.config.rounding.kurtosis = 1.0),
    ("no bias correction", |r| r.config.rounding.bias_correction = false),
    ("no safety net", |r| r.floor_db = None),
    ("tuned for 60 s", |r| {
        r.tune = Some(Options { time_budget: Some(TUNING), threads: models::threads(), ..Options::default() });
    }),
];

fn main() -> ExitCode {
    let mut asked = Vec::new();
    let (mut settings, mut rows) = (SETTINGS.to_vec(), &ROWS[..ROWS.len() - 1]);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--tune" => rows = &ROWS[..],
            "--setting" => match args.next() {
                Some(setting) if SETTINGS.contains(&setting.as_str()) => settings.retain(|s| *s == setting),
                _ => return refuse(&format!("--setting: use {}", SETTINGS.join(" or "))),
            },
            name if MODELS.contains(&name) => asked.push(arg),
            wrong => return refuse(&format!("`{wrong}` is no model; use {}", MODELS.join(", "))),
        }
    }
    let models: Vec<&str> = MODELS.into_iter().filter(|m| asked.is_empty() || asked.iter().any(|a| a == m)).collect();
    for setting in settings {
        println!("| {setting} | {} |", models.join(" | "));
        println!("|---|{}", "---|".repeat(models.len()));
        for (name, change) in rows {
            let mut line = format!("| {name} |");
            for model in &models {
                match score(model, setting, *change) {
                    Ok(text) => line.push_str(&format!(" {text} |")),
                    Err(error) => {
                        eprintln!("ablation: {model}, {setting}, {name}: {error}");
                        return ExitCode::FAILURE;
                    }
                }
            }
            println!("{line}");
        }
        println!();
    }
    ExitCode::SUCCESS
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("ablation: {why}");
    ExitCode::FAILURE
}

fn score(model: &str, setting: &str, change: Change) -> Result<String, Box<dyn std::error::Error>> {
    let mut request = Request {
        test: Some(models::samples_path(model, "test10k")),
        config: Config { bits: setting.parse()?, ..Config::default() },
        threads: models::threads(),
        ..Request::new(models::model_path(model), models::samples_path(model, "calib512"))
    };
    change(&mut request);
    let report = pipeline::quantize(&request, &Silent)?.report;
    let plan = report.test.as_ref().and_then(|test| test.of("plan")).ok_or("no test scores")?;
    let number = |x: Option<f64>| x.unwrap_or(f64::NAN);
    Ok(format!("{:.1} dB, {:.2}", number(plan.sqnr_db), 100.0 * number(plan.metric)))
}
