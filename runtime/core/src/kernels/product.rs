//! Sums of products of two strided activations, row by row: what the products of two activations share.

#[cfg(dsp)]
use super::dsp::{self, Vectors};
use super::memory;
#[cfg(neon)]
use super::neon::Products;
#[cfg(x86)]
use super::x86::Avx2 as Products;
use crate::error::Reason;
use crate::plan::TensorRecord;

/// Deepest sum: 32768 · 255² < 2^31.
const MAX_DEPTH: u32 = 1 << 15;

/// Columns summed together where they are neighbours in memory: as many as fit the registers.
const LANES: usize = if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) { 16 } else { 4 };

/// `Σ_k (a[b0, b1, i, k] − zero_point_a) · (b[b0, b1, k, j] − zero_point_b)`, exact in 32 bits.
///
/// `a` and `b` are i8; sizes and strides as in [`crate::op::MatMulParams`].
#[derive(Clone, Copy)]
pub(super) struct Sums {
    pub(super) batch: [u32; 2],
    pub(super) m: u32,
    pub(super) k: u32,
    pub(super) n: u32,
    pub(super) a_strides: [u32; 4],
    pub(super) b_strides: [u32; 4],
    pub(super) a_zero: i32,
    pub(super) b_zero: i32,
}

impl Sums {
    /// Refuses inputs and an output, with its strides, of which an element lies outside, and more work than the
    /// output has elements.
    pub(super) fn check(&self, [a, b, y]: [&TensorRecord; 3], y_strides: [u32; 4]) -> Result<(), Reason> {
        let Self { batch: [outer, inner], m, k, n, .. } = *self;
        memory::check_i8(a)?;
        memory::check_i8(b)?;
        let products = [outer, inner, m, n].iter().try_fold(1u32, |product, &size| product.checked_mul(size));
        let work_is_bounded = products.is_some_and(|products| products > 0 && Some(products) <= y.elements());
        let fits = reaches_inside(a, [outer, inner, m, k], self.a_strides)
            && reaches_inside(b, [outer, inner, k, n], self.b_strides)
            && reaches_inside(y, [outer, inner, m, n], y_strides);
        if work_is_bounded && fits && (1..=MAX_DEPTH).contains(&k) { Ok(()) } else { Err(Reason::OperatorShape) }
    }

    /// Calls `f` with the batches and row of every row, in order.
    #[inline(always)]
    pub(super) fn rows<E>(&self, mut f: impl FnMut([u32; 3]) -> Result<(), E>) -> Result<(), E> {
        for b0 in 0..self.batch[0] {
            for b1 in 0..self.batch[1] {
                for i in 0..self.m {
                    f([b0, b1, i])?;
                }
            }
        }
        Ok(())
    }

    /// Hands the sum of every column of a row to `put`; `a` and `b` are whole tensors.
    #[inline(always)]
    pub(super) fn row(
        &self,
        at: [u32; 3],
        a: &[i8],
        b: &[i8],
        mut put: impl FnMut(usize, i32) -> Option<()>,
    ) -> Option<()> {
        let [b0, b1, _] = at;
        let (a, b) = (a.get(start(at, self.a_strides)..)?, b.get(start([b0, b1, 0], self.b_strides)..)?);
        let [depth, columns, a_step, b_step] =
            [self.k, self.n, self.a_strides[3], self.b_strides[2]].map(|size| size as usize);
        let b_column = self.b_strides[3] as usize;
        let lanes = if b_column == 1 { LANES } else { 1 };
        let done = self.done_by_vectors([a, b], [a_step, b_step, b_column], &mut put)?;
        for j in (done..columns).step_by(lanes) {
            let b = b.get(j.wrapping_mul(b_column)..)?;
            let mut acc = [0i32; LANES];
            let width = lanes.min(columns.wrapping_sub(j));
            if width == 1 {
                let sum = acc.first_mut()?;
                *sum = if a_step == 1 && b_step == 1 {
                    self.sum(a.get(..depth)?.iter().zip(b.get(..depth)?))
                } else {
                    // A step of 0 repeats one element; `step_by` wants at least 1.
                    let (a_last, b_last) = (last(a_step, depth), last(b_step, depth));
                    let a = a.get(..=a_last)?.iter().step_by(a_step.max(1)).cycle();
                    let b = b.get(..=b_last)?.iter().step_by(b_step.max(1)).cycle();
                    self.sum(a.zip(b).take(depth))
                };
            } else {
                let (mut a_at, mut b_at) = (0usize, 0usize);
                for _ in 0..depth {
                    let a = *a.get(a_at)?;
                    let b = b.get(b_at..b_at.wrapping_add(width))?;
                    if let Some(b) = b.first_chunk::<LANES>() {
                        self.accumulate(&mut acc, a, b);
                    } else {
                        self.accumulate(&mut acc, a, b);
                    }
                    a_at = a_at.wrapping_add(a_step);
                    b_at = b_at.wrapping_add(b_step);
                }
            }
            for (lane, &acc) in (0..width).zip(&acc) {
                put(j.wrapping_add(lane), acc)?;
            }
        }
        Some(())
    }

    /// Hands all sums to `put`, up to four at a time, with the place of the first in an output of these strides and how far
    /// their places lie apart; `a` and `b` are whole tensors.
    /// For operands of which one has neighbours along the depth ([`Self::has_neighbours`]).
    #[cfg(dsp)]
    #[inline(never)]
    pub(super) fn all(
        &self,
        [a, b]: [&[i8]; 2],
        y_strides: [u32; 4],
        mut put: impl FnMut([usize; 2], &[i32]) -> Option<()>,
    ) -> Option<()> {
        let [depth, rows, columns, row_step, column_step] =
            [self.k, self.m, self.n, y_strides[2], y_strides[3]].map(|size| size as usize);
        let mut sums = [[0; dsp::TOGETHER]; dsp::SUMS];
        for (b0, b1) in (0..self.batch[0]).flat_map(|b0| (0..self.batch[1]).map(move |b1| (b0, b1))) {
            let at = [b0, b1, 0];
            let (rows_of_a, columns_of_b) = self.vectors(at, [a, b])?;
            // Filters are read where they lie; the others are widened, four at a time.
            let ((filters, filters_len, filter_step), (others, others_len, other_step)) = match self.b_strides[2] {
                1 => ((columns_of_b, columns, column_step), (rows_of_a, rows, row_step)),
                _ => ((rows_of_a, rows, row_step), (columns_of_b, columns, column_step)),
            };
            let start = start(at, y_strides);
            for other in (0..others_len).step_by(dsp::TOGETHER) {
                let count = dsp::TOGETHER.min(others_len.wrapping_sub(other));
                for filter in (0..filters_len).step_by(dsp::SUMS) {
                    let chosen = filter..filters_len.min(filter.wrapping_add(dsp::SUMS));
                    dsp::products(depth, (&filters, chosen.clone()), (&others, other, count), &mut sums)?;
                    for (filter, sums) in chosen.zip(&sums) {
                        let place = start
                            .wrapping_add(filter.wrapping_mul(filter_step))
                            .wrapping_add(other.wrapping_mul(other_step));
                        put([place, other_step], sums.get(..count)?)?;
                    }
                }
            }
        }
        Some(())
    }

    /// Whether the elements of a row of `a`, or of a column of `b`, are neighbours in memory.
    #[cfg(dsp)]
    pub(super) fn has_neighbours(&self) -> bool {
        self.a_strides[3] == 1 || self.b_strides[2] == 1
    }

    /// The rows of `a`, from this one on, and the columns of `b`.
    #[cfg(dsp)]
    fn vectors<'a>(&self, at: [u32; 3], [a, b]: [&'a [i8]; 2]) -> Option<(Vectors<'a>, Vectors<'a>)> {
        let vectors = |elements: &'a [i8], at: [u32; 3], strides: [u32; 4], [apart, step]: [usize; 2], zero: i32| {
            let elements = elements.get(start(at, strides)..)?;
            Some(Vectors { elements, apart: strides[apart] as usize, step: strides[step] as usize, zero })
        };
        let rows = vectors(a, at, self.a_strides, [2, 3], self.a_zero)?;
        Some((rows, vectors(b, [at[0], at[1], 0], self.b_strides, [3, 2], self.b_zero)?))
    }

    /// Computes columns from the first on with the core's own kernel, and returns how many are done.
    #[inline(always)]
    fn done_by_vectors(
        &self,
        [a, b]: [&[i8]; 2],
        [a_step, b_step, b_column]: [usize; 3],
        put: &mut impl FnMut(usize, i32) -> Option<()>,
    ) -> Option<usize> {
        #[cfg(any(x86, neon))]
        if let Some(core) = Products::detect() {
            let (depth, columns, zeros) = (self.k as usize, self.n as usize, [self.a_zero, self.b_zero]);
            let mut j = 0usize;
            if a_step == 1 && b_step == 1 {
                let a = a.get(..depth)?;
                while columns.wrapping_sub(j) >= 4 {
                    let column = |i: usize| b.get(j.wrapping_add(i).wrapping_mul(b_column)..)?.get(..depth);
                    let sums = core.dots(a, [column(0)?, column(1)?, column(2)?, column(3)?], zeros);
                    for (i, sum) in sums.into_iter().enumerate() {
                        put(j.wrapping_add(i), sum)?;
                    }
                    j = j.wrapping_add(4);
                }
            } else if b_column == 1 {
                while columns.wrapping_sub(j) >= LANES {
                    let weight = |k: usize| a.get(k.wrapping_mul(a_step)).copied();
                    let row = |k: usize| b.get(k.wrapping_mul(b_step).wrapping_add(j)..)?.first_chunk();
                    let sums = core.weighted_sum(depth, weight, row, zeros)?;
                    for (i, sum) in sums.into_iter().enumerate() {
                        put(j.wrapping_add(i), sum)?;
                    }
                    j = j.wrapping_add(LANES);
                }
            }
            return Some(j);
        }
        let _ = (a, b, a_step, b_step, b_column, put);
        Some(0)
    }

    #[inline(always)]
    fn term(&self, a: i8, b: i8) -> i32 {
        i32::from(a).wrapping_sub(self.a_zero).wrapping_mul(i32::from(b).wrapping_sub(self.b_zero))
    }

    #[inline(always)]
    fn sum<'a>(&self, pairs: impl Iterator<Item = (&'a i8, &'a i8)>) -> i32 {
        pairs.fold(0i32, |sum, (&a, &b)| sum.wrapping_add(self.term(a, b)))
    }

    /// `acc[i] += (a − zero_point_a) · (b[i] − zero_point_b)`.
    #[inline(always)]
    fn accumulate(&self, acc: &mut [i32; LANES], a: i8, b: &[i8]) {
        for (acc, &b) in acc.iter_mut().zip(b) {
            *acc = acc.wrapping_add(self.term(a, b));
        }
    }
}

/// Sums of rows, which are asked for in their order.
pub(super) struct InOrder {
    /// Of four rows, for each column.
    #[cfg(dsp)]
    ahead: [[i32; dsp::TOGETHER]; dsp::SUMS],
}

impl InOrder {
    /// Before the first row.
    pub(super) const NEW: Self = Self {
        #[cfg(dsp)]
        ahead: [[0; dsp::TOGETHER]; dsp::SUMS],
    };

    /// As [`Sums::row`], of the first `seen` columns.
    #[inline(always)]
    pub(super) fn row(
        &mut self,
        sums: &Sums,
        (at, seen): ([u32; 3], u32),
        [a, b]: [&[i8]; 2],
        put: impl FnMut(usize, i32) -> Option<()>,
    ) -> Option<()> {
        #[cfg(dsp)]
        if sums.b_strides[2] == 1 {
            return self.row_of_neighbours(sums, (at, seen), [a, b], put);
        }
        Sums { n: seen, ..*sums }.row(at, a, b, put)
    }

    /// As [`Self::row`], where the elements of a column of `b` are neighbours.
    #[cfg(dsp)]
    #[inline(never)]
    fn row_of_neighbours(
        &mut self,
        sums: &Sums,
        (at, seen): ([u32; 3], u32),
        operands: [&[i8]; 2],
        mut put: impl FnMut(usize, i32) -> Option<()>,
    ) -> Option<()> {
        let (depth, columns, seen) = (sums.k as usize, sums.n as usize, seen as usize);
        // All sums of four rows are kept, or some of one.
        let together = if columns <= dsp::SUMS { dsp::TOGETHER } else { 1 };
        let lane = at[2] as usize % together;
        if together == 1 || lane == 0 {
            let (rows, filters) = sums.vectors(at, operands)?;
            let count = together.min((sums.m.wrapping_sub(at[2])) as usize);
            for from in (0..if together == 1 { seen } else { 1 }).step_by(dsp::SUMS) {
                let chosen = if together == 1 { from..seen.min(from.wrapping_add(dsp::SUMS)) } else { 0..columns };
                dsp::products(depth, (&filters, chosen.clone()), (&rows, 0, count), &mut self.ahead)?;
                if together == 1 {
                    for (column, sums) in chosen.zip(&self.ahead) {
                        put(column, *sums.first()?)?;
                    }
                }
            }
        }
        if together > 1 {
            for (column, sums) in self.ahead.iter().enumerate().take(seen) {
                put(column, *sums.get(lane)?)?;
            }
        }
        Some(())
    }
}

/// Index of the last of `count` elements `step` apart.
fn last(step: usize, count: usize) -> usize {
    count.wrapping_sub(1).wrapping_mul(step)
}

/// The element at this outer batch, inner batch and row.
pub(super) fn start(at: [u32; 3], strides: [u32; 4]) -> usize {
    at.iter()
        .zip(strides)
        .fold(0usize, |sum, (&at, stride)| sum.wrapping_add((at as usize).wrapping_mul(stride as usize)))
}

/// Whether the last element reached lies inside the tensor, and so every other.
pub(super) fn reaches_inside(tensor: &TensorRecord, sizes: [u32; 4], strides: [u32; 4]) -> bool {
    let farthest = sizes.iter().zip(strides).try_fold(0u64, |sum, (&size, stride)| {
        sum.checked_add(u64::from(size.checked_sub(1)?).checked_mul(u64::from(stride))?)
    });
    farthest.is_some_and(|farthest| farthest < memory::elements(tensor) as u64)
}
