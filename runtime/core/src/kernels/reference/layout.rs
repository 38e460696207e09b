//! Operators that only move elements.

use alloc::{vec, vec::Vec};

use super::{Record, Tensor, indices};
use crate::op::{ArgMaxParams, ConcatParams, GatherParams, PadParams, TakeParams, TransposeParams};

/// Element at an index of four axes with leading ones.
fn at_leading(x: &Tensor, [a, b, c, d]: [usize; 4]) -> i32 {
    let [_, db, dc, dd] = x.leading_ones();
    x.values[((a * db + b) * dc + c) * dd + d] as i32
}

pub(super) fn transpose(record: &Record<'_>) -> Vec<i32> {
    let p: TransposeParams = record.params();
    let x = record.input(0);
    let dims = x.leading_ones();
    let element = |y_index: [usize; 4]| {
        let mut x_index = [0; 4];
        for (i, &axis) in p.perm.iter().enumerate() {
            x_index[axis as usize] = y_index[i];
        }
        at_leading(&x, x_index)
    };
    indices(p.perm.map(|axis| dims[axis as usize])).map(element).collect()
}

pub(super) fn concat(record: &Record<'_>) -> Vec<i32> {
    let axis = record.params::<ConcatParams>().axis as usize;
    let inputs: Vec<Tensor> = (0..record.op.input_count()).map(|i| record.input(i)).collect();
    let element = |mut index: [usize; 4]| {
        for x in &inputs {
            if index[axis] < x.dims[axis] {
                return x.at(index) as i32;
            }
            index[axis] -= x.dims[axis];
        }
        unreachable!("the inputs fill the output")
    };
    indices(record.output_dims()).map(element).collect()
}

pub(super) fn pad(record: &Record<'_>) -> Vec<i32> {
    let p: PadParams = record.params();
    let x = record.input(0);
    let x_dims = x.leading_ones();
    let before = p.before.map(|n| n as usize);
    let mut dims = x_dims;
    for (axis, dim) in dims.iter_mut().enumerate() {
        *dim += before[axis] + p.after[axis] as usize;
    }
    let mut y = vec![p.value; dims.iter().product()];
    for (slot, index) in y.iter_mut().zip(indices(dims)) {
        let inside = (0..4).all(|axis| index[axis] >= before[axis] && index[axis] - before[axis] < x_dims[axis]);
        if inside {
            *slot = at_leading(&x, core::array::from_fn(|axis| index[axis] - before[axis]));
        }
    }
    y
}

pub(super) fn take(record: &Record<'_>) -> Vec<i32> {
    let p: TakeParams = record.params();
    let x = record.input(0);
    let y_rank = usize::from(record.output().rank);
    let mut dims = record.output_dims();
    dims.rotate_right(4 - y_rank);
    let lists: Vec<Vec<usize>> = (0..4)
        .map(|axis| match p.indices[axis].len {
            0 => (0..dims[axis]).collect(),
            _ => record.u16s(p.indices[axis]),
        })
        .collect();
    indices(dims).map(|index| at_leading(&x, core::array::from_fn(|axis| lists[axis][index[axis]]))).collect()
}

pub(super) fn arg_max(record: &Record<'_>) -> Vec<i32> {
    let p: ArgMaxParams = record.params();
    let x = record.input(0);
    let [outer, axis, inner, _] = x.dims;
    let mut y = Vec::new();
    for o in 0..outer {
        for i in 0..inner {
            let value = |k: usize| x.values[(o * axis + k) * inner + i];
            let mut best = 0;
            for k in 1..axis {
                let better = if p.least == 1 { value(k) < value(best) } else { value(k) > value(best) };
                if better || (value(k) == value(best) && p.select_last == 1) {
                    best = k;
                }
            }
            y.push(best as i32);
        }
    }
    y
}

pub(super) fn gather(record: &Record<'_>) -> Vec<i32> {
    let axis = record.params::<GatherParams>().axis as usize;
    let (x, indices) = (record.input(0), record.input(1));
    let size = x.dims[axis] as i64;
    let (outer, inner) = (x.dims[..axis].iter().product(), x.dims[axis + 1..].iter().product::<usize>());
    let mut y = Vec::new();
    for before in 0..outer {
        for &index in &indices.values {
            let row = before * x.dims[axis] + index.rem_euclid(size) as usize;
            y.extend((0..inner).map(|after| x.values[row * inner + after] as i32));
        }
    }
    y
}

pub(super) fn state(record: &Record<'_>) -> Vec<i32> {
    record.input(0).values.iter().map(|&value| value as i32).collect()
}
