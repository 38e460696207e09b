//! Convolutions and products with constant weights.

use std::rc::Rc;

use equant_runtime::kernels::{
    Rows, band_height, conv2d_filter_len, depthwise_conv2d_band_height, depthwise_conv2d_work_len, filter_len,
    int4_len, pack_conv_transpose2d, pack_conv2d, pack_depthwise_conv2d, pack_fully_connected, pack_int4, patches_len,
};
use equant_runtime::op::{
    ConstRef, Conv2dParams, ConvTranspose2dParams, DepthwiseConv2dParams, FourBit, FullyConnectedParams, Weighted,
};
use equant_runtime::plan::DType;
use equant_runtime::quant::Multiplier;

use super::constant::{Along, Constant};
use super::pending::{Pending, Source};
use super::{Lowered, Lowering, Operand, QParams, Reason, Value, input, multiplier, unsupported};
use crate::compile::program::Section;
use crate::compile::view::{Atom, View};
use crate::graph::shape::{Window, transposed_windows, windows};
use crate::graph::{DataType, Node};

/// Which kernel computes the sums.
#[derive(Debug, Clone, Copy)]
enum Kernel {
    Conv { rows: Window, cols: Window, groups: usize },
    Transposed { rows: Window, cols: Window, groups: usize },
    Depthwise { rows: Window, cols: Window, multiplier: usize },
    FullyConnected { depth: usize },
}

/// `scale[o] · Σ w[o]·(x − zero_point) + bias[o]`.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    x: Operand,
    kernel: Kernel,
    /// In the order of the kernel.
    weights: Vec<i8>,
    /// Real value of one step of each channel's accumulator.
    scales: Vec<f64>,
    /// Real biases.
    pub(super) bias: Vec<f64>,
    /// Sums of the positive and of the negative weights of each channel.
    sums: Vec<(i64, i64)>,
    macs: u64,
}

/// Weights of output channels: the integers `[O, rest]` without zero points, a scale per channel.
struct Weights {
    ints: Vec<i8>,
    scales: Vec<f64>,
}

/// The constants of a linear operator in the plan.
#[derive(Clone, Copy)]
struct Constants {
    weights: ConstRef,
    bias: ConstRef,
    mantissas: ConstRef,
    shifts: ConstRef,
}

impl Linear {
    /// Lowest and highest sum of a channel, without bias.
    fn sum_range(&self, channel: usize) -> (i64, i64) {
        let zero_point = self.x.zero_point;
        // Padding adds zeros.
        let low = i64::from((self.x.range.0 - zero_point).min(0));
        let high = i64::from((self.x.range.1 - zero_point).max(0));
        let (positive, negative) = self.sums[channel];
        (positive * low + negative * high, positive * high + negative * low)
    }

    /// The real values the outputs can take.
    pub(super) fn real_range(&self) -> (f64, f64) {
        (0..self.scales.len()).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), channel| {
            let (least, most) = self.sum_range(channel);
            let real = |sum: i64| sum as f64 * self.scales[channel] + self.bias[channel];
            (low.min(real(least)), high.max(real(most)))
        })
    }

    /// Elements in a row of the kernel's weights.
    fn row(&self) -> usize {
        match self.kernel {
            Kernel::Depthwise { .. } => self.channels(),
            Kernel::Conv { .. } | Kernel::Transposed { .. } | Kernel::FullyConnected { .. } => {
                self.weights.len() / self.channels().max(1)
            }
        }
    }

    /// The bytes of the weights, and whether they have 4 bits: wherever the integers allow, however the file stores
    /// them, unless rows are so short that filling words up takes what 4 bits save.
    fn packed(&self) -> Lowered<(Vec<u8>, bool)> {
        let (len, row) = (self.weights.len(), self.row());
        let fits = self.weights.iter().all(|w| (-8..8).contains(w));
        if !fits || int4_len(len, row) >= len {
            return Ok((self.weights.iter().map(|&w| w as u8).collect(), false));
        }
        let mut packed = vec![0; int4_len(len, row)];
        pack_int4(&self.weights, row, &mut packed).map_err(not_packed)?;
        Ok((packed, true))
    }

    /// Number of output channels, innermost in the output's memory.
    pub(super) fn channels(&self) -> usize {
        self.scales.len()
    }

    /// Bias, mantissa and shift of one channel for an output of the given scale.
    fn channel(&self, channel: usize, factor: f64, scale: f64) -> Lowered<(i32, Multiplier)> {
        let (bias, step) = (self.bias[channel] * factor, self.scales[channel] * factor);
        let (least, most) = self.sum_range(channel);
        // Sums that cannot move the output by half a step: only the bias counts.
        if step * (most.max(-least) as f64) < scale * 1e-3 || step / scale < 2f64.powi(-32) {
            let mantissa = Multiplier { mantissa: 1 << 30, shift: 13 };
            // 2^-14 of a step: any bias that does not saturate every output fits.
            let bias = (bias / scale * f64::from(1 << 14)).round_ties_even();
            let room = f64::from(1 << 30);
            let bias = bias.clamp(-room, room) as i64;
            return Ok((self.folded(channel, bias, least, most)?, mantissa));
        }
        let m = multiplier(step / scale)?;
        let bias = (bias / step).round_ties_even();
        // Beyond i64 no model is meant; the accumulator check refuses it.
        let bias = bias.clamp(-1e15, 1e15) as i64;
        Ok((self.folded(channel, bias, least, most)?, m))
    }

    /// `bias − zero_point · Σ w`, with the proof that sums stay within 32 bits; the bias alone where the kernel takes the
    /// zero point off, since each output has other weights.
    fn folded(&self, channel: usize, bias: i64, least: i64, most: i64) -> Lowered<i32> {
        let (positive, negative) = self.sums[channel];
        let folded = match self.kernel {
            Kernel::Transposed { .. } => bias,
            _ => bias - i64::from(self.x.zero_point) * (positive + negative),
        };
        let bound = (bias + most).max(-(bias + least)).max(folded.abs());
        let limit = i64::from(i32::MAX);
        if bound > limit {
            return Err(Reason::Accumulator { channel, bound });
        }
        i32::try_from(folded).map_err(|_| Reason::Accumulator { channel, bound })
    }
}

impl<'g> Lowering<'g> {
    pub(super) fn conv(&mut self, node: &'g Node) -> Lowered<()> {
        let weights = self.constant(input(node, 1)?)?;
        let x = self.operand(input(node, 0)?)?;
        let x = self.eight_bits(x, input(node, 0)?)?;
        let (x_shape, shape) = (x.view.shape(), weights.shape.clone());
        let ([n, c, h, w], [o, depth, kernel_h, kernel_w]) = (x_shape.as_slice(), shape.as_slice()) else {
            return unsupported(format!(
                "input of rank {} and weights of rank {}: only 2-D convolution is supported",
                x_shape.len(),
                shape.len()
            ));
        };
        let groups = usize::try_from(node.int("group", 1)).unwrap_or(0);
        if groups == 0 || depth * groups != *c || o % groups != 0 {
            return Err(Reason::Shape(format!(
                "weights {shape:?} in {groups} group(s) for an input of shape {x_shape:?}"
            )));
        }
        let spatial = windows(node, &[*h, *w], &[*kernel_h, *kernel_w]).map_err(Reason::Shape)?;
        let [rows, cols] = [spatial[0], spatial[1]];
        let bias = self.bias(node, *o, 1.0)?;
        let Weights { ints, scales } = self.weights_per_output(node, &weights)?;
        let sums = sums(&ints, *o);
        // One input channel alone is cheaper as a general convolution: its taps lie next to each other.
        let depthwise = groups == *c && *depth == 1 && groups > 1;
        let filter = conv2d_filter_len([*kernel_h, *kernel_w], *depth, groups, cols.dilation);
        let mut packed = vec![0; if depthwise { ints.len() } else { o * filter }];
        let (kernel, done) = if depthwise {
            let done = pack_depthwise_conv2d(&ints, [*o, *kernel_h, *kernel_w], &mut packed);
            (Kernel::Depthwise { rows, cols, multiplier: o / c }, done)
        } else {
            let done = pack_conv2d(&ints, [*o, *depth, *kernel_h, *kernel_w], groups, cols.dilation, &mut packed);
            (Kernel::Conv { rows, cols, groups }, done)
        };
        done.map_err(not_packed)?;
        let x = self.arranged(&x, View::channels_last(&x_shape), &node.name)?;
        let macs = (n * rows.output * cols.output * ints.len()) as u64;
        let scales = scales.into_iter().map(|scale| scale * x.scale).collect();
        let linear = Linear { x, kernel, weights: packed, scales, bias, sums, macs };
        let view = View::channels_last(&[*n, *o, rows.output, cols.output]);
        self.set_pending(node, Source::Linear(Rc::new(linear)), view)
    }

    pub(super) fn conv_transpose(&mut self, node: &'g Node) -> Lowered<()> {
        let weights = self.constant(input(node, 1)?)?;
        let x = self.operand(input(node, 0)?)?;
        let x = self.eight_bits(x, input(node, 0)?)?;
        let (x_shape, shape) = (x.view.shape(), weights.shape.clone());
        let ([n, c, h, w], [inputs, per_group, kernel_h, kernel_w]) = (x_shape.as_slice(), shape.as_slice()) else {
            return unsupported(format!(
                "input of rank {} and weights of rank {}: only 2-D convolution is supported",
                x_shape.len(),
                shape.len()
            ));
        };
        let groups = usize::try_from(node.int("group", 1)).unwrap_or(0);
        if groups == 0 || inputs != c || !c.is_multiple_of(groups) || weights.real.is_empty() {
            return Err(Reason::Shape(format!(
                "weights {shape:?} in {groups} group(s) for an input of shape {x_shape:?}"
            )));
        }
        let spatial = transposed_windows(node, &[*h, *w], &[*kernel_h, *kernel_w]).map_err(Reason::Shape)?;
        let [rows, cols] = [spatial[0], spatial[1]];
        let outputs = per_group * groups;
        let bias = self.bias(node, outputs, 1.0)?;
        let by_output = weights.outputs_first(groups)?;
        let Weights { ints, scales } = self.weights_per_output(node, &by_output)?;
        let sums = sums(&ints, outputs);
        let mut packed = vec![0; ints.len()];
        let [strides, dilations] = [[rows.stride, cols.stride], [rows.dilation, cols.dilation]];
        let ochw = [outputs, c / groups, *kernel_h, *kernel_w];
        pack_conv_transpose2d(&ints, ochw, strides, dilations, &mut packed).map_err(not_packed)?;
        let x = self.arranged(&x, View::channels_last(&x_shape), &node.name)?;
        // Every input pixel meets every weight, but for what is cut off.
        let macs = (n * h * w * ints.len()) as u64;
        let scales = scales.into_iter().map(|scale| scale * x.scale).collect();
        let kernel = Kernel::Transposed { rows, cols, groups };
        let linear = Linear { x, kernel, weights: packed, scales, bias, sums, macs };
        let view = View::channels_last(&[*n, outputs, rows.output, cols.output]);
        self.set_pending(node, Source::Linear(Rc::new(linear)), view)
    }

    pub(super) fn gemm(&mut self, node: &'g Node) -> Lowered<()> {
        if node.int("transA", 0) != 0 {
            return unsupported("transA = 1 is not supported");
        }
        let mut weights = (*self.constant(input(node, 1)?)?).clone();
        if weights.shape.len() != 2 {
            return Err(Reason::Shape(format!("weights of shape {:?}", weights.shape)));
        }
        if node.int("transB", 0) == 0 {
            weights = weights.transposed(&[1, 0])?;
        }
        let alpha = f64::from(node.float("alpha", 1.0));
        if alpha <= 0.0 {
            return unsupported(format!("alpha = {alpha}: only positive factors are supported"));
        }
        let bias = self.bias(node, weights.shape[0], f64::from(node.float("beta", 1.0)))?;
        let x = input(node, 0)?;
        let x = self.operand(x)?;
        self.product_with_constant(node, x, &weights, bias, alpha)
    }

    /// `alpha · x · Wᵀ + bias` for weights `[O, K]`.
    pub(super) fn product_with_constant(
        &mut self,
        node: &'g Node,
        x: Operand,
        weights: &Constant,
        bias: Vec<f64>,
        alpha: f64,
    ) -> Lowered<()> {
        let (pending, _) = self.fully_connected(node, x, weights, bias, alpha)?;
        self.set(node.output(), pending)
    }

    /// As [`Self::product_with_constant`], without naming the result; also returns the output's view.
    pub(super) fn fully_connected(
        &mut self,
        node: &Node,
        x: Operand,
        weights: &Constant,
        bias: Vec<f64>,
        alpha: f64,
    ) -> Lowered<(Value, View)> {
        let mut shape = x.view.shape();
        let (outputs, depth) = (weights.shape[0], weights.shape[1]);
        if shape.pop() != Some(depth) {
            return Err(Reason::Shape(format!(
                "{outputs} x {depth} weights for an input of shape {:?}",
                x.view.shape()
            )));
        }
        if x.dtype != DType::I8 || weights.quantized.as_ref().is_none_or(|q| q.scales.is_empty()) {
            return self.wide_product(node, x, weights, &bias, alpha);
        }
        let last = shape.len();
        let x = match x.view.inner_positions(last) {
            Some(_) => x,
            None => self.arranged(&x, View::row_major(&x.view.shape()), &node.name)?,
        };
        let positions =
            x.view.inner_positions(last).ok_or_else(|| Reason::Shape("the depth axis is not dense".into()))?;
        let Weights { ints, scales } = self.weights_per_output(node, weights)?;
        let sums = sums(&ints, outputs);
        // The columns follow the order of the input in memory.
        let mut ordered = vec![0; ints.len()];
        for (row, source) in ordered.chunks_mut(depth).zip(ints.chunks(depth)) {
            for (&position, &weight) in positions.iter().zip(source) {
                row[position] = weight;
            }
        }
        let mut packed = vec![0; outputs * filter_len(1, depth)];
        pack_fully_connected(&ordered, [outputs, depth], &mut packed).map_err(not_packed)?;
        let mut axes: Vec<Vec<Atom>> = x.view.axes()[..last].to_vec();
        for atom in axes.iter_mut().flatten() {
            atom.stride = atom.stride / depth * outputs;
        }
        axes.push(vec![Atom { size: outputs, stride: 1 }]);
        let view = View::from_axes(axes);
        let macs = (view.len() * depth) as u64;
        let scales = scales.into_iter().map(|scale| scale * x.scale * alpha).collect();
        let linear = Linear { x, kernel: Kernel::FullyConnected { depth }, weights: packed, scales, bias, sums, macs };
        let pending = Pending::new(Source::Linear(Rc::new(linear)), view.clone(), node);
        Ok((Value::Pending(Box::new(pending)), view))
    }

    /// The bias of a Conv or Gemm as real values per output, times `factor`.
    fn bias(&mut self, node: &Node, outputs: usize, factor: f64) -> Lowered<Vec<f64>> {
        let Some(name) = node.input(2) else { return Ok(vec![0.0; outputs]) };
        let constant = self.constant(name)?;
        let values = constant
            .broadcast(&constant.real, &[1, outputs])
            .filter(|_| constant.real.iter().all(|x| x.is_finite()))
            .ok_or_else(|| Reason::Shape(format!("a bias of shape {:?} for {outputs} outputs", constant.shape)))?;
        Ok(values.into_iter().map(|x| x * factor).collect())
    }

    /// A value that must be a constant.
    pub(super) fn constant(&mut self, name: &str) -> Lowered<Rc<Constant>> {
        match self.value(name)? {
            Value::Const(constant) => Ok(constant),
            _ => unsupported(format!("its input `{name}` must be a constant")),
        }
    }

    /// Refuses a 16-bit operand.
    pub(super) fn eight_bits(&self, x: Operand, name: &str) -> Lowered<Operand> {
        match x.dtype {
            DType::I8 => Ok(x),
            DType::I16 | DType::I32 => unsupported(format!(
                "its input `{name}` is not quantized to 8 bits; insert QuantizeLinear and DequantizeLinear before it"
            )),
        }
    }

    /// Names a pending operator.
    pub(super) fn set_pending(&mut self, node: &Node, source: Source, view: View) -> Lowered<()> {
        let pending = Pending::new(source, view, node);
        self.set(node.output(), Value::Pending(Box::new(pending)))
    }

    pub(super) fn emit_linear(
        &mut self,
        linear: &Linear,
        factor: f64,
        y: &Operand,
        clamp: [i32; 2],
        name: &str,
    ) -> Lowered<()> {
        let outputs = linear.channels();
        let scale = f64::from(self.program.storages[y.storage].scale);
        let (mut biases, mut mantissas, mut shifts) = (Vec::new(), Vec::new(), Vec::new());
        for channel in 0..outputs {
            let (bias, m) = linear.channel(channel, factor, scale)?;
            biases.push(bias);
            mantissas.push(m.mantissa);
            shifts.push(m.shift as u8);
        }
        let (weights, four_bit) = linear.packed()?;
        let consts = &mut self.program.consts;
        let constants = Constants {
            weights: consts.add(Section::Weights, weights),
            bias: consts.add_i32(Section::Biases, &biases),
            mantissas: consts.add_i32(Section::Multipliers, &mantissas),
            shifts: consts.add(Section::Multipliers, shifts),
        };
        match linear.kernel {
            Kernel::Conv { rows, cols, groups } => {
                let geometry = Geometry::new(rows, cols);
                let [x, y] = [self.image_record(&linear.x), self.window_record(y, rows, cols, outputs)];
                self.weighted(&geometry.conv(groups, constants, clamp), four_bit, [x, y], name, linear.macs);
                self.work(patches_len(linear.row(), rows.output * cols.output));
                self.over(rows, band_height([rows.output, cols.output]));
            }
            Kernel::Transposed { rows, cols, groups } => {
                let geometry = Geometry::new(rows, cols);
                let [x, y] = [self.image_record(&linear.x), self.window_record(y, rows, cols, outputs)];
                self.weighted(&geometry.transposed(groups, constants, clamp), four_bit, [x, y], name, linear.macs);
            }
            Kernel::Depthwise { rows, cols, multiplier } => {
                let geometry = Geometry::new(rows, cols);
                let [x, y] = [self.image_record(&linear.x), self.window_record(y, rows, cols, outputs)];
                self.weighted(&geometry.depthwise(multiplier, constants, clamp), four_bit, [x, y], name, linear.macs);
                let [kernel, strides] = [[rows.kernel, cols.kernel], [rows.stride, cols.stride]];
                let outputs = [rows.output, cols.output];
                self.work(depthwise_conv2d_work_len(kernel, strides, outputs));
                self.over(rows, depthwise_conv2d_band_height(kernel, strides, outputs));
            }
            Kernel::FullyConnected { depth } => {
                let rows = y.view.len() / outputs;
                let [x, y] = [self.rows_record(&linear.x, depth), self.rows_record(y, outputs)];
                let Constants { weights, bias, mantissas, shifts } = constants;
                let params = FullyConnectedParams { weights, bias, mantissas, shifts, clamp };
                self.weighted(&params, four_bit, [x, y], name, linear.macs);
                self.work(patches_len(linear.row(), rows));
                let of_pixels = Rows { input: rows, output: rows, kernel: 1, stride: 1, dilation: 1, before: 0 };
                self.program.over(of_pixels, band_height([rows, 1]));
            }
        }
        Ok(())
    }

    /// Lets the last operator, which slides windows over an image, write its output over its input, in bands of rows.
    pub(super) fn over(&mut self, rows: Window, height: usize) {
        let Some(&[batch, input, ..]) = self.program.input_dims() else { return };
        let Window { kernel, stride, dilation, pad_begin: before, output, .. } = rows;
        if batch == 1 {
            self.program.over(Rows { input, output, kernel, stride, dilation, before }, height);
        }
    }

    /// Gives the last operator words to work in.
    fn work(&mut self, words: usize) {
        let work = self.fresh(View::row_major(&[words]), QParams::full(DType::I32, 1.0, 0), DType::I32.range());
        let record = self.default_record(&work);
        self.program.work(record);
    }

    /// An operator with weights, of the kind that their width asks for.
    fn weighted<P: Weighted + Copy + 'static>(
        &mut self,
        params: &P,
        four_bit: bool,
        [x, y]: [usize; 2],
        name: &str,
        macs: u64,
    ) {
        match four_bit {
            true => self.program.op(&FourBit(*params), vec![x], y, name, macs),
            false => self.program.op(params, vec![x], y, name, macs),
        }
    }

    /// The integers of quantized weights with the zero points taken off, and a scale per output: the first axis.
    fn weights_per_output(&mut self, node: &Node, weights: &Constant) -> Lowered<Weights> {
        let found = weights_per_output(weights)?;
        let four_bit = weights.quantized.as_ref().is_some_and(|q| matches!(q.dtype, DataType::I4 | DataType::U4));
        if four_bit && found.ints.iter().any(|w| !(-8..8).contains(w)) {
            let note = format!(
                "`{}`: its 4-bit weights reach beyond -8..=7 steps from their zero point and take 8 bits in the plan; \
                 quantize them symmetrically, with one scale for each output channel",
                node.name
            );
            // Some products take several operators.
            if !self.program.notes.contains(&note) {
                self.program.notes.push(note);
            }
        }
        Ok(found)
    }

    /// The record `[N, H, W, C]` of an image stored with its channels last.
    pub(super) fn image_record(&mut self, x: &Operand) -> usize {
        let shape = x.view.shape();
        self.shaped_record(x, vec![shape[0], shape[2], shape[3], shape[1]])
    }

    /// The record `[N, OH, OW, C]` of a window operator's output, whatever shape it is seen under.
    pub(super) fn window_record(&mut self, y: &Operand, rows: Window, cols: Window, channels: usize) -> usize {
        let batch = y.view.len() / (rows.output * cols.output * channels);
        self.shaped_record(y, vec![batch, rows.output, cols.output, channels])
    }
}

/// The words that convolutions share.
pub(super) struct Geometry {
    pub(super) kernel: [u32; 2],
    pub(super) strides: [u32; 2],
    pub(super) dilations: [u32; 2],
    pub(super) pads: [u32; 4],
}

impl Geometry {
    pub(super) fn new(rows: Window, cols: Window) -> Self {
        Self {
            kernel: [rows.kernel as u32, cols.kernel as u32],
            strides: [rows.stride as u32, cols.stride as u32],
            dilations: [rows.dilation as u32, cols.dilation as u32],
            pads: [rows.pad_begin as u32, cols.pad_begin as u32, rows.pad_end as u32, cols.pad_end as u32],
        }
    }

    fn conv(self, groups: usize, constants: Constants, clamp: [i32; 2]) -> Conv2dParams {
        let Self { kernel, strides, dilations, pads } = self;
        let Constants { weights, bias, mantissas, shifts } = constants;
        let groups = groups as u32;
        Conv2dParams { kernel, strides, dilations, pads, groups, weights, bias, mantissas, shifts, clamp }
    }

    fn transposed(self, groups: usize, constants: Constants, clamp: [i32; 2]) -> ConvTranspose2dParams {
        let Self { kernel, strides, dilations, pads: [top, left, ..] } = self;
        let Constants { weights, bias, mantissas, shifts } = constants;
        let (groups, pads) = (groups as u32, [top, left]);
        ConvTranspose2dParams { kernel, strides, dilations, pads, groups, weights, bias, mantissas, shifts, clamp }
    }

    fn depthwise(self, multiplier: usize, constants: Constants, clamp: [i32; 2]) -> DepthwiseConv2dParams {
        let Self { kernel, strides, dilations, pads } = self;
        let Constants { weights, bias, mantissas, shifts } = constants;
        let multiplier = multiplier as u32;
        DepthwiseConv2dParams { kernel, strides, dilations, pads, multiplier, weights, bias, mantissas, shifts, clamp }
    }
}

/// Sums of the positive and of the negative weights of each output.
fn sums(ints: &[i8], outputs: usize) -> Vec<(i64, i64)> {
    ints.chunks(ints.len() / outputs.max(1))
        .map(|row| {
            row.iter().map(|&w| i64::from(w)).fold((0, 0), |(p, n), w| if w > 0 { (p + w, n) } else { (p, n + w) })
        })
        .collect()
}

/// Why the runtime could not pack weights: a defect, since shapes and ranges were checked.
fn not_packed(reason: equant_runtime::Reason) -> Reason {
    Reason::Shape(format!("weights cannot be packed: {reason}"))
}

/// See [`Lowering::weights_per_output`].
fn weights_per_output(weights: &Constant) -> Lowered<Weights> {
    let Some(q) = weights.quantized.as_ref().filter(|q| !q.scales.is_empty()) else {
        return unsupported("its weights are not quantized; quantize them to 8 or 4 bits, or quantize the whole layer");
    };
    let outputs = weights.shape[0];
    let per_output = (weights.real.len() / outputs.max(1)).max(1);
    let of = |i: usize| match q.along {
        Along::Nothing => 0,
        Along::Axis(_) => i / per_output,
        Along::Blocks(_) => i,
    };
    let steps = q.ints.iter().enumerate().map(|(i, &w)| w.saturating_sub(q.zero_points[of(i)]));
    let (ints, scales): (Vec<i32>, Vec<f64>) = match q.along {
        Along::Axis(1..) => {
            return unsupported(
                "its weights are quantized along their inputs; quantize them per tensor or per output channel",
            );
        }
        Along::Nothing | Along::Axis(_) => {
            (steps.collect(), (0..outputs).map(|o| q.scales[of(o * per_output)]).collect())
        }
        Along::Blocks(block) => {
            let steps: Vec<i32> = steps.collect();
            let rows = steps.chunks(per_output).zip(q.scales.chunks(per_output));
            let rows: Vec<(Vec<i32>, f64)> = rows
                .map(|(row, scales)| common_scale(row, scales).ok_or(Reason::Blocked { block }))
                .collect::<Lowered<_>>()?;
            let (ints, scales): (Vec<Vec<i32>>, Vec<f64>) = rows.into_iter().unzip();
            (ints.concat(), scales)
        }
    };
    let ints = ints.into_iter().enumerate().map(|(i, w)| {
        i8::try_from(w).map_err(|_| {
            Reason::Unsupported(format!(
                "a weight of output {} lies {w} steps from the zero point, beyond 8 bits; quantize weights symmetrically",
                i / per_output
            ))
        })
    });
    Ok(Weights { ints: ints.collect::<Lowered<_>>()?, scales })
}

/// The same weights in steps of their least scale, if the other scales are whole multiples of it and the steps fit 8
/// bits: blocks whose scales are equal, or differ by small factors.
fn common_scale(steps: &[i32], scales: &[f64]) -> Option<(Vec<i32>, f64)> {
    let least = scales.iter().copied().filter(|&scale| scale > 0.0).fold(f64::INFINITY, f64::min);
    if least == f64::INFINITY {
        return Some((vec![0; steps.len()], 0.0));
    }
    let whole = steps.iter().zip(scales).map(|(&step, &scale)| {
        let whole = f64::from(step) * (scale / least);
        let exact = (scale / least).fract() == 0.0 || step == 0;
        (exact && (-128.0..=127.0).contains(&whole)).then_some(whole as i32)
    });
    Some((whole.collect::<Option<_>>()?, least))
}
