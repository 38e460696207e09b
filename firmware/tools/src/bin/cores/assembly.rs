//! A plan of one operator, put together piece by piece.

use equant_runtime::kernels::{int4_len, pack_int4};
use equant_runtime::op::{ConstRef, FourBit, Params, Weighted};
use equant_runtime::plan::{AlignedBytes, BuildError, Builder, CONST_TENSOR, DType, Target, TensorRecord};

use crate::Error;
use crate::baseline::Bits;
use crate::data::Channel;

/// A plan whose operator is to come.
pub(crate) struct Assembly {
    builder: Builder,
    inputs: Vec<u16>,
    /// Bytes of arena so far.
    end: u32,
}

/// A tensor to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tensor<'a> {
    pub(crate) dtype: DType,
    pub(crate) dims: &'a [u32],
    pub(crate) zero_point: i16,
}

impl<'a> Tensor<'a> {
    /// One of int8.
    pub(crate) const fn bytes(dims: &'a [u32], zero_point: i16) -> Self {
        Self { dtype: DType::I8, dims, zero_point }
    }

    fn record(self, offset: u32) -> TensorRecord {
        let Self { dtype, dims, zero_point } = self;
        let mut all = [1; 4];
        all[..dims.len()].copy_from_slice(dims);
        TensorRecord { dtype, rank: dims.len() as u8, flags: 0, dims: all, scale: 1.0, zero_point, offset }
    }
}

/// Constants of the output channels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Channels {
    pub(crate) bias: ConstRef,
    pub(crate) mantissas: ConstRef,
    pub(crate) shifts: ConstRef,
}

impl Assembly {
    pub(crate) fn new() -> Self {
        Self { builder: Builder::new(Target::Portable), inputs: Vec::new(), end: 0 }
    }

    /// Adds a tensor in a place of its own.
    fn tensor(&mut self, tensor: Tensor<'_>) -> Result<u16, BuildError> {
        let offset = self.end;
        self.end += (tensor.dims.iter().product::<u32>() * tensor.dtype.size() as u32).next_multiple_of(16);
        self.builder.tensor(tensor.record(offset))
    }

    /// Adds an input of the model and of the operator.
    pub(crate) fn input(&mut self, tensor: Tensor<'_>) -> Result<(), BuildError> {
        let index = self.tensor(tensor)?;
        self.builder.input(index);
        self.inputs.push(index);
        Ok(())
    }

    /// Adds an input of the operator that is a constant.
    pub(crate) fn constant_input(&mut self, dtype: DType, dims: &[u32], bytes: &[u8]) -> Result<(), BuildError> {
        let offset = self.builder.constant(bytes)?.offset;
        let record = Tensor { dtype, dims, zero_point: 0 }.record(offset);
        self.inputs.push(self.builder.tensor(TensorRecord { flags: CONST_TENSOR, ..record })?);
        Ok(())
    }

    /// Adds a constant that parameters refer to.
    pub(crate) fn constant(&mut self, bytes: &[u8]) -> Result<ConstRef, BuildError> {
        self.builder.constant(bytes)
    }

    /// Adds weights that are in the order of a kernel: bytes, or nibbles in rows of `row`.
    pub(crate) fn weights(&mut self, bits: Bits, weights: &[i8], row: usize) -> Result<ConstRef, Error> {
        let bytes = match bits {
            Bits::Eight => weights.iter().map(|&w| w as u8).collect(),
            Bits::Four => {
                let mut packed = vec![0; int4_len(weights.len(), row)];
                pack_int4(weights, row, &mut packed).map_err(|reason| format!("weights: {reason}"))?;
                packed
            }
        };
        Ok(self.builder.constant(&bytes)?)
    }

    /// Adds the constants of the output channels, given the sum of the weights of each and the input's zero point.
    pub(crate) fn channels(
        &mut self,
        channels: &[Channel],
        sums: &[i32],
        zero_point: i16,
    ) -> Result<Channels, BuildError> {
        let bias = channels.iter().zip(sums).map(|(channel, sum)| channel.bias - i32::from(zero_point) * sum);
        let bias: Vec<u8> = bias.flat_map(i32::to_le_bytes).collect();
        let mantissas: Vec<u8> = channels.iter().flat_map(|channel| channel.mantissa.to_le_bytes()).collect();
        let shifts: Vec<u8> = channels.iter().map(|channel| channel.shift as u8).collect();
        Ok(Channels {
            bias: self.builder.constant(&bias)?,
            mantissas: self.builder.constant(&mantissas)?,
            shifts: self.builder.constant(&shifts)?,
        })
    }

    /// The operator's outputs: its result, and then words to work in, if it takes any.
    fn outputs(&mut self, result: Tensor<'_>, work: usize) -> Result<Vec<u16>, Error> {
        let mut outputs = vec![self.tensor(result)?];
        if work > 0 {
            let words = Tensor { dtype: DType::I32, dims: &[u32::try_from(work)?], zero_point: 0 };
            outputs.push(self.tensor(words)?);
        }
        Ok(outputs)
    }

    /// Adds the operator, which works in `work` words and whose result is the model's output.
    pub(crate) fn finish<P: Params>(
        mut self,
        params: &P,
        result: Tensor<'_>,
        work: usize,
        macs: u64,
    ) -> Result<AlignedBytes, Error> {
        let outputs = self.outputs(result, work)?;
        self.builder.op(params, &self.inputs, &outputs, macs, None)?;
        if let Some(&index) = outputs.first() {
            self.builder.output(index);
        }
        self.builder.memory(self.end, 0);
        Ok(AlignedBytes::from(&self.builder.finish()?[..]))
    }

    /// As [`Assembly::finish`], for an operator with weights of this width.
    pub(crate) fn finish_weighted<P: Weighted + Copy>(
        self,
        bits: Bits,
        params: &P,
        result: Tensor<'_>,
        work: usize,
        macs: u64,
    ) -> Result<AlignedBytes, Error> {
        match bits {
            Bits::Eight => self.finish(params, result, work, macs),
            Bits::Four => self.finish(&FourBit(*params), result, work, macs),
        }
    }
}
