//! Batched product of two activations.

use super::channels::Output;
use super::memory;
use super::product::{self, Sums};
#[cfg(x86)]
use super::x86;
use crate::error::Reason;
use crate::op::{MatMulParams, OpKind};
use crate::operator::Operator;
#[cfg(dsp)]
use crate::plan::DType;
use crate::plan::{OpView, Plan, TensorRecord};
use crate::quant;
#[cfg(dsp)]
use crate::quant::Multiplier;

/// `y[b0, b1, i, j] = requantize(Σ_k (a[b0, b1, i, k] − zero_point_a) · (b[b0, b1, k, j] − zero_point_b))`.
///
/// `a` and `b` are i8, `y` has any dtype, all of any shape: elements are addressed by the strides of the parameters, all
/// inside their tensor. Depth is at most 32768, so that the sum, exact in 32 bits, cannot overflow; there are at most
/// as many products as elements in `y`. One rounding: the error against the f64 definition is at most
/// `1/2 + |y − zero_point_y| / 2^31` steps.
#[derive(Debug, Clone, Copy)]
pub struct MatMul;

/// The sums that a record asks for.
fn sums(p: &MatMulParams, [a, b]: [&TensorRecord; 2]) -> Sums {
    let MatMulParams { batch, m, k, n, a_strides, b_strides, .. } = *p;
    Sums { batch, m, k, n, a_strides, b_strides, a_zero: a.zero_point.into(), b_zero: b.zero_point.into() }
}

/// Requantizes sums to elements `step` apart from `place` on.
#[cfg(dsp)]
#[inline(never)]
fn put_apart(
    out: &mut Output<'_>,
    [place, step]: [usize; 2],
    sums: &[i32],
    multiplier: Multiplier,
    (zero, [low, high]): (i32, [i32; 2]),
) -> Option<()> {
    // A multiplier below 1/2, as it is said here once, needs the high words of products alone.
    if out.dtype() == DType::I8 && multiplier.shift >= 2 && step > 0 {
        let places = out.bytes_from(place)?.iter_mut().step_by(step);
        for (y, &sum) in places.zip(sums) {
            *y = quant::requantize(sum, multiplier, zero, low, high) as u8;
        }
        return Some(());
    }
    for (i, &sum) in sums.iter().enumerate() {
        let value = quant::requantize(sum, multiplier, zero, low, high);
        out.put(place.wrapping_add(i.wrapping_mul(step)), value)?;
    }
    Some(())
}

impl Operator for MatMul {
    const KIND: OpKind = OpKind::MatMul;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 2)?;
        let (a, b, y) = (plan.input(op, 0)?, plan.input(op, 1)?, plan.output(op, 0)?);
        let p: MatMulParams = memory::params(op)?;
        sums(&p, [&a, &b]).check([&a, &b, &y], p.y_strides)?;
        memory::multiplier(p.mantissa, p.shift)?;
        memory::check_clamp(p.clamp, &y)?;
        memory::check_disjoint(&a, &y)?;
        memory::check_disjoint(&b, &y)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (a, b, y) = (plan.input(op, 0)?, plan.input(op, 1)?, plan.output(op, 0)?);
        let p: MatMulParams = memory::params(op)?;
        let multiplier = memory::multiplier(p.mantissa, p.shift)?;
        let sums = sums(&p, [&a, &b]);
        let (inputs, out) = memory::split(plan, arena, &y)?;
        let (a, b) = (inputs.i8s(&a)?, inputs.i8s(&b)?);
        let mut out = Output::new(out, y.dtype);
        let ([low, high], y_zero, step) = (p.clamp, i32::from(y.zero_point), p.y_strides[3] as usize);
        #[cfg(x86)]
        if p.y_strides[3] == 1
            && sums.fit_panels()
            && let Some(avx2) = x86::Avx2::detect()
        {
            let target = x86::Target::of(&out, y_zero, p.clamp);
            let [_, _, distance, _] = p.y_strides.map(|stride| stride as usize);
            let rows =
                |at: [u32; 3], rows: x86::Rows<'_>| rows.write(product::start(at, p.y_strides), distance, &mut out);
            let done = avx2.products(&sums, [a, b], x86::Group::uniform(multiplier), target, rows);
            return done.ok_or(Reason::OperatorShape);
        }
        #[cfg(dsp)]
        if sums.has_neighbours() {
            let put = |[place, step]: [usize; 2], sums: &[i32]| {
                put_apart(&mut out, [place, step], sums, multiplier, (y_zero, p.clamp))
            };
            return sums.all([a, b], p.y_strides, put).ok_or(Reason::OperatorShape);
        }
        sums.rows(|at| {
            let start = product::start(at, p.y_strides);
            let put = |j: usize, acc: i32| {
                out.put(start.wrapping_add(j.wrapping_mul(step)), quant::requantize(acc, multiplier, y_zero, low, high))
            };
            sums.row(at, a, b, put).ok_or(Reason::OperatorShape)
        })
    }
}
