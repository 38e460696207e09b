//! MatMul: with a constant it is a fully connected layer, otherwise a strided product.

use std::rc::Rc;

use equant_runtime::op::MatMulParams;

use super::constant::Constant;
use super::pending::Source;
use super::{Lowered, Lowering, Operand, Reason, Value, input, multiplier, unsupported};
use crate::compile::view::{Atom, View};
use crate::graph::{Node, eval};

/// `Σ_k a[b0, b1, i, k] · b[b0, b1, k, j]`.
#[derive(Debug, Clone)]
pub(super) struct Product {
    pub(super) a: Operand,
    pub(super) b: Operand,
    pub(super) batch: [usize; 2],
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) a_strides: [u32; 4],
    pub(super) b_strides: [u32; 4],
    pub(super) y_strides: [u32; 4],
}

impl Product {
    /// Whether `view`, under which the output is seen, has the columns as its last axis, dense in memory.
    pub(super) fn has_dense_rows(&self, view: &View) -> bool {
        let last = view.shape().len().saturating_sub(1);
        view.shape().last() == Some(&self.n) && self.y_strides[3] == 1 && view.stride(last) == Some(1)
    }

    /// The strides of a tensor of `shape`, which broadcasts to the output as `view` shows it, over outer batch, inner batch,
    /// row and column. `None` where an axis of the product is not one run of the view's.
    pub(super) fn strides_over(
        &self,
        view: &View,
        shape: &[usize],
        stride: impl Fn(usize) -> Option<usize>,
    ) -> Option<[u32; 4]> {
        let axes = view.axes();
        let missing = axes.len().checked_sub(shape.len())?;
        let sizes = [self.batch[0], self.batch[1], self.m, self.n];
        let mut strides = [0; 4];
        for ((strides, size), step) in strides.iter_mut().zip(sizes).zip(self.y_strides) {
            let step = step as usize;
            if size == 1 {
                continue;
            }
            let covers = |atom: &Atom| step.is_multiple_of(atom.stride) && atom.stride * atom.size >= step * size;
            let (axis, at) = axes.iter().enumerate().find_map(|(axis, atoms)| {
                atoms.iter().position(|atom| atom.stride <= step && covers(atom)).map(|at| (axis, at))
            })?;
            let Some(axis_of) = axis.checked_sub(missing).filter(|&axis| shape[axis] > 1) else { continue };
            let inner: usize = axes[axis][at + 1..].iter().map(|atom| atom.size).product();
            let stride = stride(axis_of)? * inner * (step / axes[axis][at].stride);
            *strides = u32::try_from(stride).ok()?;
        }
        Some(strides)
    }

    /// The real values the outputs can take.
    pub(super) fn real_range(&self) -> (f64, f64) {
        let ((a_low, a_high), (b_low, b_high)) = (self.a.real_range(), self.b.real_range());
        let ends = [a_low * b_low, a_low * b_high, a_high * b_low, a_high * b_high].map(|x| x * self.k as f64);
        (ends.iter().copied().fold(f64::INFINITY, f64::min), ends.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }
}

impl<'g> Lowering<'g> {
    pub(super) fn matmul(&mut self, node: &'g Node) -> Lowered<()> {
        let (a_name, b_name) = (input(node, 0)?, input(node, 1)?);
        match (self.value(a_name)?, self.value(b_name)?) {
            (Value::Const(_), Value::Const(_)) => unsupported("a product of two constants"),
            (Value::Const(weights), _) => {
                let x = self.operand(b_name)?;
                self.constant_times(node, &weights, x)
            }
            (_, Value::Const(weights)) => {
                let x = self.operand(a_name)?;
                let weights = matrix(&weights)?.transposed(&[1, 0])?;
                let bias = vec![0.0; weights.shape[0]];
                self.product_with_constant(node, x, &weights, bias, 1.0)
            }
            _ => {
                let (a, b) = (self.operand(a_name)?, self.operand(b_name)?);
                let (a, b) = (self.eight_bits(a, a_name)?, self.eight_bits(b, b_name)?);
                self.product(node, a, b)
            }
        }
    }

    /// `W · x`, as `(xᵀ · Wᵀ)ᵀ`: transposing is free.
    fn constant_times(&mut self, node: &'g Node, weights: &Rc<Constant>, x: Operand) -> Lowered<()> {
        let weights = matrix(weights)?;
        let rank = x.view.shape().len();
        if rank < 2 {
            return unsupported("a constant times a vector");
        }
        let mut swap: Vec<usize> = (0..rank).collect();
        swap.swap(rank - 2, rank - 1);
        let x = Operand { view: x.view.transpose(&swap), ..x };
        let bias = vec![0.0; weights.shape[0]];
        let (value, _) = self.fully_connected(node, x, &weights, bias, 1.0)?;
        let value = match value {
            Value::Pending(mut pending) => {
                pending.view = pending.view.transpose(&swap);
                Value::Pending(pending)
            }
            Value::Operand(x) => Value::Operand(Operand { view: x.view.transpose(&swap), ..x }),
            other => other,
        };
        self.set(node.output(), value)
    }

    fn product(&mut self, node: &'g Node, a: Operand, b: Operand) -> Lowered<()> {
        let (a_shape, b_shape) = (a.view.shape(), b.view.shape());
        let refuse = || Reason::Shape(format!("operands of shapes {a_shape:?} and {b_shape:?}"));
        let (Some(a_batch), Some(b_batch)) = (a_shape.len().checked_sub(2), b_shape.len().checked_sub(2)) else {
            return unsupported("products of vectors are not supported");
        };
        let (m, k, n) = (a_shape[a_batch], a_shape[a_batch + 1], b_shape[b_batch + 1]);
        if b_shape[b_batch] != k {
            return Err(refuse());
        }
        let batches = eval::broadcast(&a_shape[..a_batch], &b_shape[..b_batch]).ok_or_else(refuse)?;
        let mut shape = batches.clone();
        shape.extend([m, n]);
        let large: Vec<usize> = (0..batches.len()).filter(|&axis| batches[axis] > 1).collect();
        if large.len() > 2 {
            return unsupported(format!("{} batch axes: at most two are supported", large.len()));
        }
        // The order in memory that a following Transpose asks for costs nothing here.
        let order = self.wanted_order(node, shape.len()).unwrap_or_else(|| (0..shape.len()).collect());
        let y = View::ordered(&shape, &order);
        let a = self.strided(a, &node.name)?;
        let b = self.strided(b, &node.name)?;
        let strides = |view: &View| -> Option<[u32; 4]> {
            let rank = view.shape().len();
            let stride = |axis: usize| view.stride(axis).and_then(|stride| u32::try_from(stride).ok());
            // A batch axis that this operand lacks or has with size 1 repeats.
            let batch = |at: usize| match at.checked_add(rank).and_then(|at| at.checked_sub(shape.len())) {
                Some(axis) => stride(axis),
                None => Some(0),
            };
            let [outer, inner] = match *large.as_slice() {
                [outer, inner] => [batch(outer)?, batch(inner)?],
                [inner] => [0, batch(inner)?],
                _ => [0, 0],
            };
            Some([outer, inner, stride(rank - 2)?, stride(rank - 1)?])
        };
        let cut = || Reason::Unsupported("an operand's layout has no single stride per axis".into());
        let (a_strides, b_strides, y_strides) =
            (strides(&a.view).ok_or_else(cut)?, strides(&b.view).ok_or_else(cut)?, strides(&y).ok_or_else(cut)?);
        let sizes: Vec<usize> = large.iter().map(|&axis| batches[axis]).collect();
        let batch = match *sizes.as_slice() {
            [outer, inner] => [outer, inner],
            [inner] => [1, inner],
            _ => [1, 1],
        };
        // |Σ| ≤ k · 255²
        let bound = k as i64 * 255 * 255;
        if bound > i64::from(i32::MAX) {
            return Err(Reason::Accumulator { channel: 0, bound });
        }
        let product = Product { a, b, batch, m, k, n, a_strides, b_strides, y_strides };
        self.set_pending(node, Source::Product(product), y)
    }

    /// An operand each of whose axes is one run of memory.
    fn strided(&mut self, x: Operand, name: &str) -> Lowered<Operand> {
        let shape = x.view.shape();
        match (0..shape.len()).all(|axis| x.view.stride(axis).is_some()) {
            true => Ok(x),
            false => self.arranged(&x, View::row_major(&shape), name),
        }
    }

    /// The permutation of the Transpose that alone reads a node's result, through quantization.
    fn wanted_order(&self, node: &Node, rank: usize) -> Option<Vec<usize>> {
        let mut name = node.output();
        loop {
            let reader = self.only_consumer(name)?;
            match reader.op_type.as_str() {
                "QuantizeLinear" | "DequantizeLinear" => name = reader.output(),
                "Transpose" => return eval::permutation(reader, rank),
                _ => return None,
            }
        }
    }

    pub(super) fn emit_product(
        &mut self,
        product: &Product,
        factor: f64,
        y: &Operand,
        clamp: [i32; 2],
        name: &str,
    ) -> Lowered<()> {
        let Product { a, b, batch, m, k, n, a_strides, b_strides, y_strides } = product;
        let scale = f64::from(self.program.storages[y.storage].scale);
        let multiplier = multiplier(a.scale * b.scale * factor / scale)?;
        let params = MatMulParams {
            batch: batch.map(|size| size as u32),
            m: *m as u32,
            k: *k as u32,
            n: *n as u32,
            a_strides: *a_strides,
            b_strides: *b_strides,
            y_strides: *y_strides,
            mantissa: multiplier.mantissa,
            shift: i32::from(multiplier.shift),
            clamp,
        };
        let macs = (batch[0] * batch[1] * m * k * n) as u64;
        let [a, b, y] = [a, b, y].map(|x| self.default_record(x));
        self.program.op(&params, vec![a, b], y, name, macs);
        Ok(())
    }
}

/// A constant of rank 2, leading axes of size 1 aside.
fn matrix(weights: &Rc<Constant>) -> Lowered<Constant> {
    let shape = weights.shape.as_slice();
    match shape.len().checked_sub(2) {
        Some(0) => Ok((**weights).clone()),
        Some(extra) if shape[..extra].iter().all(|&size| size == 1) => {
            weights.viewed(&View::row_major(&shape[extra..]))
        }
        _ => unsupported(format!("constant weights of shape {shape:?}: only matrices are supported")),
    }
}
