//! Kernels in the instructions of Arm's M-profile vector extension (Helium: Cortex-M52, M55, M85): sixteen 8-bit
//! multiply-accumulates at once.
//!
//! Long functions are written whole (`naked`), since the compiler keeps some of the core's registers for itself otherwise.
//! They take one argument, a block of what they read and write, and follow the procedure call standard.
#![allow(unsafe_code)]

mod add;
mod channels;
mod depthwise;
mod linear;
mod patches;
mod pool;

pub(super) use add::add;
pub(super) use depthwise::Depthwise;
pub(super) use linear::run;
pub(super) use patches::{copy, copy_runs};
pub(super) use pool::{Mean, Pixels};

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

/// The same number in all lanes of a vector.
#[repr(C)]
#[derive(Clone, Copy)]
struct Lanes([u32; 4]);

impl Lanes {
    /// A number of 16 bits.
    const fn halves(value: i32) -> Self {
        Self([value as u32 & 0xFFFF | (value as u32) << 16; 4])
    }

    const fn words(value: i32) -> Self {
        Self([value as u32; 4])
    }
}
