//! Scale and zero point of a group of activations.

use std::collections::BTreeMap;

use super::placement::Group;
use super::{Config, Error, QParams};
use crate::graph::Graph;
use crate::observe::{Levels, Range, Statistics};

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
) -> Result<Chosen, Error> {
    let (dtype, levels) = (config.activations.dtype(), config.activations.levels());
    if group.is_softmax {
        // Probabilities: every multiple of 1/256 below 1, whatever the samples show.
        let params = QParams { dtype, scale: 1.0 / 256.0, zero_point: levels.low };
        return Ok(Chosen { params, note: None });
    }
    let seen = seen(graph, group, statistics)?;
    let mut range = config.observer().range(&seen, levels);
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
    // Zero is always a level, so a clamp that does not let it through is not redundant.
    if !(low <= 0.0 && high >= 0.0) {
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
