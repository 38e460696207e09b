//! Functions of one 8-bit value, as tables of their 256 real values.
//!
//! Each operator is computed in f64 and rounded to f32, the type of the model's own values, so that values that
//! lie half-way between two quantized ones are rounded as the model says.

use std::rc::Rc;

use equant_runtime::op::LutParams;
use equant_runtime::plan::DType;

use super::constant::Constant;
use super::pending::{Pending, Source};
use super::{Lowered, Lowering, Operand, QParams, Reason, Value, input, unsupported};
use crate::compile::program::Section;
use crate::graph::{Node, eval};

/// A function of an 8-bit operand: `values[q + 128]` is the real value at `q`.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) operand: Operand,
    values: Rc<Vec<f64>>,
}

impl Table {
    /// The identity over an 8-bit operand.
    pub(super) fn identity(operand: &Operand) -> Option<Self> {
        let values = (-128..128).map(|q| single(operand.real(q))).collect();
        (operand.dtype == DType::I8).then(|| Self { operand: operand.clone(), values: Rc::new(values) })
    }

    /// The table of a value that is a function of one 8-bit operand.
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Operand(operand) => Self::identity(operand),
            Value::Table(table) => Some(table.clone()),
            _ => None,
        }
    }

    /// `f` after this function.
    pub(super) fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        let values = self.values.iter().map(|&x| single(f(x))).collect();
        Self { operand: self.operand.clone(), values: Rc::new(values) }
    }

    /// `f` of this function and another one of the same operand.
    pub(super) fn zip(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Option<Self> {
        let same = self.operand.storage == other.operand.storage && self.operand.view == other.operand.view;
        let values = self.values.iter().zip(other.values.iter()).map(|(&a, &b)| single(f(a, b))).collect();
        same.then(|| Self { operand: self.operand.clone(), values: Rc::new(values) })
    }

    /// The quantized inputs that occur, with their values.
    fn reachable(&self) -> impl Iterator<Item = (i32, f64)> + '_ {
        (self.operand.range.0..=self.operand.range.1).filter_map(|q| Some((q, *self.values.get((q + 128) as usize)?)))
    }

    /// Parameters under which no value within `±limit` is lost: the operand's own if they hold every value exactly,
    /// otherwise 16 bits. Infinite values saturate in any.
    fn default_params(&self, limit: f64) -> QParams {
        let x = &self.operand;
        let own = QParams::full(x.dtype, x.scale as f32, x.zero_point);
        let exact = |v: f64| {
            let steps = v / f64::from(own.scale) + f64::from(own.zero_point);
            (steps - steps.round()).abs() < 1e-6 && (-128.0..=127.0).contains(&steps.round())
        };
        if self.reachable().all(|(_, v)| exact(v)) {
            return own;
        }
        let finite = self.reachable().map(|(_, v)| v).filter(|v| v.is_finite());
        let (low, high) = finite.fold((0.0f64, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
        QParams::sixteen(low.max(-limit), high.min(limit))
    }
}

/// Rounded to f32.
pub(super) fn single(x: f64) -> f64 {
    f64::from(x as f32)
}

impl<'g> Lowering<'g> {
    /// An operator that is a function of one variable.
    pub(super) fn unary(&mut self, node: &'g Node) -> Lowered<()> {
        if !eval::is_unary(node) {
            return unsupported("this operator is not supported");
        }
        let name = input(node, 0)?;
        // Every operator that `is_unary` accepts has a value everywhere; NaN marks points outside its domain.
        let f = |x: f64| eval::eval_unary(node, x).unwrap_or(f64::NAN);
        self.function(node, name, f)
    }

    /// `f` of a value that is a constant or has 8 bits.
    pub(super) fn function(&mut self, node: &'g Node, name: &str, f: impl Fn(f64) -> f64) -> Lowered<()> {
        let value = self.value(name)?;
        if let Value::Const(constant) = &value {
            let mapped = Constant {
                shape: constant.shape.clone(),
                real: constant.real.iter().map(|&x| f(x)).collect(),
                quantized: None,
            };
            return self.set(node.output(), Value::Const(Rc::new(mapped)));
        }
        match Table::of(&value) {
            Some(table) => self.set(node.output(), Value::Table(table.map(f))),
            None => match value {
                Value::Input { .. } => Err(Reason::InputNotQuantized(name.to_owned())),
                _ => Err(Reason::UnaryOn16Bit(name.to_owned())),
            },
        }
    }

    /// Relu and Clip.
    pub(super) fn clamp(&mut self, node: &'g Node) -> Lowered<()> {
        let name = input(node, 0)?;
        let (low, high) = self.clamp_bounds(node)?;
        let value = match self.value(name)? {
            Value::Pending(pending) => Value::Pending(Box::new(pending.clamped(low, high))),
            Value::Operand(x) if x.dtype != DType::I8 => {
                let view = x.view.clone();
                Value::Pending(Box::new(Pending::new(Source::Same(x), view, node).clamped(low, high)))
            }
            _ => return self.function(node, name, |x| x.max(low).min(high)),
        };
        self.set(node.output(), value)
    }

    /// The bounds of a Relu or Clip.
    pub(super) fn clamp_bounds(&mut self, node: &Node) -> Lowered<(f64, f64)> {
        match node.op_type.as_str() {
            "Relu" => Ok((0.0, f64::INFINITY)),
            _ => Ok((self.bound(node, 1, f64::NEG_INFINITY)?, self.bound(node, 2, f64::INFINITY)?)),
        }
    }

    /// A bound of a Clip.
    fn bound(&mut self, node: &Node, i: usize, open: f64) -> Lowered<f64> {
        let Some(name) = node.input(i) else { return Ok(open) };
        match self.constant(name)?.scalar() {
            Some(bound) if !bound.is_nan() => Ok(bound),
            _ => unsupported(format!("its bound `{name}` is not a number")),
        }
    }

    /// A table as the float value `name`: within what calibration saw of it, with headroom, or wherever it is finite.
    pub(super) fn emit_wide_table(&mut self, table: &Table, name: &str) -> Lowered<Operand> {
        let q = table.default_params(self.seen_limit(name).unwrap_or(f64::INFINITY));
        self.emit_table(table, Some(q), name)
    }

    /// A table as a tensor: through a Lut, or as it is when the table changes nothing.
    pub(super) fn emit_table(&mut self, table: &Table, q: Option<QParams>, name: &str) -> Lowered<Operand> {
        let q = q.unwrap_or_else(|| table.default_params(f64::INFINITY));
        if let Some((at, _)) = table.reachable().find(|(_, v)| v.is_nan()) {
            return unsupported(format!("the function is not defined at the input's value {}", table.operand.real(at)));
        }
        // Values that cannot occur take their nearest neighbour's: no meaning, but always the same bytes.
        let x = &table.operand;
        let at = |i: i32| q.quantize(table.values[(i.clamp(x.range.0, x.range.1) + 128) as usize]);
        let entries: Vec<i32> = (-128..128).map(at).collect();
        let range = entries.iter().fold((i32::MAX, i32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
        let same = table.reachable().all(|(i, _)| entries[(i + 128) as usize] == i);
        if same && q.dtype == x.dtype && q.zero_point == x.zero_point {
            return Ok(Operand { scale: f64::from(q.scale), ..x.clone() });
        }
        let bytes = match q.dtype {
            DType::I8 => entries.iter().map(|&v| v as u8).collect(),
            DType::I16 => entries.iter().flat_map(|&v| (v as i16).to_le_bytes()).collect(),
            DType::I32 => entries.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        let params = LutParams { table: self.program.consts.add(Section::Tables, bytes) };
        let y = self.fresh(x.view.clone(), q, range);
        let (input, output) = (self.default_record(x), self.default_record(&y));
        self.program.op(&params, vec![input], output, name, y.view.len() as u64);
        Ok(y)
    }
}
