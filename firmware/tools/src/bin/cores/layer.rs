//! What a layer computes, from its name in the baseline.

use std::str::FromStr;

/// A layer's operator and its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    Conv(Window),
    /// Each input channel has `outputs / inputs` kernels of its own.
    Depthwise(Window),
    FullyConnected {
        inputs: u32,
        outputs: u32,
    },
    Add {
        dims: [u32; 3],
    },
    /// The mean of each channel over the whole input.
    AvgPool {
        size: [u32; 2],
        channels: u32,
    },
    Softmax {
        len: u32,
    },
}

/// Sizes of a convolution; rows before columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) size: [u32; 2],
    pub(crate) kernel: [u32; 2],
    pub(crate) stride: u32,
    pub(crate) inputs: u32,
    pub(crate) outputs: u32,
}

impl Window {
    /// Size of the output, padded as TensorFlow's `SAME`.
    pub(crate) fn output(&self) -> [u32; 2] {
        self.size.map(|size| size.div_ceil(self.stride))
    }

    /// Padding: top, left, bottom, right. An odd one goes behind.
    pub(crate) fn pads(&self) -> [u32; 4] {
        let output = self.output();
        let total =
            |axis: usize| ((output[axis] - 1) * self.stride + self.kernel[axis]).saturating_sub(self.size[axis]);
        let (rows, cols) = (total(0), total(1));
        [rows / 2, cols / 2, rows.div_ceil(2), cols.div_ceil(2)]
    }

    /// Taps of the kernel.
    pub(crate) fn taps(&self) -> u32 {
        self.kernel.iter().product()
    }
}

impl Layer {
    /// Whether it has weights, which come in two widths.
    pub(crate) fn has_weights(&self) -> bool {
        matches!(self, Self::Conv(_) | Self::Depthwise(_) | Self::FullyConnected { .. })
    }
}

impl FromStr for Layer {
    type Err = String;

    /// Names are `conv3x3_IN-OUT_32x32_s2`, `pw_IN-OUT_5x5`, `dw3x3_C_5x5_s1`, `dw3x3_IN-OUT_5x5_s1`, `fc_IN-OUT`,
    /// `add_8x8x64`, `avgpool8x8_C` and `softmax_N`.
    fn from_str(name: &str) -> Result<Self, String> {
        parse(name).ok_or_else(|| format!("no layer is called `{name}`"))
    }
}

fn parse(name: &str) -> Option<Layer> {
    let (operator, rest) = name.split_at(name.find(|c: char| c.is_ascii_digit() || c == '_')?);
    let fields: Vec<&str> = rest.split('_').collect();
    Some(match (operator, &fields[..]) {
        ("conv", [kernel, channels, size, stride]) => Layer::Conv(window(kernel, channels, size, stride)?),
        ("pw", ["", channels, size]) => Layer::Conv(window("1x1", channels, size, "s1")?),
        ("dw", [kernel, channels, size, stride]) => Layer::Depthwise(window(kernel, channels, size, stride)?),
        ("fc", ["", channels]) => {
            let [inputs, outputs] = numbers(channels, '-')?;
            Layer::FullyConnected { inputs, outputs }
        }
        ("add", ["", dims]) => Layer::Add { dims: numbers(dims, 'x')? },
        ("avgpool", [size, channels]) => Layer::AvgPool { size: numbers(size, 'x')?, channels: channels.parse().ok()? },
        ("softmax", ["", len]) => Layer::Softmax { len: len.parse().ok()? },
        _ => return None,
    })
}

fn window(kernel: &str, channels: &str, size: &str, stride: &str) -> Option<Window> {
    let [inputs, outputs] = match numbers(channels, '-') {
        Some(pair) => pair,
        None => [channels.parse().ok()?; 2],
    };
    let stride = stride.strip_prefix('s')?.parse().ok().filter(|stride| *stride > 0)?;
    Some(Window { size: numbers(size, 'x')?, kernel: numbers(kernel, 'x')?, stride, inputs, outputs })
}

/// `N` positive numbers between separators.
fn numbers<const N: usize>(text: &str, separator: char) -> Option<[u32; N]> {
    let numbers = text.split(separator).map(|part| part.parse().ok().filter(|n| *n > 0));
    numbers.collect::<Option<Vec<u32>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::{Layer, Window};

    #[test]
    fn names() {
        let window = |name: &str| match name.parse() {
            Ok(Layer::Conv(window) | Layer::Depthwise(window)) => window,
            other => panic!("{name}: {other:?}"),
        };
        let conv = window("conv10x4_1-64_49x10_s2");
        assert_eq!(conv, Window { size: [49, 10], kernel: [10, 4], stride: 2, inputs: 1, outputs: 64 });
        assert_eq!((conv.output(), conv.pads()), ([25, 5], [4, 1, 5, 1]));
        assert_eq!(window("dw3x3_8_48x48_s1").outputs, 8);
        assert_eq!("softmax_10".parse(), Ok(Layer::Softmax { len: 10 }));
        assert_eq!("avgpool24x5_64".parse(), Ok(Layer::AvgPool { size: [24, 5], channels: 64 }));
        for name in ["", "conv", "conv3x3_1_5x5", "dw3x3_8_48x48_s0", "fc_1-2-3", "lstm_4"] {
            assert!(name.parse::<Layer>().is_err(), "{name}");
        }
    }
}
