//! Measures the layers of plans from the host; see `equant_firmware::layers`.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

#[cfg(target_arch = "arm")]
use cortex_m_rt::entry;
#[cfg(target_arch = "riscv32")]
use riscv_rt::entry;

use equant_firmware::layers::{self, Buffers};
use equant_runtime::plan::Aligned;
use qemu_cores::Instructions;

const PLAN_LEN: usize = 1 << 19;
const ARENA_LEN: usize = 1 << 19;

static mut PLAN: Aligned<[u8; PLAN_LEN]> = Aligned([0; PLAN_LEN]);
static mut ARENA: Aligned<[u8; ARENA_LEN]> = Aligned([0; ARENA_LEN]);

#[entry]
fn main() -> ! {
    let (plan, arena) = (&raw mut PLAN, &raw mut ARENA);
    // SAFETY: `main` runs once, and nothing else refers to these statics.
    let buffers = unsafe { Buffers { plan: &mut (*plan).0, arena: &mut (*arena).0 } };
    semihosting::process::exit(layers::run(&Instructions, buffers))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    equant_firmware::panic::panicked(info)
}
