//! Geometry of transposed convolutions: which taps of the kernel land on an element of the output.
//!
//! Element `i` of the input reaches, with tap `k`, position `i · stride + k · dilation` of the whole output, of which the
//! elements from `before` on are kept. So only taps with `k · dilation ≡ position (mod stride)` land on a position: one
//! *class* of taps, `period = stride / gcd(stride, dilation)` apart, whose input elements lie
//! `advance = dilation / gcd(stride, dilation)` apart. Weights are packed class by class, in each the last tap first:
//! what an output element needs is one run, in the order of the input.

use core::num::NonZeroUsize;

use super::window::Taps;
use crate::error::Reason;

/// One spatial axis of a transposed convolution.
#[derive(Clone, Copy)]
pub(crate) struct Axis {
    pub(crate) input: usize,
    pub(crate) output: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: NonZeroUsize,
    dilation: usize,
    /// Elements of the whole output that are cut off at its beginning.
    before: usize,
    /// Distance of the taps of a class.
    period: NonZeroUsize,
    /// Distance of their input elements.
    pub(crate) advance: NonZeroUsize,
}

/// The taps that land on the positions with one remainder by the stride.
#[derive(Clone, Copy)]
pub(crate) struct Class {
    /// Place of the first in the packed order.
    start: usize,
    /// Their number.
    pub(crate) len: usize,
    /// How far the first of them (in the kernel's order) reaches from its input element's position.
    reach: usize,
}

impl Class {
    /// All of them, whatever the input.
    pub(crate) fn all(&self) -> Taps {
        Taps { first: self.start, end: self.start.wrapping_add(self.len), start: 0 }
    }
}

impl Axis {
    /// Checks the axis: the output may go on behind the last position that a tap lands on, but by less than a stride or
    /// a dilation (ONNX's `output_padding`).
    ///
    /// All positions of an accepted axis fit in 31 bits.
    pub(crate) fn new(
        [input, output]: [u32; 2],
        [kernel, stride, dilation]: [u32; 3],
        before: u32,
    ) -> Result<Self, Reason> {
        const LIMIT: u64 = i32::MAX as u64;
        let steps = |count: u32, size: u32| u64::from(count.checked_sub(1)?).checked_mul(u64::from(size));
        let last = steps(input, stride).zip(steps(kernel, dilation)).and_then(|(a, b)| a.checked_add(b));
        let last = last.filter(|&last| last < LIMIT).ok_or(Reason::OperatorShape)?;
        let end = u64::from(before) + u64::from(output);
        let fits = output > 0 && end <= LIMIT && end <= last + u64::from(stride.max(dilation));
        let (stride, dilation) = (nonzero(stride)?, nonzero(dilation)?);
        let common = gcd(stride.get(), dilation.get());
        let reduced = |size: NonZeroUsize| size.get().checked_div(common).and_then(NonZeroUsize::new);
        let (period, advance) = reduced(stride).zip(reduced(dilation)).ok_or(Reason::OperatorShape)?;
        if !fits {
            return Err(Reason::OperatorShape);
        }
        Ok(Self {
            input: input as usize,
            output: output as usize,
            kernel: kernel as usize,
            stride,
            dilation: dilation.get(),
            before: before as usize,
            period,
            advance,
        })
    }

    /// The taps that land on output element `o`, and on every one a multiple of the stride away.
    #[inline(never)]
    pub(crate) fn class(&self, o: usize) -> Class {
        let remainder = o.wrapping_add(self.before) % self.stride;
        for k in 0..self.period.get().min(self.kernel) {
            let reach = k.wrapping_mul(self.dilation);
            if reach % self.stride == remainder {
                let (each, more) = (self.kernel / self.period, self.kernel % self.period);
                return Class {
                    start: k.wrapping_mul(each).wrapping_add(k.min(more)),
                    len: each.wrapping_add(usize::from(k < more)),
                    reach,
                };
            }
        }
        Class { start: 0, len: 0, reach: 0 }
    }

    /// The taps of a class that bring an element of the input to output element `o`, in the packed order: the element of
    /// the first, the others [`Self::advance`] apart.
    #[inline]
    pub(crate) fn taps(&self, class: &Class, o: usize) -> Taps {
        let none = Taps { first: 0, end: 0, start: 0 };
        let Some(distance) = o.wrapping_add(self.before).checked_sub(class.reach) else { return none };
        // The input element of the class's first tap; the further taps read what lies before it.
        let top = distance / self.stride;
        let skipped = self.advances(top.saturating_sub(self.input.wrapping_sub(1)), true);
        let count = self.advances(top, false).wrapping_add(1).min(class.len);
        if skipped >= count {
            return none;
        }
        let end = class.start.wrapping_add(class.len);
        Taps {
            first: end.wrapping_sub(count),
            end: end.wrapping_sub(skipped),
            start: top.wrapping_sub(count.wrapping_sub(1).wrapping_mul(self.advance.get())),
        }
    }

    /// `distance / advance`, rounded down or up.
    #[inline]
    fn advances(&self, distance: usize, up: bool) -> usize {
        if self.advance.get() == 1 {
            return distance;
        }
        let more = if up { self.advance.get().wrapping_sub(1) } else { 0 };
        distance.wrapping_add(more) / self.advance
    }
}

/// A size of at least 1 and at most 31 bits.
fn nonzero(size: u32) -> Result<NonZeroUsize, Reason> {
    let size = i32::try_from(size).ok().and_then(|size| NonZeroUsize::new(size as usize));
    size.ok_or(Reason::OperatorShape)
}

/// Greatest common divisor; the other one if one is 0.
fn gcd(mut a: usize, mut b: usize) -> usize {
    while let Some(rest) = a.checked_rem(b) {
        a = b;
        b = rest;
    }
    a
}

/// The place of tap `k` in the packed order of an axis; 0 where a size is 0.
pub(super) fn packed_tap(k: usize, [kernel, stride, dilation]: [usize; 3]) -> usize {
    let period = stride.checked_div(gcd(stride, dilation)).unwrap_or(1).max(1);
    let (each, more, first, later) = (kernel / period, kernel % period, k % period, k / period);
    let len = each + usize::from(first < more);
    first * each + first.min(more) + len.saturating_sub(later + 1)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    /// Every tap of the packed order that lands on `o`, with its input element, by trying all.
    fn by_definition(sizes: [usize; 3], input: usize, position: usize) -> Vec<(usize, usize)> {
        let [kernel, stride, dilation] = sizes;
        let mut found: Vec<(usize, usize)> = (0..kernel)
            .flat_map(|k| (0..input).map(move |i| (k, i)))
            .filter(|(k, i)| i * stride + k * dilation == position)
            .map(|(k, i)| (packed_tap(k, sizes), i))
            .collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn taps_are_those_of_the_definition() {
        for kernel in 1..6 {
            for stride in 1..5 {
                for dilation in 1..4 {
                    let sizes = [kernel, stride, dilation];
                    let mut order: Vec<usize> = (0..kernel).map(|k| packed_tap(k, sizes)).collect();
                    order.sort_unstable();
                    assert_eq!(order, (0..kernel).collect::<Vec<_>>(), "a permutation: {sizes:?}");
                    for input in 1..5 {
                        let whole = (input - 1) * stride + (kernel - 1) * dilation + 1;
                        for before in 0..whole {
                            let output = whole - before + stride.max(dilation) - 1;
                            let words = sizes.map(|size| size as u32);
                            let axis = Axis::new([input as u32, output as u32], words, before as u32).ok().unwrap();
                            assert!(Axis::new([input as u32, output as u32 + 1], words, before as u32).is_err());
                            for o in 0..output {
                                let class = axis.class(o);
                                let taps = axis.taps(&class, o);
                                let got: Vec<(usize, usize)> = (taps.first..taps.end)
                                    .enumerate()
                                    .map(|(i, tap)| (tap, taps.start + i * axis.advance.get()))
                                    .collect();
                                assert_eq!(got, by_definition(sizes, input, o + before), "{sizes:?} {input} {o}");
                                let all = class.all();
                                assert!(taps.len() == 0 || all.first <= taps.first && taps.end <= all.end);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn damaged_sizes_are_refused() {
        let sizes = [3, 2, 1];
        assert!(Axis::new([4, 9], sizes, 0).is_ok());
        for (io, sizes, before) in [
            ([0, 9], sizes, 0),
            ([4, 0], sizes, 0),
            ([4, 9], [0, 2, 1], 0),
            ([4, 9], [3, 0, 1], 0),
            ([4, 9], [3, 2, 0], 0),
            ([4, 9], sizes, u32::MAX),
            ([u32::MAX, 9], [u32::MAX, u32::MAX, u32::MAX], 0),
            ([1, u32::MAX], [1, u32::MAX, 1], 0),
            ([1, 1], [1, 1 << 31, 1], 0),
        ] {
            assert!(Axis::new(io, sizes, before).is_err(), "{io:?} {sizes:?} {before}");
        }
    }
}
