//! `equant run`.

use equant_runtime::plan::AlignedBytes;
use serde::Serialize;

use super::args::RunArgs;
use super::error::Failure;
use super::model::Model;
use super::output::{Output, most};
use super::profile::Times;
use crate::exec::BATCH;
use crate::metrics::argmax;
use crate::pipeline;
use crate::report::numbers::real;

/// Values shown for an output without classes.
const SHOWN: usize = 8;

#[derive(Serialize)]
struct Line<'a> {
    sample: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<i64>,
    outputs: &'a [&'a [f32]],
    /// What the class is the largest of: the first output, after the last step of a sequence.
    #[serde(skip)]
    scores: &'a [f32],
}

pub(super) fn run(args: RunArgs, output: &Output) -> Result<(), Failure> {
    let model = Model::streaming(&args.model, &args.exec.dims(), &args.streaming.state)?;
    let image = if args.profile { model.plan()? } else { None };
    if args.profile && image.is_none() {
        return Err(Failure::Usage(format!(
            "--profile: {} is a float model; times are those of a plan's operators: quantize it first",
            model.file
        )));
    }
    let preprocess = args.reading.preprocess.as_deref();
    let samples = pipeline::open_samples(&args.input, &model.graph, preprocess)?.head(most(args.limit));
    let (inputs, outputs) = model.shapes();
    let classes = outputs.first().filter(|output| inputs.first() != Some(output)).map_or(1, |o| o.iter().product());
    let runner = model.runner(args.exec.backend.backend())?;
    let image = image.as_deref().map(AlignedBytes::from);
    let mut times = Times::default();
    let run_error = |source| Failure::from(pipeline::Error::run(&model.file, source));
    for batch in samples.batches(BATCH).map_err(|e| Failure::from(pipeline::Error::from(e)))? {
        let batch = batch.map_err(|e| Failure::from(pipeline::Error::from(e)))?;
        let values = runner.run(&batch).map_err(run_error)?;
        if let Some(image) = &image {
            times.run(image, &model.file, &batch)?;
        }
        for i in 0..batch.count {
            let row: Vec<&[f32]> = values.iter().map(|value| part(value, i, batch.count)).collect();
            let first = row.first().copied().unwrap_or_default();
            let scores = &first[first.len().saturating_sub(classes)..];
            let line = Line {
                sample: batch.first + i,
                class: if classes > 1 { argmax(scores) } else { None },
                scores,
                label: samples.labels().and_then(|labels| labels.get(batch.first + i).copied()),
                outputs: &row,
            };
            if output.is_json() { output.json_line(&line)? } else { output.text(&text(&line))? }
        }
    }
    match image {
        Some(_) if output.is_json() => output.json_line(&times),
        Some(_) => output.text(&times.text()),
        None => Ok(()),
    }
}

fn part(values: &[f32], i: usize, count: usize) -> &[f32] {
    let len = values.len() / count.max(1);
    values.get(i * len..(i + 1) * len).unwrap_or_default()
}

fn text(line: &Line<'_>) -> String {
    let mut out = format!("{:>6}  ", line.sample);
    let first = line.outputs.first().copied().unwrap_or_default();
    match line.class {
        Some(class) => {
            out += &format!("class {class} ({})", real(line.scores.get(class).copied().unwrap_or(0.0).into()));
            match line.label {
                Some(label) if i64::try_from(class) == Ok(label) => out += &format!("  label {label}"),
                Some(label) => out += &format!("  label {label}  wrong"),
                None => {}
            }
        }
        None => {
            let shown: Vec<String> = first.iter().take(SHOWN).map(|&value| real(value.into())).collect();
            let more = if first.len() > SHOWN { format!(" … ({} values)", first.len()) } else { String::new() };
            out += &format!("{}{more}", shown.join(" "));
            out += &line.label.map(|label| format!("  label {label}")).unwrap_or_default();
        }
    }
    out + "\n"
}
