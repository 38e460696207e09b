//! What a plan's output is on this host.

use equant_firmware::hash::fnv1a_32;
use equant_firmware::trial::{self, INPUT_SEED, Noise};
use equant_runtime::kernels::reference;
use equant_runtime::plan::{AlignedBytes, Plan};
use equant_runtime::session::NoProfile;
use equant_runtime::{Error, Session};

/// Digests of the output of a plan of one operator.
pub(crate) struct Digests {
    /// By the reference kernels.
    pub(crate) reference: u32,
    /// By the kernels that the runtime uses here.
    pub(crate) normal: u32,
}

/// Runs a plan with both sets of kernels.
pub(crate) fn digests(image: &[u8]) -> Result<Digests, Error> {
    let plan = Plan::parse(image)?;
    let mut arena = AlignedBytes::zeroed(plan.arena_len());
    let normal = trial::run(&mut Session::new(plan, &mut arena)?, &mut NoProfile)?;

    // The reference reads the inputs that a session would fill.
    let mut noise = Noise::new(INPUT_SEED);
    let mut session = Session::new(plan, &mut arena)?;
    for i in 0..plan.input_count() {
        noise.fill(session.input_mut(i)?);
    }
    let values = plan.ops().last().map(|op| reference::run(&op, &plan, &arena)).unwrap_or_default();
    let size = plan.model_output(0).map_or(1, |y| y.dtype.size());
    let bytes: Vec<u8> = values.into_iter().flat_map(|value| value.to_le_bytes().into_iter().take(size)).collect();
    Ok(Digests { reference: fnv1a_32(&bytes), normal })
}
