//! One run of a plan on noise, the same on every target: what benchmarks and comparisons of kernels run.

use equant_runtime::operator::OperatorSet;
use equant_runtime::session::Profile;
use equant_runtime::{Error, Session};

use crate::hash::fnv1a_32;

/// Bytes that look random: the highest 8 bits of `x = x · 1664525 + 1013904223`, after each step.
#[derive(Debug, Clone)]
pub struct Noise(u32);

impl Noise {
    /// The stream that starts from `seed`.
    pub const fn new(seed: u32) -> Self {
        Self(seed)
    }

    /// The next byte.
    pub const fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 24) as u8
    }

    /// Fills `bytes`, front to back.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.byte());
    }
}

/// Seed of the noise that models get: all inputs, one after the other.
pub const INPUT_SEED: u32 = 1;

/// Fills every input with noise, runs the plan once, and returns the digest of its first output.
///
/// # Errors
///
/// [`equant_runtime::error::Reason::NoSuchTensor`] for a plan without output.
pub fn run<O: OperatorSet, P: Profile>(session: &mut Session<'_, '_, O>, profile: &mut P) -> Result<u32, Error> {
    let mut noise = Noise::new(INPUT_SEED);
    for i in 0..session.plan().input_count() {
        noise.fill(session.input_mut(i)?);
    }
    session.run_profiled(profile)?;
    Ok(fnv1a_32(session.output(0)?))
}
