//! Streaming models over whole sequences: the state that a step gives is what the next one is given.

use super::{Backend, Error, Runner, runner};
use crate::data::Batch;
use crate::graph::shape::infer_partial;
use crate::graph::{Graph, state};

/// Runs a streaming graph over sequences. A batch has one input for each that is given from outside, of
/// `[count, steps, one step]`; every output is `[count, steps, one step]`.
pub struct Stateful {
    /// Gives the outputs asked for, then the states.
    inner: Box<dyn Runner>,
    /// Elements of each input in one step; those of states, and which of the states it is.
    inputs: Vec<(usize, Option<usize>)>,
    /// Outputs asked for.
    outputs: usize,
}

/// What is seen at every step of a batch of sequences.
pub struct Trace {
    /// For every input of the graph, states too: `[count, steps, one step]`.
    pub inputs: Vec<Vec<f32>>,
    /// For every output asked for.
    pub outputs: Vec<Vec<f32>>,
}

impl Stateful {
    /// A runner for the values `outputs` of a streaming graph.
    ///
    /// # Errors
    ///
    /// As [`runner`]; the states of the graph are malformed.
    pub fn new(graph: &Graph, outputs: &[String], backend: Backend) -> Result<Self, Error> {
        let pairs = state::pairs(graph).map_err(|reason| Error::State { reason })?;
        state::check(graph, &pairs).map_err(|reason| Error::State { reason })?;
        let shapes = infer_partial(graph, 1).types;
        let elements = |name: &str| shapes.get(name).map_or(0, |kind| kind.shape.iter().product());
        let place = |name: &str| pairs.iter().position(|pair| pair.input == name);
        let inputs = graph.inputs.iter().map(|input| (elements(&input.name), place(&input.name))).collect();
        let carried = pairs.iter().map(|pair| pair.output.clone());
        let values: Vec<String> = outputs.iter().cloned().chain(carried).collect();
        Ok(Self { inner: runner(graph, &values, backend)?, inputs, outputs: outputs.len() })
    }

    /// As [`Runner::run`], with the states that each step starts from.
    ///
    /// # Errors
    ///
    /// As [`Runner::run`].
    pub fn trace(&self, batch: &Batch) -> Result<Trace, Error> {
        let given: Vec<usize> =
            self.inputs.iter().filter(|(_, state)| state.is_none()).map(|&(elements, _)| elements).collect();
        let steps = steps(batch, &given)?;
        let mut trace = Trace { inputs: vec![Vec::new(); self.inputs.len()], outputs: vec![Vec::new(); self.outputs] };
        for sequence in 0..batch.count {
            let mut states: Vec<Vec<f32>> = Vec::new();
            for step in 0..steps {
                let mut outside = batch.inputs.iter();
                let mut inputs = Vec::with_capacity(self.inputs.len());
                for &(elements, state) in &self.inputs {
                    inputs.push(match state {
                        Some(state) => states.get(state).cloned().unwrap_or_else(|| vec![0.0; elements]),
                        None => {
                            let values = outside.next().map(Vec::as_slice).unwrap_or_default();
                            values.get((sequence * steps + step) * elements..).unwrap_or_default()[..elements].to_vec()
                        }
                    });
                }
                trace.inputs.iter_mut().zip(&inputs).for_each(|(all, step)| all.extend_from_slice(step));
                let mut values = self.inner.run(&Batch { first: batch.first, count: 1, inputs })?;
                states = values.split_off(self.outputs);
                trace.outputs.iter_mut().zip(values).for_each(|(all, step)| all.extend(step));
            }
        }
        Ok(trace)
    }
}

impl Runner for Stateful {
    fn run(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, Error> {
        Ok(self.trace(batch)?.outputs)
    }
}

/// The number of steps of the sequences of a batch, whose inputs have these numbers of elements in one step.
pub(super) fn steps(batch: &Batch, elements: &[usize]) -> Result<usize, Error> {
    if batch.inputs.len() != elements.len() {
        return Err(Error::InputCount { needed: elements.len(), found: batch.inputs.len() });
    }
    let counts = batch.inputs.iter().zip(elements).map(|(values, &elements)| {
        let one = batch.count * elements;
        (one > 0 && values.len().is_multiple_of(one)).then(|| values.len() / one)
    });
    let counts: Option<Vec<usize>> = counts.collect();
    match counts.as_deref() {
        Some([first, rest @ ..]) if rest.iter().all(|steps| steps == first) => Ok(*first),
        _ => Err(Error::State { reason: "the inputs of a batch are no sequences of one length".into() }),
    }
}

/// Gives only the last step of each sequence, as classifiers are judged by.
pub struct LastStep<'r> {
    /// Gives all steps.
    pub runner: &'r dyn Runner,
    /// Elements of each output in one step; `None` leaves all steps.
    pub elements: Option<Vec<usize>>,
}

impl Runner for LastStep<'_> {
    fn run(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, Error> {
        let values = self.runner.run(batch)?;
        let Some(elements) = &self.elements else { return Ok(values) };
        let last = |(values, &elements): (Vec<f32>, &usize)| {
            let sequence = (values.len() / batch.count.max(1)).max(1);
            values.chunks(sequence).flat_map(|all| all[all.len().saturating_sub(elements)..].to_vec()).collect()
        };
        Ok(values.into_iter().zip(elements).map(last).collect())
    }
}
