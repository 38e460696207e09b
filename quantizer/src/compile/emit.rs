//! From the finished program and its memory to the image.

use equant_runtime::plan::{
    AlignedBytes, BuildError, Builder, CONST_TENSOR, DType, LOGICAL_NCHW, Plan, RANGE_I4, RANGE_U4, Target,
    TensorRecord,
};

use super::error::Error;
use super::memory::Memory;
use super::program::{Place, Program, Storage};

/// Writes the image and has the runtime check it.
pub(super) fn image(program: &Program, memory: &Memory, strip_names: bool) -> Result<Vec<u8>, Error> {
    let image = build(program, memory, strip_names).map_err(|error| Error::TooLarge(error.to_string()))?;
    let aligned = AlignedBytes::from(image.as_slice());
    let refused = Plan::<equant_runtime::operator::AllOperators>::parse(&aligned).err();
    match refused {
        None => Ok(image),
        Some(error) => {
            let op = program.ops.get(usize::from(error.index));
            let place = op.map_or(String::new(), |op| format!(" at `{}` ({})", op.name, op.kind.name()));
            Err(Error::Refused { error, place })
        }
    }
}

fn build(program: &Program, memory: &Memory, strip_names: bool) -> Result<Vec<u8>, BuildError> {
    let mut builder = Builder::new(Target::Portable);
    builder.constant(program.consts.bytes())?;
    // Only records that an operator or the model's interface names.
    let mut indices: Vec<Option<u16>> = vec![None; program.records.len()];
    let named = program.ops.iter().flat_map(|op| op.inputs.iter().copied().chain(op.outputs()));
    for record in program.inputs.iter().copied().chain(named).chain(program.outputs.iter().copied()) {
        if indices[record].is_none() {
            indices[record] = Some(builder.tensor(tensor(program, memory, record)?)?);
        }
    }
    let index = |record: usize| indices[record].unwrap_or(u16::MAX);
    for op in &program.ops {
        let inputs: Vec<u16> = op.inputs.iter().map(|&record| index(record)).collect();
        let outputs: Vec<u16> = op.outputs().map(index).collect();
        (op.write)(&mut builder, &inputs, &outputs, (!strip_names).then_some(op.name.as_str()))?;
    }
    program.inputs.iter().for_each(|&record| builder.input(index(record)));
    program.outputs.iter().for_each(|&record| builder.output(index(record)));
    builder.memory(u32::try_from(memory.placement.arena).map_err(|_| BuildError::TooLarge)?, 0);
    builder.finish()
}

/// The flag of a storage that holds 4 bits in 8.
fn range_flag(storage: &Storage) -> u8 {
    match (storage.dtype, storage.levels) {
        (DType::I8, (-8, 7)) => RANGE_I4,
        (DType::I8, (0, 15)) => RANGE_U4,
        _ => 0,
    }
}

fn tensor(program: &Program, memory: &Memory, record: usize) -> Result<TensorRecord, BuildError> {
    let record = &program.records[record];
    let storage = &program.storages[record.storage];
    let mut dims = [1; 4];
    for (slot, &size) in dims.iter_mut().zip(&record.dims) {
        *slot = u32::try_from(size).map_err(|_| BuildError::TooLarge)?;
    }
    let (flag, offset) = match storage.place {
        Place::Arena => (0, u32::try_from(memory.offsets[record.storage]).map_err(|_| BuildError::TooLarge)?),
        Place::Const(offset) => (CONST_TENSOR, offset),
    };
    Ok(TensorRecord {
        dtype: storage.dtype,
        rank: record.dims.len() as u8,
        flags: flag | if record.nchw { LOGICAL_NCHW } else { 0 } | range_flag(storage),
        dims,
        scale: storage.scale,
        zero_point: storage.zero_point as i16,
        offset,
    })
}
