//! What a price on bits saves of a download, and what it costs in accuracy:
//! `cargo run --release -p equant-tests --bin rate [MODEL...]`.
//!
//! Every model is quantized with several prices (`equant quantize --rate`). Printed are the bytes of the plan, of the
//! package that `equant package` makes of it, the Shannon entropy of the weights, and SQNR and metric of the plan on the
//! test samples, which decide nothing.

use std::process::ExitCode;

use equant::package;
use equant::pipeline::{self, Request, Silent};
use equant::quantize::Config;
use equant::report::WeightBytes;
use equant_tests::models::{self, MODELS};

const SETTINGS: [&str; 2] = ["W8A8", "W4A8"];
const PRICES: [f64; 5] = [0.0, 0.25, 1.0, 4.0, 16.0];

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let Some(wrong) = asked.iter().find(|name| !MODELS.contains(&name.as_str())) {
        eprintln!("rate: `{wrong}` is no model; use {}", MODELS.join(", "));
        return ExitCode::FAILURE;
    }
    println!("| model | setting | price | plan | package | share | weights, Shannon | SQNR | metric |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for model in MODELS.into_iter().filter(|model| asked.is_empty() || asked.iter().any(|name| name == model)) {
        for setting in SETTINGS {
            for price in PRICES {
                match row(model, setting, price) {
                    Ok(line) => println!("{line}"),
                    Err(error) => {
                        eprintln!("rate: {model}, {setting}, {price}: {error}");
                        return ExitCode::FAILURE;
                    }
                }
            }
        }
    }
    ExitCode::SUCCESS
}

fn row(model: &str, setting: &str, price: f64) -> Result<String, Box<dyn std::error::Error>> {
    let mut config = Config { bits: setting.parse()?, ..Config::default() };
    config.rounding.rate = price;
    let request = Request {
        test: Some(models::samples_path(model, "test10k")),
        config,
        threads: models::threads(),
        ..Request::new(models::model_path(model), models::samples_path(model, "calib512"))
    };
    let made = pipeline::quantize(&request, &Silent)?;
    let package = package::pack(&made.plan)?;
    let plan = made.report.test.as_ref().and_then(|test| test.of("plan")).ok_or("no test scores")?;
    let number = |x: Option<f64>| x.unwrap_or(f64::NAN);
    let WeightBytes { shannon, .. } = made.report.weight_bytes;
    Ok(format!(
        "| {model} | {setting} | {price} | {} | {} | {:.0} % | {shannon} | {:.1} dB | {:.2} |",
        made.plan.len(),
        package.bytes.len(),
        100.0 * package.bytes.len() as f64 / made.plan.len() as f64,
        number(plan.sqnr_db),
        100.0 * number(plan.metric)
    ))
}
