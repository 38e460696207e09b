//! Maximum pooling.

use super::bands::{self, Bands};
use super::memory::{self, BLOCK};
use super::window::{Axis, Taps, Window};
use crate::error::Reason;
use crate::op::{MaxPool2dParams, OpKind};
use crate::operator::Operator;
use crate::plan::{DType, OpView, Plan};

/// `y = clamp(max x)` over the window's elements inside the input: exact.
///
/// `x` is `[N, H, W, C]`, `y` `[N, OH, OW, C]`, with one dtype, scale and zero point. The last windows may
/// hang over the padded input (`ceil_mode`). A window without elements has the maximum −∞, which is the
/// lowest value of the clamp.
#[derive(Debug, Clone, Copy)]
pub struct MaxPool2d;

/// Input elements of an axis that the taps of a window read.
fn elements(axis: &Axis, taps: Taps) -> impl Iterator<Item = usize> + Clone {
    let (start, step) = (taps.start, axis.dilation.get());
    (0..taps.len()).map(move |tap| start.wrapping_add(tap.wrapping_mul(step)))
}

/// Elements are numbers of type `T`: `load` and `store` are given the index of a block's first.
#[inline(always)]
fn run<T: Copy + Ord>(
    window: &Window,
    clamp: [T; 2],
    load: impl Fn(usize, &mut [T]),
    mut store: impl FnMut(usize, &[T]),
) -> Option<()> {
    let Window { batch, rows, cols, in_channels, .. } = *window;
    let (mut highest, mut values) = ([clamp[0]; BLOCK], [clamp[0]; BLOCK]);
    let mut at = 0usize;
    for n in 0..batch {
        for oy in 0..rows.output {
            let ty = rows.taps(oy);
            for ox in 0..cols.output {
                let tx = cols.taps(ox);
                for c in (0..in_channels).step_by(BLOCK) {
                    let lanes = BLOCK.min(in_channels.wrapping_sub(c));
                    let (highest, values) = (highest.get_mut(..lanes)?, values.get_mut(..lanes)?);
                    highest.fill(clamp[0]);
                    for iy in elements(&rows, ty) {
                        let row = n.wrapping_mul(rows.input).wrapping_add(iy).wrapping_mul(cols.input);
                        for ix in elements(&cols, tx) {
                            let pixel = row.wrapping_add(ix).wrapping_mul(in_channels);
                            load(pixel.wrapping_add(c), values);
                            for (highest, &value) in highest.iter_mut().zip(&*values) {
                                *highest = value.max(*highest);
                            }
                        }
                    }
                    for highest in highest.iter_mut() {
                        *highest = clamp[1].min(*highest);
                    }
                    store(at, highest);
                    at = at.wrapping_add(lanes);
                }
            }
        }
    }
    Some(())
}

/// As [`run`] with elements as they are: of these vectors hold the most.
#[cfg(neon)]
fn run_bytes(window: &Window, clamp: [i32; 2], x: &[u8], y: &mut [u8]) -> Option<()> {
    let load = |at: usize, values: &mut [i8]| {
        for (value, &x) in values.iter_mut().zip(x.get(at..).unwrap_or_default()) {
            *value = x as i8;
        }
    };
    let store = |at: usize, values: &[i8]| {
        for (y, &value) in y.get_mut(at..).unwrap_or_default().iter_mut().zip(values) {
            *y = value as u8;
        }
    };
    run(window, clamp.map(|end| end as i8), load, store)
}

/// As [`run`] with elements of a type.
fn run_any(window: &Window, clamp: [i32; 2], dtype: DType, x: &[u8], y: &mut [u8]) -> Option<()> {
    #[cfg(neon)]
    if dtype == DType::I8 {
        return run_bytes(window, clamp, x, y);
    }
    let load = |at: usize, values: &mut [i32]| memory::load(x, dtype, at, values);
    run(window, clamp, load, |at, values| memory::store(y, dtype, at, values))
}

impl Operator for MaxPool2d {
    const KIND: OpKind = OpKind::MaxPool2d;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 1)?;
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let p: MaxPool2dParams = memory::params(op)?;
        memory::check_same_quantization(&x, &y)?;
        let window = Window::new(&x, &y, [p.kernel, p.strides, p.dilations], p.pads, false)?;
        if window.in_channels != window.out_channels {
            return Err(Reason::OperatorShape);
        }
        memory::check_clamp(p.clamp, &y)?;
        bands::check([&x, &y], window.batch, window.rows, window.band_height())
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let p: MaxPool2dParams = memory::params(op)?;
        let window = Window::new(&x, &y, [p.kernel, p.strides, p.dilations], p.pads, false)?;
        let bands = Bands::new([&x, &y], window.rows, window.band_height()).ok_or(Reason::OperatorShape)?;
        for band in bands {
            let window = Window { rows: band.rows, ..window };
            let (inputs, out) = memory::split_part(plan, arena, &y, band.y)?;
            run_any(&window, p.clamp, y.dtype, inputs.part(&x, band.x)?, out).ok_or(Reason::OperatorShape)?;
        }
        Ok(())
    }
}
