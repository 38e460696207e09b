//! Weights in 8 and in 4 bits: how they lie in the constants, and the inner loops that read them.
//!
//! Weights are a matrix: a row (a *filter*) for each output channel of a convolution or product, a row for each tap of a
//! depthwise convolution. In 8 bits an element is a byte and rows follow each other. In 4 bits a row is a whole number of
//! 32-bit words (little-endian) of eight elements each, stored as `element + 8`: nibbles 0 and 4 of a word hold elements 0
//! and 2, nibbles 1 and 5 elements 1 and 3, nibbles 2 and 6 elements 4 and 6, nibbles 3 and 7 elements 5 and 7. So
//! `word >> 4i`, masked with `0x000F000F`, is a pair of 16-bit numbers: one instruction prepares two multiplications of
//! cores with dual 16-bit multipliers, and the pairs are those that `sxtb16` makes of bytes.
//!
//! Filters lie in segments, as [`filter_len`] says: what lies together in the input lies together here and begins at a
//! word.

use super::memory;
use crate::error::Reason;
use crate::op::{ConstRef, FourBit, Weighted};
use crate::plan::{OpView, Plan};

/// Output channels computed together, so that each input element is read once for all of them.
pub(crate) const GROUP: usize = 4;

/// Elements in a word of 4-bit weights.
const PER_WORD: usize = 8;

/// Elements in an octet: filters are whole numbers of them.
pub(crate) const OCTET: usize = 8;

/// Elements of the largest filter: filled up, it and its patches are still lengths on a core of 32 bits.
pub(crate) const MAX_FILTER: usize = 1 << 24;

/// Elements of a filter of `segments` runs of `len` elements that lie next to each other in the input: each run is filled
/// up with zeros to a multiple of 4, and the whole to a multiple of 8.
pub const fn filter_len(segments: usize, len: usize) -> usize {
    (segments * len.next_multiple_of(4)).next_multiple_of(OCTET)
}

/// The same row range of the weights of [`GROUP`] output channels.
pub(crate) type Rows<'a, W> = [&'a [<W as Width>::Unit]; GROUP];

/// How weights of one width are stored and multiplied.
pub(crate) trait Width: Copy {
    /// What rows are made of.
    type Unit: bytemuck::AnyBitPattern;

    /// Units in a row of `len` elements.
    fn row_units(len: usize) -> usize;

    /// The parameters of a record of an operator with weights of this width.
    fn params<P: Weighted>(op: &OpView<'_>) -> Result<P, Reason>;

    /// Whether two weights share a byte.
    #[cfg(any(dsp, bytes, x86, scalar))]
    const PACKED: bool;

    /// What holds an octet.
    #[cfg(scalar)]
    type Octet;

    /// The octets of a row.
    #[cfg(scalar)]
    fn octets(row: &[Self::Unit]) -> &[Self::Octet];

    /// The elements of an octet as they are stored: packed ones are 8 too large.
    #[cfg(scalar)]
    fn stored(octet: &Self::Octet) -> [i32; OCTET];

    /// Element `k` of a row.
    fn get(row: &[Self::Unit], k: usize) -> Option<i32>;

    /// Elements `8i..8i + 8` of a row.
    #[cfg(vectors)]
    fn octet(row: &[Self::Unit], i: usize) -> Option<[i32; OCTET]>;

    /// All bytes from element `start` on, of weights of a byte each.
    fn bytes<'a>(weights: &Matrix<'a, Self>, start: usize) -> Option<&'a [i8]>;

    /// Elements `start..start + 4` of a row, `start` a multiple of 4; zeros where the row has ended.
    fn quad(row: &[Self::Unit], start: usize) -> [i8; 4];

    /// `acc[i] += Σ_k x[k] · rows[i][start + k]`, wrapping.
    fn dot(x: &[i8], rows: &Rows<'_, Self>, start: usize, acc: &mut [i32; GROUP]) -> Option<()>;

    /// `acc[k] += x[k] · row[start + k]`, wrapping; `x` has at most `N` elements, `start` is a multiple of 4, as is `N`.
    fn accumulate<const N: usize>(x: &[i8], row: &[Self::Unit], start: usize, acc: &mut [i32; N]) -> Option<()>;
}

/// A byte for each weight.
#[derive(Clone, Copy)]
pub(crate) struct Int8;

/// A nibble for each weight.
#[derive(Clone, Copy)]
pub(crate) struct Int4;

/// The weights of an operator.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, W: Width> {
    units: &'a [W::Unit],
    /// Units in a row.
    stride: usize,
}

impl<'a, W: Width> Matrix<'a, W> {
    /// Finds the weights of `rows` rows of `len` elements.
    pub(crate) fn new(plan: &Plan<'a>, constant: ConstRef, rows: usize, len: usize) -> Result<Self, Reason> {
        let stride = W::row_units(len);
        let count = stride.checked_mul(rows).ok_or(Reason::OperatorShape)?;
        Ok(Self { units: memory::constants(plan, constant, count)?, stride })
    }

    /// Rows of `len` elements each.
    #[cfg(all(test, x86))]
    pub(crate) fn of(units: &'a [W::Unit], len: usize) -> Self {
        Self { units, stride: W::row_units(len) }
    }

    /// Rows `first..end`, one after the other.
    #[cfg(any(dsp, bytes, x86, native))]
    pub(crate) fn range(&self, first: usize, end: usize) -> Option<&'a [W::Unit]> {
        self.units.get(first.wrapping_mul(self.stride)..end.wrapping_mul(self.stride))
    }

    /// One row.
    #[inline(always)]
    pub(crate) fn row(&self, i: usize) -> Option<&'a [W::Unit]> {
        let start = i.wrapping_mul(self.stride);
        self.units.get(start..start.wrapping_add(self.stride))
    }

    /// The rows of [`GROUP`] output channels, from channel `o` on; beyond `end` the last one repeats.
    #[inline(always)]
    pub(crate) fn rows(&self, o: usize, end: usize) -> Option<Rows<'a, W>> {
        let last = end.wrapping_sub(1);
        let row = |i: usize| self.row(o.wrapping_add(i).min(last));
        Some([row(0)?, row(1)?, row(2)?, row(3)?])
    }
}

/// The same part of every row.
#[inline(always)]
fn part<'a, T>(rows: &[&'a [T]; GROUP], start: usize, len: usize) -> Option<[&'a [T]; GROUP]> {
    let range = start..start.wrapping_add(len);
    let [a, b, c, d] = rows;
    Some([a.get(range.clone())?, b.get(range.clone())?, c.get(range.clone())?, d.get(range)?])
}

impl Width for Int8 {
    type Unit = i8;

    #[cfg(any(dsp, bytes, x86, scalar))]
    const PACKED: bool = false;

    #[cfg(scalar)]
    type Octet = [i8; OCTET];

    #[cfg(scalar)]
    #[inline(always)]
    fn octets(row: &[i8]) -> &[[i8; OCTET]] {
        row.as_chunks().0
    }

    #[cfg(scalar)]
    #[inline(always)]
    fn stored(octet: &[i8; OCTET]) -> [i32; OCTET] {
        octet.map(i32::from)
    }

    fn row_units(len: usize) -> usize {
        len
    }

    fn params<P: Weighted>(op: &OpView<'_>) -> Result<P, Reason> {
        memory::params(op)
    }

    #[inline(always)]
    fn get(row: &[i8], k: usize) -> Option<i32> {
        row.get(k).map(|&w| i32::from(w))
    }

    #[inline(always)]
    fn bytes<'a>(weights: &Matrix<'a, Self>, start: usize) -> Option<&'a [i8]> {
        weights.units.get(start..)
    }

    #[inline(always)]
    fn quad(row: &[i8], start: usize) -> [i8; 4] {
        let rest = row.get(start..).unwrap_or_default();
        match rest.first_chunk() {
            Some(quad) => *quad,
            None => core::array::from_fn(|i| rest.get(i).copied().unwrap_or(0)),
        }
    }

    #[cfg(vectors)]
    #[inline(always)]
    fn octet(row: &[i8], i: usize) -> Option<[i32; OCTET]> {
        let (octets, _) = row.as_chunks::<OCTET>();
        octets.get(i).map(|octet| octet.map(i32::from))
    }

    #[inline(always)]
    fn dot(x: &[i8], rows: &Rows<'_, Self>, start: usize, acc: &mut [i32; GROUP]) -> Option<()> {
        let [mut a, mut b, mut c, mut d] = *acc;
        let [wa, wb, wc, wd] = part(rows, start, x.len())?;
        for ((((&x, &wa), &wb), &wc), &wd) in x.iter().zip(wa).zip(wb).zip(wc).zip(wd) {
            let x = i32::from(x);
            a = a.wrapping_add(x.wrapping_mul(i32::from(wa)));
            b = b.wrapping_add(x.wrapping_mul(i32::from(wb)));
            c = c.wrapping_add(x.wrapping_mul(i32::from(wc)));
            d = d.wrapping_add(x.wrapping_mul(i32::from(wd)));
        }
        *acc = [a, b, c, d];
        Some(())
    }

    #[inline(always)]
    fn accumulate<const N: usize>(x: &[i8], row: &[i8], start: usize, acc: &mut [i32; N]) -> Option<()> {
        let w = row.get(start..start.wrapping_add(x.len()))?;
        // Full blocks have a constant length, which the compiler turns into vectors.
        if let (Some(x), Some(w)) = (x.first_chunk::<N>(), w.first_chunk::<N>()) {
            for ((acc, &x), &w) in acc.iter_mut().zip(x).zip(w) {
                *acc = acc.wrapping_add(i32::from(x).wrapping_mul(i32::from(w)));
            }
        } else {
            for ((acc, &x), &w) in acc.iter_mut().zip(x).zip(w) {
                *acc = acc.wrapping_add(i32::from(x).wrapping_mul(i32::from(w)));
            }
        }
        Some(())
    }
}

/// The lowest bit of element `k` of a word.
#[inline(always)]
const fn place(k: u32) -> u32 {
    (k & 1) * 4 + (k & 2) * 8 + (k & 4) * 2
}

/// Element `K` of a word.
#[inline(always)]
fn nibble<const K: u32>(word: u32) -> i32 {
    decode(word >> place(K))
}

/// The element in the lowest nibble.
#[inline(always)]
fn decode(word: u32) -> i32 {
    (word & 15) as i32 - 8
}

impl Int4 {
    /// As [`Width::dot`], element by element.
    #[inline(never)]
    fn dot_elements(mut x: &[i8], rows: &Rows<'_, Self>, start: usize, acc: &mut [i32; GROUP]) -> Option<()> {
        let [mut a, mut b, mut c, mut d] = *acc;
        let mut at = start;
        while !x.is_empty() {
            let (now, later) = x.split_at_checked(PER_WORD.wrapping_sub(at % PER_WORD).min(x.len()))?;
            let [wa, wb, wc, wd] = rows;
            let word = at / PER_WORD;
            let (wa, wb, wc, wd) = (*wa.get(word)?, *wb.get(word)?, *wc.get(word)?, *wd.get(word)?);
            for (k, &x) in (at..).zip(now) {
                let (x, shift) = (i32::from(x), place(k as u32));
                a = a.wrapping_add(x.wrapping_mul(decode(wa >> shift)));
                b = b.wrapping_add(x.wrapping_mul(decode(wb >> shift)));
                c = c.wrapping_add(x.wrapping_mul(decode(wc >> shift)));
                d = d.wrapping_add(x.wrapping_mul(decode(wd >> shift)));
            }
            at = at.wrapping_add(now.len());
            x = later;
        }
        *acc = [a, b, c, d];
        Some(())
    }
}

impl Width for Int4 {
    type Unit = u32;

    #[cfg(any(dsp, bytes, x86, scalar))]
    const PACKED: bool = true;

    #[cfg(scalar)]
    type Octet = u32;

    #[cfg(scalar)]
    #[inline(always)]
    fn octets(row: &[u32]) -> &[u32] {
        row
    }

    #[cfg(scalar)]
    #[inline(always)]
    fn stored(&octet: &u32) -> [i32; OCTET] {
        core::array::from_fn(|k| (octet >> place(k as u32) & 15) as i32)
    }

    fn row_units(len: usize) -> usize {
        len.div_ceil(PER_WORD)
    }

    fn params<P: Weighted>(op: &OpView<'_>) -> Result<P, Reason> {
        memory::params::<FourBit<P>>(op).map(|params| params.0)
    }

    #[inline(always)]
    fn get(row: &[u32], k: usize) -> Option<i32> {
        Some(decode(*row.get(k / PER_WORD)? >> place(k as u32)))
    }

    #[inline(always)]
    fn bytes<'a>(_: &Matrix<'a, Self>, _: usize) -> Option<&'a [i8]> {
        None
    }

    #[inline(always)]
    fn quad(row: &[u32], start: usize) -> [i8; 4] {
        // What is left of a row's last word holds zeros.
        let half = row.get(start / PER_WORD).map_or(0, |word| word >> place(start as u32 & 4));
        core::array::from_fn(|i| decode(half >> place(i as u32)) as i8)
    }

    #[cfg(vectors)]
    #[inline(always)]
    fn octet(row: &[u32], i: usize) -> Option<[i32; OCTET]> {
        row.get(i).map(|&word| core::array::from_fn(|k| decode(word >> place(k as u32))))
    }

    #[inline(always)]
    fn dot(x: &[i8], rows: &Rows<'_, Self>, start: usize, acc: &mut [i32; GROUP]) -> Option<()> {
        // Elements up to the next whole word, whole words, the rest.
        let head = start.wrapping_neg() % PER_WORD;
        if x.len() < head.wrapping_add(PER_WORD) {
            return Self::dot_elements(x, rows, start, acc);
        }
        let (first, x) = x.split_at_checked(head)?;
        if !first.is_empty() {
            Self::dot_elements(first, rows, start, acc)?;
        }
        let start = start.wrapping_add(head);
        let (blocks, rest) = x.as_chunks::<PER_WORD>();
        let [wa, wb, wc, wd] = part(rows, start / PER_WORD, blocks.len())?;
        let [mut a, mut b, mut c, mut d] = *acc;
        for ((((x, &wa), &wb), &wc), &wd) in blocks.iter().zip(wa).zip(wb).zip(wc).zip(wd) {
            macro_rules! step {
                ($($k:literal)*) => {$(
                    let x_k = i32::from(x[$k]);
                    a = a.wrapping_add(x_k.wrapping_mul(nibble::<$k>(wa)));
                    b = b.wrapping_add(x_k.wrapping_mul(nibble::<$k>(wb)));
                    c = c.wrapping_add(x_k.wrapping_mul(nibble::<$k>(wc)));
                    d = d.wrapping_add(x_k.wrapping_mul(nibble::<$k>(wd)));
                )*};
            }
            step!(0 1 2 3 4 5 6 7);
        }
        *acc = [a, b, c, d];
        if !rest.is_empty() {
            Self::dot_elements(rest, rows, start.wrapping_add(blocks.len().wrapping_mul(PER_WORD)), acc)?;
        }
        Some(())
    }

    #[inline(always)]
    fn accumulate<const N: usize>(x: &[i8], row: &[u32], start: usize, acc: &mut [i32; N]) -> Option<()> {
        let (x_blocks, rest) = x.as_chunks::<4>();
        let (acc_blocks, _) = acc.as_chunks_mut::<4>();
        let mut at = start;
        for (acc, &[x0, x1, x2, x3]) in acc_blocks.iter_mut().zip(x_blocks) {
            // Either half of a word: elements 4 to 7 lie 8 bits above elements 0 to 3.
            let half = *row.get(at / PER_WORD)? >> place(at as u32 & 4);
            let [a0, a1, a2, a3] = acc;
            *a0 = a0.wrapping_add(i32::from(x0).wrapping_mul(nibble::<0>(half)));
            *a1 = a1.wrapping_add(i32::from(x1).wrapping_mul(nibble::<1>(half)));
            *a2 = a2.wrapping_add(i32::from(x2).wrapping_mul(nibble::<2>(half)));
            *a3 = a3.wrapping_add(i32::from(x3).wrapping_mul(nibble::<3>(half)));
            at = at.wrapping_add(4);
        }
        if !rest.is_empty() {
            let done = x_blocks.len().wrapping_mul(4);
            for ((k, &x), acc) in (at..).zip(rest).zip(acc.get_mut(done..)?) {
                *acc = acc.wrapping_add(i32::from(x).wrapping_mul(Self::get(row, k)?));
            }
        }
        Some(())
    }
}

/// Bytes that [`pack_int4`] makes of `elements` weights in rows of `row`; 0 if `row` is 0.
pub const fn int4_len(elements: usize, row: usize) -> usize {
    match elements.checked_div(row) {
        Some(rows) => rows * row.div_ceil(PER_WORD) * 4,
        None => 0,
    }
}

/// Packs weights in a kernel's 8-bit order two to a byte, in rows of `row` elements: the order that the kernel's 4-bit
/// twin reads. Nibbles without an element hold the weight 0.
///
/// # Errors
///
/// [`Reason::BufferMismatch`] when `row` does not divide the number of weights or `packed` has another length than
/// [`int4_len`]; [`Reason::OperatorRange`] when a weight lies outside `-8..=7`.
pub fn pack_int4(weights: &[i8], row: usize, packed: &mut [u8]) -> Result<(), Reason> {
    if row == 0 || !weights.len().is_multiple_of(row) || packed.len() != int4_len(weights.len(), row) {
        return Err(Reason::BufferMismatch);
    }
    if weights.iter().any(|w| !(-8..8).contains(w)) {
        return Err(Reason::OperatorRange);
    }
    let rows = weights.chunks(row).flat_map(|row| row.chunks(PER_WORD));
    for (word, elements) in packed.chunks_mut(4).zip(rows) {
        let nibbles = (0..PER_WORD).map(|k| {
            let weight = elements.get(k).copied().unwrap_or(0);
            ((weight + 8) as u32) << place(k as u32)
        });
        word.copy_from_slice(&nibbles.sum::<u32>().to_le_bytes());
    }
    Ok(())
}

/// Makes operators of the `check` and `run` of a kernel: `name width` each.
macro_rules! by_width {
    ($($name:ident $width:ident),*) => {$(
        impl crate::operator::Operator for $name {
            const KIND: crate::op::OpKind = crate::op::OpKind::$name;

            fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
                check::<$width>(op, plan)
            }

            fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
                run::<$width>(op, plan, arena)
            }
        }
    )*};
}
pub(super) use by_width;

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn packed(weights: &[i8], row: usize) -> Vec<u32> {
        let mut bytes = vec![0; int4_len(weights.len(), row)];
        pack_int4(weights, row, &mut bytes).unwrap();
        bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    #[test]
    fn a_mask_unpacks_a_pair() {
        let weights = [-8, -1, 0, 1, 7, 2, -3, 5];
        let word = packed(&weights, 8)[0];
        for (i, pair) in [[0, 2], [1, 3], [4, 6], [5, 7]].into_iter().enumerate() {
            let masked = word >> (4 * i) & 0x000F_000F;
            let halves = [masked & 0xFFFF, masked >> 16].map(|half| half as i8 - 8);
            assert_eq!(halves, pair.map(|k| weights[k]));
        }
    }

    #[test]
    fn rows_begin_at_words() {
        let weights: Vec<i8> = (0..22).map(|i| (i % 16) - 8).collect();
        let words = packed(&weights, 11);
        assert_eq!(words.len(), 4);
        for (i, &w) in weights.iter().enumerate() {
            assert_eq!(Int4::get(&words[i / 11 * 2..], i % 11), Some(i32::from(w)), "{i}");
        }
        assert_eq!(Int4::get(&words, 32), None);
        let behind = (3..8).map(|k| nibble_at(words[1], k));
        assert!(behind.into_iter().all(|w| w == 0), "zeros behind a row's last element");
    }

    fn nibble_at(word: u32, k: u32) -> i32 {
        decode(word >> place(k))
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut room = [0; 4];
        assert_eq!(pack_int4(&[8], 1, &mut room), Err(Reason::OperatorRange));
        assert_eq!(pack_int4(&[-9], 1, &mut room), Err(Reason::OperatorRange));
        assert_eq!(pack_int4(&[0; 3], 2, &mut room), Err(Reason::BufferMismatch));
        assert_eq!(pack_int4(&[0; 3], 0, &mut room), Err(Reason::BufferMismatch));
        assert_eq!(pack_int4(&[0; 9], 9, &mut room), Err(Reason::BufferMismatch));
    }
}
