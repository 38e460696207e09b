//! Resize by linear interpolation.

use equant_runtime::op::{ConstRef, Resize2dParams};

use super::{Lowered, Lowering, Reason, Value, input, unsupported};
use crate::compile::program::{Record, Section};
use crate::compile::view::View;
use crate::graph::Node;
use crate::graph::interpolation::{Interpolation, Taps};

impl<'g> Lowering<'g> {
    /// A Resize that weighs elements; one to nearest neighbours only moves them ([`Self::take`]).
    pub(super) fn resize(&mut self, node: &'g Node) -> Lowered<()> {
        let mode = node.string("mode").unwrap_or("nearest");
        if mode != "linear" {
            return unsupported(format!("mode `{mode}`: only `nearest` and `linear` are supported"));
        }
        let graph = self.graph;
        let mut x = self.operand(input(node, 0)?)?;
        let shape = x.view.shape();
        let constant = |i: usize| node.input(i).and_then(|name| graph.initializers.get(name));
        let interpolation = Interpolation::of(node, &shape, constant).map_err(Reason::Shape)?;
        let mut taps = interpolation.axes().map_err(Reason::Shape)?;
        let changed: Vec<usize> = (0..shape.len()).filter(|&axis| taps[axis].is_some()).collect();
        let (rows, cols) = match changed.as_slice() {
            [] => return self.set(node.output(), Value::Operand(x)),
            [cols] => (None, *cols),
            [rows, cols] => (Some(*rows), *cols),
            _ => return unsupported(format!("{} resized axes: at most two are supported", changed.len())),
        };
        // Memory as an image: the batch, rows, columns, and whatever does not change.
        let first = rows.unwrap_or(cols);
        let unchanged = |axis: &usize| !changed.contains(axis);
        let order: Vec<usize> =
            (0..1).filter(unchanged).chain(rows).chain([cols]).chain((1..shape.len()).filter(unchanged)).collect();
        x = self.arranged(&x, View::ordered(&shape, &order), &node.name)?;
        let resized = interpolation.shape();
        let y = self.fresh_like(&x, View::ordered(&resized, &order));
        let at = order.iter().position(|&axis| axis == first).unwrap_or(0);
        let dims = |shape: &[usize]| {
            let part = |axes: &[usize]| axes.iter().map(|&axis| shape[axis]).product::<usize>();
            let behind = at + if rows.is_some() { 2 } else { 1 };
            vec![part(&order[..at]), rows.map_or(1, |rows| shape[rows]), shape[cols], part(&order[behind..])]
        };
        let whole = vec![vec![(0, 1.0)]];
        let row_taps = rows.and_then(|rows| taps[rows].take()).unwrap_or(whole);
        let col_taps = taps[cols].take().unwrap_or_default();
        let (rows, cols) = (self.taps(&row_taps)?, self.taps(&col_taps)?);
        let (low, high) = self.params_of(&x).levels;
        let params = Resize2dParams {
            taps: [rows.most, cols.most],
            rows: rows.indices,
            row_weights: rows.weights,
            cols: cols.indices,
            col_weights: cols.weights,
            clamp: [low, high],
        };
        let (input, output) = (dims(&shape), dims(&resized));
        let input = self.program.record(Record { storage: x.storage, dims: input, nchw: false });
        let output = self.program.record(Record { storage: y.storage, dims: output, nchw: false });
        let work = y.view.len() as u64 * u64::from(rows.most * cols.most);
        self.program.op(&params, vec![input], output, &node.name, work);
        self.set(node.output(), Value::Operand(y))
    }

    /// The taps of an axis as constants, as many for each element as any of them needs.
    fn taps(&mut self, all: &[Taps]) -> Lowered<Lists> {
        let most = all.iter().map(Vec::len).max().unwrap_or(1);
        if most > Resize2dParams::MOST_TAPS as usize {
            return unsupported(format!(
                "{most} elements for one: at most {} are supported",
                Resize2dParams::MOST_TAPS
            ));
        }
        let (mut indices, mut weights) = (Vec::new(), Vec::new());
        for taps in all {
            let rounded = rounded(taps);
            for k in 0..most {
                let (index, weight) = rounded.get(k).copied().unwrap_or((0, 0));
                let index = u16::try_from(index).map_err(|_| Reason::Shape("an axis of more than 65536".into()))?;
                indices.extend(index.to_le_bytes());
                weights.extend(weight.to_le_bytes());
            }
        }
        let indices = self.program.consts.add(Section::Tables, indices);
        Ok(Lists { most: most as u32, indices, weights: self.program.consts.add(Section::Tables, weights) })
    }
}

struct Lists {
    most: u32,
    indices: ConstRef,
    weights: ConstRef,
}

/// Weights in steps of 2^-14 that still sum to one: the largest takes up what rounding leaves.
fn rounded(taps: &Taps) -> Vec<(usize, i16)> {
    let one = 1i32 << Resize2dParams::WEIGHT_BITS;
    let mut steps: Vec<i32> = taps.iter().map(|tap| (tap.1 * f64::from(one)).round_ties_even() as i32).collect();
    let rest = one - steps.iter().sum::<i32>();
    if let Some(largest) = steps.iter_mut().max_by_key(|step| step.abs()) {
        *largest += rest;
    }
    taps.iter().zip(steps).map(|(tap, step)| (tap.0, step as i16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_weights_sum_to_one() {
        for taps in [vec![(0, 1.0 / 3.0), (1, 1.0 / 3.0), (2, 1.0 / 3.0)], vec![(4, 0.1), (5, 0.9)], vec![(7, 1.0)]] {
            let rounded = rounded(&taps);
            assert_eq!(rounded.iter().map(|tap| i32::from(tap.1)).sum::<i32>(), 1 << 14);
            for (real, (index, step)) in taps.iter().zip(rounded) {
                assert_eq!(real.0, index);
                assert!((real.1 * f64::from(1 << 14) - f64::from(step)).abs() <= 1.0);
            }
        }
    }
}
