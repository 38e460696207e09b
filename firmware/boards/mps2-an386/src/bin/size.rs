//! The least firmware that runs the model: what the runtime costs in flash, and proof that it cannot panic.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;

use cortex_m_rt::entry;
use equant_firmware::assets;
use equant_runtime::{Error, Plan, Session};

#[entry]
fn main() -> ! {
    static mut ARENA: assets::Arena = assets::ARENA;
    let done = infer(black_box(assets::PLAN), black_box(&mut ARENA.0));
    black_box(done.is_ok());
    loop {
        cortex_m::asm::wfi();
    }
}

fn infer(plan: &[u8], arena: &mut [u8]) -> Result<(), Error> {
    let mut session = Session::new(Plan::<assets::Ops>::parse(plan)?, arena)?;
    black_box(session.input_mut(0)?);
    session.run()?;
    black_box(session.output(0)?);
    Ok(())
}

/// Not linked as long as nothing panics, which is what this program is built to show.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    cortex_m::asm::udf()
}
