//! Hints that mark a region of instructions for QEMU's plugins; the core ignores them.

use core::arch::asm;

/// Begins a region.
#[inline(always)]
pub(crate) fn begin() {
    // SAFETY: hint #8 does nothing on this core. No `nomem`: memory accesses stay on their side of it.
    unsafe { asm!(".inst.n 0xbf80", options(nostack, preserves_flags)) }
}

/// Ends the region.
#[inline(always)]
pub(crate) fn end() {
    // SAFETY: hint #9 does nothing on this core. No `nomem`: memory accesses stay on their side of it.
    unsafe { asm!(".inst.n 0xbf90", options(nostack, preserves_flags)) }
}
