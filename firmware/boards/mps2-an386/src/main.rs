//! Classifies the compiled-in images.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use cortex_m_rt::entry;
use equant_firmware::assets;
use mps2_an386::Mps2An386;

#[entry]
fn main() -> ! {
    static mut ARENA: assets::Arena = assets::ARENA;
    match cortex_m::Peripherals::take() {
        Some(core) => {
            equant_firmware::main::<assets::Ops, _>(Mps2An386::new(core), assets::PLAN, assets::IMAGES, &mut ARENA.0)
        }
        None => semihosting::process::abort(), // taken once, here
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    mps2_an386::panicked(info)
}
