//! Constant tensors: a dtype, a shape, and raw little-endian bytes as ONNX stores them.

use half::{bf16, f16};

/// Element types of ONNX tensors that the tool reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataType {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 16-bit float.
    F16,
    /// bfloat16.
    Bf16,
    /// Unsigned 8-bit.
    U8,
    /// Signed 8-bit.
    I8,
    /// Unsigned 16-bit.
    U16,
    /// Signed 16-bit.
    I16,
    /// Signed 32-bit.
    I32,
    /// Signed 64-bit.
    I64,
    /// Boolean, one byte each.
    Bool,
    /// Unsigned 4-bit, two per byte, low nibble first.
    U4,
    /// Signed 4-bit, two per byte, low nibble first.
    I4,
}

impl DataType {
    /// The number ONNX gives this type in `TensorProto.DataType`.
    pub const fn onnx_number(self) -> i32 {
        match self {
            Self::F32 => 1,
            Self::U8 => 2,
            Self::I8 => 3,
            Self::U16 => 4,
            Self::I16 => 5,
            Self::I32 => 6,
            Self::I64 => 7,
            Self::Bool => 9,
            Self::F16 => 10,
            Self::F64 => 11,
            Self::Bf16 => 16,
            Self::U4 => 21,
            Self::I4 => 22,
        }
    }

    /// The type with this ONNX number.
    pub const fn from_onnx_number(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::F32,
            2 => Self::U8,
            3 => Self::I8,
            4 => Self::U16,
            5 => Self::I16,
            6 => Self::I32,
            7 => Self::I64,
            9 => Self::Bool,
            10 => Self::F16,
            11 => Self::F64,
            16 => Self::Bf16,
            21 => Self::U4,
            22 => Self::I4,
            _ => return None,
        })
    }

    /// Bits that an element takes.
    pub const fn bits(self) -> u32 {
        match self {
            Self::U4 | Self::I4 => 4,
            other => 8 * other.byte_len(1) as u32,
        }
    }

    /// Bytes that `elements` elements take.
    pub const fn byte_len(self, elements: usize) -> usize {
        match self {
            Self::F32 | Self::I32 => elements * 4,
            Self::F64 | Self::I64 => elements * 8,
            Self::F16 | Self::Bf16 | Self::U16 | Self::I16 => elements * 2,
            Self::U8 | Self::I8 | Self::Bool => elements,
            Self::U4 | Self::I4 => elements.div_ceil(2),
        }
    }

    /// Whether this is one of the floating point types.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::Bf16)
    }

    /// Lowest and highest value of an integer type of at most 16 bits: the quantized types.
    pub const fn quantized_range(self) -> Option<(i32, i32)> {
        match self {
            Self::U8 => Some((0, 255)),
            Self::I8 => Some((-128, 127)),
            Self::U16 => Some((0, 65535)),
            Self::I16 => Some((-32768, 32767)),
            Self::U4 => Some((0, 15)),
            Self::I4 => Some((-8, 7)),
            _ => None,
        }
    }
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Element type.
    pub dtype: DataType,
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Little-endian elements, [`DataType::byte_len`] bytes.
    pub data: Vec<u8>,
}

impl Tensor {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An f32 tensor.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Self {
            dtype: DataType::F32,
            shape: shape.to_vec(),
            data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// An i64 tensor.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Self {
            dtype: DataType::I64,
            shape: shape.to_vec(),
            data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// An integer tensor of `dtype` (8, 16, 32 bits or packed 4 bits); each value must fit.
    ///
    /// # Panics
    ///
    /// If `dtype` is not an integer type of at most 32 bits: a programming error.
    pub fn from_ints(dtype: DataType, shape: &[usize], values: &[i32]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        let data = match dtype {
            DataType::I8 | DataType::U8 | DataType::Bool => values.iter().map(|&v| v as u8).collect(),
            DataType::I16 | DataType::U16 => values.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect(),
            DataType::I32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DataType::I4 | DataType::U4 => values
                .chunks(2)
                .map(|pair| (pair[0] as u8 & 15) | (pair.get(1).copied().unwrap_or(0) as u8) << 4)
                .collect(),
            other => panic!("{other:?} is not an integer type of at most 32 bits"),
        };
        Self { dtype, shape: shape.to_vec(), data }
    }

    /// The elements as f32 (exact for every type but f64, i32 and i64 beyond 24 bits).
    pub fn to_f32(&self) -> Vec<f32> {
        let n = self.len();
        let d = &self.data;
        match self.dtype {
            DataType::F32 => d.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            DataType::F64 => {
                d.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap_or([0; 8])) as f32).collect()
            }
            DataType::F16 => d.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            DataType::Bf16 => d.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            _ => self.to_i64().into_iter().take(n).map(|v| v as f32).collect(),
        }
    }

    /// The elements of an integer tensor as i64; floats are truncated.
    pub fn to_i64(&self) -> Vec<i64> {
        let n = self.len();
        let d = &self.data;
        match self.dtype {
            DataType::U8 | DataType::Bool => d.iter().map(|&b| i64::from(b)).collect(),
            DataType::I8 => d.iter().map(|&b| i64::from(b as i8)).collect(),
            DataType::U16 => d.chunks_exact(2).map(|b| i64::from(u16::from_le_bytes([b[0], b[1]]))).collect(),
            DataType::I16 => d.chunks_exact(2).map(|b| i64::from(i16::from_le_bytes([b[0], b[1]]))).collect(),
            DataType::I32 => {
                d.chunks_exact(4).map(|b| i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
            }
            DataType::I64 => d.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap_or([0; 8]))).collect(),
            DataType::U4 => d.iter().flat_map(|&b| [i64::from(b & 15), i64::from(b >> 4)]).take(n).collect(),
            DataType::I4 => {
                d.iter().flat_map(|&b| [i64::from((b << 4) as i8 >> 4), i64::from(b as i8 >> 4)]).take(n).collect()
            }
            DataType::F32 | DataType::F64 | DataType::F16 | DataType::Bf16 => {
                self.to_f32().into_iter().map(|v| v as i64).collect()
            }
        }
    }

    /// The only element of a one-element tensor as f32.
    pub fn scalar_f32(&self) -> Option<f32> {
        if self.len() == 1 { self.to_f32().first().copied() } else { None }
    }
}
