//! Softmax of the scores of queries and keys, which are not stored, with a mask.

use std::rc::Rc;

use equant_runtime::op::{MatMulMaskSoftmaxParams, MatMulSoftmaxParams};
use equant_runtime::plan::DType;

use super::constant::Constant;
use super::matmul::Product;
use super::pending::{Pending, Source};
use super::{Lowered, Lowering, Operand, QParams, Reason, Value, multiplier, unsupported};
use crate::compile::view::View;
use crate::graph::{Node, eval};

/// `factor · product + mask` over the columns.
#[derive(Debug, Clone)]
pub(super) struct Scores {
    pub(super) product: Product,
    /// Positive.
    factor: f64,
    /// Columns that the first row sees, if each further row sees one more.
    visible: Option<usize>,
    mask: Option<Mask>,
}

/// What is added to scores.
#[derive(Debug, Clone)]
struct Mask {
    added: Added,
    /// Strides over outer batch, inner batch, row and column of the product.
    strides: [u32; 4],
}

#[derive(Debug, Clone)]
enum Added {
    /// Elements in the order of the shape; minus infinity where a column is excluded.
    Const(Rc<Constant>),
    Operand(Operand),
}

/// The least range of scores that steps are chosen for: what lies a multiple of it below the largest vanishes.
const LEAST_RANGE: f64 = 64.0;

/// Constants within this have 16 bits.
const NARROW: f64 = 32.0;

impl Scores {
    fn of(pending: &Pending) -> Option<Self> {
        match &pending.source {
            Source::Product(product) if pending.is_unclamped() && product.has_dense_rows(&pending.view) => {
                Some(Self { product: product.clone(), factor: pending.factor, visible: None, mask: None })
            }
            Source::Scores(scores) => Some((**scores).clone()),
            _ => None,
        }
    }

    /// The same with a constant added.
    fn with_constant(mut self, view: &View, constant: &Rc<Constant>) -> Lowered<Option<Self>> {
        let constant = match self.mask.take() {
            Some(Mask { added: Added::Const(known), .. }) => Rc::new(sum(&known, constant)?),
            other => {
                self.mask = other;
                constant.clone()
            }
        };
        if constant.real.iter().any(|x| x.is_nan() || *x == f64::INFINITY) {
            return unsupported("a mask with elements that are infinite or no numbers");
        }
        let steps = row_major_strides(&constant.shape);
        let Some(strides) = self.product.strides_over(view, &constant.shape, |axis| Some(steps[axis])) else {
            return Ok(None);
        };
        let (m, n) = (self.product.m, self.product.n);
        // The view may show other axes than rows and columns last.
        let by_rows = m == 1 || strides[2] as usize == n;
        if let Some(visible) = visible(&constant, m, n).filter(|_| by_rows) {
            self.visible = Some(self.visible.map_or(visible, |known| known.min(visible)));
            // What no row sees need not be said again.
            if constant.real.iter().all(|&x| x == 0.0 || x == f64::NEG_INFINITY) {
                return Ok(Some(self));
            }
        }
        if self.mask.is_some() {
            return unsupported("a mask that is a constant and one that is not, unless the constant is a causal mask");
        }
        self.mask = Some(Mask { added: Added::Const(constant), strides });
        Ok(Some(self))
    }

    /// The same with an activation added.
    fn with_operand(mut self, view: &View, x: Operand) -> Lowered<Option<Self>> {
        if self.mask.is_some() {
            return unsupported("two masks, one of which is an activation and the other no causal mask");
        }
        let strides = self.product.strides_over(view, &x.view.shape(), |axis| x.view.stride(axis));
        let Some(strides) = strides else { return Ok(None) };
        self.mask = Some(Mask { added: Added::Operand(x), strides });
        Ok(Some(self))
    }
}

fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
}

fn sum(a: &Constant, b: &Constant) -> Lowered<Constant> {
    let parts = eval::broadcast(&a.shape, &b.shape)
        .and_then(|shape| Some((a.broadcast(&a.real, &shape)?, b.broadcast(&b.real, &shape)?, shape)));
    let (x, y, shape) = parts.ok_or_else(|| Reason::Shape(format!("masks {:?} and {:?}", a.shape, b.shape)))?;
    Ok(Constant { shape, real: x.into_iter().zip(y).map(|(x, y)| x + y).collect(), quantized: None })
}

/// Of a constant that excludes all columns from one on, the next row one more: what the first row sees.
fn visible(constant: &Constant, m: usize, n: usize) -> Option<usize> {
    let [.., rows, columns] = constant.shape[..] else { return None };
    if (rows, columns) != (m, n) {
        return None;
    }
    let seen = |row: &[f64]| row.iter().position(|&x| x == f64::NEG_INFINITY).unwrap_or(n);
    let first = seen(constant.real.get(..n)?);
    // A row that sees everything says nothing of the ones after it.
    let causal =
        constant.real.chunks(n).enumerate().all(|(i, row)| {
            seen(row) == n.min(first + i % m) && row[seen(row)..].iter().all(|&x| x == f64::NEG_INFINITY)
        });
    (causal && first > 0 && first < n).then_some(first)
}

impl<'g> Lowering<'g> {
    /// A sum of scores with a mask that a Softmax alone reads, as scores with that mask.
    pub(super) fn masked_scores(&mut self, node: &'g Node, names: [&str; 2]) -> Lowered<Option<Value>> {
        if node.op_type != "Add" || names[0] == names[1] || !self.leads_to_softmax(node.output()) {
            return Ok(None);
        }
        for [scores, mask] in [names, [names[1], names[0]]] {
            let Value::Pending(pending) = self.value(scores)? else { continue };
            let Some(known) = Scores::of(&pending) else { continue };
            let view = pending.view.clone();
            let other = self.value(mask)?;
            let fits = |shape: &[usize]| eval::broadcast(&view.shape(), shape).is_some_and(|sum| sum == view.shape());
            let masked = match other {
                Value::Const(constant) if fits(&constant.shape) => known.with_constant(&view, &constant)?,
                Value::Const(_) => None,
                _ => {
                    let x = self.operand(mask)?;
                    if fits(&x.view.shape()) { known.with_operand(&view, x)? } else { None }
                }
            };
            if let Some(masked) = masked {
                let pending = Pending::new(Source::Scores(Box::new(masked)), view, node);
                return Ok(Some(Value::Pending(Box::new(pending))));
            }
            break;
        }
        Ok(None)
    }

    /// Whether a Softmax over the last axis alone reads a value, perhaps after more masks.
    pub(super) fn leads_to_softmax(&self, name: &str) -> bool {
        match self.only_consumer(name) {
            Some(node) if node.op_type == "Softmax" => {
                node.int("axis", -1) == -1 || {
                    let rank = self.values.get(node.input(0).unwrap_or_default()).map(|value| match value {
                        Value::Pending(pending) => pending.view.shape().len() as i64,
                        Value::Operand(x) => x.view.shape().len() as i64,
                        _ => 0,
                    });
                    rank == Some(node.int("axis", -1) + 1)
                }
            }
            Some(node) if node.op_type == "Add" => self.leads_to_softmax(node.output()),
            _ => false,
        }
    }

    /// The attention weights of scores that wait, if a Softmax of them needs no scores.
    pub(super) fn attention(&self, scores: &Pending, node: &Node) -> Option<Scores> {
        let rank = scores.view.shape().len();
        let last = eval::normalize_axis(node.int("axis", -1), rank).is_some_and(|axis| axis + 1 == rank);
        Scores::of(scores).filter(|_| last)
    }

    /// `factor · softmax(scores)` over the columns.
    pub(super) fn emit_attention(&mut self, scores: &Scores, factor: f64, y: &Operand, name: &str) -> Lowered<()> {
        let Scores { product, factor: scale, visible, mask } = scores;
        let Product { a, b, batch, m, k, n, a_strides, b_strides, y_strides, .. } = product;
        let sum_step = a.scale * b.scale * scale;
        let masked = mask.as_ref().map(|mask| self.mask_operand(mask, sum_step)).transpose()?;
        let step = match &masked {
            Some(mask) => {
                let (low, high) = product.real_range();
                let range = low.abs().max(high.abs()) * scale + mask.real_range().1.max(0.0);
                range.max(LEAST_RANGE) / f64::from(1 << 29)
            }
            None => sum_step,
        };
        let exponent = multiplier(step * std::f64::consts::LOG2_E)?;
        let output = multiplier(factor / f64::from(self.program.storages[y.storage].scale))?;
        let params = MatMulSoftmaxParams {
            batch: batch.map(|size| size as u32),
            m: *m as u32,
            k: *k as u32,
            n: *n as u32,
            a_strides: *a_strides,
            b_strides: *b_strides,
            y_strides: [y_strides[0], y_strides[1], y_strides[2]],
            mantissa: exponent.mantissa,
            shift: i32::from(exponent.shift),
            output_mantissa: output.mantissa,
            output_shift: i32::from(output.shift),
        };
        let seen: usize = (0..*m).map(|i| visible.map_or(*n, |first| n.min(&(first + i)).to_owned())).sum();
        let macs = (batch[0] * batch[1] * seen * k) as u64;
        let sums = QParams::full(DType::I32, (a.scale * b.scale) as f32, 0);
        let sums = self.fresh(View::row_major(&[*n]), sums, DType::I32.range());
        let [a, b, y, sums] = [a, b, y, &sums].map(|x| self.default_record(x));
        if visible.is_none() && mask.is_none() {
            self.program.op(&params, vec![a, b], y, name, macs);
        } else {
            let factors = match &masked {
                Some(mask) => Factors::new(sum_step / step, mask.scale / step, mask.dtype)?,
                None => Factors::default(),
            };
            let params = MatMulMaskSoftmaxParams {
                product: params,
                visible: visible.map_or(u32::MAX, |first| first as u32),
                mask_strides: mask.as_ref().map_or([0; 4], |mask| mask.strides),
                sum_factor: factors.sum,
                mask_factor: factors.mask,
                mask_shift: factors.mask_shift,
                factor_shift: factors.shift,
            };
            let mask = masked.map(|mask| self.default_record(&mask));
            self.program.op(&params, [a, b].into_iter().chain(mask).collect(), y, name, macs);
        }
        self.program.work(sums);
        Ok(())
    }

    /// A mask as a tensor of the plan; of a constant, the lowest number of its type is minus infinity.
    fn mask_operand(&mut self, mask: &Mask, sum_step: f64) -> Lowered<Operand> {
        let constant = match &mask.added {
            Added::Operand(x) => return Ok(x.clone()),
            Added::Const(constant) => constant,
        };
        let finite = constant.real.iter().copied().filter(|x| x.is_finite());
        let bound = finite.fold(0.0f64, |bound, x| bound.max(x.abs()));
        let (dtype, scale) = match bound {
            // Any step serves where nothing is added.
            0.0 => (DType::I8, sum_step as f32),
            _ if bound <= NARROW => (DType::I16, (bound / 32767.0) as f32),
            _ => (DType::I32, (bound / f64::from(1 << 30)) as f32),
        };
        if !scale.is_normal() {
            return Err(Reason::Multiplier { value: scale.into() });
        }
        let q = QParams::full(dtype, scale, 0);
        let (low, high) = q.levels;
        let element = |&x: &f64| if x.is_finite() { q.quantize_f64(x).clamp(low + 1, high) } else { low };
        let ints: Vec<i32> = constant.real.iter().map(element).collect();
        Ok(self.stored(q, &ints, View::row_major(&[ints.len()])))
    }
}

/// How sums and mask enter a score.
#[derive(Debug, Clone, Copy)]
struct Factors {
    sum: i32,
    mask: i32,
    mask_shift: u32,
    shift: u32,
}

/// Those of scores without a mask, which nothing reads.
impl Default for Factors {
    fn default() -> Self {
        Self { sum: 0, mask: 0, mask_shift: 0, shift: 1 }
    }
}

impl Factors {
    /// For the steps of sums and mask in steps of the scores.
    fn new(sum: f64, mask: f64, dtype: DType) -> Lowered<Self> {
        let refuse = |value: f64| Reason::Multiplier { value };
        let most = match dtype {
            DType::I8 => 23,
            DType::I16 => 15,
            DType::I32 => 0,
        };
        if !(sum.is_finite() && sum > 0.0) {
            return Err(refuse(sum));
        }
        // The factor of the sums has 30 bits, that of a coarse mask more.
        let shift = (29 - sum.log2().floor() as i64).clamp(1, 62) as i32;
        let scaled = mask * 2f64.powi(shift);
        let mask_shift = (scaled.log2() - 30.0).ceil().clamp(0.0, f64::from(most)) as i32;
        let factor = |x: f64| x.round_ties_even().min(f64::from(1 << 30)) as i32;
        let found = Self {
            sum: factor(sum * 2f64.powi(shift)),
            mask: factor(scaled * 2f64.powi(-mask_shift)),
            mask_shift: mask_shift as u32,
            shift: shift as u32,
        };
        // A step cut short must still exclude: be longer than all scores.
        let whole = scaled <= f64::from(1 << 30) * 2f64.powi(most);
        let excludes = f64::from(1 << 30) * 2f64.powi(most - shift) >= f64::from(1 << 30);
        if (whole || excludes) && scaled.is_finite() { Ok(found) } else { Err(refuse(mask)) }
    }
}
