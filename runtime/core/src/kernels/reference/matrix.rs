//! Matrix products.

use alloc::vec::Vec;

use super::normalize::softmax_row;
use super::{Record, Tensor, multiplier, words};
use crate::op::{FullyConnectedParams, MatMulMaskSoftmaxParams, MatMulParams, MatMulSoftmaxParams};
use crate::plan::DType;
use crate::quant;

pub(super) fn fully_connected(record: &Record<'_>) -> Vec<i32> {
    let p: FullyConnectedParams = record.weighted();
    let x = record.input(0);
    let filter = x.last().div_ceil(8) * 8;
    let (weights, bias) = (record.weights::<FullyConnectedParams>(p.weights, filter), record.i32s(p.bias));
    let (mantissas, shifts) = (record.i32s(p.mantissas), record.i8s(p.shifts));
    let zero_point = i32::from(record.output().zero_point);
    let mut y = Vec::new();
    for row in x.values.chunks(x.last()) {
        for o in 0..bias.len() {
            let sum: i64 = (0..row.len()).map(|k| weights[o * filter + k] * row[k]).sum();
            let acc = (bias[o] + sum) as i32; // sums wrap at 32 bits
            let scale = multiplier(mantissas[o] as i32, shifts[o] as i32);
            y.push(quant::requantize(acc, scale, zero_point, p.clamp[0], p.clamp[1]));
        }
    }
    y
}

/// Every element of `y` as the arena holds it.
fn held(record: &Record<'_>) -> Vec<i32> {
    let y = record.output();
    let bytes = &record.arena[y.offset as usize..][..y.byte_len().expect("a length") as usize];
    match y.dtype {
        DType::I8 => bytes.iter().map(|&byte| i32::from(byte as i8)).collect(),
        DType::I16 => bytes.chunks(2).map(|pair| i32::from(i16::from_le_bytes([pair[0], pair[1]]))).collect(),
        DType::I32 => words(bytes).into_iter().map(|word| word as i32).collect(),
    }
}

/// The element at an index.
fn at<const AXES: usize>(strides: [u32; AXES], index: [u32; AXES]) -> usize {
    (0..AXES).map(|axis| strides[axis] as usize * index[axis] as usize).sum()
}

/// `Σ_k (a[b0, b1, i, k] − zero_point_a) · (b[b0, b1, k, j] − zero_point_b)`.
fn sum([a, b]: [&Tensor; 2], [a_strides, b_strides]: [[u32; 4]; 2], depth: u32, [b0, b1, i, j]: [u32; 4]) -> i64 {
    (0..depth)
        .map(|k| {
            let x = a.values[at(a_strides, [b0, b1, i, k])] - a.zero_point;
            x * (b.values[at(b_strides, [b0, b1, k, j])] - b.zero_point)
        })
        .sum()
}

/// Elements of `y` that no product reaches keep what the arena holds.
pub(super) fn mat_mul(record: &Record<'_>) -> Vec<i32> {
    let p: MatMulParams = record.params();
    let (a, b, y) = (record.input(0), record.input(1), record.output());
    let mut out = held(record);
    let scale = multiplier(p.mantissa, p.shift);
    for b0 in 0..p.batch[0] {
        for b1 in 0..p.batch[1] {
            for i in 0..p.m {
                for j in 0..p.n {
                    let acc = sum([&a, &b], [p.a_strides, p.b_strides], p.k, [b0, b1, i, j]);
                    out[at(p.y_strides, [b0, b1, i, j])] =
                        quant::requantize(acc as i32, scale, y.zero_point.into(), p.clamp[0], p.clamp[1]);
                }
            }
        }
    }
    out
}

/// Elements of `y` that no row reaches keep what the arena holds.
pub(super) fn mat_mul_softmax(record: &Record<'_>) -> Vec<i32> {
    let p: MatMulSoftmaxParams = record.params();
    let (a, b) = (record.input(0), record.input(1));
    let mut out = held(record);
    let exponent = multiplier(p.mantissa, p.shift);
    let output = multiplier(p.output_mantissa, p.output_shift);
    for b0 in 0..p.batch[0] {
        for b1 in 0..p.batch[1] {
            for i in 0..p.m {
                let sums = (0..p.n).map(|j| sum([&a, &b], [p.a_strides, p.b_strides], p.k, [b0, b1, i, j]));
                let row = softmax_row(&sums.collect::<Vec<_>>(), exponent, output, &record.output());
                let start = at(p.y_strides, [b0, b1, i]);
                out[start..start + row.len()].copy_from_slice(&row);
            }
        }
    }
    out
}

/// Elements of `y` that no row reaches keep what the arena holds.
pub(super) fn mat_mul_mask_softmax(record: &Record<'_>) -> Vec<i32> {
    let p: MatMulMaskSoftmaxParams = record.params();
    let MatMulSoftmaxParams { batch, m, k, n, a_strides, b_strides, y_strides, .. } = p.product;
    let (a, b) = (record.input(0), record.input(1));
    let mask = (record.op.input_count() == 3).then(|| {
        let source = record.plan.input(record.op, 2).expect("an input");
        (record.input(2), source.is_const().then_some(i64::from(source.dtype.range().0)))
    });
    let mut out = held(record);
    let exponent = multiplier(p.product.mantissa, p.product.shift);
    let output = multiplier(p.product.output_mantissa, p.product.output_shift);
    let y = record.output();
    let hidden = i32::from(y.zero_point).clamp(y.range().0, y.range().1);
    for b0 in 0..batch[0] {
        for b1 in 0..batch[1] {
            for i in 0..m {
                let seen = n.min(p.visible.saturating_add(i));
                let scores = (0..seen).map(|j| {
                    let acc = sum([&a, &b], [a_strides, b_strides], k, [b0, b1, i, j]);
                    let Some((mask, excluded)) = &mask else { return acc };
                    let element = mask.values[at(p.mask_strides, [b0, b1, i, j])];
                    if *excluded == Some(element) {
                        return i32::MIN.into();
                    }
                    let exact = i128::from(acc) * i128::from(p.sum_factor)
                        + i128::from(element - mask.zero_point) * i128::from(p.mask_factor) * (1 << p.mask_shift);
                    let score = (exact + (1 << (p.factor_shift - 1))) >> p.factor_shift;
                    score.clamp(i32::MIN.into(), i32::MAX.into()) as i64
                });
                let row = softmax_row(&scores.collect::<Vec<_>>(), exponent, output, &y);
                let start = at(y_strides, [b0, b1, i]);
                out[start..start + n as usize].fill(hidden);
                out[start..start + row.len()].copy_from_slice(&row);
            }
        }
    }
    out
}
