//! Softmax and layer normalization: functions of rows, the elements of the last axis.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::flat;
use super::simd::{self, dot, exp, sum};

/// Softmax over rows of `row` elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Softmax {
    pub(super) row: usize,
}

impl Softmax {
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        simd::vectorized(
            #[inline(always)]
            || {
                for (x, y) in x.chunks(self.row).zip(out.chunks_mut(self.row)) {
                    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    y.iter_mut().zip(x).for_each(|(y, &x)| *y = exp(x - largest));
                    let total = sum(y);
                    y.iter_mut().for_each(|y| *y /= total);
                }
            },
        );
        out
    }

    /// `dx = y (g − Σ g y)`.
    fn backward(&self, y: &[f32], g: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; y.len()];
        simd::vectorized(
            #[inline(always)]
            || {
                for ((y, g), dx) in y.chunks(self.row).zip(g.chunks(self.row)).zip(out.chunks_mut(self.row)) {
                    let mean = dot(y, g);
                    dx.iter_mut().zip(y.iter().zip(g)).for_each(|(dx, (&y, &g))| *dx = y * (g - mean));
                }
            },
        );
        out
    }
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        flat::result(self.forward(flat::operand(x, layout)?), layout.shape().clone())
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let dx = flat::with([y, g], |[y, g]| Ok(self.backward(y, g)))?;
        flat::tensor(dx, x.shape()).map(Some)
    }
}

/// Layer or root mean square normalization over rows, with constant scales and shifts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LayerNorm {
    /// Whether the mean is taken off.
    pub(super) centred: bool,
    pub(super) scales: Vec<f32>,
    pub(super) shifts: Vec<f32>,
    pub(super) epsilon: f32,
}

impl LayerNorm {
    /// Mean (or zero) and reciprocal standard deviation of a row.
    #[inline(always)]
    fn moments(&self, x: &[f32]) -> (f32, f32) {
        let n = x.len() as f32;
        let mean = if self.centred { sum(x) / n } else { 0.0 };
        let mut lanes = simd::Lanes::ZERO;
        lanes.add2(x, x, |x, _| (x - mean) * (x - mean));
        (mean, 1.0 / (lanes.sum() / n + self.epsilon).sqrt())
    }

    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        let row = self.scales.len();
        simd::vectorized(
            #[inline(always)]
            || {
                for (x, y) in x.chunks(row).zip(out.chunks_mut(row)) {
                    let (mean, rate) = self.moments(x);
                    for ((y, &x), (&scale, &shift)) in y.iter_mut().zip(x).zip(self.scales.iter().zip(&self.shifts)) {
                        *y = (x - mean) * rate * scale + shift;
                    }
                }
            },
        );
        out
    }

    /// With `h = g · scale` and `x̂` the normalized row: `dx = rate (h − mean h − x̂ mean(h x̂))`, without the mean of `h` about
    /// zero.
    fn backward(&self, x: &[f32], g: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        let row = self.scales.len();
        let mut normalized = vec![0.0; row];
        simd::vectorized(
            #[inline(always)]
            || {
                for ((x, g), dx) in x.chunks(row).zip(g.chunks(row)).zip(out.chunks_mut(row)) {
                    let (mean, rate) = self.moments(x);
                    normalized.iter_mut().zip(x).for_each(|(n, &x)| *n = (x - mean) * rate);
                    dx.iter_mut().zip(g.iter().zip(&self.scales)).for_each(|(h, (&g, &scale))| *h = g * scale);
                    let mean_h = if self.centred { sum(dx) / row as f32 } else { 0.0 };
                    let mean_hx = dot(dx, &normalized) / row as f32;
                    for (h, &n) in dx.iter_mut().zip(&normalized) {
                        *h = rate * (*h - mean_h - n * mean_hx);
                    }
                }
            },
        );
        out
    }
}

impl CustomOp1 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        flat::result(self.forward(flat::operand(x, layout)?), layout.shape().clone())
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let dx = flat::with([x, g], |[x, g]| Ok(self.backward(x, g)))?;
        flat::tensor(dx, x.shape()).map(Some)
    }
}
