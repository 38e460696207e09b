//! What operators do, counted: the numbers that estimates of their instructions are linear in.
//!
//! Counts follow the kernels of microcontrollers, whatever this code runs on. They need a plan, not a run.

use crate::kernels::{PIXELS, WHOLE, conv2d_filter_len, filter_len};
use crate::op::{AvgPool2dParams, Conv2dParams, DepthwiseConv2dParams, OpKind};
use crate::operator::OperatorSet;
use crate::plan::{DType, OpView, Plan, TensorRecord};

/// Counts at most of an operator.
const MOST: usize = 9;

/// Output pixels that are multiplied with a filter together.
const TOGETHER: u64 = PIXELS as u64;

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
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 6] = [Self::Pixels, Self::Pixel, Self::Depthwise, Self::Add, Self::AvgPool, Self::Softmax];

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
            Self::Add => &["outputs", "operator"],
            Self::AvgPool => &["elements summed", "outputs"],
            Self::Softmax => &["elements", "rows"],
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

    /// Counts the work of an operator. `None` for one without a class: of another kind, of tensors that are not all of i8,
    /// or with sizes that its class has slower code for.
    pub fn of<O: OperatorSet>(op: &OpView<'_>, plan: &Plan<'_, O>) -> Option<Self> {
        let (x, y) = (plan.input(op, 0).ok()?, plan.output(op, 0).ok()?);
        if x.dtype != DType::I8 || y.dtype != DType::I8 {
            return None;
        }
        match op.kind {
            OpKind::Conv2d | OpKind::Conv2dI4 => conv(&op.weighted()?, &x, &y),
            OpKind::FullyConnected | OpKind::FullyConnectedI4 => fully_connected(&x, &y),
            OpKind::DepthwiseConv2d | OpKind::DepthwiseConv2dI4 => depthwise(&op.weighted()?, &x, &y),
            OpKind::Add => {
                let b = plan.input(op, 1).ok()?;
                let same = b.dtype == DType::I8 && elements(&x) == elements(&b);
                same.then(|| Self::new(Class::Add, [elements(&y), 1]))
            }
            OpKind::AvgPool2d => {
                let p: AvgPool2dParams = op.params()?;
                let axis = |i: usize| u64::from(p.kernel[i].min(x.dims[i + 1]));
                Some(Self::new(Class::AvgPool, [times([elements(&y), axis(0), axis(1)]), elements(&y)]))
            }
            OpKind::Softmax => Some(Self::new(Class::Softmax, [elements(&x), elements(&x).checked_div(last(&x)?)?])),
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

/// The work of patches that each meet `filters`.
fn product(patches: &Patches, filters: u64) -> Work {
    let &Patches { count, at_borders, segments, len } = patches;
    let outputs = times([count, filters]);
    let (macs, gathered) = (times([outputs, len]), times([count, len]));
    if count < TOGETHER {
        return Work::new(Class::Pixel, [macs, outputs, gathered, 1]);
    }
    let left_over = times([count % TOGETHER, filters, len]);
    let [border_elements, segments] = [times([at_borders, len]), times([count, segments])];
    Work::new(Class::Pixels, [macs, outputs, gathered, border_elements, count, at_borders, left_over, segments, 1])
}

fn fully_connected(x: &TensorRecord, y: &TensorRecord) -> Option<Work> {
    let depth = last(x)?;
    let rows = elements(x).checked_div(depth)?;
    let patches = Patches { count: rows, at_borders: 0, segments: 1, len: filter_len(1, depth as usize) as u64 };
    Some(product(&patches, last(y)?))
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
    Some(product(&patches, channels.checked_div(groups)?))
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

/// A product that stays in range, whatever a plan says.
fn times<const N: usize>(factors: [u64; N]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

fn elements(tensor: &TensorRecord) -> u64 {
    tensor.elements().unwrap_or(0).into()
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
