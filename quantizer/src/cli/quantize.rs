//! `equant quantize`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::args::QuantizeArgs;
use super::error::Failure;
use super::output::{Output, table};
use crate::files;
use crate::metrics::{Evaluation, Metric};
use crate::pipeline::{self, Request};
use crate::qdq::Island;
use crate::quantize::Config;
use crate::report::Report;
use crate::report::numbers::{bytes, count, decibels, percent, real, seconds};

pub(super) fn run(args: QuantizeArgs, output: &Output) -> Result<(), Failure> {
    #[cfg(feature = "tune")]
    if args.time_budget.is_some() && tune(&args).is_none() {
        return Err(Failure::Usage("--time-budget is for tuning: give --tune or --preset best, too".into()));
    }
    let folder = args.output.clone().unwrap_or_else(|| Path::new("out").join(pipeline::stem(&args.model)));
    files::probe(&folder).map_err(pipeline::Error::from)?;
    let request = Request {
        config: config(&args),
        target: args.target,
        core: args.cost.core,
        floor_db: args.floor.0,
        dims: args.exec.dims(),
        states: args.streaming.state.clone(),
        backend: args.exec.backend.backend(),
        threads: args.exec.threads(),
        metric: args.judge.metric.metric(),
        test: args.test.clone(),
        preprocess: args.reading.preprocess.clone(),
        strip_names: args.strip_names,
        budget: args.budget,
        #[cfg(feature = "tune")]
        tune: tune(&args),
        command: command_line(),
        ..Request::new(args.model, args.calib)
    };
    let artifacts = pipeline::quantize(&request, &output.progress())?;
    let report = artifacts.report.clone();
    let written = artifacts.write(&folder)?;
    output.result(&report, || text(&report, &written))
}

/// What the preset and the target say, and over that what was asked for.
fn config(args: &QuantizeArgs) -> Config {
    let rules = args.target.rules();
    let mut config = Config {
        per_channel: !args.per_tensor,
        reduce_range: args.reduce_range || rules.reduce_range,
        activations: args.activations.map_or(rules.activations, |arg| arg.activations()),
        container: args.container.map_or(rules.container, |arg| arg.container()),
        bits: args.bits,
        equalize: !args.no_equalize,
        ..Config::default()
    };
    args.preset.preset().apply(&mut config);
    if let Some(observer) = args.observer {
        config.observer = observer.observer(args.percentile);
    }
    if let Some(rounding) = args.rounding {
        config.rounding = rounding.rounding();
    }
    (config.rounding.rate, config.rounding.kurtosis) = (args.rate, args.weight_kurtosis);
    config
}

#[cfg(feature = "tune")]
fn tune(args: &QuantizeArgs) -> Option<crate::tune::Options> {
    let preset = args.preset.preset().tuning();
    (args.tune || preset.is_some()).then(|| crate::tune::Options {
        time_budget: args.time_budget.map(std::time::Duration::from_secs).or(preset),
        seed: args.seed,
        threads: args.exec.threads(),
        backend: args.exec.backend.backend(),
        ..Default::default()
    })
}

/// The command as it was typed, quoted where a shell needs it.
fn command_line() -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=,:@%+".contains(c);
    let quoted = std::env::args().skip(1).map(|arg| {
        if !arg.is_empty() && arg.chars().all(plain) { arg } else { format!("'{}'", arg.replace('\'', r"'\''")) }
    });
    std::iter::once("equant".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}

fn text(report: &Report, written: &[PathBuf]) -> String {
    let model = &report.model;
    let mut out = format!(
        "{}: {} parameters, {} MACs, {} nodes\n\n",
        model.name,
        count(model.parameters),
        count(model.macs),
        model.nodes
    );
    let shown = report.test.as_ref().unwrap_or(&report.calibration);
    out.push_str(&scores(shown));
    let what = if report.test.is_some() { "test" } else { "calibration" };
    let _ = writeln!(out, "on {} {what} samples of {}\n", shown.samples, shown.file);

    let sizes = &report.sizes;
    let factor = |size: u64| format!("{:.1}x smaller", sizes.float as f64 / size.max(1) as f64);
    out.push_str(&table(
        1,
        &["size", "", ""],
        &[
            vec!["fp32 ONNX".into(), bytes(sizes.float), String::new()],
            vec!["int8 ONNX".into(), bytes(sizes.onnx), factor(sizes.onnx)],
            vec!["plan".into(), bytes(sizes.plan), factor(sizes.plan)],
        ],
    ));
    out.push('\n');
    out.push_str(&memory(report));
    let mut worst: Vec<_> = report.layers.iter().collect();
    worst.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
    if !worst.is_empty() {
        let names: Vec<String> =
            worst.iter().take(3).map(|layer| format!("{} {}", layer.node, decibels(layer.sqnr_db))).collect();
        let _ = writeln!(out, "\nlowest SQNR: {}", names.join(", "));
    }
    for note in &report.notes {
        let _ = writeln!(out, "note: {note}");
    }
    for (reason, nodes) in islands(&report.float_islands) {
        let _ = writeln!(out, "warning: stays in float in ONNX Runtime: {nodes}: {reason}");
    }
    let check = &report.verification;
    let _ = writeln!(
        out,
        "verified: plan and simulation of the exported file differ by at most {} steps on {} samples",
        real(check.max_error_steps),
        check.samples
    );
    let steps: Vec<String> =
        report.made.stages.iter().map(|stage| format!("{} {}", stage.name, seconds(stage.seconds))).collect();
    let _ = writeln!(out, "time: {}", steps.join(", "));
    for path in written {
        let _ = writeln!(out, "wrote {}", path.display());
    }
    out
}

/// Nodes that stay in float for the same reason, together: a few by name.
fn islands(islands: &[Island]) -> Vec<(&str, String)> {
    let mut reasons: Vec<&str> = islands.iter().map(|island| island.reason.as_str()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    let nodes = |reason: &str| {
        let all: Vec<&Island> = islands.iter().filter(|island| island.reason == reason).collect();
        let names: Vec<String> =
            all.iter().take(3).map(|island| format!("{} ({})", island.node, island.op_type)).collect();
        let more = if all.len() > 3 { format!(" and {} more", all.len() - 3) } else { String::new() };
        format!("{}{more}", names.join(", "))
    };
    reasons.into_iter().map(|reason| (reason, nodes(reason))).collect()
}

/// Scores of all models as columns of text.
pub(super) fn scores(evaluation: &Evaluation) -> String {
    let judged = matches!(evaluation.metric, Metric::Top1 | Metric::Auc);
    let dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let mut head = vec![""];
    if judged {
        head.push(evaluation.metric.name());
    }
    head.extend(["agreement", "SQNR", "cosine", "max error"]);
    let rows: Vec<Vec<String>> = evaluation
        .scores
        .iter()
        .map(|scores| {
            let name = match scores.subject.as_str() {
                "simulation" => "int8 simulation",
                "plan" => "int8 plan",
                other => other,
            };
            let mut row = vec![name.to_owned()];
            if judged {
                row.push(dash(scores.metric.map(percent)));
            }
            row.push(dash(scores.agreement.map(percent)));
            row.push(dash(scores.sqnr_db.map(decibels)));
            row.push(dash(scores.cosine.map(|cosine| format!("{cosine:.5}"))));
            row.push(dash(scores.max_error_steps.map(|steps| format!("{} steps", real(steps)))));
            row
        })
        .collect();
    table(1, &head, &rows)
}

fn memory(report: &Report) -> String {
    super::compile::memory(&report.memory)
}
