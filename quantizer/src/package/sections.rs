//! The insides of files whose format is known.

use equant_runtime::op::OpKind;
use equant_runtime::operator::AllOperators;
use equant_runtime::plan::{self, AlignedBytes, DType, Plan};
use memchr::memmem;

use super::{Kind, Section};
use crate::graph::DataType;
use crate::onnx;
use crate::report::memory::{Use, constants};

/// Bytes at least that are worth a section of their own.
const LEAST: usize = 32;

/// The sections of a file, which cover it: those of a plan, of an ONNX file with its constants inside, or else one
/// section of bytes.
pub fn sections(input: &[u8]) -> Vec<Section> {
    let mut known = if input.starts_with(&plan::MAGIC) { in_plan(input) } else { in_onnx(input) };
    known.sort_unstable_by_key(|&(start, _)| start);
    let mut sections = Vec::new();
    let mut end = 0;
    for (start, section) in known {
        // Constants may be shared, but sections do not overlap.
        if start < end || section.len < LEAST || section.len > input.len().saturating_sub(start) {
            continue;
        }
        if start > end {
            sections.push(Section { kind: Kind::Bytes, len: start - end });
        }
        sections.push(section);
        end = start + section.len;
    }
    if end < input.len() {
        sections.push(Section { kind: Kind::Bytes, len: input.len() - end });
    }
    sections
}

/// The constants of a plan; none if it is damaged.
fn in_plan(image: &[u8]) -> Vec<(usize, Section)> {
    let aligned = AlignedBytes::from(image);
    let Ok(plan) = Plan::<AllOperators>::parse(&aligned) else { return Vec::new() };
    let base = plan.header().consts_offset as usize;
    let mut found: Vec<(usize, Section)> = Vec::new();
    let used =
        plan.ops().flat_map(|op| constants(&op).into_iter().map(move |(use_, constant)| (op.kind, use_, constant)));
    for (op, use_, constant) in used {
        let kind = match use_ {
            Use::Weights if has_four_bits(op) => Kind::Int4,
            Use::Weights => Kind::Int8,
            Use::Biases | Use::Multipliers => Kind::Words,
            Use::Tables => Kind::Bytes,
        };
        found.push((base + constant.offset as usize, Section { kind, len: constant.len as usize }));
    }
    for record in (0..plan.header().tensors).filter_map(|i| plan.tensor(i)).filter(|record| record.is_const()) {
        let kind = if record.dtype == DType::I8 { Kind::Int8 } else { Kind::Words };
        found.push((base + record.offset as usize, Section { kind, len: record.byte_len().unwrap_or(0) as usize }));
    }
    found
}

/// Whether an operator's weights have 4 bits.
const fn has_four_bits(op: OpKind) -> bool {
    matches!(op, OpKind::Conv2dI4 | OpKind::DepthwiseConv2dI4 | OpKind::FullyConnectedI4 | OpKind::ConvTranspose2dI4)
}

/// The numbers among the constants of an ONNX file; none if it is no such file.
fn in_onnx(input: &[u8]) -> Vec<(usize, Section)> {
    let Ok(graph) = onnx::from_bytes(input, None, "") else { return Vec::new() };
    let mut found = Vec::new();
    // Initializers mostly lie in the order of their names; those that do not are looked for from the start.
    let mut from = 0;
    for tensor in graph.initializers.values().filter(|tensor| tensor.data.len() >= LEAST) {
        let kind = match tensor.dtype {
            DataType::I8 | DataType::U8 => Kind::Int8,
            DataType::I4 | DataType::U4 => Kind::Int4,
            DataType::I32 | DataType::F32 | DataType::I16 | DataType::U16 | DataType::F16 => Kind::Words,
            _ => continue,
        };
        // Of initializers of the same content one may be found for another; what is not found stays among the bytes.
        let place = |start: usize| memmem::find(&input[start..], &tensor.data).map(|at| start + at);
        if let Some(start) = place(from).or_else(|| place(0)) {
            found.push((start, Section { kind, len: tensor.data.len() }));
            from = start + tensor.data.len();
        }
    }
    found
}
