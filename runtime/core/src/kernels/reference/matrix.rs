//! Matrix products.

use alloc::{vec, vec::Vec};

use super::{Record, multiplier};
use crate::op::{FullyConnectedParams, MatMulParams};
use crate::plan::DType;
use crate::quant;

pub(super) fn fully_connected(record: &Record<'_>) -> Vec<i32> {
    let p: FullyConnectedParams = record.params();
    let x = record.input(0);
    let (weights, bias) = (record.i8s(p.weights), record.i32s(p.bias));
    let (mantissas, shifts) = (record.i32s(p.mantissas), record.i8s(p.shifts));
    let zero_point = i32::from(record.output().zero_point);
    let mut y = Vec::new();
    for row in x.values.chunks(x.last()) {
        for o in 0..bias.len() {
            let sum: i64 = (0..row.len()).map(|k| weights[o * row.len() + k] * row[k]).sum();
            let acc = (bias[o] + sum) as i32; // sums wrap at 32 bits
            let scale = multiplier(mantissas[o] as i32, shifts[o] as i32);
            y.push(quant::requantize(acc, scale, zero_point, p.clamp[0], p.clamp[1]));
        }
    }
    y
}

/// Elements of `y` that no product reaches keep what the arena holds.
pub(super) fn mat_mul(record: &Record<'_>) -> Vec<i32> {
    let p: MatMulParams = record.params();
    let (a, b, y) = (record.input(0), record.input(1), record.output());
    let at = |strides: [u32; 4], index: [u32; 4]| -> usize {
        (0..4).map(|axis| strides[axis] as usize * index[axis] as usize).sum()
    };
    let len = y.elements().expect("a length") as usize;
    let mut out = vec![0; len];
    let held = &record.arena[y.offset as usize..];
    for (i, slot) in out.iter_mut().enumerate() {
        *slot = match y.dtype {
            DType::I8 => i32::from(held[i] as i8),
            DType::I16 => i32::from(i16::from_le_bytes([held[2 * i], held[2 * i + 1]])),
        };
    }
    let scale = multiplier(p.mantissa, p.shift);
    for b0 in 0..p.batch[0] {
        for b1 in 0..p.batch[1] {
            for i in 0..p.m {
                for j in 0..p.n {
                    let mut acc = 0i64;
                    for k in 0..p.k {
                        let x = a.values[at(p.a_strides, [b0, b1, i, k])] - a.zero_point;
                        acc += x * (b.values[at(p.b_strides, [b0, b1, k, j])] - b.zero_point);
                    }
                    out[at(p.y_strides, [b0, b1, i, j])] =
                        quant::requantize(acc as i32, scale, y.zero_point.into(), p.clamp[0], p.clamp[1]);
                }
            }
        }
    }
    out
}
