//! Elements of tensors as slices.

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Storage, Tensor, bail};

/// The elements of a contiguous operand of a custom operator.
pub(super) fn operand<'s>(storage: &'s CpuStorage, layout: &Layout) -> Result<&'s [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("an operand is not contiguous"),
    }
}

/// The result of a custom operator.
pub(super) fn result(values: Vec<f32>, shape: impl Into<Shape>) -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(values), shape.into()))
}

/// Runs `f` on the elements of tensors, in row-major order. Tensors that are not contiguous are copied first.
pub(super) fn with<const N: usize, R>(tensors: [&Tensor; N], f: impl FnOnce([&[f32]; N]) -> Result<R>) -> Result<R> {
    let mut owned = Vec::with_capacity(N);
    for tensor in tensors {
        owned.push(tensor.contiguous()?);
    }
    let guards: Vec<_> = owned.iter().map(Tensor::storage_and_layout).collect();
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let Storage::Cpu(storage) = &**storage else { bail!("a tensor is not in main memory") };
        *slice = operand(storage, layout)?;
    }
    f(slices)
}

/// A tensor of these elements.
pub(super) fn tensor(values: Vec<f32>, shape: &Shape) -> Result<Tensor> {
    Tensor::from_vec(values, shape.clone(), &Device::Cpu)
}

/// The elements of a tensor in row-major order.
pub(crate) fn to_vec(tensor: &Tensor) -> Result<Vec<f32>> {
    with([tensor], |[values]| Ok(values.to_vec()))
}
