//! Arm MPS2 with FPGA image AN386 (Cortex-M4F), as QEMU's machine `mps2-an386` emulates it.
#![no_std]

mod fpgaio;
mod marker;

use core::convert::Infallible;
use core::panic::PanicInfo;

use embedded_hal::digital::{ErrorType, OutputPin};
use equant_firmware::{Board, Memory, Unit};

#[cfg(feature = "defmt")]
use defmt_semihosting as _;

#[cfg(not(feature = "defmt"))]
type BoardLog = equant_firmware::report::Text<equant_firmware::report::Stdout>;
#[cfg(feature = "defmt")]
type BoardLog = equant_firmware::report::Defmt;

/// The board.
#[derive(Debug)]
pub struct Mps2An386 {
    log: BoardLog,
    led: Led,
}

impl Mps2An386 {
    /// The board, given the core's peripherals: there is one of each.
    pub fn new(_: cortex_m::Peripherals) -> Self {
        Self {
            #[cfg(not(feature = "defmt"))]
            log: equant_firmware::report::Text(equant_firmware::report::Stdout::open()),
            #[cfg(feature = "defmt")]
            log: equant_firmware::report::Defmt,
            led: Led(()),
        }
    }
}

/// User LED 0; its edges also mark the region that `tools/insncount` counts.
#[derive(Debug)]
pub struct Led(());

impl ErrorType for Led {
    type Error = Infallible;
}

impl OutputPin for Led {
    fn set_low(&mut self) -> Result<(), Infallible> {
        marker::end();
        fpgaio::set_leds(0);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        fpgaio::set_leds(1);
        marker::begin();
        Ok(())
    }
}

impl Board for Mps2An386 {
    const UNIT: Unit = Unit::Instructions;
    type Log = BoardLog;
    type Busy = Led;

    fn log(&mut self) -> &mut BoardLog {
        &mut self.log
    }

    fn busy(&mut self) -> &mut Led {
        &mut self.led
    }

    fn ticks(&self) -> u32 {
        fpgaio::counter()
    }

    /// The counter runs at 25 MHz of emulated time and an instruction takes 128 ns (`-icount shift=7`).
    fn count(ticks: u32) -> u64 {
        const TICKS: u64 = 16;
        const INSTRUCTIONS: u64 = 5; // 16 ticks = 640 ns = 5 instructions
        (u64::from(ticks) * INSTRUCTIONS + TICKS / 2) / TICKS
    }

    fn memory(&self) -> Memory {
        unsafe extern "C" {
            // Symbols of the linker script; only their addresses mean something.
            static __vector_table: u8;
            static __sidata: u8;
            static __sdata: u8;
            static __edata: u8;
            static __ebss: u8;
        }
        let [table, load, data, data_end, bss_end] =
            [&raw const __vector_table, &raw const __sidata, &raw const __sdata, &raw const __edata, &raw const __ebss]
                .map(|symbol| symbol as u32);
        Memory { flash: load - table + (data_end - data), ram: bss_end - data }
    }

    fn exit(&mut self, success: bool) -> ! {
        semihosting::process::exit(i32::from(!success))
    }
}

/// Says where a program panicked and exits with code 101.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    semihosting::eprintln!("{info}");
    semihosting::process::exit(101)
}
