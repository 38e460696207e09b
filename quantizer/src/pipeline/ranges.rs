//! Collects what the readers of each quantized value read, to choose its range by.

use std::collections::BTreeMap;

use super::patches::{self, Target};
use super::{Error, Request};
use crate::data::{Batch, Samples};
use crate::exec;
use crate::graph::Graph;
use crate::graph::shape::infer_partial;
use crate::observe::{Range, Statistics};
use crate::parallel::in_parallel;
use crate::quantize::{self, RangeGroup, Reader};
use crate::round::Rows;

/// Samples at most.
const SAMPLES: usize = 512;
/// Patches of each reader at most.
const PATCHES: usize = 2048;
/// Elements of all patches of a grouped layer at most.
const ELEMENTS: usize = 1 << 19;

/// For each group of quantized values (by its first value), the range that costs its readers least.
pub(super) fn choose(
    graph: &Graph,
    statistics: &BTreeMap<String, Statistics>,
    samples: &Samples,
    request: &Request,
    file: &str,
) -> Result<BTreeMap<String, Range>, Error> {
    let run_error = |source| Error::run(file, source);
    let groups = quantize::range_groups(graph, statistics, &request.config)
        .map_err(|source| Error::Quantize { file: file.to_owned(), source: Box::new(source) })?;
    let samples = samples.head(SAMPLES);
    let shapes = infer_partial(graph, 1).types;
    let readers: Vec<Vec<Place<'_>>> = groups.iter().map(|group| places(graph, group, &shapes)).collect();
    let names: Vec<String> = readers.iter().flatten().map(|place| place.value.clone()).collect();
    let runner = exec::runner(graph, &names, request.backend).map_err(run_error)?;
    let cut = |batch: &Batch, values: Vec<Vec<f32>>| -> Vec<Vec<Vec<f32>>> {
        let flat = readers.iter().flatten();
        flat.zip(&values).map(|(place, values)| place.cut(batch, values, samples.len())).collect()
    };
    let start: Vec<Vec<Vec<f32>>> = readers.iter().flatten().map(|place| vec![Vec::new(); place.groups()]).collect();
    let join = |mut all: Vec<Vec<Vec<f32>>>, part: Vec<Vec<Vec<f32>>>| {
        for (all, part) in all.iter_mut().flatten().zip(part.into_iter().flatten()) {
            all.extend(part);
        }
        all
    };
    let cuts = exec::fold(&*runner, &samples, request.threads, cut, start, join).map_err(run_error)?;
    let mut cuts = cuts.into_iter();
    let readers: Vec<Vec<Reader>> = readers
        .iter()
        .map(|places| places.iter().zip(&mut cuts).map(|(place, cuts)| place.reader(cuts)).collect())
        .collect();
    let chosen = in_parallel(groups.len(), request.threads, |i| {
        let group = &groups[i];
        quantize::choose_range(&group.seen, &readers[i], group.levels).0
    });
    Ok(groups.into_iter().zip(chosen).map(|(group, range)| (group.value, range)).collect())
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
    group: &RangeGroup,
    shapes: &BTreeMap<String, crate::graph::shape::TensorType>,
) -> Vec<Place<'g>> {
    let mut places = Vec::new();
    for node in &graph.nodes {
        let read = node.inputs.iter().find(|&name| group.values.contains(name));
        let Some(value) = read.cloned() else { continue };
        match patches::target(graph, node, shapes) {
            Some(target) if node.input(0) == Some(&value) => {
                places.push(Place { value, kind: Kind::Layer(Box::new(target)) })
            }
            // Data that is only moved within the group is read further on.
            _ if node.outputs.iter().any(|name| group.values.contains(name)) => {}
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
                let cut = |group| target.cut(batch, values, group, patches.div_ceil(samples.max(1)));
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
