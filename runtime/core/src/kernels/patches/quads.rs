//! Patches quad by quad of a filter, those of all pixels together. How the elements of a quad lie in its words is up to
//! [`super::layout`].

use super::layout;

/// One pixel's place in patches. `W` is the number of words of a quad of all pixels.
pub(crate) struct Patch<'a, const W: usize> {
    quads: &'a mut [[u32; W]],
    pixel: usize,
}

impl<'a, const W: usize> Patch<'a, W> {
    /// The place of `pixel` in `words`, for filters of any length.
    pub(crate) fn new(words: &'a mut [u32], pixel: usize, _filter_len: usize) -> Self {
        Self { quads: words.as_chunks_mut().0, pixel }
    }

    /// Writes `value` everywhere.
    pub(crate) fn fill(&mut self, value: i8) {
        for quad in self.quads.iter_mut() {
            layout::put(quad, self.pixel, [value; 4]);
        }
    }

    /// Writes `x` from quad `at` on; what is left of its last quad is filled with `rest`.
    #[inline(always)]
    pub(crate) fn write(&mut self, at: usize, x: &[i8], rest: i8) -> Option<()> {
        let (whole, last) = x.as_chunks::<4>();
        self.write_quads(at, whole)?;
        if !last.is_empty() {
            self.write_part(at.wrapping_add(whole.len()), 0, last, rest)?;
        }
        Some(())
    }

    /// Writes whole quads from quad `at` on.
    #[inline(always)]
    pub(crate) fn write_quads(&mut self, at: usize, x: &[[i8; 4]]) -> Option<()> {
        layout::write(self.quads.get_mut(at..at.wrapping_add(x.len()))?, self.pixel, x)
    }

    /// As [`Self::write`], beginning after `skipped` elements of quad `at` that hold `rest` too.
    #[inline(never)]
    pub(crate) fn write_after(&mut self, at: usize, skipped: usize, x: &[i8], rest: i8) -> Option<()> {
        let (first, later) = x.split_at_checked(4usize.wrapping_sub(skipped).min(x.len()))?;
        self.write_part(at, skipped, first, rest)?;
        self.write(at.wrapping_add(1), later, rest)
    }

    /// Writes quad `at`: `x` after `skipped` elements, `rest` elsewhere.
    fn write_part(&mut self, at: usize, skipped: usize, x: &[i8], rest: i8) -> Option<()> {
        let mut filled = [rest; 4];
        for (slot, &x) in filled.iter_mut().skip(skipped).zip(x) {
            *slot = x;
        }
        layout::put(self.quads.get_mut(at)?, self.pixel, filled);
        Some(())
    }
}
