//! Weights and activations as `equant inspect` shows them.

use std::fmt::Write as _;

use super::args::ExecArgs;
use super::error::Failure;
use super::model::Model;
use super::output::{Output, table};
use crate::data::Samples;
use crate::diagnose::{self, Activation, OUTLIER_FACTOR};
use crate::pipeline::{self, Progress as _};
use crate::report::numbers::{bytes, real, shape};
use crate::report::{WeightBytes, Weights};

/// Channels named at most.
const NAMED: usize = 8;

/// Runs samples through a model and looks at its activations.
pub(super) fn look(
    model: &Model,
    samples: &Samples,
    exec: &ExecArgs,
    output: &Output,
) -> Result<Vec<Activation>, Failure> {
    let subjects = diagnose::subjects(&model.graph);
    let names: Vec<String> = subjects.iter().map(|subject| subject.value.clone()).collect();
    let runner = model.runner_of(&names, exec.backend.backend())?;
    let progress = output.progress();
    progress.begin("diagnose", samples.len());
    let start = std::time::Instant::now();
    let seen = diagnose::activations(&subjects, &*runner, samples, exec.threads(), &|done| progress.advance(done))
        .map_err(|source| pipeline::Error::run(&model.file, source))?;
    progress.end("diagnose", start.elapsed().as_secs_f64());
    Ok(seen)
}

/// Weights: how they are stored, and what they hold.
pub(super) fn weights(weights: &[Weights], total: WeightBytes, kind: &str) -> String {
    if weights.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = weights
        .iter()
        .map(|weights| {
            vec![
                weights.op_type.clone(),
                weights.node.clone(),
                shape(&weights.shape),
                weights.dtype.clone(),
                outliers(&weights.law.outlier_channels),
                format!("{} bit", weights.stored_bits),
                format!("{:.2} bit", weights.entropy_bits),
                real(weights.law.kurtosis),
                real(weights.law.channel_kurtosis),
                real(weights.law.largest_to_median),
            ]
        })
        .collect();
    let float = kind == "float";
    let entropy = if float { "int8 entropy" } else { "entropy" };
    let head =
        ["weights of", "", "shape", "type", "outliers", "stored", entropy, "kurtosis", "of a channel", "max/median"];
    let (stored, shannon) = (bytes(total.stored), bytes(total.shannon));
    let mut out = format!("\n{}", table(5, &head, &rows));
    let _ = match float {
        true => writeln!(out, "weights take {stored}; in int8 they hold {shannon} (Shannon entropy)"),
        false => writeln!(
            out,
            "weights take {stored}, in flash too; their Shannon entropy is {shannon}: what an entropy-coded download \
             takes (`equant package`)"
        ),
    };
    out
}

/// Activations over samples.
pub(super) fn activations(activations: &[Activation]) -> String {
    let rows: Vec<Vec<String>> = activations
        .iter()
        .map(|seen| {
            vec![
                seen.value.clone(),
                shape(&seen.shape),
                outliers(&seen.outlier_channels),
                format!("[{}, {}]", real(seen.min), real(seen.max)),
                format!("{:.2} bit", seen.entropy_bits),
                real(seen.kurtosis),
                real(seen.largest_ratio),
            ]
        })
        .collect();
    let head = ["activation", "shape", "outliers", "range", "entropy", "kurtosis", "largest channel"];
    let mut out = format!("\n{}", table(3, &head, &rows));
    let _ = writeln!(
        out,
        "outliers: channels whose mean magnitude exceeds {OUTLIER_FACTOR} times that of all; largest channel: the largest \
         such ratio; kurtosis: 1.8 uniform, 3 normal, more with heavier tails"
    );
    out
}

/// Channels, the first of them named.
fn outliers(channels: &[usize]) -> String {
    let named: Vec<String> = channels.iter().take(NAMED).map(usize::to_string).collect();
    match channels.len() {
        0 => "-".into(),
        n if n <= NAMED => named.join(" "),
        n => format!("{n}: {} ...", named.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_outliers_are_counted() {
        assert_eq!([outliers(&[]), outliers(&[3, 17])], ["-", "3 17"]);
        assert_eq!(outliers(&(0..20).collect::<Vec<_>>()), "20: 0 1 2 3 4 5 6 7 ...");
    }
}
