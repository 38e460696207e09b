//! Plots as inline SVG. Colours come from the page's style sheet.

use std::fmt::Write as _;

use super::Histogram;
use super::html::escape;
use super::numbers;

/// One bar of [`bars`].
pub(super) struct Bar {
    /// Shown when pointed at.
    pub(super) title: String,
    /// Its height in the plot's unit; values below zero have no height.
    pub(super) value: f64,
    /// A style class.
    pub(super) class: &'static str,
}

/// A vertical axis: where it ends, and how to write a number on it.
pub(super) struct Axis {
    /// The largest value shown.
    pub(super) top: f64,
    /// Writes a value.
    pub(super) text: fn(f64) -> String,
}

/// A horizontal line with a caption.
pub(super) struct Mark {
    /// Its height in the plot's unit.
    pub(super) value: f64,
    /// Its caption.
    pub(super) text: String,
}

const HEIGHT: f64 = 180.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 14.0;

/// Bars over positions, one after the other. Wide plots scroll.
pub(super) fn bars(label: &str, bars: &[Bar], axis: &Axis, marks: &[Mark]) -> String {
    format!("<div class=\"scroll\">{}</div>", bars_alone(label, bars, axis, marks))
}

/// [`bars`], without what makes it scroll.
pub(super) fn bars_alone(label: &str, bars: &[Bar], axis: &Axis, marks: &[Mark]) -> String {
    let step = (640.0 / bars.len().max(1) as f64).clamp(7.0, 48.0);
    let width = LEFT + step * bars.len() as f64 + 12.0;
    let width = width.max(320.0);
    let y = |value: f64| TOP + HEIGHT * (1.0 - (value / axis.top).clamp(0.0, 1.0));
    let mut svg = format!(
        "<svg role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {width:.0} {:.0}\" width=\"{width:.0}\" \
         height=\"{:.0}\">",
        escape(label),
        HEIGHT + TOP + 20.0,
        HEIGHT + TOP + 20.0,
    );
    for quarter in 0..=4u8 {
        let value = axis.top * f64::from(quarter) / 4.0;
        let at = y(value);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{width:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            escape(&(axis.text)(value)),
        );
    }
    for (i, bar) in bars.iter().enumerate() {
        let top = y(bar.value.max(0.0));
        let _ = write!(
            svg,
            "<rect class=\"{}\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
            bar.class,
            LEFT + step * i as f64 + step * 0.1,
            step * 0.8,
            (TOP + HEIGHT - top).max(1.0),
            escape(&bar.title),
        );
    }
    for mark in marks {
        let at = y(mark.value);
        let _ = write!(
            svg,
            "<line class=\"mark\" x1=\"{LEFT}\" x2=\"{width:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"marktext\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            width - 4.0,
            at - 4.0,
            escape(&mark.text),
        );
    }
    let _ = write!(
        svg,
        "<text class=\"tick\" x=\"{LEFT}\" y=\"{:.0}\">first</text>\
         <text class=\"tick\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">last</text></svg>",
        HEIGHT + TOP + 15.0,
        width - 12.0,
        HEIGHT + TOP + 15.0,
    );
    svg
}

/// A point of [`front`].
pub(super) struct Dot {
    pub(super) x: f64,
    pub(super) y: f64,
    /// Shown when pointed at.
    pub(super) title: String,
    /// A style class.
    pub(super) class: &'static str,
}

/// A trade-off: what `line` reaches, as a staircase, and other points. The vertical axis is logarithmic; points at or
/// below zero lie at its foot.
pub(super) fn front(
    label: &str,
    line: &[Dot],
    others: &[Dot],
    x_text: fn(f64) -> String,
    y_text: fn(f64) -> String,
) -> String {
    const WIDTH: f64 = 560.0;
    let all = || line.iter().chain(others);
    let positive = || all().map(|dot| dot.y).filter(|&y| y > 0.0);
    let (low, high) = (positive().fold(f64::INFINITY, f64::min), positive().fold(0.0, f64::max));
    // Whole powers of ten, at least one apart.
    let foot = if low.is_finite() { low.log10().floor() } else { 0.0 };
    let decades = if high > 0.0 { (high.log10().ceil() - foot).max(1.0) } else { 1.0 };
    let (left, right) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), dot| (a.min(dot.x), b.max(dot.x)));
    let span = if right > left { right - left } else { 1.0 };
    let left = if left.is_finite() { left } else { 0.0 };
    let x = |value: f64| LEFT + 8.0 + (value - left) / span * (WIDTH - 16.0);
    let y = |value: f64| match value > 0.0 {
        true => TOP + HEIGHT * (1.0 - ((value.log10() - foot) / decades).clamp(0.0, 1.0)),
        false => TOP + HEIGHT,
    };
    let (width, height) = (LEFT + WIDTH + 12.0, HEIGHT + TOP + 20.0);
    let mut svg = format!(
        "<svg role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\">",
        escape(label),
    );
    let step = (decades / 6.0).ceil().max(1.0);
    let mut exponent = foot;
    while exponent <= foot + decades + 0.5 {
        let (value, at) = (10f64.powf(exponent), y(10f64.powf(exponent)));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{width:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            escape(&y_text(value)),
        );
        exponent += step;
    }
    let mut path = String::new();
    for (i, dot) in line.iter().enumerate() {
        let _ = match i {
            0 => write!(path, "M{:.1} {:.1}", x(dot.x), y(dot.y)),
            _ => write!(path, "H{:.1}V{:.1}", x(dot.x), y(dot.y)),
        };
    }
    let _ = write!(svg, "<path class=\"front\" d=\"{path}\"/>");
    for dot in all() {
        let _ = write!(
            svg,
            "<circle class=\"{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>{}</title></circle>",
            dot.class,
            x(dot.x),
            y(dot.y),
            escape(&dot.title),
        );
    }
    let _ = write!(
        svg,
        "<text class=\"tick\" x=\"{:.0}\" y=\"{text:.0}\">{}</text>\
         <text class=\"tick\" x=\"{:.0}\" y=\"{text:.0}\" text-anchor=\"end\">{}</text></svg>",
        x(left),
        escape(&x_text(left)),
        width - 12.0,
        escape(&x_text(left + span)),
        text = HEIGHT + TOP + 15.0,
    );
    svg
}

/// A plot as a file of its own, with the colours of the page.
pub(super) fn file(svg: &str) -> String {
    let style = include_str!("page.css");
    let (head, body) = svg.split_once('>').unwrap_or((svg, ""));
    format!(
        "{head} xmlns=\"http://www.w3.org/2000/svg\"><style>{style}text{{font-family:system-ui,sans-serif}}</style>\
         <rect width=\"100%\" height=\"100%\" style=\"fill:var(--bg)\"/>{body}\n"
    )
}

/// A histogram with logarithmic heights; what lies outside `[low, high]`, the chosen range, is shaded.
pub(super) fn histogram(histogram: &Histogram, low: f64, high: f64) -> String {
    const WIDTH: f64 = 240.0;
    const PLOT: f64 = 56.0;
    let bins = histogram.counts.len().max(1) as f64;
    let (first, last) = (histogram.start, histogram.start + histogram.width * bins);
    // The range may reach beyond what was seen, but not make it invisible.
    let (left, right) = (first.min(low.max(first - (last - first))), last.max(high.min(last + (last - first))));
    let span = if right > left { right - left } else { 1.0 };
    let x = |value: f64| ((value - left) / span * WIDTH).clamp(0.0, WIDTH);
    let tallest = histogram.counts.iter().copied().max().unwrap_or(0).max(1);
    let scale = PLOT / (1.0 + tallest as f64).ln();
    let mut path = format!("M{:.1} {PLOT}", x(first));
    for (i, &count) in histogram.counts.iter().enumerate() {
        let height = PLOT - (1.0 + count as f64).ln() * scale;
        let edge = x(first + histogram.width * (i as f64 + 1.0));
        let _ = write!(path, "V{height:.1}H{edge:.1}");
    }
    let _ = write!(path, "V{PLOT}Z");
    let label = format!("distribution from {} to {}", numbers::real(first), numbers::real(last));
    let (range_start, range_end) = (x(low), x(high));
    format!(
        "<svg role=\"img\" aria-label=\"{label}\" class=\"histogram\" viewBox=\"0 0 {WIDTH} {height}\">\
         <rect class=\"outside\" x=\"0\" y=\"0\" width=\"{range_start:.1}\" height=\"{PLOT}\"/>\
         <rect class=\"outside\" x=\"{range_end:.1}\" y=\"0\" width=\"{:.1}\" height=\"{PLOT}\"/>\
         <path class=\"density\" d=\"{path}\"/>\
         <line class=\"edge\" x1=\"{range_start:.1}\" x2=\"{range_start:.1}\" y1=\"0\" y2=\"{PLOT}\"/>\
         <line class=\"edge\" x1=\"{range_end:.1}\" x2=\"{range_end:.1}\" y1=\"0\" y2=\"{PLOT}\"/>\
         <text class=\"tick\" x=\"0\" y=\"{text}\">{}</text>\
         <text class=\"tick\" x=\"{WIDTH}\" y=\"{text}\" text-anchor=\"end\">{}</text></svg>",
        WIDTH - range_end,
        escape(&numbers::real(left)),
        escape(&numbers::real(right)),
        height = PLOT + 16.0,
        text = PLOT + 13.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_marks_its_range() {
        let counts = Histogram { start: -1.0, width: 0.5, counts: vec![1, 10, 100, 1] };
        let svg = histogram(&counts, -0.5, 0.5);
        // [-1, 1] over 240 units: the range is from 60 to 180.
        assert!(svg.contains("<line class=\"edge\" x1=\"60.0\""), "{svg}");
        assert!(svg.contains("<line class=\"edge\" x1=\"180.0\""), "{svg}");
        assert_eq!(svg.matches("class=\"outside\"").count(), 2);
    }

    #[test]
    fn bars_are_escaped_and_clamped() {
        let bar = |value| Bar { title: "a<b".into(), value, class: "good" };
        let axis = Axis { top: 40.0, text: |v| format!("{v:.0} dB") };
        let svg = bars("x", &[bar(200.0), bar(-5.0), bar(20.0)], &axis, &[]);
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
        assert!(svg.contains("height=\"180.0\"") && svg.contains("height=\"1.0\"") && svg.contains("height=\"90.0\""));
    }

    #[test]
    fn a_front_is_a_staircase_over_decades() {
        let dot = |x, y| Dot { x, y, title: "a<b".into(), class: "data" };
        let text = |v: f64| format!("{v}");
        let svg = front("f", &[dot(0.0, 1e-1), dot(50.0, 1e-2), dot(100.0, 1e-3)], &[dot(50.0, 0.0)], text, text);
        // Two decades over 180 units, from 14 on; x from 72 to 616.
        assert!(svg.contains("d=\"M72.0 14.0H344.0V104.0H616.0V194.0\""), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(svg.contains("cx=\"344.0\" cy=\"194.0\"") && !svg.contains("a<b"), "{svg}");
        assert!(front("f", &[], &[], text, text).starts_with("<svg"));
        assert!(front("f", &[dot(1.0, 2.0)], &[], text, text).contains("<circle"));
    }

    #[test]
    fn a_file_names_its_space_and_brings_its_style() {
        let svg = file("<svg role=\"img\"><g/></svg>");
        assert!(svg.starts_with("<svg role=\"img\" xmlns=\"http://www.w3.org/2000/svg\"><style>:root{"), "{svg}");
        assert!(svg.ends_with("<g/></svg>\n"), "{svg}");
    }

    #[test]
    fn an_empty_histogram_is_drawn() {
        assert!(histogram(&Histogram { start: 0.0, width: 0.0, counts: Vec::new() }, 0.0, 0.0).starts_with("<svg"));
    }
}
