//! Layer normalization over the last axis.

use core::num::NonZeroU64;

use super::fixed;
use super::memory::{self, BLOCK};
use crate::error::Reason;
use crate::op::{LayerNormParams, OpKind};
use crate::operator::Operator;
use crate::plan::{OpView, Plan, TensorRecord};

/// `y[c] = clamp(zero_point_y + round_half_up(d[c] / sqrt(V) · gamma[c] + beta[c]))` with
/// `d[c] = C·x[c] − Σx` and `V = C·Σx² − (Σx)² + epsilon`, both exact.
///
/// `x` and `y` are i8 or i16 of the same elements, `C` is the length of the last axis, at most 65536; in
/// place for equal dtypes. The scale of `x` cancels, its zero point too. `1 / sqrt(V)` is computed once per
/// row to 30 bits, and `d / sqrt(V)`, which is at most `sqrt(C)`, is kept to 22 fraction bits, so with
/// `g = |gamma| / scale_y` the error against the f64 definition (of this `epsilon`) is at most
/// `1/2 + g · (2^-23 + sqrt(C) · 2^-29) + sqrt(C) · 2^-(gamma_shift + 1) + 2^-17` steps: 0.51 for i8 outputs
/// of usual scales. An i16 output with `g = 2^15` and `C = 1024` stays within 0.51 too.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm;

/// Longest row: `C · Σx²` stays within 62 bits.
const MAX_ROW: usize = 1 << 16;
/// Most fraction bits of gamma.
const MAX_GAMMA_SHIFT: u32 = 56;

/// A record's geometry and constants, checked.
struct Norm<'a> {
    len: usize,
    rows: usize,
    epsilon: u64,
    gamma: &'a [i32],
    gamma_shift: u32,
    beta: &'a [i32],
    clamp: [i32; 2],
}

impl<'a> Norm<'a> {
    fn new(op: &OpView<'_>, plan: &Plan<'a>, x: &TensorRecord) -> Result<Self, Reason> {
        let p: LayerNormParams = memory::params(op)?;
        let (len, rows) = memory::rows(x)?;
        if len > MAX_ROW {
            return Err(Reason::OperatorShape);
        }
        if p.gamma_shift > MAX_GAMMA_SHIFT || p.epsilon == 0 {
            return Err(Reason::OperatorRange);
        }
        let (gamma, beta) = (memory::const_i32(plan, p.gamma, len)?, memory::const_i32(plan, p.beta, len)?);
        Ok(Self { len, rows, epsilon: p.epsilon, gamma, gamma_shift: p.gamma_shift, beta, clamp: p.clamp })
    }

    fn run_row(
        &self,
        plan: &Plan<'_>,
        arena: &mut [u8],
        [x, y]: [&TensorRecord; 2],
        start: usize,
    ) -> Result<(), Reason> {
        let mut block = [0i32; BLOCK];
        let (mut sum, mut squares) = (0i64, 0u64);
        for at in (0..self.len).step_by(BLOCK) {
            let block = block.get_mut(..BLOCK.min(self.len.wrapping_sub(at))).ok_or(Reason::OperatorShape)?;
            memory::load(memory::bytes(plan, arena, x)?, x.dtype, start.wrapping_add(at), block);
            for &mut x in block {
                sum = sum.wrapping_add(i64::from(x));
                squares = squares.wrapping_add(u64::from(x.unsigned_abs().wrapping_mul(x.unsigned_abs())));
            }
        }
        let count = self.len as i64;
        // Both terms are below 2^62 and the first is not the smaller (Cauchy and Schwarz).
        let variance = squares.wrapping_mul(count as u64).wrapping_sub(sum.wrapping_mul(sum) as u64);
        let (reciprocal, shift) = inverse_sqrt(variance.saturating_add(self.epsilon));
        let zero_point = i64::from(y.zero_point);
        let (low, high) = (i64::from(self.clamp[0]), i64::from(self.clamp[1]));
        for at in (0..self.len).step_by(BLOCK) {
            let block = block.get_mut(..BLOCK.min(self.len.wrapping_sub(at))).ok_or(Reason::OperatorShape)?;
            memory::load(memory::bytes(plan, arena, x)?, x.dtype, start.wrapping_add(at), block);
            let gammas = self.gamma.get(at..).unwrap_or_default();
            let betas = self.beta.get(at..).unwrap_or_default();
            for ((value, &gamma), &beta) in block.iter_mut().zip(gammas).zip(betas) {
                let d = i64::from(*value).wrapping_mul(count).wrapping_sub(sum); // below 2^32
                // At most sqrt(C) · 2^22, with 22 fraction bits.
                let normal = (d.wrapping_mul(reciprocal) >> (shift.wrapping_sub(1) & 63)).wrapping_add(1) >> 1;
                // To 16 fraction bits, rounded down: the sum is rounded down again, which makes one rounding.
                let scaled = normal.wrapping_mul(i64::from(gamma)) >> (self.gamma_shift.wrapping_add(6) & 63);
                let steps = scaled.wrapping_add(i64::from(beta)).wrapping_add(1 << 15) >> 16;
                *value = steps.wrapping_add(zero_point).max(low).min(high) as i32;
            }
            memory::store(memory::bytes_mut(arena, y)?, y.dtype, start.wrapping_add(at), block);
        }
        Ok(())
    }
}

/// `1 / sqrt(variance)` as `(r, shift)`, such that `d / sqrt(variance) · 2^22 = d · r / 2^shift`.
///
/// `r` lies in `[2^30, 2^31]`, `shift` in `9..=40`. The relative error is at most 2^-30 + 2^-31.
fn inverse_sqrt(variance: u64) -> (i64, u32) {
    let half_zeros = variance.leading_zeros() / 2;
    // variance · 4^half_zeros lies in [2^62, 2^64), its root in [2^31, 2^32).
    let root = fixed::isqrt(variance << (half_zeros.wrapping_mul(2) & 63));
    let Some(root) = NonZeroU64::new(u64::from(root)) else { return (0, 40) };
    (((1u64 << 62) / root) as i64, 40u32.wrapping_sub(half_zeros))
}

impl Operator for LayerNorm {
    const KIND: OpKind = OpKind::LayerNorm;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 1)?;
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        if x.elements() != y.elements() {
            return Err(Reason::OperatorShape);
        }
        memory::check_clamp(Norm::new(op, plan, &x)?.clamp, &y)?;
        memory::check_in_place(&x, &y)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let norm = Norm::new(op, plan, &x)?;
        for row in 0..norm.rows {
            norm.run_row(plan, arena, [&x, &y], row.wrapping_mul(norm.len))?;
        }
        Ok(())
    }
}
