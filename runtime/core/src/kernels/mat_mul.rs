//! Batched product of two activations.

use super::channels::Output;
use super::memory;
use crate::error::Reason;
use crate::op::{MatMulParams, OpKind};
use crate::operator::Operator;
use crate::plan::{OpView, Plan, TensorRecord};
use crate::quant::{self, Multiplier};

/// `y[b0, b1, i, j] = requantize(Σ_k (a[b0, b1, i, k] − zero_point_a) · (b[b0, b1, k, j] − zero_point_b))`.
///
/// `a` and `b` are i8, `y` i8 or i16, of any shape: elements are addressed by the strides of the parameters, all
/// inside their tensor. Depth is at most 32768, so that the sum, exact in 32 bits, cannot overflow; there are at most
/// as many products as elements in `y`. One rounding: the error against the f64 definition is at most
/// `1/2 + |y − zero_point_y| / 2^31` steps.
#[derive(Debug, Clone, Copy)]
pub struct MatMul;

/// Deepest sum: 32768 · 255² < 2^31.
const MAX_DEPTH: u32 = 1 << 15;

/// Columns summed together where they are neighbours in memory: as many as fit the registers.
const LANES: usize = if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) { 16 } else { 4 };

struct Product {
    sizes: MatMulParams,
    multiplier: Multiplier,
    a_zero: i32,
    b_zero: i32,
    y_zero: i32,
}

impl Product {
    fn new(op: &OpView<'_>, [a, b, y]: [&TensorRecord; 3]) -> Result<Self, Reason> {
        let sizes: MatMulParams = memory::params(op)?;
        Ok(Self {
            multiplier: memory::multiplier(sizes.mantissa, sizes.shift)?,
            sizes,
            a_zero: i32::from(a.zero_point),
            b_zero: i32::from(b.zero_point),
            y_zero: i32::from(y.zero_point),
        })
    }

    fn check(&self, [a, b, y]: [&TensorRecord; 3]) -> Result<(), Reason> {
        let MatMulParams { batch: [outer, inner], m, k, n, a_strides, b_strides, y_strides, .. } = self.sizes;
        let products = [outer, inner, m, n].iter().try_fold(1u32, |product, &size| product.checked_mul(size));
        let work_is_bounded = products.is_some_and(|products| products > 0 && Some(products) <= y.elements());
        let fits = reaches_inside(a, [outer, inner, m, k], a_strides)
            && reaches_inside(b, [outer, inner, k, n], b_strides)
            && reaches_inside(y, [outer, inner, m, n], y_strides);
        if work_is_bounded && fits && (1..=MAX_DEPTH).contains(&k) { Ok(()) } else { Err(Reason::OperatorShape) }
    }

    #[inline(always)]
    fn finish(&self, acc: i32) -> i32 {
        let [low, high] = self.sizes.clamp;
        quant::requantize(acc, self.multiplier, self.y_zero, low, high)
    }

    #[inline(always)]
    fn term(&self, a: i8, b: i8) -> i32 {
        i32::from(a).wrapping_sub(self.a_zero).wrapping_mul(i32::from(b).wrapping_sub(self.b_zero))
    }

    /// One row of the output, which begins at element `y_at`; `a` and `b` begin at their first elements.
    fn row(&self, a: &[i8], b: &[i8], y: &mut Output<'_>, y_at: usize) -> Option<()> {
        let MatMulParams { k, n, a_strides, b_strides, y_strides, .. } = self.sizes;
        let [depth, columns, a_step, b_step] = [k, n, a_strides[3], b_strides[2]].map(|size| size as usize);
        let [b_column, y_column] = [b_strides[3], y_strides[3]].map(|size| size as usize);
        let lanes = if b_column == 1 { LANES } else { 1 };
        for j in (0..columns).step_by(lanes) {
            let b = b.get(j.wrapping_mul(b_column)..)?;
            let mut acc = [0i32; LANES];
            let width = lanes.min(columns.wrapping_sub(j));
            if width == 1 {
                let sum = acc.first_mut()?;
                *sum = if a_step == 1 && b_step == 1 {
                    self.sum(a.get(..depth)?.iter().zip(b.get(..depth)?))
                } else {
                    // A step of 0 repeats one element; `step_by` wants at least 1.
                    let (a_last, b_last) = (last(a_step, depth), last(b_step, depth));
                    let a = a.get(..=a_last)?.iter().step_by(a_step.max(1)).cycle();
                    let b = b.get(..=b_last)?.iter().step_by(b_step.max(1)).cycle();
                    self.sum(a.zip(b).take(depth))
                };
            } else {
                let (mut a_at, mut b_at) = (0usize, 0usize);
                for _ in 0..depth {
                    let a = *a.get(a_at)?;
                    let b = b.get(b_at..b_at.wrapping_add(width))?;
                    if let Some(b) = b.first_chunk::<LANES>() {
                        self.accumulate(&mut acc, a, b);
                    } else {
                        self.accumulate(&mut acc, a, b);
                    }
                    a_at = a_at.wrapping_add(a_step);
                    b_at = b_at.wrapping_add(b_step);
                }
            }
            for (lane, &acc) in (0..width).zip(&acc) {
                y.put(y_at.wrapping_add(j.wrapping_add(lane).wrapping_mul(y_column)), self.finish(acc))?;
            }
        }
        Some(())
    }

    #[inline(always)]
    fn sum<'a>(&self, pairs: impl Iterator<Item = (&'a i8, &'a i8)>) -> i32 {
        pairs.fold(0i32, |sum, (&a, &b)| sum.wrapping_add(self.term(a, b)))
    }

    /// `acc[i] += (a − zero_point_a) · (b[i] − zero_point_b)`.
    #[inline(always)]
    fn accumulate(&self, acc: &mut [i32; LANES], a: i8, b: &[i8]) {
        for (acc, &b) in acc.iter_mut().zip(b) {
            *acc = acc.wrapping_add(self.term(a, b));
        }
    }

    fn run(&self, a: &[i8], b: &[i8], y: &mut Output<'_>) -> Option<()> {
        let MatMulParams { batch: [outer, inner], m, a_strides, b_strides, y_strides, .. } = self.sizes;
        for b0 in 0..outer {
            for b1 in 0..inner {
                let b = b.get(start([b0, b1, 0], b_strides)..)?;
                for i in 0..m {
                    let a = a.get(start([b0, b1, i], a_strides)..)?;
                    self.row(a, b, y, start([b0, b1, i], y_strides))?;
                }
            }
        }
        Some(())
    }
}

/// Index of the last of `count` elements `step` apart.
fn last(step: usize, count: usize) -> usize {
    count.wrapping_sub(1).wrapping_mul(step)
}

/// The element at this outer batch, inner batch and row.
fn start(at: [u32; 3], strides: [u32; 4]) -> usize {
    at.iter()
        .zip(strides)
        .fold(0usize, |sum, (&at, stride)| sum.wrapping_add((at as usize).wrapping_mul(stride as usize)))
}

/// Whether the last element reached lies inside the tensor, and so every other.
fn reaches_inside(tensor: &TensorRecord, sizes: [u32; 4], strides: [u32; 4]) -> bool {
    let farthest = sizes.iter().zip(strides).try_fold(0u64, |sum, (&size, stride)| {
        sum.checked_add(u64::from(size.checked_sub(1)?).checked_mul(u64::from(stride))?)
    });
    farthest.is_some_and(|farthest| farthest < memory::elements(tensor) as u64)
}

impl Operator for MatMul {
    const KIND: OpKind = OpKind::MatMul;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 2)?;
        let (a, b, y) = (plan.input(op, 0)?, plan.input(op, 1)?, plan.output(op, 0)?);
        for tensor in [&a, &b] {
            memory::check_i8(tensor)?;
        }
        let product = Product::new(op, [&a, &b, &y])?;
        product.check([&a, &b, &y])?;
        memory::check_clamp(product.sizes.clamp, &y)?;
        memory::check_disjoint(&a, &y)?;
        memory::check_disjoint(&b, &y)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (a, b, y) = (plan.input(op, 0)?, plan.input(op, 1)?, plan.output(op, 0)?);
        let product = Product::new(op, [&a, &b, &y])?;
        let (inputs, out) = memory::split(plan, arena, &y)?;
        product.run(inputs.i8s(&a)?, inputs.i8s(&b)?, &mut Output::new(out, y.dtype)).ok_or(Reason::OperatorShape)
    }
}
