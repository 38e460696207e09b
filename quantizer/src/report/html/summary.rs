//! What a reader wants first: scores, sizes, warnings, the layers that hurt; and last: how it was made.

use std::fmt::Write as _;

use super::super::svg::{self, Axis, Bar};
use super::{Report, code, escape, heading, numbers, or_dash, rows, values};
use crate::metrics::{Evaluation, Metric};
use crate::pipeline::dtype_name;

/// Layers below this are drawn as poor.
const POOR_DB: f64 = 10.0;
/// Layers below this are drawn as fair.
const FAIR_DB: f64 = 20.0;
/// Layers named as the worst.
const WORST: usize = 5;

pub(super) fn model(out: &mut String, report: &Report) {
    let model = &report.model;
    let _ = writeln!(
        out,
        "<p class=\"lead\">{} parameters, {} multiply-accumulates, {} nodes ({} in the file, opset {}). \
         Input {}, output {}.</p>",
        numbers::count(model.parameters),
        numbers::count(model.macs),
        model.nodes,
        model.nodes_in_file,
        model.opset,
        values(&model.inputs),
        values(&model.outputs),
    );
}

pub(super) fn scores(out: &mut String, report: &Report) {
    let shown = report.test.as_ref().unwrap_or(&report.calibration);
    let plan = shown.of("plan");
    let mut cards: Vec<(String, String)> = Vec::new();
    if let (Some(float), Some(int)) = (shown.of("fp32").and_then(|s| s.metric), plan.and_then(|s| s.metric)) {
        cards.push((
            numbers::percent(int),
            format!("{} in int8; {} in fp32", shown.metric.name(), numbers::percent(float)),
        ));
    }
    if let Some(agreement) = plan.and_then(|s| s.agreement) {
        cards.push((numbers::percent(agreement), "of samples classified as in fp32".into()));
    }
    if let Some(db) = plan.and_then(|s| s.sqnr_db) {
        cards.push((numbers::decibels(db), "SQNR at the output".into()));
    }
    let sizes = &report.sizes;
    cards.push((numbers::bytes(sizes.onnx), format!("int8 ONNX file; {} in fp32", numbers::bytes(sizes.float))));
    cards.push((numbers::bytes(sizes.plan), "plan: flash, weights included".into()));
    cards.push((numbers::bytes(report.memory.memory() as u64), "arena: memory while running".into()));
    out.push_str("<div class=\"cards\">");
    for (value, what) in &cards {
        let _ = write!(out, "<div class=\"card\"><b>{}</b><span>{}</span></div>", escape(value), escape(what));
    }
    out.push_str("</div>\n");
    if let Some(test) = &report.test {
        evaluation(out, "Test samples", test);
    }
    evaluation(out, "First calibration samples", &report.calibration);
    let check = &report.verification;
    let _ = writeln!(
        out,
        "<p class=\"note\">The exported file was read back, simulated in float, and compared with the plan on {} \
         calibration samples: largest difference {} steps, SQNR between the two {}.</p>",
        check.samples,
        numbers::real(check.max_error_steps),
        numbers::decibels(check.sqnr_db),
    );
}

fn evaluation(out: &mut String, title: &str, evaluation: &Evaluation) {
    heading(out, title);
    let judged = matches!(evaluation.metric, Metric::Top1 | Metric::Auc);
    let mut head = vec!["model"];
    if judged {
        head.push(evaluation.metric.name());
    }
    head.extend(["agreement with fp32", "SQNR", "cosine", "largest error"]);
    let body = evaluation.scores.iter().map(|scores| {
        let mut row = vec![escape(&scores.subject)];
        if judged {
            row.push(or_dash(scores.metric.map(numbers::percent)));
        }
        row.push(or_dash(scores.agreement.map(numbers::percent)));
        row.push(or_dash(scores.sqnr_db.map(numbers::decibels)));
        row.push(or_dash(scores.cosine.map(|cosine| format!("{cosine:.5}"))));
        row.push(or_dash(scores.max_error_steps.map(|steps| format!("{} steps", numbers::real(steps)))));
        row
    });
    rows(out, 1, &head, body);
    let _ = writeln!(
        out,
        "<p class=\"note\">{} samples of {}. “simulation” is the int8 ONNX file in float arithmetic, “plan” the \
         integer runtime. A step is 1/255 of the output's range.</p>",
        evaluation.samples,
        code(&evaluation.file),
    );
}

pub(super) fn warnings(out: &mut String, report: &Report) {
    if report.notes.is_empty() && report.float_islands.is_empty() {
        return;
    }
    heading(out, "Decisions and warnings");
    for note in &report.notes {
        let _ = writeln!(out, "<div class=\"warn\">{}</div>", escape(note));
    }
    for island in &report.float_islands {
        let _ = writeln!(
            out,
            "<div class=\"warn\">{} ({}) stays in float in ONNX Runtime: {}</div>",
            code(&island.node),
            escape(&island.op_type),
            escape(&island.reason),
        );
    }
}

pub(super) fn layers(out: &mut String, report: &Report) {
    if report.layers.is_empty() {
        return;
    }
    heading(out, "Quality by layer");
    let bars: Vec<Bar> = report
        .layers
        .iter()
        .map(|layer| Bar {
            title: format!("{} ({}): {}", layer.node, layer.op_type, numbers::decibels(layer.sqnr_db)),
            value: layer.sqnr_db,
            class: match layer.sqnr_db {
                db if db < POOR_DB => "poor",
                db if db < FAIR_DB => "fair",
                _ => "good",
            },
        })
        .collect();
    let top = report.layers.iter().map(|layer| layer.sqnr_db).fold(FAIR_DB, f64::max);
    let axis = Axis { top: (top.min(80.0) / 10.0).ceil() * 10.0, text: |db| format!("{db:.0} dB") };
    out.push_str(&svg::bars("SQNR by layer, in graph order", &bars, &axis, &[]));
    let mut worst: Vec<_> = report.layers.iter().collect();
    worst.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
    let names: Vec<String> = worst
        .iter()
        .take(WORST)
        .map(|layer| {
            format!("{} ({}, {})", code(&layer.node), escape(&layer.op_type), numbers::decibels(layer.sqnr_db))
        })
        .collect();
    let _ = writeln!(
        out,
        "<p>Lowest: {}.</p><p class=\"note\">Signal-to-quantization-noise ratio of each layer's output against the float \
         model, all quantization before it included.</p>",
        names.join(", "),
    );
}

pub(super) fn made(out: &mut String, report: &Report) {
    let made = &report.made;
    heading(out, "How it was made");
    if !made.command.is_empty() {
        let _ = writeln!(out, "<pre>{}</pre>", escape(&made.command));
    }
    let test = made.test.as_ref().map(|test| format!(", tested with {} of {}", test.samples, code(&test.file)));
    let config = &made.config;
    let settings = format!(
        "observer {}, {}-bit weights {}, {} activations",
        config.observer.map_or("layer outputs".to_owned(), |observer| observer.to_string()),
        if config.reduce_range { 7 } else { config.bits.weights.bits() },
        if config.per_channel { "per channel" } else { "per tensor" },
        dtype_name(config.activations.dtype(config.bits.activations)),
    );
    let _ = writeln!(
        out,
        "<p>equant {}; calibrated with {} samples of {}{}. Float model run by {} on {} threads. Settings: {}.</p>\
         <p class=\"note\">Nothing is drawn at random: the same inputs give the same files, for any number of \
         threads.</p>",
        report.equant,
        made.calibration.samples,
        code(&made.calibration.file),
        test.unwrap_or_default(),
        made.backend,
        made.threads,
        escape(&settings),
    );
    let total: f64 = made.stages.iter().map(|stage| stage.seconds).sum();
    let steps = made.stages.iter().map(|stage| (stage.name, stage.seconds)).chain([("total", total)]);
    rows(out, 1, &["step", "time"], steps.map(|(name, time)| vec![escape(name), numbers::seconds(time)]));
    if !report.passes.is_empty() {
        out.push_str("<p></p>");
        let passes = report.passes.iter().map(|pass| vec![escape(pass.name), pass.places.to_string()]);
        rows(out, 1, &["rewrite before quantization", "places"], passes);
    }
}
