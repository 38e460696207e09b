//! The larger and the smaller of two tensors, and slopes below zero: sums of clamped differences.

use super::constant::Constant;
use super::pending::{Pending, Source};
use super::{Lowered, Lowering, Operand, Reason, Value, input};
use crate::graph::Node;

impl<'g> Lowering<'g> {
    /// `max(a, b) = a + max(b − a, 0)`, and `min` alike. The difference is kept in 16 bits.
    pub(super) fn extremum(&mut self, node: &'g Node, a: Operand, b: Operand) -> Lowered<()> {
        let (a, b) = if b.view.len() > a.view.len() { (b, a) } else { (a, b) };
        let (a, b) = self.joined(a, b, &node.name)?;
        let ((a_low, a_high), (b_low, b_high)) = (a.real_range(), b.real_range());
        let (difference, low, high) = match node.op_type.as_str() {
            "Max" => ((0.0, f64::INFINITY), a_low.max(b_low), a_high.max(b_high)),
            _ => ((f64::NEG_INFINITY, 0.0), a_low.min(b_low), a_high.min(b_high)),
        };
        let view = a.view.clone();
        let minus = self.negated(&a, node)?;
        let over = Pending::new(Source::Sum(minus, b), view.clone(), node).clamped(difference.0, difference.1);
        let over = self.emit(&over, None)?;
        // No more than either can be, whatever the sum's bound.
        let pending = Pending::new(Source::Sum(a, over), view, node).clamped(low, high);
        self.set(node.output(), Value::Pending(Box::new(pending)))
    }

    /// The same with a constant: a clamp, if that is one number.
    pub(super) fn extremum_with(&mut self, node: &'g Node, x: Operand, constant: &Constant) -> Lowered<()> {
        if let Some(k) = constant.scalar().filter(|_| constant.shape.len() <= x.view.shape().len()) {
            let (low, high) = if node.op_type == "Min" { (f64::NEG_INFINITY, k) } else { (k, f64::INFINITY) };
            let view = x.view.clone();
            let pending = Pending::new(Source::Same(x), view, node).clamped(low, high);
            return self.set(node.output(), Value::Pending(Box::new(pending)));
        }
        let x = self.broadcast_to(x, &constant.shape, &node.name)?;
        let constant = self.constant_operand(constant, &x)?;
        self.extremum(node, x, constant)
    }

    /// `PRelu(x) = x + (slope − 1) · min(x, 0)` for constant slopes.
    pub(super) fn prelu(&mut self, node: &'g Node) -> Lowered<()> {
        let name = input(node, 0)?;
        let slopes = self.constant(input(node, 1)?)?;
        let x = self.operand(name)?;
        if let Some(slope) = slopes.scalar().filter(|_| slopes.shape.len() <= x.view.shape().len()) {
            return self.function(node, name, |x| if x < 0.0 { slope * x } else { x });
        }
        if slopes.real.iter().any(|slope| !slope.is_finite()) {
            return Err(Reason::Unsupported("a slope is not a finite number".into()));
        }
        let less = Constant {
            shape: slopes.shape.clone(),
            real: slopes.real.iter().map(|s| s - 1.0).collect(),
            quantized: None,
        };
        let x = self.broadcast_to(x, &less.shape, &node.name)?;
        let view = x.view.clone();
        let below = Pending::new(Source::Same(x.clone()), view.clone(), node).clamped(f64::NEG_INFINITY, 0.0);
        let q = self.params_of(&x);
        let below = self.emit(&below, Some(q))?;
        let less = self.constant_operand(&less, &below)?;
        let turned = self.emit(&Pending::new(Source::Times(below, less), view.clone(), node), None)?;
        self.set_pending(node, Source::Sum(x, turned), view)
    }
}
