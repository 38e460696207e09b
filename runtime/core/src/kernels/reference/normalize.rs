//! Operators that relate each element to the others of its row.

use alloc::vec::Vec;

use super::{Record, multiplier};
use crate::kernels::fixed;
use crate::op::{LayerNormParams, SoftmaxParams};
use crate::plan::{DType, TensorRecord};
use crate::quant::Multiplier;

pub(super) fn softmax(record: &Record<'_>) -> Vec<i32> {
    let p: SoftmaxParams = record.params();
    let (x, y) = (record.input(0), record.output());
    let (exponent, output) = (multiplier(p.mantissa, p.shift), multiplier(p.output_mantissa, p.output_shift));
    let rows = x.values.chunks(x.last());
    rows.flat_map(|row| softmax_row(row, exponent, output, &y)).collect()
}

/// Softmax of one row, as elements of `y`.
pub(super) fn softmax_row(row: &[i64], exponent: Multiplier, output: Multiplier, y: &TensorRecord) -> Vec<i32> {
    let max = row.iter().max().expect("rows have elements");
    // Powers m / 2^31 · 2^-n; their sum in units of 2^-40, each term rounded down.
    let powers: Vec<(u32, u32)> = row.iter().map(|value| fixed::exp2_neg((max - value) as u32, exponent)).collect();
    let sum: u128 = powers.iter().map(|&(m, n)| (u128::from(m) << 9) >> n).sum();
    // The factor mantissa / sum: the upper 32 bits of the sum, then a quotient of 32 bits, both rounded down.
    let bits = 128 - sum.leading_zeros();
    let top = sum >> (bits - 32);
    let quotient = ((output.mantissa as u128) << 32) / top;
    let steps = |(m, n): (u32, u32)| {
        // m/2^31 · 2^-n · mantissa/2^(31 + shift) · 2^40/sum, where mantissa/sum = quotient / 2^bits.
        let shift = 31 + 31 - 40 + i64::from(output.shift) + i64::from(n) + i64::from(bits);
        let product = u128::from(m) * quotient;
        // The product is at most 2^63: from here on it rounds to 0.
        if shift > 64 { 0 } else { (product + (1 << (shift - 1))) >> shift }
    };
    let values = powers.into_iter().map(|power| i64::from(y.zero_point) + steps(power).min(1 << 32) as i64);
    let (low, high) = y.range();
    values.map(|value| value.clamp(low.into(), high.into()) as i32).collect()
}

pub(super) fn layer_norm(record: &Record<'_>) -> Vec<i32> {
    let p: LayerNormParams = record.params();
    let (x, y) = (record.input(0), record.output());
    let (gamma, beta) = (record.i32s(p.gamma), record.i32s(p.beta));
    let wide = record.plan.input(record.op, 0).expect("an input").dtype == DType::I32;
    let count = x.last() as i128;
    let mut out = Vec::new();
    for row in x.values.chunks(x.last()) {
        let sum: i128 = row.iter().map(|&x| i128::from(x)).sum();
        let mut differences: Vec<i128> = row.iter().map(|&x| count * i128::from(x) - sum).collect();
        let mut epsilon = p.epsilon;
        if wide {
            // Differences of a few bits, so that their squares sum in 62.
            let largest = differences.iter().map(|d| d.unsigned_abs()).max().unwrap_or(0);
            let bits = 31 - row.len().next_power_of_two().ilog2().div_ceil(2);
            let down = (128 - largest.leading_zeros()).saturating_sub(bits);
            differences.iter_mut().for_each(|d| *d = (2 * *d + (1i128 << down)) >> (down + 1));
            epsilon >>= 2 * down;
        }
        // C · Σx² − (Σx)² = Σ(C·x − Σx)² / C
        let squares: i128 = differences.iter().map(|&d| d * d).sum();
        let variance = (squares / count + i128::from(epsilon)).clamp(1, u64::MAX.into()) as u64;
        // 1 / sqrt(variance) to 30 bits: the root of variance · 4^h, which has 32 bits, then its reciprocal.
        let h = variance.leading_zeros() / 2;
        let root = i128::from((u128::from(variance) << (2 * h)).isqrt() as u64);
        let reciprocal = (1i128 << 62) / root;
        for ((&d, &gamma), &beta) in differences.iter().zip(&gamma).zip(&beta) {
            // d / sqrt(variance), rounded half up to 22 fraction bits.
            let normal = (d * reciprocal + (1i128 << (39 - h))) >> (40 - h);
            // ⌊normal / 2^22 · gamma / 2^gamma_shift + beta / 2^beta_shift + 1/2⌋
            let fraction = 22 + p.gamma_shift;
            let exact = normal * i128::from(gamma) + (i128::from(beta) << (fraction - p.beta_shift));
            let steps = (exact + (1i128 << (fraction - 1))) >> fraction;
            let value = steps + i128::from(y.zero_point);
            out.push(value.clamp(p.clamp[0].into(), p.clamp[1].into()) as i32);
        }
    }
    out
}
