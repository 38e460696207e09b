//! Errors of the runtime: `Copy`, without strings, so that an unused `Display` costs no flash.

use core::fmt;

/// Why a plan was refused or a run failed, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// What is wrong.
    pub reason: Reason,
    /// Index of the operator or tensor concerned, or [`Error::NO_INDEX`] for the image as a whole.
    pub index: u16,
}

impl Error {
    /// The value of [`Error::index`] when the error concerns the whole image.
    pub const NO_INDEX: u16 = u16::MAX;

    /// An error about the image as a whole.
    pub const fn image(reason: Reason) -> Self {
        Self { reason, index: Self::NO_INDEX }
    }

    /// An error about operator or tensor `index`.
    pub const fn at(reason: Reason, index: u16) -> Self {
        Self { reason, index }
    }
}

/// The kinds of refusal. Each says what the caller can do about it.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
// A word, so that results that may hold one are copied by words.
#[repr(u32)]
pub enum Reason {
    /// The bytes do not begin with the plan magic: not a plan.
    NotAPlan,
    /// The plan's format version is not the one this runtime reads: compile it again.
    Version,
    /// The plan is packed for a target this build does not serve: compile it for this target.
    Target,
    /// The image is shorter than its header says, or a section lies outside of it.
    Truncated,
    /// Sections of the image overlap or are out of order.
    Sections,
    /// The checksum does not match: the image was damaged in storage or transport.
    Checksum,
    /// The image, or a section in it, is not aligned as the format demands.
    Alignment,
    /// A tensor record is malformed: unknown dtype, rank above four, size overflow, bad scale.
    Tensor,
    /// A tensor lies outside the arena or outside the constants.
    TensorBounds,
    /// An operator record is malformed.
    Operator,
    /// The operator is not in the application's operator set: register it.
    OperatorNotRegistered,
    /// Shapes, dtypes or quantization of an operator's tensors do not fit its kernel.
    OperatorShape,
    /// A constant of an operator lies outside the constants or has the wrong length.
    OperatorConstant,
    /// An operator's output overlaps an input in a way its kernel cannot work with.
    Overlap,
    /// A multiplier, shift or clamp of an operator is out of range.
    OperatorRange,
    /// Arena and scratch of the plan exceed 2 GiB.
    ArenaTooLarge,
    /// The arena handed in is smaller than the plan needs.
    ArenaTooSmall,
    /// The arena handed in is not aligned to 16 bytes.
    ArenaAlignment,
    /// No input or output with this index.
    NoSuchTensor,
    /// A buffer handed in has the wrong number of elements or the wrong element type.
    BufferMismatch,
    /// An index that the model reads from an input names nothing: the input is wrong, not the plan.
    IndexOutOfRange,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NotAPlan => "not a plan image",
            Reason::Version => "plan format version is not supported; compile the model again",
            Reason::Target => "plan is packed for another target; compile it for this one",
            Reason::Truncated => "plan image is truncated",
            Reason::Sections => "plan sections overlap or are out of order",
            Reason::Checksum => "plan checksum does not match; the image is damaged",
            Reason::Alignment => "plan image or section is misaligned",
            Reason::Tensor => "malformed tensor record",
            Reason::TensorBounds => "tensor lies outside its memory",
            Reason::Operator => "malformed operator record",
            Reason::OperatorNotRegistered => "operator is not in the operator set; register it",
            Reason::OperatorShape => "tensor shapes, dtypes or quantization do not fit the operator",
            Reason::OperatorConstant => "operator constant is missing or has the wrong length",
            Reason::Overlap => "operator output overlaps an input",
            Reason::OperatorRange => "multiplier, shift or clamp out of range",
            Reason::ArenaTooLarge => "arena of the plan exceeds 2 GiB",
            Reason::ArenaTooSmall => "arena is smaller than the plan needs",
            Reason::ArenaAlignment => "arena is not aligned to 16 bytes",
            Reason::NoSuchTensor => "no such input or output",
            Reason::BufferMismatch => "buffer length or element type does not match the tensor",
            Reason::IndexOutOfRange => "an index among the inputs is out of range",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.index == Self::NO_INDEX {
            write!(f, "{}", self.reason)
        } else {
            write!(f, "{} (record {})", self.reason, self.index)
        }
    }
}

impl core::error::Error for Error {}
