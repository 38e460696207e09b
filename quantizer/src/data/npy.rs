//! One NumPy array: its header, and its elements as f32, read in row-major pieces.

use std::io::Read;

use half::f16;
use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};

use super::Input;
use super::error::ErrorKind;

/// Element types that samples may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    F16,
    F32,
    F64,
    /// An integer of `size` bytes between two others.
    Index {
        size: usize,
        signed: bool,
        range: (i64, i64),
    },
}

impl Element {
    const fn size(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Index { size, .. } => size,
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

    /// A reader of the elements, for a graph input, as f32.
    pub(super) fn elements(&self, array: &str, input: &Input) -> Result<Elements, ErrorKind> {
        let (kind, size, big_endian) = self.plain();
        let element = match (input.indices, kind, size) {
            (Some(range), Some(TypeChar::Int), _) => Element::Index { size, signed: true, range },
            (Some(range), Some(TypeChar::Uint), _) => Element::Index { size, signed: false, range },
            (Some(_), ..) => {
                let (array, input) = (array.to_owned(), input.name.clone());
                return Err(ErrorKind::IndexType { array, dtype: self.dtype.descr(), input });
            }
            (None, Some(TypeChar::Float), 2) => Element::F16,
            (None, Some(TypeChar::Float), 4) => Element::F32,
            (None, Some(TypeChar::Float), 8) => Element::F64,
            _ => return Err(ErrorKind::SampleType { array: array.to_owned(), dtype: self.dtype.descr() }),
        };
        // With one axis or none both orders are the same.
        if self.order == Order::Fortran && self.shape.len() > 1 {
            return Err(ErrorKind::FortranOrder { array: array.to_owned() });
        }
        Ok(Elements { array: array.to_owned(), element, big_endian, bytes: Vec::new() })
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
            let value = integer(chunk, signed, big_endian);
            // Only an unsigned label of eight bytes can be too large.
            let beyond = |_| ErrorKind::LabelRange { array: array.to_owned(), index, value: value as u64 };
            i64::try_from(value).map_err(beyond)
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

/// Turns the bytes of samples into finite f32 values, or into f32 that are indices.
#[derive(Debug)]
pub(super) struct Elements {
    array: String,
    element: Element,
    big_endian: bool,
    bytes: Vec<u8>,
}

impl Elements {
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
        self.bytes.resize(count * elements * self.element.size(), 0);
        reader
            .read_exact(&mut self.bytes)
            .map_err(|error| ErrorKind::Damaged(format!("array `{}` from sample {first} on: {error}", self.array)))?;
        let start = values.len();
        let big = self.big_endian;
        match self.element {
            Element::F16 => values.extend(numbers(&self.bytes, big, f16::from_le_bytes).map(f16::to_f32)),
            Element::F32 => values.extend(numbers(&self.bytes, big, f32::from_le_bytes)),
            Element::F64 => values.extend(numbers(&self.bytes, big, f64::from_le_bytes).map(|v| v as f32)),
            Element::Index { size, signed, range: (low, high) } => {
                for (at, bytes) in self.bytes.chunks_exact(size.max(1)).enumerate() {
                    let value = integer(bytes, signed, big);
                    if !(i128::from(low)..=i128::from(high)).contains(&value) {
                        let (array, sample, value) =
                            (self.array.clone(), first + at / elements.max(1), value.to_string());
                        return Err(ErrorKind::Index { array, sample, value, low, high });
                    }
                    values.push(value as f32);
                }
                return Ok(());
            }
        }
        match values[start..].iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(at) => Err(ErrorKind::NotFinite {
                array: self.array.clone(),
                sample: first + at / elements.max(1),
                value: match self.element {
                    Element::F64 => numbers(&self.bytes, big, f64::from_le_bytes).nth(at).unwrap_or(f64::NAN),
                    _ => f64::from(values[start + at]),
                },
            }),
        }
    }
}

/// The integer that all of `bytes`, at most eight, are.
fn integer(bytes: &[u8], signed: bool, big_endian: bool) -> i128 {
    let highest = if big_endian { bytes.first() } else { bytes.last() };
    let fill = if signed && highest.is_some_and(|&byte| byte >= 128) { u8::MAX } else { 0 };
    let mut wide = [fill; 16];
    for (slot, at) in wide.iter_mut().zip(0..bytes.len()) {
        *slot = bytes[if big_endian { bytes.len() - 1 - at } else { at }];
    }
    i128::from_le_bytes(wide)
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
