//! The registers of the FPGA's system block that this board uses.

/// Base of the block.
const BASE: usize = 0x4002_8000;
/// LEDs, one bit each.
const LED0: *mut u32 = BASE as *mut u32;
/// Counter that runs freely at 25 MHz.
const COUNTER: *const u32 = (BASE + 0x18) as *const u32;

/// Sets the user LEDs.
pub(crate) fn set_leds(bits: u32) {
    // SAFETY: LED0 is a mapped, aligned 32-bit register of this board; writing it changes the LEDs and nothing else.
    unsafe { LED0.write_volatile(bits) }
}

/// The counter's value.
pub(crate) fn counter() -> u32 {
    // SAFETY: COUNTER is a mapped, aligned 32-bit register of this board; reading it has no side effect.
    unsafe { COUNTER.read_volatile() }
}
