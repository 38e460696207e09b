//! Softmax over the rows of a product of two activations.

use super::channels::Output;
use super::memory;
use super::product::{self, InOrder, Sums};
use super::softmax::{self, Scales};
#[cfg(x86)]
use super::x86;
use crate::error::Reason;
use crate::op::{MatMulSoftmaxParams, OpKind};
use crate::operator::Operator;
use crate::plan::{DType, OpView, Plan, TensorRecord};

/// `y[b0, b1, i, :] = softmax(scale · Σ_k (a[b0, b1, i, k] − zero_point_a) · (b[b0, b1, k, :] − zero_point_b))`.
///
/// `a` and `b` are as in [`super::MatMul`], `y` is i8 with dense rows of at most 2^23 elements; a second output of i32
/// holds the sums of one row while the operator runs. Sums are exact and enter [`super::Softmax`]'s formula as they
/// are, so its error bound holds against the f64 definition of both operators together.
#[derive(Debug, Clone, Copy)]
pub struct MatMulSoftmax;

/// A record's geometry.
pub(super) struct Attention {
    pub(super) sums: Sums,
    pub(super) y_strides: [u32; 4],
    pub(super) scales: Scales,
}

impl Attention {
    pub(super) fn new(p: MatMulSoftmaxParams, [a, b]: [&TensorRecord; 2]) -> Result<Self, Reason> {
        let MatMulSoftmaxParams { batch, m, k, n, a_strides, b_strides, y_strides: [outer, inner, row], .. } = p;
        let (a_zero, b_zero) = (a.zero_point.into(), b.zero_point.into());
        Ok(Self {
            sums: Sums { batch, m, k, n, a_strides, b_strides, a_zero, b_zero },
            y_strides: [outer, inner, row, 1],
            scales: Scales::new([p.mantissa, p.shift], [p.output_mantissa, p.output_shift])?,
        })
    }

    /// Runs it, a few rows at a time, if sums fit.
    #[cfg(x86)]
    fn run_by_panels(&self, avx2: x86::Avx2, [a, b]: [&[i8]; 2], y: &TensorRecord, out: &mut [u8]) -> Option<()> {
        let (len, mut powers) = (self.sums.n as usize, x86::Powers::NONE);
        let mut values = [[0i32; x86::MAX_COLUMNS]; x86::ROWS];
        avx2.products(&self.sums, [a, b], x86::Group::NONE, x86::Target::RAW, |at, rows| {
            let bytes = bytemuck::cast_slice_mut(values.as_flattened_mut());
            rows.write(0, x86::MAX_COLUMNS, &mut Output::new(bytes, DType::I32))?;
            for (i, values) in values.iter().enumerate().take(rows.count()) {
                let start = product::start([at[0], at[1], at[2].wrapping_add(i as u32)], self.y_strides);
                let out = out.get_mut(start..start.wrapping_add(len))?;
                softmax::run_row_by_quads(avx2, values.get(..len)?, out, y, &self.scales, &mut powers);
            }
            Some(())
        })
    }

    /// Refuses tensors that the geometry does not fit: the operands, the output, and a row of sums.
    pub(super) fn check(&self, [a, b, y, sums]: [&TensorRecord; 4]) -> Result<(), Reason> {
        self.sums.check([a, b, y], self.y_strides)?;
        memory::check_i8(y)?;
        let row = self.sums.n as usize;
        if sums.dtype != DType::I32 || memory::elements(sums) != row || row > softmax::MAX_ROW {
            return Err(Reason::OperatorShape);
        }
        for input in [a, b] {
            memory::check_disjoint(input, y)?;
            memory::check_disjoint(input, sums)?;
        }
        memory::check_disjoint(y, sums)
    }
}

impl Operator for MatMulSoftmax {
    const KIND: OpKind = OpKind::MatMulSoftmax;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_work_arity(op, 2)?;
        let (a, b) = (plan.input(op, 0)?, plan.input(op, 1)?);
        let (y, sums) = (plan.output(op, 0)?, plan.output(op, 1)?);
        Attention::new(memory::params(op)?, [&a, &b])?.check([&a, &b, &y, &sums])
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (a, b) = (plan.input(op, 0)?, plan.input(op, 1)?);
        let (y, sums) = (plan.output(op, 0)?, plan.output(op, 1)?);
        let attention = Attention::new(memory::params(op)?, [&a, &b])?;
        #[cfg(x86)]
        if attention.sums.fit_panels()
            && let Some(avx2) = x86::Avx2::detect()
        {
            let (inputs, out) = memory::split(plan, arena, &y)?;
            let done = attention.run_by_panels(avx2, [inputs.i8s(&a)?, inputs.i8s(&b)?], &y, out);
            return done.ok_or(Reason::OperatorShape);
        }
        let mut in_order = InOrder::NEW;
        attention.sums.rows(|at| {
            let (inputs, row) = memory::split(plan, arena, &sums)?;
            let mut row = Output::new(row, DType::I32);
            let put = |j: usize, acc: i32| row.put(j, acc);
            let (operands, columns) = ([inputs.i8s(&a)?, inputs.i8s(&b)?], attention.sums.n);
            in_order.row(&attention.sums, (at, columns), operands, put).ok_or(Reason::OperatorShape)?;
            let row = [product::start(at, attention.y_strides), attention.sums.n as usize];
            softmax::run_sums(plan, arena, [&sums, &y], row, &attention.scales)
        })
    }
}
