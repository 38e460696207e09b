//! Softmax over the last axis.

use super::fixed;
use super::memory::{self, BLOCK};
#[cfg(neon)]
use super::neon::Powers;
#[cfg(x86)]
use super::x86::{Avx2, Powers};
use crate::error::Reason;
use crate::op::{OpKind, SoftmaxParams};
use crate::operator::Operator;
use crate::plan::{DType, OpView, Plan, TensorRecord};
use crate::quant::Multiplier;

/// `y[c] = zero_point_y + round_half_up(e[c] / Σ e / scale_y)`, saturated, with
/// `e[c] = 2^-((max x − x[c]) · scale_x · log2(e))`.
///
/// `x` has any dtype and up to 2^23 elements in its last axis, `y` is i8 of the same elements; in place for i8.
/// `e` has 31 significant bits (`fixed::exp2_neg`), the sum 40 fraction bits, and one division per row
/// gives the factor of its elements, so that each is rounded once. Every factor is within `2^-25` of its real
/// value for `e ≥ 2^-32`, so the error against the f64 definition is at most `1/2 + |y − zero_point_y| / 2^22`
/// steps: 0.5001 for any scale. (Smaller `e` have a relative error of `2^-24`; those below 2^-64 count as 0.)
#[derive(Debug, Clone, Copy)]
pub struct Softmax;

/// Longest row: 2^23 terms of at most 2^40 stay below 2^63.
pub(super) const MAX_ROW: usize = 1 << 23;

/// What turns differences of the quantized input into powers of two and those into outputs.
pub(super) struct Scales {
    exponent: Multiplier,
    output: Multiplier,
}

impl Scales {
    /// The scales of these parameter words: mantissa and shift of each.
    pub(super) fn new(exponent: [i32; 2], output: [i32; 2]) -> Result<Self, Reason> {
        Ok(Self {
            exponent: memory::multiplier(exponent[0], exponent[1])?,
            output: memory::multiplier(output[0], output[1])?,
        })
    }

    fn of(op: &OpView<'_>) -> Result<Self, Reason> {
        let p: SoftmaxParams = memory::params(op)?;
        Self::new([p.mantissa, p.shift], [p.output_mantissa, p.output_shift])
    }

    /// The factor of a row whose powers sum to `sum / 2^40`: `(1 / scale_y / sum)` as `(q, shift)`, such that
    /// a power `(m, n)` gives `m · q / 2^(shift + n)`, where `q < 2^32`.
    fn row_factor(&self, sum: u64) -> (u64, u32) {
        let zeros = sum.leading_zeros();
        let top = (sum << (zeros & 63)) >> 32; // in [2^31, 2^32): sum = top · 2^(32 − zeros)
        if top == 0 {
            return (0, 64);
        }
        // In (2^30, 2^32).
        let q = u64::from(fixed::divide_high(self.output.mantissa as u32, top as u32));
        // m / 2^31 · mantissa / 2^(31 + shift) / (sum / 2^40), with mantissa / sum = q · 2^(zeros − 64).
        let shift = 86i32.wrapping_add(i32::from(self.output.shift)).wrapping_sub(zeros as i32);
        (q, shift as u32)
    }
}

/// `⌊m · q / 2^shift + 1/2⌋`, where `m · q` is at most 2^63.
fn scale(m: u32, q: u64, shift: u32) -> u64 {
    let product = u64::from(m).wrapping_mul(u64::from(q as u32));
    match shift {
        0..=32 => (product >> (shift.wrapping_sub(1) & 63)).wrapping_add(1) >> 1,
        // The high word is enough.
        33..=64 => u64::from((((product >> 32) as u32) >> (shift.wrapping_sub(33) & 31)).wrapping_add(1) >> 1),
        _ => 0,
    }
}

/// Scales what the core's own kernel can; the rest is left to do.
#[inline(always)]
fn to_scale(block: &mut [i32], max: i32, exponent: Multiplier, q: u64, shift: u32) -> &mut [i32] {
    #[cfg(neon)]
    if let Some(core) = Powers::detect() {
        let (quads, rest) = block.as_chunks_mut();
        core.scale_powers(quads, max, exponent, q, shift);
        return rest;
    }
    let _ = (max, exponent, q, shift);
    block
}

/// As [`run_row`], of a row of i32 that starts its tensor and is overwritten, to element `start` of `y`.
#[cfg(not(any(x86, neon)))]
pub(super) fn run_sums(
    plan: &Plan<'_>,
    arena: &mut [u8],
    [x, y]: [&TensorRecord; 2],
    [start, len]: [usize; 2],
    scales: &Scales,
) -> Result<(), Reason> {
    let (zero_point, (low, high)) = (i32::from(y.zero_point), y.range());
    let (_, y, x) = memory::split_work(plan, arena, [y, x], start..start.wrapping_add(len))?;
    let max = x.iter().take(len).fold(i32::MIN, |max, &x| max.max(x as i32));
    let sum = powers(x, y, max as u32, scales.exponent);
    let (q, shift) = scales.row_factor(sum);
    for (&x, y) in x.iter().zip(y) {
        let steps = scale(x, q, shift.wrapping_add(u32::from(*y))).min(1 << 16) as i32;
        *y = zero_point.wrapping_add(steps).max(low).min(high) as u8;
    }
    Ok(())
}

/// Makes of each element the mantissa of its power, and of the byte beside it the exponent, which is below 64; returns their
/// sum with 40 fraction bits.
#[cfg(not(any(x86, neon)))]
fn powers(x: &mut [u32], y: &mut [u8], max: u32, exponent: Multiplier) -> u64 {
    #[cfg(dsp)]
    if let Some(sum) = super::dsp::powers(x, y, max, exponent) {
        return sum;
    }
    let mut sum = 0u64;
    for (x, y) in x.iter_mut().zip(y) {
        let (mantissa, exponent) = fixed::exp2_neg(max.wrapping_sub(*x), exponent);
        sum = sum.wrapping_add((u64::from(mantissa) << 9) >> (exponent & 63));
        (*x, *y) = (mantissa, exponent as u8);
    }
    sum
}

/// As [`run_row`], of a row of i32 that starts its tensor, to element `start` of `y`.
#[cfg(any(x86, neon))]
pub(super) fn run_sums(
    plan: &Plan<'_>,
    arena: &mut [u8],
    tensors: [&TensorRecord; 2],
    [start, len]: [usize; 2],
    scales: &Scales,
) -> Result<(), Reason> {
    run_row(plan, arena, tensors, [0, start], len, scales)
}

/// One row in the core's own instructions, of at most [`Powers::MOST`] elements.
#[cfg(x86)]
pub(super) fn run_row_by_quads(
    avx2: Avx2,
    x: &[i32],
    y: &mut [u8],
    y_record: &TensorRecord,
    scales: &Scales,
    powers: &mut Powers,
) {
    let max = x.iter().fold(i32::MIN, |max, &x| max.max(x));
    let power = |x: i32| fixed::exp2_neg(max.wrapping_sub(x) as u32, scales.exponent);
    let ((quads, rest), (y_quads, y_rest)) = (x.as_chunks(), y.as_chunks_mut());
    let mut sum = avx2.sum_of_powers(quads, max, scales.exponent, powers);
    for &x in rest {
        let (mantissa, exponent) = power(x);
        sum = sum.wrapping_add((u64::from(mantissa) << 9) >> (exponent & 63));
    }
    let (q, shift) = scales.row_factor(sum);
    let (zero_point, (low, high)) = (i32::from(y_record.zero_point), y_record.range());
    avx2.shares(powers, (q, shift), zero_point, [low, high], y_quads);
    for (y, &x) in y_rest.iter_mut().zip(rest) {
        let (mantissa, exponent) = power(x);
        let steps = scale(mantissa, q, shift.wrapping_add(exponent)).min(1 << 16) as i32;
        *y = zero_point.wrapping_add(steps).max(low).min(high) as u8;
    }
}

/// The largest of a row's `len` elements from `start` on, and the sum of its powers with 40 fraction bits.
#[inline(always)]
pub(super) fn sum_of_row(
    input: &[u8],
    dtype: DType,
    [start, len]: [usize; 2],
    exponent: Multiplier,
) -> Option<(i32, u64)> {
    let mut max = i32::MIN;
    memory::blocks(input, dtype, start, len, |block| max = block.iter().fold(max, |max, &x| max.max(x)))?;
    let mut sum = 0u64;
    memory::blocks(input, dtype, start, len, |block| {
        #[cfg(neon)]
        let block = if let Some(core) = Powers::detect() {
            let (quads, rest) = block.as_chunks();
            sum = sum.wrapping_add(core.sum_of_powers(quads, max, exponent));
            rest
        } else {
            block
        };
        for &x in block {
            let (mantissa, exponent) = fixed::exp2_neg(max.wrapping_sub(x) as u32, exponent);
            sum = sum.wrapping_add((u64::from(mantissa) << 9) >> (exponent & 63));
        }
    })?;
    Some((max, sum))
}

/// One row of `len` elements, from element `x_start` of `x` to element `y_start` of `y`.
pub(super) fn run_row(
    plan: &Plan<'_>,
    arena: &mut [u8],
    [x, y]: [&TensorRecord; 2],
    [x_start, y_start]: [usize; 2],
    len: usize,
    scales: &Scales,
) -> Result<(), Reason> {
    #[cfg(x86)]
    if let Some(avx2) = Avx2::detect().filter(|_| len <= Powers::MOST) {
        let (mut powers, mut values) = (Powers::NONE, [0i32; Powers::MOST]);
        let values = values.get_mut(..len).ok_or(Reason::OperatorShape)?;
        memory::load(memory::bytes(plan, arena, x)?, x.dtype, x_start, values);
        let y_bytes = memory::bytes_mut(arena, y)?.get_mut(y_start..y_start.wrapping_add(len));
        run_row_by_quads(avx2, values, y_bytes.ok_or(Reason::OperatorShape)?, y, scales, &mut powers);
        return Ok(());
    }
    let input = memory::bytes(plan, arena, x)?;
    let (max, sum) = sum_of_row(input, x.dtype, [x_start, len], scales.exponent).ok_or(Reason::OperatorShape)?;
    let power = |x: i32| fixed::exp2_neg(max.wrapping_sub(x) as u32, scales.exponent);
    let (q, shift) = scales.row_factor(sum);
    let zero_point = i32::from(y.zero_point);
    let (low, high) = y.range();
    let mut block = [0i32; BLOCK];
    for at in (0..len).step_by(BLOCK) {
        let block = block.get_mut(..BLOCK.min(len.wrapping_sub(at))).ok_or(Reason::OperatorShape)?;
        memory::load(memory::bytes(plan, arena, x)?, x.dtype, x_start.wrapping_add(at), block);
        for value in to_scale(block, max, scales.exponent, q, shift) {
            let (mantissa, exponent) = power(*value);
            *value = scale(mantissa, q, shift.wrapping_add(exponent)).min(1 << 16) as i32;
        }
        for steps in block.iter_mut() {
            *steps = zero_point.wrapping_add(*steps).max(low).min(high);
        }
        memory::store(memory::bytes_mut(arena, y)?, y.dtype, y_start.wrapping_add(at), block);
    }
    Ok(())
}

impl Operator for Softmax {
    const KIND: OpKind = OpKind::Softmax;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 1)?;
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        memory::check_i8(&y)?;
        let (len, _) = memory::rows(&x)?;
        if x.elements() != y.elements() || len > MAX_ROW {
            return Err(Reason::OperatorShape);
        }
        Scales::of(op)?;
        memory::check_in_place(&x, &y)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let scales = Scales::of(op)?;
        let (len, rows) = memory::rows(&x)?;
        for row in 0..rows {
            run_row(plan, arena, [&x, &y], [row.wrapping_mul(len); 2], len, &scales)?;
        }
        Ok(())
    }
}
