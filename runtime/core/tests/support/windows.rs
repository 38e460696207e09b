//! Cases of the operators with sliding windows.

use equant_runtime::kernels::{Rows, band_height, depthwise_conv2d_band_height, depthwise_conv2d_work_len, leads};
use equant_runtime::op::{
    AvgPool2dParams, Conv2dParams, ConvTranspose2dParams, DepthwiseConv2dParams, MaxPool2dParams, OpKind,
    Resize2dParams,
};
use equant_runtime::plan::DType;

use super::{Case, Draws, Spec};

/// One axis: input, output, kernel, stride, dilation, padding before and after.
pub(crate) struct Axis {
    input: u32,
    output: u32,
    kernel: u32,
    stride: u32,
    dilation: u32,
    pads: [u32; 2],
}

impl Axis {
    /// The axis of these sizes, its output as ONNX's default rounding makes it.
    pub(crate) fn new(input: u32, [kernel, stride, dilation]: [u32; 3], pads: [u32; 2]) -> Self {
        let output = (input + pads[0] + pads[1] - (kernel - 1) * dilation - 1) / stride + 1;
        Self { input, output, kernel, stride, dilation, pads }
    }

    /// Any axis whose window fits into the padded input; kernels may be larger than the input.
    fn draw(draws: &mut Draws, dilate: bool, pool: bool) -> Self {
        let (mut input, kernel, stride) = (draws.range(1, 9), draws.range(1, 5), draws.range(1, 4));
        let dilation = if dilate { draws.range(1, 3) } else { 1 };
        let extent = (kernel - 1) * dilation + 1;
        let most = if pool { kernel - 1 } else { extent + 1 };
        let pads = [draws.range(0, most), draws.range(0, most)];
        let padded = input + pads[0] + pads[1];
        if padded < extent {
            input += extent - padded;
        }
        let free = input + pads[0] + pads[1] - extent;
        let floor = free / stride + 1;
        let ceil = free.div_ceil(stride) + 1;
        // As frameworks do: no window may begin in the padding behind the input.
        let hangs = pool && draws.flag() && (ceil - 1) * stride < input + pads[0];
        Self { input, output: if hangs { ceil } else { floor }, kernel, stride, dilation, pads }
    }
}

pub(crate) struct Geometry {
    pub(crate) rows: Axis,
    pub(crate) cols: Axis,
    pub(crate) batch: u32,
}

impl Geometry {
    fn draw(draws: &mut Draws, dilate: bool, pool: bool) -> Self {
        let (rows, cols) = (Axis::draw(draws, dilate, pool), Axis::draw(draws, dilate, pool));
        Self { rows, cols, batch: draws.range(1, 2) }
    }

    fn pair(&self, field: impl Fn(&Axis) -> u32) -> [u32; 2] {
        [field(&self.rows), field(&self.cols)]
    }

    fn pads(&self) -> [u32; 4] {
        [self.rows.pads[0], self.cols.pads[0], self.rows.pads[1], self.cols.pads[1]]
    }

    fn taps(&self) -> u32 {
        self.rows.kernel * self.cols.kernel
    }

    /// How the output may lie over the input, in bands of `height` rows.
    fn leads(&self, x: &Spec, y: &Spec, height: usize) -> Option<[usize; 2]> {
        let Axis { input, output, kernel, stride, dilation, pads: [before, _] } = self.rows;
        let [input, output, kernel, stride, dilation, before] =
            [input, output, kernel, stride, dilation, before].map(|size| size as usize);
        let rows = Rows { input, output, kernel, stride, dilation, before };
        let row_len = [x.byte_len() as usize / input, y.byte_len() as usize / output];
        if self.batch == 1 { leads(rows, row_len, height) } else { None }
    }

    /// As [`Self::leads`], in bands of the usual height.
    fn usual_leads(&self, x: &Spec, y: &Spec) -> Option<[usize; 2]> {
        self.leads(x, y, band_height([self.rows.output as usize, self.cols.output as usize]))
    }

    fn input(&self, channels: u32) -> [u32; 4] {
        [self.batch, self.rows.input, self.cols.input, channels]
    }

    fn output(&self, channels: u32) -> [u32; 4] {
        [self.batch, self.rows.output, self.cols.output, channels]
    }
}

/// Bias, mantissas and shifts of `count` channels.
pub(crate) struct Channels {
    pub(crate) bias: Vec<i32>,
    pub(crate) mantissas: Vec<i32>,
    pub(crate) shifts: Vec<u8>,
}

impl Channels {
    pub(crate) fn draw(draws: &mut Draws, count: u32, depth: u32) -> Self {
        let center = 8 + depth.ilog2() as i32 / 2;
        let (mantissas, shifts) = (0..count).map(|_| draws.multiplier(center)).map(|(m, s)| (m, s as i8 as u8)).unzip();
        let wide = draws.range(0, 7) == 7;
        let bias = (0..count).map(|_| draws.noise() as i32 >> if wide { 0 } else { 18 }).collect();
        Self { bias, mantissas, shifts }
    }
}

pub(crate) fn conv2d(draws: &mut Draws, kind: OpKind) -> Case {
    let g = Geometry::draw(draws, true, false);
    let groups = draws.pick(&[1, 1, 1, 2, 3]);
    let (inputs, outputs) = (draws.range(1, 9) * groups, draws.range(1, 7) * groups);
    conv2d_of(draws, kind, &g, groups, [inputs, outputs])
}

/// A convolution of these sizes: groups, and channels of its input and output.
pub(crate) fn conv2d_of(
    draws: &mut Draws,
    kind: OpKind,
    g: &Geometry,
    groups: u32,
    [inputs, outputs]: [u32; 2],
) -> Case {
    let mut case = Case::new(kind);
    let depth = inputs / groups;
    let x = Spec::new(DType::I8, &g.input(inputs), draws.zero_point(DType::I8));
    let dtype = draws.dtype();
    let y = Spec::new(dtype, &g.output(outputs), draws.zero_point(dtype));
    case.input_under(draws, &x, &y, g.usual_leads(&x, &y));
    let joined = groups == 1 && g.cols.dilation == 1;
    let segments = if joined { [g.rows.kernel, g.cols.kernel * depth] } else { [g.taps(), depth] };
    let weights = case.filters(draws, outputs, segments);
    let channels = Channels::draw(draws, outputs, g.taps() * depth);
    let params = Conv2dParams {
        kernel: g.pair(|axis| axis.kernel),
        strides: g.pair(|axis| axis.stride),
        dilations: g.pair(|axis| axis.dilation),
        pads: g.pads(),
        groups,
        weights,
        bias: case.words(&channels.bias),
        mantissas: case.words(&channels.mantissas),
        shifts: case.constant(&channels.shifts),
        clamp: draws.clamp(dtype),
    };
    case.patches(segments, g.rows.output * g.cols.output);
    case.finish_weighted(&params, &y)
}

pub(crate) fn depthwise_conv2d(draws: &mut Draws, kind: OpKind) -> Case {
    let g = Geometry::draw(draws, true, false);
    let multiplier = draws.pick(&[1, 1, 2, 3]);
    let inputs = draws.range(1, 35);
    depthwise_conv2d_of(draws, kind, &g, multiplier, inputs)
}

/// A depthwise convolution of these sizes.
pub(crate) fn depthwise_conv2d_of(draws: &mut Draws, kind: OpKind, g: &Geometry, multiplier: u32, inputs: u32) -> Case {
    let mut case = Case::new(kind);
    let outputs = inputs * multiplier;
    let x = Spec::new(DType::I8, &g.input(inputs), draws.zero_point(DType::I8));
    let dtype = draws.dtype();
    let y = Spec::new(dtype, &g.output(outputs), draws.zero_point(dtype));
    let sizes = [g.pair(|axis| axis.kernel), g.pair(|axis| axis.stride), g.pair(|axis| axis.output)];
    let [kernel, strides, pixels] = sizes.map(|pair| pair.map(|size| size as usize));
    let height = depthwise_conv2d_band_height(kernel, strides, pixels);
    case.input_under(draws, &x, &y, g.leads(&x, &y, height));
    let weights = case.weights(draws, g.taps(), outputs);
    let channels = Channels::draw(draws, outputs, g.taps());
    let params = DepthwiseConv2dParams {
        kernel: g.pair(|axis| axis.kernel),
        strides: g.pair(|axis| axis.stride),
        dilations: g.pair(|axis| axis.dilation),
        pads: g.pads(),
        multiplier,
        weights,
        bias: case.words(&channels.bias),
        mantissas: case.words(&channels.mantissas),
        shifts: case.constant(&channels.shifts),
        clamp: draws.clamp(dtype),
    };
    let words = depthwise_conv2d_work_len(kernel, strides, pixels);
    case.work(&Spec::new(DType::I32, &[words as u32], 0));
    case.finish_weighted(&params, &y)
}

/// Any axis of a transposed convolution; the output may be cut off at both ends and go on behind the last tap.
fn transposed_axis(draws: &mut Draws) -> Axis {
    let (input, kernel, stride) = (draws.range(1, 6), draws.range(1, 5), draws.range(1, 4));
    let dilation = draws.pick(&[1, 1, 2, 3]);
    let whole = (input - 1) * stride + (kernel - 1) * dilation + 1;
    let longest = whole + draws.range(0, stride.max(dilation) - 1);
    let before = draws.range(0, (longest - 1).min(4));
    let after = draws.range(0, (longest - 1 - before).min(4));
    Axis { input, output: longest - before - after, kernel, stride, dilation, pads: [before, after] }
}

pub(crate) fn conv_transpose2d(draws: &mut Draws, kind: OpKind) -> Case {
    let mut case = Case::new(kind);
    let (rows, cols) = (transposed_axis(draws), transposed_axis(draws));
    let g = Geometry { rows, cols, batch: draws.range(1, 2) };
    let groups = draws.pick(&[1, 1, 1, 2, 3]);
    let (inputs, outputs) = (draws.range(1, 9) * groups, draws.range(1, 7) * groups);
    let depth = inputs / groups;
    let x = Spec::new(DType::I8, &g.input(inputs), draws.zero_point(DType::I8));
    let dtype = draws.dtype();
    let y = Spec::new(dtype, &g.output(outputs), draws.zero_point(dtype));
    case.random_input(&x, draws);
    let weights = case.weights(draws, outputs, g.taps() * depth);
    let channels = Channels::draw(draws, outputs, g.taps() * depth);
    let params = ConvTranspose2dParams {
        kernel: g.pair(|axis| axis.kernel),
        strides: g.pair(|axis| axis.stride),
        dilations: g.pair(|axis| axis.dilation),
        pads: g.pair(|axis| axis.pads[0]),
        groups,
        weights,
        bias: case.words(&channels.bias),
        mantissas: case.words(&channels.mantissas),
        shifts: case.constant(&channels.shifts),
        clamp: draws.clamp(dtype),
    };
    case.finish_weighted(&params, &y)
}

pub(crate) fn avg_pool2d(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::AvgPool2d);
    let g = Geometry::draw(draws, false, true);
    let channels = draws.pick(&[1, 3, 64, 65, 130]);
    let (x_dtype, dtype) = (draws.narrow_dtype(), draws.dtype());
    let x = Spec::new(x_dtype, &g.input(channels), draws.zero_point(x_dtype));
    let y = Spec::new(dtype, &g.output(channels), draws.zero_point(dtype));
    case.input_under(draws, &x, &y, g.usual_leads(&x, &y));
    let (mantissa, shift) = draws.multiplier(0);
    let params = AvgPool2dParams {
        kernel: g.pair(|axis| axis.kernel),
        strides: g.pair(|axis| axis.stride),
        pads: g.pads(),
        count_include_pad: draws.range(0, 1),
        mantissa,
        shift,
        clamp: draws.clamp(dtype),
    };
    case.finish(&params, &y)
}

pub(crate) fn max_pool2d(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::MaxPool2d);
    let g = Geometry::draw(draws, true, true);
    let channels = draws.pick(&[1, 3, 64, 65, 130]);
    let dtype = draws.dtype();
    let zero_point = draws.zero_point(dtype);
    let [x, y] = [g.input(channels), g.output(channels)].map(|shape| Spec::new(dtype, &shape, zero_point));
    case.input_under(draws, &x, &y, g.usual_leads(&x, &y));
    let params = MaxPool2dParams {
        kernel: g.pair(|axis| axis.kernel),
        strides: g.pair(|axis| axis.stride),
        dilations: g.pair(|axis| axis.dilation),
        pads: g.pads(),
        clamp: draws.clamp(dtype),
    };
    case.finish(&params, &y)
}

/// Rows and columns from anywhere, with weights of any size.
pub(crate) fn resize2d(draws: &mut Draws) -> Case {
    let mut case = Case::new(OpKind::Resize2d);
    let channels = draws.pick(&[1, 3, 64, 65, 130]);
    let inputs = [draws.range(1, 6), draws.range(1, 6)];
    let outputs = [draws.range(1, 7), draws.range(1, 7)];
    let taps = [draws.range(1, 4), draws.range(1, 4)];
    let (batch, dtype) = (draws.range(1, 2), draws.narrow_dtype());
    let zero_point = draws.zero_point(dtype);
    case.random_input(&Spec::new(dtype, &[batch, inputs[0], inputs[1], channels], zero_point), draws);
    let extreme = draws.range(0, 7) == 7;
    let mut axis = |i: usize| {
        let len = outputs[i] * taps[i];
        let indices: Vec<u16> = (0..len).map(|_| (draws.noise() % u64::from(inputs[i])) as u16).collect();
        let weight = |draws: &mut Draws| if extreme { i16::MIN } else { (draws.noise() as i16) >> (draws.noise() % 4) };
        let weights: Vec<u16> = (0..len).map(|_| weight(draws) as u16).collect();
        (case.halves(&indices), case.halves(&weights))
    };
    let ((rows, row_weights), (cols, col_weights)) = (axis(0), axis(1));
    let params = Resize2dParams { taps, rows, row_weights, cols, col_weights, clamp: draws.clamp(dtype) };
    case.finish(&params, &Spec::new(dtype, &[batch, outputs[0], outputs[1], channels], zero_point))
}
