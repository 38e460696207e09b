//! Interpolation between rows and columns.

use super::memory::{self, BLOCK};
use crate::error::Reason;
use crate::op::{OpKind, Resize2dParams};
use crate::operator::Operator;
use crate::plan::{OpView, Plan, TensorRecord};

/// Weighted sums over some rows and columns of the input for each element of the output: linear and cubic interpolation.
///
/// `x` is `[N, H, W, C]`, `y` `[N, OH, OW, C]`, with one dtype of at most 16 bits, one scale and one zero point; the formula
/// is at [`Resize2dParams`]. Sums are exact in 64 bits and rounded once, so that the error against weights rounded to
/// 2^-14 is half a step. With those, weights of an axis that sum to one and differ by at most 2^-14 from the real ones cost
/// at most `taps · 2^-14` of the largest difference from the zero point more, for each axis.
#[derive(Debug, Clone, Copy)]
pub struct Resize2d;

/// The taps along an axis.
#[derive(Clone, Copy)]
struct Axis<'a> {
    /// Sizes of input and output.
    sizes: [usize; 2],
    taps: usize,
    indices: &'a [u16],
    weights: &'a [i16],
}

impl<'a> Axis<'a> {
    /// Index and weight of each tap of output position `i`.
    fn at(&self, i: usize) -> Option<impl Iterator<Item = (usize, i32)> + Clone + 'a> {
        let first = i.wrapping_mul(self.taps);
        let taps = first..first.wrapping_add(self.taps);
        let indices = self.indices.get(taps.clone())?.iter().map(|&index| usize::from(index));
        Some(indices.zip(self.weights.get(taps)?.iter().map(|&weight| i32::from(weight))))
    }
}

/// Rows and columns; checks that every index lies inside the input if `check` is set.
fn axes<'a>(
    p: &Resize2dParams,
    plan: &Plan<'a>,
    [x, y]: [&TensorRecord; 2],
    check: bool,
) -> Result<[Axis<'a>; 2], Reason> {
    let axis = |i: usize, indices, weights| {
        let size = |tensor: &TensorRecord| tensor.dims.get(i.wrapping_add(1)).map_or(0, |&dim| dim as usize);
        let (sizes, taps) = ([size(x), size(y)], p.taps.get(i).copied().unwrap_or(0));
        if !(1..=Resize2dParams::MOST_TAPS).contains(&taps) {
            return Err(Reason::OperatorRange);
        }
        let len = sizes[1].checked_mul(taps as usize).ok_or(Reason::OperatorShape)?;
        let indices = memory::constants::<u16>(plan, indices, len)?;
        if check && !indices.iter().all(|&index| usize::from(index) < sizes[0]) {
            return Err(Reason::OperatorConstant);
        }
        Ok(Axis { sizes, taps: taps as usize, indices, weights: memory::constants::<i16>(plan, weights, len)? })
    };
    Ok([axis(0, p.rows, p.row_weights)?, axis(1, p.cols, p.col_weights)?])
}

/// The sums of as many channels as there is room for, for the output pixel `[n, oy, ox]`: `load` reads those channels of an
/// input pixel, less the zero point, into `values`.
fn sums(
    [rows, cols]: [&Axis<'_>; 2],
    [n, oy, ox]: [usize; 3],
    load: impl Fn(usize, &mut [i32]),
    values: &mut [i32],
    sums: &mut [i64],
) -> Option<()> {
    sums.fill(0);
    for (iy, row_weight) in rows.at(oy)? {
        let row = n.wrapping_mul(rows.sizes[0]).wrapping_add(iy).wrapping_mul(cols.sizes[0]);
        for (ix, col_weight) in cols.at(ox)? {
            let weight = i64::from(row_weight.wrapping_mul(col_weight));
            if weight == 0 {
                continue;
            }
            load(row.wrapping_add(ix), values);
            for (sum, &value) in sums.iter_mut().zip(&*values) {
                *sum = sum.wrapping_add(i64::from(value).wrapping_mul(weight));
            }
        }
    }
    Some(())
}

impl Operator for Resize2d {
    const KIND: OpKind = OpKind::Resize2d;

    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason> {
        memory::check_arity(op, 1)?;
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let p: Resize2dParams = memory::params(op)?;
        memory::check_same_quantization(&x, &y)?;
        memory::check_16_bits(&x)?;
        let ([x_n, .., x_channels], [y_n, .., y_channels]) = (x.dims, y.dims);
        if x.rank != 4 || y.rank != 4 || x_n != y_n || x_channels != y_channels {
            return Err(Reason::OperatorShape);
        }
        axes(&p, plan, [&x, &y], true)?;
        memory::check_clamp(p.clamp, &y)?;
        memory::check_disjoint(&x, &y)
    }

    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        const SHIFT: u32 = 2 * Resize2dParams::WEIGHT_BITS;
        let (x, y) = (plan.input(op, 0)?, plan.output(op, 0)?);
        let p: Resize2dParams = memory::params(op)?;
        let [rows, cols] = axes(&p, plan, [&x, &y], false)?;
        let (inputs, out) = memory::split(plan, arena, &y)?;
        let input = inputs.bytes(&x)?;
        let [batch, .., channels] = x.dims.map(|dim| dim as usize);
        let zero_point = i32::from(x.zero_point);
        let [low, high] = p.clamp.map(i64::from);
        let (mut values, mut sums_of) = ([0i32; BLOCK], [0i64; BLOCK]);
        let mut at = 0usize;
        for pixel in 0..batch.wrapping_mul(rows.sizes[1]) {
            let (n, oy) = (pixel.checked_div(rows.sizes[1]), pixel.checked_rem(rows.sizes[1]));
            let (Some(n), Some(oy)) = (n, oy) else { return Err(Reason::OperatorShape) };
            for ox in 0..cols.sizes[1] {
                for c in (0..channels).step_by(BLOCK) {
                    let lanes = BLOCK.min(channels.wrapping_sub(c));
                    let (Some(values), Some(totals)) = (values.get_mut(..lanes), sums_of.get_mut(..lanes)) else {
                        return Err(Reason::OperatorShape);
                    };
                    let load = |pixel: usize, values: &mut [i32]| {
                        memory::load(input, x.dtype, pixel.wrapping_mul(channels).wrapping_add(c), values);
                        for value in values {
                            *value = value.wrapping_sub(zero_point);
                        }
                    };
                    sums([&rows, &cols], [n, oy, ox], load, values, totals).ok_or(Reason::OperatorShape)?;
                    for (value, &sum) in values.iter_mut().zip(&*totals) {
                        let rounded = sum.wrapping_add(1 << (SHIFT - 1)) >> SHIFT;
                        *value = rounded.wrapping_add(zero_point.into()).max(low).min(high) as i32;
                    }
                    memory::store(out, y.dtype, at, values);
                    at = at.wrapping_add(lanes);
                }
            }
        }
        Ok(())
    }
}
