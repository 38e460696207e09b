//! Products that a QDQ file leaves in float: 16-bit activations, or weights that are not quantized.
//!
//! Each factor is written in two digits of 8 bits, and the products of digits are added in 16 bits:
//! `x = 258·xh + xl`, `w = 255·wh + wl` (in steps of 1/32512 of the channel's largest weight), so
//! `x·w ≈ 258·255·xh·wh + 258·xh·wl + 255·xl·wh`. The digits of `x` clamp by at most 2 of 32767 steps, and the
//! product of the low digits is left out: at most `127² / 32512²` of the largest product, half a step in 16 bits.

use equant_runtime::plan::DType;

use super::constant::{Along, Constant, Quantized};
use super::pending::{Bounds, Pending, Source};
use super::{Lowered, Lowering, Operand, QParams, Reason, Value};
use crate::compile::view::View;
use crate::graph::{DataType, Node};

/// Weight of the high digit of an activation: 32767 / 258 rounds to 127.
const X_BASE: f64 = 258.0;
/// Weight of the high digit of a weight: the low digit then lies in ±127.
const W_BASE: i32 = 255;
/// Largest weight in two digits.
const W_MAX: f64 = 127.0 * 255.0 + 127.0;

impl Lowering<'_> {
    /// `alpha · x · Wᵀ + bias` where `x` has 16 bits or `W` is float.
    pub(super) fn wide_product(
        &mut self,
        node: &Node,
        x: Operand,
        weights: &Constant,
        bias: &[f64],
        alpha: f64,
    ) -> Lowered<(Value, View)> {
        if weights.real.iter().any(|w| !w.is_finite()) {
            return Err(Reason::Unsupported("a weight is not a finite number".into()));
        }
        let quantized = weights.quantized.as_ref().is_some_and(|q| !q.scales.is_empty());
        let weight_digits = if quantized { vec![weights.clone()] } else { split(weights) };
        let x_digits = if x.dtype == DType::I16 { self.digits(&x, node)? } else { vec![x] };
        let mut total: Option<Operand> = None;
        let mut terms = Vec::new();
        for (i, x) in x_digits.iter().enumerate() {
            for (j, digit) in weight_digits.iter().enumerate() {
                if i + j < 2 {
                    terms.push((x, digit));
                }
            }
        }
        let last = terms.len() - 1;
        for (i, (x, digit)) in terms.into_iter().enumerate() {
            // The first term takes the bias.
            let bias = if i == 0 { bias.to_vec() } else { vec![0.0; bias.len()] };
            let (value, view) = self.fully_connected(node, x.clone(), digit, bias, alpha)?;
            let term = match value {
                // A part of the value `node` makes: what was seen of that says nothing of it.
                Value::Pending(pending) => self.emit(&pending, None)?,
                other => self.operand_of(node.output(), other)?,
            };
            total = Some(match total {
                None => term,
                Some(sum) => {
                    let pending = Pending::new(Source::Sum(sum, term), view.clone(), node);
                    if i == last {
                        return Ok((Value::Pending(Box::new(pending)), view));
                    }
                    self.emit(&pending, None)?
                }
            });
        }
        match total {
            Some(total) => Ok((Value::Operand(total.clone()), total.view)),
            None => Err(Reason::Shape("a product without terms".into())),
        }
    }

    /// A 16-bit operand as `258 · high + low`.
    fn digits(&mut self, x: &Operand, node: &Node) -> Lowered<Vec<Operand>> {
        let full = |range| Bounds { clamp: [-128, 127], range };
        let params = |scale: f64| QParams::full(DType::I8, scale as f32, 0);
        let high = self.emit_requantize(x, params(x.scale * X_BASE), 1.0, full((-128, 127)), &node.name)?;
        let minus = Constant { shape: vec![], real: vec![-1.0], quantized: None };
        let minus = self.constant_operand(&minus, &high)?;
        let negative = Pending::new(Source::Times(high.clone(), minus), high.view.clone(), node);
        let negative = self.emit(&negative, Some(params(high.scale)))?;
        let low = Pending::new(Source::Sum(x.clone(), negative), x.view.clone(), node);
        let low = self.emit(&low, Some(params(x.scale)))?;
        Ok(vec![high, Operand { range: (-128, 127), ..low }])
    }
}

/// Float weights `[O, K]` as `255 · high + low` steps per output.
fn split(weights: &Constant) -> Vec<Constant> {
    let outputs = weights.shape[0];
    let depth = (weights.real.len() / outputs.max(1)).max(1);
    let scales: Vec<f64> = weights
        .real
        .chunks(depth)
        .map(|row| row.iter().fold(0.0f64, |m, w| m.max(w.abs())) / W_MAX)
        .map(|scale| if scale > 0.0 { scale } else { 1.0 })
        .collect();
    let steps = |i: usize, w: f64| (w / scales[i / depth]).round_ties_even() as i32;
    let high: Vec<i32> = weights
        .real
        .iter()
        .enumerate()
        .map(|(i, &w)| (f64::from(steps(i, w)) / f64::from(W_BASE)).round_ties_even() as i32)
        .collect();
    let low = weights.real.iter().zip(&high).enumerate().map(|(i, (&w, &high))| steps(i, w) - W_BASE * high).collect();
    let digit = |ints: Vec<i32>, base: f64| Constant {
        shape: weights.shape.clone(),
        real: weights.real.clone(),
        quantized: Some(Quantized {
            ints,
            dtype: DataType::I8,
            scales: scales.iter().map(|scale| scale * base).collect(),
            zero_points: vec![0; outputs],
            along: Along::Axis(0),
        }),
    };
    vec![digit(high, f64::from(W_BASE)), digit(low, 1.0)]
}
