//! Patches in rows, for cores with vectors: the 16-bit elements of one pixel after those of the other.

/// One pixel's place in patches. `W` is twice the number of pixels: words of a quad.
pub(crate) struct Patch<'a, const W: usize> {
    elements: &'a mut [i16],
}

impl<'a, const W: usize> Patch<'a, W> {
    /// The place of `pixel` in `words`, for filters of this length.
    pub(crate) fn new(words: &'a mut [u32], pixel: usize, filter_len: usize) -> Self {
        let elements: &mut [i16] = bytemuck::try_cast_slice_mut(words).unwrap_or_default();
        let start = pixel.wrapping_mul(filter_len);
        Self { elements: elements.get_mut(start..start.wrapping_add(filter_len)).unwrap_or_default() }
    }

    /// Writes `value` everywhere.
    pub(crate) fn fill(&mut self, value: i8) {
        self.elements.fill(value.into());
    }

    /// Writes `x` from quad `at` on; what is left of its last quad is filled with `rest`.
    #[inline(always)]
    pub(crate) fn write(&mut self, at: usize, x: &[i8], rest: i8) -> Option<()> {
        self.write_after(at, 0, x, rest)
    }

    /// Writes whole quads from quad `at` on.
    #[inline(always)]
    pub(crate) fn write_quads(&mut self, at: usize, x: &[[i8; 4]]) -> Option<()> {
        self.write_after(at, 0, x.as_flattened(), 0)
    }

    /// As [`Self::write`], beginning after `skipped` elements of quad `at` that hold `rest` too.
    #[inline(always)]
    pub(crate) fn write_after(&mut self, at: usize, skipped: usize, x: &[i8], rest: i8) -> Option<()> {
        let (before, from) = self.elements.get_mut(at.wrapping_mul(4)..)?.split_at_mut_checked(skipped)?;
        before.fill(rest.into());
        let (inside, behind) = from.split_at_mut_checked(x.len())?;
        widen(x, inside);
        let filled = skipped.wrapping_add(x.len()) % 4;
        if filled > 0 {
            behind.get_mut(..4usize.wrapping_sub(filled))?.fill(rest.into());
        }
        Some(())
    }
}

/// Widens elements.
#[inline(always)]
fn widen(x: &[i8], to: &mut [i16]) {
    #[cfg(x86)]
    if x.len() >= 8
        && let Some(avx2) = crate::kernels::x86::Avx2::detect()
    {
        return avx2.widen(x, to);
    }
    for (slot, &x) in to.iter_mut().zip(x) {
        *slot = x.into();
    }
}
