//! Operators that take elements at constant places: slices, splits, gathers, repetitions, reflections, nearest
//! neighbours. All become [`TakeParams`], in the scale and zero point of what they take from.

use equant_runtime::op::{ConstRef, TakeParams};

use super::{Lowered, Lowering, Operand, Reason, Value, input, unsupported};
use crate::compile::program::{Record, Section};
use crate::compile::view::View;
use crate::graph::Node;
use crate::graph::movement::{self, Picks};

/// Indices along each axis, as in [`Picks`].
type Axes = Vec<Option<Vec<usize>>>;

impl<'g> Lowering<'g> {
    /// A node that only [`movement::moves`] elements, with all of its outputs.
    pub(super) fn take(&mut self, node: &'g Node) -> Lowered<()> {
        let graph = self.graph;
        let constant = |i: usize| node.input(i).and_then(|name| graph.initializers.get(name));
        if let Some(i) = movement::parameters(node).find(|&i| constant(i).is_none()) {
            return unsupported(format!("its input `{}` is not a constant", node.inputs[i]));
        }
        let x = self.operand(input(node, 0)?)?;
        let shape = x.view.shape();
        for (k, output) in node.outputs.iter().enumerate().filter(|(_, output)| !output.is_empty()) {
            if self.use_count(output) > 0 {
                let picks = movement::picks(node, k, &shape, constant).map_err(Reason::Shape)?;
                if picks.shape.contains(&0) {
                    return Err(Reason::Shape(format!("its output `{output}` has no elements")));
                }
                let y = self.taken(&x, picks, &node.name)?;
                self.set(output, Value::Operand(y))?;
            }
        }
        Ok(())
    }

    /// The elements that `picks` names.
    pub(super) fn taken(&mut self, x: &Operand, picks: Picks, name: &str) -> Lowered<Operand> {
        let shape = x.view.shape();
        let wide = [&vec![1; picks.axes.len() - shape.len()], shape.as_slice()].concat();
        let refuse = || Reason::Shape(format!("{shape:?} seen as {:?}", picks.shape));
        let view = x.view.reshape(&wide).ok_or_else(refuse)?;
        let mut x = Operand { view, ..x.clone() };
        let mut axes = picks.axes;
        for (axis, &size) in axes.iter_mut().zip(&wide) {
            axis.take_if(|indices| indices.iter().copied().eq(0..size));
        }
        if axes.iter().any(Option::is_some) {
            if x.view.memory_order().is_none() {
                x = self.arranged(&x, View::row_major(&wide), name)?;
            }
            let order = x.view.memory_order().ok_or_else(refuse)?;
            if runs(&order, &wide, &axes).len() <= 4 {
                x = self.emit_take(&x, &order, &axes, name)?;
            } else {
                // One axis at a time: there is at most a run before it and one behind it.
                for at in (0..axes.len()).filter(|&at| axes[at].is_some()) {
                    let mut alone = vec![None; axes.len()];
                    alone[at].clone_from(&axes[at]);
                    x = self.emit_take(&x, &order, &alone, name)?;
                }
            }
        }
        let view = x.view.reshape(&picks.shape).ok_or_else(refuse)?;
        Ok(Operand { view, ..x })
    }

    /// One operator, over at most four runs of axes.
    fn emit_take(&mut self, x: &Operand, order: &[usize], axes: &Axes, name: &str) -> Lowered<Operand> {
        let mut shape = x.view.shape();
        let runs = runs(order, &shape, axes);
        for (size, axis) in shape.iter_mut().zip(axes) {
            *size = axis.as_ref().map_or(*size, Vec::len);
        }
        let y = self.fresh_like(x, View::ordered(&shape, order));
        let mut indices = [ConstRef::default(); 4];
        for ((_, list), slot) in runs.iter().zip(&mut indices[4 - runs.len()..]) {
            let Some(list) = list else { continue };
            let halves: Result<Vec<u16>, _> = list.iter().map(|&index| u16::try_from(index)).collect();
            let halves = halves.map_err(|_| Reason::Shape(format!("an axis of more than {} elements", 1 << 16)))?;
            *slot =
                self.program.consts.add(Section::Tables, halves.iter().flat_map(|half| half.to_le_bytes()).collect());
        }
        let dims = runs.iter().map(|(size, _)| *size).collect();
        let taken = runs.iter().map(|(size, list)| list.as_ref().map_or(*size, |list| list.len())).collect();
        let input = self.program.record(Record { storage: x.storage, dims, nchw: false });
        let output = self.program.record(Record { storage: y.storage, dims: taken, nchw: false });
        self.program.op(&TakeParams { indices }, vec![input], output, name, y.view.len() as u64);
        Ok(y)
    }
}

/// The axes in the order of memory, size and indices of each, those next to each other that stay as they are as one.
fn runs<'a>(order: &[usize], shape: &[usize], axes: &'a Axes) -> Vec<(usize, Option<&'a Vec<usize>>)> {
    let mut runs: Vec<(usize, Option<&Vec<usize>>)> = Vec::new();
    for &axis in order {
        match (runs.last_mut(), &axes[axis]) {
            (Some((size, None)), None) => *size *= shape[axis],
            (_, indices) => runs.push((shape[axis], indices.as_ref())),
        }
    }
    runs
}
