//! Tensors out of ONNX Runtime.

use ort::value::{DynValue, Outlet, TensorElementType, ValueType};

/// What a model says of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name.
    pub name: String,
    /// The element type, such as `Float32`; for what is no tensor, its type.
    pub element: String,
    /// The shape; `None` for dimensions that are given with the input.
    pub shape: Vec<Option<usize>>,
}

impl TensorInfo {
    pub(crate) fn new(outlet: &Outlet) -> Self {
        let (element, shape) = match outlet.dtype() {
            ValueType::Tensor { ty, shape, .. } => {
                (format!("{ty:?}"), shape.iter().map(|&dim| usize::try_from(dim).ok()).collect())
            }
            other => (other.to_string(), Vec::new()),
        };
        Self { name: outlet.name().to_owned(), element, shape }
    }
}

/// A tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub values: Values,
}

/// Elements by type.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Values {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// Signed 8-bit integers.
    I8(Vec<i8>),
    /// Unsigned 8-bit integers.
    U8(Vec<u8>),
    /// Signed 16-bit integers.
    I16(Vec<i16>),
    /// Unsigned 16-bit integers.
    U16(Vec<u16>),
    /// Signed 32-bit integers.
    I32(Vec<i32>),
    /// Signed 64-bit integers.
    I64(Vec<i64>),
    /// Truth values.
    Bool(Vec<bool>),
}

impl Values {
    /// The elements as f32: exact for types of up to 16 bits, else rounded to the nearest.
    pub fn into_f32(self) -> Vec<f32> {
        match self {
            Self::F32(v) => v,
            Self::F64(v) => v.into_iter().map(|v| v as f32).collect(),
            Self::I8(v) => v.into_iter().map(f32::from).collect(),
            Self::U8(v) => v.into_iter().map(f32::from).collect(),
            Self::I16(v) => v.into_iter().map(f32::from).collect(),
            Self::U16(v) => v.into_iter().map(f32::from).collect(),
            Self::I32(v) => v.into_iter().map(|v| v as f32).collect(),
            Self::I64(v) => v.into_iter().map(|v| v as f32).collect(),
            Self::Bool(v) => v.into_iter().map(f32::from).collect(),
        }
    }
}

/// The tensor in a value, or what it is instead.
pub(crate) fn extract(value: &DynValue) -> Result<Tensor, String> {
    let ValueType::Tensor { ty, .. } = value.dtype() else { return Err(value.dtype().to_string()) };
    macro_rules! elements {
        ($variant:ident) => {{
            let (shape, values) = value.try_extract_tensor().map_err(|error| error.to_string())?;
            (shape.clone(), Values::$variant(values.to_vec()))
        }};
    }
    let (shape, values) = match ty {
        TensorElementType::Float32 => elements!(F32),
        TensorElementType::Float64 => elements!(F64),
        TensorElementType::Int8 => elements!(I8),
        TensorElementType::Uint8 => elements!(U8),
        TensorElementType::Int16 => elements!(I16),
        TensorElementType::Uint16 => elements!(U16),
        TensorElementType::Int32 => elements!(I32),
        TensorElementType::Int64 => elements!(I64),
        TensorElementType::Bool => elements!(Bool),
        other => return Err(format!("a tensor of {other:?}")),
    };
    Ok(Tensor { shape: shape.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect(), values })
}
