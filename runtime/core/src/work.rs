//! What operators do, counted: the numbers that estimates of their instructions are linear in.
//!
//! Counts follow the kernels of microcontrollers, whatever this code runs on. They need a plan, not a run.

use crate::kernels::{conv2d_filter_len, filter_len};
use crate::op::{AvgPool2dParams, Conv2dParams, DepthwiseConv2dParams, OpKind};
use crate::operator::OperatorSet;
use crate::plan::{DType, OpView, Plan, TensorRecord};

/// Counts at most of an operator.
const MOST: usize = 8;

/// Output pixels that are multiplied with a filter together.
const TOGETHER: u64 = 4;

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
                "filters read for a pixel alone",
                "operator",
            ],
            Self::Pixel => &["multiply-accumulates", "outputs", "elements gathered", "operator"],
            Self::Depthwise => {
                &["multiply-accumulates", "outputs", "elements widened", "rows of outputs", "weights", "operator"]
            }
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
            OpKind::FullyConnected | OpKind::FullyConnectedI4 => {
                let (depth, outputs) = (last(&x)?, last(&y)?);
                let rows = elements(&x).checked_div(depth)?;
                let filter = filter_len(1, depth as usize) as u64;
                Some(product(rows, filter, outputs, 0))
            }
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

/// The work of products of patches with filters of `filter` elements. Each of `patches` meets `outputs` filters, and there
/// are `borders` among them that are gathered tap by tap.
fn product(patches: u64, filter: u64, outputs: u64, borders: u64) -> Work {
    let (gathered, sums) = (times([patches, filter]), times([patches, outputs]));
    let macs = times([sums, filter]);
    if patches < TOGETHER {
        return Work::new(Class::Pixel, [macs, sums, gathered, 1]);
    }
    let alone = times([patches % TOGETHER, outputs, filter]);
    Work::new(Class::Pixels, [macs, sums, gathered, times([borders, filter]), patches, borders, alone, 1])
}

fn conv(p: &Conv2dParams, x: &TensorRecord, y: &TensorRecord) -> Option<Work> {
    let [n, _, _, channels] = y.dims.map(u64::from);
    let groups = u64::from(p.groups);
    let depth = u64::from(x.dims[3]).checked_div(groups)?;
    let filter =
        conv2d_filter_len(p.kernel.map(|k| k as usize), depth as usize, p.groups as usize, p.dilations[1] as usize);
    let axes = [0, 1].map(|i| Axis::new([x, y], i, [p.kernel, p.strides, p.dilations], p.pads));
    let [rows, cols] = [axes[0]?, axes[1]?];
    let patches = times([n, groups, rows.output, cols.output]);
    // Only where neighbouring taps are neighbours in memory can a row of them be read at once.
    let joined = p.groups == 1 && p.dilations[1] == 1;
    let inside = if joined { times([n, rows.inside(), cols.inside()]) } else { 0 };
    Some(product(patches, filter as u64, channels.checked_div(groups)?, patches.saturating_sub(inside)))
}

fn depthwise(p: &DepthwiseConv2dParams, x: &TensorRecord, y: &TensorRecord) -> Option<Work> {
    if p.multiplier != 1 || p.dilations != [1; 2] {
        return None;
    }
    let taps = u64::from(p.kernel[0]) * u64::from(p.kernel[1]);
    let axes = [0, 1].map(|i| Axis::new([x, y], i, [p.kernel, p.strides, p.dilations], p.pads));
    let [rows, cols] = [axes[0]?, axes[1]?];
    // Four at a time; fewer at the end take no less.
    let channels = u64::from(y.dims[3]).next_multiple_of(4);
    let [n, ..] = y.dims.map(u64::from);
    let outputs = times([n, rows.output, cols.output, channels]);
    let widened = times([n, rows.read(), cols.read(), channels]);
    let counts =
        [times([outputs, taps]), outputs, widened, times([n, rows.output, channels]), times([taps, channels]), 1];
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
