//! Activations over samples.

use serde::Serialize;

use super::ChannelMeans;
use crate::data::Samples;
use crate::exec::{self, Runner};
use crate::graph::shape::infer_partial;
use crate::graph::{DataType, Graph, Node};
use crate::metrics::Moments;
use crate::observe::{LevelUse, Levels, Statistics};
use crate::qdq;
use crate::quantize::{self, QParams};

/// An activation to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// The value's name.
    pub value: String,
    /// Its shape for one sample.
    pub shape: Vec<usize>,
    /// The axis of its channels.
    pub axis: usize,
    /// How it is quantized; `None` in a float model.
    pub params: Option<QParams>,
}

/// What makes an activation hard to quantize.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Activation {
    /// The value's name.
    pub value: String,
    /// Its shape for one sample.
    pub shape: Vec<usize>,
    /// Lowest value.
    pub min: f64,
    /// Highest value.
    pub max: f64,
    /// Fourth standardized moment: 3 for a normal law, large where few elements stretch the range.
    pub kurtosis: f64,
    /// Entropy in bits of the value as the model quantizes it, or, in a float model, in 8 bits over its whole range.
    pub entropy_bits: f64,
    /// Number of channels.
    pub channels: usize,
    /// The largest channel's mean magnitude over that of all: 1 where channels are alike.
    pub largest_ratio: f64,
    /// Channels whose mean magnitude exceeds [`super::OUTLIER_FACTOR`] times that of all.
    pub outlier_channels: Vec<usize>,
}

/// The activations of a prepared graph that quantization is about: those that would be observed in a float model, those
/// that are quantized in a QDQ model. In graph order.
pub fn subjects(graph: &Graph) -> Vec<Subject> {
    let types = infer_partial(graph, 1).types;
    let quantized = qdq::activations(graph);
    let values: Vec<(String, Option<QParams>)> = match quantized.is_empty() {
        true => {
            let observed = quantize::values_to_observe(graph);
            in_graph_order(graph)
                .filter(|value| observed.iter().any(|o| o == value))
                .map(|v| (v.to_owned(), None))
                .collect()
        }
        false => quantized.into_iter().map(|(value, params)| (value, Some(params))).collect(),
    };
    values
        .into_iter()
        .filter_map(|(value, params)| {
            let shape = types.get(&value)?.shape.clone();
            let axis = channel_axis(graph, &value, shape.len());
            Some(Subject { value, shape, axis, params })
        })
        .collect()
}

fn in_graph_order(graph: &Graph) -> impl Iterator<Item = &str> {
    let inputs = graph.inputs.iter().map(|input| input.name.as_str());
    inputs.chain(graph.nodes.iter().flat_map(|node| node.outputs.iter().map(String::as_str)))
}

/// The axis of an activation's channels: the second where a spatial operator makes or reads it or the tensor is an
/// image, else the last (features of a token).
fn channel_axis(graph: &Graph, value: &str, rank: usize) -> usize {
    let touches = |node: &Node| node.inputs.iter().chain(&node.outputs).any(|name| name == value);
    let spatial = |node: &Node| {
        let op = node.op_type.as_str();
        matches!(op, "Conv" | "ConvTranspose" | "BatchNormalization") || op.ends_with("Pool")
    };
    let second = rank == 4 || graph.nodes.iter().any(|node| spatial(node) && touches(node));
    if second && rank > 1 { 1 } else { rank.saturating_sub(1) }
}

/// Looks at `subjects`, whose values the runner gives in this order, over all samples.
///
/// # Errors
///
/// The first error of the samples or the runner.
pub fn activations(
    subjects: &[Subject],
    runner: &dyn Runner,
    samples: &Samples,
    threads: usize,
    advance: &dyn Fn(usize),
) -> Result<Vec<Activation>, exec::Error> {
    let start: Vec<Seen> = subjects.iter().map(Seen::new).collect();
    let look = |batch: &crate::data::Batch, values: Vec<Vec<f32>>| {
        let mut parts: Vec<Seen> = subjects.iter().map(Seen::new).collect();
        parts.iter_mut().zip(&values).for_each(|(part, values)| part.observe(values));
        (batch.count, parts)
    };
    let seen = exec::fold(runner, samples, threads, look, start, |mut all, (count, parts)| {
        all.iter_mut().zip(&parts).for_each(|(all, part)| all.merge(part));
        advance(count);
        all
    })?;
    Ok(subjects.iter().zip(seen).map(|(subject, seen)| seen.tell(subject)).collect())
}

/// What was seen of one activation.
struct Seen {
    statistics: Statistics,
    moments: Moments,
    channels: ChannelMeans,
}

impl Seen {
    fn new(subject: &Subject) -> Self {
        let channels = ChannelMeans::new(&subject.shape, subject.axis);
        Self { statistics: Statistics::default(), moments: Moments::default(), channels }
    }

    fn observe(&mut self, values: &[f32]) {
        self.statistics.observe(values);
        self.moments.merge(&Moments::of(values));
        self.channels.observe(values);
    }

    fn merge(&mut self, later: &Self) {
        self.statistics.merge(&later.statistics);
        self.moments.merge(&later.moments);
        self.channels.merge(&later.channels);
    }

    fn tell(self, subject: &Subject) -> Activation {
        let params = subject.params.unwrap_or_else(|| {
            let (scale, zero_point) = Levels::U8.affine(self.statistics.range());
            QParams { dtype: DataType::U8, scale, zero_point }
        });
        let used = match (self.statistics.count(), params.dtype.quantized_range()) {
            (0, _) | (_, None) => 0.0,
            (_, Some(levels)) => LevelUse::of(&self.statistics, params.scale, params.zero_point, levels).entropy_bits,
        };
        Activation {
            value: subject.value.clone(),
            shape: subject.shape.clone(),
            min: self.statistics.min().into(),
            max: self.statistics.max().into(),
            kurtosis: self.moments.kurtosis(),
            entropy_bits: used,
            channels: self.channels.channels(),
            largest_ratio: self.channels.largest_ratio(),
            outlier_channels: self.channels.outliers(),
        }
    }
}
