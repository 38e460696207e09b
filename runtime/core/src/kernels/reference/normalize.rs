//! Operators that relate each element to the others of its row.

use alloc::vec::Vec;

use super::{Record, multiplier};
use crate::kernels::fixed;
use crate::op::{LayerNormParams, LogSoftmaxParams, RmsNormParams, SoftmaxParams};
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

pub(super) fn log_softmax(record: &Record<'_>) -> Vec<i32> {
    let p: LogSoftmaxParams = record.params();
    let (x, y) = (record.input(0), record.output());
    let exponent = multiplier(p.mantissa, p.shift);
    // value / 2^bits · mantissa / 2^(31 + shift), rounded half up to 16 fraction bits.
    let term = |value: u32, mantissa: i32, shift: i32, bits: i32| {
        let down = 31 + shift + bits - 16;
        let doubled = (u128::from(value) * mantissa as u128) << (1 + (-down).max(0));
        let rounded = ((doubled >> down.max(0)) + 1) >> 1;
        // The product is below 2^63: from there on it counts as 0.
        if down > 63 { 0 } else { rounded.min(1 << 60) as i128 }
    };
    let mut out = Vec::new();
    for row in x.values.chunks(x.last()) {
        let max = row.iter().max().expect("rows have elements");
        let powers = row.iter().map(|value| fixed::exp2_neg((max - value) as u32, exponent));
        let sum: u64 = powers.map(|(m, n)| (u64::from(m) << 9) >> n).sum();
        let log = term(fixed::log2(sum), p.log_mantissa, p.log_shift, fixed::LOG2_BITS as i32);
        for value in row {
            let below = term((max - value) as u32, p.step_mantissa, p.step_shift, 0) + log;
            let value = i128::from(y.zero_point) + ((1 << 15) - below).div_euclid(1 << 16);
            out.push(value.clamp(p.clamp[0].into(), p.clamp[1].into()) as i32);
        }
    }
    out
}

pub(super) fn layer_norm(record: &Record<'_>) -> Vec<i32> {
    normalized(record, record.params(), true)
}

pub(super) fn rms_norm(record: &Record<'_>) -> Vec<i32> {
    let RmsNormParams(p) = record.params();
    normalized(record, p, false)
}

fn normalized(record: &Record<'_>, p: LayerNormParams, about_mean: bool) -> Vec<i32> {
    let (x, y) = (record.input(0), record.output());
    let (gamma, beta) = (record.i32s(p.gamma), record.i32s(p.beta));
    let wide = record.plan.input(record.op, 0).expect("an input").dtype == DType::I32;
    let count = x.last() as i128;
    let mut out = Vec::new();
    for row in x.values.chunks(x.last()) {
        let mean: i128 = row.iter().map(|&x| i128::from(x)).sum();
        // C times what differences are taken from.
        let sum = if about_mean { mean } else { count * i128::from(x.zero_point) };
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
