//! Operators that wait for the quantization of their output.

use std::rc::Rc;

use equant_runtime::op::{AddParams, DivParams, MulParams, RequantizeParams};
use equant_runtime::plan::DType;

use super::attention::Scores;
use super::linear::Linear;
use super::matmul::Product;
use super::norm::Norm;
use super::pool::Mean;
use super::table::Table;
use super::{Lowered, Lowering, Operand, QParams, Reason, multiplier};
use crate::compile::view::View;

/// What a pending operator computes, in real numbers, before factor and clamp.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// Convolution or product with constant weights.
    Linear(Rc<Linear>),
    /// Product of two activations.
    Product(Product),
    /// Sum; the second operand may repeat.
    Sum(Operand, Operand),
    /// Element-wise product; the second operand may repeat.
    Times(Operand, Operand),
    /// Element-wise quotient; the second operand may repeat.
    Quotient(Operand, Operand),
    /// Averages.
    Mean(Mean),
    /// Softmax over the last axis.
    Softmax(Operand),
    /// Its logarithm.
    LogSoftmax(Operand),
    /// Scores with a mask, which a Softmax alone reads.
    Scores(Box<Scores>),
    /// Softmax over the columns of scores.
    Attention(Box<Scores>),
    /// Layer or root mean square normalization over the last axis.
    Norm(Rc<Norm>),
    /// The operand itself.
    Same(Operand),
}

/// An operator whose output is `clamp(factor · source)`.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) source: Source,
    /// Positive.
    pub(super) factor: f64,
    pub(super) clamp: (f64, f64),
    /// The output; its memory is that of the operator's kernel.
    pub(super) view: View,
    /// Name and type of the node to blame.
    pub(super) node: (String, String),
}

/// Quantized bounds of an output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// What the kernel clamps to.
    pub(super) clamp: [i32; 2],
    /// What can occur.
    pub(super) range: (i32, i32),
}

impl Pending {
    pub(super) fn new(source: Source, view: View, node: &crate::graph::Node) -> Self {
        let node = (node.name.clone(), node.op_type.clone());
        Self { source, factor: 1.0, clamp: (f64::NEG_INFINITY, f64::INFINITY), view, node }
    }

    /// The same multiplied by a positive factor.
    pub(super) fn scaled(mut self, factor: f64) -> Self {
        self.factor *= factor;
        self.clamp = (self.clamp.0 * factor, self.clamp.1 * factor);
        self
    }

    /// The same clamped further.
    pub(super) fn clamped(mut self, low: f64, high: f64) -> Self {
        // ONNX Clip with min above max gives max.
        let clip = |x: f64| x.max(low).min(high);
        self.clamp = (clip(self.clamp.0), clip(self.clamp.1));
        self
    }

    /// Whether nothing has been clamped yet.
    pub(super) fn is_unclamped(&self) -> bool {
        self.clamp == (f64::NEG_INFINITY, f64::INFINITY)
    }

    /// The real values the output can take.
    pub(super) fn real_range(&self) -> (f64, f64) {
        let (low, high) = match &self.source {
            Source::Linear(linear) => linear.real_range(),
            Source::Product(product) => product.real_range(),
            Source::Scores(scores) => scores.product.real_range(),
            Source::LogSoftmax(x) => {
                let (low, high) = x.real_range();
                let columns = x.view.shape().iter().rev().find(|&&size| size > 1).copied().unwrap_or(1);
                (low - high - (columns as f64).ln(), 0.0)
            }
            Source::Sum(a, b) => {
                let ((a_low, a_high), (b_low, b_high)) = (a.real_range(), b.real_range());
                (a_low + b_low, a_high + b_high)
            }
            Source::Times(a, b) => {
                let ((a_low, a_high), (b_low, b_high)) = (a.real_range(), b.real_range());
                let ends = [a_low * b_low, a_low * b_high, a_high * b_low, a_high * b_high];
                ends.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)))
            }
            Source::Quotient(a, b) => {
                // What is divided by zero saturates; else the divisor is a step at least.
                let (low, high) = a.real_range();
                let most = low.abs().max(high.abs()) / b.scale;
                (-most, most)
            }
            Source::Mean(mean) => mean.real_range(),
            Source::Softmax(_) | Source::Attention(_) => (0.0, 1.0),
            Source::Norm(norm) => norm.real_range(),
            Source::Same(x) => x.real_range(),
        };
        let clip = |x: f64| (x * self.factor).max(self.clamp.0).min(self.clamp.1);
        (clip(low), clip(high))
    }

    /// The parameters used when no QuantizeLinear follows.
    fn default_params(&self) -> QParams {
        let (low, high) = self.real_range();
        match &self.source {
            // The kernel's output is 8 bits wide; 255 steps hold 0..=1 exactly.
            Source::Softmax(_) | Source::Attention(_) => QParams::full(DType::I8, (self.factor / 255.0) as f32, -128),
            _ => QParams::sixteen(low, high),
        }
    }

    /// The clamp and the range under `q`.
    fn bounds(&self, q: QParams) -> Bounds {
        let (lowest, highest) = q.levels;
        let end = |x: f64, open: i32| if x.is_finite() { q.quantize(x) } else { open };
        let clamp = [end(self.clamp.0, lowest), end(self.clamp.1, highest)];
        let (low, high) = self.real_range();
        let step = |x: f64, round: fn(f64) -> f64| {
            let steps = round(x / f64::from(q.scale)) + f64::from(q.zero_point);
            steps.clamp(f64::from(clamp[0]), f64::from(clamp[1])) as i32
        };
        // One step of slack for the bias's rounding and the multiplier's.
        Bounds { clamp, range: (step(low, |x| x.floor() - 1.0), step(high, |x| x.ceil() + 1.0)) }
    }
}

/// How many times finer one operand of a 32-bit sum may be than the other: the rounding of its factor then costs at most
/// 2^-20 of its value.
const MOST_UNEQUAL: f64 = 1024.0;

/// How far beyond the range that calibration saw a 16-bit value reaches before it saturates.
const HEADROOM: f64 = 4.0;

impl Lowering<'_> {
    /// Emits a pending operator as the float value `name`: 32 bits wide within the proved bound where its readers need
    /// that ([`Self::fine_params`]); else 16, within what calibration saw of it, with [`HEADROOM`], and otherwise, or
    /// where that is less, within the proved bound.
    pub(super) fn emit_wide(&mut self, pending: &Pending, name: &str) -> Lowered<Operand> {
        if matches!(pending.source, Source::Softmax(_) | Source::Attention(_)) {
            return self.emit(pending, None);
        }
        let normalizes = matches!(pending.source, Source::Norm(_));
        if let Some(q) = self.fine_params(name, pending.real_range(), normalizes) {
            return self.emit(pending, Some(q));
        }
        let q = self.seen_limit(name).map(|seen| {
            let (low, high) = pending.real_range();
            QParams::sixteen(low.max(-seen), high.min(seen))
        });
        self.emit(pending, q)
    }

    /// The largest magnitude that a float value is kept for: what calibration saw of it, with [`HEADROOM`].
    pub(super) fn seen_limit(&self, name: &str) -> Option<f64> {
        let seen = self.seen.get(name).map(|&(low, high)| f64::from(low.abs().max(high.abs())) * HEADROOM);
        seen.filter(|&seen| seen > 0.0)
    }

    /// Emits a pending operator with the given output parameters, or 16 bits wide.
    pub(super) fn emit(&mut self, pending: &Pending, q: Option<QParams>) -> Lowered<Operand> {
        let result = self.emit_source(pending, q);
        if result.is_err() && self.blame.is_none() {
            self.blame = Some(pending.node.clone());
        }
        result
    }

    fn emit_source(&mut self, pending: &Pending, q: Option<QParams>) -> Lowered<Operand> {
        let q = q.unwrap_or_else(|| pending.default_params());
        let bounds = pending.bounds(q);
        let name = pending.node.0.as_str();
        if let Source::Same(x) = &pending.source {
            return self.emit_requantize(x, q, pending.factor, bounds, name);
        }
        let y = self.fresh(pending.view.clone(), q, bounds.range);
        match &pending.source {
            Source::Linear(linear) => self.emit_linear(linear, pending.factor, &y, bounds.clamp, name)?,
            Source::Product(product) => self.emit_product(product, pending.factor, &y, bounds.clamp, name)?,
            Source::Sum(a, b) => {
                let (a, b) = self.comparable([a, b], q, pending)?;
                let ratios = [&a, &b].map(|x| x.scale * pending.factor / f64::from(q.scale));
                let (a_factor, b_factor, shift) = sum_factors(ratios)?;
                let params = AddParams { a_factor, b_factor, shift, clamp: bounds.clamp };
                self.emit_binary(&params, &a, &b, &y, name);
            }
            Source::Times(a, b) => {
                let m = multiplier(a.scale * b.scale * pending.factor / f64::from(q.scale))?;
                let params = MulParams { mantissa: m.mantissa, shift: i32::from(m.shift), clamp: bounds.clamp };
                self.emit_binary(&params, a, b, &y, name);
            }
            Source::Quotient(a, b) => {
                let m = multiplier(a.scale / b.scale * pending.factor / f64::from(q.scale))?;
                let params = DivParams { mantissa: m.mantissa, shift: i32::from(m.shift), clamp: bounds.clamp };
                self.emit_binary(&params, a, b, &y, name);
            }
            Source::Mean(mean) => self.emit_mean(mean, pending.factor, &y, bounds.clamp, name)?,
            Source::Softmax(_) | Source::Attention(_) => {
                if !pending.is_unclamped() || q.dtype != DType::I8 {
                    // The kernel neither clamps nor writes 16 bits: a finer step first.
                    let plain = Pending { clamp: (f64::NEG_INFINITY, f64::INFINITY), ..pending.clone() };
                    let x = self.emit(&plain, None)?;
                    return self.emit_requantize(&x, q, 1.0, bounds, name);
                }
                match &pending.source {
                    Source::Softmax(x) => self.emit_softmax(x, pending.factor, &y, name)?,
                    Source::Attention(scores) => self.emit_attention(scores, pending.factor, &y, name)?,
                    _ => {}
                }
            }
            Source::LogSoftmax(x) => self.emit_log_softmax(x, pending.factor, &y, bounds.clamp, name)?,
            Source::Scores(_) => {
                return Err(Reason::Unsupported("scores with a mask that not only a Softmax reads".into()));
            }
            Source::Norm(norm) => self.emit_norm(norm, pending.factor, &y, bounds.clamp, name)?,
            Source::Same(_) => {}
        }
        Ok(y)
    }

    /// The operands of a sum, the coarser one brought to 32 bits first where its factor would leave too few bits for
    /// the other one's.
    fn comparable(&mut self, [a, b]: [&Operand; 2], q: QParams, pending: &Pending) -> Lowered<(Operand, Operand)> {
        if q.dtype == DType::I32 {
            if a.scale > b.scale * MOST_UNEQUAL {
                return Ok((self.in_steps_of(a, q, pending)?, b.clone()));
            }
            if b.scale > a.scale * MOST_UNEQUAL {
                return Ok((a.clone(), self.in_steps_of(b, q, pending)?));
            }
        }
        Ok((a.clone(), b.clone()))
    }

    /// An operand under 32-bit parameters that, times the pending factor, are `q`.
    fn in_steps_of(&mut self, x: &Operand, q: QParams, pending: &Pending) -> Lowered<Operand> {
        let scale = (f64::from(q.scale) / pending.factor) as f32;
        let same = Pending {
            source: Source::Same(x.clone()),
            factor: 1.0,
            clamp: (f64::NEG_INFINITY, f64::INFINITY),
            view: x.view.clone(),
            node: pending.node.clone(),
        };
        self.emit(&same, Some(QParams { scale, ..q }))
    }

    fn emit_binary<P: equant_runtime::op::Params + Copy + 'static>(
        &mut self,
        params: &P,
        a: &Operand,
        b: &Operand,
        y: &Operand,
        name: &str,
    ) {
        let records = [a, b, y].map(|x| self.default_record(x));
        self.program.op(params, vec![records[0], records[1]], records[2], name, y.view.len() as u64);
    }

    /// `x · factor` under other parameters; nothing is emitted when they are the same.
    pub(super) fn emit_requantize(
        &mut self,
        x: &Operand,
        q: QParams,
        factor: f64,
        bounds: Bounds,
        name: &str,
    ) -> Lowered<Operand> {
        let ratio = x.scale * factor / f64::from(q.scale);
        let inside = bounds.clamp[0] <= x.range.0 && x.range.1 <= bounds.clamp[1];
        if ratio == 1.0 && q.dtype == x.dtype && q.zero_point == x.zero_point && inside {
            return Ok(Operand { scale: f64::from(q.scale), ..x.clone() });
        }
        self.forced_requantize(x, q, factor, bounds, name)
    }

    /// As [`Self::emit_requantize`], also when nothing changes.
    pub(super) fn forced_requantize(
        &mut self,
        x: &Operand,
        q: QParams,
        factor: f64,
        bounds: Bounds,
        name: &str,
    ) -> Lowered<Operand> {
        let m = multiplier(x.scale * factor / f64::from(q.scale))?;
        let y = self.fresh(x.view.clone(), q, bounds.range);
        let params = RequantizeParams { mantissa: m.mantissa, shift: i32::from(m.shift), clamp: bounds.clamp };
        let (input, output) = (self.default_record(x), self.default_record(&y));
        self.program.op(&params, vec![input], output, name, y.view.len() as u64);
        Ok(y)
    }

    /// QuantizeLinear of an operand: exact for 8 bits, through a table.
    pub(super) fn requantized(&mut self, x: &Operand, q: QParams, node: &crate::graph::Node) -> Lowered<Operand> {
        match Table::identity(x) {
            Some(table) => self.emit_table(&table, Some(q), &node.name),
            None => self.emit(&Pending::new(Source::Same(x.clone()), x.view.clone(), node), Some(q)),
        }
    }
}

/// Two factors in `[0, 2^30]`, the larger at least 2^29 where the shift allows, and their common shift.
fn sum_factors(ratios: [f64; 2]) -> Lowered<(i32, i32, u32)> {
    let larger = ratios[0].max(ratios[1]);
    let refuse = Reason::Multiplier { value: larger };
    let sound = ratios.iter().all(|ratio| ratio.is_finite() && *ratio >= 0.0);
    if !sound || larger <= 0.0 || larger >= f64::from(1u32 << 29) {
        return Err(refuse);
    }
    let mut shift = (29 - larger.log2().floor() as i64).clamp(1, 62) as i32;
    let factor = |ratio: f64, shift: i32| (ratio * 2f64.powi(shift)).round_ties_even();
    if factor(larger, shift) > f64::from(1u32 << 30) {
        shift -= 1;
    }
    if shift < 1 {
        return Err(refuse);
    }
    Ok((factor(ratios[0], shift) as i32, factor(ratios[1], shift) as i32, shift as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_use_their_range() {
        for ratios in [[1.0, 0.5], [0.3, 1e-9], [0.9999999999, 0.2], [1000.0, 3.0], [1e-7, 2e-7], [4.0, 4.0]] {
            let (a, b, shift) = sum_factors(ratios).unwrap();
            assert!((1 << 29..=1 << 30).contains(&a.max(b)), "{ratios:?}");
            for (factor, ratio) in [(a, ratios[0]), (b, ratios[1])] {
                let real = f64::from(factor) / 2f64.powi(shift as i32);
                assert!((real - ratio).abs() <= 0.5 / 2f64.powi(shift as i32) * 1.001, "{ratios:?}");
            }
        }
        assert!(sum_factors([f64::from(1u32 << 30), 1.0]).is_err());
        assert!(sum_factors([f64::NAN, 1.0]).is_err());
    }
}
