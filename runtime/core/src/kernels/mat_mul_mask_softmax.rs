//! Softmax over the rows of a product of two activations of which columns are masked.

use super::channels::Output;
use super::mat_mul_softmax::Attention;
use super::memory;
use super::product::{self, InOrder, Sums};
use super::softmax;
use crate::error::Reason;
use crate::op::{MatMulMaskSoftmaxParams, OpKind};
use crate::operator::Operator;
use crate::plan::{DType, OpView, Plan, TensorRecord};

/// [`super::MatMulSoftmax`] of scores that a mask is added to, or of which each row sees as many columns as it has before
/// it: see [`MatMulMaskSoftmaxParams`]. The mask is of any type, and may repeat along any axis.
///
/// A score has one rounding, of half a step, before it enters [`super::Softmax`]'s formula; the compiler chooses the step
/// as `2^-29` of the largest score and at least `2^-23`, so that a score that saturates at the low end has a power below
/// `2^-64`, which counts as 0. A row that sees nothing but minus infinity is uniform.
#[derive(Debug, Clone, Copy)]
pub struct MatMulMaskSoftmax;

/// What is added to the sums.
struct Mask {
    record: TensorRecord,
    strides: [u32; 4],
    sum_factor: i64,
    mask_factor: i64,
    mask_shift: u32,
    shift: u32,
    /// The number that means minus infinity.
    excluded: Option<i32>,
}

/// Most bits that the factor of a mask of this type is longer by: its products then reach 2^61 at most, as those of the sums do.
const fn most_shift(dtype: DType) -> u32 {
    match dtype {
        DType::I8 => 23,
        DType::I16 => 15,
        DType::I32 => 0,
    }
}

impl Mask {
    fn new(p: &MatMulMaskSoftmaxParams, record: TensorRecord) -> Result<Self, Reason> {
        let factors = 0..=1 << 30;
        let shifts = (1..=62).contains(&p.factor_shift) && p.mask_shift <= most_shift(record.dtype);
        if !factors.contains(&p.sum_factor) || !factors.contains(&p.mask_factor) || !shifts {
            return Err(Reason::OperatorRange);
        }
        let excluded = record.is_const().then_some(record.dtype.range().0);
        let MatMulMaskSoftmaxParams { mask_strides: strides, mask_shift, factor_shift: shift, .. } = *p;
        let (sum_factor, mask_factor) = (p.sum_factor.into(), p.mask_factor.into());
        Ok(Self { record, strides, sum_factor, mask_factor, mask_shift, shift, excluded })
    }

    /// The score of a sum, where the mask's element is the one at `place`.
    fn score(&self, mask: &[u8], place: usize, acc: i32) -> i32 {
        let mut element = 0i32;
        memory::load(mask, self.record.dtype, place, core::slice::from_mut(&mut element));
        if self.excluded == Some(element) {
            return i32::MIN;
        }
        let distance = i64::from(element).wrapping_sub(self.record.zero_point.into());
        let added = distance.wrapping_mul(self.mask_factor) << (self.mask_shift & 63);
        let sum = i64::from(acc).wrapping_mul(self.sum_factor).wrapping_add(added);
        let half = 1i64 << (self.shift.wrapping_sub(1) & 63);
        let score = sum.wrapping_add(half) >> (self.shift & 63);
        score.max(i32::MIN.into()).min(i32::MAX.into()) as i32
    }
}

/// The parameters, the product and the mask, if there is one.
fn parts(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(MatMulMaskSoftmaxParams, Attention, Option<Mask>), Reason> {
    let p: MatMulMaskSoftmaxParams = memory::params(op)?;
    let attention = Attention::new(p.product, [&plan.input(op, 0)?, &plan.input(op, 1)?])?;
    let mask = if op.input_count() == 3 { Some(Mask::new(&p, plan.input(op, 2)?)?) } else { None };
    Ok((p, attention, mask))
}

impl Operator for MatMulMaskSoftmax {
    const KIND: OpKind = OpKind::MatMulMaskSoftmax;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        if !matches!(op.input_count(), 2 | 3) || op.output_count() != 2 {
            return Err(Reason::Operator);
        }
        let (a, b) = (plan.input(op, 0)?, plan.input(op, 1)?);
        let (y, sums) = (plan.output(op, 0)?, plan.output(op, 1)?);
        let (p, attention, mask) = parts(op, plan)?;
        attention.check([&a, &b, &y, &sums])?;
        if p.visible == 0 {
            return Err(Reason::OperatorRange);
        }
        let Some(mask) = mask else { return Ok(()) };
        let Sums { batch: [outer, inner], m, n, .. } = attention.sums;
        if !product::reaches_inside(&mask.record, [outer, inner, m, n], mask.strides) {
            return Err(Reason::OperatorShape);
        }
        memory::check_disjoint(&mask.record, &y)?;
        memory::check_disjoint(&mask.record, &sums)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (a, b) = (plan.input(op, 0)?, plan.input(op, 1)?);
        let (y, sums) = (plan.output(op, 0)?, plan.output(op, 1)?);
        let (p, attention, mask) = parts(op, plan)?;
        let columns = attention.sums.n;
        let (low, high) = y.range();
        let zero = i32::from(y.zero_point).max(low).min(high) as u8;
        let mut in_order = InOrder::NEW;
        attention.sums.rows(|at| {
            let seen = p.visible.saturating_add(at[2]).min(columns);
            let (inputs, row) = memory::split(plan, arena, &sums)?;
            let mut row = Output::new(row, DType::I32);
            let (a, b) = (inputs.i8s(&a)?, inputs.i8s(&b)?);
            let masked = match &mask {
                Some(mask) => Some((mask, inputs.bytes(&mask.record)?, product::start(at, mask.strides))),
                None => None,
            };
            let put = |j: usize, acc: i32| match masked {
                Some((mask, bytes, start)) => {
                    let place = start.wrapping_add(j.wrapping_mul(mask.strides[3] as usize));
                    row.put(j, mask.score(bytes, place, acc))
                }
                None => row.put(j, acc),
            };
            in_order.row(&attention.sums, (at, seen), [a, b], put).ok_or(Reason::OperatorShape)?;
            let start = product::start(at, attention.y_strides);
            softmax::run_sums(plan, arena, [&sums, &y], [start, seen as usize], &attention.scales)?;
            let hidden = start.wrapping_add(seen as usize)..start.wrapping_add(columns as usize);
            memory::bytes_mut(arena, &y)?.get_mut(hidden).ok_or(Reason::OperatorShape)?.fill(zero);
            Ok(())
        })
    }
}
