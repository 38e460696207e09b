//! Float graphs in tract.

use std::sync::Arc;

use tract_onnx::prelude::*;

use super::{Error, Single};
use crate::graph::{DataType, Dim, Graph, ValueInfo};
use crate::onnx;

/// Operators that tract computes in its own quantized types, not as ONNX defines them.
const QUANTIZED: [&str; 3] = ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"];

/// A graph in tract's optimized form.
struct Model {
    plan: Arc<TypedRunnableModel>,
    /// Shapes of the graph inputs.
    inputs: Vec<Vec<usize>>,
    /// Further inputs that are the same for every sample.
    divisors: Vec<TValue>,
}

/// Loads a graph whose input and output shapes are fixed.
pub(super) fn load(graph: &Graph) -> Result<Box<dyn Single>, Error> {
    if let Some(node) = graph.nodes.iter().find(|node| QUANTIZED.contains(&node.op_type.as_str())) {
        return Err(Error::Quantized { node: node.name.clone(), op_type: node.op_type.clone() });
    }
    build(graph)
        .map(|model| Box::new(model) as Box<dyn Single>)
        .map_err(|error| Error::TractRefused { reason: format!("{error:#}") })
}

fn build(graph: &Graph) -> TractResult<Model> {
    let mut graph = graph.clone();
    let divisors = divisors_as_inputs(&mut graph);
    let bytes = onnx::to_bytes(&graph);
    let model = tract_onnx::onnx().model_for_read(&mut &bytes[..])?.into_typed()?.into_optimized()?;
    let mut inputs = Vec::new();
    for i in 0..model.inputs.len() {
        let shape = model.input_fact(i)?.shape.as_concrete().map(<[usize]>::to_vec);
        inputs.push(shape.ok_or_else(|| TractError::msg(format!("input {i} has no fixed shape")))?);
    }
    let constants = inputs.split_off(inputs.len().saturating_sub(divisors.len()));
    let divisors = divisors.iter().zip(constants).map(|(values, shape)| Tensor::from_shape(&shape, values));
    let divisors = divisors.map(|tensor| Ok(tensor?.into_tvalue())).collect::<TractResult<_>>()?;
    Ok(Model { plan: model.into_runnable()?, inputs, divisors })
}

/// Makes constant divisors graph inputs, and gives their elements.
///
/// tract turns a division by a constant into a product with its reciprocal, which differs in the last bit; where the
/// quotient is rounded, as in simulated quantization, that can be a whole step.
fn divisors_as_inputs(graph: &mut Graph) -> Vec<Vec<f32>> {
    let mut divisors = Vec::new();
    for node in graph.nodes.iter().filter(|node| node.op_type == "Div" && node.domain.is_empty()) {
        let Some(name) = node.input(1) else { continue };
        let float = graph.initializers.get(name).is_some_and(|tensor| tensor.dtype == DataType::F32);
        if float && let Some((name, tensor)) = graph.initializers.remove_entry(name) {
            let shape = tensor.shape.iter().map(|&dim| Dim::Known(dim)).collect();
            graph.inputs.push(ValueInfo { name, dtype: tensor.dtype, shape: Some(shape) });
            divisors.push(tensor.to_f32());
        }
    }
    divisors
}

impl Single for Model {
    fn run(&self, inputs: &[&[f32]]) -> Result<Vec<Vec<f32>>, Error> {
        let run = || -> TractResult<Vec<Vec<f32>>> {
            let mut values = TVec::new();
            for (values_in, shape) in inputs.iter().zip(&self.inputs) {
                values.push(Tensor::from_shape(shape, values_in)?.into_tvalue());
            }
            values.extend(self.divisors.iter().cloned());
            let outputs = self.plan.run(values)?;
            let floats = |value: &TValue| {
                let value = value.cast_to::<f32>()?;
                Ok(value.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
            };
            outputs.iter().map(floats).collect()
        };
        run().map_err(|error| Error::TractRun { reason: format!("{error:#}") })
    }
}
