//! What a program under semihosting does when it panics.

use core::panic::PanicInfo;

/// Says where a program panicked and exits with code 101.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    semihosting::eprintln!("{info}");
    semihosting::process::exit(101)
}
