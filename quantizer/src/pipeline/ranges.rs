//! What calibration sees of each quantized value: its statistics, and what its readers read, to choose its range by.

use std::collections::BTreeMap;

use super::Request;
use super::patches::{self, Target};
use crate::data::{Batch, Samples};
use crate::exec;
use crate::graph::Graph;
use crate::graph::shape::infer_partial;
use crate::observe::{Range, Statistics};
use crate::parallel::in_parallel;
use crate::quantize::{self, Config, Reader};
use crate::round::Rows;

/// Samples at most.
const SAMPLES: usize = 512;
/// Patches of each reader at most.
const PATCHES: usize = 2048;
/// Elements of all patches of a grouped layer at most.
const ELEMENTS: usize = 1 << 19;

/// What one pass over samples tells of a graph's values.
pub(super) struct Observed {
    /// Of the values that are quantized.
    pub(super) statistics: BTreeMap<String, Statistics>,
    /// What reads each group of quantized values ([`quantize::range_values`]); none where an observer chooses the ranges.
    readers: Vec<Vec<Reader>>,
}

impl Observed {
    /// Runs the graph over all samples. Readers are looked at on the first of them, and only where ranges are to be
    /// chosen by them. The result does not depend on the number of threads.
    pub(super) fn of(
        graph: &Graph,
        samples: &Samples,
        request: &Request,
        by_readers: bool,
        advance: &dyn Fn(usize),
    ) -> Result<Self, exec::Error> {
        let groups = if by_readers { quantize::range_values(graph) } else { Vec::new() };
        let shapes = infer_partial(graph, 1).types;
        let places: Vec<Vec<Place<'_>>> = groups.iter().map(|group| places(graph, group, &shapes)).collect();
        let observed = quantize::values_to_observe(graph);
        let read = places.iter().flatten().map(|place| place.value.clone());
        let names: Vec<String> = observed.iter().cloned().chain(read).collect();
        let runner = exec::runner(graph, &names, request.backend)?;
        let looked_at = samples.len().min(SAMPLES);
        let look = |batch: &Batch, values: Vec<Vec<f32>>| {
            let (values, read) = values.split_at(observed.len());
            let cut = || places.iter().flatten().zip(read).map(|(place, read)| place.cut(batch, read, looked_at));
            let cuts = if batch.first < SAMPLES { cut().collect() } else { Vec::new() };
            (batch.count, super::statistics::each(Statistics::of, values), cuts)
        };
        let none = places.iter().flatten().map(|place| vec![Vec::new(); place.groups()]).collect();
        let start = (vec![Statistics::default(); observed.len()], none);
        type Part = (usize, Vec<Statistics>, Vec<Vec<Vec<f32>>>);
        let join = |(mut all, mut cuts): (Vec<Statistics>, Vec<Vec<Vec<f32>>>), part: Part| {
            all.iter_mut().zip(&part.1).for_each(|(all, part)| all.merge(part));
            for (all, part) in cuts.iter_mut().flatten().zip(part.2.into_iter().flatten()) {
                all.extend(part);
            }
            advance(part.0);
            (all, cuts)
        };
        let (statistics, cuts) = exec::fold(&*runner, samples, request.threads, look, start, join)?;
        let mut cuts = cuts.into_iter();
        let readers = |places: &Vec<Place<'_>>| places.iter().zip(&mut cuts).map(|(p, cuts)| p.reader(cuts)).collect();
        Ok(Self {
            readers: places.iter().map(readers).collect(),
            statistics: observed.into_iter().zip(statistics).collect(),
        })
    }

    /// For each group of quantized values (by its first value), the range that costs its readers least; nothing where an
    /// observer is to choose.
    pub(super) fn ranges(
        &self,
        graph: &Graph,
        config: &Config,
        threads: usize,
    ) -> Result<BTreeMap<String, Range>, quantize::Error> {
        if config.observer.is_some() {
            return Ok(BTreeMap::new());
        }
        let groups = quantize::range_groups(graph, &self.statistics, config)?;
        let chosen = in_parallel(groups.len(), threads, |i| {
            let readers = self.readers.get(i).map(Vec::as_slice).unwrap_or_default();
            quantize::choose_range(&groups[i].seen, readers, groups[i].levels).0
        });
        Ok(groups.into_iter().zip(chosen).map(|(group, range)| (group.value, range)).collect())
    }
}

/// A reader of a value.
struct Place<'g> {
    value: String,
    kind: Kind<'g>,
}

enum Kind<'g> {
    Layer(Box<Target<'g>>),
    /// Something that passes the value on: elements of one sample.
    Passing(usize),
}

fn places<'g>(
    graph: &'g Graph,
    values: &[String],
    shapes: &BTreeMap<String, crate::graph::shape::TensorType>,
) -> Vec<Place<'g>> {
    let mut places = Vec::new();
    for node in &graph.nodes {
        let read = node.inputs.iter().find(|&name| values.contains(name));
        let Some(value) = read.cloned() else { continue };
        match patches::target(graph, node, shapes) {
            Some(target) if node.input(0) == Some(&value) => {
                places.push(Place { value, kind: Kind::Layer(Box::new(target)) })
            }
            // Data that is only moved within the group is read further on.
            _ if node.outputs.iter().any(|name| values.contains(name)) => {}
            _ => {
                let elements = shapes.get(&value).map_or(1, |kind| kind.shape.iter().product());
                places.push(Place { value, kind: Kind::Passing(elements) });
            }
        }
    }
    places
}

impl Place<'_> {
    fn groups(&self) -> usize {
        match &self.kind {
            Kind::Layer(target) => target.rows.groups,
            Kind::Passing(_) => 1,
        }
    }

    fn cut(&self, batch: &Batch, values: &[f32], samples: usize) -> Vec<Vec<f32>> {
        match &self.kind {
            Kind::Layer(target) => {
                let Rows { groups, depth, .. } = target.rows;
                let patches = PATCHES.min(ELEMENTS / (groups * depth).max(1)).max(64);
                let cut = |group| {
                    let mut cut = Vec::new();
                    target.cut(batch, values, group, patches.div_ceil(samples.max(1)), &mut cut);
                    cut
                };
                (0..groups).map(cut).collect()
            }
            Kind::Passing(elements) => {
                let keep = (16 * PATCHES).div_ceil(samples.max(1)).min(*elements);
                let places = patches::positions(*elements, keep, batch.first);
                vec![values.chunks((*elements).max(1)).flat_map(|sample| places.iter().map(|&i| sample[i])).collect()]
            }
        }
    }

    fn reader(&self, cuts: Vec<Vec<f32>>) -> Reader {
        match &self.kind {
            Kind::Layer(target) => {
                let Rows { rows, depth, groups, .. } = target.rows;
                let weights = target.weights.chunks(rows / groups * depth).map(<[f32]>::to_vec);
                Reader::layer(cuts.into_iter().zip(weights).collect(), depth)
            }
            Kind::Passing(_) => Reader::passing(cuts.into_iter().flatten().collect()),
        }
    }
}
