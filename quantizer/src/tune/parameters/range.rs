//! The range of a group of activations.

use super::Rendering;
use crate::diff::{Ends, Group, levels};
use crate::graph::DataType;
use crate::quantize::QParams;

/// A range's start.
#[derive(Debug, Clone)]
pub(super) struct Range {
    pub(super) group: Group,
    ends: Ends,
    /// Whether the levels lie within what clamps let through, so that executors may drop the clamps.
    within: bool,
}

impl Range {
    pub(super) fn new(group: Group) -> Self {
        let QParams { scale, zero_point, .. } = group.params;
        let (low, high) = levels(group.params);
        let end = |level: i32| f64::from(scale) * f64::from(level - zero_point);
        let ends = Ends { low: end(low), high: end(high) };
        let within = group.bounds.is_some_and(|bounds| fits(group.params, bounds, scale));
        Self { group, ends, within }
    }

    /// The integers it is quantized to.
    pub(super) fn levels(&self, rendering: Rendering) -> (i32, i32) {
        match (rendering, self.group.params.dtype) {
            (Rendering::Wide, DataType::U4) => (0, 255),
            (Rendering::Wide, DataType::I4) => (-128, 127),
            _ => levels(self.group.params),
        }
    }

    fn ends(&self, theta: &[f32]) -> Ends {
        let factor = |i: usize| theta.get(i).map_or(1.0, |&theta| f64::from(theta).exp());
        Ends { low: self.ends.low * factor(0), high: self.ends.high * factor(1) }
    }

    /// Scale and zero point. The element type is that of the start, whatever the rendering.
    pub(super) fn params(&self, theta: &[f32], rendering: Rendering) -> QParams {
        let start = self.group.params;
        let (low, high) = self.levels(rendering);
        let exact = (low, high) == levels(start);
        if exact && (self.group.fixed || theta.iter().all(|&theta| theta == 0.0)) {
            return start;
        }
        let (scale, zero_point) = self.ends(theta).affine(low, high);
        let zero_point = zero_point.round_ties_even().clamp(low.into(), high.into()) as i32;
        let mut params = QParams { scale: (scale as f32).max(f32::MIN_POSITIVE), zero_point, ..start };
        if let (true, true, Some(bounds)) = (exact, self.within, self.group.bounds) {
            params.scale = shrink(params, bounds);
        }
        params
    }

    /// Gradients of the two parameters for those of scale and zero point.
    pub(super) fn gradients(&self, theta: &[f32], scale: f64, zero_point: f64, rendering: Rendering) -> [f32; 2] {
        if self.group.fixed {
            return [0.0; 2];
        }
        let (low, high) = self.levels(rendering);
        let ends = self.ends(theta);
        let (to_low, to_high) = ends.gradients(low, high, scale, zero_point);
        [(to_low * ends.low) as f32, (to_high * ends.high) as f32]
    }
}

/// Steps below and above the zero point.
fn reach(params: QParams) -> (f32, f32) {
    let (low, high) = levels(params);
    ((params.zero_point - low) as f32, (high - params.zero_point) as f32)
}

fn fits(params: QParams, (least, most): (f32, f32), scale: f32) -> bool {
    let (down, up) = reach(params);
    scale * up <= most && -scale * down >= least
}

/// The largest scale, at most the given one, whose levels lie within bounds.
fn shrink(params: QParams, bounds: (f32, f32)) -> f32 {
    let (down, up) = reach(params);
    let mut scale = params.scale;
    if up > 0.0 {
        scale = scale.min(bounds.1 / up);
    }
    if down > 0.0 {
        scale = scale.min(-bounds.0 / down);
    }
    while scale > f32::MIN_POSITIVE && !fits(params, bounds, scale) {
        scale = scale.next_down();
    }
    scale
}
