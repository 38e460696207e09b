//! The plan of a layer.

use std::f64::consts::LOG2_E;

use equant_runtime::kernels::{
    conv2d_filter_len, depthwise_conv2d_work_len, filter_len, pack_conv2d, pack_depthwise_conv2d, pack_fully_connected,
    patches_len,
};
use equant_runtime::op::{
    AddParams, AvgPool2dParams, Conv2dParams, DepthwiseConv2dParams, FullyConnectedParams, SoftmaxParams,
};
use equant_runtime::plan::AlignedBytes;
use equant_runtime::quant::Multiplier;

use crate::Error;
use crate::assembly::{Assembly, Channels, Tensor};
use crate::baseline::Row;
use crate::data;
use crate::layer::{Layer, Window};

/// Zero points of inputs and outputs.
const ZERO_POINTS: [i16; 2] = [-3, -5];

/// The range of an output.
const CLAMP: [i32; 2] = [-128, 127];

/// The plan of a layer, of one operator.
pub(crate) fn image(row: &Row, layer: Layer) -> Result<AlignedBytes, Error> {
    let image = match layer {
        // With one input channel all taps lie next to each other, and our compiler makes a convolution of it.
        Layer::Depthwise(window) if window.inputs == 1 => conv(row, window),
        Layer::Depthwise(window) => depthwise(row, window),
        Layer::Conv(window) => conv(row, window),
        Layer::FullyConnected { inputs, outputs } => fully_connected(row, inputs, outputs),
        Layer::Add { dims } => add(row, dims),
        Layer::AvgPool { size, channels } => avg_pool(row, size, channels),
        Layer::Softmax { len } => softmax(row, len),
    };
    image.map_err(|error| format!("{}: no plan: {error}", row.name()).into())
}

fn conv(row: &Row, window: Window) -> Result<AlignedBytes, Error> {
    let Window { size, kernel, stride, inputs, outputs } = window;
    let [rows, cols] = window.output();
    let depth = window.taps() * inputs;
    let [o, c, h, w] = [outputs, inputs, kernel[0], kernel[1]].map(|n| n as usize);
    // Stored `[O, H, W, C]`, or `[H, W, O]` if the layer is depthwise.
    let stored = data::weights(row.bits, o * c * h * w);
    let depthwise = matches!(row.layer, Some(Layer::Depthwise(_)));
    let onnx = gather([o, c, h, w], &stored, |[o_at, c_at, h_at, w_at]| {
        if depthwise { (h_at * w + w_at) * o + o_at } else { ((o_at * h + h_at) * w + w_at) * c + c_at }
    });
    let filter = conv2d_filter_len([h, w], c, 1, 1);
    let mut packed = vec![0; o * filter];
    pack_conv2d(&onnx, [o, c, h, w], 1, 1, &mut packed).map_err(not_packed)?;

    let mut plan = Assembly::new();
    plan.input(input(&[1, size[0], size[1], inputs]))?;
    let weights = plan.weights(row.bits, &packed, filter)?;
    let channels = data::channels(row.bits, o, depth);
    let Channels { bias, mantissas, shifts } = plan.channels(&channels, &sums(&onnx, o), ZERO_POINTS[0])?;
    let params = Conv2dParams {
        kernel,
        strides: [stride; 2],
        dilations: [1, 1],
        pads: window.pads(),
        groups: 1,
        weights,
        bias,
        mantissas,
        shifts,
        clamp: CLAMP,
    };
    let work = patches_len(filter, (rows * cols) as usize);
    plan.finish_weighted(row.bits, &params, output(&[1, rows, cols, outputs]), work, row.macs)
}

fn depthwise(row: &Row, window: Window) -> Result<AlignedBytes, Error> {
    let Window { size, kernel, stride, inputs, outputs } = window;
    if !outputs.is_multiple_of(inputs) {
        return Err("output channels are no multiple of input channels".into());
    }
    let [rows, cols] = window.output();
    let [o, h, w] = [outputs, kernel[0], kernel[1]].map(|n| n as usize);
    // Stored `[H, W, O]`.
    let stored = data::weights(row.bits, o * h * w);
    let onnx = gather([o, 1, h, w], &stored, |[o_at, _, h_at, w_at]| (h_at * w + w_at) * o + o_at);
    let mut packed = vec![0; onnx.len()];
    pack_depthwise_conv2d(&onnx, [o, h, w], &mut packed).map_err(not_packed)?;

    let mut plan = Assembly::new();
    plan.input(input(&[1, size[0], size[1], inputs]))?;
    let weights = plan.weights(row.bits, &packed, o)?;
    let channels = data::channels(row.bits, o, window.taps());
    let Channels { bias, mantissas, shifts } = plan.channels(&channels, &sums(&onnx, o), ZERO_POINTS[0])?;
    let params = DepthwiseConv2dParams {
        kernel,
        strides: [stride; 2],
        dilations: [1, 1],
        pads: window.pads(),
        multiplier: outputs / inputs,
        weights,
        bias,
        mantissas,
        shifts,
        clamp: CLAMP,
    };
    let work = depthwise_conv2d_work_len([h, w], [stride as usize; 2], [rows, cols].map(|n| n as usize));
    plan.finish_weighted(row.bits, &params, output(&[1, rows, cols, outputs]), work, row.macs)
}

fn fully_connected(row: &Row, inputs: u32, outputs: u32) -> Result<AlignedBytes, Error> {
    let [k, o] = [inputs, outputs].map(|n| n as usize);
    let stored = data::weights(row.bits, k * o);
    let filter = filter_len(1, k);
    let mut packed = vec![0; o * filter];
    pack_fully_connected(&stored, [o, k], &mut packed).map_err(not_packed)?;

    let mut plan = Assembly::new();
    plan.input(input(&[1, inputs]))?;
    let weights = plan.weights(row.bits, &packed, filter)?;
    let channels = data::uniform(data::channels(row.bits, o, inputs));
    let Channels { bias, mantissas, shifts } = plan.channels(&channels, &sums(&stored, o), ZERO_POINTS[0])?;
    let params = FullyConnectedParams { weights, bias, mantissas, shifts, clamp: CLAMP };
    plan.finish_weighted(row.bits, &params, output(&[1, outputs]), patches_len(filter, 1), row.macs)
}

fn add(row: &Row, [h, w, c]: [u32; 3]) -> Result<AlignedBytes, Error> {
    let dims = [1, h, w, c];
    let mut plan = Assembly::new();
    plan.input(input(&dims))?;
    plan.input(input(&dims))?;
    // Scales of a half and of three eighths of the output's.
    let params = AddParams { a_factor: 1 << 30, b_factor: 3 << 28, shift: 31, clamp: CLAMP };
    plan.finish(&params, output(&dims), 0, row.macs)
}

fn avg_pool(row: &Row, size: [u32; 2], channels: u32) -> Result<AlignedBytes, Error> {
    let mut plan = Assembly::new();
    plan.input(Tensor::bytes(&[1, size[0], size[1], channels], 0))?;
    let params = AvgPool2dParams {
        kernel: size,
        strides: [1, 1],
        pads: [0; 4],
        count_include_pad: 0,
        // A multiplier of 1: both sides have one scale.
        mantissa: 1 << 30,
        shift: -1,
        clamp: CLAMP,
    };
    plan.finish(&params, Tensor::bytes(&[1, 1, 1, channels], 0), 0, row.macs)
}

fn softmax(row: &Row, len: u32) -> Result<AlignedBytes, Error> {
    let multiplier = |real| Multiplier::from_f64(real).ok_or("a multiplier out of range");
    // A step of 1/16 in, of 1/256 out.
    let (exponent, result) = (multiplier(LOG2_E / 16.0)?, multiplier(256.0)?);
    let params = SoftmaxParams {
        mantissa: exponent.mantissa,
        shift: exponent.shift.into(),
        output_mantissa: result.mantissa,
        output_shift: result.shift.into(),
    };
    let mut plan = Assembly::new();
    plan.input(input(&[1, len]))?;
    plan.finish(&params, Tensor::bytes(&[1, len], -128), 0, row.macs)
}

fn input(dims: &[u32]) -> Tensor<'_> {
    Tensor::bytes(dims, ZERO_POINTS[0])
}

fn output(dims: &[u32]) -> Tensor<'_> {
    Tensor::bytes(dims, ZERO_POINTS[1])
}

fn not_packed(reason: equant_runtime::error::Reason) -> String {
    format!("weights: {reason}")
}

/// Weights in the order of a shape, from where `place` says that they are.
fn gather([a, b, c, d]: [usize; 4], stored: &[i8], place: impl Fn([usize; 4]) -> usize) -> Vec<i8> {
    let index = |i: usize| [i / (b * c * d), i / (c * d) % b, i / d % c, i % d];
    (0..a * b * c * d).map(|i| stored[place(index(i))]).collect()
}

/// The sum of each of `outputs` equal rows.
fn sums(rows: &[i8], outputs: usize) -> Vec<i32> {
    rows.chunks(rows.len() / outputs).map(|row| row.iter().map(|&w| i32::from(w)).sum()).collect()
}
