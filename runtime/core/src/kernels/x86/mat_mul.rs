//! Products of two activations, whole matrices at a time: as [`super::columns`], with the second matrix in the place of filters.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::columns::{Block, GROUPS, PANEL, PIXELS, Panel, transposed};
use super::finish::{GROUP, Group, Place, Target};
use super::tile::MOST_SEGMENTS;
use super::{Avx2, load_first};
use crate::kernels::channels::Output;
use crate::kernels::product::{Sums, start};

/// Deepest sum.
const MAX_DEPTH: usize = 256;

/// Columns at most.
pub(in crate::kernels) const MAX_COLUMNS: usize = GROUPS * GROUP;

/// Rows that are multiplied together.
pub(in crate::kernels) const ROWS: usize = PIXELS;

/// Widened elements of rows of the first matrix, less its zero point, those of each from `MAX_DEPTH · i` on; 0 behind the last.
type Left = [[i16; MAX_DEPTH]; ROWS];

/// Some rows of a product.
pub(in crate::kernels) struct Rows<'r> {
    block: &'r Block<'r>,
    left: &'r Left,
    count: usize,
}

impl Rows<'_> {
    /// How many there are.
    pub(in crate::kernels) fn count(&self) -> usize {
        self.count
    }

    /// Computes them, and writes the first from element `at` of `y` on, the others each `distance` elements behind.
    pub(in crate::kernels) fn write(&self, at: usize, distance: usize, y: &mut Output<'_>) -> Option<()> {
        let place = Place { at, distance, count: self.block.count };
        let [a, b, c, d] = self.left.each_ref().map(|row| row.as_ptr());
        // SAFETY: the core has AVX2, or there would be no rows. `products` has made sure that they fit: each is as long as
        // pairs are, and the panel has a group for each eight columns.
        unsafe {
            match self.count {
                ROWS => self.block.pixels([a, b, c, d], place, y),
                3 => self.block.pixels([a, b, c], place, y),
                2 => self.block.pixels([a, b], place, y),
                _ => self.block.pixels([a], place, y),
            }
        }
    }
}

impl Sums {
    /// Whether [`Avx2::products`] can compute them: rows of both matrices fit, and all columns of the second a panel.
    pub(in crate::kernels) fn fit_panels(&self) -> bool {
        let (k, n) = (self.k as usize, self.n as usize);
        let dense = self.a_strides[3] == 1 && (self.b_strides[2] == 1 || self.b_strides[3] == 1);
        let vectors = k.next_multiple_of(4) / 2;
        dense && k <= MAX_DEPTH && n <= MAX_COLUMNS && vectors * n.div_ceil(GROUP).next_multiple_of(2) <= PANEL
    }
}

impl Avx2 {
    /// Hands over the rows of all products, a few at a time with the batches and row of the first. They are finished as
    /// `group` and `target` say, the same for all columns. `None` if they do not [fit](Sums::fit_panels).
    pub(in crate::kernels) fn products(
        self,
        sums: &Sums,
        [a, b]: [&[i8]; 2],
        group: Group,
        target: Target,
        rows: impl FnMut([u32; 3], Rows<'_>) -> Option<()>,
    ) -> Option<()> {
        // SAFETY: the core has AVX2.
        unsafe { products(sums, [a, b], group, target, rows) }
    }
}

#[target_feature(enable = "avx2")]
fn products(
    sums: &Sums,
    [a, b]: [&[i8]; 2],
    group: Group,
    target: Target,
    mut rows: impl FnMut([u32; 3], Rows<'_>) -> Option<()>,
) -> Option<()> {
    // What reads them relies on it: rows and panels are no longer than there is room for.
    if !sums.fit_panels() {
        return None;
    }
    let (k, count) = (sums.k as usize, sums.n as usize);
    let pairs = k.next_multiple_of(4) / 2;
    let constants = [group; GROUPS];
    let mut panel: Panel = [MaybeUninit::uninit(); PANEL];
    let mut left = [[0; MAX_DEPTH]; ROWS];
    for b0 in 0..sums.batch[0] {
        for b1 in 0..sums.batch[1] {
            let matrix = b.get(start([b0, b1, 0], sums.b_strides)..)?;
            for (i, columns) in panel.chunks_exact_mut(pairs).enumerate().take(count.div_ceil(GROUP)) {
                write_columns(sums, matrix, i * GROUP, columns)?;
            }
            let offsets = [0; MOST_SEGMENTS];
            let block = Block {
                panel: &panel,
                constants: &constants,
                vectors: pairs,
                count,
                offsets,
                segments: 1,
                pairs,
                target,
            };
            for i in (0..sums.m).step_by(ROWS) {
                let together = (ROWS as u32).min(sums.m - i);
                for (i, left) in (i..i + together).zip(&mut left) {
                    let row = a.get(start([b0, b1, i], sums.a_strides)..)?.get(..k)?;
                    for (slot, &a) in left.iter_mut().zip(row) {
                        *slot = i16::from(a) - sums.a_zero as i16;
                    }
                }
                rows([b0, b1, i], Rows { block: &block, left: &left, count: together as usize })?;
            }
        }
    }
    Some(())
}

/// Writes the columns from `first` on of the second matrix, less its zero point: of eight columns, a vector for every pair of
/// rows. What lies behind the last row meets zeros, what lies behind the last column is dropped.
#[target_feature(enable = "avx2")]
fn write_columns(sums: &Sums, b: &[i8], first: usize, to: &mut [MaybeUninit<__m256i>]) -> Option<()> {
    let zero = _mm256_set1_epi16(sums.b_zero as i16);
    let (row_step, column_step) = (sums.b_strides[2] as usize, sums.b_strides[3] as usize);
    let last_column = sums.n as usize - 1;
    if row_step == 1 {
        for (i, to) in to.chunks_mut(GROUP).enumerate() {
            let mut columns = [_mm_setzero_si128(); GROUP];
            for (column, slot) in columns.iter_mut().enumerate() {
                let at = (first + column).min(last_column) * column_step + 2 * GROUP * i;
                *slot = load_first(b.get(at..)?);
            }
            for (to, pairs) in to.iter_mut().zip(transposed(columns)) {
                to.write(_mm256_sub_epi16(_mm256_cvtepi8_epi16(pairs), zero));
            }
        }
    } else {
        let last_row = sums.k as usize - 1;
        for (pair, to) in to.iter_mut().enumerate() {
            let row = |row: usize| b.get(row.min(last_row) * row_step + first..);
            let pairs = _mm_unpacklo_epi8(load_first(row(2 * pair)?), load_first(row(2 * pair + 1)?));
            to.write(_mm256_sub_epi16(_mm256_cvtepi8_epi16(pairs), zero));
        }
    }
    Some(())
}
