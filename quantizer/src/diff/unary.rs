//! Functions of one value.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{flat, simd};
use crate::graph::Node;
use crate::graph::eval::eval_unary;

/// A function of one variable with its derivative.
#[derive(Debug, Clone)]
pub(super) enum Unary {
    Clamp(f32, f32),
    Erf,
    Exp,
    Sigmoid,
    Tanh,
    /// Any other that [`eval_unary`] knows: in f64, the derivative by central differences.
    Other(Node),
}

/// Step of central differences in f64: with third derivatives of order 1 the error is about 1e-10.
const STEP: f64 = 1e-5;

impl Unary {
    /// The function of a node; `None` when it is not one.
    pub(super) fn of(node: &Node) -> Option<Self> {
        eval_unary(node, 0.5)?;
        Some(match node.op_type.as_str() {
            "Relu" => Self::Clamp(0.0, f32::INFINITY),
            "Erf" => Self::Erf,
            "Exp" => Self::Exp,
            "Sigmoid" => Self::Sigmoid,
            "Tanh" => Self::Tanh,
            _ => Self::Other(node.clone()),
        })
    }

    pub(super) fn forward(&self, x: &[f32]) -> Vec<f32> {
        match self {
            Self::Clamp(low, high) => map(x, x, |x, _| x.max(*low).min(*high)),
            Self::Erf => map(x, x, |x, _| simd::erf(x)),
            Self::Exp => map(x, x, |x, _| simd::exp(x)),
            Self::Sigmoid => map(x, x, |x, _| sigmoid(x)),
            Self::Tanh => map(x, x, |x, _| 2.0 * sigmoid(2.0 * x) - 1.0),
            Self::Other(node) => x.iter().map(|&x| eval_unary(node, x.into()).map_or(f32::NAN, |y| y as f32)).collect(),
        }
    }

    /// The gradient of `x` for the gradient `g` of the result.
    fn backward(&self, x: &[f32], g: &[f32]) -> Vec<f32> {
        match self {
            Self::Clamp(low, high) => map(x, g, |x, g| if x > *low && x < *high { g } else { 0.0 }),
            Self::Erf => map(x, g, |x, g| g * std::f32::consts::FRAC_2_SQRT_PI * simd::exp(-x * x)),
            Self::Exp => map(x, g, |x, g| g * simd::exp(x)),
            Self::Sigmoid => map(x, g, |x, g| g * sigmoid(x) * sigmoid(-x)),
            Self::Tanh => map(x, g, |x, g| g * 4.0 * sigmoid(2.0 * x) * sigmoid(-2.0 * x)),
            Self::Other(node) => x.iter().zip(g).map(|(&x, &g)| g * slope(node, x.into())).collect(),
        }
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + simd::exp(-x))
}

/// The derivative; one-sided where the function is not defined on one side.
fn slope(node: &Node, x: f64) -> f32 {
    let step = STEP * x.abs().max(1.0);
    let at = |x: f64| eval_unary(node, x).filter(|y| y.is_finite());
    let slope = match (at(x - step), at(x), at(x + step)) {
        (Some(below), _, Some(above)) => (above - below) / (2.0 * step),
        (None, Some(here), Some(above)) => (above - here) / step,
        (Some(below), Some(here), None) => (here - below) / step,
        _ => 0.0,
    };
    slope as f32
}

#[inline(always)]
fn map(x: &[f32], g: &[f32], f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    simd::vectorized(
        #[inline(always)]
        || out.iter_mut().zip(x.iter().zip(g)).for_each(|(y, (&x, &g))| *y = f(x, g)),
    );
    out
}

impl CustomOp1 for Unary {
    fn name(&self) -> &'static str {
        "unary"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        flat::result(self.forward(flat::operand(x, layout)?), layout.shape().clone())
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let dx = flat::with([x, g], |[x, g]| Ok(self.backward(x, g)))?;
        flat::tensor(dx, x.shape()).map(Some)
    }
}
