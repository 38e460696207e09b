//! Arithmetic of two values.

use std::rc::Rc;

use super::constant::Constant;
use super::pending::{Pending, Source};
use super::table::{Table, single};
use super::{Lowered, Lowering, Operand, Reason, Value, input, unsupported};
use crate::compile::view::View;
use crate::graph::movement::Picks;
use crate::graph::{Node, eval};

/// How far below the largest of a row an element has no share of its softmax.
const VANISHES: f64 = 64.0;

/// The operator on real numbers.
fn apply(op: &str, a: f64, b: f64) -> f64 {
    match op {
        "Add" => a + b,
        "Sub" => a - b,
        "Mul" => a * b,
        "Div" => a / b,
        "Min" => a.min(b),
        "Max" => a.max(b),
        _ => a.powf(b),
    }
}

impl<'g> Lowering<'g> {
    /// Add, Sub, Mul, Div, Pow, Min and Max.
    pub(super) fn binary(&mut self, node: &'g Node) -> Lowered<()> {
        let (a_name, b_name) = (input(node, 0)?, input(node, 1)?);
        if node.inputs.len() != 2 {
            return unsupported("only with two inputs");
        }
        let op = node.op_type.as_str();
        if let Some(scores) = self.masked_scores(node, [a_name, b_name])? {
            return self.set(node.output(), scores);
        }
        let (a, b) = (self.value(a_name)?, self.value(b_name)?);
        match (&a, &b) {
            (Value::Const(x), Value::Const(y)) => {
                let value = folded(op, x, y)?;
                self.set(node.output(), Value::Const(Rc::new(value)))
            }
            (_, Value::Const(constant)) => {
                if let Some(value) = self.with_constant(node, &a, constant)? {
                    return self.set(node.output(), value);
                }
                if let Some(table) =
                    constant.scalar().map(single).and_then(|k| Some(Table::of(&a)?.map(|x| apply(op, x, k))))
                {
                    return self.set(node.output(), Value::Table(table));
                }
                let x = self.operand(a_name)?;
                self.constant_arithmetic(node, x, constant)
            }
            (Value::Const(constant), _) => {
                // Add and Mul do not mind the order.
                if matches!(op, "Add" | "Mul")
                    && let Some(value) = self.with_constant(node, &b, constant)?
                {
                    return self.set(node.output(), value);
                }
                if let Some(table) =
                    constant.scalar().map(single).and_then(|k| Some(Table::of(&b)?.map(|x| apply(op, k, x))))
                {
                    return self.set(node.output(), Value::Table(table));
                }
                let x = self.operand(b_name)?;
                match op {
                    "Add" | "Mul" => self.constant_arithmetic(node, x, constant),
                    "Sub" => {
                        let x = self.negated(&x, node)?;
                        self.sum_with_constant(node, x, constant)
                    }
                    "Min" | "Max" => self.extremum_with(node, x, constant),
                    _ => Err(Reason::UnaryOn16Bit(b_name.to_owned())),
                }
            }
            _ => {
                let tables = Table::of(&a).zip(Table::of(&b));
                if let Some(table) = tables.and_then(|(s, t)| s.zip(&t, |x, y| apply(op, x, y))) {
                    return self.set(node.output(), Value::Table(table));
                }
                if op == "Add" && a_name != b_name {
                    self.narrow(node, a_name, b_name)?;
                    self.narrow(node, b_name, a_name)?;
                }
                let (a, b) = (self.operand(a_name)?, self.operand(b_name)?);
                match op {
                    "Add" => self.two(node, a, b, Source::Sum),
                    "Mul" => self.two(node, a, b, Source::Times),
                    "Sub" => {
                        let b = self.negated(&b, node)?;
                        self.two(node, a, b, Source::Sum)
                    }
                    "Div" => {
                        let (a, b) = self.joined(a, b, &node.name)?;
                        let view = a.view.clone();
                        self.set_pending(node, Source::Quotient(a, b), view)
                    }
                    "Min" | "Max" => self.extremum(node, a, b),
                    _ => unsupported("only with a constant exponent, or within a function of one 8-bit value"),
                }
            }
        }
    }

    /// Clamps a pending operand of a sum to what can still move the quantized sum, so that its 16 bits are spent
    /// there: with `other` in `low..=high`, a sum outside the range of the QuantizeLinear after it saturates.
    fn narrow(&mut self, node: &'g Node, name: &str, other: &str) -> Lowered<()> {
        let Some((low, high)) = self.window(node) else { return Ok(()) };
        let Value::Pending(pending) = self.value(name)? else { return Ok(()) };
        let (least, most) = match self.value(other)? {
            Value::Operand(x) => x.real_range(),
            Value::Pending(x) => x.real_range(),
            _ => return Ok(()),
        };
        let pending = pending.clamped(low - most, high - least);
        self.values.insert(name.to_owned(), Value::Pending(Box::new(pending)));
        Ok(())
    }

    /// The values of a node's result that the QuantizeLinear after it, and the clamps before that, tell apart, with
    /// a step to spare on both sides.
    pub(super) fn window(&mut self, node: &'g Node) -> Option<(f64, f64)> {
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        let mut reader = self.only_consumer(node.output())?;
        while matches!(reader.op_type.as_str(), "Relu" | "Clip") {
            let (least, most) = self.clamp_bounds(reader).ok()?;
            // Bounds that cross make a constant: no case worth narrowing for.
            (low, high) = (low.max(least), high.min(most));
            reader = self.only_consumer(reader.output())?;
        }
        if reader.op_type != "QuantizeLinear" || low >= high {
            return None;
        }
        let q = self.node_qparams(reader).ok()?;
        let (lowest, highest) = q.levels;
        let real = |steps: i32| f64::from(steps - q.zero_point) * f64::from(q.scale);
        let step = f64::from(q.scale);
        let (low, high) = (low.max(real(lowest)) - step, high.min(real(highest)) + step);
        (low < high).then_some((low, high))
    }

    /// What costs nothing: positive scalar factors, and biases of operators that have one.
    fn with_constant(&mut self, node: &Node, value: &Value, constant: &Constant) -> Lowered<Option<Value>> {
        let op = node.op_type.as_str();
        let scalar = constant.scalar();
        let factor = match op {
            "Mul" => scalar,
            "Div" => scalar.map(|k| 1.0 / k),
            "Pow" => scalar.filter(|&k| k == 1.0),
            _ => None,
        };
        let keeps_rank = |view: &View| constant.shape.len() <= view.shape().len();
        match (value, factor.filter(|k| k.is_finite() && *k > 0.0)) {
            (Value::Operand(x), Some(k)) if keeps_rank(&x.view) => {
                Ok(Some(Value::Operand(Operand { scale: x.scale * k, ..x.clone() })))
            }
            (Value::Pending(pending), Some(k)) if keeps_rank(&pending.view) => {
                Ok(Some(Value::Pending(Box::new((**pending).clone().scaled(k)))))
            }
            (Value::Pending(pending), None) if op == "Min" || op == "Max" => {
                let Some(k) = scalar.filter(|_| keeps_rank(&pending.view)) else { return Ok(None) };
                let (low, high) = if op == "Min" { (f64::NEG_INFINITY, k) } else { (k, f64::INFINITY) };
                Ok(Some(Value::Pending(Box::new((**pending).clone().clamped(low, high)))))
            }
            (Value::Pending(pending), None) if op == "Add" || op == "Sub" => {
                let Source::Linear(linear) = &pending.source else { return Ok(None) };
                if !pending.is_unclamped() {
                    return Ok(None);
                }
                let Some(values) = per_channel(constant, &pending.view, linear.channels()) else { return Ok(None) };
                let mut pending = (**pending).clone();
                let factor = if op == "Add" { pending.factor.recip() } else { -pending.factor.recip() };
                if let Source::Linear(linear) = &mut pending.source {
                    for (bias, value) in Rc::make_mut(linear).bias.iter_mut().zip(values) {
                        *bias += value * factor;
                    }
                }
                Ok(Some(Value::Pending(Box::new(pending))))
            }
            _ => Ok(None),
        }
    }

    /// Arithmetic of a tensor with a constant tensor.
    fn constant_arithmetic(&mut self, node: &'g Node, x: Operand, constant: &Constant) -> Lowered<()> {
        let map = |f: fn(f64) -> f64| Constant {
            shape: constant.shape.clone(),
            real: constant.real.iter().map(|&v| f(v)).collect(),
            quantized: None,
        };
        match node.op_type.as_str() {
            "Add" => self.sum_with_constant(node, x, constant),
            "Sub" => self.sum_with_constant(node, x, &map(|v| -v)),
            "Mul" => self.product_by_constant(node, x, constant),
            "Div" if constant.real.iter().all(|v| v.recip().is_finite()) => {
                self.product_by_constant(node, x, &map(f64::recip))
            }
            "Div" => unsupported("division by zero"),
            "Min" | "Max" => self.extremum_with(node, x, constant),
            "Pow" if constant.scalar() == Some(2.0) => self.two(node, x.clone(), x, Source::Times),
            _ => Err(Reason::UnaryOn16Bit(node.input(0).unwrap_or_default().to_owned())),
        }
    }

    pub(super) fn sum_with_constant(&mut self, node: &'g Node, x: Operand, constant: &Constant) -> Lowered<()> {
        let x = self.broadcast_to(x, &constant.shape, &node.name)?;
        let mut finite = constant.clone();
        if constant.real.contains(&f64::NEG_INFINITY) {
            if !self.leads_to_softmax(node.output()) {
                return unsupported("a constant with infinite elements, unless it is a mask that a Softmax reads");
            }
            // Whatever the other elements are, this leaves nothing in 40 bits of the largest power.
            let (low, high) = x.real_range();
            let least = constant.real.iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::min);
            finite.real.iter_mut().for_each(|v| *v = v.max(least - (high - low) - VANISHES));
        }
        let constant = &finite;
        let constant = self.constant_operand(constant, &x)?;
        let view = x.view.clone();
        self.set_pending(node, Source::Sum(x, constant), view)
    }

    fn product_by_constant(&mut self, node: &'g Node, x: Operand, constant: &Constant) -> Lowered<()> {
        let x = self.broadcast_to(x, &constant.shape, &node.name)?;
        let constant = self.constant_operand(constant, &x)?;
        let view = x.view.clone();
        self.set_pending(node, Source::Times(x, constant), view)
    }

    /// A BatchNormalization that could not be folded: a factor and a shift for each channel.
    pub(super) fn batch_norm(&mut self, node: &'g Node) -> Lowered<()> {
        let x = self.operand(input(node, 0)?)?;
        let shape = x.view.shape();
        let channels = *shape.get(1).ok_or_else(|| Reason::Shape(format!("{shape:?} has no channels")))?;
        let mut parameters = Vec::new();
        for i in 1..5 {
            let name = input(node, i)?;
            let constant = self.constant(name)?;
            if constant.real.len() != channels || constant.real.iter().any(|v| !v.is_finite()) {
                return Err(Reason::Shape(format!("`{name}` of shape {:?} for {channels} channels", constant.shape)));
            }
            parameters.push(constant);
        }
        let epsilon = f64::from(node.float("epsilon", 1e-5));
        let at = |i: usize, channel: usize| parameters[i].real[channel];
        let factors: Vec<f64> = (0..channels).map(|c| at(0, c) / (at(3, c) + epsilon).sqrt()).collect();
        let shifts = (0..channels).map(|c| at(1, c) - at(2, c) * factors[c]).collect();
        let mut dims = vec![1; shape.len()];
        dims[1] = channels;
        let constant = |real: Vec<f64>| Constant { shape: dims.clone(), real, quantized: None };
        let (factors, shifts) = (constant(factors), constant(shifts));
        let factors = self.constant_operand(&factors, &x)?;
        let scaled = Pending::new(Source::Times(x.clone(), factors), x.view.clone(), node);
        let scaled = self.emit(&scaled, None)?;
        self.sum_with_constant(node, scaled, &shifts)
    }

    /// An operand repeated to what it and a constant of this shape broadcast to.
    pub(super) fn broadcast_to(&mut self, x: Operand, constant: &[usize], name: &str) -> Lowered<Operand> {
        let shape = x.view.shape();
        let refuse = || Reason::Shape(format!("a tensor of shape {shape:?} with a constant of shape {constant:?}"));
        let out = eval::broadcast(&shape, constant).ok_or_else(refuse)?;
        self.spread(x, &out, name)
    }

    /// An operand with every element of a shape that it broadcasts to; repeated ones are copied.
    fn spread(&mut self, x: Operand, shape: &[usize], name: &str) -> Lowered<Operand> {
        let refuse = || Reason::Shape(format!("{:?} does not repeat to {shape:?}", x.view.shape()));
        if shape.iter().product::<usize>() == x.view.len() {
            let view = x.view.reshape(shape).ok_or_else(refuse)?;
            return Ok(Operand { view, ..x });
        }
        let missing = shape.len().checked_sub(x.view.shape().len()).ok_or_else(refuse)?;
        let from = [vec![1; missing], x.view.shape()].concat();
        let axes = from.iter().zip(shape).map(|(from, &to)| (*from != to).then(|| vec![0; to])).collect();
        self.taken(&x, Picks { axes, shape: shape.to_vec() }, name)
    }

    /// The negative of an operand.
    pub(super) fn negated(&mut self, x: &Operand, node: &Node) -> Lowered<Operand> {
        let minus = Constant { shape: vec![], real: vec![-1.0], quantized: None };
        let constant = self.constant_operand(&minus, x)?;
        let pending = Pending::new(Source::Times(x.clone(), constant), x.view.clone(), node);
        self.emit(&pending, None)
    }

    /// An operator of two tensors that does not mind their order.
    fn two(&mut self, node: &'g Node, a: Operand, b: Operand, source: fn(Operand, Operand) -> Source) -> Lowered<()> {
        let (a, b) = if b.view.len() > a.view.len() { (b, a) } else { (a, b) };
        let (a, b) = self.joined(a, b, &node.name)?;
        let view = a.view.clone();
        self.set_pending(node, source(a, b), view)
    }

    /// Two operands as element-wise kernels take them: the first one with every element of the shape that both broadcast
    /// to, the second one in the order of its memory, whole or repeated along leading axes. Where the second repeats
    /// along other axes, or the first along any, elements are copied.
    pub(super) fn joined(&mut self, a: Operand, b: Operand, name: &str) -> Lowered<(Operand, Operand)> {
        let (a_shape, b_shape) = (a.view.shape(), b.view.shape());
        let shape =
            eval::broadcast(&a_shape, &b_shape).ok_or_else(|| Reason::Shape(format!("{a_shape:?} and {b_shape:?}")))?;
        let a = self.spread(a, &shape, name)?;
        if b.view.len() == a.view.len() {
            let b = self.spread(b, &shape, name)?;
            let b = self.arranged(&b, a.view.clone(), name)?;
            return Ok((a, b));
        }
        if repeats(&b.view, &a.view) {
            return Ok((a, b));
        }
        if let Some(smaller) = a.view.restricted(&b_shape).filter(|smaller| repeats(smaller, &a.view)) {
            let b = self.arranged(&b, smaller, name)?;
            return Ok((a, b));
        }
        let b = self.spread(b, &shape, name)?;
        let b = self.arranged(&b, a.view.clone(), name)?;
        Ok((a, b))
    }
}

/// Whether `b` broadcast to `a`'s shape repeats in the order of `a`'s memory.
fn repeats(b: &View, a: &View) -> bool {
    let Some(places) = b.positions_over(&a.shape()) else { return false };
    a.positions().iter().zip(&places).all(|(at, place)| at % b.len() == *place)
}

/// Arithmetic of two constants.
fn folded(op: &str, a: &Constant, b: &Constant) -> Lowered<Constant> {
    let shape = eval::broadcast(&a.shape, &b.shape);
    let parts = shape.and_then(|shape| Some((a.broadcast(&a.real, &shape)?, b.broadcast(&b.real, &shape)?, shape)));
    let (x, y, shape) = parts.ok_or_else(|| Reason::Shape(format!("{:?} and {:?}", a.shape, b.shape)))?;
    let real = x.into_iter().zip(y).map(|(x, y)| apply(op, x, y)).collect();
    Ok(Constant { shape, real, quantized: None })
}

/// The constant's value for each channel, if it has one value per channel of a tensor whose channels are innermost
/// in memory.
fn per_channel(constant: &Constant, view: &View, channels: usize) -> Option<Vec<f64>> {
    let values = constant.broadcast(&constant.real, &view.shape())?;
    let mut found: Vec<Option<f64>> = vec![None; channels];
    for (value, at) in values.into_iter().zip(view.positions()) {
        match &mut found[at % channels] {
            Some(known) if *known != value => return None,
            slot => *slot = Some(value),
        }
    }
    found.into_iter().collect::<Option<Vec<f64>>>().filter(|values| values.iter().all(|v| v.is_finite()))
}
