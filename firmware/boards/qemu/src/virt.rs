//! QEMU's own RISC-V machine.

use equant_firmware::{Counter, Unit};
use riscv::register::minstret;

/// Counts retired instructions, exactly under `-icount shift=0`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Instructions;

impl Counter for Instructions {
    const UNIT: Unit = Unit::Instructions;

    fn ticks(&self) -> u32 {
        minstret::read() as u32
    }

    fn count(ticks: u32) -> u64 {
        ticks.into()
    }
}
