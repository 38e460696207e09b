//! What was quantized, and how: activations with their distributions, weights.

use std::fmt::Write as _;

use super::super::svg;
use super::{Report, code, escape, heading, numbers, or_dash, rows};

pub(super) fn table(out: &mut String, report: &Report) {
    if report.activations.is_empty() {
        return;
    }
    heading(out, "Activations");
    let head = ["value", "type", "scale", "zero point", "observed", "chosen range", "clipped", "kurtosis", "entropy"];
    let body = report.activations.iter().map(|activation| {
        let seen = activation.observed.as_ref();
        vec![
            code(&activation.value),
            escape(&activation.dtype),
            numbers::real(f64::from(activation.scale)),
            activation.zero_point.to_string(),
            or_dash(seen.map(|s| range(s.min, s.max))),
            range(activation.low, activation.high),
            or_dash(seen.map(|s| numbers::percent(s.clipped))),
            or_dash(seen.map(|s| numbers::real(s.kurtosis))),
            or_dash(seen.map(|s| format!("{:.2} bit", s.entropy_bits))),
        ]
    });
    rows(out, 1, &head, body);
    out.push_str(
        "<p class=\"note\">Clipped: share of the observed elements outside the chosen range. Kurtosis: 3 for a normal \
         distribution, large where few elements stretch the range. Entropy: of the quantized value.</p>\n",
    );
}

pub(super) fn histograms(out: &mut String, report: &Report) {
    let seen: Vec<_> =
        report.activations.iter().filter_map(|a| a.observed.as_ref().map(|observed| (a, observed))).collect();
    if seen.is_empty() {
        return;
    }
    heading(out, "Distributions");
    out.push_str("<div class=\"plots\">\n");
    for (activation, observed) in seen {
        let _ = writeln!(
            out,
            "<figure><figcaption>{}</figcaption>{}</figure>",
            code(&activation.value),
            svg::histogram(&observed.histogram, activation.low, activation.high),
        );
    }
    out.push_str(
        "</div>\n<p class=\"note\">Logarithmic counts over the calibration samples; the chosen range lies between the \
         lines.</p>\n",
    );
}

pub(super) fn weights(out: &mut String, report: &Report) {
    if report.weights.is_empty() {
        return;
    }
    heading(out, "Weights");
    let body = report.weights.iter().map(|weights| {
        vec![
            code(&weights.node),
            escape(&weights.op_type),
            escape(&weights.dtype),
            if weights.per_channel { "per channel".into() } else { "per tensor".into() },
            numbers::shape(&weights.shape),
            range(weights.min, weights.max),
            or_dash(weights.sqnr_db.map(numbers::decibels)),
            format!("{} / {}", numbers::real(weights.law.kurtosis), numbers::real(weights.law.channel_kurtosis)),
            numbers::real(weights.law.largest_to_median),
            weights.law.outlier_channels.len().to_string(),
            format!("{} bit", weights.stored_bits),
            format!("{:.2} bit", weights.entropy_bits),
        ]
    });
    let head = [
        "node",
        "operator",
        "type",
        "scales",
        "shape",
        "range",
        "SQNR",
        "kurtosis",
        "max/median",
        "outliers",
        "stored",
        "entropy",
    ];
    rows(out, 4, &head, body);
    let bytes = &report.weight_bytes;
    let _ = writeln!(
        out,
        "<p class=\"note\">Kurtosis: of the float weights, all together and of the output channel where it is largest; 1.8 \
         for a uniform distribution, 3 for a normal one. Max/median: of the magnitudes of an output channel, where it is \
         largest. Outliers: input channels whose mean magnitude is more than six times that of all. Entropy: Shannon bits per weight of the integers. All weights take {} as stored, in the files and in flash; their entropy \
         is {}, which is what they add to an entropy-coded download (<code>equant package</code>). Flash and memory do \
         not shrink by it.</p>",
        numbers::bytes(bytes.stored),
        numbers::bytes(bytes.shannon),
    );
}

fn range(low: f64, high: f64) -> String {
    format!("[{}, {}]", numbers::real(low), numbers::real(high))
}
