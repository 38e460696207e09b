//! Arm MPS2 with FPGA image AN386 (Cortex-M4F), as QEMU's machine `mps2-an386` emulates it.
#![no_std]

mod marker;

use core::convert::Infallible;

use embedded_hal::digital::{ErrorType, OutputPin};
pub use equant_firmware::panic::panicked;
use equant_firmware::{Board, Counter, Memory, Unit};
use fpgaio::Fpgaio;

#[cfg(feature = "defmt")]
use defmt_semihosting as _;

#[cfg(not(feature = "defmt"))]
type BoardLog = equant_firmware::report::Text<equant_firmware::report::Stdout>;
#[cfg(feature = "defmt")]
type BoardLog = equant_firmware::report::Defmt;

// SAFETY: this is where the board has the block.
const FPGAIO: Fpgaio = unsafe { Fpgaio::new(fpgaio::MPS2, 25_000_000) };

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
        FPGAIO.set_leds(0);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        FPGAIO.set_leds(1);
        marker::begin();
        Ok(())
    }
}

impl Counter for Mps2An386 {
    const UNIT: Unit = Unit::Instructions;

    fn ticks(&self) -> u32 {
        FPGAIO.counter()
    }

    fn count(ticks: u32) -> u64 {
        FPGAIO.instructions(ticks)
    }
}

impl Board for Mps2An386 {
    type Log = BoardLog;
    type Busy = Led;

    fn log(&mut self) -> &mut BoardLog {
        &mut self.log
    }

    fn busy(&mut self) -> &mut Led {
        &mut self.led
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
