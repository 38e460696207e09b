//! Arm's MPS2 and MPS3 boards with a Cortex-M core.

use equant_firmware::{Counter, Unit};
use fpgaio::Fpgaio;

#[cfg(machine = "mps2")]
const BLOCK: (usize, u32) = (fpgaio::MPS2, 25_000_000);
#[cfg(machine = "an505")]
const BLOCK: (usize, u32) = (fpgaio::AN505, 20_000_000);
#[cfg(machine = "an547")]
const BLOCK: (usize, u32) = (fpgaio::AN547, 20_000_000);

// SAFETY: this is where the machine has the block.
const FPGAIO: Fpgaio = unsafe { Fpgaio::new(BLOCK.0, BLOCK.1) };

/// Counts instructions: under `-icount shift=7` emulated time passes with them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Instructions;

impl Counter for Instructions {
    const UNIT: Unit = Unit::Instructions;

    fn ticks(&self) -> u32 {
        FPGAIO.counter()
    }

    fn count(ticks: u32) -> u64 {
        FPGAIO.instructions(ticks)
    }
}
