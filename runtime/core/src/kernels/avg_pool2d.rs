//! Average pooling.

use super::bands::{self, Bands};
use super::channels::Output;
use super::memory::{self, BLOCK};
#[cfg(mve)]
use super::mve;
use super::window::{Taps, Window};
use crate::error::Reason;
use crate::op::{AvgPool2dParams, OpKind};
use crate::operator::Operator;
use crate::plan::{DType, OpView, Plan, TensorRecord};
use crate::quant::{self, Multiplier};

/// `y = clamp(zero_point_y + round_half_up(Σ(x − zero_point_x) · M / count))` with `M = scale_x / scale_y`.
///
/// `x` and `y` are `[N, H, W, C]` and `[N, OH, OW, C]`, `x` i8 or i16, `y` of any dtype. `count` is the number of window
/// elements inside the input or, with `count_include_pad`, inside the padded input. Every window holds at
/// least one input element, and at most 2^23 (i8) or 2^15 (i16) of them, so sums fit in 32 bits. One rounding:
/// the error against the f64 definition is at most `1/2 + |y − zero_point_y| / 2^31` steps.
#[derive(Debug, Clone, Copy)]
pub struct AvgPool2d;

struct Pool {
    window: Window,
    include_pad: bool,
    multiplier: Multiplier,
    clamp: [i32; 2],
}

impl Pool {
    fn new(p: &AvgPool2dParams, x: &TensorRecord, y: &TensorRecord) -> Result<Self, Reason> {
        memory::check_16_bits(x)?;
        let window = Window::new(x, y, [p.kernel, p.strides, [1, 1]], p.pads, false)?;
        let Window { rows, cols, in_channels, out_channels, .. } = window;
        let (low, high) = x.dtype.range();
        let limit = i32::MAX.checked_div(high.wrapping_sub(low)).unwrap_or(0) as u64;
        let inside = rows.kernel.min(rows.input) as u64 * cols.kernel.min(cols.input) as u64;
        let area = rows.kernel as u64 * cols.kernel as u64;
        let filled = [rows, cols].iter().all(|axis| {
            // The first and the last window reach into the input; so do all between them.
            let last = axis.output.wrapping_sub(1).wrapping_mul(axis.stride);
            axis.kernel > axis.before && last < axis.input.wrapping_add(axis.before)
        });
        if in_channels != out_channels || !filled || inside > limit || area > i32::MAX as u64 || p.count_include_pad > 1
        {
            return Err(Reason::OperatorShape);
        }
        let multiplier = memory::multiplier(p.mantissa, p.shift)?;
        Ok(Self { window, include_pad: p.count_include_pad == 1, multiplier, clamp: p.clamp })
    }

    /// Number of elements that the window at `(oy, ox)` is averaged over.
    fn count(&self, oy: usize, ox: usize, ty: Taps, tx: Taps) -> usize {
        if !self.include_pad {
            return ty.len().wrapping_mul(tx.len());
        }
        let [rows, cols] = [(self.window.rows, oy), (self.window.cols, ox)].map(|(axis, o)| {
            let padded = axis.before.wrapping_add(axis.input).wrapping_add(axis.after);
            axis.kernel.min(padded.saturating_sub(o.wrapping_mul(axis.stride)))
        });
        rows.wrapping_mul(cols)
    }

    fn run(&self, x: &[u8], x_record: &TensorRecord, y: &mut Output<'_>, y_zero: i32) -> Option<()> {
        let Window { batch, rows, cols, in_channels, .. } = self.window;
        let x_zero = i32::from(x_record.zero_point);
        #[cfg(mve)]
        let (mean, row_step) = {
            let mean = mve::Mean { multiplier: self.multiplier, x_zero, zero_point: y_zero, clamp: self.clamp };
            let fits = x_record.dtype == DType::I8 && y.dtype() == DType::I8 && mean.fits(in_channels);
            (fits.then_some(mean), cols.input.wrapping_mul(in_channels))
        };
        let mut sums = [0i32; BLOCK];
        let mut at = 0usize;
        for n in 0..batch {
            for oy in 0..rows.output {
                let ty = rows.taps(oy);
                for ox in 0..cols.output {
                    let tx = cols.taps(ox);
                    let count = self.count(oy, ox, ty, tx) as u64;
                    #[cfg(mve)]
                    if let Some(mean) = &mean {
                        let row = n.wrapping_mul(rows.input).wrapping_add(ty.start).wrapping_mul(cols.input);
                        let start = row.wrapping_add(tx.start).wrapping_mul(in_channels);
                        let pixels = mve::Pixels { rows: ty.len(), cols: tx.len(), row_step, count: count as usize };
                        let y = y.bytes_from(at)?.get_mut(..in_channels)?;
                        if mean.run(x.get(start..)?, pixels, y)? {
                            at = at.wrapping_add(in_channels);
                            continue;
                        }
                    }
                    let offset = x_zero.wrapping_mul(ty.len().wrapping_mul(tx.len()) as i32);
                    for c in (0..in_channels).step_by(BLOCK) {
                        let lanes = BLOCK.min(in_channels.wrapping_sub(c));
                        let sums = sums.get_mut(..lanes)?;
                        sums.fill(0);
                        for iy in ty.start..ty.start.wrapping_add(ty.len()) {
                            let row = n.wrapping_mul(rows.input).wrapping_add(iy).wrapping_mul(cols.input);
                            for ix in tx.start..tx.start.wrapping_add(tx.len()) {
                                let pixel = row.wrapping_add(ix).wrapping_mul(in_channels);
                                accumulate(x, x_record.dtype, pixel.wrapping_add(c), sums);
                            }
                        }
                        for &mut sum in sums {
                            let mean = quant::apply_divided(sum.wrapping_sub(offset), self.multiplier, count);
                            let value = y_zero.saturating_add(mean).max(self.clamp[0]).min(self.clamp[1]);
                            y.put(at, value)?;
                            at = at.wrapping_add(1);
                        }
                    }
                }
            }
        }
        Some(())
    }
}

/// Adds neighbouring elements from `start` on to `sums`.
#[inline]
fn accumulate(x: &[u8], dtype: DType, start: usize, sums: &mut [i32]) {
    match dtype {
        DType::I8 => {
            let x = x.get(start..).unwrap_or_default();
            let done = add_quads(x, sums);
            let rest = sums.get_mut(done..).unwrap_or_default();
            for (sum, &x) in rest.iter_mut().zip(x.get(done..).unwrap_or_default()) {
                *sum = sum.wrapping_add(i32::from(x as i8));
            }
        }
        DType::I16 | DType::I32 => {
            let (pairs, _) = x.as_chunks::<2>();
            for (sum, &x) in sums.iter_mut().zip(pairs.get(start..).unwrap_or_default()) {
                *sum = sum.wrapping_add(i32::from(i16::from_le_bytes(x)));
            }
        }
    }
}

/// Adds elements to sums, four at a time, where the core has instructions for that; returns how many are done.
#[inline]
fn add_quads(x: &[u8], sums: &mut [i32]) -> usize {
    #[cfg(dsp)]
    {
        let ((x, _), (sums, _)) = (x.as_chunks(), sums.as_chunks_mut());
        let count = x.len().min(sums.len());
        if let (Some(x), Some(sums)) = (x.get(..count), sums.get_mut(..count)) {
            super::dsp::accumulate(x, sums);
        }
        count.wrapping_mul(4)
    }
    #[cfg(not(dsp))]
    {
        let _ = (x, sums);
        0
    }
}

impl Operator for AvgPool2d {
    const KIND: OpKind = OpKind::AvgPool2d;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 1)?;
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let pool = Pool::new(&memory::params(op)?, &x, &y)?;
        memory::check_clamp(pool.clamp, &y)?;
        bands::check([&x, &y], pool.window.batch, pool.window.rows, pool.window.band_height())
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let mut pool = Pool::new(&memory::params(op)?, &x, &y)?;
        let bands = Bands::new([&x, &y], pool.window.rows, pool.window.band_height()).ok_or(Reason::OperatorShape)?;
        for band in bands {
            let (inputs, out) = memory::split_part(plan, arena, &y, band.y)?;
            let mut out = Output::new(out, y.dtype);
            pool.window.rows = band.rows;
            let x_part = inputs.part(&x, band.x)?;
            pool.run(x_part, &x, &mut out, i32::from(y.zero_point)).ok_or(Reason::OperatorShape)?;
        }
        Ok(())
    }
}
