//! Records of the image, each written and read by the same file.

/// First four bytes of every plan.
pub const MAGIC: [u8; 4] = *b"EQPL";
/// Format version written and read by this crate.
pub const VERSION: u16 = 3;
/// Length of the header in bytes.
pub const HEADER_LEN: usize = 64;
/// Length of a tensor record in bytes.
pub const TENSOR_LEN: usize = 16;
/// Length of a shape in bytes.
pub const SHAPE_LEN: usize = 16;
/// Tensor flag: the tensor lives in the constants, not in the arena.
pub const CONST_TENSOR: u8 = 1;
/// Tensor flag: the tensor is stored `[N, H, W, C]` while the model's own shape is `[N, C, H, W]`, or `[N, L, C]` while that is
/// `[N, C, L]`.
pub const LOGICAL_NCHW: u8 = 2;
/// Tensor flag: the i8 elements lie in `-8..=7`: an ONNX int4 tensor, an element to a byte.
pub const RANGE_I4: u8 = 4;
/// Tensor flag: the i8 elements lie in `0..=15`: an ONNX uint4 tensor, an element to a byte and not shifted.
pub const RANGE_U4: u8 = 8;
/// `n` rounded up to a multiple of 16.
pub const fn align16(n: usize) -> usize {
    n.next_multiple_of(16)
}

/// CRC-32 (IEEE 802.3, reflected) of `bytes`, by nibbles: a 64-byte table.
pub const fn checksum(bytes: &[u8]) -> u32 {
    !crc(u32::MAX, bytes)
}

/// [`checksum`] of an image: every byte but the four of the checksum itself.
///
/// Bytes beyond an image shorter than [`HEADER_LEN`] count as absent.
pub fn image_checksum(image: &[u8]) -> u32 {
    let before = image.get(..CHECKSUM_OFFSET).unwrap_or(image);
    let after = image.get(CHECKSUM_OFFSET + 4..).unwrap_or_default();
    !crc(crc(u32::MAX, before), after)
}

/// Where the header holds the checksum.
const CHECKSUM_OFFSET: usize = 12;

/// Continues a CRC over `bytes`.
const fn crc(mut crc: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0u32; 16];
        let mut i = 0;
        while i < 16 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 4 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    let mut rest = bytes;
    while let Some((byte, tail)) = rest.split_first() {
        crc ^= *byte as u32;
        crc = (crc >> 4) ^ TABLE[(crc & 15) as usize];
        crc = (crc >> 4) ^ TABLE[(crc & 15) as usize];
        rest = tail;
    }
    crc
}

/// Element type of a tensor in the arena or in the constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
// A word, so that what holds one is copied by words.
#[repr(u32)]
pub enum DType {
    /// Signed 8-bit; ONNX uint8 tensors are stored shifted by 128, zero point included.
    I8 = 0,
    /// Signed 16-bit little-endian; ONNX uint16 tensors are stored shifted by 32768.
    I16 = 1,
    /// Signed 32-bit little-endian, zero point 0: sums whose rounding must not show.
    I32 = 2,
}

impl DType {
    /// The dtype with this number.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::I8),
            1 => Some(Self::I16),
            2 => Some(Self::I32),
            _ => None,
        }
    }

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::I8 => 1,
            Self::I16 => 2,
            Self::I32 => 4,
        }
    }

    /// Lowest and highest value.
    pub const fn range(self) -> (i32, i32) {
        match self {
            Self::I8 => (-128, 127),
            Self::I16 => (-32768, 32767),
            Self::I32 => (i32::MIN, i32::MAX),
        }
    }
}

/// The first 64 bytes. All offsets count from the start of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Number of [`crate::plan::Target`].
    pub target: u16,
    /// Length of the whole image.
    pub total_len: u32,
    /// [`image_checksum`]: of every byte of the image but these four.
    pub checksum: u32,
    /// Number of inputs, then of outputs.
    pub inputs: u16,
    /// Number of outputs.
    pub outputs: u16,
    /// Number of tensor records.
    pub tensors: u16,
    /// Number of operator records.
    pub ops: u16,
    /// Offset of the tensor records.
    pub tensors_offset: u32,
    /// Offset of the operator records.
    pub ops_offset: u32,
    /// Length of the operator records.
    pub ops_len: u32,
    /// Offset of the constants.
    pub consts_offset: u32,
    /// Length of the constants.
    pub consts_len: u32,
    /// Offset of the names.
    pub names_offset: u32,
    /// Length of the names; 0 when stripped.
    pub names_len: u32,
    /// Bytes of arena for activations.
    pub arena_len: u32,
    /// Bytes of scratch, at the arena's end and not counted in `arena_len`.
    pub scratch_len: u32,
    /// Number of shapes, which follow the tensor records.
    pub shapes: u16,
}

impl Header {
    /// The header's bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut out = [0u8; HEADER_LEN];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&self.target.to_le_bytes());
        out[8..12].copy_from_slice(&self.total_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.checksum.to_le_bytes());
        out[16..18].copy_from_slice(&self.inputs.to_le_bytes());
        out[18..20].copy_from_slice(&self.outputs.to_le_bytes());
        out[20..22].copy_from_slice(&self.tensors.to_le_bytes());
        out[22..24].copy_from_slice(&self.ops.to_le_bytes());
        let words = [
            self.tensors_offset,
            self.ops_offset,
            self.ops_len,
            self.consts_offset,
            self.consts_len,
            self.names_offset,
            self.names_len,
            self.arena_len,
            self.scratch_len,
        ];
        for (slot, word) in out[24..60].chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        out[60..62].copy_from_slice(&self.shapes.to_le_bytes());
        out
    }

    /// Reads the fields; magic and version are checked by the caller.
    pub const fn from_bytes(b: &[u8; HEADER_LEN]) -> Self {
        const fn half(b: &[u8; HEADER_LEN], at: usize) -> u16 {
            u16::from_le_bytes([b[at], b[at + 1]])
        }
        const fn word(b: &[u8; HEADER_LEN], at: usize) -> u32 {
            u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
        }
        Self {
            target: half(b, 6),
            total_len: word(b, 8),
            checksum: word(b, 12),
            inputs: half(b, 16),
            outputs: half(b, 18),
            tensors: half(b, 20),
            ops: half(b, 22),
            tensors_offset: word(b, 24),
            ops_offset: word(b, 28),
            ops_len: word(b, 32),
            consts_offset: word(b, 36),
            consts_len: word(b, 40),
            names_offset: word(b, 44),
            names_len: word(b, 48),
            arena_len: word(b, 52),
            scratch_len: word(b, 56),
            shapes: half(b, 60),
        }
    }
}

/// One tensor: 16 bytes, and a shape that it may share with others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorRecord {
    /// Element type.
    pub dtype: DType,
    /// Number of axes, 0 to 4.
    pub rank: u8,
    /// [`CONST_TENSOR`], [`LOGICAL_NCHW`], and at most one of [`RANGE_I4`] and [`RANGE_U4`].
    pub flags: u8,
    /// Sizes of the axes, outermost first; axes beyond the rank are 1.
    pub dims: [u32; 4],
    /// Scale, positive and finite.
    pub scale: f32,
    /// Zero point, within [`TensorRecord::range`]; 0 for [`DType::I32`].
    pub zero_point: i16,
    /// Offset in bytes in the arena (or the constants): a multiple of 4.
    pub offset: u32,
}

impl TensorRecord {
    /// The record's bytes: dtype, rank, flags, 0, zero_point, number of the shape, scale, offset.
    pub fn to_bytes(&self, shape: u16) -> [u8; TENSOR_LEN] {
        let mut out = [0u8; TENSOR_LEN];
        out[0] = self.dtype as u8;
        out[1] = self.rank;
        out[2] = self.flags;
        out[4..6].copy_from_slice(&self.zero_point.to_le_bytes());
        out[6..8].copy_from_slice(&shape.to_le_bytes());
        out[8..12].copy_from_slice(&self.scale.to_le_bytes());
        out[12..16].copy_from_slice(&self.offset.to_le_bytes());
        out
    }

    /// Reads a record, its shape from `shapes`; `None` if there is no such shape, or dtype, rank or unused dims are
    /// not what the format allows.
    pub fn from_bytes(b: &[u8; TENSOR_LEN], shapes: &[u8]) -> Option<Self> {
        let word = |b: &[u8; 16], at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let shape = usize::from(u16::from_le_bytes([b[6], b[7]]));
        let shape = shapes.get(shape * SHAPE_LEN..)?.first_chunk::<SHAPE_LEN>()?;
        let dims = [word(shape, 0), word(shape, 4), word(shape, 8), word(shape, 12)];
        let rank = b[1];
        let unused_are_one = dims.iter().skip(usize::from(rank)).all(|&d| d == 1);
        if rank > 4 || !unused_are_one || b[3] != 0 {
            return None;
        }
        Some(Self {
            dtype: DType::from_u8(b[0])?,
            rank,
            flags: b[2],
            dims,
            scale: f32::from_le_bytes([b[8], b[9], b[10], b[11]]),
            zero_point: i16::from_le_bytes([b[4], b[5]]),
            offset: word(b, 12),
        })
    }

    /// The bytes of the shape.
    pub fn shape_bytes(&self) -> [u8; SHAPE_LEN] {
        let mut out = [0u8; SHAPE_LEN];
        for (slot, dim) in out.chunks_exact_mut(4).zip(self.dims) {
            slot.copy_from_slice(&dim.to_le_bytes());
        }
        out
    }

    /// Number of elements, or `None` on overflow of u32.
    pub fn elements(&self) -> Option<u32> {
        let [a, b, c, d] = self.dims;
        a.checked_mul(b)?.checked_mul(c)?.checked_mul(d)
    }

    /// Length in bytes, or `None` on overflow of u32.
    pub fn byte_len(&self) -> Option<u32> {
        self.elements()?.checked_mul(self.dtype.size() as u32)
    }

    /// The axes in use.
    pub fn shape(&self) -> &[u32] {
        self.dims.get(..usize::from(self.rank)).unwrap_or(&self.dims)
    }

    /// Lowest and highest value: of the dtype, or of the 4 bits that a flag names. Inputs are quantized to it, and
    /// operators clamp to it or to less.
    pub const fn range(&self) -> (i32, i32) {
        match self.flags & (RANGE_I4 | RANGE_U4) {
            0 => self.dtype.range(),
            RANGE_I4 => (-8, 7),
            _ => (0, 15),
        }
    }

    /// Whether the tensor lives in the constants.
    pub const fn is_const(&self) -> bool {
        self.flags & CONST_TENSOR != 0
    }
}

/// The fixed part of an operator record: 4 bytes, followed by `inputs + outputs` u16 tensor indices and `len` bytes of
/// words ([`crate::op::Words`]): the name's offset in the names section plus 1, or 0 without a name; multiply-accumulates of
/// one run, saturated; the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpRecord {
    /// Number of the [`crate::op::OpKind`].
    pub kind: u8,
    /// Number of inputs.
    pub inputs: u8,
    /// Number of outputs.
    pub outputs: u8,
    /// Bytes of words.
    pub len: u8,
}

impl OpRecord {
    /// Length of the fixed part.
    pub const LEN: usize = 4;

    /// The fixed part's bytes.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        [self.kind, self.inputs, self.outputs, self.len]
    }

    /// Reads the fixed part.
    pub fn from_bytes(&[kind, inputs, outputs, len]: &[u8; Self::LEN]) -> Self {
        Self { kind, inputs, outputs, len }
    }

    /// Bytes of the tensor index list.
    pub const fn indices_len(&self) -> usize {
        (self.inputs as usize + self.outputs as usize) * 2
    }

    /// Length of the whole record.
    pub const fn record_len(&self) -> usize {
        Self::LEN + self.indices_len() + self.len as usize
    }
}
