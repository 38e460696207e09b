//! Softmax, layer normalization and root mean square normalization.

use std::rc::Rc;

use equant_runtime::op::{LayerNormParams, LogSoftmaxParams, Params, RmsNormParams, SoftmaxParams};

use super::pending::Source;
use super::{Lowered, Lowering, Operand, Reason, Value, input, multiplier, unsupported};
use crate::compile::program::Section;
use crate::compile::view::View;
use crate::graph::{Node, eval};

/// `(x − mean) / sqrt(variance + epsilon) · gamma + beta` over the last axis, or the same about zero instead of the
/// mean.
#[derive(Debug, Clone)]
pub(super) struct Norm {
    about_mean: bool,
    x: Operand,
    epsilon: f64,
    /// In the order of memory, as the shifts.
    gamma: Vec<f64>,
    beta: Vec<f64>,
}

impl Norm {
    /// The real values the outputs can take: a normalized element is at most `sqrt(C − 1)`, or `sqrt(C)` about zero.
    pub(super) fn real_range(&self) -> (f64, f64) {
        let free = if self.about_mean { 1.0 } else { 0.0 };
        let most = (self.gamma.len() as f64 - free).max(0.0).sqrt();
        self.gamma.iter().zip(&self.beta).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (gamma, beta)| {
            let reach = gamma.abs() * most;
            (low.min(beta - reach), high.max(beta + reach))
        })
    }
}

impl<'g> Lowering<'g> {
    pub(super) fn softmax(&mut self, node: &'g Node) -> Lowered<()> {
        let name = input(node, 0)?;
        let logarithm = node.op_type == "LogSoftmax";
        if !logarithm
            && let Value::Pending(pending) = self.value(name)?
            && let Some(scores) = self.attention(&pending, node)
        {
            return self.set_pending(node, Source::Attention(Box::new(scores)), pending.view.clone());
        }
        let x = self.operand(name)?;
        let x = self.rows_of(node, x)?;
        let view = x.view.clone();
        self.set_pending(node, if logarithm { Source::LogSoftmax(x) } else { Source::Softmax(x) }, view)
    }

    pub(super) fn layer_norm(&mut self, node: &'g Node) -> Lowered<()> {
        let x = self.operand(input(node, 0)?)?;
        let x = self.rows_of(node, x)?;
        let shape = x.view.shape();
        let depth = shape.last().copied().unwrap_or(1);
        let scales = self.per_depth(node, 1, depth, 1.0)?;
        let shifts = self.per_depth(node, 2, depth, 0.0)?;
        let positions = x.view.inner_positions(shape.len().saturating_sub(1)).unwrap_or_default();
        let (mut gamma, mut beta) = (vec![0.0; depth], vec![0.0; depth]);
        for (logical, &position) in positions.iter().enumerate() {
            (gamma[position], beta[position]) = (scales[logical], shifts[logical]);
        }
        let epsilon = f64::from(node.float("epsilon", 1e-5));
        let view = x.view.clone();
        let about_mean = node.op_type == "LayerNormalization";
        self.set_pending(node, Source::Norm(Rc::new(Norm { about_mean, x, epsilon, gamma, beta })), view)
    }

    /// An operand whose normalized (last) axis is dense in memory.
    fn rows_of(&mut self, node: &Node, x: Operand) -> Lowered<Operand> {
        let shape = x.view.shape();
        let axis = node.int("axis", -1);
        let Some(at) = eval::normalize_axis(axis, shape.len()) else {
            return Err(Reason::Shape(format!("axis {axis} of {shape:?}")));
        };
        if shape[at + 1..].iter().any(|&size| size > 1) {
            return unsupported(format!("axis {axis} of rank {}: only the last axis is supported", shape.len()));
        }
        // Axes of size 1 after it do not count.
        let view = x.view.reshape(&shape[..=at]).ok_or_else(|| Reason::Shape(format!("{shape:?}")))?;
        if view.inner_positions(at).is_some() {
            return Ok(x);
        }
        self.arranged(&x, View::row_major(&shape), &node.name)
    }

    /// Constant input `i` as one value for each element of the last axis.
    fn per_depth(&mut self, node: &Node, i: usize, depth: usize, absent: f64) -> Lowered<Vec<f64>> {
        let Some(name) = node.input(i) else { return Ok(vec![absent; depth]) };
        let constant = self.constant(name)?;
        let finite = constant.real.iter().all(|v| v.is_finite());
        constant
            .broadcast(&constant.real, &[depth])
            .filter(|_| finite)
            .ok_or_else(|| Reason::Shape(format!("`{name}` of shape {:?} for {depth} channels", constant.shape)))
    }

    pub(super) fn emit_softmax(&mut self, x: &Operand, factor: f64, y: &Operand, name: &str) -> Lowered<()> {
        let exponent = multiplier(x.scale * std::f64::consts::LOG2_E)?;
        let output = multiplier(factor / f64::from(self.program.storages[y.storage].scale))?;
        let params = SoftmaxParams {
            mantissa: exponent.mantissa,
            shift: i32::from(exponent.shift),
            output_mantissa: output.mantissa,
            output_shift: i32::from(output.shift),
        };
        self.emit_rows(&params, x, y, last_size(x), 1, name);
        Ok(())
    }

    pub(super) fn emit_log_softmax(
        &mut self,
        x: &Operand,
        factor: f64,
        y: &Operand,
        clamp: [i32; 2],
        name: &str,
    ) -> Lowered<()> {
        let per_step = factor / f64::from(self.program.storages[y.storage].scale);
        let exponent = multiplier(x.scale * std::f64::consts::LOG2_E)?;
        let (step, log) = (multiplier(x.scale * per_step)?, multiplier(std::f64::consts::LN_2 * per_step)?);
        let params = LogSoftmaxParams {
            mantissa: exponent.mantissa,
            shift: i32::from(exponent.shift),
            step_mantissa: step.mantissa,
            step_shift: i32::from(step.shift),
            log_mantissa: log.mantissa,
            log_shift: i32::from(log.shift),
            clamp,
        };
        self.emit_rows(&params, x, y, last_size(x), 1, name);
        Ok(())
    }

    pub(super) fn emit_norm(
        &mut self,
        norm: &Norm,
        factor: f64,
        y: &Operand,
        clamp: [i32; 2],
        name: &str,
    ) -> Lowered<()> {
        let Norm { about_mean, x, epsilon, gamma, beta } = norm;
        let per_step = factor / f64::from(self.program.storages[y.storage].scale);
        let largest = |values: &[f64]| values.iter().fold(0.0f64, |m, v| m.max((v * per_step).abs()));
        let (most_gamma, most_beta) = (largest(gamma), largest(beta));
        if most_gamma >= f64::from(1 << 30) {
            return Err(Reason::Multiplier { value: most_gamma });
        }
        // As many fraction bits as 31 bits leave, at most 16 and 40 more.
        let fraction = |largest: f64| if largest > 0.0 { 29 - largest.log2().floor() as i64 } else { 0 };
        let beta_shift = if most_beta > 0.0 { fraction(most_beta).clamp(1, 16) as u32 } else { 16 };
        let gamma_shift = fraction(most_gamma).clamp(0, i64::from(beta_shift) + 40) as u32;
        let fixed = |v: f64, bits: u32| {
            let room = f64::from(i32::MAX);
            (v * per_step * 2f64.powi(bits as i32)).round_ties_even().clamp(-room, room) as i32
        };
        let gammas: Vec<i32> = gamma.iter().map(|&g| fixed(g, gamma_shift)).collect();
        let betas: Vec<i32> = beta.iter().map(|&b| fixed(b, beta_shift)).collect();
        let depth = gamma.len();
        let epsilon = (epsilon * (depth as f64 / x.scale).powi(2)).round_ties_even().max(1.0) as u64;
        let params = LayerNormParams {
            epsilon,
            gamma: self.program.consts.add_i32(Section::Multipliers, &gammas),
            gamma_shift,
            beta: self.program.consts.add_i32(Section::Biases, &betas),
            beta_shift,
            clamp,
        };
        match about_mean {
            true => self.emit_rows(&params, x, y, depth, 3, name),
            false => self.emit_rows(&RmsNormParams(params), x, y, depth, 3, name),
        }
        Ok(())
    }

    /// An operator on rows of `depth` elements, each of which it visits `visits` times.
    fn emit_rows<P: Params + Copy + 'static>(
        &mut self,
        params: &P,
        x: &Operand,
        y: &Operand,
        depth: usize,
        visits: u64,
        name: &str,
    ) {
        let [input, output] = [self.rows_record(x, depth), self.rows_record(y, depth)];
        self.program.op(params, vec![input], output, name, visits * y.view.len() as u64);
    }
}

/// Size of the innermost axis that has more than one element.
fn last_size(x: &Operand) -> usize {
    x.view.shape().into_iter().rev().find(|&size| size > 1).unwrap_or(1)
}
