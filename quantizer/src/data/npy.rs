//! One NumPy array: its header, and its elements as f32, read in row-major pieces.

use std::io::Read;

use half::f16;
use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};

use super::error::ErrorKind;

/// Element types that samples may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Float {
    F16,
    F32,
    F64,
}

impl Float {
    const fn size(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// The header of an array: enough to check it, not to read it.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) shape: Vec<u64>,
    /// Length of the header itself.
    len: u64,
    dtype: DType,
    order: Order,
}

impl Header {
    /// Reads the header; `reader` then stands at the first element. `available` is the length of the whole array
    /// file, header included.
    pub(super) fn read(array: &str, reader: &mut dyn Read, available: u64) -> Result<Self, ErrorKind> {
        let mut counted = Counted { inner: reader, count: 0 };
        let header = NpyHeader::from_reader(&mut counted)
            .map_err(|error| ErrorKind::Header { array: array.to_owned(), reason: error.to_string() })?;
        let header =
            Self { shape: header.shape().to_vec(), len: counted.count, dtype: header.dtype(), order: header.order() };
        if header.dtype.uses_pickled_array() {
            return Err(ErrorKind::Objects { array: array.to_owned() });
        }
        let elements = header.shape.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim));
        let bytes = header.dtype.num_bytes().and_then(|size| elements?.checked_mul(size as u64));
        let found = available.saturating_sub(header.len);
        match bytes {
            Some(bytes) if bytes == found => Ok(header),
            _ => Err(ErrorKind::Length { array: array.to_owned(), needed: bytes.unwrap_or(u64::MAX), found }),
        }
    }

    /// A reader of the elements as f32.
    pub(super) fn floats(&self, array: &str) -> Result<Floats, ErrorKind> {
        let (kind, size, big_endian) = self.plain();
        let float = match (kind, size) {
            (Some(TypeChar::Float), 2) => Float::F16,
            (Some(TypeChar::Float), 4) => Float::F32,
            (Some(TypeChar::Float), 8) => Float::F64,
            _ => return Err(ErrorKind::SampleType { array: array.to_owned(), dtype: self.dtype.descr() }),
        };
        // With one axis or none both orders are the same.
        if self.order == Order::Fortran && self.shape.len() > 1 {
            return Err(ErrorKind::FortranOrder { array: array.to_owned() });
        }
        Ok(Floats { array: array.to_owned(), float, big_endian, bytes: Vec::new() })
    }

    /// All elements as labels, one per sample.
    pub(super) fn labels(&self, array: &str, reader: &mut dyn Read, samples: usize) -> Result<Vec<i64>, ErrorKind> {
        let (kind, size, big_endian) = self.plain();
        let signed = match kind {
            Some(TypeChar::Int) => true,
            Some(TypeChar::Uint | TypeChar::Bool) => false,
            _ => return Err(ErrorKind::LabelType { array: array.to_owned(), dtype: self.dtype.descr() }),
        };
        if self.shape != [samples as u64] {
            return Err(ErrorKind::LabelCount { array: array.to_owned(), found: self.shape.clone(), samples });
        }
        let mut bytes = Vec::new();
        // The shape was checked against the samples and the length of the file, so this is bounded by the file.
        reader.read_to_end(&mut bytes).map_err(|error| ErrorKind::Damaged(format!("array `{array}`: {error}")))?;
        let label = |(index, chunk): (usize, &[u8])| {
            let mut wide = [0u8; 8];
            let negative = signed && chunk.get(if big_endian { 0 } else { size - 1 }).is_some_and(|&b| b >= 128);
            if negative {
                wide = [255u8; 8];
            }
            for (slot, byte) in wide.iter_mut().zip(0..size) {
                *slot = chunk[if big_endian { size - 1 - byte } else { byte }];
            }
            let value = u64::from_le_bytes(wide);
            if !signed && value > i64::MAX as u64 {
                return Err(ErrorKind::LabelRange { array: array.to_owned(), index, value });
            }
            Ok(value as i64)
        };
        let labels: Vec<i64> = bytes.chunks_exact(size).enumerate().map(label).collect::<Result<_, _>>()?;
        if labels.len() != samples {
            return Err(ErrorKind::Damaged(format!("array `{array}` ends after {} of {samples} labels", labels.len())));
        }
        Ok(labels)
    }

    /// Kind and size of the elements, and whether they are big-endian; no kind for structured types.
    fn plain(&self) -> (Option<TypeChar>, usize, bool) {
        match &self.dtype {
            DType::Plain(kind) => {
                let size = kind.num_bytes().unwrap_or(0);
                let known = matches!(size, 1 | 2 | 4 | 8);
                (known.then(|| kind.type_char()), size, kind.endianness() == Endianness::Big)
            }
            _ => (None, 0, false),
        }
    }
}

/// Turns the bytes of samples into finite f32 values.
#[derive(Debug)]
pub(super) struct Floats {
    array: String,
    float: Float,
    big_endian: bool,
    bytes: Vec<u8>,
}

impl Floats {
    /// Appends `count` samples of `elements` elements to `values`. `first` is the index of the first, for errors.
    ///
    /// float16 is exact in f32; float64 is rounded to the nearest f32.
    pub(super) fn read(
        &mut self,
        reader: &mut dyn Read,
        first: usize,
        count: usize,
        elements: usize,
        values: &mut Vec<f32>,
    ) -> Result<(), ErrorKind> {
        self.bytes.resize(count * elements * self.float.size(), 0);
        reader
            .read_exact(&mut self.bytes)
            .map_err(|error| ErrorKind::Damaged(format!("array `{}` from sample {first} on: {error}", self.array)))?;
        let start = values.len();
        let big = self.big_endian;
        match self.float {
            Float::F16 => values.extend(numbers(&self.bytes, big, f16::from_le_bytes).map(f16::to_f32)),
            Float::F32 => values.extend(numbers(&self.bytes, big, f32::from_le_bytes)),
            Float::F64 => values.extend(numbers(&self.bytes, big, f64::from_le_bytes).map(|v| v as f32)),
        }
        match values[start..].iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(at) => Err(ErrorKind::NotFinite {
                array: self.array.clone(),
                sample: first + at / elements.max(1),
                value: match self.float {
                    Float::F64 => numbers(&self.bytes, big, f64::from_le_bytes).nth(at).unwrap_or(f64::NAN),
                    _ => f64::from(values[start + at]),
                },
            }),
        }
    }
}

/// The numbers in `bytes`, each of `N` bytes.
fn numbers<const N: usize, T>(bytes: &[u8], big_endian: bool, read: fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    bytes.as_chunks::<N>().0.iter().map(move |&(mut chunk)| {
        if big_endian {
            chunk.reverse();
        }
        read(chunk)
    })
}

/// Counts what is read.
struct Counted<'r> {
    inner: &'r mut dyn Read,
    count: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}
