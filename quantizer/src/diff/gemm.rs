//! Products of matrices in slices, on the calling thread.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};

/// A matrix in row-major order, or the transpose of one.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'m>(ArrayView2<'m, f32>);

impl<'m> Matrix<'m> {
    /// The first `rows * columns` of `values`, which holds at least as many.
    pub(super) fn new(values: &'m [f32], rows: usize, columns: usize) -> Self {
        let view = ArrayView2::from_shape((rows, columns), &values[..rows * columns]);
        Self(view.expect("as many elements as the shape has"))
    }

    pub(super) fn t(self) -> Self {
        Self(self.0.reversed_axes())
    }
}

/// `out = beta · out + a · b`, with `out` in row-major order. Shapes must fit.
pub(super) fn product(a: Matrix<'_>, b: Matrix<'_>, beta: f32, out: &mut [f32]) {
    let (rows, columns) = (a.0.nrows(), b.0.ncols());
    let out = ArrayViewMut2::from_shape((rows, columns), &mut out[..rows * columns]);
    general_mat_mul(1.0, &a.0, &b.0, beta, &mut out.expect("as many elements as the shape has"));
}
