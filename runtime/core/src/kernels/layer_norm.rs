//! Layer normalization and root mean square normalization over the last axis.

use core::marker::PhantomData;
use core::num::NonZeroU64;

use super::fixed;
use super::memory::{self, BLOCK};
#[cfg(x86)]
use super::x86::{Avx2, Differences, Steps};
use crate::error::Reason;
use crate::op::{LayerNormParams, OpKind, Params, RmsNormParams};
use crate::operator::Operator;
use crate::plan::{DType, OpView, Plan, TensorRecord};

/// `y[c] = clamp(zero_point_y + round_half_up(d[c] / sqrt(V) · gamma[c] + beta[c]))` with
/// `d[c] = C·x[c] − Σx` and `V = C·Σx² − (Σx)² + epsilon`, both exact.
///
/// `x` and `y` have the same elements and any dtypes, `C` is the length of the last axis, at most 65536; in
/// place for equal dtypes. The scale of `x` cancels, its zero point too. `1 / sqrt(V)` is computed once per
/// row to 30 bits, and `d / sqrt(V)`, which is at most `sqrt(C)`, is kept to 22 fraction bits, so with
/// `g = |gamma| / scale_y` the error against the f64 definition (of this `epsilon`) is at most
/// `1/2 + g · (2^-23 + sqrt(C) · 2^-29) + sqrt(C) · 2^-(gamma_shift + 1) + 2^-(beta_shift + 1)` steps: 0.51 for i8 outputs
/// of usual scales. An i16 output with `g = 2^15` and `C = 1024` stays within 0.51 too.
///
/// Of an i32 `x` the differences of a row are first halved, all alike, until they have
/// `B = 31 − ⌈⌈log2 C⌉ / 2⌉` bits, and `V = Σd² / C` is computed from those. That adds at most
/// `g · (C + 2 · sqrt(C)) · 2^-B` steps, where one element has all the variance; `g · 3e-7` for `C = 64`.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm;

/// `y[c] = clamp(zero_point_y + round_half_up(d[c] / sqrt(V) · gamma[c] + beta[c]))` with
/// `d[c] = C·(x[c] − zero_point_x)` and `V = C·Σ(x − zero_point_x)² + epsilon`, both exact: [`LayerNorm`] about zero instead
/// of the mean (Zhang and Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019).
///
/// Rows have at most 32768 elements. Everything else is as for [`LayerNorm`], the bounds of the error too.
#[derive(Debug, Clone, Copy)]
pub struct RmsNorm;

/// What differences are taken from: the mean of a row, or zero.
trait Centre {
    /// Whether it is the mean.
    const MEAN: bool;
    /// Longest row: `C · Σ(x − centre)²` stays within 62 bits.
    const MAX_ROW: usize;
}

impl Centre for LayerNorm {
    const MEAN: bool = true;
    const MAX_ROW: usize = 1 << 16;
}

impl Centre for RmsNorm {
    const MEAN: bool = false;
    const MAX_ROW: usize = 1 << 15;
}

/// Most fraction bits of gamma beyond those of beta: their difference is one shift of 64 bits.
const MAX_GAMMA_SHIFT: u32 = 40;
/// Most fraction bits of beta.
const MAX_BETA_SHIFT: u32 = 16;

/// A record's geometry and constants, checked.
struct Norm<'a, C> {
    centre: PhantomData<C>,
    /// The zero point of `x`.
    zero: i32,
    len: usize,
    rows: usize,
    epsilon: u64,
    gamma: &'a [i32],
    gamma_shift: u32,
    beta: &'a [i32],
    beta_shift: u32,
    clamp: [i32; 2],
}

impl<'a, C: Centre> Norm<'a, C> {
    fn new<P: Params + Into<LayerNormParams>>(
        op: &OpView<'_>,
        plan: &Plan<'a>,
        x: &TensorRecord,
    ) -> Result<Self, Reason> {
        let p: LayerNormParams = memory::params::<P>(op)?.into();
        let (len, rows) = memory::rows(x)?;
        if len > C::MAX_ROW {
            return Err(Reason::OperatorShape);
        }
        if !(1..=MAX_BETA_SHIFT).contains(&p.beta_shift)
            || p.gamma_shift > p.beta_shift.wrapping_add(MAX_GAMMA_SHIFT)
            || p.epsilon == 0
        {
            return Err(Reason::OperatorRange);
        }
        let (gamma, beta) = (memory::constants(plan, p.gamma, len)?, memory::constants(plan, p.beta, len)?);
        let LayerNormParams { epsilon, gamma_shift, beta_shift, clamp, .. } = p;
        let zero = x.zero_point.into();
        Ok(Self { centre: PhantomData, zero, len, rows, epsilon, gamma, gamma_shift, beta, beta_shift, clamp })
    }

    fn run_row<const WORDS: bool>(
        &self,
        plan: &Plan<'_>,
        arena: &mut [u8],
        [x, y]: [&TensorRecord; 2],
        start: usize,
    ) -> Result<(), Reason> {
        let input = memory::bytes(plan, arena, x)?;
        let row = match x.dtype {
            DType::I8 | DType::I16 => self.narrow(input, x.dtype, start),
            DType::I32 => self.wide::<WORDS>(input, start),
        };
        let row = row.ok_or(Reason::OperatorShape)?;
        let (reciprocal, shift) = inverse_sqrt(row.variance);
        let mut block = [0i32; BLOCK];
        let gamma_down = self.gamma_shift.wrapping_add(22).wrapping_sub(self.beta_shift) & 63;
        let half = 1i64 << (self.beta_shift.wrapping_sub(1) & 63);
        let start_of_steps = half.wrapping_add(i64::from(y.zero_point) << (self.beta_shift & 63));
        let beta_shift = self.beta_shift;
        let scale = Scale { reciprocal, shift, gamma_down, beta_shift, start: start_of_steps, clamp: self.clamp };
        for at in (0..self.len).step_by(BLOCK) {
            let block = block.get_mut(..BLOCK.min(self.len.wrapping_sub(at))).ok_or(Reason::OperatorShape)?;
            memory::load(memory::bytes(plan, arena, x)?, x.dtype, start.wrapping_add(at), block);
            let gammas = self.gamma.get(at..).unwrap_or_default();
            let betas = self.beta.get(at..).unwrap_or_default();
            #[cfg(x86)]
            let (rest, gammas, betas) = match Avx2::detect() {
                Some(avx2) if x.dtype == DType::I32 && reciprocal < 1 << 31 => {
                    let steps = Steps {
                        reciprocal,
                        shift,
                        gamma_down,
                        beta_shift: self.beta_shift,
                        zero_point: y.zero_point.into(),
                        clamp: self.clamp,
                    };
                    let done = block.len() / 4 * 4;
                    let (quads, rest) = block.as_chunks_mut();
                    avx2.normalize(quads, row.differences(), &steps, [gammas.as_chunks().0, betas.as_chunks().0]);
                    (rest, gammas.get(done..).unwrap_or_default(), betas.get(done..).unwrap_or_default())
                }
                _ => (&mut *block, gammas, betas),
            };
            #[cfg(not(x86))]
            let rest = &mut *block;
            scale.block::<WORDS>(&row, rest, gammas, betas);
            memory::store(memory::bytes_mut(arena, y)?, y.dtype, start.wrapping_add(at), block);
        }
        Ok(())
    }
}

/// What makes outputs of the differences of a row.
struct Scale {
    reciprocal: i64,
    shift: u32,
    gamma_down: u32,
    beta_shift: u32,
    /// Half a step and the zero point, with the fraction bits of beta.
    start: i64,
    clamp: [i32; 2],
}

impl Scale {
    /// Normalizes a block. A function of its own, so that cores with few registers have them for it.
    #[inline(never)]
    fn block<const WORDS: bool>(&self, row: &Row, values: &mut [i32], gammas: &[i32], betas: &[i32]) {
        let (low, high) = (i64::from(self.clamp[0]), i64::from(self.clamp[1]));
        for ((value, &gamma), &beta) in values.iter_mut().zip(gammas).zip(betas) {
            let d = in_words::<WORDS>(row.difference(*value));
            // At most sqrt(C) · 2^22, with 22 fraction bits.
            let normal = shifted(d.wrapping_mul(self.reciprocal), self.shift.wrapping_sub(1)).wrapping_add(1) >> 1;
            // To the fraction bits of beta, rounded down: the sum is rounded down again, which makes one rounding.
            let scaled = shifted(i64::from(normal as i32).wrapping_mul(i64::from(gamma)), self.gamma_down);
            let steps = scaled.wrapping_add(i64::from(beta)).wrapping_add(self.start) >> (self.beta_shift & 63);
            *value = steps.max(low).min(high) as i32;
        }
    }
}

/// What a row's elements are normalized by.
struct Row {
    count: u32,
    sum: i64,
    /// Bits that differences lose.
    down: u32,
    /// `V`, epsilon included, of the differences so shifted; at least 1.
    variance: u64,
}

impl Row {
    /// `d` of an element, shifted: below 2^32.
    #[inline(always)]
    fn difference(&self, x: i32) -> i64 {
        let half = (1i64 << (self.down & 63)) >> 1;
        let d = i64::from(x).wrapping_mul(i64::from(self.count)).wrapping_add(half.wrapping_sub(self.sum));
        d >> (self.down & 63)
    }

    /// What makes them.
    #[cfg(x86)]
    fn differences(&self) -> Differences {
        Differences { count: self.count.into(), sum: self.sum, down: self.down }
    }
}

impl<C: Centre> Norm<'_, C> {
    /// A row of at most 16 bits: exact.
    fn narrow(&self, x: &[u8], dtype: DType, start: usize) -> Option<Row> {
        let (mut sum, mut squares) = (0i64, 0u64);
        // About zero, integers count from their zero point, and their sum is taken to be 0.
        let zero = if C::MEAN { 0 } else { self.zero };
        memory::blocks(x, dtype, start, self.len, |block| {
            for &x in block {
                let x = x.wrapping_sub(zero);
                sum = sum.wrapping_add(i64::from(x));
                squares = squares.wrapping_add(u64::from(x.unsigned_abs().wrapping_mul(x.unsigned_abs())));
            }
        })?;
        let count = self.len as u32;
        if !C::MEAN {
            let variance = squares.wrapping_mul(count.into()).saturating_add(self.epsilon);
            return Some(Row { count, sum: i64::from(count).wrapping_mul(zero.into()), down: 0, variance });
        }
        // Both terms are below 2^62 and the first is not the smaller (Cauchy and Schwarz).
        let variance = squares.wrapping_mul(count.into()).wrapping_sub(sum.wrapping_mul(sum) as u64);
        Some(Row { count, sum, down: 0, variance: variance.saturating_add(self.epsilon) })
    }

    /// A row of 32 bits.
    fn wide<const WORDS: bool>(&self, x: &[u8], start: usize) -> Option<Row> {
        let (mut sum, mut low, mut high) = (0i64, i32::MAX, i32::MIN);
        memory::blocks(x, DType::I32, start, self.len, |block| {
            for &x in block {
                sum = sum.wrapping_add(i64::from(x));
                (low, high) = (low.min(x), high.max(x));
            }
        })?;
        if !C::MEAN {
            sum = i64::from(self.zero).wrapping_mul(self.len as i64);
        }
        let count = NonZeroU64::new(self.len as u64)?;
        let mut row = Row { count: self.len as u32, sum, down: 0, variance: 0 };
        // Below 2^48.
        let largest = row.difference(high).unsigned_abs().max(row.difference(low).unsigned_abs());
        let log2 = usize::BITS.wrapping_sub(self.len.wrapping_sub(1).leading_zeros());
        let bits = 31u32.wrapping_sub(log2.div_ceil(2));
        row.down = u64::BITS.wrapping_sub(largest.leading_zeros()).saturating_sub(bits);
        // At most C · 4^bits, which is at most 2^62.
        let mut squares = 0u64;
        memory::blocks(x, DType::I32, start, self.len, |block| {
            #[cfg(x86)]
            let block = match Avx2::detect() {
                Some(avx2) => {
                    let (quads, rest) = block.as_chunks();
                    squares = squares.wrapping_add(avx2.sum_of_squares(quads, row.differences()));
                    rest
                }
                None => block,
            };
            for &x in block {
                let d = in_words::<WORDS>(row.difference(x));
                squares = squares.wrapping_add(d.wrapping_mul(d) as u64);
            }
        })?;
        let epsilon = self.epsilon >> (row.down.wrapping_mul(2) & 63);
        row.variance = (squares / count).saturating_add(epsilon).max(1);
        Some(row)
    }
}

/// Lengths of rows whose differences fit 32 bits, of any type.
const IN_WORDS: core::ops::RangeInclusive<usize> = 2..=1 << 14;

/// A difference, for cores of 32 bits to multiply as what it is.
#[inline(always)]
fn in_words<const WORDS: bool>(difference: i64) -> i64 {
    if WORDS { i64::from(difference as i32) } else { difference }
}

/// `⌊x / 2^down⌋`, `down` being below 64: cores of 32 bits shift high words alone where they can.
#[inline(always)]
fn shifted(x: i64, down: u32) -> i64 {
    if cfg!(target_pointer_width = "32") && down >= 32 {
        return i64::from((x >> 32) as i32 >> (down & 31));
    }
    x >> (down & 63)
}

/// `1 / sqrt(variance)` as `(r, shift)`, such that `d / sqrt(variance) · 2^22 = d · r / 2^shift`.
///
/// `r` lies in `[2^30, 2^31]`, `shift` in `9..=40`. The relative error is at most 2^-30 + 2^-31.
fn inverse_sqrt(variance: u64) -> (i64, u32) {
    let half_zeros = variance.leading_zeros() / 2;
    // variance · 4^half_zeros lies in [2^62, 2^64), its root in [2^31, 2^32).
    let root = fixed::isqrt(variance << (half_zeros.wrapping_mul(2) & 63));
    (i64::from(fixed::divide_high(1 << 30, root)), 40u32.wrapping_sub(half_zeros))
}

fn check<C: Centre, P: Params + Into<LayerNormParams>>(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
    memory::check_arity(op, 1)?;
    let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
    if x.elements() != y.elements() {
        return Err(Reason::OperatorShape);
    }
    memory::check_clamp(Norm::<C>::new::<P>(op, plan, &x)?.clamp, &y)?;
    memory::check_in_place(&x, &y)
}

fn run<C: Centre, P: Params + Into<LayerNormParams>>(
    op: &OpView<'_>,
    plan: &Plan<'_>,
    arena: &mut [u8],
) -> Result<(), Reason> {
    let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
    let norm = Norm::<C>::new::<P>(op, plan, &x)?;
    for row in 0..norm.rows {
        let start = row.wrapping_mul(norm.len);
        if cfg!(target_pointer_width = "32") && IN_WORDS.contains(&norm.len) {
            norm.run_row::<true>(plan, arena, [&x, &y], start)?;
        } else {
            norm.run_row::<false>(plan, arena, [&x, &y], start)?;
        }
    }
    Ok(())
}

impl Operator for LayerNorm {
    const KIND: OpKind = OpKind::LayerNorm;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        check::<Self, LayerNormParams>(op, plan)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        run::<Self, LayerNormParams>(op, plan, arena)
    }
}

impl Operator for RmsNorm {
    const KIND: OpKind = OpKind::RmsNorm;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        check::<Self, RmsNormParams>(op, plan)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        run::<Self, RmsNormParams>(op, plan, arena)
    }
}
