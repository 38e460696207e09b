//! The images file: inputs with their labels, read in place.
//!
//! ```text
//! 0   4 bytes   magic "EQIM"
//! 4   u16       version, 1
//! 6   u16       element type: 0 = i8, 1 = i16 (quantized, as in the plan), 2 = f32
//! 8   u32       number of inputs
//! 12  u32       elements per input
//! 16  u16 each  labels, 65535 where there is none; zeros up to a multiple of 16
//! ..            inputs, one after the other
//! ```
//!
//! All little-endian. Elements lie in the order of the plan's input tensor (`[N, H, W, C]` for spatial ones).

use core::fmt;

use equant_runtime::plan::align16;

/// First bytes of the file.
pub const MAGIC: [u8; 4] = *b"EQIM";
/// Version written and read here.
pub const VERSION: u16 = 1;
/// Bytes before the labels.
pub const HEADER_LEN: usize = 16;
/// Stands for "no label".
pub const NO_LABEL: u16 = u16::MAX;

/// Type of an input's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Element {
    /// Quantized to 8 bits.
    I8 = 0,
    /// Quantized to 16 bits.
    I16 = 1,
    /// Real values, quantized on the device.
    F32 = 2,
}

impl Element {
    const fn from_u16(number: u16) -> Option<Self> {
        match number {
            0 => Some(Self::I8),
            1 => Some(Self::I16),
            2 => Some(Self::F32),
            _ => None,
        }
    }

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::I8 => 1,
            Self::I16 => 2,
            Self::F32 => 4,
        }
    }
}

/// The first 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Element type.
    pub element: Element,
    /// Number of inputs.
    pub count: u32,
    /// Elements per input.
    pub elements: u32,
}

impl Header {
    /// The header's bytes; labels and inputs follow, see the [module](self).
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&(self.element as u16).to_le_bytes());
        out[8..12].copy_from_slice(&self.count.to_le_bytes());
        out[12..16].copy_from_slice(&self.elements.to_le_bytes());
        out
    }

    /// Where the inputs begin.
    pub const fn inputs_offset(&self) -> Option<usize> {
        match (self.count as usize).checked_mul(2) {
            Some(labels) if labels < isize::MAX as usize - 64 => Some(align16(HEADER_LEN + labels)),
            _ => None,
        }
    }
}

/// Why an images file is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Not an images file of this version.
    Format,
    /// Its length is not what its header says.
    Length,
    /// Elements per input, or their type, are not those of the plan's input.
    Plan,
    /// Its address is not a multiple of 4, or elements cannot be read in place.
    Alignment,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Format => "not an images file of this version",
            Self::Length => "the length is not what the header says",
            Self::Plan => "elements are not those of the plan's input; make the file for this plan",
            Self::Alignment => "the file is not aligned",
        })
    }
}

impl core::error::Error for Error {}

/// One input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Input<'a> {
    /// Quantized elements as bytes: i8, or little-endian i16.
    Quantized(&'a [u8]),
    /// Real values.
    Real(&'a [f32]),
}

/// An images file.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    header: Header,
    labels: &'a [u8],
    inputs: &'a [u8],
}

impl<'a> Images<'a> {
    /// Checks the file.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] or [`Error::Length`].
    pub fn parse(file: &'a [u8]) -> Result<Self, Error> {
        let b = file.first_chunk::<HEADER_LEN>().ok_or(Error::Format)?;
        let element = Element::from_u16(u16::from_le_bytes([b[6], b[7]])).ok_or(Error::Format)?;
        if b[0..4] != MAGIC || u16::from_le_bytes([b[4], b[5]]) != VERSION {
            return Err(Error::Format);
        }
        let count = u32::from_le_bytes([b[8], b[9], b[10], b[11]]);
        let elements = u32::from_le_bytes([b[12], b[13], b[14], b[15]]);
        let header = Header { element, count, elements };
        let offset = header.inputs_offset().ok_or(Error::Length)?;
        let len = (elements as usize)
            .checked_mul(element.size())
            .and_then(|len| len.checked_mul(count as usize))
            .ok_or(Error::Length)?;
        let (head, inputs) = file.split_at_checked(offset).ok_or(Error::Length)?;
        let labels = head.get(HEADER_LEN..).ok_or(Error::Length)?;
        if elements == 0 || inputs.len() != len {
            return Err(Error::Length);
        }
        Ok(Self { header, labels, inputs })
    }

    /// The header.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The inputs with their labels, in order.
    ///
    /// # Errors
    ///
    /// Each item: [`Error::Alignment`] when real values cannot be read in place.
    pub fn iter(&self) -> impl Iterator<Item = Result<(Input<'a>, Option<u16>), Error>> + use<'a> {
        let element = self.header.element;
        let labels = self.labels.as_chunks::<2>().0.iter().map(|&pair| u16::from_le_bytes(pair));
        let len = (self.header.elements as usize).wrapping_mul(element.size()).max(1);
        self.inputs.chunks_exact(len).zip(labels).map(move |(bytes, label)| {
            let input = match element {
                Element::I8 | Element::I16 => Input::Quantized(bytes),
                Element::F32 => Input::Real(bytemuck::try_cast_slice(bytes).map_err(|_| Error::Alignment)?),
            };
            Ok((input, (label != NO_LABEL).then_some(label)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use equant_runtime::plan::Aligned;

    fn file() -> Aligned<[u8; 56]> {
        let header = Header { element: Element::F32, count: 2, elements: 3 };
        assert_eq!(header.inputs_offset(), Some(32));
        let mut file = Aligned([0; 56]);
        file.0[..16].copy_from_slice(&header.to_bytes());
        file.0[16..20].copy_from_slice(&[7, 0, 255, 255]);
        for (slot, value) in file.0[32..].chunks_exact_mut(4).zip([1.0f32, -2.0, 3.5, 0.0, 0.25, 9.0]) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        file
    }

    #[test]
    fn inputs_and_labels_come_back() {
        let file = file();
        let images: Vec<_> = Images::parse(&file.0).unwrap().iter().map(Result::unwrap).collect();
        assert_eq!(images, [(Input::Real(&[1.0, -2.0, 3.5]), Some(7)), (Input::Real(&[0.0, 0.25, 9.0]), None)]);
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = file().0;
        for len in 0..good.len() {
            assert!(Images::parse(&good[..len]).is_err(), "{len} bytes");
        }
        for (at, value, expected) in [
            (0, b'X', Error::Format),
            (4, 2, Error::Format),
            (6, 3, Error::Format),
            (8, 3, Error::Length),
            (15, 255, Error::Length),
        ] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(Images::parse(&bad).err(), Some(expected), "byte {at}");
        }
    }
}
