//! Products with constant weights, and of two values.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::flat;
use super::gemm::{Matrix, product};
use super::simd;

/// `x · W + bias` over the last axis of `x`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Linear {
    /// Whether the weights are `[outputs, inputs]` (Gemm with `transB`) or `[inputs, outputs]` (MatMul).
    pub(super) transposed: bool,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl Linear {
    fn weights<'w>(&self, weights: &'w [f32]) -> Matrix<'w> {
        match self.transposed {
            true => Matrix::new(weights, self.outputs, self.inputs).t(),
            false => Matrix::new(weights, self.inputs, self.outputs),
        }
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (values, weights, bias) =
            (flat::operand(x, x_layout)?, flat::operand(w, w_layout)?, flat::operand(b, b_layout)?);
        let rows = values.len() / self.inputs.max(1);
        let mut out = bias.repeat(rows);
        product(Matrix::new(values, rows, self.inputs), self.weights(weights), 1.0, &mut out);
        let mut shape = x_layout.dims().to_vec();
        match shape.last_mut() {
            Some(last) => *last = self.outputs,
            None => bail!("a scalar has no last axis"),
        }
        flat::result(out, shape)
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, dw, db] = flat::with([x, w, g], |[x, w, g]| {
            let rows = x.len() / self.inputs.max(1);
            let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; self.outputs]);
            let gradient = Matrix::new(g, rows, self.outputs);
            product(gradient, self.weights(w).t(), 0.0, &mut dx);
            let x = Matrix::new(x, rows, self.inputs);
            match self.transposed {
                true => product(gradient.t(), x, 0.0, &mut dw),
                false => product(x.t(), gradient, 0.0, &mut dw),
            }
            simd::vectorized(
                #[inline(always)]
                || {
                    for row in g.chunks(self.outputs) {
                        db.iter_mut().zip(row).for_each(|(sum, g)| *sum += g);
                    }
                },
            );
            Ok([dx, dw, db])
        })?;
        Ok((Some(flat::tensor(dx, x.shape())?), Some(flat::tensor(dw, w.shape())?), Some(flat::tensor(db, b.shape())?)))
    }
}

/// The product of the matrices in the last two axes of two values with equal leading axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Product;

/// Rows, depth and columns of one product.
fn sizes(a: &[usize], b: &[usize]) -> Result<[usize; 3]> {
    match (a, b) {
        ([a_batch @ .., rows, depth], [b_batch @ .., inner, columns])
            if depth == inner && a_batch.iter().product::<usize>() == b_batch.iter().product::<usize>() =>
        {
            Ok([*rows, *depth, *columns])
        }
        _ => bail!("shapes {a:?} and {b:?} do not fit a product of matrices"),
    }
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [rows, depth, columns] = sizes(a_layout.dims(), b_layout.dims())?;
        let (a, b) = (flat::operand(a, a_layout)?, flat::operand(b, b_layout)?);
        let mut shape = a_layout.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = columns;
        }
        let mut out = vec![0.0; shape.iter().product()];
        let operands = a.chunks((rows * depth).max(1)).zip(b.chunks((depth * columns).max(1)));
        for ((a, b), out) in operands.zip(out.chunks_mut((rows * columns).max(1))) {
            product(Matrix::new(a, rows, depth), Matrix::new(b, depth, columns), 0.0, out);
        }
        flat::result(out, shape)
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [rows, depth, columns] = sizes(a.dims(), b.dims())?;
        let [da, db] = flat::with([a, b, g], |[a, b, g]| {
            let (mut da, mut db) = (vec![0.0; a.len()], vec![0.0; b.len()]);
            let (step_a, step_b) = ((rows * depth).max(1), (depth * columns).max(1));
            let operands = a.chunks(step_a).zip(b.chunks(step_b)).zip(g.chunks((rows * columns).max(1)));
            for (((a, b), g), (da, db)) in operands.zip(da.chunks_mut(step_a).zip(db.chunks_mut(step_b))) {
                let g = Matrix::new(g, rows, columns);
                product(g, Matrix::new(b, depth, columns).t(), 0.0, da);
                product(Matrix::new(a, rows, depth).t(), g, 0.0, db);
            }
            Ok([da, db])
        })?;
        Ok((Some(flat::tensor(da, a.shape())?), Some(flat::tensor(db, b.shape())?)))
    }
}
