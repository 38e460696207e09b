//! The memory map: where flash and memory go.

use std::fmt;

use equant_runtime::op::OpKind;
use equant_runtime::plan::{HEADER_LEN, Header, TENSOR_LEN};

use super::memory::Memory;
use super::program::{Program, Section};

/// Bytes of flash, by section. They sum to the image, alignment included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Flash {
    /// Header, tensor records, operator records, alignment between sections.
    pub records: usize,
    /// Packed weights and constant tensors.
    pub weights: usize,
    /// Biases.
    pub biases: usize,
    /// Requantization multipliers and scales of normalizations.
    pub multipliers: usize,
    /// Tables of functions.
    pub tables: usize,
    /// Names of operators.
    pub names: usize,
    /// The whole image.
    pub image: usize,
}

/// One operator of the plan.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct OperatorRow {
    /// Position in execution order.
    pub index: usize,
    /// Kind.
    pub kind: &'static str,
    /// Name of the node it comes from.
    pub name: String,
    /// Shape of its output in memory, `[N, H, W, C]` for images.
    pub shape: Vec<usize>,
    /// Multiply-accumulates, or elements visited by operators without any.
    pub macs: u64,
    /// Bytes of arena alive while it runs.
    pub live: usize,
}

/// Where flash and memory go.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct MemoryMap {
    /// Bytes of the arena for activations.
    pub arena: usize,
    /// The least any placement of these activations can take: the widest cut.
    pub arena_lower_bound: usize,
    /// Why the arena is larger than the bound, when it is.
    pub arena_note: Option<String>,
    /// Index of the operator with the widest cut.
    pub peak_operator: usize,
    /// Bytes of scratch behind the arena.
    pub scratch: usize,
    /// Flash by section.
    pub flash: Flash,
    /// Bytes of the image that are not weights.
    pub overhead: usize,
    /// The operators in execution order.
    pub operators: Vec<OperatorRow>,
}

/// Whether the work of an operator of this kind ([`OpKind::name`]) is counted in multiply-accumulates. The others
/// record the elements they visit.
pub fn multiplies(kind: &str) -> bool {
    OpKind::ALL.iter().any(|known| known.multiplies() && known.name() == kind)
}

impl MemoryMap {
    pub(super) fn new(program: &Program, memory: &Memory, image: &[u8]) -> Self {
        let header = image.first_chunk::<HEADER_LEN>().map(Header::from_bytes);
        let names = header.map_or(0, |header| header.names_len as usize);
        let section = |section| program.consts.section_len(section);
        let [weights, biases, multipliers, tables] =
            [Section::Weights, Section::Biases, Section::Multipliers, Section::Tables].map(section);
        let records = image.len() - weights - biases - multipliers - tables - names;
        debug_assert!(records >= HEADER_LEN + TENSOR_LEN * header.map_or(0, |h| usize::from(h.tensors)));
        let flash = Flash { records, weights, biases, multipliers, tables, names, image: image.len() };
        let placement = &memory.placement;
        let arena_note = (placement.arena > placement.lower_bound).then(|| {
            format!(
                "{} bytes above the bound: the search found no placement without a gap",
                placement.arena - placement.lower_bound
            )
        });
        let operators = program.ops.iter().enumerate().map(|(index, op)| OperatorRow {
            index,
            kind: op.kind.name(),
            name: op.name.clone(),
            shape: program.records[op.output].dims.clone(),
            macs: op.macs,
            live: memory.live[index],
        });
        Self {
            arena: placement.arena,
            arena_lower_bound: placement.lower_bound,
            arena_note,
            peak_operator: placement.peak,
            scratch: 0,
            overhead: flash.image - flash.weights,
            flash,
            operators: operators.collect(),
        }
    }

    /// Multiply-accumulates of all operators that have weights or multiply activations.
    pub fn macs(&self) -> u64 {
        self.operators.iter().filter(|row| multiplies(row.kind)).map(|row| row.macs).sum()
    }
}

impl fmt::Display for MemoryMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = match self.arena == self.arena_lower_bound {
            true => "the least possible".to_owned(),
            false => format!("lower bound {}", self.arena_lower_bound),
        };
        writeln!(f, "arena      {:>9} bytes ({bound}; widest at operator {})", self.arena, self.peak_operator)?;
        if let Some(note) = &self.arena_note {
            writeln!(f, "           {note}")?;
        }
        writeln!(f, "scratch    {:>9} bytes", self.scratch)?;
        let Flash { records, weights, biases, multipliers, tables, names, image } = self.flash;
        writeln!(f, "flash      {image:>9} bytes")?;
        let parts = [
            ("weights", weights),
            ("biases", biases),
            ("multipliers", multipliers),
            ("tables", tables),
            ("records", records),
            ("names", names),
        ];
        for (part, bytes) in parts {
            writeln!(f, "  {part:<12}{bytes:>6} bytes")?;
        }
        writeln!(f, "overhead   {:>9} bytes (image without weights)", self.overhead)?;
        writeln!(f, "\n  # kind             output               MACs      live  name")?;
        for row in &self.operators {
            let shape: Vec<String> = row.shape.iter().map(ToString::to_string).collect();
            let OperatorRow { index, kind, name, macs, live, .. } = row;
            writeln!(f, "{index:>3} {kind:<16} {:<16}{macs:>9} {live:>9}  {name}", shape.join("x"))?;
        }
        writeln!(f, "total {} MACs", self.macs())
    }
}
