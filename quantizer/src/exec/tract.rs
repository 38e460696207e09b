//! Float graphs in tract.

use std::sync::Arc;

use tract_onnx::prelude::tract_ndarray::Zip;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::binary::{BinMiniOp, TypedBinOp};
use tract_onnx::tract_core::ops::element_wise::{ElementWiseMiniOp, ElementWiseOp};
use tract_onnx::tract_core::ops::math::Div;
use tract_onnx::tract_hir::ops::element_wise::ElementWiseIntoHir as _;

use super::fused::{self, Simulated};
use super::substitute::substitute;
use super::{Error, Single};
use crate::graph::Graph;
use crate::onnx;

/// Operators that tract computes in its own quantized types, not as ONNX defines them.
const QUANTIZED: [&str; 3] = ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"];

/// A graph in tract's optimized form.
struct Model {
    plan: Arc<TypedRunnableModel>,
    /// Shapes and element types of the graph inputs.
    inputs: Vec<(Vec<usize>, DatumType)>,
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
    let bytes = onnx::to_bytes(&fused::fuse(&substitute(graph)));
    let mut reader = tract_onnx::onnx();
    reader.op_register.insert(fused::OP, |_, node| {
        let simulated = Simulated::from_attrs(|name| node.get_attr(name));
        Ok((ElementWiseOp(Box::new(simulated?), None).into_hir(), Vec::new()))
    });
    let mut model = reader.model_for_read(&mut &bytes[..])?.into_typed()?;
    ExactDiv::install(&mut model)?;
    let model = model.into_optimized()?;
    let mut inputs = Vec::new();
    for i in 0..model.inputs.len() {
        let fact = model.input_fact(i)?;
        let shape = fact.shape.as_concrete().map(<[usize]>::to_vec);
        let shape = shape.ok_or_else(|| TractError::msg(format!("input {i} has no fixed shape")))?;
        inputs.push((shape, fact.datum_type));
    }
    Ok(Model { plan: model.into_runnable()?, inputs })
}

impl Single for Model {
    fn run(&self, inputs: &[&[f32]], give: &mut dyn FnMut(usize, &[f32])) -> Result<(), Error> {
        let mut run = || -> TractResult<()> {
            let mut values = TVec::new();
            for (values_in, (shape, kind)) in inputs.iter().zip(&self.inputs) {
                let floats = Tensor::from_shape(shape, values_in)?;
                values.push(floats.cast_to_dt(*kind)?.into_owned().into_tvalue());
            }
            let outputs = self.plan.run(values)?;
            for (i, output) in outputs.iter().enumerate() {
                give(i, output.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?);
            }
            Ok(())
        };
        run().map_err(|error| Error::TractRun { reason: format!("{error:#}") })
    }
}

/// Division of f32 values as IEEE 754 has it.
///
/// tract's own becomes a product with the reciprocal, which differs in the last bit; where the quotient is rounded, as
/// in simulated quantization, that can be a whole step.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ExactDiv;

impl ExactDiv {
    /// Replaces every division of f32 values.
    fn install(model: &mut TypedModel) -> TractResult<()> {
        for id in 0..model.nodes.len() {
            let is_div = model.nodes[id].op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<Div>());
            if is_div && model.node_input_facts(id)?.iter().all(|fact| fact.datum_type == f32::datum_type()) {
                model.nodes[id].op = Box::new(TypedBinOp(Box::new(Self), None));
            }
        }
        Ok(())
    }
}

impl BinMiniOp for ExactDiv {
    fn name(&self) -> &'static str {
        "ExactDiv"
    }

    fn result_datum_type(&self, _: DatumType, _: DatumType) -> TractResult<DatumType> {
        Ok(f32::datum_type())
    }

    fn eval_in_a(&self, a: &mut Tensor, b: &Tensor) -> TractResult<()> {
        let mut a = a.try_as_plain_ram_mut()?;
        let b = b.to_plain_array_view::<f32>()?;
        Zip::from(a.to_array_view_mut::<f32>()?).and_broadcast(b).for_each(|a, b| *a /= b);
        Ok(())
    }

    fn eval_out_of_place(&self, c: &mut Tensor, a: &Tensor, b: &Tensor) -> TractResult<()> {
        let (a, b) = (a.to_plain_array_view::<f32>()?, b.to_plain_array_view::<f32>()?);
        let mut c = c.try_as_plain_ram_mut()?;
        let c = c.to_array_view_mut::<f32>()?;
        Zip::from(c).and_broadcast(a).and_broadcast(b).for_each(|c, a, b| *c = a / b);
        Ok(())
    }

    fn is_commutative(&self) -> bool {
        false
    }
}

impl Eq for Simulated {}

impl ElementWiseMiniOp for Simulated {
    fn name(&self) -> String {
        fused::OP.to_owned()
    }

    fn eval_in_place(&self, values: &mut Tensor, _: Option<DatumType>) -> TractResult<()> {
        let mut values = values.try_as_plain_ram_mut()?;
        self.apply(values.as_slice_mut::<f32>()?);
        Ok(())
    }
}
