//! Access to tensors in the arena and in the constants, and the checks that every operator shares.

use core::ops::Range;

use crate::error::Reason;
use crate::op::{ConstRef, Params};
use crate::plan::{DType, OpView, Plan, TensorRecord};
use crate::quant::Multiplier;

/// Constants are read in place as little-endian words.
const _: () = assert!(cfg!(target_endian = "little"), "plans are read in place: only little-endian targets");

/// Elements handled at a time by the element-wise kernels: small enough for a microcontroller's stack.
pub(crate) const BLOCK: usize = 64;

/// The parameters of a record.
pub(crate) fn params<P: Params>(op: &OpView<'_>) -> Result<P, Reason> {
    op.params().ok_or(Reason::Operator)
}

/// Refuses a record with another number of inputs, or with other outputs than one.
pub(crate) fn check_arity(op: &OpView<'_>, inputs: usize) -> Result<(), Reason> {
    if op.input_count() == inputs && op.output_count() == 1 { Ok(()) } else { Err(Reason::Operator) }
}

/// As [`check_arity`] for operators with memory to work in: their second output.
pub(crate) fn check_work_arity(op: &OpView<'_>, inputs: usize) -> Result<(), Reason> {
    if op.input_count() == inputs && op.output_count() == 2 { Ok(()) } else { Err(Reason::Operator) }
}

/// Refuses a clamp that is empty or leaves the range of the output.
pub(crate) fn check_clamp(clamp: [i32; 2], y: &TensorRecord) -> Result<(), Reason> {
    let (low, high) = y.range();
    if low <= clamp[0] && clamp[0] <= clamp[1] && clamp[1] <= high { Ok(()) } else { Err(Reason::OperatorRange) }
}

/// The multiplier made of these two parameter words.
pub(crate) fn multiplier(mantissa: i32, shift: i32) -> Result<Multiplier, Reason> {
    let shift = i8::try_from(shift).map_err(|_| Reason::OperatorRange)?;
    let multiplier = Multiplier { mantissa, shift };
    if multiplier.is_valid() { Ok(multiplier) } else { Err(Reason::OperatorRange) }
}

/// Refuses a tensor of another dtype.
pub(crate) fn check_i8(tensor: &TensorRecord) -> Result<(), Reason> {
    if tensor.dtype == DType::I8 { Ok(()) } else { Err(Reason::OperatorShape) }
}

/// Refuses a tensor of more than 16 bits.
pub(crate) fn check_16_bits(tensor: &TensorRecord) -> Result<(), Reason> {
    if tensor.dtype == DType::I32 { Err(Reason::OperatorShape) } else { Ok(()) }
}

/// Refuses tensors that do not share dtype, scale and zero point.
pub(crate) fn check_same_quantization(x: &TensorRecord, y: &TensorRecord) -> Result<(), Reason> {
    let same = x.dtype == y.dtype && x.zero_point == y.zero_point && x.scale.to_bits() == y.scale.to_bits();
    if same { Ok(()) } else { Err(Reason::OperatorShape) }
}

/// The sizes of four axes: the tensor's own behind leading ones.
pub(crate) fn leading_ones(tensor: &TensorRecord) -> [usize; 4] {
    let mut dims = [1; 4];
    for (slot, &dim) in dims.iter_mut().rev().zip(tensor.shape().iter().rev()) {
        *slot = dim as usize;
    }
    dims
}

/// Length of the last axis and number of rows along it; a tensor without axes is one row of one element.
pub(crate) fn rows(tensor: &TensorRecord) -> Result<(usize, usize), Reason> {
    let len = tensor.shape().last().map_or(1, |&dim| dim as usize);
    Ok((len, elements(tensor).checked_div(len).ok_or(Reason::OperatorShape)?))
}

/// Copies `source` to the bytes of `target` from `at` on.
#[inline]
pub(crate) fn copy(target: &mut [u8], at: usize, source: &[u8]) -> Option<()> {
    let target = target.get_mut(at..at.wrapping_add(source.len()))?;
    for (slot, &byte) in target.iter_mut().zip(source) {
        *slot = byte;
    }
    Some(())
}

/// Clamps elements of 8 bits.
#[cfg(any(dsp, native))]
pub(crate) fn clamp(y: &mut [u8], clamp: [i32; 2]) {
    if clamp == [-128, 127] {
        return;
    }
    let [low, high] = clamp.map(|end| end as i8);
    for y in y {
        *y = (*y as i8).max(low).min(high) as u8;
    }
}

/// Number of elements. Parsing has made sure that it does not overflow.
pub(crate) fn elements(tensor: &TensorRecord) -> usize {
    tensor.elements().unwrap_or(0) as usize
}

/// Bytes of a tensor. Parsing has made sure that they do not overflow.
pub(crate) fn byte_len(tensor: &TensorRecord) -> usize {
    tensor.byte_len().unwrap_or(0) as usize
}

/// First and one-past-last byte of a part of a tensor in its memory.
fn range_of(tensor: &TensorRecord, part: Range<usize>) -> (usize, usize) {
    let start = tensor.offset as usize;
    (start.wrapping_add(part.start), start.wrapping_add(part.end))
}

/// First and one-past-last byte of a tensor in its memory.
fn range(tensor: &TensorRecord) -> Result<(usize, usize), Reason> {
    let len = tensor.byte_len().ok_or(Reason::Tensor)?;
    let end = tensor.offset.checked_add(len).ok_or(Reason::TensorBounds)?;
    Ok((tensor.offset as usize, end as usize))
}

/// Refuses an output that shares a byte with an input.
pub(crate) fn check_disjoint(x: &TensorRecord, y: &TensorRecord) -> Result<(), Reason> {
    let ((x_start, x_end), (y_start, y_end)) = (range(x)?, range(y)?);
    if x.is_const() || x_end <= y_start || y_end <= x_start { Ok(()) } else { Err(Reason::Overlap) }
}

/// As [`check_disjoint`], but the output may take exactly the input's place if elements correspond.
pub(crate) fn check_in_place(x: &TensorRecord, y: &TensorRecord) -> Result<(), Reason> {
    let same = x.dtype == y.dtype && range(x)? == range(y)?;
    if same { Ok(()) } else { check_disjoint(x, y) }
}

/// The bytes of a tensor, in whichever memory it lives.
pub(crate) fn bytes<'a>(plan: &Plan<'a>, arena: &'a [u8], x: &TensorRecord) -> Result<&'a [u8], Reason> {
    let (start, end) = range(x)?;
    let memory = if x.is_const() { plan.consts() } else { arena };
    memory.get(start..end).ok_or(Reason::TensorBounds)
}

/// The bytes of a tensor in the arena.
pub(crate) fn bytes_mut<'a>(arena: &'a mut [u8], y: &TensorRecord) -> Result<&'a mut [u8], Reason> {
    let (start, end) = range(y)?;
    arena.get_mut(start..end).ok_or(Reason::TensorBounds)
}

/// The bytes of an output, which hold the input's: it is copied there if it lies elsewhere.
#[cfg(neon)]
pub(crate) fn moved<'a>(
    plan: &Plan<'_>,
    arena: &'a mut [u8],
    [x, y]: [&TensorRecord; 2],
) -> Result<&'a mut [u8], Reason> {
    if x.is_const() || x.offset != y.offset {
        let (inputs, out) = split(plan, arena, y)?;
        copy(out, 0, inputs.bytes(x)?).ok_or(Reason::TensorBounds)?;
    }
    bytes_mut(arena, y)
}

/// What an operator may read while it holds what it writes: the constants, and pieces of the arena with their offsets.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    consts: &'a [u8],
    pieces: [(usize, &'a [u8]); 3],
}

/// Takes the output's bytes out of the arena; everything else stays readable.
pub(crate) fn split<'a>(
    plan: &Plan<'a>,
    arena: &'a mut [u8],
    y: &TensorRecord,
) -> Result<(Inputs<'a>, &'a mut [u8]), Reason> {
    split_part(plan, arena, y, 0..byte_len(y))
}

/// Takes the bytes `part` of the output out of the arena.
pub(crate) fn split_part<'a>(
    plan: &Plan<'a>,
    arena: &'a mut [u8],
    y: &TensorRecord,
    part: Range<usize>,
) -> Result<(Inputs<'a>, &'a mut [u8]), Reason> {
    let (start, end) = range_of(y, part);
    let [before, y, after] = cut(arena, [start, end])?;
    Ok((Inputs { consts: plan.consts(), pieces: [(0, before), (end, after), (0, &[])] }, y))
}

/// Takes the bytes `part` of the output, and those of words to work in, out of the arena.
pub(crate) fn split_work<'a>(
    plan: &Plan<'a>,
    arena: &'a mut [u8],
    [y, work]: [&TensorRecord; 2],
    part: Range<usize>,
) -> Result<(Inputs<'a>, &'a mut [u8], &'a mut [u32]), Reason> {
    let (y, work) = (range_of(y, part), range(work)?);
    let (first, second) = if y <= work { (y, work) } else { (work, y) };
    let [arena, later, after] = cut(arena, [second.0, second.1])?;
    let [before, earlier, between] = cut(arena, [first.0, first.1])?;
    let pieces = [(0, &*before), (first.1, &*between), (second.1, &*after)];
    let (y, work) = if y <= work { (earlier, later) } else { (later, earlier) };
    let work = bytemuck::try_cast_slice_mut(work).map_err(|_| Reason::Alignment)?;
    Ok((Inputs { consts: plan.consts(), pieces }, y, work))
}

/// Cuts bytes in three.
fn cut(bytes: &mut [u8], [start, end]: [usize; 2]) -> Result<[&mut [u8]; 3], Reason> {
    let (before, rest) = bytes.split_at_mut_checked(start).ok_or(Reason::TensorBounds)?;
    let len = end.checked_sub(start).ok_or(Reason::TensorBounds)?;
    let (middle, after) = rest.split_at_mut_checked(len).ok_or(Reason::TensorBounds)?;
    Ok([before, middle, after])
}

/// Refuses memory to work in that has other than `words` words of i32 or shares a byte with a tensor.
pub(crate) fn check_work(work: &TensorRecord, words: usize, others: [&TensorRecord; 2]) -> Result<(), Reason> {
    if work.dtype != DType::I32 || work.is_const() || elements(work) != words {
        return Err(Reason::OperatorShape);
    }
    others.into_iter().try_for_each(|other| check_disjoint(other, work))
}

impl<'a> Inputs<'a> {
    /// The bytes of an input.
    pub(crate) fn bytes(&self, x: &TensorRecord) -> Result<&'a [u8], Reason> {
        self.part(x, 0..byte_len(x))
    }

    /// Bytes `part` of an input.
    pub(crate) fn part(&self, x: &TensorRecord, part: Range<usize>) -> Result<&'a [u8], Reason> {
        let (start, end) = range_of(x, part);
        if x.is_const() {
            return self.consts.get(start..end).ok_or(Reason::TensorBounds);
        }
        let inside = |&(at, piece): &(usize, &'a [u8])| piece.get(start.checked_sub(at)?..end.checked_sub(at)?);
        self.pieces.iter().find_map(inside).ok_or(Reason::Overlap)
    }

    /// The elements of an i8 input.
    pub(crate) fn i8s(&self, x: &TensorRecord) -> Result<&'a [i8], Reason> {
        as_i8(self.bytes(x)?)
    }
}

/// Bytes as i8.
pub(crate) fn as_i8(bytes: &[u8]) -> Result<&[i8], Reason> {
    bytemuck::try_cast_slice(bytes).map_err(|_| Reason::Alignment)
}

/// A constant of `len` numbers.
pub(crate) fn constants<'a, T: bytemuck::AnyBitPattern>(
    plan: &Plan<'a>,
    constant: ConstRef,
    len: usize,
) -> Result<&'a [T], Reason> {
    let bytes = plan.constant(constant).ok_or(Reason::OperatorConstant)?;
    let numbers = bytemuck::try_cast_slice::<u8, T>(bytes).map_err(|_| Reason::OperatorConstant)?;
    if numbers.len() == len { Ok(numbers) } else { Err(Reason::OperatorConstant) }
}

/// Reads `block.len()` elements of a tensor from element `start` on.
#[inline]
pub(crate) fn load(bytes: &[u8], dtype: DType, start: usize, block: &mut [i32]) {
    match dtype {
        DType::I8 => {
            for (slot, &byte) in block.iter_mut().zip(bytes.get(start..).unwrap_or_default()) {
                *slot = i32::from(byte as i8);
            }
        }
        DType::I16 => {
            let (pairs, _) = bytes.as_chunks::<2>();
            for (slot, &pair) in block.iter_mut().zip(pairs.get(start..).unwrap_or_default()) {
                *slot = i32::from(i16::from_le_bytes(pair));
            }
        }
        DType::I32 => {
            let (words, _) = bytes.as_chunks::<4>();
            for (slot, &word) in block.iter_mut().zip(words.get(start..).unwrap_or_default()) {
                *slot = i32::from_le_bytes(word);
            }
        }
    }
}

/// Calls `f` for every block of the `len` elements from element `start` on.
#[inline(always)]
pub(crate) fn blocks(x: &[u8], dtype: DType, start: usize, len: usize, mut f: impl FnMut(&[i32])) -> Option<()> {
    let mut block = [0i32; BLOCK];
    for at in (0..len).step_by(BLOCK) {
        let block = block.get_mut(..BLOCK.min(len.wrapping_sub(at)))?;
        load(x, dtype, start.wrapping_add(at), block);
        f(block);
    }
    Some(())
}

/// Writes a block of values within the dtype's range from element `start` on.
#[inline]
pub(crate) fn store(bytes: &mut [u8], dtype: DType, start: usize, block: &[i32]) {
    match dtype {
        DType::I8 => {
            for (byte, &value) in bytes.get_mut(start..).unwrap_or_default().iter_mut().zip(block) {
                *byte = value as u8;
            }
        }
        DType::I16 => {
            let (pairs, _) = bytes.as_chunks_mut::<2>();
            for (pair, &value) in pairs.get_mut(start..).unwrap_or_default().iter_mut().zip(block) {
                *pair = (value as i16).to_le_bytes();
            }
        }
        DType::I32 => {
            let (words, _) = bytes.as_chunks_mut::<4>();
            for (word, &value) in words.get_mut(start..).unwrap_or_default().iter_mut().zip(block) {
                *word = value.to_le_bytes();
            }
        }
    }
}
