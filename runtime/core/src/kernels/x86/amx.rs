//! Products of matrices (AMX): sixteen rows of bytes times quads of sixteen channels in an instruction.
//!
//! A row is what a window reads of a segment; rows of neighbouring windows lie a step apart in the tile of the input, so
//! that they need no copying. Where a row of windows ends, those up to the next row's first are multiplied too, and dropped.

use core::arch::asm;
use core::arch::x86_64::*;
use std::sync::OnceLock;

use super::bytes::Panel;
use super::dot::{LANES, QUAD, Zmm};
use super::tile::{Tile, Windows};
use crate::kernels::channels::Output;

/// Rows of a matrix.
const ROWS: usize = 16;

/// Quads of a row of a matrix at most.
const MOST_QUADS: usize = 16;

/// As few quads as make matrices worth it: an estimate, not a measurement. With so few they do 384 products a cycle of the
/// 1,024 that they can, vectors 128.
const LEAST_QUADS: usize = 6;

/// Proof that the core multiplies matrices of bytes, and that the system lets this process.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernels) struct Amx(());

impl Amx {
    /// The proof, if it can be had.
    #[inline(always)]
    pub(super) fn detect() -> Option<Self> {
        static HAS: OnceLock<bool> = OnceLock::new();
        HAS.get_or_init(|| has_instructions() && permitted()).then_some(Self(()))
    }
}

/// Whether the core has AMX for bytes, and the system keeps its registers.
fn has_instructions() -> bool {
    // Bits of the extended feature flags: tiles, and bytes in them.
    const FEATURES: u32 = 0b11 << 24;
    // Configuration and data of tiles, in the control register of what the system keeps.
    const KEPT: u64 = 0b11 << 17;
    if __cpuid(0).eax < 7 || !std::is_x86_feature_detected!("avx512vnni") {
        return false;
    }
    // SAFETY: a core with AVX-512 whose system says so has the instruction.
    __cpuid_count(7, 0).edx & FEATURES == FEATURES && unsafe { xcr0() } & KEPT == KEPT
}

/// What state of the core the system keeps.
#[target_feature(enable = "xsave")]
fn xcr0() -> u64 {
    // SAFETY: register 0 is there where the instruction is.
    unsafe { _xgetbv(0) }
}

/// Asks Linux for the registers, which it gives to those who ask (`arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`).
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    let result: i64;
    // SAFETY: the call changes what the process may use, and nothing else; the kernel overwrites `rcx` and `r11`.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") 0x1023,
            in("rsi") 18,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Other systems are not asked.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// How windows make matrices.
#[derive(Clone, Copy)]
struct Shape {
    /// Bytes from a window to the next.
    step: usize,
    /// Windows from a row's first to the next row's, those between rows included.
    pitch: usize,
    /// Quads of a row of a matrix: a segment is a whole number of them.
    quads: usize,
}

impl Shape {
    /// `None` where rows of windows are no whole number of steps apart, or matrices would be small.
    fn of(windows: &Windows<'_>) -> Option<Self> {
        let [down, step] = [windows.rows.stride * windows.row_len(), windows.cols.stride * windows.channels];
        let pitch = down.checked_div(step)?;
        let segment = windows.pairs() / 2;
        let quads = (LEAST_QUADS..=MOST_QUADS).rev().find(|quads| segment.is_multiple_of(*quads))?;
        (pitch * step == down).then_some(Self { step, pitch, quads })
    }
}

/// Sums of a matrix: of sixteen windows, and as many channels of each.
type Sums = [[i32; LANES]; ROWS];

/// The configuration of the tile registers: 0 to 3 hold sums, 4 and 5 rows, 6 and 7 quads of channels.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start: u8,
    none: [u8; 14],
    /// Bytes of a row.
    widths: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    fn new(quads: usize) -> Self {
        let (mut widths, mut rows) = ([0; 16], [0; 16]);
        widths[..8].fill(64);
        widths[4..6].fill((quads * QUAD) as u16);
        rows[..6].fill(ROWS as u8);
        rows[6..8].fill(quads as u8);
        Self { palette: 1, start: 0, none: [0; 14], widths, rows }
    }
}

/// The tile registers, configured; released in the end.
struct Registers(());

impl Registers {
    fn new(_: Amx, quads: usize) -> Self {
        let config = Config::new(quads);
        // SAFETY: the core has tiles, and this is a configuration of palette 1 within its limits.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, preserves_flags, readonly)) };
        Self(())
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: the core has tiles.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// Where two vectors of quads and two blocks of windows are multiplied.
#[derive(Clone, Copy)]
struct Operands {
    /// The first window of each block.
    x: [*const u8; 2],
    /// Bytes from a window to the next.
    step: usize,
    /// The first quads of each vector of channels.
    quads: [*const __m512i; 2],
}

/// Sets the sums of both blocks: those of each vector of channels to its initial ones.
///
/// # Safety
///
/// There are [`Registers`].
#[inline(always)]
unsafe fn begin([a, b]: [*const __m512i; 2]) {
    // SAFETY: sixteen times the same 64 bytes are read.
    unsafe {
        asm!(
            "tileloadd tmm0, [{a} + {zero}*1]",
            "tileloadd tmm1, [{b} + {zero}*1]",
            "tileloadd tmm2, [{a} + {zero}*1]",
            "tileloadd tmm3, [{b} + {zero}*1]",
            a = in(reg) a,
            b = in(reg) b,
            zero = in(reg) 0usize,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Adds the products of a matrix of each block with one of each vector of channels.
///
/// # Safety
///
/// There are [`Registers`], and as many quads as they say from `at` bytes behind each window and from each of `quads` on.
#[inline(always)]
unsafe fn multiply(operands: &Operands, at: usize) {
    let [x, next] = operands.x.map(|x| x.wrapping_add(at));
    // SAFETY: says the caller.
    unsafe {
        asm!(
            "tileloadd tmm6, [{a} + {row}*1]",
            "tileloadd tmm4, [{x} + {step}*1]",
            "tileloadd tmm7, [{b} + {row}*1]",
            "tileloadd tmm5, [{next} + {step}*1]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            a = in(reg) operands.quads[0],
            b = in(reg) operands.quads[1],
            x = in(reg) x,
            next = in(reg) next,
            step = in(reg) operands.step,
            row = in(reg) size_of::<__m512i>(),
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// The sums of the first block, and those of the second, of each vector of channels.
///
/// # Safety
///
/// There are [`Registers`].
#[inline(always)]
unsafe fn end(sums: &mut [[Sums; 2]; 2]) {
    let [[a, b], [c, d]] = sums.each_mut().map(|sums| sums.each_mut().map(|sums| sums.as_mut_ptr()));
    // SAFETY: sixteen times 64 bytes are written to each.
    unsafe {
        asm!(
            "tilestored [{a} + {row}*1], tmm0",
            "tilestored [{b} + {row}*1], tmm1",
            "tilestored [{c} + {row}*1], tmm2",
            "tilestored [{d} + {row}*1], tmm3",
            a = in(reg) a,
            b = in(reg) b,
            c = in(reg) c,
            d = in(reg) d,
            row = in(reg) LANES * size_of::<i32>(),
            options(nostack, preserves_flags),
        );
    }
}

impl Panel<Zmm> {
    /// As [`Panel::run`], for `height` rows of windows. `Some(false)` if they make no matrices.
    #[inline(always)]
    pub(super) fn run_by_matrices(
        &self,
        amx: Amx,
        tile: &Tile<u8>,
        windows: &Windows<'_>,
        height: usize,
        [at, distance]: [usize; 2],
        y: &mut Output<'_>,
    ) -> Option<bool> {
        let Some(shape) = Shape::of(windows) else { return Some(false) };
        let width = windows.cols.output;
        // All windows in a row, with those between.
        let count = (height.checked_sub(1)?) * shape.pitch + width;
        if count < ROWS {
            return Some(false);
        }
        let Shape { step, pitch, quads } = shape;
        let reach = self.offsets.get(self.segments.checked_sub(1)?)? + self.segment_quads * QUAD;
        let vectors = self.count.div_ceil(LANES);
        // What is read of the panel and of the tile.
        self.quads.get(..vectors * self.filter_quads)?;
        let x = tile.from(0, (count - 1) * step + reach)?;
        let _registers = Registers::new(amx, quads);
        let mut sums = [[[[0; LANES]; ROWS]; 2]; 2];
        for first in (0..vectors).step_by(2) {
            // The last vector stands for one that is missing.
            let pair = [first, (first + 1).min(vectors - 1)];
            let together = (vectors - first).min(2);
            for block in (0..count).step_by(2 * ROWS) {
                // Blocks that would reach beyond the last window begin earlier.
                let blocks = [block, block + ROWS].map(|block| block.min(count - ROWS));
                // SAFETY: there are registers. Windows lie in the tile, sixteen from each block's first on; the panel has
                // the quads of both vectors.
                unsafe {
                    begin(pair.map(|vector| &raw const self.initial[vector]));
                    let mut operands = Operands {
                        x: blocks.map(|block| x.wrapping_add(block * step)),
                        step,
                        quads: pair.map(|vector| {
                            self.quads.as_ptr().cast::<__m512i>().wrapping_add(vector * self.filter_quads)
                        }),
                    };
                    for &offset in self.offsets.get(..self.segments)? {
                        for part in (0..self.segment_quads).step_by(quads) {
                            multiply(&operands, offset + part * QUAD);
                            operands.quads = operands.quads.map(|at| at.wrapping_add(quads));
                        }
                    }
                    end(&mut sums);
                }
                for (block, sums) in blocks.into_iter().zip(&sums) {
                    let (mut row, mut column) = (block / pitch, block % pitch);
                    for window in 0..ROWS {
                        if column < width {
                            let at = at + (row * width + column) * distance + first * LANES;
                            let [a, b] = sums.each_ref().map(|sums| self.dot.load(&sums[window]));
                            match together {
                                2 => self.put(&[[a, b]], first, 1, [at, distance], y)?,
                                _ => self.put(&[[a]], first, 1, [at, distance], y)?,
                            }
                        }
                        column += 1;
                        if column == pitch {
                            (row, column) = (row + 1, 0);
                        }
                    }
                }
            }
        }
        Some(true)
    }
}
