//! Reductions over any axes: means, sums, extremes and where they are.

use equant_runtime::op::{ArgMaxParams, LutParams, MaxPool2dParams};
use equant_runtime::plan::DType;

use super::pending::{Pending, Source};
use super::pool::Mean;
use super::{Lowered, Lowering, Operand, QParams, Reason, Value, input};
use crate::compile::program::Section;
use crate::compile::view::{Atom, View};
use crate::graph::{Node, eval};

/// An operand whose reduced axes lie side by side in memory.
struct Reducible {
    x: Operand,
    /// Outer, reduced, 1, inner.
    dims: Vec<usize>,
    /// The output's view.
    view: View,
}

impl<'g> Lowering<'g> {
    /// GlobalAveragePool, ReduceMean and ReduceSum.
    pub(super) fn mean(&mut self, node: &'g Node) -> Lowered<()> {
        let x = self.operand(input(node, 0)?)?;
        let axes = self.reduced_axes(node, x.view.shape().len())?;
        let Reducible { x, dims, view } = self.reducible(node, x, &axes)?;
        let factor = if node.op_type == "ReduceSum" { dims[1] as f64 } else { 1.0 };
        let mean = Source::Mean(Mean::whole(x, dims));
        let pending = Pending::new(mean, view, node).scaled(factor);
        self.set(node.output(), Value::Pending(Box::new(pending)))
    }

    /// GlobalMaxPool, ReduceMax and ReduceMin.
    pub(super) fn extreme(&mut self, node: &'g Node) -> Lowered<()> {
        let x = self.operand(input(node, 0)?)?;
        let axes = self.reduced_axes(node, x.view.shape().len())?;
        let y = match (node.op_type.as_str(), x.dtype) {
            ("ReduceMin", DType::I8) => {
                let x = self.complement(&x, &node.name);
                let y = self.maximum(node, x, &axes)?;
                self.complement(&y, &node.name)
            }
            ("ReduceMin", _) => {
                let x = self.negated(&x, node)?;
                let y = self.maximum(node, x, &axes)?;
                self.negated(&y, node)?
            }
            _ => self.maximum(node, x, &axes)?,
        };
        self.set(node.output(), Value::Operand(y))
    }

    /// ArgMax and ArgMin: indices in 32 bits.
    pub(super) fn arg_extreme(&mut self, node: &'g Node) -> Lowered<()> {
        let x = self.operand(input(node, 0)?)?;
        let shape = x.view.shape();
        let axis = node.int("axis", 0);
        let axis = eval::normalize_axis(axis, shape.len());
        let axis = axis.ok_or_else(|| Reason::Shape(format!("axis {axis:?} of {shape:?}")))?;
        let Reducible { x, dims, view } = self.reducible(node, x, &[axis])?;
        let params = ArgMaxParams {
            least: u32::from(node.op_type == "ArgMin"),
            select_last: u32::from(node.int("select_last_index", 0) != 0),
        };
        let last = i32::try_from(dims[1] - 1).map_err(|error| Reason::Shape(error.to_string()))?;
        let y = self.fresh(view, QParams::full(DType::I32, 1.0, 0), (0, last));
        let input = self.shaped_record(&x, vec![dims[0], dims[1], dims[3]]);
        let output = self.default_record(&y);
        self.program.op(&params, vec![input], output, &node.name, x.view.len() as u64);
        self.set(node.output(), Value::Operand(y))
    }

    /// The axes that a node reduces an input of rank `rank` over.
    fn reduced_axes(&mut self, node: &Node, rank: usize) -> Lowered<Vec<usize>> {
        if node.op_type.starts_with("Global") {
            return Ok((2..rank).collect());
        }
        let listed = match node.input(1) {
            Some(name) => Some(self.constant(name)?.real.iter().map(|&v| v as i64).collect()),
            None => node.ints("axes").map(<[i64]>::to_vec),
        };
        match listed.filter(|axes: &Vec<i64>| !axes.is_empty()) {
            Some(axes) => {
                let axis = |&axis: &i64| {
                    eval::normalize_axis(axis, rank).ok_or_else(|| Reason::Shape(format!("axis {axis} of rank {rank}")))
                };
                axes.iter().map(axis).collect()
            }
            None if node.int("noop_with_empty_axes", 0) != 0 => Ok(Vec::new()),
            None => Ok((0..rank).collect()),
        }
    }

    /// The operand with the reduced axes side by side in memory.
    fn reducible(&mut self, node: &Node, x: Operand, axes: &[usize]) -> Lowered<Reducible> {
        let keep = node.int("keepdims", 1) != 0;
        let shape = x.view.shape();
        let mut x = x;
        let dims = match reduction(&x.view, axes) {
            Some(dims) => dims,
            None => {
                let (reduced, kept): (Vec<usize>, Vec<usize>) = (0..shape.len()).partition(|axis| axes.contains(axis));
                let order: Vec<usize> = kept.into_iter().chain(reduced).collect();
                x = self.arranged(&x, View::ordered(&shape, &order), &node.name)?;
                reduction(&x.view, axes).ok_or_else(|| Reason::Shape(format!("axes {axes:?} of {shape:?}")))?
            }
        };
        let view = reduced(&x.view, axes, dims[1], dims[3], keep);
        Ok(Reducible { x, dims, view })
    }

    /// The largest elements.
    fn maximum(&mut self, node: &Node, x: Operand, axes: &[usize]) -> Lowered<Operand> {
        let Reducible { x, dims, view } = self.reducible(node, x, axes)?;
        let y = self.fresh_like(&x, view);
        let (low, high) = self.params_of(&x).levels;
        let params = MaxPool2dParams {
            kernel: [dims[1] as u32, 1],
            strides: [1, 1],
            dilations: [1, 1],
            pads: [0; 4],
            clamp: [low, high],
        };
        let output = vec![dims[0], 1, 1, dims[3]];
        let [input, output] = [self.shaped_record(&x, dims), self.shaped_record(&y, output)];
        self.program.op(&params, vec![input], output, &node.name, x.view.len() as u64);
        Ok(y)
    }

    /// The negative of an 8-bit operand, exactly: `−1 − q` about the zero point `−1 − zero_point`.
    fn complement(&mut self, x: &Operand, name: &str) -> Operand {
        let params = self.params_of(x);
        let levels = (!params.levels.1, !params.levels.0);
        let q = QParams { zero_point: !params.zero_point, levels, ..params };
        let bytes = (-128..128i32).map(|q| !q as u8).collect();
        let table = LutParams { table: self.program.consts.add(Section::Tables, bytes) };
        let y = self.fresh(x.view.clone(), q, (!x.range.1, !x.range.0));
        // The operand's scale may differ from its record's by a factor.
        let y = Operand { scale: x.scale, ..y };
        let [input, output] = [self.default_record(x), self.default_record(&y)];
        self.program.op(&table, vec![input], output, name, y.view.len() as u64);
        y
    }
}

/// Sizes outer, reduced, 1, inner of memory whose reduced axes lie side by side.
fn reduction(view: &View, axes: &[usize]) -> Option<Vec<usize>> {
    let shape = view.shape();
    let order: Vec<usize> = view.memory_order()?.into_iter().filter(|&axis| shape[axis] > 1).collect();
    let places: Vec<usize> = (0..order.len()).filter(|&at| axes.contains(&order[at])).collect();
    let size = |part: &[usize]| part.iter().map(|&axis| shape[axis]).product::<usize>();
    let (first, last) = match places.as_slice() {
        [] => (0, 0),
        [first, .., last] => (*first, *last + 1),
        [only] => (*only, *only + 1),
    };
    (last - first == places.len())
        .then(|| vec![size(&order[..first]), size(&order[first..last]), 1, size(&order[last..])])
}

/// The view of the averages: axes outside the reduced ones move together.
fn reduced(x: &View, axes: &[usize], count: usize, inner: usize, keep: bool) -> View {
    let kept = x.axes().iter().enumerate().filter_map(|(axis, atoms)| {
        if axes.contains(&axis) {
            return keep.then(Vec::new);
        }
        let moved = |atom: &Atom| Atom {
            stride: if atom.stride >= inner { atom.stride / count } else { atom.stride },
            ..*atom
        };
        Some(atoms.iter().map(moved).collect())
    });
    View::from_axes(kept.collect())
}
