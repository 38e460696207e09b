//! The cost of every layer, through the session's profile hook.

use equant_runtime::plan::OpView;
use equant_runtime::session::Profile;
use heapless::Vec;

use crate::board::Board;

/// Most operators profiled.
pub const MAX_LAYERS: usize = 128;

/// Counts of every operator of one run, in [`Board::UNIT`].
pub struct Layers<'b, B> {
    board: &'b B,
    start: u32,
    /// Counts in execution order; operators beyond [`MAX_LAYERS`] are in `missed`.
    pub counts: Vec<u64, MAX_LAYERS>,
    /// Number of operators that found no place.
    pub missed: usize,
}

impl<'b, B: Board> Layers<'b, B> {
    /// Nothing counted yet.
    pub fn new(board: &'b B) -> Self {
        Self { board, start: 0, counts: Vec::new(), missed: 0 }
    }
}

impl<B: Board> Profile for Layers<'_, B> {
    fn before(&mut self, _: &OpView<'_>) {
        self.start = self.board.ticks();
    }

    fn after(&mut self, _: &OpView<'_>, _: &[u8]) {
        let count = B::count(self.board.ticks().wrapping_sub(self.start));
        self.missed += usize::from(self.counts.push(count).is_err());
    }
}
