//! A graph run piece by piece over samples held in memory, so that each node runs once however many layers stop to look
//! at their inputs.

use std::collections::{BTreeMap, BTreeSet};

use crate::data::Batch;
use crate::exec::{self, Backend};
use crate::graph::shape::infer_partial;
use crate::graph::{DataType, Dim, Graph, ValueInfo};

/// The values that are alive before some node, for every batch of samples.
#[derive(Debug, Clone)]
pub(super) struct Prefix {
    /// Index of the node that runs next.
    next: usize,
    names: Vec<String>,
    batches: Vec<Batch>,
}

impl Prefix {
    /// Before the first node.
    pub(super) fn new(graph: &Graph, batches: Vec<Batch>) -> Self {
        Self { next: 0, names: graph.inputs.iter().map(|input| input.name.clone()).collect(), batches }
    }

    /// Number of samples.
    pub(super) fn samples(&self) -> usize {
        self.batches.iter().map(|batch| batch.count).sum()
    }

    /// The samples' elements of a value that is alive, for each batch.
    pub(super) fn value(&self, name: &str) -> Option<impl Iterator<Item = (&Batch, &[f32])>> {
        let at = self.names.iter().position(|alive| alive == name)?;
        Some(self.batches.iter().map(move |batch| (batch, batch.inputs[at].as_slice())))
    }

    /// Runs `graph` up to node `until`. The graph may differ from the one run before, but not in the names of values
    /// that are alive.
    pub(super) fn advance(
        &mut self,
        graph: &Graph,
        until: usize,
        backend: Backend,
        threads: usize,
    ) -> Result<(), exec::Error> {
        self.run(graph, until, alive(graph, until), backend, threads)
    }

    /// Runs the rest of `graph` over the batches that hold the first `samples` samples, and gives for each of them the
    /// values `outputs` in place of its inputs.
    pub(super) fn finish(
        mut self,
        graph: &Graph,
        outputs: Vec<String>,
        samples: usize,
        backend: Backend,
        threads: usize,
    ) -> Result<Vec<Batch>, exec::Error> {
        self.batches.truncate(samples.div_ceil(exec::BATCH));
        self.run(graph, graph.nodes.len(), outputs, backend, threads)?;
        Ok(self.batches)
    }

    /// Runs `graph` up to node `until` and keeps the values `names`.
    fn run(
        &mut self,
        graph: &Graph,
        until: usize,
        names: Vec<String>,
        backend: Backend,
        threads: usize,
    ) -> Result<(), exec::Error> {
        let piece = piece(graph, self.next, until, &self.names);
        let runner = exec::runner(&piece, &names, backend)?;
        let batches = std::mem::take(&mut self.batches);
        let map = |batch: &Batch, inputs: Vec<Vec<f32>>| Batch { first: batch.first, count: batch.count, inputs };
        let keep = |mut kept: Vec<Batch>, batch| {
            kept.push(batch);
            kept
        };
        self.batches = exec::fold_batches(&*runner, batches.into_iter().map(Ok), threads, map, Vec::new(), keep)?;
        (self.next, self.names) = (until, names);
        Ok(())
    }
}

/// The values made before node `at` that it or a later one reads, or that the graph gives.
fn alive(graph: &Graph, at: usize) -> Vec<String> {
    let inputs = graph.inputs.iter().map(|input| &input.name);
    let made: BTreeSet<&String> = inputs.chain(graph.nodes[..at].iter().flat_map(|node| &node.outputs)).collect();
    let given = graph.outputs.iter().map(|output| &output.name);
    let read: BTreeSet<&String> = graph.nodes[at..].iter().flat_map(|node| &node.inputs).chain(given).collect();
    made.intersection(&read).filter(|name| !name.is_empty()).map(|&name| name.clone()).collect()
}

/// Nodes `from` to `until` as a graph of their own that reads the values `inputs`.
fn piece(graph: &Graph, from: usize, until: usize, inputs: &[String]) -> Graph {
    let types = infer_partial(graph, 1).types;
    let input = |name: &String| ValueInfo {
        name: name.clone(),
        dtype: graph.inputs.iter().find(|input| input.name == *name).map_or(DataType::F32, |input| input.dtype),
        shape: types.get(name).map(|kind| kind.shape.iter().map(|&size| Dim::Known(size)).collect()),
    };
    Graph {
        nodes: graph.nodes[from..until].to_vec(),
        inputs: inputs.iter().map(input).collect(),
        outputs: Vec::new(),
        ..graph.clone()
    }
}

/// The most elements alive at once before any of the nodes `at`, for one sample.
pub(super) fn widest(graph: &Graph, at: &[usize]) -> usize {
    let types = infer_partial(graph, 1).types;
    let elements: BTreeMap<&String, usize> =
        types.iter().map(|(name, kind)| (name, kind.shape.iter().product())).collect();
    at.iter().map(|&at| alive(graph, at).iter().filter_map(|name| elements.get(name)).sum()).max().unwrap_or(0)
}
