//! Scale and zero point of a group of activations.

use std::collections::BTreeMap;

use super::placement::Group;
use super::{Config, Error, QParams, RangeGroup, Width};
use crate::graph::{DataType, Graph};
use crate::observe::{Levels, Range, Statistics};
use crate::qdq::sixteen_bit_scale;

/// How far beyond the largest value that was seen a value of 16 bits reaches.
const HEADROOM: f64 = 2.0;

pub(super) struct Chosen {
    pub(super) params: QParams,
    /// What is unusual about it.
    pub(super) note: Option<&'static str>,
}

pub(super) fn params(
    graph: &Graph,
    group: &Group,
    statistics: &BTreeMap<String, Statistics>,
    config: &Config,
    ranges: &BTreeMap<String, Range>,
) -> Result<Chosen, Error> {
    let width = width(graph, group, config);
    let (dtype, levels) = (config.activations.dtype(width), config.activations.levels(width));
    if group.is_softmax {
        // Probabilities: every multiple of 1/256 below 1, whatever the samples show.
        let (scale, zero_point) =
            if levels.symmetric { (1.0 / levels.high as f32, 0) } else { (1.0 / 256.0, levels.low) };
        let params = QParams { dtype, scale, zero_point };
        return Ok(Chosen { params, note: None });
    }
    let seen = seen(graph, group, statistics)?;
    if group.is_wide {
        // Symmetric, with room for more than was seen: 16 bits have steps to spare.
        let bound = HEADROOM * f64::from(seen.min().abs().max(seen.max().abs()));
        let params = QParams { dtype: DataType::I16, scale: sixteen_bit_scale(bound), zero_point: 0 };
        return Ok(Chosen { params, note: None });
    }
    let chosen = group.values.first().and_then(|value| ranges.get(value)).copied();
    let mut range = chosen.unwrap_or_else(|| config.observer().range(&seen, levels));
    for &number in &group.numbers {
        range = Range::around_zero(range.low.min(number.into()), range.high.max(number.into()));
    }
    let (mut scale, mut zero_point) = levels.affine(range);
    if let Some(bounds) = group.bounds {
        (scale, zero_point) = within(scale, zero_point, bounds, levels);
    }
    let note = (range.high <= range.low).then_some("was zero in every sample; its scale is 1");
    Ok(Chosen { params: QParams { dtype, scale, zero_point }, note })
}

pub(super) fn range_group(
    graph: &Graph,
    group: Group,
    statistics: &BTreeMap<String, Statistics>,
    config: &Config,
) -> Result<RangeGroup, Error> {
    let seen = seen(graph, &group, statistics)?;
    let levels = config.activations.levels(width(graph, &group, config));
    Ok(RangeGroup { value: group.values.into_iter().next().unwrap_or_default(), seen, levels })
}

/// Bits of a group: the most that one of the layers reading it asks for.
fn width(graph: &Graph, group: &Group, config: &Config) -> Width {
    if group.is_softmax {
        return Width::Eight;
    }
    let readers = graph.nodes.iter().filter(|node| node.inputs.iter().any(|name| group.values.contains(name)));
    let layers = readers.filter_map(|node| config.layers.get(&node.name));
    layers.map(|bits| bits.activations).max().unwrap_or(config.bits.activations)
}

/// What is known of all sources and constants of a group together.
fn seen(graph: &Graph, group: &Group, statistics: &BTreeMap<String, Statistics>) -> Result<Statistics, Error> {
    let mut all = Statistics::default();
    for value in &group.sources {
        match statistics.get(value) {
            Some(seen) if seen.not_finite() > 0 => {
                return Err(Error::NotFinite { value: value.clone(), count: seen.not_finite() });
            }
            Some(seen) if seen.count() > 0 => all.merge(seen),
            _ => return Err(Error::NotObserved(value.clone())),
        }
    }
    for constant in &group.constants {
        if let Some(tensor) = graph.initializers.get(constant) {
            all.observe(&tensor.to_f32());
        }
    }
    Ok(all)
}

/// Shrinks a scale until the levels lie within what a clamp lets through, so that the clamp is redundant and
/// executors drop it. Rounding may have carried the end of the range just past the bound.
pub(super) fn within(scale: f32, zero_point: i32, bounds: (f32, f32), levels: Levels) -> (f32, i32) {
    let (low, high) = bounds;
    // Zero is always a level, so a clamp that does not let it through is not redundant; levels on both sides of a fixed
    // zero point make no clamp redundant.
    if levels.symmetric || !(low <= 0.0 && high >= 0.0) {
        return (scale, zero_point);
    }
    let zero_point = if low == 0.0 { levels.low } else { zero_point };
    let zero_point = if high == 0.0 { levels.high } else { zero_point };
    let (down, up) = ((zero_point - levels.low) as f32, (levels.high - zero_point) as f32);
    let mut scale = scale;
    if down > 0.0 {
        scale = scale.min(-low / down);
    }
    if up > 0.0 {
        scale = scale.min(high / up);
    }
    while scale * up > high || -scale * down < low {
        scale = scale.next_down();
    }
    (scale, zero_point)
}
