//! A plan with its arena: inputs in, operators in order, outputs out.

use crate::error::{Error, Reason};
use crate::kernels::{State, memory};
use crate::op::OpKind;
use crate::operator::{AllOperators, OperatorSet};
use crate::plan::{OpView, Plan, TensorRecord};
use crate::quant;

/// Told about every operator before and after it runs; [`NoProfile`] costs nothing.
pub trait Profile {
    /// `op` is about to run.
    fn before(&mut self, op: &OpView<'_>) {
        let _ = op;
    }
    /// `op` has run; `arena` holds its output, for dumps.
    fn after(&mut self, op: &OpView<'_>, arena: &[u8]) {
        let _ = (op, arena);
    }
}

/// The profile that does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProfile;

impl Profile for NoProfile {}

/// Runs one plan in one arena.
#[derive(Debug)]
pub struct Session<'p, 'm, O: OperatorSet = AllOperators> {
    plan: Plan<'p, O>,
    arena: &'m mut [u8],
}

impl<'p, 'm, O: OperatorSet> Session<'p, 'm, O> {
    /// Binds a plan to an arena of at least [`Plan::arena_len`] bytes, aligned to 16.
    ///
    /// # Errors
    ///
    /// [`Reason::ArenaTooSmall`] or [`Reason::ArenaAlignment`].
    pub fn new(plan: Plan<'p, O>, arena: &'m mut [u8]) -> Result<Self, Error> {
        if arena.as_ptr().align_offset(16) != 0 {
            return Err(Error::image(Reason::ArenaAlignment));
        }
        let arena = arena.get_mut(..plan.arena_len()).ok_or(Error::image(Reason::ArenaTooSmall))?;
        Ok(Self { plan, arena })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan<'p, O> {
        &self.plan
    }

    /// The raw bytes of model input `i`: little-endian elements of its dtype, in the tensor record's layout, within its range.
    ///
    /// # Errors
    ///
    /// [`Reason::NoSuchTensor`].
    pub fn input_mut(&mut self, i: usize) -> Result<&mut [u8], Error> {
        let tensor = self.plan.model_input(i).ok_or(Error::image(Reason::NoSuchTensor))?;
        self.arena.get_mut(range(&tensor)).ok_or(Error::image(Reason::TensorBounds))
    }

    /// Quantizes `values` into model input `i` (element order of the tensor record: `[N, H, W, C]`).
    ///
    /// # Errors
    ///
    /// [`Reason::NoSuchTensor`], or [`Reason::BufferMismatch`] when the length differs.
    pub fn quantize_input(&mut self, i: usize, values: &[f32]) -> Result<(), Error> {
        let tensor = self.plan.model_input(i).ok_or(Error::image(Reason::NoSuchTensor))?;
        if tensor.elements() != u32::try_from(values.len()).ok() {
            return Err(Error::image(Reason::BufferMismatch));
        }
        let bytes = self.input_mut(i)?;
        let (zero_point, range) = (i32::from(tensor.zero_point), tensor.range());
        for (at, &x) in values.iter().enumerate() {
            memory::store(bytes, tensor.dtype, at, &[quant::quantize(x, tensor.scale, zero_point, range)]);
        }
        Ok(())
    }

    /// Runs every operator once.
    ///
    /// # Errors
    ///
    /// [`Reason::IndexOutOfRange`] when the model looks something up by integers of its inputs, and one of them is out of
    /// range. Otherwise never for a plan that [`Plan::parse`] accepted.
    pub fn run(&mut self) -> Result<(), Error> {
        self.run_profiled(&mut NoProfile)
    }

    /// Runs every operator once, telling `profile` about each.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    pub fn run_profiled<P: Profile>(&mut self, profile: &mut P) -> Result<(), Error> {
        let plan = self.plan.erase();
        for op in self.plan.ops() {
            profile.before(&op);
            O::run(&op, &plan, self.arena).map_err(|reason| Error::at(reason, op.index))?;
            profile.after(&op, self.arena);
        }
        Ok(())
    }

    /// Puts the state that a streaming plan carries from run to run back to what it is before the first one. To be called
    /// once before that, and before each new stream; plans without state are left as they are.
    ///
    /// # Errors
    ///
    /// Never for a plan that [`Plan::parse`] accepted.
    pub fn reset_state(&mut self) -> Result<(), Error> {
        let plan = self.plan.erase();
        for op in self.plan.ops().filter(|op| op.kind == OpKind::State) {
            State::reset(&op, &plan, self.arena).map_err(|reason| Error::at(reason, op.index))?;
        }
        Ok(())
    }

    /// The raw bytes of model output `i`, valid until the next run.
    ///
    /// # Errors
    ///
    /// [`Reason::NoSuchTensor`].
    pub fn output(&self, i: usize) -> Result<&[u8], Error> {
        let tensor = self.plan.model_output(i).ok_or(Error::image(Reason::NoSuchTensor))?;
        self.arena.get(range(&tensor)).ok_or(Error::image(Reason::TensorBounds))
    }

    /// Dequantizes model output `i` into `values`.
    ///
    /// # Errors
    ///
    /// [`Reason::NoSuchTensor`], or [`Reason::BufferMismatch`] when the length differs.
    pub fn dequantize_output(&self, i: usize, values: &mut [f32]) -> Result<(), Error> {
        let tensor = self.plan.model_output(i).ok_or(Error::image(Reason::NoSuchTensor))?;
        if tensor.elements() != u32::try_from(values.len()).ok() {
            return Err(Error::image(Reason::BufferMismatch));
        }
        let bytes = self.output(i)?;
        let zero_point = i32::from(tensor.zero_point);
        let mut q = 0;
        for (at, x) in values.iter_mut().enumerate() {
            memory::load(bytes, tensor.dtype, at, core::slice::from_mut(&mut q));
            *x = quant::dequantize(q, tensor.scale, zero_point);
        }
        Ok(())
    }
}

/// The bytes of an arena tensor.
fn range(tensor: &TensorRecord) -> core::ops::Range<usize> {
    let start = tensor.offset as usize;
    start..start.wrapping_add(tensor.byte_len().unwrap_or(0) as usize)
}
