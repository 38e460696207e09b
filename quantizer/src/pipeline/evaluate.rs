//! Runs several models on the same samples and compares them.

use crate::data::{Batch, Samples};
use crate::exec::{self, Runner};
use crate::metrics::{Metric, Observation, Tally};

/// Judges model `subject` (an index into the runners) against model `reference`.
#[derive(Debug, Clone, Copy)]
pub struct Comparison {
    /// The model judged.
    pub subject: usize,
    /// The model it is compared with.
    pub reference: Option<usize>,
}

/// How samples are run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// What the models are judged by.
    pub metric: Metric,
    /// Number of threads.
    pub threads: usize,
}

/// Totals of each comparison over the samples, which are streamed: memory does not grow with their number, but for
/// the scores that [`Metric::Auc`] keeps.
///
/// All runners give their model outputs, and nothing else. `advance` is told of samples done.
///
/// # Errors
///
/// The first error of the samples or a runner.
pub fn evaluate(
    runners: &[&dyn Runner],
    comparisons: &[Comparison],
    samples: &Samples,
    run: Run,
    advance: &dyn Fn(usize),
) -> Result<Vec<Tally>, exec::Error> {
    let labels = samples.labels();
    let start: Vec<Tally> = comparisons.iter().map(|_| Tally::new(run.metric)).collect();
    let judge = |batch: &Batch, first: Vec<Vec<f32>>| -> Result<(usize, Vec<Tally>), exec::Error> {
        let mut values = vec![first];
        for runner in runners.iter().skip(1) {
            values.push(runner.run(batch)?);
        }
        let mut tallies: Vec<Tally> = comparisons.iter().map(|_| Tally::new(run.metric)).collect();
        for i in 0..batch.count {
            let outputs: Vec<Vec<&[f32]>> =
                values.iter().map(|model| model.iter().map(|v| sample(v, i, batch.count)).collect()).collect();
            let input = batch.inputs.first().map(|input| sample(input, i, batch.count)).unwrap_or_default();
            let label = labels.and_then(|labels| labels.get(batch.first + i).copied());
            for (comparison, tally) in comparisons.iter().zip(&mut tallies) {
                tally.add(&Observation {
                    input,
                    outputs: &outputs[comparison.subject],
                    reference: comparison.reference.map(|reference| outputs[reference].as_slice()),
                    label,
                });
            }
        }
        Ok((batch.count, tallies))
    };
    let add = |totals: Result<Vec<Tally>, exec::Error>, part: Result<(usize, Vec<Tally>), exec::Error>| {
        let (mut totals, (count, part)) = (totals?, part?);
        totals.iter_mut().zip(&part).for_each(|(total, more)| total.merge(more));
        advance(count);
        Ok(totals)
    };
    let Some(first) = runners.first() else { return Ok(start) };
    exec::fold(*first, samples, run.threads, judge, Ok(start), add)?
}

/// The elements of sample `i` of `count`.
fn sample(values: &[f32], i: usize, count: usize) -> &[f32] {
    let len = values.len() / count.max(1);
    values.get(i * len..(i + 1) * len).unwrap_or_default()
}
