//! The little dense linear algebra that rounding needs, in f64.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, Axis, LinalgScalar, Slice};

/// `a · b`, summed in eight interleaved parts so that the compiler can keep them in vector registers.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut parts = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for i in 0..8 {
            parts[i] += x[i] * y[i];
        }
    }
    parts.iter().sum::<f64>() + rest
}

/// As [`dot`], in f32.
pub(super) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let mut parts = [0.0f32; 16];
    let (a16, b16) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a16.remainder().iter().zip(b16.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a16.zip(b16) {
        for i in 0..16 {
            parts[i] += x[i] * y[i];
        }
    }
    parts.iter().sum::<f32>() + rest
}

/// `a` (`n × k`) times `b` (`k × m`), row-major.
pub(super) fn product<T: LinalgScalar>(a: &[T], b: &[T], n: usize, k: usize, m: usize) -> Vec<T> {
    match (ArrayView2::from_shape((n, k), a), ArrayView2::from_shape((k, m), b)) {
        (Ok(a), Ok(b)) => a.dot(&b).into_raw_vec_and_offset().0,
        _ => Vec::new(),
    }
}

/// `a` (`n × k`) times the transpose of `b` (`m × k`), row-major.
pub(super) fn product_transposed(a: &[f32], b: &[f32], n: usize, k: usize, m: usize) -> Vec<f32> {
    match (ArrayView2::from_shape((n, k), a), ArrayView2::from_shape((m, k), b)) {
        (Ok(a), Ok(b)) => {
            let mut c = Array2::zeros((n, m));
            general_mat_mul(1.0, &a, &b.t(), 0.0, &mut c);
            c.into_raw_vec_and_offset().0
        }
        _ => Vec::new(),
    }
}

/// Columns of a Gram matrix that are computed at once.
const BLOCK: usize = 96;

/// The transpose of `a` (`k × n`) times itself. Of the blocks off the diagonal half are computed, the others copied.
pub(super) fn gram(a: &[f32], k: usize, n: usize) -> Vec<f32> {
    if n <= 32 {
        return transposed_product(a, a, n, k, n);
    }
    let Ok(a) = ArrayView2::from_shape((k, n), a) else { return Vec::new() };
    let mut c = Array2::zeros((n, n));
    for start in (0..n).step_by(BLOCK) {
        let end = n.min(start + BLOCK);
        let rows = a.slice_axis(Axis(1), Slice::from(start..end));
        let columns = a.slice_axis(Axis(1), Slice::from(start..));
        let mut block = c.slice_axis_mut(Axis(0), Slice::from(start..end));
        let mut block = block.slice_axis_mut(Axis(1), Slice::from(start..));
        general_mat_mul(1.0, &rows.t(), &columns, 0.0, &mut block);
    }
    let mut c = c.into_raw_vec_and_offset().0;
    for i in 0..n {
        for j in 0..i {
            c[i * n + j] = c[j * n + i];
        }
    }
    c
}

/// The transpose of `a` (`k × n`) times `b` (`k × m`), row-major.
pub(super) fn transposed_product(a: &[f32], b: &[f32], n: usize, k: usize, m: usize) -> Vec<f32> {
    if n.max(m) <= 32 {
        // Less than what packing for the general product takes.
        let mut out = vec![0.0; n * m];
        for (a, b) in a.chunks(n.max(1)).zip(b.chunks(m.max(1))) {
            for (&x, out) in a.iter().zip(out.chunks_mut(m.max(1))) {
                out.iter_mut().zip(b).for_each(|(out, y)| *out += x * y);
            }
        }
        return out;
    }
    match (ArrayView2::from_shape((k, n), a), ArrayView2::from_shape((k, m), b)) {
        (Ok(a), Ok(b)) => {
            let mut c = Array2::zeros((n, m));
            general_mat_mul(1.0, &a.t(), &b, 0.0, &mut c);
            c.into_raw_vec_and_offset().0
        }
        _ => Vec::new(),
    }
}

/// The upper triangular `R` with `RᵀR = A` of a symmetric positive definite `A` (Cholesky).
#[derive(Debug, Clone)]
pub(super) struct Factor {
    n: usize,
    /// Row-major; only the upper triangle is used.
    upper: Vec<f64>,
    /// Rows divided by their diagonal element, in f32.
    unit: Vec<f32>,
}

impl Factor {
    /// A pivot that is not positive (rounding of a nearly singular matrix) is replaced by a small share of the largest.
    pub(super) fn new(matrix: &[f64], n: usize) -> Self {
        let mut a = matrix.to_vec();
        let largest = (0..n).map(|i| matrix[i * n + i]).fold(0.0, f64::max);
        let least = if largest > 0.0 { largest * 1e-12 } else { 1.0 };
        for k in 0..n {
            let pivot = a[k * n + k].max(least).sqrt();
            let (head, tail) = a.split_at_mut((k + 1) * n);
            let row = &mut head[k * n..];
            row[k] = pivot;
            row[k + 1..].iter_mut().for_each(|v| *v /= pivot);
            let row = &row[..n];
            for (i, below) in tail.chunks_mut(n).enumerate() {
                let i = k + 1 + i;
                let factor = row[i];
                if factor != 0.0 {
                    below[i..].iter_mut().zip(&row[i..]).for_each(|(b, r)| *b -= factor * r);
                }
            }
        }
        let mut unit = vec![0.0; n * n];
        for i in 0..n {
            let pivot = a[i * n + i];
            for j in i..n {
                unit[i * n + j] = (a[i * n + j] / pivot) as f32;
            }
        }
        Self { n, upper: a, unit }
    }

    pub(super) fn diagonal(&self, i: usize) -> f64 {
        self.upper[i * self.n + i]
    }

    /// Row `i` right of the diagonal, divided by the diagonal element.
    pub(super) fn unit_row(&self, i: usize) -> &[f32] {
        &self.unit[i * self.n + i + 1..(i + 1) * self.n]
    }

    /// Replaces `b` by the solution `x` of `A x = b`.
    pub(super) fn solve(&self, b: &mut [f64]) {
        let n = self.n;
        for i in 0..n {
            b[i] /= self.upper[i * n + i];
            let x = b[i];
            if x != 0.0 {
                let row = &self.upper[i * n + i + 1..(i + 1) * n];
                b[i + 1..].iter_mut().zip(row).for_each(|(b, r)| *b -= x * r);
            }
        }
        for i in (0..n).rev() {
            let row = &self.upper[i * n + i + 1..(i + 1) * n];
            b[i] = (b[i] - dot(row, &b[i + 1..])) / self.upper[i * n + i];
        }
    }
}
