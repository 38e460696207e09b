//! Fake quantization with straight-through gradients to the value, the scale and the zero point.
//!
//! Forward, bit for bit what [`crate::qdq::simulate`] computes: `y = (clip(round(x / s) + z, low, high) − z) · s`, ties to
//! even. Backward, for a gradient `g` and `v = x / s` (LSQ, Esser et al. 2020, equation 3; LSQ+, Bhalgat et al. 2020,
//! equations 4 and 5; rounding has the gradient 1):
//!
//! | | to x | to s | to z |
//! |---|---|---|---|
//! | inside | g | g (round(v) − v) | 0 |
//! | below | 0 | g (low − z) | −g s |
//! | above | 0 | g (high − z) | −g s |
//!
//! In terms of the ends of the range, `s = (c₊ − c₋) / n` and `z = low − c₋ / s`, a clipped value passes its gradient to
//! the end it was clipped to and to nothing else (see [`Ends`]).

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::flat;
use super::simd::{self, Lanes};

/// Elements whose gradients are summed in f32 before they go into an f64 sum.
const SUM: usize = 2048;

/// Quantization of a whole tensor by one scale and one zero point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FakeQuant {
    /// Lowest integer.
    pub(crate) low: f32,
    /// Highest integer.
    pub(crate) high: f32,
    /// What a clamp before the quantization lets through.
    pub(crate) bounds: (f32, f32),
    /// Elements left in float at random (QDrop, Wei et al. 2022).
    pub(crate) drop: Option<Drop>,
}

/// Which elements are left in float.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drop {
    /// Makes the choice.
    pub(crate) seed: u32,
    /// How many of 2³² are left.
    pub(crate) share: u32,
}

impl Drop {
    #[inline(always)]
    fn takes(self, i: usize) -> bool {
        // Two rounds of multiply and shift ("lowbias32", Wellons 2018).
        let mut x = (i as u32) ^ self.seed;
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        (x ^ (x >> 16)) < self.share
    }
}

/// Gradients of a fake quantization.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gradients {
    /// To the value.
    pub(crate) x: Vec<f32>,
    /// To the scale.
    pub(crate) scale: f64,
    /// To the zero point.
    pub(crate) zero_point: f64,
}

impl FakeQuant {
    /// Quantization of everything, without a clamp.
    pub(crate) fn new(low: i32, high: i32) -> Self {
        Self { low: low as f32, high: high as f32, bounds: (f32::NEG_INFINITY, f32::INFINITY), drop: None }
    }

    /// `y` of each `x`.
    pub(crate) fn forward(&self, x: &[f32], scale: f32, zero_point: f32) -> Vec<f32> {
        let (down, up) = (self.low - zero_point, self.high - zero_point);
        let mut y = vec![0.0; x.len()];
        simd::vectorized(
            #[inline(always)]
            || {
                for (y, &x) in y.iter_mut().zip(x) {
                    let x = x.max(self.bounds.0).min(self.bounds.1);
                    // Zero points are integers, so rounding before or after adding them is the same.
                    *y = (x / scale).round_ties_even().max(down).min(up) * scale;
                }
                if let Some(drop) = self.drop {
                    for (i, (y, &x)) in y.iter_mut().zip(x).enumerate() {
                        let x = x.max(self.bounds.0).min(self.bounds.1);
                        *y = if drop.takes(i) { x } else { *y };
                    }
                }
            },
        );
        y
    }

    /// Gradients for the gradient `g` of `y`.
    pub(crate) fn backward(&self, x: &[f32], g: &[f32], scale: f32, zero_point: f32) -> Gradients {
        let (down, up) = (self.low - zero_point, self.high - zero_point);
        let mut gradients = Gradients { x: vec![0.0; x.len()], scale: 0.0, zero_point: 0.0 };
        let mut kept = Vec::new();
        let (low_bound, high_bound) = self.bounds;
        simd::vectorized(
            #[inline(always)]
            || {
                let mut first = 0;
                for ((x, g), dx) in x.chunks(SUM).zip(g.chunks(SUM)).zip(gradients.x.chunks_mut(SUM)) {
                    let mut g = g;
                    if let Some(drop) = self.drop {
                        // What is left in float has no part in the gradients of the parameters.
                        kept.clear();
                        kept.extend(g.iter().enumerate().map(|(i, &g)| if drop.takes(first + i) { 0.0 } else { g }));
                        for (i, (dx, &g)) in dx.iter_mut().zip(g).enumerate() {
                            *dx = if drop.takes(first + i) { g } else { 0.0 };
                        }
                        g = &kept;
                        first += SUM;
                    }
                    let (mut to_scale, mut clipped) = (Lanes::ZERO, Lanes::ZERO);
                    for ((dx, &x), &g) in dx.iter_mut().zip(x).zip(g) {
                        let clamped = x.max(low_bound).min(high_bound);
                        let q = (clamped / scale).round_ties_even();
                        *dx += if q >= down && q <= up { g } else { 0.0 };
                        *dx = if x > low_bound && x < high_bound { *dx } else { 0.0 };
                    }
                    to_scale.add2(x, g, |x, g| {
                        let v = x.max(low_bound).min(high_bound) / scale;
                        let q = v.round_ties_even();
                        let d = if q < down { down } else { q - v };
                        g * if q > up { up } else { d }
                    });
                    clipped.add2(x, g, |x, g| {
                        let q = (x.max(low_bound).min(high_bound) / scale).round_ties_even();
                        if q >= down && q <= up { 0.0 } else { g }
                    });
                    gradients.scale += f64::from(to_scale.sum());
                    gradients.zero_point -= f64::from(clipped.sum()) * f64::from(scale);
                }
            },
        );
        gradients
    }
}

impl CustomOp3 for FakeQuant {
    fn name(&self) -> &'static str {
        "fake-quant"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        zero_point: &CpuStorage,
        zero_point_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let scale = flat::operand(scale, scale_layout)?[0];
        let zero_point = flat::operand(zero_point, zero_point_layout)?[0];
        flat::result(self.forward(flat::operand(x, x_layout)?, scale, zero_point), x_layout.shape().clone())
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        zero_point: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradients = flat::with([x, g, scale, zero_point], |[x, g, scale, zero_point]| {
            Ok(self.backward(x, g, scale[0], zero_point[0]))
        })?;
        Ok((
            Some(flat::tensor(gradients.x, x.shape())?),
            Some(flat::tensor(vec![gradients.scale as f32], scale.shape())?),
            Some(flat::tensor(vec![gradients.zero_point as f32], zero_point.shape())?),
        ))
    }
}

/// The ends of a range: `c₋ ≤ 0 ≤ c₊`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ends {
    /// c₋.
    pub(crate) low: f64,
    /// c₊.
    pub(crate) high: f64,
}

impl Ends {
    /// The scale and the zero point, before rounding.
    pub(crate) fn affine(self, low: i32, high: i32) -> (f64, f64) {
        let scale = (self.high - self.low) / f64::from(high - low);
        (scale, f64::from(low) - self.low / scale)
    }

    /// Gradients of the two ends for those of scale and zero point.
    pub(crate) fn gradients(self, low: i32, high: i32, scale: f64, zero_point: f64) -> (f64, f64) {
        let n = f64::from(high - low);
        let (s, _) = self.affine(low, high);
        // ∂s/∂c₊ = 1/n, ∂z/∂s = c₋/s², ∂z/∂c₋ = −1/s.
        let through_scale = (scale + zero_point * self.low / (s * s)) / n;
        (-through_scale - zero_point / s, through_scale)
    }
}
