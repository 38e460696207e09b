//! Plots as files of their own.

use super::numbers::real;
use super::svg::{self, Axis, Bar, Dot};
use crate::allocate::{Allocation, Point};
use crate::sensitivity::LayerDamage;

/// The foot of the plot of sensitivities, in decibels.
const FLOOR_DB: f64 = -100.0;

/// Bars of the measured damage of each layer in decibels, in the order given; the tallest layers mind most.
pub fn sensitivity(layers: &[LayerDamage]) -> String {
    let height = |damage: f64| if damage > 0.0 { (10.0 * damage.log10() - FLOOR_DB).max(0.0) } else { 0.0 };
    let bars: Vec<Bar> = layers
        .iter()
        .map(|layer| Bar {
            title: format!(
                "{} at {}: measured {}, predicted {}",
                layer.node,
                layer.bits,
                real(layer.measured),
                real(layer.predicted)
            ),
            value: height(layer.measured),
            class: match layer.measured {
                damage if damage > 1e-2 => "poor",
                damage if damage > 1e-3 => "fair",
                _ => "good",
            },
        })
        .collect();
    let axis = Axis { top: -FLOOR_DB, text: |height| format!("{:.0} dB", height + FLOOR_DB) };
    svg::file(&svg::bars_alone(
        "noise at the outputs with one layer quantized, relative to the signal",
        &bars,
        &axis,
        &[],
    ))
}

/// The trade-off of damage (logarithmic) against cost, and other allocations (name, allocation) beside it.
pub fn front(points: &[Point], others: &[(&str, &Allocation)]) -> String {
    let title = |what: &str, a: &Allocation| format!("{what}cost {}, damage {}", real(a.cost), real(a.damage));
    let dot = |what: &str, a: &Allocation, class| Dot { x: a.cost, y: a.damage, title: title(what, a), class };
    let line: Vec<Dot> = points.iter().map(|point| dot("", &point.allocation, "data")).collect();
    let others: Vec<Dot> = others.iter().map(|(name, a)| dot(&format!("{name}: "), a, "poor")).collect();
    svg::file(&svg::front("damage against cost", &line, &others, real, real))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensitivity::Widths;

    #[test]
    fn layers_that_mind_are_tall() {
        let layer = |node: &str, measured| LayerDamage {
            node: node.into(),
            bits: Widths::W4A8,
            local: measured,
            predicted: measured,
            measured,
        };
        let svg = sensitivity(&[layer("a<b", 1e-1), layer("c", 1e-5), layer("d", 0.0)]);
        // −10 dB over a floor of −100 dB: 90 % of 180.
        assert!(
            svg.contains("height=\"162.0\"") && svg.contains("height=\"90.0\"") && svg.contains("height=\"1.0\""),
            "{svg}"
        );
        assert!(svg.contains("a&lt;b at w4a8: measured 0.1"), "{svg}");
    }

    #[test]
    fn other_allocations_lie_beside_the_front() {
        let allocation = |cost, damage| Allocation { choice: Vec::new(), damage, cost };
        let point = |cost, damage| Point { allocation: allocation(cost, damage), gap: 0.0 };
        let svg = front(&[point(1.0, 1.0), point(2.0, 0.1)], &[("greedy", &allocation(2.0, 0.5))]);
        assert!(svg.contains("greedy: cost 2, damage 0.5") && svg.matches("<circle").count() == 3, "{svg}");
    }
}
