//! What Resize computes: which elements of each axis an output element is made of, and with which weights.

use super::eval::normalize_axis;
use super::{Node, Tensor};

/// The elements of an axis that one output element is made of, with weights that sum to one.
pub type Taps = Vec<(usize, f64)>;

/// Elements of a resized axis, at most: lists of their taps are made, of up to 2 · [`MOST_REACH`] for each.
const MOST: usize = 1 << 20;

/// How far a filter that is stretched against aliasing reaches, at most.
const MOST_REACH: f64 = 32.0;

/// How one axis is resized.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Axis {
    input: usize,
    output: usize,
    /// Output elements to an input element.
    scale: f64,
    /// First and last place of the input, as parts of it (`tf_crop_and_resize`).
    region: (f64, f64),
}

/// A Resize node over an input of known shape.
#[derive(Debug, Clone)]
pub struct Interpolation<'n> {
    node: &'n Node,
    axes: Vec<Axis>,
}

impl<'n> Interpolation<'n> {
    /// Reads a Resize node. `constant` gives its constant inputs.
    ///
    /// # Errors
    ///
    /// What does not fit or is not supported, in words.
    pub fn of<'t>(node: &'n Node, x: &[usize], constant: impl Fn(usize) -> Option<&'t Tensor>) -> Result<Self, String> {
        let rank = x.len();
        if x.contains(&0) {
            return Err(format!("an input of shape {x:?} has no elements"));
        }
        let listed: Vec<usize> = match node.ints("axes") {
            Some(axes) => axes
                .iter()
                .map(|&axis| normalize_axis(axis, rank).ok_or_else(|| format!("axis {axis} of rank {rank}")))
                .collect::<Result<_, _>>()?,
            None => (0..rank).collect(),
        };
        let given = |i: usize| constant(i).filter(|tensor| !tensor.is_empty());
        let mut axes: Vec<Axis> =
            x.iter().map(|&input| Axis { input, output: input, scale: 1.0, region: (0.0, 1.0) }).collect();
        let fits = |what: &str, len: usize| match len == listed.len() {
            true => Ok(()),
            false => Err(format!("{len} {what} for {} axes", listed.len())),
        };
        if let Some(scales) = given(2) {
            let scales = scales.to_f32();
            fits("scales", scales.len())?;
            for (&axis, &scale) in listed.iter().zip(&scales) {
                if !(scale.is_finite() && scale > 0.0) {
                    return Err(format!("a scale of {scale}"));
                }
                axes[axis].scale = f64::from(scale);
                axes[axis].output = (axes[axis].input as f64 * f64::from(scale)).floor() as usize;
            }
        } else {
            let sizes = given(3).ok_or("neither scales nor sizes are constant")?.to_i64();
            fits("sizes", sizes.len())?;
            let ratio = |(&axis, &size): (&usize, &i64)| size as f64 / x[axis] as f64;
            let ratios = listed.iter().zip(&sizes).map(ratio);
            let common = match node.string("keep_aspect_ratio_policy").unwrap_or("stretch") {
                "stretch" => None,
                "not_larger" => ratios.reduce(f64::min),
                "not_smaller" => ratios.reduce(f64::max),
                other => return Err(format!("keep_aspect_ratio_policy `{other}` is not known")),
            };
            for (&axis, &size) in listed.iter().zip(&sizes) {
                let input = axes[axis].input as f64;
                axes[axis].scale = common.unwrap_or(size as f64 / input);
                axes[axis].output = match common {
                    Some(scale) => (scale * input + 0.5).floor() as usize,
                    None => usize::try_from(size).unwrap_or(0),
                };
            }
        }
        if let Some(axis) = axes.iter().find(|axis| !(1..=MOST).contains(&axis.output)) {
            return Err(format!("an axis of {} elements would have {}", axis.input, axis.output));
        }
        if node.string("coordinate_transformation_mode") == Some("tf_crop_and_resize") {
            let region = given(1).ok_or("the region of interest is not constant")?.to_f32();
            fits("pairs of ends of the region of interest", region.len() / 2)?;
            for (i, &axis) in listed.iter().enumerate() {
                axes[axis].region = (region[i].into(), region[listed.len() + i].into());
            }
        }
        Ok(Self { node, axes })
    }

    /// The output's shape.
    pub fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.output).collect()
    }

    /// Which axes change: others stay as they are.
    pub fn changes(&self) -> Vec<bool> {
        self.axes
            .iter()
            .map(|axis| axis.scale != 1.0 || axis.output != axis.input || axis.region != (0.0, 1.0))
            .collect()
    }

    /// For each axis that changes, the taps of every output element.
    ///
    /// # Errors
    ///
    /// A mode that is not supported.
    pub fn axes(&self) -> Result<Vec<Option<Vec<Taps>>>, String> {
        let taps = |(axis, changes): (&Axis, bool)| match changes {
            true => (0..axis.output).map(|i| self.taps(axis, i)).collect::<Result<_, _>>().map(Some),
            false => Ok(None),
        };
        self.axes.iter().zip(self.changes()).map(taps).collect()
    }

    /// Where output element `i` lies in the input.
    fn place(&self, axis: &Axis, i: usize) -> Result<f64, String> {
        let (x, scale) = (i as f64, axis.scale);
        let (input, output) = (axis.input as f64, axis.output as f64);
        // As real numbers lengths are not rounded.
        let length = scale * input;
        Ok(match self.node.string("coordinate_transformation_mode").unwrap_or("half_pixel") {
            "pytorch_half_pixel" if axis.output == 1 => 0.0,
            "half_pixel" | "pytorch_half_pixel" => (x + 0.5) / scale - 0.5,
            "half_pixel_symmetric" => input / 2.0 * (1.0 - output / length) + (x + 0.5) / scale - 0.5,
            "align_corners" if axis.output == 1 => 0.0,
            "align_corners" => x * (input - 1.0) / (length - 1.0),
            "asymmetric" => x / scale,
            "tf_half_pixel_for_nn" => (x + 0.5) / scale,
            "tf_crop_and_resize" => {
                let (start, end) = axis.region;
                let place = match axis.output {
                    1 => 0.5 * (start + end) * (input - 1.0),
                    _ => (start + x * (end - start) / (length - 1.0)) * (input - 1.0),
                };
                if !(0.0..=input - 1.0).contains(&place) {
                    return Err("its region of interest leaves the input; extrapolation is not supported".into());
                }
                place
            }
            other => return Err(format!("coordinate_transformation_mode `{other}` is not known")),
        })
    }

    /// What output element `i` is made of.
    fn taps(&self, axis: &Axis, i: usize) -> Result<Taps, String> {
        let place = self.place(axis, i)?;
        let last = axis.input as f64 - 1.0;
        if self.node.string("mode").unwrap_or("nearest") == "nearest" {
            let nearest = match self.node.string("nearest_mode").unwrap_or("round_prefer_floor") {
                "round_prefer_floor" => (place - 0.5).ceil(),
                "round_prefer_ceil" => (place + 0.5).floor(),
                "floor" => place.floor(),
                "ceil" => place.ceil(),
                other => return Err(format!("nearest_mode `{other}` is not known")),
            };
            return Ok(vec![(nearest.clamp(0.0, last) as usize, 1.0)]);
        }
        // The left neighbour, a whole step away from a place on an element.
        let left = place.ceil() - 1.0;
        let (reach, stretch) = match self.node.int("antialias", 0) != 0 && axis.scale < 1.0 {
            true => ((1.0 / axis.scale).ceil(), axis.scale),
            false => (1.0, 1.0),
        };
        if reach > MOST_REACH {
            return Err(format!("a scale of {} with antialias is too small", axis.scale));
        }
        let offsets = (0..2 * reach as usize).map(|k| left + 1.0 - reach + k as f64);
        let weighted = offsets.map(|at| (at, (1.0 - ((at - place) * stretch).abs()).max(0.0)));
        let weighted: Vec<(f64, f64)> = weighted.filter(|&(_, weight)| weight > 0.0).collect();
        let inside = |at: f64| self.node.int("exclude_outside", 0) == 0 || (0.0..=last).contains(&at);
        let total: f64 = weighted.iter().filter(|&&(at, _)| inside(at)).map(|&(_, weight)| weight).sum();
        if total <= 0.0 {
            return Err(format!("output element {i} lies outside the input, which exclude_outside excludes"));
        }
        let mut taps: Taps = Vec::new();
        for (at, weight) in weighted.into_iter().filter(|&(at, _)| inside(at)) {
            // Beyond its ends the input goes on as it ends.
            let index = at.clamp(0.0, last) as usize;
            match taps.last_mut() {
                Some((known, sum)) if *known == index => *sum += weight / total,
                _ => taps.push((index, weight / total)),
            }
        }
        Ok(taps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attr;

    fn axis(attrs: &[(&str, &str)], input: usize, scale: f32) -> Vec<Taps> {
        let node = Node::new("Resize", "r", ["x", "", "scales"], ["y"]);
        let node = attrs.iter().fold(node, |node, &(name, value)| node.with(name, Attr::String(value.into())));
        let scales = Tensor::from_f32(&[1], &[scale]);
        let found = Interpolation::of(&node, &[input], |i| (i == 2).then_some(&scales)).unwrap();
        found.axes().unwrap().swap_remove(0).unwrap()
    }

    #[test]
    fn linear_upsampling_by_two() {
        let taps = axis(&[("mode", "linear")], 2, 2.0);
        assert_eq!(taps, [vec![(0, 1.0)], vec![(0, 0.75), (1, 0.25)], vec![(0, 0.25), (1, 0.75)], vec![(1, 1.0)]]);
    }

    #[test]
    fn nearest_neighbours_repeat() {
        let indices =
            |attrs: &[(&str, &str)]| -> Vec<usize> { axis(attrs, 3, 2.0).into_iter().map(|taps| taps[0].0).collect() };
        assert_eq!(indices(&[]), [0, 0, 1, 1, 2, 2]);
        let asymmetric = ("coordinate_transformation_mode", "asymmetric");
        assert_eq!(indices(&[asymmetric, ("nearest_mode", "floor")]), [0, 0, 1, 1, 2, 2]);
        assert_eq!(indices(&[asymmetric, ("nearest_mode", "ceil")]), [0, 1, 1, 2, 2, 2]);
    }

    #[test]
    fn weights_sum_to_one() {
        for mode in ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"] {
            for scale in [0.3, 0.6, 1.5, 2.7] {
                for taps in axis(&[("mode", "linear"), ("coordinate_transformation_mode", mode)], 11, scale) {
                    let sum: f64 = taps.iter().map(|tap| tap.1).sum();
                    assert!((sum - 1.0).abs() < 1e-12 && taps.iter().all(|tap| tap.0 < 11), "{mode} {scale}: {taps:?}");
                }
            }
        }
    }
}
