//! Gather: slices of a tensor, by indices that the model is given or that are constant.

use equant_runtime::op::GatherParams;
use equant_runtime::plan::DType;

use super::{Lowered, Lowering, Operand, QParams, Reason, Value, input, unsupported};
use crate::compile::view::View;
use crate::graph::{DataType, Node, eval};

impl<'g> Lowering<'g> {
    /// Whether a node is a lookup, or takes a single slice: its place is a tensor then, not a parameter, so that equal
    /// steps of a sequence can count it. What else a Gather takes at constant places is a Take.
    pub(super) fn gathers(&self, node: &Node) -> bool {
        let constant = |i: usize| node.input(i).and_then(|name| self.graph.initializers.get(name));
        node.op_type == "Gather" && constant(1).is_none_or(|index| index.shape.is_empty() && constant(0).is_none())
    }

    pub(super) fn gather(&mut self, node: &'g Node) -> Lowered<()> {
        let (name, index_name) = (input(node, 0)?, input(node, 1)?);
        let table = match self.value(name)? {
            Value::Const(constant) => {
                let q = self.table_params(node, name)?;
                self.constant_tensor(&constant, q, View::row_major(&constant.shape))?
            }
            _ => self.operand(name)?,
        };
        let shape = table.view.shape();
        let axis = eval::normalize_axis(node.int("axis", 0), shape.len())
            .ok_or_else(|| Reason::Shape(format!("axis {} of {shape:?}", node.int("axis", 0))))?;
        let table = self.arranged(&table, View::row_major(&shape), &node.name)?;
        let indices = self.indices(index_name)?;
        let gathered = [&shape[..axis], &indices.view.shape(), &shape[axis + 1..]].concat();
        let y = self.fresh_like(&table, View::row_major(&gathered));
        // What is seen as [before, axis, after] has four axes at most, whatever the ranks are.
        let part = |axes: &[usize]| axes.iter().product::<usize>();
        let dims = |size: usize| vec![part(&shape[..axis]), size, part(&shape[axis + 1..])];
        let inputs = vec![self.shaped_record(&table, dims(shape[axis])), self.default_record(&indices)];
        let output = self.shaped_record(&y, dims(indices.view.len()));
        self.program.op(&GatherParams { axis: 1 }, inputs, output, &node.name, y.view.len() as u64);
        self.set(node.output(), Value::Operand(y))
    }

    /// The parameters a constant table is stored under: its own, or those of the QuantizeLinear after the lookup.
    fn table_params(&mut self, node: &'g Node, name: &str) -> Lowered<QParams> {
        if let Some(reader) = self.only_consumer(node.output()).filter(|reader| reader.op_type == "QuantizeLinear") {
            return self.node_qparams(reader);
        }
        let maker = self.graph.nodes.iter().find(|maker| maker.output() == name);
        match maker.filter(|maker| maker.op_type == "DequantizeLinear") {
            Some(maker) => self.node_qparams(maker),
            None => {
                unsupported(format!("its table `{name}` is not quantized; quantize the table, or what is looked up"))
            }
        }
    }

    /// The indices as a tensor of the plan: an input of the graph or a constant, in 32 bits.
    fn indices(&mut self, name: &str) -> Lowered<Operand> {
        match self.value(name)? {
            Value::Operand(operand) if operand.dtype == DType::I32 => Ok(operand),
            Value::Input { shape, dtype: DataType::I32 | DataType::I64 } => {
                let operand = self.input_operand_of(name, View::row_major(&shape), QParams::full(DType::I32, 1.0, 0));
                self.values.insert(name.to_owned(), Value::Operand(operand.clone()));
                Ok(operand)
            }
            Value::Const(constant) => {
                let size = constant.real.iter().fold(0.0f64, |most, x| most.max(x.abs()));
                if size > f64::from(1u32 << 24) {
                    return unsupported(format!("its indices `{name}` go up to {size}: at most 2^24 are exact"));
                }
                let q = QParams::full(DType::I32, 1.0, 0);
                self.constant_tensor(&constant, q, View::row_major(&constant.shape))
            }
            _ => unsupported(format!("its indices `{name}` are not an input of the model of type int32 or int64")),
        }
    }
}
