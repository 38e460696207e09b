//! Averages and maxima over windows.

use equant_runtime::op::{AvgPool2dParams, MaxPool2dParams};

use super::linear::Geometry;
use super::pending::Source;
use super::{Lowered, Lowering, Operand, Reason, Value, input, multiplier, unsupported};
use crate::compile::view::{Atom, View};
use crate::graph::shape::{Window, windows};
use crate::graph::{Node, eval};

/// Averages over windows of an input seen as `[N, H, W, C]`.
#[derive(Debug, Clone)]
pub(super) struct Mean {
    x: Operand,
    dims: Vec<usize>,
    rows: Window,
    cols: Window,
    include_pad: bool,
}

impl Mean {
    /// The real values the outputs can take.
    pub(super) fn real_range(&self) -> (f64, f64) {
        let (low, high) = self.x.real_range();
        if self.include_pad { (low.min(0.0), high.max(0.0)) } else { (low, high) }
    }
}

/// A window over a whole axis.
fn whole(size: usize) -> Window {
    Window { kernel: size, stride: 1, dilation: 1, pad_begin: 0, pad_end: 0, output: 1 }
}

impl<'g> Lowering<'g> {
    /// GlobalAveragePool and ReduceMean.
    pub(super) fn mean(&mut self, node: &'g Node) -> Lowered<()> {
        let x = self.operand(input(node, 0)?)?;
        let shape = x.view.shape();
        let rank = shape.len();
        let mut keep = true;
        let axes: Vec<usize> = if node.op_type == "GlobalAveragePool" {
            (2..rank).collect()
        } else {
            keep = node.int("keepdims", 1) != 0;
            let listed = match node.input(1) {
                Some(name) => Some(self.constant(name)?.real.iter().map(|&v| v as i64).collect()),
                None => node.ints("axes").map(<[i64]>::to_vec),
            };
            match listed.filter(|axes: &Vec<i64>| !axes.is_empty()) {
                Some(axes) => axes
                    .iter()
                    .map(|&axis| {
                        eval::normalize_axis(axis, rank)
                            .ok_or_else(|| Reason::Shape(format!("axis {axis} of {shape:?}")))
                    })
                    .collect::<Lowered<_>>()?,
                None if node.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
                None => (0..rank).collect(),
            }
        };
        let (x, dims) = self.reducible(x, &axes, &node.name)?;
        let view = reduced(&x.view, &axes, dims[1], dims[3], keep);
        let mean = Mean { x, rows: whole(dims[1]), cols: whole(1), dims, include_pad: false };
        self.set_pending(node, Source::Mean(mean), view)
    }

    /// The operand with the reduced axes side by side in memory, and its sizes: outer, reduced, 1, inner.
    fn reducible(&mut self, x: Operand, axes: &[usize], name: &str) -> Lowered<(Operand, Vec<usize>)> {
        if let Some(dims) = reduction(&x.view, axes) {
            return Ok((x, dims));
        }
        let shape = x.view.shape();
        let (reduced, kept): (Vec<usize>, Vec<usize>) = (0..shape.len()).partition(|axis| axes.contains(axis));
        let order: Vec<usize> = kept.into_iter().chain(reduced).collect();
        let x = self.arranged(&x, View::ordered(&shape, &order), name)?;
        let dims = reduction(&x.view, axes).ok_or_else(|| Reason::Shape(format!("axes {axes:?} of {shape:?}")))?;
        Ok((x, dims))
    }

    pub(super) fn average_pool(&mut self, node: &'g Node) -> Lowered<()> {
        let x = self.operand(input(node, 0)?)?;
        let (x, rows, cols) = self.pooled(node, x)?;
        if rows.dilation != 1 || cols.dilation != 1 {
            return unsupported("dilations of an average are not supported");
        }
        let shape = x.view.shape();
        let view = View::channels_last(&[shape[0], shape[1], rows.output, cols.output]);
        let dims = vec![shape[0], shape[2], shape[3], shape[1]];
        let include_pad = node.int("count_include_pad", 0) != 0;
        self.set_pending(node, Source::Mean(Mean { x, dims, rows, cols, include_pad }), view)
    }

    pub(super) fn max_pool(&mut self, node: &'g Node) -> Lowered<()> {
        let x = self.operand(input(node, 0)?)?;
        let (x, rows, cols) = self.pooled(node, x)?;
        let shape = x.view.shape();
        let y = self.fresh_like(&x, View::channels_last(&[shape[0], shape[1], rows.output, cols.output]));
        let Geometry { kernel, strides, dilations, pads } = Geometry::new(rows, cols);
        let (low, high) = self.params_of(&x).levels;
        let params = MaxPool2dParams { kernel, strides, dilations, pads, clamp: [low, high] };
        let [input, output] = [self.image_record(&x), self.image_record(&y)];
        let work = (y.view.len() * rows.kernel * cols.kernel) as u64;
        self.program.op(&params, vec![input], output, &node.name, work);
        self.set(node.output(), Value::Operand(y))
    }

    /// An image stored with its channels last, and the windows of a pool over it.
    fn pooled(&mut self, node: &Node, x: Operand) -> Lowered<(Operand, Window, Window)> {
        let shape = x.view.shape();
        if shape.len() != 4 {
            return unsupported(format!("input of rank {}: only images [N, C, H, W] are supported", shape.len()));
        }
        let kernel: Option<Vec<usize>> =
            node.ints("kernel_shape").unwrap_or_default().iter().map(|&k| usize::try_from(k).ok()).collect();
        let kernel = kernel.ok_or_else(|| Reason::Shape("kernel_shape is negative".into()))?;
        let spatial = windows(node, &shape[2..], &kernel).map_err(Reason::Shape)?;
        let x = self.arranged(&x, View::channels_last(&shape), &node.name)?;
        Ok((x, spatial[0], spatial[1]))
    }

    pub(super) fn emit_mean(
        &mut self,
        mean: &Mean,
        factor: f64,
        y: &Operand,
        clamp: [i32; 2],
        name: &str,
    ) -> Lowered<()> {
        let Mean { x, dims, rows, cols, include_pad } = mean;
        let m = multiplier(x.scale * factor / f64::from(self.program.storages[y.storage].scale))?;
        let Geometry { kernel, strides, pads, .. } = Geometry::new(*rows, *cols);
        let params = AvgPool2dParams {
            kernel,
            strides,
            pads,
            count_include_pad: u32::from(*include_pad),
            mantissa: m.mantissa,
            shift: i32::from(m.shift),
            clamp,
        };
        let work = (y.view.len() * rows.kernel * cols.kernel) as u64;
        let [input, output] = [self.shaped_record(x, dims.clone()), self.window_record(y, *rows, *cols, dims[3])];
        self.program.op(&params, vec![input], output, name, work);
        Ok(())
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
