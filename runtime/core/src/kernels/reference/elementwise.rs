//! Operators that treat every element alike.

use alloc::vec::Vec;

use super::{Record, multiplier};
use crate::op::{AddParams, DivParams, LutParams, MulParams, RequantizeParams};
use crate::plan::DType;
use crate::quant;

/// The pairs of elements of two inputs, the second repeated.
fn pairs(record: &Record<'_>) -> Vec<(i64, i64)> {
    let (a, b) = (record.input(0), record.input(1));
    let repeated = b.values.iter().cycle();
    a.values.iter().zip(repeated).map(|(x, y)| (x - a.zero_point, y - b.zero_point)).collect()
}

pub(super) fn add(record: &Record<'_>) -> Vec<i32> {
    let p: AddParams = record.params();
    let zero_point = i128::from(record.output().zero_point);
    let sum = |(a, b): (i64, i64)| {
        let sum = i128::from(a) * i128::from(p.a_factor) + i128::from(b) * i128::from(p.b_factor);
        let rounded = (2 * sum + (1i128 << p.shift)).div_euclid(1i128 << (p.shift + 1));
        (zero_point + rounded).clamp(p.clamp[0].into(), p.clamp[1].into()) as i32
    };
    pairs(record).into_iter().map(sum).collect()
}

pub(super) fn mul(record: &Record<'_>) -> Vec<i32> {
    let p: MulParams = record.params();
    let zero_point = i64::from(record.output().zero_point);
    let scale = multiplier(p.mantissa, p.shift);
    let product = |(a, b): (i64, i64)| {
        let scaled = i64::from(scale.apply_wide(a * b));
        (zero_point + scaled).clamp(p.clamp[0].into(), p.clamp[1].into()) as i32
    };
    pairs(record).into_iter().map(product).collect()
}

pub(super) fn div(record: &Record<'_>) -> Vec<i32> {
    let p: DivParams = record.params();
    let zero_point = i128::from(record.output().zero_point);
    let quotient = |(a, b): (i64, i64)| {
        let [low, high] = p.clamp;
        if b == 0 {
            return [low, (zero_point as i32).clamp(low, high), high][(a.signum() + 1) as usize];
        }
        // a · mantissa / (b · 2^total), rounded half up.
        let total = (31 + p.shift) as u32;
        let numerator = i128::from(a * b.signum()) * i128::from(p.mantissa);
        let denominator = i128::from(b.abs()) << total;
        let rounded = (2 * numerator + denominator).div_euclid(2 * denominator);
        (zero_point + rounded).clamp(low.into(), high.into()) as i32
    };
    pairs(record).into_iter().map(quotient).collect()
}

pub(super) fn lut(record: &Record<'_>) -> Vec<i32> {
    let p: LutParams = record.params();
    let bytes = record.bytes(p.table);
    let table: Vec<i32> = match record.output().dtype {
        DType::I8 => bytes.iter().map(|&byte| i32::from(byte as i8)).collect(),
        DType::I16 => bytes.chunks(2).map(|pair| i32::from(i16::from_le_bytes([pair[0], pair[1]]))).collect(),
        DType::I32 => record.i32s(p.table).into_iter().map(|word| word as i32).collect(),
    };
    record.input(0).values.iter().map(|x| table[(x + 128) as usize]).collect()
}

pub(super) fn requantize(record: &Record<'_>) -> Vec<i32> {
    let p: RequantizeParams = record.params();
    let x = record.input(0);
    let y_zero = i32::from(record.output().zero_point);
    let scale = multiplier(p.mantissa, p.shift);
    let value = |&value: &i64| {
        let difference = (value - x.zero_point) as i32;
        quant::requantize(difference, scale, y_zero, p.clamp[0], p.clamp[1])
    };
    x.values.iter().map(value).collect()
}
