//! The plainest possible form of every operator, written straight from its formula.
//!
//! Naive loops over whole tensors on the heap, wide integers, nothing in common with the portable kernels but
//! the rounding rules of [`crate::quant`] and the fixed-point functions that define the normalizations. Every
//! other set of kernels must give the same bits. Records are taken as valid: these functions panic on others.

mod elementwise;
mod layout;
mod matrix;
mod normalize;
mod window;

use alloc::vec::Vec;

use crate::op::{ConstRef, OpKind, Params, RepeatParams, Weighted};
use crate::plan::{DType, OpView, Plan, TensorRecord};
use crate::quant::Multiplier;

/// A tensor read into memory.
struct Tensor {
    dims: [usize; 4],
    rank: usize,
    zero_point: i64,
    values: Vec<i64>,
}

impl Tensor {
    /// Element `[n, h, w, c]`.
    fn at(&self, [n, h, w, c]: [usize; 4]) -> i64 {
        let [_, height, width, channels] = self.dims;
        self.values[((n * height + h) * width + w) * channels + c]
    }

    /// As [`Tensor::at`], where positions outside the height or the width have the real value 0.
    fn at_padded(&self, n: usize, h: i64, w: i64, c: usize) -> i64 {
        let inside = (0..self.dims[1] as i64).contains(&h) && (0..self.dims[2] as i64).contains(&w);
        if inside { self.at([n, h as usize, w as usize, c]) } else { self.zero_point }
    }

    /// Length of the last axis.
    fn last(&self) -> usize {
        self.dims[..self.rank].last().copied().unwrap_or(1)
    }

    /// Sizes with leading instead of trailing ones.
    fn leading_ones(&self) -> [usize; 4] {
        let mut dims = self.dims;
        dims.rotate_right(4 - self.rank);
        dims
    }
}

/// What an operator's record and its inputs hold.
struct Record<'a> {
    op: &'a OpView<'a>,
    plan: &'a Plan<'a>,
    arena: &'a [u8],
}

impl Record<'_> {
    fn params<P: Params>(&self) -> P {
        self.op.params().expect("parameters of this kind")
    }

    /// Parameters of an operator with weights of either width.
    fn weighted<P: Weighted>(&self) -> P {
        self.op.weighted().expect("parameters of this kind")
    }

    fn input(&self, i: usize) -> Tensor {
        let record = self.plan.input(self.op, i).expect("an input");
        let memory = if record.is_const() { self.plan.consts() } else { self.arena };
        let bytes = &memory[record.offset as usize..][..record.byte_len().expect("a length") as usize];
        Tensor {
            dims: record.dims.map(|dim| dim as usize),
            rank: usize::from(record.rank),
            zero_point: i64::from(record.zero_point),
            values: match record.dtype {
                DType::I8 => bytes.iter().map(|&byte| i64::from(byte as i8)).collect(),
                DType::I16 => bytes.chunks(2).map(|pair| i64::from(i16::from_le_bytes([pair[0], pair[1]]))).collect(),
                DType::I32 => words(bytes),
            },
        }
    }

    fn output(&self) -> TensorRecord {
        self.plan.output(self.op, 0).expect("an output")
    }

    /// The output's sizes.
    fn output_dims(&self) -> [usize; 4] {
        self.output().dims.map(|dim| dim as usize)
    }

    fn bytes(&self, constant: ConstRef) -> &[u8] {
        self.plan.constant(constant).expect("a constant")
    }

    fn i8s(&self, constant: ConstRef) -> Vec<i64> {
        self.bytes(constant).iter().map(|&byte| i64::from(byte as i8)).collect()
    }

    /// Weights in rows of `row` elements: bytes, or nibbles in words of eight.
    fn weights<P: Weighted>(&self, constant: ConstRef, row: usize) -> Vec<i64> {
        if self.op.kind != P::FOUR_BIT {
            return self.i8s(constant);
        }
        let mut weights = Vec::new();
        // The nibble of each element of a word.
        const PLACES: [usize; 8] = [0, 1, 4, 5, 2, 3, 6, 7];
        for row_bytes in self.bytes(constant).chunks(row.div_ceil(8) * 4) {
            for k in 0..row {
                let place = PLACES[k % 8];
                let byte = row_bytes[k / 8 * 4 + place / 2];
                weights.push(i64::from(byte >> (place % 2 * 4) & 15) - 8);
            }
        }
        weights
    }

    fn u16s(&self, constant: ConstRef) -> Vec<usize> {
        self.bytes(constant).chunks(2).map(|pair| usize::from(u16::from_le_bytes([pair[0], pair[1]]))).collect()
    }

    fn i32s(&self, constant: ConstRef) -> Vec<i64> {
        words(self.bytes(constant))
    }
}

/// Little-endian 32-bit integers.
fn words(bytes: &[u8]) -> Vec<i64> {
    let words = bytes.chunks(4);
    words.map(|word| i64::from(i32::from_le_bytes([word[0], word[1], word[2], word[3]]))).collect()
}

/// A multiplier from parameter words.
fn multiplier(mantissa: i32, shift: i32) -> Multiplier {
    Multiplier { mantissa, shift: shift as i8 }
}

/// Every index of a shape, in order.
fn indices([a, b, c, d]: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    (0..a * b * c * d).map(move |i| [i / (b * c * d), i / (c * d) % b, i / d % c, i % d])
}

/// What the last of the repeated operators makes in the end.
fn repeat(record: &Record<'_>) -> Vec<i32> {
    let p: RepeatParams = record.params();
    let mut arena = record.arena.to_vec();
    let mut values = Vec::new();
    for _ in 0..p.times {
        let first = usize::from(record.op.index) - p.len as usize;
        for op in record.plan.ops().skip(first).take(p.len as usize) {
            values = run(&op, record.plan, &arena);
            let y = record.plan.output(&op, 0).expect("an output");
            let size = y.dtype.size();
            for (slot, value) in arena[y.offset as usize..].chunks_mut(size).zip(&values) {
                slot.copy_from_slice(&value.to_le_bytes()[..size]);
            }
        }
    }
    values
}

/// The elements of the first output of `op`, in order, for these contents of the arena.
///
/// # Panics
///
/// If the record is not one that [`Plan::parse`] accepts.
pub fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &[u8]) -> Vec<i32> {
    let record = Record { op, plan, arena };
    match op.kind {
        OpKind::Conv2d | OpKind::Conv2dI4 => window::conv2d(&record),
        OpKind::DepthwiseConv2d | OpKind::DepthwiseConv2dI4 => window::depthwise_conv2d(&record),
        OpKind::ConvTranspose2d | OpKind::ConvTranspose2dI4 => window::conv_transpose2d(&record),
        OpKind::FullyConnected | OpKind::FullyConnectedI4 => matrix::fully_connected(&record),
        OpKind::MatMul => matrix::mat_mul(&record),
        OpKind::Add => elementwise::add(&record),
        OpKind::Mul => elementwise::mul(&record),
        OpKind::Lut => elementwise::lut(&record),
        OpKind::Softmax => normalize::softmax(&record),
        OpKind::LayerNorm => normalize::layer_norm(&record),
        OpKind::AvgPool2d => window::avg_pool2d(&record),
        OpKind::MaxPool2d => window::max_pool2d(&record),
        OpKind::Transpose => layout::transpose(&record),
        OpKind::Concat => layout::concat(&record),
        OpKind::Pad => layout::pad(&record),
        OpKind::State => layout::state(&record),
        OpKind::Repeat => repeat(&record),
        OpKind::Gather => layout::gather(&record),
        OpKind::Requantize => elementwise::requantize(&record),
        OpKind::MatMulSoftmax => matrix::mat_mul_softmax(&record),
        OpKind::Take => layout::take(&record),
        OpKind::Div => elementwise::div(&record),
        OpKind::Resize2d => window::resize2d(&record),
        OpKind::ArgMax => layout::arg_max(&record),
        OpKind::LogSoftmax => normalize::log_softmax(&record),
        OpKind::RmsNorm => normalize::rms_norm(&record),
        OpKind::MatMulMaskSoftmax => matrix::mat_mul_mask_softmax(&record),
    }
}
