//! Operators that move or rename elements.

use std::rc::Rc;

use equant_runtime::op::{ConcatParams, PadParams, TransposeParams};

use super::constant::Constant;
use super::pending::Bounds;
use super::table::Table;
use super::{Lowered, Lowering, Operand, QParams, Reason, Value, input, unsupported};
use crate::compile::program::Record;
use crate::compile::view::View;
use crate::graph::movement::{Blocks, blocks};
use crate::graph::{Node, eval};

impl<'g> Lowering<'g> {
    /// Flatten, Reshape, Squeeze, Unsqueeze and Transpose: other views of the same memory.
    pub(super) fn reshape(&mut self, node: &'g Node) -> Lowered<()> {
        let name = input(node, 0)?;
        let value = match self.value(name)? {
            Value::Const(constant) => {
                let view = View::row_major(&constant.shape);
                match self.target(node, &constant.shape)? {
                    Target::Permuted(perm) => Value::Const(Rc::new(constant.transposed(&perm)?)),
                    Target::Shape(shape) => {
                        let view = view.reshape(&shape).ok_or_else(|| Reason::Shape(format!("{shape:?}")))?;
                        Value::Const(Rc::new(constant.viewed(&view)?))
                    }
                    Target::Blocks(_) => return unsupported("of a constant"),
                }
            }
            Value::Pending(mut pending) => match self.seen(node, &pending.view)? {
                Some(view) => {
                    pending.view = view;
                    Value::Pending(pending)
                }
                None => self.moved(node, name)?,
            },
            Value::Table(table) => match self.seen(node, &table.operand.view)? {
                Some(view) => Value::Table(table.viewed(view)),
                None => self.moved(node, name)?,
            },
            Value::Operand(x) => match self.seen(node, &x.view)? {
                Some(view) => Value::Operand(Operand { view, ..x }),
                None => self.moved(node, name)?,
            },
            other => Value::Operand(self.operand_of(name, other)?),
        };
        self.set(node.output(), value)
    }

    /// What a node makes of a view, if that needs no move of memory.
    fn seen(&mut self, node: &Node, view: &View) -> Lowered<Option<View>> {
        Ok(match self.target(node, &view.shape())? {
            Target::Permuted(perm) => Some(view.transpose(&perm)),
            Target::Shape(shape) => view.reshape(&shape),
            Target::Blocks([split, perm, joined]) => {
                view.reshape(&split).and_then(|view| view.transpose(&perm).reshape(&joined))
            }
        })
    }

    /// A reshape for which memory must first be brought into the order of the axes.
    fn moved(&mut self, node: &Node, name: &str) -> Lowered<Value> {
        let x = self.operand(name)?;
        let x = self.arranged(&x, View::row_major(&x.view.shape()), &node.name)?;
        let view = self.seen(node, &x.view)?.ok_or_else(|| Reason::Shape("the reshape does not divide".into()))?;
        Ok(Value::Operand(Operand { view, ..x }))
    }

    fn target(&mut self, node: &Node, shape: &[usize]) -> Lowered<Target> {
        let refuse = || Reason::Shape(format!("{} of shape {shape:?}", node.op_type));
        let listed = match node.input(1) {
            Some(name) => Some(self.constant(name)?.real.iter().map(|&v| v as i64).collect()),
            None => node.ints("axes").map(<[i64]>::to_vec),
        };
        let target = match node.op_type.as_str() {
            "Transpose" => return eval::permutation(node, shape.len()).map(Target::Permuted).ok_or_else(refuse),
            "DepthToSpace" | "SpaceToDepth" => {
                let Blocks { split, perm, joined } = blocks(node, shape).map_err(Reason::Shape)?;
                return Ok(Target::Blocks([split, perm, joined]));
            }
            "Flatten" => eval::flattened(shape, node.int("axis", 1)),
            "Squeeze" => eval::squeezed(shape, listed.as_deref()),
            "Unsqueeze" => eval::unsqueezed(shape, &listed.ok_or_else(refuse)?),
            _ => eval::reshape_target(shape, &listed.ok_or_else(refuse)?, node.int("allowzero", 0) != 0),
        };
        target.map(Target::Shape).ok_or_else(refuse)
    }

    /// An operand in another memory order.
    pub(super) fn arranged(&mut self, x: &Operand, target: View, name: &str) -> Lowered<Operand> {
        if x.view == target {
            return Ok(x.clone());
        }
        let refuse = || Reason::Shape(format!("{:?} in another order", x.view.shape()));
        let (sizes, perm) = x.view.permutation_to(&target).ok_or_else(refuse)?;
        if perm.is_sorted() {
            return Ok(Operand { view: target, ..x.clone() });
        }
        let len = x.view.len();
        let mut y = Operand { view: View::row_major(&[len]), ..x.clone() };
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        let dims = |axes: &[usize]| axes.iter().map(|&axis| sizes[axis]).product::<usize>();
        // Of more than four runs of axes, one after the other is brought to its place.
        loop {
            let groups = runs(&order, &perm);
            if groups.len() <= 4 {
                let sizes = groups.iter().map(|group| dims(group)).collect();
                let mut moved: Vec<usize> = (0..groups.len()).collect();
                moved.sort_by_key(|&group| perm.iter().position(|&axis| axis == groups[group][0]));
                y = self.emit_transpose(&y, sizes, &moved, name);
                return Ok(Operand { view: target, ..y });
            }
            let at = order.iter().zip(&perm).position(|(now, then)| now != then).ok_or_else(refuse)?;
            let from = order.iter().position(|&axis| axis == perm[at]).ok_or_else(refuse)?;
            let sizes = [&order[..at], &order[at..from], &order[from..=from], &order[from + 1..]].map(dims);
            y = self.emit_transpose(&y, sizes.to_vec(), &[0, 2, 1, 3], name);
            let axis = order.remove(from);
            order.insert(at, axis);
        }
    }

    /// The elements in another order: memory of these sizes, and which of its axes each axis of the result is.
    fn emit_transpose(&mut self, x: &Operand, sizes: Vec<usize>, perm: &[usize], name: &str) -> Operand {
        let pad = 4 - sizes.len();
        let mut words = [0u32; 4];
        for (i, word) in words.iter_mut().enumerate() {
            *word = if i < pad { i } else { perm[i - pad] + pad } as u32;
        }
        let y = self.fresh_like(x, View::row_major(&[x.view.len()]));
        let moved = perm.iter().map(|&axis| sizes[axis]).collect();
        let input = self.program.record(Record { storage: x.storage, dims: sizes, nchw: false });
        let output = self.shaped_record(&y, moved);
        self.program.op(&TransposeParams { perm: words }, vec![input], output, name, y.view.len() as u64);
        y
    }

    /// Quantizes every input as the output is, and joins them.
    pub(super) fn concat(&mut self, node: &'g Node) -> Lowered<()> {
        let names: Vec<&'g str> = (0..node.inputs.len()).map(|i| input(node, i)).collect::<Lowered<_>>()?;
        let q = self.common_params(node, &names)?;
        let mut parts = Vec::new();
        for &name in &names {
            parts.push(self.part(node, name, q)?);
        }
        let first =
            parts.iter().find_map(Part::operand).ok_or_else(|| Reason::Unsupported("a Concat of constants".into()))?;
        let shape = first.view.shape();
        let axis = node.int("axis", 0);
        let at = eval::normalize_axis(axis, shape.len())
            .ok_or_else(|| Reason::Shape(format!("axis {axis} of {shape:?}")))?;
        // The memory order of the first input, if all can follow it.
        let order = first.view.memory_order().unwrap_or_else(|| (0..shape.len()).collect());
        let mut operands = Vec::new();
        let mut total = 0;
        for part in parts {
            let part_shape = part.shape();
            let fits =
                part_shape.len() == shape.len() && (0..shape.len()).all(|i| i == at || part_shape[i] == shape[i]);
            if !fits {
                return Err(Reason::Shape(format!("{shape:?} and {part_shape:?} along axis {at}")));
            }
            total += part_shape[at];
            let target = View::ordered(&part_shape, &order);
            operands.push(match part {
                Part::Operand(x) => self.arranged(&x, target, &node.name)?,
                Part::Const(constant) => self.constant_tensor(&constant, q, target)?,
            });
        }
        let mut joined = shape.clone();
        joined[at] = total;
        let view = View::ordered(&joined, &order);
        let range =
            operands.iter().fold((i32::MAX, i32::MIN), |(low, high), x| (low.min(x.range.0), high.max(x.range.1)));
        let y = self.fresh(view, q, range);
        // Seen as [outer, axis, inner].
        let place = order.iter().position(|&axis| axis == at).unwrap_or(0);
        let dims = |size: usize| {
            let part = |axes: &[usize]| axes.iter().map(|&axis| shape[axis]).product::<usize>();
            vec![part(&order[..place]), size, part(&order[place + 1..])]
        };
        let inputs: Vec<usize> = operands.iter().map(|x| self.shaped_record(x, dims(x.view.shape()[at]))).collect();
        let output = self.shaped_record(&y, dims(total));
        self.program.op(&ConcatParams { axis: 1 }, inputs, output, &node.name, y.view.len() as u64);
        self.set(node.output(), Value::Operand(y))
    }

    /// The parameters that all inputs of a Concat are brought to: those of the QuantizeLinear after it, those that
    /// they share, or 16 bits that hold them all.
    fn common_params(&mut self, node: &'g Node, names: &[&str]) -> Lowered<QParams> {
        if let Some(reader) = self.only_consumer(node.output()).filter(|reader| reader.op_type == "QuantizeLinear") {
            return self.node_qparams(reader);
        }
        let (mut low, mut high) = (0.0f64, 0.0f64);
        let mut shared: Vec<QParams> = Vec::new();
        let mut exact = true;
        for &name in names {
            let (least, most) = match self.value(name)? {
                Value::Operand(x) => {
                    shared.push(self.params_of(&x));
                    x.real_range()
                }
                Value::Const(constant) => {
                    exact = false;
                    constant.real.iter().fold((0.0f64, 0.0f64), |(low, high), &x| (low.min(x), high.max(x)))
                }
                value => {
                    exact = false;
                    let x = self.operand_of(name, value)?;
                    self.set(name, Value::Operand(x.clone()))?;
                    x.real_range()
                }
            };
            (low, high) = (low.min(least), high.max(most));
        }
        match shared.first() {
            Some(first) if exact && shared.iter().all(|q| q == first) => Ok(*first),
            _ => Ok(QParams::sixteen(low, high)),
        }
    }

    /// One input of a Concat under the common parameters.
    fn part(&mut self, node: &'g Node, name: &str, q: QParams) -> Lowered<Part> {
        let x = match self.value(name)? {
            Value::Const(constant) => return Ok(Part::Const(constant)),
            Value::Pending(pending) => self.emit(&pending, Some(q))?,
            Value::Table(table) => self.emit_table(&table, Some(q), &node.name)?,
            Value::Operand(x) => self.requantized(&x, q, node)?,
            other => self.operand_of(name, other)?,
        };
        if self.program.storages[x.storage].scale == q.scale {
            return Ok(Part::Operand(x));
        }
        // A scalar factor was left to the scale; the kernel wants tensors that say so.
        Ok(Part::Operand(self.copied(&x, q, &node.name)?))
    }

    /// The same integers in a tensor of their own.
    pub(super) fn copied(&mut self, x: &Operand, q: QParams, name: &str) -> Lowered<Operand> {
        let (low, high) = q.levels;
        let bounds = Bounds { clamp: [low, high], range: x.range };
        self.forced_requantize(x, q, 1.0, bounds, name)
    }

    pub(super) fn pad(&mut self, node: &'g Node) -> Lowered<()> {
        let mode = node.string("mode").unwrap_or("constant");
        if mode != "constant" {
            return unsupported(format!("mode `{mode}`: only `constant` is supported"));
        }
        let x = self.operand(input(node, 0)?)?;
        let shape = x.view.shape();
        let rank = shape.len();
        let pads: Vec<i64> = self.constant(input(node, 1)?)?.real.iter().map(|&v| v as i64).collect();
        let value = match node.input(2) {
            Some(name) => {
                self.constant(name)?.scalar().ok_or_else(|| Reason::Shape("the value is not a scalar".into()))?
            }
            None => 0.0,
        };
        let axes: Vec<usize> = match node.input(3) {
            Some(name) => {
                let listed = self.constant(name)?;
                let axes = listed.real.iter().map(|&axis| eval::normalize_axis(axis as i64, rank));
                axes.collect::<Option<_>>().ok_or_else(|| Reason::Shape(format!("axes of rank {rank}")))?
            }
            None => (0..rank).collect(),
        };
        if pads.len() != 2 * axes.len() || pads.iter().any(|&pad| pad < 0) {
            return unsupported(format!("pads {pads:?} of rank {rank}: two for each axis, none negative"));
        }
        let x = match x.view.memory_order() {
            Some(_) => x,
            None => self.arranged(&x, View::row_major(&shape), &node.name)?,
        };
        let order = x.view.memory_order().unwrap_or_default();
        if rank > 4 {
            return unsupported(format!("rank {rank}: at most four axes are supported"));
        }
        let (mut before, mut after) = ([0u32; 4], [0u32; 4]);
        let mut padded = shape.clone();
        for (i, &axis) in axes.iter().enumerate() {
            let place = 4 - rank + order.iter().position(|&at| at == axis).unwrap_or(0);
            let (first, last) = (pads[i], pads[i + axes.len()]);
            (before[place], after[place]) = (first as u32, last as u32);
            padded[axis] += (first + last) as usize;
        }
        let value = QParams::full(x.dtype, x.scale as f32, x.zero_point).quantize(value);
        let mut y = self.fresh_like(&x, View::ordered(&padded, &order));
        let levels = &mut self.program.storages[y.storage].levels;
        if !(levels.0..=levels.1).contains(&value) {
            *levels = x.dtype.range();
        }
        y.range = (x.range.0.min(value), x.range.1.max(value));
        let dims = |shape: &[usize]| order.iter().map(|&axis| shape[axis]).collect();
        let [input, output] = [self.shaped_record(&x, dims(&shape)), self.shaped_record(&y, dims(&padded))];
        self.program.op(&PadParams { before, after, value }, vec![input], output, &node.name, y.view.len() as u64);
        self.set(node.output(), Value::Operand(y))
    }
}

/// The axes of `order` in runs that `perm` leaves together.
fn runs(order: &[usize], perm: &[usize]) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    let follows = |a: usize, b: usize| perm.windows(2).any(|pair| pair == [a, b]);
    for &axis in order {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|&last| follows(last, axis)) => run.push(axis),
            _ => runs.push(vec![axis]),
        }
    }
    runs
}

/// What becomes of a shape.
enum Target {
    Permuted(Vec<usize>),
    Shape(Vec<usize>),
    /// Split, permuted and joined again.
    Blocks([Vec<usize>; 3]),
}

/// An input of a Concat.
enum Part {
    Operand(Operand),
    Const(Rc<Constant>),
}

impl Part {
    fn operand(&self) -> Option<&Operand> {
        match self {
            Self::Operand(x) => Some(x),
            Self::Const(_) => None,
        }
    }

    fn shape(&self) -> Vec<usize> {
        match self {
            Self::Operand(x) => x.view.shape(),
            Self::Const(constant) => constant.shape.clone(),
        }
    }
}

impl Table {
    /// The same function over another view of the operand.
    fn viewed(mut self, view: View) -> Self {
        self.operand.view = view;
        self
    }
}
