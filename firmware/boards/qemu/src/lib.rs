//! The machines on which QEMU emulates the cores that kernels are measured on: each with a counter of instructions.
#![no_std]

#[cfg(target_arch = "arm")]
mod mps;
#[cfg(target_arch = "riscv32")]
mod virt;

#[cfg(target_arch = "arm")]
pub use mps::Instructions;
#[cfg(target_arch = "riscv32")]
pub use virt::Instructions;
