//! Models as small as they travel: an entropy-coded package for over-the-air updates.
//!
//! Quantized weights use their levels unevenly: a package stores them in about as many bits as their Shannon entropy
//! ([`crate::rate`]). What shrinks is the *download*; once unpacked, the file takes the flash and memory it always took.
//! [`pack`] takes any bytes; plans and QDQ ONNX files it knows the insides of ([`sections`]), so that each weight tensor
//! is modelled by itself. [`unpack`] gives the same bytes back, or an error.
//!
//! # Format
//!
//! ```text
//! magic      4 bytes   "EQPZ"
//! version    1 byte    1
//! checksum   4 bytes   CRC-32 of the original, little-endian
//! length     varint    bytes of the original
//! sections   varint    their number, then for each a varint: its length times 4, plus its kind
//! words      varint    length of the payload, which ends the package
//! payload              32-bit words, little-endian
//! ```
//!
//! A varint is LEB128: seven bits a byte, lowest first, the top bit set on all but the last. Sections follow each other
//! and cover the original. The payload is the output of a range coder ([`constriction`]'s, with words of 32 and a
//! state of 64 bits) that codes one bit at a time with the probabilities of an adaptive model, `package/predict.rs`.

mod coder;
mod predict;
mod sections;

use coder::{Coder, Decoder, Encoder, Estimate, LEAST_BITS};
use predict::Predictor;
pub use sections::sections;

use crate::rate::shannon_bits;

/// First bytes of every package.
pub const MAGIC: [u8; 4] = *b"EQPZ";
/// Version of the format.
pub const VERSION: u8 = 1;

/// What the bytes of a section are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Anything.
    Bytes = 0,
    /// Weights of 8 bits.
    Int8 = 1,
    /// Weights of 4 bits, two to a byte.
    Int4 = 2,
    /// Numbers of 16 or 32 bits, little-endian: biases, multipliers, scales.
    Words = 3,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Bytes, Self::Int8, Self::Int4, Self::Words];
}

/// Consecutive bytes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Section {
    /// What they are.
    pub kind: Kind,
    /// How many.
    pub len: usize,
}

/// Why a package was not made or not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes do not begin as a package does.
    #[error("is no package: it does not begin with `EQPZ`")]
    Magic,
    /// The package is of a version this program does not know.
    #[error("is a package of version {0}; this program reads version {VERSION}")]
    Version(u8),
    /// The package ends too early, or says things of itself that cannot be.
    #[error("is damaged: {0}")]
    Malformed(&'static str),
    /// The file that was packed is larger than the caller takes.
    #[error("holds a file of {len} bytes, and at most {most} are taken")]
    TooLarge {
        /// Its bytes.
        len: usize,
        /// What the caller takes.
        most: usize,
    },
    /// What comes out is not what went in.
    #[error("is damaged: its content does not have the checksum it had when it was packed")]
    Corrupt,
}

/// A package, and what became of each section.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// The package.
    pub bytes: Vec<u8>,
    /// The sections, in order; they cover the file.
    pub sections: Vec<PackedSection>,
}

/// A section in a package.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PackedSection {
    /// What it is.
    pub section: Section,
    /// Shannon entropy of its symbols (4-bit weights, or else bytes), in bits altogether.
    pub shannon_bits: f64,
    /// Bits it takes, by the model's probabilities; the coder adds at most a few words to their sum.
    pub packed_bits: f64,
}

/// Makes a package of a file. Any bytes can be packed; 2 MB take about a second.
///
/// # Errors
///
/// None that input can cause.
pub fn pack(input: &[u8]) -> Result<Packed, Error> {
    pack_as(input, &sections(input))
}

fn pack_as(input: &[u8], sections: &[Section]) -> Result<Packed, Error> {
    let mut bytes = MAGIC.to_vec();
    bytes.push(VERSION);
    bytes.extend_from_slice(&equant_runtime::plan::checksum(input).to_le_bytes());
    put_varint(&mut bytes, input.len());
    put_varint(&mut bytes, sections.len());
    for section in sections {
        put_varint(&mut bytes, section.len << 2 | section.kind as usize);
    }
    let mut coder = Both { encoder: Encoder::new(), estimate: Estimate::default() };
    let mut predictor = Predictor::new();
    let mut rest = input;
    let mut packed = Vec::with_capacity(sections.len());
    for &section in sections {
        let (content, tail) = rest.split_at(section.len.min(rest.len()));
        rest = tail;
        let before = coder.estimate.0;
        predictor.begin(section.kind);
        for &byte in content {
            predictor.byte(section.kind, byte, &mut coder)?;
        }
        let symbols: Vec<i32> = match section.kind {
            Kind::Int4 => content.iter().flat_map(|byte| [byte & 15, byte >> 4]).map(i32::from).collect(),
            _ => content.iter().copied().map(i32::from).collect(),
        };
        let shannon_bits = shannon_bits(&symbols) * symbols.len() as f64;
        packed.push(PackedSection { section, shannon_bits, packed_bits: coder.estimate.0 - before });
    }
    let words = coder.encoder.finish();
    put_varint(&mut bytes, words.len());
    bytes.extend(words.into_iter().flat_map(u32::to_le_bytes));
    Ok(Packed { bytes, sections: packed })
}

/// Encodes, and counts.
struct Both {
    encoder: Encoder,
    estimate: Estimate,
}

impl Coder for Both {
    fn code(&mut self, bit: bool, one: u32) -> Result<bool, Error> {
        self.estimate.code(bit, one)?;
        self.encoder.code(bit, one)
    }
}

/// Opens a package: gives the file that was packed, if that has at most `most` bytes.
///
/// Memory and time are bounded by that, and by the package's own length: no file is packed to less than a 3 000th.
///
/// # Errors
///
/// It is no package, of another version, damaged, or too large: nothing but the very file that was packed is ever
/// returned.
pub fn unpack(package: &[u8], most: usize) -> Result<Vec<u8>, Error> {
    let rest = package.strip_prefix(&MAGIC).ok_or(Error::Magic)?;
    let (&version, rest) = rest.split_first().ok_or(Error::Malformed("it ends within its header"))?;
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let (checksum, mut rest) = rest.split_first_chunk::<4>().ok_or(Error::Malformed("it ends within its header"))?;
    let len = take_varint(&mut rest)?;
    if len > most {
        return Err(Error::TooLarge { len, most });
    }
    let count = take_varint(&mut rest)?;
    if count > rest.len() {
        return Err(Error::Malformed("it ends within its sections"));
    }
    let mut sections = Vec::with_capacity(count);
    let mut covered = 0usize;
    for _ in 0..count {
        let number = take_varint(&mut rest)?;
        let section = Section { kind: Kind::ALL[number & 3], len: number >> 2 };
        covered = covered.checked_add(section.len).ok_or(Error::Malformed("its sections are too long"))?;
        sections.push(section);
    }
    let payload = take_varint(&mut rest)?;
    let (words, tail) = rest.as_chunks::<4>();
    if covered != len || payload != words.len() || !tail.is_empty() {
        return Err(Error::Malformed("its lengths contradict each other"));
    }
    // Every bit of the original costs something, so a short payload cannot stand for a long original.
    if len as f64 * 8.0 * LEAST_BITS > words.len() as f64 * 32.0 {
        return Err(Error::Malformed("it is too short for what it says to hold"));
    }
    let mut decoder = Decoder::new(words.iter().map(|&word| u32::from_le_bytes(word)).collect());
    let mut predictor = Predictor::new();
    let mut original = Vec::new();
    for section in sections {
        predictor.begin(section.kind);
        for _ in 0..section.len {
            original.push(predictor.byte(section.kind, 0, &mut decoder)?);
        }
    }
    let whole = decoder.is_exhausted() && equant_runtime::plan::checksum(&original) == u32::from_le_bytes(*checksum);
    if whole { Ok(original) } else { Err(Error::Corrupt) }
}

fn put_varint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(rest: &mut &[u8]) -> Result<usize, Error> {
    let mut number = 0u64;
    for shift in (0..63).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(Error::Malformed("it ends within its header"))?;
        *rest = tail;
        number |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return usize::try_from(number).map_err(|_| Error::Malformed("a length is beyond this machine's memory"));
        }
    }
    Err(Error::Malformed("a length is too long"))
}

#[cfg(test)]
mod tests;
