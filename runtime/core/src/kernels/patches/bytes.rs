//! Patches of bytes, for cores that multiply bytes: the elements of one pixel after those of the other. Kernels put them in
//! the order that they want.

#[cfg(mve)]
use crate::kernels::mve as copies;
#[cfg(neon)]
use crate::kernels::neon as copies;

/// Runs of bytes, and how far they lie apart.
#[derive(Clone, Copy)]
pub(crate) struct Runs {
    /// Number of runs.
    pub(crate) count: usize,
    /// Bytes of each.
    pub(crate) len: usize,
    /// From the start of one to the next where they are read.
    pub(crate) from_step: usize,
    /// From the start of one to the next where they are written.
    pub(crate) to_step: usize,
}

impl Runs {
    /// Whether the last run, and so every one, ends within the bytes read and those written; there is one at least.
    pub(crate) fn fit(self, from: &[i8], to: &[i8]) -> Option<()> {
        let last = self.count.checked_sub(1)?;
        from.get(..last.checked_mul(self.from_step)?.checked_add(self.len)?)?;
        to.get(..last.checked_mul(self.to_step)?.checked_add(self.len)?)?;
        Some(())
    }
}

/// One pixel's place in patches. `W` is twice the number of pixels: words of a quad.
pub(crate) struct Patch<'a, const W: usize> {
    elements: &'a mut [i8],
}

impl<'a, const W: usize> Patch<'a, W> {
    /// The place of `pixel` in `words`, for filters of this length.
    pub(crate) fn new(words: &'a mut [u32], pixel: usize, filter_len: usize) -> Self {
        let elements: &mut [i8] = bytemuck::try_cast_slice_mut(words).unwrap_or_default();
        let start = pixel.wrapping_mul(filter_len);
        Self { elements: elements.get_mut(start..start.wrapping_add(filter_len)).unwrap_or_default() }
    }

    /// Writes `value` everywhere.
    pub(crate) fn fill(&mut self, value: i8) {
        self.elements.fill(value);
    }

    /// Writes `x` from quad `at` on.
    #[inline(always)]
    pub(crate) fn write(&mut self, at: usize, x: &[i8], rest: i8) -> Option<()> {
        self.write_after(at, 0, x, rest)
    }

    /// Writes `count` segments of whole quads, which lie `distance` apart in `x`, from the first quad on.
    #[inline(always)]
    pub(crate) fn write_segments(&mut self, x: &[i8], [count, distance]: [usize; 2], quads: usize) -> Option<()> {
        let len = quads.wrapping_mul(4);
        copies::copy_runs(x, self.elements, Runs { count, len, from_step: distance, to_step: len })
    }

    /// As [`Self::write`], beginning after `skipped` elements of quad `at`. What is left of a quad meets weights of 0.
    #[inline(always)]
    pub(crate) fn write_after(&mut self, at: usize, skipped: usize, x: &[i8], _rest: i8) -> Option<()> {
        copies::copy(x, self.elements.get_mut(at.wrapping_mul(4).wrapping_add(skipped)..)?)
    }
}
