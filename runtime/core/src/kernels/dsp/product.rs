//! Products of two activations: four vectors of one operand, widened once, times vectors of the other where they lie.

use core::arch::{asm, naked_asm};
use core::mem::offset_of;
use core::ops::Range;

use super::{extension, quad_by_4, widened};

/// Vectors that are widened together.
pub(in crate::kernels) const TOGETHER: usize = 4;

/// Sums for each of them that are kept at a time.
pub(in crate::kernels) const SUMS: usize = 64;

/// Depth that is widened at a time, in quads.
const QUADS: usize = 16;

/// Rows or columns of an operand.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Vectors<'a> {
    /// The first element of the first vector, and all behind it.
    pub(in crate::kernels) elements: &'a [i8],
    /// How far vectors lie apart.
    pub(in crate::kernels) apart: usize,
    /// How far the elements of one lie apart.
    pub(in crate::kernels) step: usize,
    /// Zero point.
    pub(in crate::kernels) zero: i32,
}

/// Words of four vectors: elements 0 and 2 of a quad, then elements 1 and 3, of every vector.
type Panel = [[u32; TOGETHER]; 2 * QUADS];

/// `sums[f][p] = Σ_k (filters[f][k] − zero) · (panel[p][k] − zero)` over `depth` elements, of the vectors `filters` of one
/// operand, whose elements are neighbours, and up to four of the other, from `panel.0` on; others get whatever. There are
/// [`SUMS`] filters at most.
pub(in crate::kernels) fn products(
    depth: usize,
    (filters, chosen): (&Vectors<'_>, Range<usize>),
    (panel, first, count): (&Vectors<'_>, usize, usize),
    sums: &mut [[i32; TOGETHER]; SUMS],
) -> Option<()> {
    const DEPTH: usize = 4 * QUADS;
    let sums = sums.get_mut(..chosen.len())?;
    let mut words: Panel = [[0; TOGETHER]; 2 * QUADS];
    for from in (0..depth).step_by(DEPTH) {
        let len = DEPTH.min(depth.wrapping_sub(from));
        let quads = len.div_ceil(4);
        let used = words.get_mut(..quads.wrapping_mul(2))?;
        let mut begins = [0; TOGETHER];
        for (vector, begin) in begins.iter_mut().enumerate().take(count) {
            let start = first.wrapping_add(vector).wrapping_mul(panel.apart);
            let start = start.wrapping_add(from.wrapping_mul(panel.step));
            let total = widen(panel, [start, len], vector, used)?;
            *begin = total.wrapping_mul(filters.zero).wrapping_neg();
        }
        if from == 0 {
            sums.fill(begins);
        } else {
            sums.iter_mut()
                .for_each(|sums| sums.iter_mut().zip(begins).for_each(|(sum, x)| *sum = sum.wrapping_add(x)));
        }
        let start = chosen.start.wrapping_mul(filters.apart).wrapping_add(from);
        multiply(used, (filters.elements.get(start..)?, filters.apart, len), sums)?;
    }
    Some(())
}

/// Widens `len` elements from `start` on, less their zero point, to a column of words, filled up with zeros; returns their
/// sum.
fn widen(of: &Vectors<'_>, [start, len]: [usize; 2], vector: usize, words: &mut [[u32; TOGETHER]]) -> Option<i32> {
    let zero = of.zero as i8;
    let mut column = Column { words: words.as_flattened_mut().get_mut(vector..)?.chunks_mut(TOGETHER), zero, total: 0 };
    let whole = len / 4;
    if of.step == 1 {
        let elements = of.elements.get(start..start.wrapping_add(len))?;
        let (quads, rest) = elements.as_chunks::<4>();
        quads.iter().for_each(|&quad| column.push(quad));
        if let [first, rest @ ..] = rest {
            column.push([*first, *rest.first().unwrap_or(&zero), *rest.get(1).unwrap_or(&zero), zero]);
        }
        return Some(column.total);
    }
    let elements = of.elements.get(start..)?;
    let at = |i: usize| elements.get(i.wrapping_mul(of.step)).copied();
    at(len.wrapping_sub(1))?;
    for quad in 0..len.div_ceil(4) {
        let i = quad.wrapping_mul(4);
        let next = |k: usize| if quad < whole || i.wrapping_add(k) < len { at(i.wrapping_add(k)) } else { Some(zero) };
        column.push([next(0)?, next(1)?, next(2)?, next(3)?]);
    }
    Some(column.total)
}

/// Where the words of a vector go.
struct Column<'w> {
    words: core::slice::ChunksMut<'w, u32>,
    zero: i8,
    total: i32,
}

impl Column<'_> {
    /// Adds a quad.
    #[inline(always)]
    fn push(&mut self, quad: [i8; 4]) {
        let zeros = u32::from(self.zero as i16 as u16).wrapping_mul(0x1_0001);
        for pair in widened(quad) {
            let (word, total): (u32, i32);
            // SAFETY: arithmetic on registers; no memory or stack. It sets flags.
            unsafe {
                asm!(
                    "ssub16 {word}, {pair}, {zeros}",
                    "smlad {total}, {word}, {ones}, {before}",
                    word = out(reg) word, total = lateout(reg) total,
                    pair = in(reg) pair, zeros = in(reg) zeros, ones = in(reg) 0x1_0001u32, before = in(reg) self.total,
                    options(pure, nomem, nostack),
                );
            }
            self.total = total;
            if let Some(slot) = self.words.next().and_then(<[u32]>::first_mut) {
                *slot = word;
            }
        }
    }
}

/// Adds the products of `len` elements of vectors `apart` with four others, which `words` hold.
fn multiply(
    words: &[[u32; TOGETHER]],
    (filters, apart, len): (&[i8], usize, usize),
    sums: &mut [[i32; TOGETHER]],
) -> Option<()> {
    let reach = words.len().checked_mul(2).filter(|&reach| reach > 0)?;
    // Filters that can be read to the end of their last quad; what is read behind a vector meets zeros.
    let inside = match filters.len().checked_sub(reach) {
        Some(last) => last.checked_div(apart).unwrap_or(usize::MAX).saturating_add(1).min(sums.len()),
        None => 0,
    };
    let (whole, rest) = sums.split_at_mut_checked(inside)?;
    if !whole.is_empty() {
        multiply_inside(words, filters, apart, whole);
    }
    for (i, sums) in rest.iter_mut().enumerate() {
        let start = inside.wrapping_add(i).wrapping_mul(apart);
        let mut filter = [0i8; 4 * QUADS];
        for (slot, &x) in filter.iter_mut().zip(filters.get(start..start.wrapping_add(len))?) {
            *slot = x;
        }
        multiply_inside(words, &filter, 0, core::slice::from_mut(sums));
    }
    Some(())
}

/// What the kernel reads and writes. It moves the pointers as it goes.
#[repr(C)]
struct Block {
    words: *const [u32; TOGETHER],
    filters: *const i8,
    apart: usize,
    sums: *mut [i32; TOGETHER],
    /// Quads, at least 1.
    quads: usize,
    /// Filters, at least 1.
    count: usize,
}

/// As [`multiply`], where all quads of all filters lie in `filters`; there is one of each at least.
fn multiply_inside(words: &[[u32; TOGETHER]], filters: &[i8], apart: usize, sums: &mut [[i32; TOGETHER]]) {
    let (quads, count) = (words.len() / 2, sums.len());
    let reach = count.wrapping_sub(1).saturating_mul(apart).saturating_add(quads.saturating_mul(4));
    if quads == 0 || count == 0 || filters.len() < reach {
        return;
    }
    let mut block =
        Block { words: words.as_ptr(), filters: filters.as_ptr(), apart, sums: sums.as_mut_ptr(), quads, count };
    // SAFETY: `words` has two rows for each of `quads` quads, `sums` a row for each of `count` filters; `filters` has the
    // 4 · `quads` bytes of each filter, `apart` from one to the next, as was checked.
    unsafe { kernel(&raw mut block) };
}

/// 28 instructions for 32 products.
#[unsafe(naked)]
unsafe extern "C" fn kernel(block: *mut Block) {
    naked_asm!(
        extension!(),
        "push {{r4-r11, lr}}",
        "mov lr, r0",
        "2:",
        "ldr r11, [lr, #{filters}]",
        "ldr r4, [lr, #{apart}]",
        "add r4, r4, r11",
        "str r4, [lr, #{filters}]",
        "ldr r4, [lr, #{sums}]",
        "ldm r4, {{r0, r1, r2, r3}}",
        "ldr r10, [lr, #{words}]",
        "ldr r12, [lr, #{quads}]",
        "lsrs r12, r12, #1",
        "bcc 3f",
        quad_by_4!(),
        "beq 4f",
        "3:",
        quad_by_4!(),
        quad_by_4!(),
        "subs r12, r12, #1",
        "bne 3b",
        "4:",
        "ldr r4, [lr, #{sums}]",
        "stm r4!, {{r0, r1, r2, r3}}",
        "str r4, [lr, #{sums}]",
        "ldr r4, [lr, #{count}]",
        "subs r4, r4, #1",
        "str r4, [lr, #{count}]",
        "bne 2b",
        "pop {{r4-r11, pc}}",
        words = const offset_of!(Block, words),
        filters = const offset_of!(Block, filters),
        apart = const offset_of!(Block, apart),
        sums = const offset_of!(Block, sums),
        quads = const offset_of!(Block, quads),
        count = const offset_of!(Block, count),
    )
}
