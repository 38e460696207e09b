//! QuantizeLinear and DequantizeLinear: parameters, graph inputs, and the end of pending operators.

use std::rc::Rc;

use equant_runtime::plan::DType;

use super::{Lowered, Lowering, Operand, QParams, Reason, Value, input, unsupported};
use crate::compile::program::Named;
use crate::compile::view::View;
use crate::graph::{DataType, Node};

impl<'g> Lowering<'g> {
    /// Parameters of a QuantizeLinear or DequantizeLinear node over an activation.
    pub(super) fn node_qparams(&self, node: &Node) -> Lowered<QParams> {
        let value = node.input(0).unwrap_or_default();
        let refuse = |reason: &str| Reason::Quantization { value: value.to_owned(), reason: reason.into() };
        let scale = node
            .input(1)
            .and_then(|name| self.graph.initializers.get(name))
            .ok_or_else(|| refuse("the scale is not a constant"))?;
        let scale = scale.scalar_f32().ok_or_else(|| refuse("activations need one scale per tensor"))?;
        let zero = match node.input(2) {
            Some(name) => {
                Some(self.graph.initializers.get(name).ok_or_else(|| refuse("the zero point is not a constant"))?)
            }
            None => None,
        };
        let declared = DataType::from_onnx_number(node.int("output_dtype", 0) as i32);
        let dtype = zero.map(|tensor| tensor.dtype).or(declared).unwrap_or(DataType::U8);
        let zero_point = match zero {
            Some(tensor) if tensor.len() == 1 => tensor.to_i64()[0] as i32,
            Some(_) => return Err(refuse("activations need one zero point per tensor")),
            None => 0,
        };
        if !(scale.is_finite() && scale > 0.0) {
            return Err(refuse("the scale is not a positive finite number"));
        }
        let (stored, shift) = match dtype {
            DataType::U8 => (DType::I8, 128),
            DataType::I8 | DataType::I4 | DataType::U4 => (DType::I8, 0),
            DataType::U16 => (DType::I16, 32768),
            DataType::I16 => (DType::I16, 0),
            other => return Err(refuse(&format!("activations of type {other:?} are not supported"))),
        };
        let (low, high) = dtype.quantized_range().unwrap_or(stored.range());
        Ok(QParams { dtype: stored, scale, zero_point: zero_point - shift, levels: (low - shift, high - shift) })
    }

    pub(super) fn quantize(&mut self, node: &'g Node) -> Lowered<()> {
        let name = input(node, 0)?;
        let value = self.value(name)?;
        if let Value::Const(constant) = &value {
            let quantized = self.quantize_constant(node, constant)?;
            return self.set(node.output(), Value::Const(Rc::new(quantized)));
        }
        let q = self.node_qparams(node)?;
        let key = (name.to_owned(), q.key());
        if let Some(operand) = self.quantized.get(&key) {
            let operand = operand.clone();
            return self.set(node.output(), Value::Operand(operand));
        }
        let mut operand = match value {
            Value::Input { shape, dtype } if dtype.is_float() => {
                if self.quantized.keys().any(|(known, _)| known == name) {
                    return unsupported(
                        "a graph input can be quantized in one way only; use one QuantizeLinear for all its uses",
                    );
                }
                self.input_operand(name, &shape, q)?
            }
            Value::Operand(operand) => self.requantized(&operand, q, node)?,
            Value::Table(table) => self.emit_table(&table, Some(q), &node.name)?,
            Value::Pending(pending) => self.emit(&pending, Some(q))?,
            other => self.operand_of(name, other)?,
        };
        if q.dtype != DType::I8 {
            // A sum over steps can grow with each: a tighter bound of the first ones would make them differ from the rest.
            operand.range = q.levels;
        }
        self.quantized.insert(key, operand.clone());
        if !matches!(self.values.get(name), Some(Value::Operand(_) | Value::Input { .. } | Value::Table(_))) {
            // The float value itself is known to the quantized one's precision: enough for comparisons.
            self.program.named.push(Named {
                name: name.to_owned(),
                storage: operand.storage,
                view: operand.view.clone(),
                scale: operand.scale,
                zero_point: operand.zero_point,
            });
        }
        self.set(node.output(), Value::Operand(operand))
    }

    pub(super) fn dequantize(&mut self, node: &'g Node) -> Lowered<()> {
        let name = input(node, 0)?;
        match self.value(name)? {
            Value::Const(constant) => {
                let dequantized = self.dequantize_constant(node, &constant)?;
                self.set(node.output(), Value::Const(Rc::new(dequantized)))
            }
            Value::Input { shape, dtype } if !dtype.is_float() => {
                let operand = self.input_operand(name, &shape, self.node_qparams(node)?)?;
                self.values.insert(name.to_owned(), Value::Operand(operand.clone()));
                self.set(node.output(), Value::Operand(operand))
            }
            Value::Operand(mut operand) => {
                let q = self.node_qparams(node)?;
                if q.zero_point != operand.zero_point || q.dtype != operand.dtype {
                    return Err(Reason::Quantization {
                        value: name.to_owned(),
                        reason: "DequantizeLinear has another zero point or type than the QuantizeLinear before it"
                            .into(),
                    });
                }
                operand.scale = f64::from(q.scale);
                self.set(node.output(), Value::Operand(operand))
            }
            other => {
                self.operand_of(name, other)?;
                unsupported("its input is not a quantized value")
            }
        }
    }

    /// A graph input as a tensor of the plan: images, and signals that are used as images, with their channels last.
    pub(super) fn input_operand(&mut self, name: &str, shape: &[usize], q: QParams) -> Lowered<Operand> {
        // Only those have channels; other tensors lie as the model has them.
        let channels_last = shape.len() == 4 || shape.len() == 3 && self.is_signal(name);
        let view = if channels_last { View::channels_last(shape) } else { View::row_major(shape) };
        Ok(self.input_operand_of(name, view, q))
    }

    /// A graph input as a tensor of the plan that lies in memory as `view` says.
    pub(super) fn input_operand_of(&mut self, name: &str, view: View, q: QParams) -> Operand {
        let operand = self.fresh(view, q, q.levels);
        let record = self.interface_record(&operand);
        let position = self.graph.inputs.iter().position(|input| input.name == name).unwrap_or(0);
        self.inputs.insert(position, record);
        operand
    }

    /// Whether a value `[N, C, L]` is used as an image `[N, C, 1, L]`.
    fn is_signal(&self, name: &str) -> bool {
        let readers = self.consumers.get(name).into_iter().flatten().map(|&index| &self.graph.nodes[index]);
        readers.into_iter().any(|node| match node.op_type.as_str() {
            "QuantizeLinear" | "DequantizeLinear" => self.is_signal(node.output()),
            "Unsqueeze" => {
                let axes = node.input(1).and_then(|axes| self.graph.initializers.get(axes));
                axes.is_some_and(|axes| axes.to_i64() == [2])
            }
            _ => false,
        })
    }
}
