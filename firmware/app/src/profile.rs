//! The cost of every layer, through the session's profile hook.

use equant_runtime::plan::OpView;
use equant_runtime::session::Profile;
use heapless::Vec;

use crate::board::Counter;

/// Most operators profiled.
pub const MAX_LAYERS: usize = 128;

/// Counts of every operator of one run, in [`Counter::UNIT`].
pub struct Layers<'c, C> {
    counter: &'c C,
    start: u32,
    /// Counts in execution order; operators beyond [`MAX_LAYERS`] are in `missed`.
    pub counts: Vec<u64, MAX_LAYERS>,
    /// Number of operators that found no place.
    pub missed: usize,
}

impl<'c, C: Counter> Layers<'c, C> {
    /// Nothing counted yet.
    pub fn new(counter: &'c C) -> Self {
        Self { counter, start: 0, counts: Vec::new(), missed: 0 }
    }
}

impl<C: Counter> Profile for Layers<'_, C> {
    fn before(&mut self, _: &OpView<'_>) {
        self.start = self.counter.ticks();
    }

    fn after(&mut self, _: &OpView<'_>, _: &[u8]) {
        let count = C::count(self.counter.ticks().wrapping_sub(self.start));
        self.missed += usize::from(self.counts.push(count).is_err());
    }
}
