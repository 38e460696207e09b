//! The FPGA's system block of Arm's MPS2 and MPS3 boards, as far as this firmware uses it.
#![cfg_attr(not(test), no_std)]

/// Base of the block in the images AN385, AN386 and AN500.
pub const MPS2: usize = 0x4002_8000;
/// Base of the block in the image AN505, for secure code.
pub const AN505: usize = 0x5030_2000;
/// Base of the block in the image AN547, for secure code.
pub const AN547: usize = 0x5930_2000;

/// Nanoseconds of emulated time that an instruction takes under QEMU's `-icount shift=7`.
const INSTRUCTION_NS: u64 = 128;

/// The block.
#[derive(Debug, Clone, Copy)]
pub struct Fpgaio {
    base: usize,
    hz: u32,
}

impl Fpgaio {
    /// The block at `base`, whose counter runs at `hz`.
    ///
    /// # Safety
    ///
    /// The board has its block there.
    pub const unsafe fn new(base: usize, hz: u32) -> Self {
        Self { base, hz }
    }

    /// Sets the user LEDs, one bit each.
    pub fn set_leds(self, bits: u32) {
        let leds = self.base as *mut u32;
        // SAFETY: a mapped, aligned 32-bit register, says `new`; writing it changes the LEDs and nothing else.
        unsafe { leds.write_volatile(bits) }
    }

    /// The counter's value: 32 bits that run freely.
    pub fn counter(self) -> u32 {
        let counter = (self.base + 0x18) as *const u32;
        // SAFETY: a mapped, aligned 32-bit register, says `new`; reading it has no side effect.
        unsafe { counter.read_volatile() }
    }

    /// A difference of the counter in instructions, under QEMU's `-icount shift=7`.
    pub const fn instructions(self, ticks: u32) -> u64 {
        let ticks_of_1e9 = self.hz as u64 * INSTRUCTION_NS;
        (ticks as u64 * 1_000_000_000 + ticks_of_1e9 / 2) / ticks_of_1e9
    }
}

#[cfg(test)]
mod tests {
    use super::{AN547, Fpgaio, MPS2};

    #[test]
    fn ticks_are_instructions() {
        // SAFETY: no register is touched.
        let [mps2, an547] = unsafe { [Fpgaio::new(MPS2, 25_000_000), Fpgaio::new(AN547, 20_000_000)] };
        // 40 ns a tick: 16 of them are 5 instructions. 50 ns: 64 are 25.
        assert_eq!([0, 16, 17, 32, u32::MAX].map(|ticks| mps2.instructions(ticks)), [0, 5, 5, 10, 1_342_177_280]);
        assert_eq!([0, 64, 65, 640].map(|ticks| an547.instructions(ticks)), [0, 25, 25, 250]);
    }
}
