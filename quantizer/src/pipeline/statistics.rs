//! Statistics of values over samples.

use std::collections::BTreeMap;

use crate::data::{Batch, Samples};
use crate::exec::{self, Backend};
use crate::graph::Graph;
use crate::observe::Statistics;

/// Statistics of the values named, over all samples. The result does not depend on the number of threads.
///
/// # Errors
///
/// The first error of the samples or the executor.
pub fn statistics(
    graph: &Graph,
    names: Vec<String>,
    samples: &Samples,
    backend: Backend,
    threads: usize,
    advance: &dyn Fn(usize),
) -> Result<BTreeMap<String, Statistics>, exec::Error> {
    statistics_by(Statistics::of, graph, names, samples, backend, threads, advance)
}

/// As [`statistics`], with `of` for what is kept of a batch's elements.
pub(super) fn statistics_by(
    of: fn(&[f32]) -> Statistics,
    graph: &Graph,
    names: Vec<String>,
    samples: &Samples,
    backend: Backend,
    threads: usize,
    advance: &dyn Fn(usize),
) -> Result<BTreeMap<String, Statistics>, exec::Error> {
    let runner = exec::runner(graph, &names, backend)?;
    let summarize = |batch: &Batch, values: Vec<Vec<f32>>| (batch.count, each(of, &values));
    let start = vec![Statistics::default(); names.len()];
    let all = exec::fold(&*runner, samples, threads, summarize, start, |mut all, (count, part)| {
        all.iter_mut().zip(&part).for_each(|(total, part)| total.merge(part));
        advance(count);
        all
    })?;
    Ok(names.into_iter().zip(all).collect())
}

/// The statistics of some values' elements.
pub(super) fn each(of: fn(&[f32]) -> Statistics, values: &[Vec<f32>]) -> Vec<Statistics> {
    values.iter().map(|values| of(values)).collect()
}
