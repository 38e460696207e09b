//! What operators do, counted: the numbers that estimates of their instructions are linear in.
//!
//! Counts follow the kernels of microcontrollers, whatever this code runs on. They need a plan, not a run.

use core::ops::Range;

use crate::kernels::memory::BLOCK;
use crate::kernels::{PIXELS, WHOLE, conv2d_filter_len, filter_len};
use crate::op::{
    AvgPool2dParams, ConcatParams, Conv2dParams, ConvTranspose2dParams, DepthwiseConv2dParams, GatherParams,
    MatMulMaskSoftmaxParams, MatMulParams, MatMulSoftmaxParams, MaxPool2dParams, OpKind, RequantizeParams,
    Resize2dParams, TakeParams, TransposeParams,
};
use crate::operator::OperatorSet;
use crate::plan::{DType, OpView, Plan, TensorRecord};

/// Counts at most of an operator.
const MOST: usize = 9;

/// Output pixels that are multiplied with a filter together.
const TOGETHER: u64 = PIXELS as u64;

/// Sums of a row that are kept for four rows at once.
const KEPT: u64 = 64;

/// Operators whose cost is linear in the same counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Convolutions and products with constant weights, of four pixels or more.
    Pixels,
    /// The same of fewer pixels, which are multiplied one by one.
    Pixel,
    /// Depthwise convolutions with one kernel for each channel.
    Depthwise,
    /// Sums of two tensors of one shape.
    Add,
    /// Means over windows.
    AvgPool,
    /// Softmax.
    Softmax,
    /// Convolutions and products with constant weights whose outputs have 16 or 32 bits.
    Wide,
    /// Transposed convolutions.
    Transposed,
    /// Products of two activations.
    MatMul,
    /// The same with a softmax over their rows, masked or not.
    Attention,
    /// Layer normalization and root mean square normalization.
    Norm,
    /// Logarithm of a softmax.
    LogSoftmax,
    /// Sums of tensors of several shapes or types.
    AnyAdd,
    /// Products, element by element.
    Mul,
    /// Quotients, element by element.
    Div,
    /// Changes of scale or type.
    Requantize,
    /// Tables.
    Lut,
    /// Maxima over windows.
    MaxPool,
    /// Interpolation.
    Resize,
    /// Index of the largest.
    ArgMax,
    /// What copies runs of neighbours: concatenations, gathers, slices, states.
    Copies,
    /// Permutations of axes.
    Transpose,
    /// Padding.
    Pad,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 23] = [
        Self::Pixels,
        Self::Pixel,
        Self::Depthwise,
        Self::Add,
        Self::AvgPool,
        Self::Softmax,
        Self::Wide,
        Self::Transposed,
        Self::MatMul,
        Self::Attention,
        Self::Norm,
        Self::LogSoftmax,
        Self::AnyAdd,
        Self::Mul,
        Self::Div,
        Self::Requantize,
        Self::Lut,
        Self::MaxPool,
        Self::Resize,
        Self::ArgMax,
        Self::Copies,
        Self::Transpose,
        Self::Pad,
    ];

    /// Whether its operators have weights, which come in two widths.
    pub const fn is_weighted(self) -> bool {
        matches!(self, Self::Pixels | Self::Pixel | Self::Depthwise | Self::Wide | Self::Transposed)
    }

    /// What is counted, in the order of [`Work::counts`]. Filters are as long as they are stored, filled up with zeros;
    /// "operator" is 1.
    pub const fn counts(self) -> &'static [&'static str] {
        match self {
            Self::Pixels => &[
                "multiply-accumulates",
                "outputs",
                "elements gathered",
                "elements gathered at borders",
                "pixels",
                "pixels at borders",
                "multiply-accumulates of pixels left over",
                "segments gathered",
                "operator",
            ],
            Self::Pixel => &["multiply-accumulates", "outputs", "elements gathered", "operator"],
            Self::Depthwise => &[
                "multiply-accumulates",
                "outputs",
                "elements widened",
                "rows widened",
                "runs of outputs",
                "weights",
                "operator",
            ],
            Self::Add | Self::AnyAdd | Self::Mul | Self::Div => &["outputs", "operator"],
            Self::Requantize => &["outputs", "outputs of multipliers from 1/4 on", "operator"],
            Self::AvgPool => &["elements summed", "outputs"],
            Self::Softmax | Self::LogSoftmax => &["elements", "rows"],
            Self::Wide => &[
                "multiply-accumulates",
                "multiply-accumulates of pixels left over",
                "outputs",
                "elements gathered",
                "operator",
            ],
            Self::Transposed => &["multiply-accumulates", "pixels", "rows of taps", "pixels at borders", "operator"],
            Self::Lut => &["outputs", "outputs of more than 8 bits", "operator"],
            Self::MatMul => &[
                "multiply-accumulates of neighbours along the depth",
                "other multiply-accumulates",
                "multiply-accumulates of vectors filled up",
                "outputs",
                "elements widened",
                "vectors read",
                "operator",
            ],
            Self::Attention => &[
                "multiply-accumulates of all scores",
                "multiply-accumulates of scores that are seen",
                "scores",
                "scores with a mask",
                "rows",
                "operator",
            ],
            Self::Norm => &["elements", "elements of 32 bits", "rows", "operator"],
            Self::MaxPool => &["elements compared", "taps", "outputs", "operator"],
            Self::Resize => &["elements weighted", "taps", "outputs", "pixels", "operator"],
            Self::ArgMax => &["elements compared", "runs", "outputs", "blocks", "operator"],
            Self::Copies => &[
                "bytes",
                "runs of concatenations",
                "runs of gathers",
                "runs of slices",
                "elements one by one",
                "operator",
            ],
            Self::Transpose => &["bytes of rows", "rows", "single elements", "bytes of single elements", "operator"],
            Self::Pad => &["outputs", "bytes", "rows", "operator"],
        }
    }
}

/// What one run of an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// What the counts are of.
    pub class: Class,
    counts: [u64; MOST],
}

impl Work {
    /// The counts of [`Class::counts`].
    pub fn counts(&self) -> &[u64] {
        self.counts.get(..self.class.counts().len()).unwrap_or_default()
    }

    /// Counts the work of an operator. `None` for one without a class: of another kind, or of types or sizes that its class
    /// has slower code for.
    pub fn of<O: OperatorSet>(op: &OpView<'_>, plan: &Plan<'_, O>) -> Option<Self> {
        let (x, y) = (plan.input(op, 0).ok()?, plan.output(op, 0).ok()?);
        let bytes = x.dtype == DType::I8 && y.dtype == DType::I8;
        let outputs = elements(&y);
        let copied = times([outputs, y.dtype.size() as u64]);
        // What works on blocks does not stop before their end.
        let blocks = outputs.next_multiple_of(BLOCK as u64);
        match op.kind {
            OpKind::Conv2d | OpKind::Conv2dI4 => conv(&op.weighted()?, &x, &y),
            OpKind::FullyConnected | OpKind::FullyConnectedI4 => fully_connected(&x, &y),
            OpKind::DepthwiseConv2d | OpKind::DepthwiseConv2dI4 if bytes => depthwise(&op.weighted()?, &x, &y),
            OpKind::ConvTranspose2d | OpKind::ConvTranspose2dI4 => {
                let p: ConvTranspose2dParams = op.weighted()?;
                // Four channels at a time; a row of taps is one product.
                let pixels = times([rows(&y)?, last(&y)?.div_ceil(4)]);
                let taps = times([pixels, p.kernel[0].checked_div(p.strides[0])?.max(1).into()]);
                // As many as an input that ends nowhere reaches with all taps.
                let inside = |axis: usize| {
                    let reach = u64::from(p.kernel[axis]).div_ceil(p.strides[axis].max(1).into());
                    let inputs = (u64::from(x.dims[axis + 1]) + 1).saturating_sub(reach);
                    times([inputs, p.strides[axis].into()]).min(y.dims[axis + 1].into())
                };
                let all = times([y.dims[0].into(), inside(0), inside(1), last(&y)?.div_ceil(4)]);
                Some(Self::new(Class::Transposed, [op.macs.into(), pixels, taps, pixels.saturating_sub(all), 1]))
            }
            OpKind::Add => {
                let b = plan.input(op, 1).ok()?;
                let same = bytes && b.dtype == DType::I8 && elements(&x) == elements(&b);
                Some(if same { Self::new(Class::Add, [outputs, 1]) } else { Self::new(Class::AnyAdd, [blocks, 1]) })
            }
            OpKind::Mul => Some(Self::new(Class::Mul, [blocks, 1])),
            OpKind::Div => Some(Self::new(Class::Div, [blocks, 1])),
            OpKind::Requantize => {
                let large = if op.params::<RequantizeParams>()?.shift < 2 { blocks } else { 0 };
                Some(Self::new(Class::Requantize, [blocks, large, 1]))
            }
            OpKind::Lut => Some(Self::new(Class::Lut, if bytes { [outputs, 0, 1] } else { [0, blocks, 1] })),
            OpKind::AvgPool2d if bytes => {
                let p: AvgPool2dParams = op.params()?;
                let axis = |i: usize| u64::from(p.kernel[i].min(x.dims[i + 1]));
                Some(Self::new(Class::AvgPool, [times([outputs, axis(0), axis(1)]), outputs]))
            }
            OpKind::MaxPool2d => {
                let p: MaxPool2dParams = op.params()?;
                let axis = |i: usize| u64::from(p.kernel[i].min(x.dims[i + 1]));
                let taps = times([outputs.checked_div(last(&y)?)?, axis(0), axis(1)]);
                Some(Self::new(Class::MaxPool, [times([outputs, axis(0), axis(1)]), taps, outputs, 1]))
            }
            OpKind::Softmax if bytes => Some(Self::new(Class::Softmax, [elements(&x), rows(&x)?])),
            OpKind::LogSoftmax => Some(Self::new(Class::LogSoftmax, [elements(&x), rows(&x)?])),
            OpKind::LayerNorm | OpKind::RmsNorm => {
                let words = if x.dtype == DType::I32 { elements(&x) } else { 0 };
                Some(Self::new(Class::Norm, [elements(&x), words, rows(&x)?, 1]))
            }
            OpKind::MatMul => {
                let p: MatMulParams = op.params()?;
                // Four vectors of one operand meet those of the other where they lie.
                let (others, vectors) = if p.b_strides[2] == 1 { (p.m, p.n) } else { (p.n, p.m) };
                let read = times([batches(p.batch), others.div_ceil(4).into(), vectors.into()]);
                let together = times([read, 4, u64::from(p.k).next_multiple_of(4)]);
                let sums = times([batches(p.batch), p.m.into(), p.n.into()]);
                let macs = times([sums, p.k.into()]);
                let along = [p.a_strides[3], p.b_strides[2]] == [1; 2];
                let [along, across] = if along { [macs, 0] } else { [0, macs] };
                let widened = times([batches(p.batch), p.k.into(), others.into()]);
                Some(Self::new(Class::MatMul, [along, across, together, sums, widened, read, 1]))
            }
            OpKind::MatMulSoftmax => {
                let p: MatMulSoftmaxParams = op.params()?;
                Some(attention(&p, u32::MAX, false))
            }
            OpKind::MatMulMaskSoftmax => {
                let p: MatMulMaskSoftmaxParams = op.params()?;
                Some(attention(&p.product, p.visible, op.input_count() == 3))
            }
            OpKind::Resize2d => {
                let p: Resize2dParams = op.params()?;
                let pixels = outputs.checked_div(last(&y)?)?;
                let taps = times([pixels, p.taps[0].into(), p.taps[1].into()]);
                Some(Self::new(Class::Resize, [times([taps, last(&y)?]), taps, outputs, pixels, 1]))
            }
            OpKind::ArgMax => {
                let inner = last(&x)?;
                let runs = times([elements(&x).checked_div(inner)?, inner.div_ceil(BLOCK as u64)]);
                let blocks = times([outputs.checked_div(inner)?, inner.div_ceil(BLOCK as u64)]);
                Some(Self::new(Class::ArgMax, [elements(&x), runs, outputs, blocks, 1]))
            }
            OpKind::Concat => {
                let axis = op.params::<ConcatParams>()?.axis as usize;
                let inputs = (0..op.input_count()).filter_map(|i| plan.input(op, i).ok());
                // Every input is cut at the axes before this one.
                let runs = inputs.map(|x| product_of(&x, 0..axis)).fold(0, u64::saturating_add);
                Some(Self::new(Class::Copies, [copied, runs, 0, 0, 0, 1]))
            }
            OpKind::Gather => {
                let axis = op.params::<GatherParams>()?.axis as usize;
                let runs = outputs.checked_div(product_of(&x, axis.saturating_add(1)..usize::from(x.rank)))?;
                Some(Self::new(Class::Copies, [copied, 0, runs, 0, 0, 1]))
            }
            OpKind::Take => {
                let single = op.params::<TakeParams>()?.indices[3].len > 0;
                let counts = if single { [0, 0, 0, 0, outputs, 1] } else { [copied, 0, 0, rows(&y)?, 0, 1] };
                Some(Self::new(Class::Copies, counts))
            }
            OpKind::State => Some(Self::new(Class::Copies, [copied, 0, 0, 0, 0, 1])),
            OpKind::Transpose => {
                let whole = op.params::<TransposeParams>()?.perm[3] == 3;
                let rows = rows(&y)?;
                let counts = if whole { [copied, rows, 0, 0, 1] } else { [0, rows, outputs, copied, 1] };
                Some(Self::new(Class::Transpose, counts))
            }
            OpKind::Pad => {
                Some(Self::new(Class::Pad, [outputs, times([elements(&x), x.dtype.size() as u64]), rows(&x)?, 1]))
            }
            _ => None,
        }
    }

    fn new<const N: usize>(class: Class, values: [u64; N]) -> Self {
        let mut counts = [0; MOST];
        for (count, value) in counts.iter_mut().zip(values) {
            *count = value;
        }
        Self { class, counts }
    }
}

/// Patches: what output pixels read of the input.
struct Patches {
    /// How many there are: pixels, for each group of channels.
    count: u64,
    /// Those whose windows are gathered tap by tap.
    at_borders: u64,
    /// Runs of neighbours in memory that each is gathered from.
    segments: u64,
    /// Elements of each, as of a filter.
    len: u64,
}

/// The work of patches that each meet `filters`, for outputs of a type.
fn product(patches: &Patches, filters: u64, dtype: DType) -> Work {
    let &Patches { count, at_borders, segments, len } = patches;
    let outputs = times([count, filters]);
    let (macs, gathered) = (times([outputs, len]), times([count, len]));
    let left_over = times([count % TOGETHER, filters, len]);
    if dtype != DType::I8 {
        return Work::new(Class::Wide, [macs, left_over, outputs, gathered, 1]);
    }
    if count < TOGETHER {
        return Work::new(Class::Pixel, [macs, outputs, gathered, 1]);
    }
    let [border_elements, segments] = [times([at_borders, len]), times([count, segments])];
    Work::new(Class::Pixels, [macs, outputs, gathered, border_elements, count, at_borders, left_over, segments, 1])
}

fn fully_connected(x: &TensorRecord, y: &TensorRecord) -> Option<Work> {
    let depth = last(x)?;
    let rows = elements(x).checked_div(depth)?;
    let patches = Patches { count: rows, at_borders: 0, segments: 1, len: filter_len(1, depth as usize) as u64 };
    Some(product(&patches, last(y)?, y.dtype))
}

fn conv(p: &Conv2dParams, x: &TensorRecord, y: &TensorRecord) -> Option<Work> {
    let [n, _, _, channels] = y.dims.map(u64::from);
    let (groups, [kernel_h, kernel_w]) = (u64::from(p.groups), p.kernel.map(|size| size as usize));
    let depth = x.dims[3].checked_div(p.groups)? as usize;
    let len = conv2d_filter_len([kernel_h, kernel_w], depth, p.groups as usize, p.dilations[1] as usize) as u64;
    let sizes = [p.kernel, p.strides, p.dilations];
    let (rows, cols) = (Axis::new([x, y], 0, sizes, p.pads)?, Axis::new([x, y], 1, sizes, p.pads)?);
    let count = times([n, groups, rows.output, cols.output]);
    // Only then are neighbouring taps neighbours in memory.
    let joined = groups == 1 && p.dilations[1] == 1;
    let inside = if joined { times([n, rows.inside(), cols.inside()]) } else { 0 };
    let segments = if joined { rows.kernel } else { times([rows.kernel, cols.kernel]) };
    let patches = Patches { count, at_borders: count.saturating_sub(inside), segments, len };
    Some(product(&patches, channels.checked_div(groups)?, y.dtype))
}

fn depthwise(p: &DepthwiseConv2dParams, x: &TensorRecord, y: &TensorRecord) -> Option<Work> {
    if p.multiplier != 1 || p.dilations != [1; 2] {
        return None;
    }
    let sizes = [p.kernel, p.strides, p.dilations];
    let (rows, cols) = (Axis::new([x, y], 0, sizes, p.pads)?, Axis::new([x, y], 1, sizes, p.pads)?);
    let [n, .., channels] = y.dims.map(u64::from);
    // Four at a time; fewer at the end take no less.
    let channels = channels.next_multiple_of(4);
    let outputs = times([n, rows.output, cols.output, channels]);
    let weights = times([rows.kernel, cols.kernel, channels]);
    let runs = if times([rows.read(), cols.read()]) > WHOLE as u64 { rows.output } else { 1 };
    let widened_rows = times([n, rows.read(), channels]);
    let counts = [
        times([outputs, rows.kernel, cols.kernel]),
        outputs,
        times([widened_rows, cols.read()]),
        widened_rows,
        times([n, runs, channels]),
        weights,
        1,
    ];
    Some(Work::new(Class::Depthwise, counts))
}

/// The work of attention whose first row sees `visible` columns, each next one another, with or without a mask that is added.
fn attention(p: &MatMulSoftmaxParams, visible: u32, mask: bool) -> Work {
    let [m, n, visible] = [p.m, p.n, visible.min(p.n)].map(u64::from);
    // Rows that do not see all columns: the first sees `visible`, the next one more.
    let ramp = m.min(n - visible);
    let hidden = times([ramp, n - visible]).saturating_sub(times([ramp, ramp.saturating_sub(1)]) / 2);
    let seen = times([batches(p.batch), times([m, n]).saturating_sub(hidden)]);
    let masked = if mask { seen } else { 0 };
    // All sums of four rows are kept; if they are too many, what is seen is computed row by row, as if there were four.
    let scores = if n <= KEPT { times([batches(p.batch), m.next_multiple_of(4), n]) } else { times([seen, 4]) };
    let [all, macs] = [times([scores, u64::from(p.k).next_multiple_of(4)]), times([seen, p.k.into()])];
    Work::new(Class::Attention, [all, macs, seen, masked, times([batches(p.batch), m]), 1])
}

fn batches([outer, inner]: [u32; 2]) -> u64 {
    times([outer.into(), inner.into()])
}

/// A product that stays in range, whatever a plan says.
fn times<const N: usize>(factors: [u64; N]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

fn elements(tensor: &TensorRecord) -> u64 {
    tensor.elements().unwrap_or(0).into()
}

/// The product of some of the sizes.
fn product_of(tensor: &TensorRecord, axes: Range<usize>) -> u64 {
    tensor.shape().get(axes).unwrap_or_default().iter().fold(1, |product, &size| product.saturating_mul(size.into()))
}

fn rows(tensor: &TensorRecord) -> Option<u64> {
    elements(tensor).checked_div(last(tensor)?)
}

fn last(tensor: &TensorRecord) -> Option<u64> {
    tensor.shape().last().map(|&size| size.into())
}

/// Rows or columns of the windows of an operator.
#[derive(Debug, Clone, Copy)]
struct Axis {
    input: u64,
    output: u64,
    kernel: u64,
    stride: u64,
    dilation: u64,
    before: u64,
}

impl Axis {
    /// Axis 0 or 1 of windows from `x` to `y`, given kernel, strides and dilations.
    fn new([x, y]: [&TensorRecord; 2], axis: usize, sizes: [[u32; 2]; 3], pads: [u32; 4]) -> Option<Self> {
        let size = |sizes: &[u32]| sizes.get(axis).map(|&size| u64::from(size));
        let spatial = |tensor: &TensorRecord| tensor.dims.get(1..).and_then(size);
        let [kernel, stride, dilation] = sizes;
        let axis = Self {
            input: spatial(x)?,
            output: spatial(y)?,
            kernel: size(&kernel)?,
            stride: size(&stride)?,
            dilation: size(&dilation)?,
            before: size(&pads)?,
        };
        (axis.kernel > 0 && axis.stride > 0 && axis.output > 0).then_some(axis)
    }

    /// Windows that lie inside the input.
    fn inside(&self) -> u64 {
        let extent = (self.kernel - 1) * self.dilation + 1;
        let Some(last) = (self.input + self.before).checked_sub(extent) else { return 0 };
        (last / self.stride + 1).min(self.output).saturating_sub(self.before.div_ceil(self.stride))
    }

    /// Elements of the padded input that windows reach over.
    fn read(&self) -> u64 {
        (self.output - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::ConstRef;

    fn tensor(dims: [u32; 4]) -> TensorRecord {
        TensorRecord { dtype: DType::I8, rank: 4, flags: 0, dims, scale: 1.0, zero_point: 0, offset: 0 }
    }

    const NONE: ConstRef = ConstRef { offset: 0, len: 0 };

    fn conv_params(groups: u32) -> Conv2dParams {
        Conv2dParams {
            kernel: [3, 3],
            strides: [1, 1],
            dilations: [1, 1],
            pads: [1; 4],
            groups,
            weights: NONE,
            bias: NONE,
            mantissas: NONE,
            shifts: NONE,
            clamp: [-128, 127],
        }
    }

    #[test]
    fn windows_at_borders_are_told_apart() {
        let [x, y] = [tensor([1, 5, 6, 3]), tensor([1, 5, 6, 2])];
        let work = conv(&conv_params(1), &x, &y).unwrap();
        // Rows of 9 elements are filled up to 12, filters of 36 to 40; 3 by 4 windows lie inside.
        let (pixels, borders) = (30, 18);
        assert_eq!(work.class, Class::Pixels);
        let expected =
            [pixels * 2 * 40, pixels * 2, pixels * 40, borders * 40, pixels, borders, 2 * 2 * 40, pixels * 3, 1];
        assert_eq!(work.counts(), expected);
        // With groups taps lie apart, and every window is gathered tap by tap: 4 elements of each of 9.
        let [x, y] = [tensor([1, 5, 6, 4]), tensor([1, 5, 6, 4])];
        let work = conv(&conv_params(2), &x, &y).unwrap();
        let patches = 2 * pixels;
        let expected = [patches * 2 * 40, patches * 2, patches * 40, patches * 40, patches, patches, 0, patches * 9, 1];
        assert_eq!(work.counts(), expected);
    }

    #[test]
    fn few_pixels_have_a_class_of_their_own() {
        let [mut x, mut y] = [tensor([3, 10, 1, 1]), tensor([3, 5, 1, 1])];
        (x.rank, y.rank) = (2, 2);
        let work = fully_connected(&x, &y).unwrap();
        assert_eq!((work.class, work.counts()), (Class::Pixel, &[3 * 5 * 16, 3 * 5, 3 * 16, 1][..]));
        (x.dims[0], y.dims[0]) = (4, 4);
        assert_eq!(fully_connected(&x, &y).unwrap().class, Class::Pixels);
    }

    #[test]
    fn channels_are_taken_four_at_a_time() {
        let Conv2dParams { kernel, dilations, pads, weights, bias, mantissas, shifts, clamp, .. } = conv_params(1);
        let strides = [2, 2];
        let multiplier = 1;
        let mut p = DepthwiseConv2dParams {
            kernel,
            strides,
            dilations,
            pads,
            multiplier,
            weights,
            bias,
            mantissas,
            shifts,
            clamp,
        };
        let [x, y] = [tensor([1, 40, 40, 6]), tensor([1, 20, 20, 6])];
        // Windows reach over 41 rows and columns; 8 channels.
        let outputs = 20 * 20 * 8;
        let expected = [outputs * 9, outputs, 41 * 41 * 8, 41 * 8, 20 * 8, 9 * 8, 1];
        assert_eq!(depthwise(&p, &x, &y).unwrap().counts(), expected);
        p.multiplier = 2;
        assert_eq!(depthwise(&p, &x, &y), None);
    }

    #[test]
    fn no_size_is_too_large() {
        let most = tensor([u32::MAX; 4]);
        let mut p = conv_params(1);
        p.strides = [u32::MAX; 2];
        assert!(conv(&p, &most, &most).unwrap().counts().contains(&u64::MAX));
        let p = DepthwiseConv2dParams {
            kernel: [3, 3],
            strides: [u32::MAX; 2],
            dilations: [1, 1],
            pads: [0; 4],
            multiplier: 1,
            weights: NONE,
            bias: NONE,
            mantissas: NONE,
            shifts: NONE,
            clamp: [0; 2],
        };
        assert!(depthwise(&p, &most, &most).unwrap().counts().contains(&u64::MAX));
    }
}
