//! Which channels of a graph can be scaled, and where a scale is taken in and given back.
//!
//! Every value is divided into channels. A channel passes through operators that commute with a positive factor (Relu,
//! pooling, sums, concatenations, reshapes, …); what makes it can multiply by a factor (rows of a convolution or matrix
//! product, the affine part of a normalization) and what reads it can divide by the same (columns). Channels that meet
//! in a sum share one factor, all others have their own: a *variable* is a set of channels joined like this. Channels
//! that reach an operator that does not commute with a factor, a graph input or a graph output are fixed.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::Layout;
use super::trace;
use crate::graph::{Graph, Node, Tensor};

/// The variable of channels that cannot be scaled.
pub(super) const FIXED: usize = 0;

/// The channels of a prepared float graph.
#[derive(Debug, Clone)]
pub struct Channels {
    pub(super) layouts: BTreeMap<String, Layout>,
    /// The variable of each label of a layout.
    pub(super) variable: Vec<usize>,
    /// Number of variables, the fixed one included.
    pub(super) variables: usize,
    pub(super) places: Vec<Place>,
    pub(super) flows: Vec<Flow>,
    pub(super) clamps: Vec<Clamp>,
    /// Values whose error counts by itself: graph outputs and what fixed channels are read as.
    pub(super) ends: Vec<String>,
    /// Values that are quantized together, with a step of their own.
    pub(super) quantized: Vec<Vec<String>>,
    /// For values that hold the same elements in another order or shape, where these come from.
    pub(super) origins: BTreeMap<String, String>,
}

/// Constants of a node that take in or give back factors.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// The weights and bias of a Conv, ConvTranspose, Gemm or MatMul.
    Linear(Linear),
    /// The scale and shift of a LayerNormalization: the label of each channel.
    Affine { node: usize, labels: Vec<usize> },
    /// A constant that is added to a value or concatenated with one.
    Constant { node: usize, input: usize, layout: Layout },
}

/// A Conv, ConvTranspose, Gemm or MatMul with constant weights.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    pub(super) node: usize,
    pub(super) input: String,
    pub(super) output: String,
    /// Label of each output channel.
    pub(super) rows: Vec<usize>,
    /// Label of each input channel.
    pub(super) columns: Vec<usize>,
    pub(super) form: Form,
}

/// How weights lie: element `(row, column, tap)`, columns counted within a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) groups: usize,
    /// Rows of a group.
    pub(super) rows: usize,
    /// Columns of a group.
    pub(super) columns: usize,
    /// Elements of the kernel.
    pub(super) taps: usize,
    /// `[groups, columns, rows, taps]` instead of `[groups, rows, columns, taps]`.
    pub(super) transposed: bool,
    /// Of how many taps one lands on an output: the strides of a ConvTranspose.
    pub(super) spread: usize,
}

impl Form {
    pub(super) fn of(node: &Node, weights: &Tensor) -> Option<Self> {
        let form = match (node.op_type.as_str(), weights.shape.as_slice()) {
            ("Conv", [outputs, columns, kernel @ ..]) => {
                let groups = usize::try_from(node.int("group", 1)).ok().filter(|&groups| groups > 0)?;
                let rows = outputs / groups;
                let taps = kernel.iter().product();
                Self { groups, rows, columns: *columns, taps, transposed: false, spread: 1 }
            }
            ("ConvTranspose", [inputs, rows, kernel @ ..]) => {
                let groups = usize::try_from(node.int("group", 1)).ok().filter(|&groups| groups > 0)?;
                let (columns, taps) = (inputs / groups, kernel.iter().product());
                let strides = node.ints("strides").unwrap_or_default();
                let spread = strides.iter().map(|&stride| usize::try_from(stride).unwrap_or(1).max(1)).product();
                Self { groups, rows: *rows, columns, taps, transposed: true, spread }
            }
            ("Gemm", [rows, columns]) if is_plain(node) => {
                Self { groups: 1, rows: *rows, columns: *columns, taps: 1, transposed: false, spread: 1 }
            }
            ("MatMul", [columns, rows]) => {
                Self { groups: 1, rows: *rows, columns: *columns, taps: 1, transposed: true, spread: 1 }
            }
            _ => return None,
        };
        (form.len() == weights.len() && !weights.is_empty() && weights.dtype.is_float()).then_some(form)
    }

    /// Number of weights.
    pub(super) fn len(self) -> usize {
        self.groups * self.rows * self.columns * self.taps
    }

    /// Taps that land on an output, in the mean.
    pub(super) fn landing(self) -> f64 {
        self.taps as f64 / self.spread as f64
    }

    /// Row and column (both over all groups) of weight `i`.
    pub(super) fn place(self, i: usize) -> (usize, usize) {
        let pair = i / self.taps;
        if self.transposed {
            let (row, column) = (pair % self.rows, pair / self.rows);
            return (column / self.columns * self.rows + row, column);
        }
        let (row, column) = (pair / self.columns, pair % self.columns);
        (row, row / self.rows * self.columns + column)
    }
}

/// Gemm in its one form: `x·Wᵀ + b`.
fn is_plain(node: &Node) -> bool {
    node.int("transA", 0) == 0
        && node.int("transB", 0) == 1
        && node.float("alpha", 1.0) == 1.0
        && node.float("beta", 1.0) == 1.0
}

/// How an error of one value goes on to another.
#[derive(Debug, Clone)]
pub(super) enum Flow {
    /// Channel by channel, its power times `gain`; where `gated`, only for the share of elements that are not zero.
    Pass { from: String, to: String, gain: f64, gated: bool },
    /// Through the weights of the [`Linear`] at this index of [`Channels::places`].
    Linear(usize),
}

/// A Clip around zero.
#[derive(Debug, Clone)]
pub(super) struct Clamp {
    /// Its output.
    pub(super) value: String,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Channels {
    /// Finds the channels of a prepared float graph ([`crate::passes::prepare`]).
    pub fn of(graph: &Graph) -> Self {
        trace::trace(graph)
    }

    /// Whether any channel can be scaled.
    pub fn any(&self) -> bool {
        self.variables > 1
    }

    /// Whether channels that could be scaled end in a Clip.
    pub fn clamped(&self) -> bool {
        let free = |value: &str| {
            let labels = self.layouts.get(value).map(Layout::labels).unwrap_or_default();
            labels.iter().any(|&label| self.variable[label] != FIXED)
        };
        self.clamps.iter().any(|clamp| free(&clamp.value))
    }

    /// The values of which [`super::ChannelStatistics`] are needed.
    pub fn values_to_observe(&self) -> Vec<String> {
        let read = self.linears().map(|linear| &linear.input);
        let values: BTreeSet<&str> =
            read.chain(self.quantized.iter().flatten()).chain(&self.ends).map(|value| self.origin(value)).collect();
        values.into_iter().filter(|value| self.layouts.contains_key(*value)).map(str::to_owned).collect()
    }

    /// The value that holds the same elements as `value` and is observed for it.
    pub(super) fn origin<'v>(&'v self, value: &'v str) -> &'v str {
        self.origins.get(value).map_or(value, String::as_str)
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.places.iter().filter_map(|place| match place {
            Place::Linear(linear) => Some(linear),
            _ => None,
        })
    }

    /// The variables of labels.
    pub(super) fn variables_of(&self, labels: &[usize]) -> Vec<usize> {
        labels.iter().map(|&label| self.variable[label]).collect()
    }
}
