//! The data of the layers are those that the baseline was measured with: with TFLite's rounding in place of ours, outputs
//! have the digests that CMSIS-NN's had. (Of layers without weights the baseline does not say what they were given.)

use equant_firmware::hash::fnv1a_32;
use equant_firmware::trial::{INPUT_SEED, Noise};

use crate::baseline::{Row, rows};
use crate::data::{self, Channel};
use crate::layer::{Layer, Window};

fn noise(len: u32) -> Vec<i32> {
    let mut noise = Noise::new(INPUT_SEED);
    (0..len).map(|_| i32::from(noise.byte() as i8)).collect()
}

/// TFLite's: the high half of the doubled product, half up; then the shift, half away from zero.
fn requantize(acc: i32, channel: &Channel) -> u8 {
    let high = (i64::from(acc) * i64::from(channel.mantissa) + (1 << 30)) >> 31;
    let half = if channel.shift > 0 { 1 << (channel.shift - 1) } else { 0 };
    let shifted = if high < 0 { -((-high + half) >> channel.shift) } else { (high + half) >> channel.shift };
    (shifted - 5).clamp(-128, 127) as u8
}

/// The output of a convolution; `weight` finds the weight of output channel, row, column and input channel.
fn conv(row: &Row, window: Window, weight: impl Fn([u32; 4]) -> u32, depthwise: bool) -> Vec<u8> {
    let Window { size: [h, w], kernel: [kh, kw], stride, inputs, outputs } = window;
    let depth = if depthwise { 1 } else { inputs };
    let x = noise(h * w * inputs);
    let weights = data::weights(row.bits, (kh * kw * depth * outputs) as usize);
    let channels = data::channels(row.bits, outputs as usize, kh * kw * depth);
    let ([rows, cols], [top, left, ..]) = (window.output(), window.pads());
    let mut y = Vec::new();
    for (oy, ox, o) in (0..rows * cols * outputs).map(|i| (i / outputs / cols, i / outputs % cols, i % outputs)) {
        let mut acc = channels[o as usize].bias;
        for (ky, kx) in (0..kh * kw).map(|i| (i / kw, i % kw)) {
            let (iy, ix) = ((oy * stride + ky).wrapping_sub(top), (ox * stride + kx).wrapping_sub(left));
            if iy < h && ix < w {
                for c in 0..depth {
                    let input = if depthwise { o / (outputs / inputs) } else { c };
                    let x = x[((iy * w + ix) * inputs + input) as usize] + 3;
                    acc += x * i32::from(weights[weight([o, ky, kx, c]) as usize]);
                }
            }
        }
        y.push(requantize(acc, &channels[o as usize]));
    }
    y
}

fn fully_connected(row: &Row, inputs: u32, outputs: u32) -> Vec<u8> {
    let x = noise(inputs);
    let weights = data::weights(row.bits, (inputs * outputs) as usize);
    let channels = data::uniform(data::channels(row.bits, outputs as usize, inputs));
    let rows = weights.chunks(inputs as usize).zip(&channels);
    rows.map(|(w, channel)| {
        let sum: i32 = x.iter().zip(w).map(|(x, &w)| (x + 3) * i32::from(w)).sum();
        requantize(sum + channel.bias, channel)
    })
    .collect()
}

#[test]
fn data_are_those_of_the_baseline() {
    for row in rows().unwrap() {
        let y = match row.layer.unwrap() {
            Layer::Conv(window) => {
                let Window { kernel: [kh, kw], inputs, .. } = window;
                conv(&row, window, |[o, y, x, c]| ((o * kh + y) * kw + x) * inputs + c, false)
            }
            Layer::Depthwise(window) => {
                let Window { kernel: [_, kw], outputs, .. } = window;
                conv(&row, window, |[o, y, x, _]| (y * kw + x) * outputs + o, true)
            }
            Layer::FullyConnected { inputs, outputs } => fully_connected(&row, inputs, outputs),
            Layer::Add { .. } | Layer::AvgPool { .. } | Layer::Softmax { .. } => continue,
        };
        assert_eq!(fnv1a_32(&y), row.digest, "{}", row.name());
    }
}
