//! What the application needs from a board.

use embedded_hal::digital::OutputPin;

use crate::report::Log;

/// A free-running counter that says what code costs.
///
/// It has 32 bits and wraps: what is measured must take less than one round of it.
pub trait Counter {
    /// What [`Counter::count`] returns.
    const UNIT: Unit;

    /// The counter.
    fn ticks(&self) -> u32;

    /// A difference of two [`Counter::ticks`], in [`Counter::UNIT`].
    fn count(ticks: u32) -> u64;
}

/// A board.
pub trait Board: Counter {
    /// Where reports go.
    type Log: Log;

    /// The pin of [`Board::busy`].
    type Busy: OutputPin;

    /// The log.
    fn log(&mut self) -> &mut Self::Log;

    /// A pin that is high while an inference runs: for a logic analyser, or to gate a power measurement.
    fn busy(&mut self) -> &mut Self::Busy;

    /// What the linked program occupies.
    fn memory(&self) -> Memory;

    /// Ends the program (a debugger or emulator is told), or idles for ever where there is nobody to tell.
    fn exit(&mut self, success: bool) -> !;
}

/// What a board's counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Unit {
    /// Instructions executed, by an emulator that models no pipeline.
    Instructions,
    /// Clock cycles of a real core.
    Cycles,
}

impl Unit {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Cycles => "cycles",
        }
    }
}

/// Bytes of the linked program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Memory {
    /// Flash: code, constants (plan and images included) and initial values.
    pub flash: u32,
    /// RAM of statics, the arena included; the stack is extra.
    pub ram: u32,
}
