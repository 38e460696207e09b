//! Plans on the host, in the Equant runtime.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use equant_runtime::op::OpKind;
use equant_runtime::plan::{AlignedBytes, DType, LOGICAL_NCHW, OpView, Plan, TensorRecord};
use equant_runtime::session::{NoProfile, Profile};
use equant_runtime::{Session, quant};

use super::select::check;
use super::stateful::steps;
use super::{Error, Runner};
use crate::data::Batch;

/// A parsed plan and arenas for as many threads as run it.
///
/// Inputs and outputs are f32 or integers in the logical (ONNX) element order: those that the plan stores as
/// `[N, H, W, C]` while the model has `[N, C, H, W]` are permuted.
#[derive(Debug)]
pub struct PlanRunner<'p> {
    plan: Plan<'p>,
    /// Name (of the position) and elements per sample of each input.
    inputs: Vec<(String, usize)>,
    arenas: Mutex<Vec<AlignedBytes>>,
}

/// One operator's share of a run.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct OpProfile {
    /// The operator's name, or its kind and position when names were stripped.
    pub name: String,
    /// The operator's kind.
    pub kind: &'static str,
    /// Multiply-accumulates of one run.
    pub macs: u32,
    /// Least nanoseconds of all runs: the least disturbed one.
    pub nanoseconds: u64,
}

/// The quantization and shape of one output of a plan, and its values as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct RawOutput {
    /// Scale.
    pub scale: f32,
    /// Zero point (of the stored type: ONNX uint8 is stored as int8 with both shifted by 128).
    pub zero_point: i32,
    /// The integers of every sample: `[count, shape of the output]`, in the logical element order.
    pub values: Vec<i32>,
}

impl<'p> PlanRunner<'p> {
    /// Validates `image`, which must begin at a multiple of 16 (see [`AlignedBytes`]).
    ///
    /// # Errors
    ///
    /// The runtime refuses the plan.
    pub fn new(image: &'p [u8]) -> Result<Self, Error> {
        let plan: Plan<'p> = Plan::parse(image)?;
        let inputs = (0..plan.input_count())
            .map(|i| (format!("#{i}"), plan.model_input(i).map_or(0, |tensor| elements(&tensor))))
            .collect();
        Ok(Self { plan, inputs, arenas: Mutex::new(Vec::new()) })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan<'p> {
        &self.plan
    }

    /// Whether the plan carries state from run to run: samples are then sequences, `[count, steps, one step]`, and so are
    /// outputs.
    pub fn is_streaming(&self) -> bool {
        self.plan.ops().any(|op| op.kind == OpKind::State)
    }

    /// The stored integers of every output, for comparisons bit by bit.
    ///
    /// # Errors
    ///
    /// The batch does not fit the plan.
    pub fn run_raw(&self, batch: &Batch) -> Result<Vec<RawOutput>, Error> {
        let mut outputs: Vec<(TensorRecord, RawOutput)> = (0..self.plan.output_count())
            .filter_map(|i| self.plan.model_output(i))
            .map(|t| (t, RawOutput { scale: t.scale, zero_point: t.zero_point.into(), values: Vec::new() }))
            .collect();
        let mut stored = Vec::new();
        self.each_sample(batch, &mut NoProfile, |session| {
            for (i, (tensor, output)) in outputs.iter_mut().enumerate() {
                stored.clear();
                let bytes = session.output(i)?;
                match tensor.dtype {
                    DType::I8 => stored.extend(bytes.iter().map(|&byte| i32::from(byte as i8))),
                    DType::I16 => {
                        let pairs = bytes.as_chunks::<2>().0.iter();
                        stored.extend(pairs.map(|&pair| i32::from(i16::from_le_bytes(pair))));
                    }
                    DType::I32 => stored.extend(bytes.as_chunks::<4>().0.iter().map(|&word| i32::from_le_bytes(word))),
                }
                to_logical(tensor, &stored, &mut output.values);
            }
            Ok(())
        })?;
        Ok(outputs.into_iter().map(|(_, output)| output).collect())
    }

    /// Runs the batch and takes the time of every operator.
    ///
    /// # Errors
    ///
    /// The batch does not fit the plan.
    pub fn profile(&self, batch: &Batch) -> Result<Vec<OpProfile>, Error> {
        let mut clock = Clock { start: Instant::now(), ops: Vec::new() };
        for op in self.plan.ops() {
            let kind = op.kind.name();
            let name = self.plan.op_name(&op).map_or_else(|| format!("{kind}_{}", op.index), str::to_owned);
            clock.ops.push(OpProfile { name, kind, macs: op.macs, nanoseconds: u64::MAX });
        }
        self.each_sample(batch, &mut clock, |_| Ok(()))?;
        Ok(clock.ops)
    }

    /// Runs every sample of the batch, and gives the session to `read` after each.
    fn each_sample<P: Profile>(
        &self,
        batch: &Batch,
        profile: &mut P,
        mut read: impl FnMut(&Session<'_, '_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // A plan that carries state takes sequences; to any other one every sample is one step.
        let streaming = self.is_streaming();
        let steps = match streaming {
            true => steps(batch, &self.inputs.iter().map(|(_, elements)| *elements).collect::<Vec<_>>())?,
            false => check(batch, &self.inputs).map(|()| 1)?,
        };
        let pooled = self.arenas.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut arena = pooled.unwrap_or_else(|| AlignedBytes::zeroed(self.plan.arena_len()));
        let mut session = Session::new(self.plan, &mut arena)?;
        let mut stored = Vec::new();
        for sample in 0..batch.count * steps {
            if streaming && sample.is_multiple_of(steps) {
                session.reset_state()?;
            }
            for (i, ((_, elements), values)) in self.inputs.iter().zip(&batch.inputs).enumerate() {
                let values = &values[sample * elements..][..*elements];
                stored.clear();
                if let Some(tensor) = self.plan.model_input(i) {
                    to_stored(&tensor, values, &mut stored);
                }
                session.quantize_input(i, &stored)?;
            }
            session.run_profiled(profile)?;
            read(&session)?;
        }
        // An arena is worth keeping only after a run that went well.
        self.arenas.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
        Ok(())
    }
}

impl Runner for PlanRunner<'_> {
    fn run(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, Error> {
        let outputs = self.run_raw(batch)?.into_iter();
        Ok(outputs
            .map(|output| {
                let real = |&q: &i32| quant::dequantize(q, output.scale, output.zero_point);
                output.values.iter().map(real).collect()
            })
            .collect())
    }
}

/// A plan with its image. A parsed plan borrows the image, so it is parsed again for each batch; [`PlanRunner`]
/// avoids that where the caller holds the image.
struct Owned(AlignedBytes);

impl Runner for Owned {
    fn run(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, Error> {
        PlanRunner::new(&self.0)?.run(batch)
    }
}

/// See [`super::plan_runner`].
pub(super) fn load(image: &[u8]) -> Result<Box<dyn Runner>, Error> {
    let image = AlignedBytes::from(image);
    PlanRunner::new(&image)?;
    Ok(Box::new(Owned(image)))
}

/// Keeps the least time of each operator.
struct Clock {
    start: Instant,
    ops: Vec<OpProfile>,
}

impl Profile for Clock {
    fn before(&mut self, _: &OpView<'_>) {
        self.start = Instant::now();
    }

    fn after(&mut self, op: &OpView<'_>, _: &[u8]) {
        let time = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Some(entry) = self.ops.get_mut(usize::from(op.index)) {
            entry.nanoseconds = entry.nanoseconds.min(time);
        }
    }
}

fn elements(tensor: &TensorRecord) -> usize {
    tensor.elements().map_or(0, |n| n as usize)
}

/// Channels and positions of a tensor stored with its channels last, if its model has them first.
fn channels_last(tensor: &TensorRecord) -> Option<(usize, usize)> {
    let [_, middle @ .., channels] = tensor.shape() else { return None };
    let positions = middle.iter().map(|&dim| dim as usize).product();
    (tensor.flags & LOGICAL_NCHW != 0 && !middle.is_empty()).then_some((*channels as usize, positions))
}

/// Appends elements in the stored order.
fn to_stored<T: Copy>(tensor: &TensorRecord, logical: &[T], stored: &mut Vec<T>) {
    match channels_last(tensor) {
        Some((channels, positions)) => transpose(logical, channels, positions, stored),
        None => stored.extend_from_slice(logical),
    }
}

/// Appends elements in the logical order.
fn to_logical<T: Copy>(tensor: &TensorRecord, stored: &[T], logical: &mut Vec<T>) {
    match channels_last(tensor) {
        Some((channels, positions)) => transpose(stored, positions, channels, logical),
        None => logical.extend_from_slice(stored),
    }
}

/// Appends `[n, columns, rows]` from `[n, rows, columns]`.
fn transpose<T: Copy>(from: &[T], rows: usize, columns: usize, to: &mut Vec<T>) {
    for matrix in from.chunks_exact((rows * columns).max(1)) {
        for column in 0..columns {
            to.extend(matrix.iter().skip(column).step_by(columns));
        }
    }
}
