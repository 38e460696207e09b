//! Assembles an image: the one emitter of the format, used by compilers and tests.

use alloc::vec::Vec;
use core::fmt;

use super::format::{HEADER_LEN, Header, OpRecord, SHAPE_LEN, TensorRecord, align16, image_checksum};
use super::{Aligned, Target};
use crate::op::{ConstRef, Params, Words};

/// Why a plan cannot be expressed in the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// More than 65535 tensors, operators, inputs or outputs.
    TooManyRecords,
    /// An operator with more than 255 inputs or outputs.
    TooManyOperands,
    /// A name longer than 65535 bytes.
    NameTooLong,
    /// The image would be longer than `u32::MAX` bytes.
    TooLarge,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyRecords => "a plan holds at most 65535 tensors, operators, inputs and outputs",
            Self::TooManyOperands => "an operator takes at most 255 inputs and 255 outputs",
            Self::NameTooLong => "a name takes at most 65535 bytes",
            Self::TooLarge => "the image would exceed 4 GiB",
        })
    }
}

impl core::error::Error for BuildError {}

/// Collects the parts of a plan and lays them out.
///
/// Records are numbered in the order in which they are added. The builder checks only what the format
/// cannot express; [`super::Plan::parse`] judges the finished image.
#[derive(Debug, Clone)]
pub struct Builder {
    target: Target,
    tensors: Vec<TensorRecord>,
    ops: Vec<u8>,
    op_count: u16,
    inputs: Vec<u16>,
    outputs: Vec<u16>,
    consts: Vec<u8>,
    names: Vec<u8>,
    arena_len: u32,
    scratch_len: u32,
}

impl Builder {
    /// An empty plan for `target`, without arena.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            tensors: Vec::new(),
            ops: Vec::new(),
            op_count: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
            consts: Vec::new(),
            names: Vec::new(),
            arena_len: 0,
            scratch_len: 0,
        }
    }

    /// Adds a tensor and returns its index.
    ///
    /// # Errors
    ///
    /// [`BuildError::TooManyRecords`].
    pub fn tensor(&mut self, record: TensorRecord) -> Result<u16, BuildError> {
        let index = next_index(self.tensors.len())?;
        self.tensors.push(record);
        Ok(index)
    }

    /// Appends bytes to the constants, at a multiple of 4, and returns where they are.
    ///
    /// # Errors
    ///
    /// [`BuildError::TooLarge`].
    pub fn constant(&mut self, bytes: &[u8]) -> Result<ConstRef, BuildError> {
        self.consts.resize(self.consts.len().next_multiple_of(4), 0);
        let reference = ConstRef { offset: word(self.consts.len())?, len: word(bytes.len())? };
        self.consts.extend_from_slice(bytes);
        Ok(reference)
    }

    /// Adds the next operator in execution order. `macs` counts multiply-accumulates of one run.
    ///
    /// # Errors
    ///
    /// [`BuildError::TooManyRecords`], [`BuildError::TooManyOperands`] or [`BuildError::NameTooLong`].
    pub fn op<P: Params>(
        &mut self,
        params: &P,
        inputs: &[u16],
        outputs: &[u16],
        macs: u64,
        name: Option<&str>,
    ) -> Result<u16, BuildError> {
        let index = next_index(usize::from(self.op_count))?;
        // All words at their longest fit.
        const { assert!((P::WORDS + 2) * Words::LONGEST <= u8::MAX as usize) };
        let name = match name {
            Some(name) => self.name(name)?.checked_add(1).ok_or(BuildError::TooLarge)?,
            None => 0,
        };
        let mut words = Vec::new();
        let mut encode = |word| Words::encode(word, |byte| words.push(byte));
        encode(name);
        encode(u32::try_from(macs).unwrap_or(u32::MAX));
        params.write(&mut encode);
        let record = OpRecord {
            kind: P::KIND as u8,
            inputs: u8::try_from(inputs.len()).map_err(|_| BuildError::TooManyOperands)?,
            outputs: u8::try_from(outputs.len()).map_err(|_| BuildError::TooManyOperands)?,
            len: words.len() as u8,
        };
        self.ops.extend_from_slice(&record.to_bytes());
        for &tensor in inputs.iter().chain(outputs) {
            self.ops.extend_from_slice(&tensor.to_le_bytes());
        }
        self.ops.extend_from_slice(&words);
        self.op_count += 1;
        Ok(index)
    }

    /// Declares tensor `index` the next input of the model.
    pub fn input(&mut self, index: u16) {
        self.inputs.push(index);
    }

    /// Declares tensor `index` the next output of the model.
    pub fn output(&mut self, index: u16) {
        self.outputs.push(index);
    }

    /// Sets the bytes of arena for activations, and of scratch behind them.
    pub fn memory(&mut self, arena_len: u32, scratch_len: u32) {
        (self.arena_len, self.scratch_len) = (arena_len, scratch_len);
    }

    /// Bytes of constants so far.
    pub fn consts_len(&self) -> usize {
        self.consts.len()
    }

    /// Lays out the sections and returns the image. It must lie at a multiple of 16 bytes to be parsed: see
    /// [`AlignedBytes`].
    ///
    /// # Errors
    ///
    /// [`BuildError::TooManyRecords`] or [`BuildError::TooLarge`].
    pub fn finish(&self) -> Result<Vec<u8>, BuildError> {
        let mut image = alloc::vec![0; HEADER_LEN];
        for index in self.inputs.iter().chain(&self.outputs) {
            image.extend_from_slice(&index.to_le_bytes());
        }
        let tensors_offset = word(image.len())?;
        let mut shapes: Vec<[u8; SHAPE_LEN]> = Vec::new();
        for tensor in &self.tensors {
            let bytes = tensor.shape_bytes();
            let shape = shapes.iter().position(|known| *known == bytes).unwrap_or(shapes.len());
            if shape == shapes.len() {
                shapes.push(bytes);
            }
            image.extend_from_slice(&tensor.to_bytes(count(shape)?));
        }
        image.extend(shapes.iter().flatten());
        let ops_offset = word(image.len())?;
        image.extend_from_slice(&self.ops);
        image.resize(align16(image.len()), 0);
        let consts_offset = word(image.len())?;
        image.extend_from_slice(&self.consts);
        let names_offset = word(image.len())?;
        image.extend_from_slice(&self.names);
        let mut header = Header {
            target: self.target as u16,
            total_len: word(image.len())?,
            checksum: 0,
            inputs: count(self.inputs.len())?,
            outputs: count(self.outputs.len())?,
            tensors: count(self.tensors.len())?,
            ops: self.op_count,
            tensors_offset,
            ops_offset,
            ops_len: word(self.ops.len())?,
            consts_offset,
            consts_len: word(self.consts.len())?,
            names_offset,
            names_len: word(self.names.len())?,
            arena_len: self.arena_len,
            scratch_len: self.scratch_len,
            shapes: count(shapes.len())?,
        };
        image[..HEADER_LEN].copy_from_slice(&header.to_bytes());
        header.checksum = image_checksum(&image);
        image[..HEADER_LEN].copy_from_slice(&header.to_bytes());
        Ok(image)
    }

    /// Appends a name and returns its offset.
    fn name(&mut self, name: &str) -> Result<u32, BuildError> {
        let len = u16::try_from(name.len()).map_err(|_| BuildError::NameTooLong)?;
        let offset = word(self.names.len())?;
        self.names.extend_from_slice(&len.to_le_bytes());
        self.names.extend_from_slice(name.as_bytes());
        Ok(offset)
    }
}

fn word(n: usize) -> Result<u32, BuildError> {
    u32::try_from(n).map_err(|_| BuildError::TooLarge)
}

fn count(n: usize) -> Result<u16, BuildError> {
    u16::try_from(n).map_err(|_| BuildError::TooManyRecords)
}

/// The index of the record that is added after `n` others, such that `n + 1` is a valid count.
fn next_index(n: usize) -> Result<u16, BuildError> {
    count(n + 1)?;
    count(n)
}

/// Bytes on the heap at a multiple of 16, as images and arenas must be.
#[derive(Debug, PartialEq, Eq)]
pub struct AlignedBytes {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        const ALIGN: usize = align_of::<Aligned<[u8; 0]>>();
        let bytes = alloc::vec![0; len + ALIGN - 1];
        let start = bytes.as_ptr().align_offset(ALIGN);
        Self { bytes, start, len }
    }
}

impl From<&[u8]> for AlignedBytes {
    fn from(source: &[u8]) -> Self {
        let mut copy = Self::zeroed(source.len());
        copy.copy_from_slice(source);
        copy
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        Self::from(&**self)
    }
}

impl core::ops::Deref for AlignedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl core::ops::DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}
