//! Operators with sliding windows.

use alloc::vec::Vec;

use super::{Record, indices, multiplier};
use crate::op::{
    AvgPool2dParams, Conv2dParams, ConvTranspose2dParams, DepthwiseConv2dParams, MaxPool2dParams, Resize2dParams,
};
use crate::quant;

/// Position in the input of tap `k` of window `o`, along one axis.
fn position(o: usize, stride: u32, k: u32, dilation: u32, before: u32) -> i64 {
    o as i64 * i64::from(stride) + i64::from(k) * i64::from(dilation) - i64::from(before)
}

pub(super) fn conv2d(record: &Record<'_>) -> Vec<i32> {
    let p: Conv2dParams = record.weighted();
    let (x, y) = (record.input(0), record.output());
    let dims = record.output_dims();
    let [kernel_h, kernel_w] = p.kernel;
    let depth = x.dims[3] / p.groups as usize;
    // Taps that lie next to each other in the input share a segment.
    let joined = p.groups == 1 && p.dilations[1] == 1;
    let (segments, len) = if joined { (kernel_h, kernel_w as usize * depth) } else { (kernel_h * kernel_w, depth) };
    let segment = len.div_ceil(4) * 4;
    let row = (segments as usize * segment).div_ceil(8) * 8;
    let weights = record.weights::<Conv2dParams>(p.weights, row);
    let (bias, mantissas, shifts) = (record.i32s(p.bias), record.i32s(p.mantissas), record.i8s(p.shifts));
    let group_outputs = dims[3] / p.groups as usize;
    let element = |[n, oy, ox, o]: [usize; 4]| {
        let mut acc = bias[o];
        for ky in 0..kernel_h {
            for kx in 0..kernel_w {
                for c in 0..depth {
                    let iy = position(oy, p.strides[0], ky, p.dilations[0], p.pads[0]);
                    let ix = position(ox, p.strides[1], kx, p.dilations[1], p.pads[1]);
                    let (ky, kx) = (ky as usize, kx as usize);
                    let place = match joined {
                        true => ky * segment + kx * depth + c,
                        false => (ky * kernel_w as usize + kx) * segment + c,
                    };
                    let channel = o / group_outputs * depth + c;
                    acc += weights[o * row + place] * x.at_padded(n, iy, ix, channel);
                }
            }
        }
        let scale = multiplier(mantissas[o] as i32, shifts[o] as i32);
        // Sums wrap at 32 bits.
        quant::requantize(acc as i32, scale, y.zero_point.into(), p.clamp[0], p.clamp[1])
    };
    indices(dims).map(element).collect()
}

/// The place of every tap of an axis in the packed weights: by `k mod period`, then from the last tap to the first.
fn packed(kernel: u32, stride: u32, dilation: u32) -> Vec<usize> {
    // The least distance of two taps whose positions differ by a multiple of the stride.
    let period = (1..=stride).find(|k| u64::from(*k) * u64::from(dilation) % u64::from(stride) == 0).unwrap_or(1);
    let mut order: Vec<u32> = (0..kernel).collect();
    order.sort_by_key(|k| (k % period, kernel - k));
    (0..kernel).map(|k| order.iter().position(|&other| other == k).unwrap_or(0)).collect()
}

/// Every tap of every element of the input, scattered onto the output.
pub(super) fn conv_transpose2d(record: &Record<'_>) -> Vec<i32> {
    let p: ConvTranspose2dParams = record.weighted();
    let (x, y) = (record.input(0), record.output());
    let dims = record.output_dims();
    let [kernel_h, kernel_w] = p.kernel;
    let depth = x.dims[3] / p.groups as usize;
    let weights = record.weights::<ConvTranspose2dParams>(p.weights, (kernel_h * kernel_w) as usize * depth);
    let (bias, mantissas, shifts) = (record.i32s(p.bias), record.i32s(p.mantissas), record.i8s(p.shifts));
    let group_outputs = dims[3] / p.groups as usize;
    let row_places = packed(kernel_h, p.strides[0], p.dilations[0]);
    let col_places = packed(kernel_w, p.strides[1], p.dilations[1]);
    let mut sums: Vec<i64> = indices(dims).map(|[.., o]| bias[o]).collect();
    for [n, iy, ix, c] in indices(x.dims) {
        let value = x.at([n, iy, ix, c]) - x.zero_point;
        for ky in 0..kernel_h {
            for kx in 0..kernel_w {
                let oy = position(iy, p.strides[0], ky, p.dilations[0], p.pads[0]);
                let ox = position(ix, p.strides[1], kx, p.dilations[1], p.pads[1]);
                if !(0..dims[1] as i64).contains(&oy) || !(0..dims[2] as i64).contains(&ox) {
                    continue;
                }
                let group = c / depth;
                for o in group * group_outputs..(group + 1) * group_outputs {
                    let row = o * kernel_h as usize + row_places[ky as usize];
                    let tap = row * kernel_w as usize + col_places[kx as usize];
                    let place = ((n * dims[1] + oy as usize) * dims[2] + ox as usize) * dims[3] + o;
                    sums[place] += weights[tap * depth + c % depth] * value;
                }
            }
        }
    }
    let finish = |([.., o], acc): ([usize; 4], i64)| {
        let scale = multiplier(mantissas[o] as i32, shifts[o] as i32);
        // Sums wrap at 32 bits.
        quant::requantize(acc as i32, scale, y.zero_point.into(), p.clamp[0], p.clamp[1])
    };
    indices(dims).zip(sums).map(finish).collect()
}

pub(super) fn depthwise_conv2d(record: &Record<'_>) -> Vec<i32> {
    let p: DepthwiseConv2dParams = record.weighted();
    let (x, y) = (record.input(0), record.output());
    let dims = record.output_dims();
    let weights = record.weights::<DepthwiseConv2dParams>(p.weights, dims[3]);
    let (bias, mantissas, shifts) = (record.i32s(p.bias), record.i32s(p.mantissas), record.i8s(p.shifts));
    let element = |[n, oy, ox, o]: [usize; 4]| {
        let mut acc = bias[o];
        for ky in 0..p.kernel[0] {
            for kx in 0..p.kernel[1] {
                let iy = position(oy, p.strides[0], ky, p.dilations[0], p.pads[0]);
                let ix = position(ox, p.strides[1], kx, p.dilations[1], p.pads[1]);
                let tap = (ky * p.kernel[1] + kx) as usize;
                acc += weights[tap * dims[3] + o] * x.at_padded(n, iy, ix, o / p.multiplier as usize);
            }
        }
        let scale = multiplier(mantissas[o] as i32, shifts[o] as i32);
        quant::requantize(acc as i32, scale, y.zero_point.into(), p.clamp[0], p.clamp[1])
    };
    indices(dims).map(element).collect()
}

pub(super) fn avg_pool2d(record: &Record<'_>) -> Vec<i32> {
    let p: AvgPool2dParams = record.params();
    let (x, y) = (record.input(0), record.output());
    let [_, height, width, _] = x.dims.map(|dim| dim as i64);
    let pads = p.pads.map(i64::from);
    let element = |[n, oy, ox, c]: [usize; 4]| {
        let (mut sum, mut inside, mut padded) = (0i128, 0i128, 0i128);
        for ky in 0..p.kernel[0] {
            for kx in 0..p.kernel[1] {
                let iy = position(oy, p.strides[0], ky, 1, p.pads[0]);
                let ix = position(ox, p.strides[1], kx, 1, p.pads[1]);
                sum += i128::from(x.at_padded(n, iy, ix, c) - x.zero_point);
                inside += i128::from((0..height).contains(&iy) && (0..width).contains(&ix));
                // The last windows may hang over the padding; there they count nothing.
                padded += i128::from(iy < height + pads[2] && ix < width + pads[3]);
            }
        }
        let count = if p.count_include_pad == 1 { padded } else { inside };
        // ⌊sum · mantissa / (2^(31 + shift) · count) + 1/2⌋
        let denominator = count << (31 + p.shift);
        let mean = (2 * sum * i128::from(p.mantissa) + denominator).div_euclid(2 * denominator);
        let value = mean.clamp(i32::MIN.into(), i32::MAX.into()) + i128::from(y.zero_point);
        value.clamp(p.clamp[0].into(), p.clamp[1].into()) as i32
    };
    indices(record.output_dims()).map(element).collect()
}

pub(super) fn max_pool2d(record: &Record<'_>) -> Vec<i32> {
    let p: MaxPool2dParams = record.params();
    let x = record.input(0);
    let element = |[n, oy, ox, c]: [usize; 4]| {
        let mut max = None;
        for ky in 0..p.kernel[0] {
            for kx in 0..p.kernel[1] {
                let iy = position(oy, p.strides[0], ky, p.dilations[0], p.pads[0]);
                let ix = position(ox, p.strides[1], kx, p.dilations[1], p.pads[1]);
                if (0..x.dims[1] as i64).contains(&iy) && (0..x.dims[2] as i64).contains(&ix) {
                    max = max.max(Some(x.at([n, iy as usize, ix as usize, c])));
                }
            }
        }
        // The maximum of nothing is −∞.
        (max.unwrap_or(i64::MIN)).clamp(p.clamp[0].into(), p.clamp[1].into()) as i32
    };
    indices(record.output_dims()).map(element).collect()
}

pub(super) fn resize2d(record: &Record<'_>) -> Vec<i32> {
    let p: Resize2dParams = record.params();
    let x = record.input(0);
    let [row_taps, col_taps] = p.taps.map(|taps| taps as usize);
    let (rows, cols) = (record.u16s(p.rows), record.u16s(p.cols));
    let i16s = |constant| -> Vec<i128> {
        let pairs = record.bytes(constant).chunks(2);
        pairs.map(|pair| i128::from(i16::from_le_bytes([pair[0], pair[1]]))).collect()
    };
    let (row_weights, col_weights) = (i16s(p.row_weights), i16s(p.col_weights));
    let element = |[n, h, w, c]: [usize; 4]| {
        let mut sum = 0i128;
        for i in h * row_taps..(h + 1) * row_taps {
            for j in w * col_taps..(w + 1) * col_taps {
                let difference = i128::from(x.at([n, rows[i], cols[j], c]) - x.zero_point);
                sum += row_weights[i] * col_weights[j] * difference;
            }
        }
        let one = 1i128 << (2 * Resize2dParams::WEIGHT_BITS);
        let rounded = (2 * sum + one).div_euclid(2 * one) + i128::from(x.zero_point);
        rounded.clamp(p.clamp[0].into(), p.clamp[1].into()) as i32
    };
    indices(record.output_dims()).map(element).collect()
}
