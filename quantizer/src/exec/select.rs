//! The part of a graph that chosen values need, and the values put back in the order they were asked for.

use super::{Error, Runner, Single};
use crate::data::Batch;
use crate::graph::shape::{ShapeError, infer_partial};
use crate::graph::{DataType, Dim, Graph, ValueInfo};

/// Where a chosen value comes from.
#[derive(Debug)]
enum Origin {
    /// A graph input.
    Input(usize),
    /// An output of the selected graph.
    Output(usize),
    /// An initializer.
    Constant(Vec<f32>),
}

/// The selected graph and how to feed and read it.
#[derive(Debug)]
pub(super) struct Selection {
    /// Batch 1, no unused nodes or inputs; each output once, none of them an input or an initializer.
    pub(super) graph: Graph,
    /// For each input of the selected graph, which input of the whole graph it is.
    fed: Vec<usize>,
    /// Name and elements per sample of each input of the whole graph.
    inputs: Vec<(String, usize)>,
    origins: Vec<Origin>,
}

/// Cuts out what `values` need.
pub(super) fn select(graph: &Graph, values: &[String]) -> Result<Selection, Error> {
    let mut graph = graph.clone();
    let shapes = infer_partial(&graph, 1);
    if let Some(index) = shapes.errors.iter().position(|error| !matches!(error, ShapeError::Node { .. })) {
        return Err(Error::Shape(shapes.errors[index].clone()));
    }
    let mut inputs = Vec::new();
    for input in &mut graph.inputs {
        if let Some(kind) = shapes.types.get(&input.name) {
            input.shape = Some(kind.shape.iter().map(|&dim| Dim::Known(dim)).collect());
            inputs.push((input.name.clone(), kind.shape.iter().product()));
        }
    }
    let known = graph.outputs.iter().map(|o| o.name.as_str()).collect::<Vec<_>>().join(", ");
    let declared = std::mem::take(&mut graph.outputs);
    let mut origins = Vec::new();
    for value in values {
        if let Some(i) = graph.inputs.iter().position(|input| input.name == *value) {
            origins.push(Origin::Input(i));
        } else if let Some(tensor) = graph.initializers.get(value) {
            origins.push(Origin::Constant(tensor.to_f32()));
        } else if let Some(i) = graph.outputs.iter().position(|output| output.name == *value) {
            origins.push(Origin::Output(i));
        } else if !value.is_empty() && graph.nodes.iter().any(|node| node.outputs.contains(value)) {
            let kind = shapes.types.get(value);
            let declared = declared.iter().find(|output| output.name == *value);
            let dtype = kind.map(|kind| kind.dtype).or(declared.map(|output| output.dtype));
            let shape = kind.map(|kind| kind.shape.iter().map(|&dim| Dim::Known(dim)).collect());
            origins.push(Origin::Output(graph.outputs.len()));
            graph.outputs.push(ValueInfo { name: value.clone(), dtype: dtype.unwrap_or(DataType::F32), shape });
        } else {
            return Err(Error::NoSuchValue { value: value.clone(), known });
        }
    }
    graph.remove_unused();
    let mut fed = Vec::new();
    let mut index = 0;
    graph.inputs.retain(|input| {
        let used = graph.nodes.iter().any(|node| node.inputs.contains(&input.name));
        if used {
            fed.push(index);
        }
        index += 1;
        used
    });
    Ok(Selection { graph, fed, inputs, origins })
}

/// Runs the selected graph sample by sample.
pub(super) struct Selected {
    single: Option<Box<dyn Single>>,
    fed: Vec<usize>,
    inputs: Vec<(String, usize)>,
    origins: Vec<Origin>,
}

impl Selected {
    pub(super) fn new(selection: Selection, single: Option<Box<dyn Single>>) -> Self {
        Self { single, fed: selection.fed, inputs: selection.inputs, origins: selection.origins }
    }
}

impl Runner for Selected {
    fn run(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, Error> {
        check(batch, &self.inputs)?;
        let mut values: Vec<Vec<f32>> = vec![Vec::new(); self.origins.len()];
        let sample = |input: usize, index: usize| {
            let elements = self.inputs[input].1;
            &batch.inputs[input][index * elements..][..elements]
        };
        for index in 0..batch.count {
            let inputs: Vec<&[f32]> = self.fed.iter().map(|&input| sample(input, index)).collect();
            let mut add = |value: usize, elements: &[f32]| {
                let value = &mut values[value];
                if index == 0 {
                    value.reserve_exact(elements.len() * batch.count);
                }
                value.extend_from_slice(elements);
            };
            for (i, origin) in self.origins.iter().enumerate() {
                match origin {
                    Origin::Input(input) => add(i, sample(*input, index)),
                    Origin::Constant(elements) => add(i, elements),
                    Origin::Output(_) => {}
                }
            }
            let Some(single) = &self.single else { continue };
            single.run(&inputs, &mut |output, elements| {
                let asked = |origin: &Origin| matches!(origin, Origin::Output(of) if *of == output);
                let values = self.origins.iter().enumerate().filter(|(_, origin)| asked(origin));
                values.for_each(|(i, _)| add(i, elements));
            })?;
        }
        Ok(values)
    }
}

/// Checks that a batch has the elements that the inputs need.
pub(super) fn check(batch: &Batch, inputs: &[(String, usize)]) -> Result<(), Error> {
    if batch.inputs.len() != inputs.len() {
        return Err(Error::InputCount { needed: inputs.len(), found: batch.inputs.len() });
    }
    for ((input, elements), values) in inputs.iter().zip(&batch.inputs) {
        let needed = batch.count * elements;
        if values.len() != needed {
            return Err(Error::InputLength { input: input.clone(), found: values.len(), count: batch.count, needed });
        }
    }
    Ok(())
}
