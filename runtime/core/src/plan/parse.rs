//! Validation and reading of an image.

use core::marker::PhantomData;

use super::Target;
use super::format::{
    CONST_TENSOR, DType, HEADER_LEN, Header, LOGICAL_NCHW, MAGIC, OpRecord, RANGE_I4, RANGE_U4, SHAPE_LEN, TENSOR_LEN,
    TensorRecord, VERSION, image_checksum,
};
use crate::error::{Error, Reason};
use crate::op::{ConstRef, FourBit, OpKind, Params, Weighted, Words};
use crate::operator::{AllOperators, OperatorSet};

/// Bytes of arena (scratch included) that the image asks for: a `const fn`, so that firmware can
/// declare `static ARENA: Aligned<[u8; arena_len(IMAGE)]>`.
///
/// Only reads the header: 0 for anything shorter, `usize::MAX` for sizes that no plan may have.
/// [`Plan::parse`] is what validates.
pub const fn arena_len(image: &[u8]) -> usize {
    match image.first_chunk::<HEADER_LEN>() {
        Some(bytes) => {
            let header = Header::from_bytes(bytes);
            match memory_len(&header) {
                Some(len) => len,
                None => usize::MAX,
            }
        }
        None => 0,
    }
}

/// Bytes of arena and scratch, or `None` beyond 2 GiB.
const fn memory_len(header: &Header) -> Option<usize> {
    let len = (header.arena_len as u64).next_multiple_of(16) + header.scratch_len as u64;
    if len <= i32::MAX as u64 { Some(len as usize) } else { None }
}

/// A validated image, and the operators that will run it.
pub struct Plan<'a, O: OperatorSet = AllOperators> {
    header: Header,
    io: &'a [u8],
    tensors: &'a [u8],
    shapes: &'a [u8],
    ops: &'a [u8],
    consts: &'a [u8],
    names: &'a [u8],
    operators: PhantomData<O>,
}

impl<O: OperatorSet> Clone for Plan<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O: OperatorSet> Copy for Plan<'_, O> {}

impl<O: OperatorSet> core::fmt::Debug for Plan<'_, O> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Plan").field("header", &self.header).finish_non_exhaustive()
    }
}

/// One operator of a plan.
#[derive(Debug, Clone, Copy)]
pub struct OpView<'a> {
    /// Its position in execution order.
    pub index: u16,
    /// What it does.
    pub kind: OpKind,
    /// Multiply-accumulates of one run, as recorded by the compiler.
    pub macs: u32,
    record: OpRecord,
    /// Offset of the name plus 1, or 0.
    name: u32,
    indices: &'a [u8],
    words: &'a [u8],
}

impl<'a> OpView<'a> {
    /// Number of inputs.
    pub fn input_count(&self) -> usize {
        usize::from(self.record.inputs)
    }

    /// Number of outputs.
    pub fn output_count(&self) -> usize {
        usize::from(self.record.outputs)
    }

    /// Tensor index of input `i`.
    pub fn input(&self, i: usize) -> Option<u16> {
        if i < self.input_count() { index_at(self.indices, i) } else { None }
    }

    /// Tensor index of output `i`.
    pub fn output(&self, i: usize) -> Option<u16> {
        if i < self.output_count() { index_at(self.indices, self.input_count() + i) } else { None }
    }

    /// The parameters, if they are of kind `P`.
    pub fn params<P: Params>(&self) -> Option<P> {
        if P::KIND == self.kind { P::read(Words::new(self.words)) } else { None }
    }

    /// The parameters `P` of an operator with weights of either width.
    pub fn weighted<P: Weighted>(&self) -> Option<P> {
        self.params().or_else(|| self.params::<FourBit<P>>().map(|params| params.0))
    }
}

/// The u16 at position `i` of a list of little-endian u16.
fn index_at(bytes: &[u8], i: usize) -> Option<u16> {
    let pair = bytes.get(i * 2..)?.first_chunk::<2>()?;
    Some(u16::from_le_bytes(*pair))
}

impl<'a, O: OperatorSet> Plan<'a, O> {
    /// Validates `image` completely, in time linear in its length and without allocating.
    ///
    /// # Errors
    ///
    /// The first thing found wrong, with the index of the tensor or operator record concerned.
    pub fn parse(image: &'a [u8]) -> Result<Self, Error> {
        let bytes = image.first_chunk::<HEADER_LEN>().ok_or(Error::image(Reason::Truncated))?;
        if bytes.first_chunk::<4>() != Some(&MAGIC) {
            return Err(Error::image(Reason::NotAPlan));
        }
        if u16::from_le_bytes([bytes[4], bytes[5]]) != VERSION {
            return Err(Error::image(Reason::Version));
        }
        let header = Header::from_bytes(bytes);
        if Target::from_u16(header.target).is_none() {
            return Err(Error::image(Reason::Target));
        }
        if image.as_ptr().align_offset(16) != 0 {
            return Err(Error::image(Reason::Alignment));
        }
        let image = image.get(..header.total_len as usize).ok_or(Error::image(Reason::Truncated))?;
        if image.len() < HEADER_LEN {
            return Err(Error::image(Reason::Truncated));
        }
        if image_checksum(image) != header.checksum {
            return Err(Error::image(Reason::Checksum));
        }
        if memory_len(&header).is_none() {
            return Err(Error::image(Reason::ArenaTooLarge));
        }
        let io_len = (u32::from(header.inputs) + u32::from(header.outputs)) * 2;
        let tensors_len = u32::from(header.tensors) * TENSOR_LEN as u32;
        let shapes_len = u32::from(header.shapes) * SHAPE_LEN as u32;
        let mut sections = Sections { image, end: HEADER_LEN };
        let plan = Self {
            header,
            io: sections.next(HEADER_LEN as u32, io_len)?,
            tensors: sections.next(header.tensors_offset, tensors_len)?,
            shapes: sections.next(header.tensors_offset.wrapping_add(tensors_len), shapes_len)?,
            ops: sections.next(header.ops_offset, header.ops_len)?,
            consts: sections.aligned(header.consts_offset, header.consts_len)?,
            names: sections.next(header.names_offset, header.names_len)?,
            operators: PhantomData,
        };
        plan.check_tensors()?;
        plan.check_ops()?;
        Ok(plan)
    }

    fn check_tensors(&self) -> Result<(), Error> {
        for index in 0..self.header.tensors {
            let tensor = self.tensor(index).ok_or(Error::at(Reason::Tensor, index))?;
            let (low, high) = tensor.range();
            let zero_point_fits = match tensor.dtype {
                DType::I32 => tensor.zero_point == 0,
                DType::I8 | DType::I16 => (low..=high).contains(&i32::from(tensor.zero_point)),
            };
            let scale_is_sound = tensor.scale.is_finite() && tensor.scale > 0.0;
            let flags_are_sound = tensor.flags & !(CONST_TENSOR | LOGICAL_NCHW | RANGE_I4 | RANGE_U4) == 0
                && (tensor.flags & LOGICAL_NCHW == 0 || tensor.rank >= 3)
                && match tensor.flags & (RANGE_I4 | RANGE_U4) {
                    0 => true,
                    RANGE_I4 | RANGE_U4 => tensor.dtype == DType::I8,
                    _ => false,
                };
            if !zero_point_fits || !scale_is_sound || !flags_are_sound || tensor.elements() == Some(0) {
                return Err(Error::at(Reason::Tensor, index));
            }
            let len = tensor.byte_len().ok_or(Error::at(Reason::Tensor, index))?;
            let end = tensor.offset.checked_add(len).ok_or(Error::at(Reason::TensorBounds, index))?;
            let limit = if tensor.is_const() { self.header.consts_len } else { self.header.arena_len };
            if end > limit {
                return Err(Error::at(Reason::TensorBounds, index));
            }
            if !tensor.offset.is_multiple_of(4) {
                return Err(Error::at(Reason::Alignment, index));
            }
        }
        for i in 0..usize::from(self.header.inputs) + usize::from(self.header.outputs) {
            let index = index_at(self.io, i).ok_or(Error::image(Reason::Truncated))?;
            let tensor = self.tensor(index).ok_or(Error::at(Reason::Tensor, index))?;
            if tensor.is_const() {
                return Err(Error::at(Reason::Tensor, index));
            }
        }
        Ok(())
    }

    fn check_ops(&self) -> Result<(), Error> {
        let mut ops = self.ops();
        for index in 0..self.header.ops {
            let op = ops.next().ok_or(Error::at(Reason::Operator, index))?;
            for i in 0..op.input_count() {
                self.input(&op, i).map_err(|reason| Error::at(reason, index))?;
            }
            for i in 0..op.output_count() {
                let tensor = self.output(&op, i).map_err(|reason| Error::at(reason, index))?;
                if tensor.is_const() {
                    return Err(Error::at(Reason::Operator, index));
                }
            }
            if op.name != 0 && self.name_bytes(&op).is_none() {
                return Err(Error::at(Reason::Operator, index));
            }
            O::check(&op, &self.erase()).map_err(|reason| Error::at(reason, index))?;
        }
        if ops.rest.is_empty() { Ok(()) } else { Err(Error::at(Reason::Operator, self.header.ops)) }
    }

    /// The same plan for code that does not depend on the operator set.
    pub(crate) fn erase(&self) -> Plan<'a, AllOperators> {
        Plan {
            header: self.header,
            io: self.io,
            tensors: self.tensors,
            shapes: self.shapes,
            ops: self.ops,
            consts: self.consts,
            names: self.names,
            operators: PhantomData,
        }
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The target the constants are packed for.
    pub fn target(&self) -> Target {
        Target::from_u16(self.header.target).unwrap_or(Target::Portable)
    }

    /// Bytes of arena needed, scratch included; the arena must be 16-byte aligned.
    pub fn arena_len(&self) -> usize {
        memory_len(&self.header).unwrap_or(0)
    }

    /// The constants section.
    pub fn consts(&self) -> &'a [u8] {
        self.consts
    }

    /// The bytes of one constant, if it lies inside the section and is 4-byte aligned.
    pub fn constant(&self, reference: ConstRef) -> Option<&'a [u8]> {
        if !reference.offset.is_multiple_of(4) {
            return None;
        }
        self.consts.get(reference.offset as usize..)?.get(..reference.len as usize)
    }

    /// Tensor record `index`.
    pub fn tensor(&self, index: u16) -> Option<TensorRecord> {
        let bytes = self.tensors.get(usize::from(index) * TENSOR_LEN..)?.first_chunk::<TENSOR_LEN>()?;
        TensorRecord::from_bytes(bytes, self.shapes)
    }

    /// The tensor of an operator's input.
    pub fn input(&self, op: &OpView<'_>, i: usize) -> Result<TensorRecord, Reason> {
        op.input(i).and_then(|index| self.tensor(index)).ok_or(Reason::Operator)
    }

    /// The tensor of an operator's output.
    pub fn output(&self, op: &OpView<'_>, i: usize) -> Result<TensorRecord, Reason> {
        op.output(i).and_then(|index| self.tensor(index)).ok_or(Reason::Operator)
    }

    /// Number of model inputs.
    pub fn input_count(&self) -> usize {
        usize::from(self.header.inputs)
    }

    /// Number of model outputs.
    pub fn output_count(&self) -> usize {
        usize::from(self.header.outputs)
    }

    /// Tensor of model input `i`.
    pub fn model_input(&self, i: usize) -> Option<TensorRecord> {
        if i < self.input_count() { self.tensor(index_at(self.io, i)?) } else { None }
    }

    /// Tensor of model output `i`.
    pub fn model_output(&self, i: usize) -> Option<TensorRecord> {
        if i < self.output_count() { self.tensor(index_at(self.io, self.input_count() + i)?) } else { None }
    }

    /// The operators in execution order.
    pub fn ops(&self) -> Ops<'a> {
        Ops { rest: self.ops, index: 0 }
    }

    /// The name of an operator, unless names were stripped.
    pub fn op_name(&self, op: &OpView<'_>) -> Option<&'a str> {
        core::str::from_utf8(self.name_bytes(op)?).ok()
    }

    fn name_bytes(&self, op: &OpView<'_>) -> Option<&'a [u8]> {
        let offset = op.name.checked_sub(1)?;
        let (len, rest) = self.names.get(offset as usize..)?.split_first_chunk::<2>()?;
        rest.get(..usize::from(u16::from_le_bytes(*len)))
    }
}

/// Iterator over the operators of a plan.
#[derive(Debug, Clone)]
pub struct Ops<'a> {
    rest: &'a [u8],
    index: u16,
}

impl<'a> Iterator for Ops<'a> {
    type Item = OpView<'a>;

    fn next(&mut self) -> Option<OpView<'a>> {
        let record = OpRecord::from_bytes(self.rest.first_chunk::<{ OpRecord::LEN }>()?);
        let bytes = self.rest.get(..record.record_len())?;
        let rest = self.rest.get(record.record_len()..)?;
        let indices = bytes.get(OpRecord::LEN..)?;
        let mut words = Words::new(indices.get(record.indices_len()..)?);
        let (name, macs) = (words.next_word()?, words.next_word()?);
        let kind = OpKind::from_u16(record.kind.into())?;
        let op = OpView { index: self.index, kind, macs, record, name, indices, words: words.rest() };
        self.rest = rest;
        self.index = self.index.wrapping_add(1);
        Some(op)
    }
}

/// Cuts sections out of the image, front to back.
struct Sections<'a> {
    image: &'a [u8],
    /// End of the previous section.
    end: usize,
}

impl<'a> Sections<'a> {
    /// As [`Self::next`], at a multiple of 16.
    fn aligned(&mut self, offset: u32, len: u32) -> Result<&'a [u8], Error> {
        if !offset.is_multiple_of(16) {
            return Err(Error::image(Reason::Alignment));
        }
        self.next(offset, len)
    }

    /// The section at `offset`: behind the previous one and inside the image.
    fn next(&mut self, offset: u32, len: u32) -> Result<&'a [u8], Error> {
        let start = offset as usize;
        if start < self.end {
            return Err(Error::image(Reason::Sections));
        }
        let rest = self.image.get(start..).ok_or(Error::image(Reason::Truncated))?;
        let section = rest.get(..len as usize).ok_or(Error::image(Reason::Truncated))?;
        self.end = start.wrapping_add(section.len());
        Ok(section)
    }
}
