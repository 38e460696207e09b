//! Where a plan's flash and memory go, read from the image itself.

use std::collections::BTreeSet;

use equant_runtime::op::{
    ConstRef, Conv2dParams, ConvTranspose2dParams, DepthwiseConv2dParams, FullyConnectedParams, LayerNormParams,
    LutParams, OpKind, Resize2dParams, RmsNormParams, TakeParams,
};
use equant_runtime::plan::{AlignedBytes, DType, OpView, Plan, TensorRecord};
use serde::Serialize;

use super::numbers;
use crate::compile::cost::{self, Core};

/// Where a plan's flash and memory go.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryReport {
    /// The core the constants are packed for.
    pub target: &'static str,
    /// Bytes of flash: the whole image.
    pub flash: usize,
    /// Flash by use.
    pub sections: Vec<Section>,
    /// Bytes of the arena for activations.
    pub arena: usize,
    /// Bytes of scratch behind the arena.
    pub scratch: usize,
    /// The least any placement of the activations can take; known to the compiler only.
    pub arena_lower_bound: Option<usize>,
    /// The model's inputs.
    pub inputs: Vec<PlanTensor>,
    /// The model's outputs.
    pub outputs: Vec<PlanTensor>,
    /// Multiply-accumulates of one run.
    pub macs: u64,
    /// The core that instructions are estimated for.
    #[serde(serialize_with = "title")]
    pub core: Core,
    /// Estimated instructions of one run on it.
    pub instructions: u64,
    /// The operators in execution order.
    pub operators: Vec<PlanOperator>,
    /// The line of Rust that registers the operators this plan needs.
    pub operator_set: String,
}

/// Bytes of the image that serve one purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// What it holds.
    pub name: &'static str,
    /// Bytes.
    pub bytes: usize,
}

/// A tensor of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanTensor {
    /// Sizes of the axes as they lie in memory, `[N, H, W, C]` for images.
    pub shape: Vec<u32>,
    /// `i8`, `i16` or `i32`, or `i4` or `u4`: a byte for each element, within 4 bits.
    pub dtype: &'static str,
    /// Scale.
    pub scale: f32,
    /// Zero point.
    pub zero_point: i16,
}

/// An operator of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanOperator {
    /// Its name, unless names were stripped.
    pub name: Option<String>,
    /// What it does.
    pub kind: &'static str,
    /// Multiply-accumulates of one run; 0 for operators without any.
    pub macs: u64,
    /// Estimated instructions of one run.
    pub instructions: u64,
    /// Whether operators like it were measured; if not, its instructions are a guess.
    #[serde(skip)]
    pub fitted: bool,
    /// Bytes of its constants.
    pub constants: usize,
    /// Bytes of the arena that hold something needed while it runs.
    pub live: usize,
    /// Its inputs that are not constants.
    pub inputs: Vec<PlanTensor>,
    /// Its outputs.
    pub outputs: Vec<PlanTensor>,
}

impl MemoryReport {
    /// Reads an image, and estimates what it costs on a core.
    ///
    /// # Errors
    ///
    /// The runtime refuses the image.
    pub fn of(image: &[u8], core: Core) -> Result<Self, equant_runtime::Error> {
        let image = AlignedBytes::from(image);
        let plan = Plan::<equant_runtime::operator::AllOperators>::parse(&image)?;
        let header = plan.header();
        let sections = sections(&plan);
        let live = live_bytes(&plan);
        let operators: Vec<PlanOperator> = plan.ops().map(|op| operator(core, &plan, &op, &live)).collect();
        let mut kinds: Vec<OpKind> = plan.ops().map(|op| op.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let kinds: Vec<&str> = kinds.into_iter().map(OpKind::name).collect();
        Ok(Self {
            target: plan.target().name(),
            flash: header.total_len as usize,
            sections,
            arena: header.arena_len as usize,
            scratch: header.scratch_len as usize,
            arena_lower_bound: None,
            inputs: (0..plan.input_count()).filter_map(|i| plan.model_input(i)).map(|t| tensor(&t)).collect(),
            outputs: (0..plan.output_count()).filter_map(|i| plan.model_output(i)).map(|t| tensor(&t)).collect(),
            macs: operators.iter().map(|op| op.macs).sum(),
            core,
            instructions: operators.iter().map(|op| op.instructions).sum(),
            operators,
            operator_set: format!("equant_runtime::operator_set! {{ pub struct Ops {{ {} }} }}", kinds.join(", ")),
        })
    }

    /// The sum of instructions, where it comes from and how far it is off, in words.
    pub fn estimate(&self) -> String {
        let guessed = match self.operators.iter().filter(|op| !op.fitted).count() {
            0 => String::new(),
            1 => "; 1 operator is a guess".to_owned(),
            n => format!("; {n} operators are guesses"),
        };
        format!(
            "about {} instructions on {} (fitted to measured counts; median error {:.1} %{guessed})",
            numbers::count(self.instructions),
            self.core.title(),
            self.core.median_error()
        )
    }

    /// Arena and scratch together: what an application declares.
    pub fn memory(&self) -> usize {
        equant_runtime::plan::align16(self.arena) + self.scratch
    }
}

fn title<S: serde::Serializer>(core: &Core, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(core.title())
}

fn tensor(record: &TensorRecord) -> PlanTensor {
    PlanTensor {
        shape: record.shape().to_vec(),
        dtype: match (record.dtype, record.range()) {
            (DType::I32, _) => "i32",
            (DType::I16, _) => "i16",
            (DType::I8, (-8, 7)) => "i4",
            (DType::I8, (0, 15)) => "u4",
            (DType::I8, _) => "i8",
        },
        scale: record.scale,
        zero_point: record.zero_point,
    }
}

fn operator(core: Core, plan: &Plan<'_>, op: &OpView<'_>, live: &[usize]) -> PlanOperator {
    let inputs: Vec<TensorRecord> = (0..op.input_count()).filter_map(|i| plan.input(op, i).ok()).collect();
    let outputs: Vec<TensorRecord> = (0..op.output_count()).filter_map(|i| plan.output(op, i).ok()).collect();
    let constant_inputs: usize = inputs.iter().filter(|t| t.is_const()).map(byte_len).sum();
    PlanOperator {
        name: plan.op_name(op).map(str::to_owned),
        kind: op.kind.name(),
        macs: if op.kind.multiplies() { op.macs.into() } else { 0 },
        instructions: cost::instructions(core, op, plan),
        fitted: cost::is_fitted(core, op, plan),
        constants: constants(op).iter().map(|(_, c)| c.len as usize).sum::<usize>() + constant_inputs,
        live: live.get(usize::from(op.index)).copied().unwrap_or(0),
        inputs: inputs.iter().filter(|t| !t.is_const()).map(tensor).collect(),
        outputs: outputs.iter().map(tensor).collect(),
    }
}

fn byte_len(record: &TensorRecord) -> usize {
    record.byte_len().unwrap_or(0) as usize
}

/// What a constant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Weights,
    Biases,
    Multipliers,
    Tables,
}

impl Use {
    const ALL: [Self; 4] = [Self::Weights, Self::Biases, Self::Multipliers, Self::Tables];

    const fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Biases => "biases",
            Self::Multipliers => "multipliers",
            Self::Tables => "tables",
        }
    }
}

/// The constants an operator's parameters point to, with their use.
pub(crate) fn constants(op: &OpView<'_>) -> Vec<(Use, ConstRef)> {
    let products = |weights, bias, mantissas, shifts| {
        vec![(Use::Weights, weights), (Use::Biases, bias), (Use::Multipliers, mantissas), (Use::Multipliers, shifts)]
    };
    let found = match op.kind {
        OpKind::Conv2d | OpKind::Conv2dI4 => {
            op.weighted::<Conv2dParams>().map(|p| products(p.weights, p.bias, p.mantissas, p.shifts))
        }
        OpKind::DepthwiseConv2d | OpKind::DepthwiseConv2dI4 => {
            op.weighted::<DepthwiseConv2dParams>().map(|p| products(p.weights, p.bias, p.mantissas, p.shifts))
        }
        OpKind::ConvTranspose2d | OpKind::ConvTranspose2dI4 => {
            op.weighted::<ConvTranspose2dParams>().map(|p| products(p.weights, p.bias, p.mantissas, p.shifts))
        }
        OpKind::FullyConnected | OpKind::FullyConnectedI4 => {
            op.weighted::<FullyConnectedParams>().map(|p| products(p.weights, p.bias, p.mantissas, p.shifts))
        }
        OpKind::Lut => op.params::<LutParams>().map(|p| vec![(Use::Tables, p.table)]),
        OpKind::LayerNorm | OpKind::RmsNorm => {
            let params = op.params::<LayerNormParams>().or_else(|| op.params::<RmsNormParams>().map(|p| p.0));
            params.map(|p| vec![(Use::Multipliers, p.gamma), (Use::Biases, p.beta)])
        }
        // Axes that are taken as they are have no list.
        OpKind::Take => op
            .params::<TakeParams>()
            .map(|p| p.indices.into_iter().filter(|list| list.len > 0).map(|list| (Use::Tables, list)).collect()),
        OpKind::Resize2d => op
            .params::<Resize2dParams>()
            .map(|p| [p.rows, p.row_weights, p.cols, p.col_weights].map(|list| (Use::Tables, list)).to_vec()),
        _ => None,
    };
    found.unwrap_or_default()
}

/// Flash by use; a constant that several operators share counts once. They sum to the image.
fn sections(plan: &Plan<'_>) -> Vec<Section> {
    let mut seen = BTreeSet::new();
    let mut bytes = [0usize; Use::ALL.len()];
    for (use_, constant) in plan.ops().flat_map(|op| constants(&op)) {
        if seen.insert(constant.offset) {
            bytes[use_ as usize] += constant.len as usize;
        }
    }
    for record in (0..plan.header().tensors).filter_map(|i| plan.tensor(i)).filter(TensorRecord::is_const) {
        if seen.insert(record.offset) {
            bytes[Use::Weights as usize] += byte_len(&record);
        }
    }
    let names = plan.header().names_len as usize;
    let known: usize = bytes.iter().sum::<usize>() + names;
    let rest = (plan.header().total_len as usize).saturating_sub(known);
    Use::ALL
        .map(Use::name)
        .into_iter()
        .zip(bytes)
        .chain([("records", rest), ("names", names)])
        .map(|(name, bytes)| Section { name, bytes })
        .filter(|section| section.bytes > 0)
        .collect()
}

/// For each operator, the bytes of the arena that belong to a tensor alive while it runs. Tensors that share memory
/// (views, operators in place) are counted once.
fn live_bytes(plan: &Plan<'_>) -> Vec<usize> {
    let count = usize::from(plan.header().ops);
    let mut spans: Vec<Option<(usize, usize)>> = vec![None; usize::from(plan.header().tensors)];
    let mut touch = |index: Option<u16>, at: usize| {
        if let Some(span) = index.and_then(|index| spans.get_mut(usize::from(index))) {
            *span = Some(span.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
        }
    };
    for op in plan.ops() {
        let at = usize::from(op.index);
        (0..op.input_count()).for_each(|i| touch(op.input(i), at));
        (0..op.output_count()).for_each(|i| touch(op.output(i), at));
    }
    let records: Vec<TensorRecord> = (0..plan.header().tensors).filter_map(|i| plan.tensor(i)).collect();
    // Inputs are there before the first operator, outputs after the last.
    let is = |record: &TensorRecord, ends: &[TensorRecord]| ends.contains(record);
    let inputs: Vec<TensorRecord> = (0..plan.input_count()).filter_map(|i| plan.model_input(i)).collect();
    let outputs: Vec<TensorRecord> = (0..plan.output_count()).filter_map(|i| plan.model_output(i)).collect();
    let alive: Vec<(usize, usize, usize, usize)> = records
        .iter()
        .zip(&spans)
        .filter(|(record, _)| !record.is_const())
        .filter_map(|(record, span)| {
            let (first, last) = (*span)?;
            let first = if is(record, &inputs) { 0 } else { first };
            let last = if is(record, &outputs) { count.saturating_sub(1) } else { last };
            let start = record.offset as usize;
            Some((first, last, start, start + record.byte_len()? as usize))
        })
        .collect();
    (0..count)
        .map(|at| {
            let mut ranges: Vec<(usize, usize)> = alive
                .iter()
                .filter(|(first, last, ..)| (*first..=*last).contains(&at))
                .map(|&(_, _, start, end)| (start, end))
                .collect();
            ranges.sort_unstable();
            let (mut total, mut covered) = (0, 0);
            for (start, end) in ranges {
                total += end.saturating_sub(start.max(covered));
                covered = covered.max(end);
            }
            total
        })
        .collect()
}
