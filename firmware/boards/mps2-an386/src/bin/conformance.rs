//! Runs any plan on inputs from the host; see `equant_firmware::conformance`.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use cortex_m_rt::entry;
use equant_firmware::conformance::{self, Buffers};
use equant_runtime::plan::Aligned;

const PLAN_LEN: usize = 2 << 20;
const ARENA_LEN: usize = 3 << 19;

#[entry]
fn main() -> ! {
    static mut PLAN: Aligned<[u8; PLAN_LEN]> = Aligned([0; PLAN_LEN]);
    static mut ARENA: Aligned<[u8; ARENA_LEN]> = Aligned([0; ARENA_LEN]);
    semihosting::process::exit(conformance::run(Buffers { plan: &mut PLAN.0, arena: &mut ARENA.0 }))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    mps2_an386::panicked(info)
}
