//! The weights and the requantization of a layer: noise, by the rules of the baseline.

use equant_firmware::trial::Noise;

use crate::baseline::Bits;

/// Seeds of the streams; that of the inputs is [`equant_firmware::trial::INPUT_SEED`].
const INT8_SEED: u32 = 2;
const INT4_SEED: u32 = 3;
const CHANNEL_SEED: u32 = 4;

/// `len` weights, in the order that the baseline stores them.
pub(crate) fn weights(bits: Bits, len: usize) -> Vec<i8> {
    match bits {
        Bits::Eight => {
            let mut noise = Noise::new(INT8_SEED);
            (0..len).map(|_| (noise.byte() as i8).max(-127)).collect()
        }
        Bits::Four => {
            let mut noise = Noise::new(INT4_SEED);
            let pairs = (0..len.div_ceil(2)).map(|_| noise.byte() as i8);
            // The low nibble first; shifts extend the sign.
            pairs.flat_map(|pair| [(pair << 4) >> 4, pair >> 4]).take(len).collect()
        }
    }
}

/// What follows the sum of an output channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Channel {
    /// Bias, before the input's zero point is folded in.
    pub(crate) bias: i32,
    pub(crate) mantissa: i32,
    /// To the right, after a division by 2^31.
    pub(crate) shift: i8,
}

/// The output channels of a layer whose sums have `depth` terms.
pub(crate) fn channels(bits: Bits, count: usize, depth: u32) -> Vec<Channel> {
    let mut noise = Noise::new(CHANNEL_SEED);
    let base = match bits {
        Bits::Eight => 6,
        Bits::Four => 2,
    };
    let shift = base + (depth.max(1).ilog2() / 2) as i8;
    (0..count)
        .map(|_| {
            let [bias, mantissa, odd] = [(); 3].map(|()| noise.byte());
            Channel {
                bias: i32::from(bias) * 16 - 2048,
                mantissa: (1 << 30) + (i32::from(mantissa) << 22),
                shift: shift + (odd & 1) as i8,
            }
        })
        .collect()
}

/// Channels that share the requantization of the first, as those of fully connected layers do.
pub(crate) fn uniform(mut channels: Vec<Channel>) -> Vec<Channel> {
    if let Some(&Channel { mantissa, shift, .. }) = channels.first() {
        for channel in &mut channels {
            (channel.mantissa, channel.shift) = (mantissa, shift);
        }
    }
    channels
}
