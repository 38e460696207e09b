//! Kernels in the instructions of Arm's M-profile vector extension (Helium: Cortex-M52, M55, M85): sixteen 8-bit
//! multiply-accumulates at once.
//!
//! Long functions are written whole (`naked`), since the compiler keeps some of the core's registers for itself otherwise.
//! They take one argument, a block of what they read and write, and follow the procedure call standard.
#![allow(unsafe_code)]

mod channels;
mod depthwise;
mod linear;
mod patches;

pub(super) use depthwise::Depthwise;
pub(super) use linear::{fits, run};
pub(super) use patches::{Runs, copy_runs};

/// Tells the assembler that the core has the extension: functions written whole are assembled for the least core of the
/// target.
macro_rules! extension {
    () => {
        ".cpu cortex-m55"
    };
}
use extension;

/// Bytes of a vector.
const VECTOR: usize = 16;
