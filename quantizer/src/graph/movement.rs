//! Operators whose outputs hold elements of their input at fixed places: Slice, Split, Gather, Expand, Tile, Pad by
//! reflection, edges or wrapping, Resize to nearest neighbours, and blocks that change places between depth and space.

use super::eval::{self, normalize_axis};
use super::interpolation::Interpolation;
use super::{Node, Tensor};

/// Where the elements of an output lie in the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picks {
    /// For each axis of the input, behind leading ones where the output has more, its index at each index of the output;
    /// `None` where the axis stays as it is.
    pub axes: Vec<Option<Vec<usize>>>,
    /// The output's shape: as many elements as the picks.
    pub shape: Vec<usize>,
}

/// Indices along an axis, at most: lists of them are made.
const MOST: usize = 1 << 24;

/// Whether outputs of these operators hold elements of input 0 and nothing else, in form and number as [`picks`] says.
pub fn moves(node: &Node) -> bool {
    node.domain.is_empty()
        && match node.op_type.as_str() {
            "Slice" | "Split" | "Gather" | "Expand" | "Tile" => true,
            "Pad" => node.string("mode").is_some_and(|mode| mode != "constant"),
            "Resize" => node.string("mode").unwrap_or("nearest") == "nearest",
            _ => false,
        }
}

/// DepthToSpace or SpaceToDepth as a Reshape, a Transpose and another Reshape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// Shape to split the axes into.
    pub split: Vec<usize>,
    /// Permutation of these.
    pub perm: Vec<usize>,
    /// The output's shape.
    pub joined: Vec<usize>,
}

/// What a DepthToSpace or SpaceToDepth node does to an input of shape `x`.
///
/// # Errors
///
/// What does not fit, in words.
pub fn blocks(node: &Node, x: &[usize]) -> Result<Blocks, String> {
    let &[n, c, h, w] = x else { return Err(format!("an input of rank {}", x.len())) };
    let block = usize::try_from(node.int("blocksize", 0)).ok().filter(|&size| size > 0).ok_or("no blocksize")?;
    let square = block.checked_mul(block).ok_or("the blocksize is too large")?;
    let refuse = || format!("blocks of {block} by {block} do not fit {x:?}");
    let (split, perm, joined) = match (node.op_type.as_str(), node.string("mode").unwrap_or("DCR")) {
        ("SpaceToDepth", _) => {
            let (rows, cols) = (h / block, w / block);
            let split = [n, c, rows, block, cols, block];
            (split, [0, 3, 5, 1, 2, 4], [n, c.checked_mul(square).ok_or_else(refuse)?, rows, cols])
        }
        (_, mode) => {
            let depth = c / square;
            let joined = [n, depth, h.checked_mul(block).ok_or_else(refuse)?, w.checked_mul(block).ok_or_else(refuse)?];
            match mode {
                "DCR" => ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2], joined),
                "CRD" => ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3], joined),
                other => return Err(format!("mode `{other}` is not known")),
            }
        }
    };
    let all = |shape: &[usize]| shape.iter().try_fold(1usize, |all, &size| all.checked_mul(size));
    match all(&split) == all(x) {
        true => Ok(Blocks { split: split.to_vec(), perm: perm.to_vec(), joined: joined.to_vec() }),
        false => Err(refuse()),
    }
}

/// The inputs besides 0 that say what a node of this kind moves: they must be constants.
pub fn parameters(node: &Node) -> impl Iterator<Item = usize> + '_ {
    (1..node.inputs.len()).filter(|&i| node.input(i).is_some())
}

/// What output `k` of a node that [`moves`] takes from an input of shape `x`. `constant` gives the constant inputs.
///
/// # Errors
///
/// What does not fit, in words.
pub fn picks<'t>(
    node: &Node,
    k: usize,
    x: &[usize],
    constant: impl Fn(usize) -> Option<&'t Tensor>,
) -> Result<Picks, String> {
    let ints = |i: usize| constant(i).map(Tensor::to_i64);
    let axis_of = |axis: i64| normalize_axis(axis, x.len()).ok_or_else(|| format!("axis {axis} of rank {}", x.len()));
    let mut axes: Vec<Option<Vec<usize>>> = vec![None; x.len()];
    let mut shape = None;
    match node.op_type.as_str() {
        "Slice" => {
            let (starts, ends) = (ints(1).ok_or("no starts")?, ints(2).ok_or("no ends")?);
            let listed = ints(3).unwrap_or_else(|| (0..starts.len() as i64).collect());
            let steps = ints(4).unwrap_or_else(|| vec![1; starts.len()]);
            for (i, &axis) in listed.iter().enumerate() {
                let (Some(&start), Some(&end), Some(&step)) = (starts.get(i), ends.get(i), steps.get(i)) else {
                    return Err("starts, ends, axes and steps differ in length".into());
                };
                let axis = axis_of(axis)?;
                let range = eval::slice_range(x[axis], start, end, step).ok_or("a step of 0")?;
                listable(range.len)?;
                axes[axis] = Some(range.indices().collect());
            }
        }
        "Split" => {
            let axis = axis_of(node.int("axis", 0))?;
            let sizes = split_sizes(node, x[axis], ints(1).as_deref())?;
            let start = sizes.iter().take(k).sum();
            let size = listable(*sizes.get(k).ok_or_else(|| format!("{} parts and no part {k}", sizes.len()))?)?;
            axes[axis] = Some((start..start + size).collect());
        }
        "Gather" => {
            let axis = axis_of(node.int("axis", 0))?;
            let index = constant(1).ok_or("indices that are not constant")?;
            let inside =
                |i: i64| normalize_axis(i, x[axis]).ok_or_else(|| format!("index {i} of {} elements", x[axis]));
            axes[axis] = Some(index.to_i64().into_iter().map(inside).collect::<Result<_, _>>()?);
            shape = Some([&x[..axis], &index.shape, &x[axis + 1..]].concat());
        }
        "Expand" => {
            let target = ints(1).ok_or("no target shape")?;
            let target: Vec<usize> = target.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
            let full = eval::broadcast(x, &target).ok_or_else(|| format!("{x:?} and {target:?} do not broadcast"))?;
            axes.splice(0..0, vec![None; full.len() - x.len()]);
            let from = [&vec![1; full.len() - x.len()], x].concat();
            for (axis, (&from, &to)) in axes.iter_mut().zip(from.iter().zip(&full)) {
                *axis = if from == to { None } else { Some(vec![0; listable(to)?]) };
            }
            shape = Some(full);
        }
        "Tile" => {
            let repeats = ints(1).ok_or("no repeats")?;
            if repeats.len() != x.len() || repeats.iter().any(|&times| times < 0) {
                return Err(format!("repeats {repeats:?} of rank {}", x.len()));
            }
            for ((axis, &size), &times) in axes.iter_mut().zip(x).zip(&repeats) {
                let total = listable(size.saturating_mul(times as usize))?;
                *axis = (times != 1).then(|| (0..total).map(|i| i % size).collect());
            }
        }
        "Pad" => {
            let pads = ints(1).ok_or("no pads")?;
            let listed = ints(3).unwrap_or_else(|| (0..x.len() as i64).collect());
            if pads.len() != 2 * listed.len() {
                return Err(format!("pads {pads:?} do not fit {} axes", listed.len()));
            }
            let mode = node.string("mode").unwrap_or("constant");
            for (i, &axis) in listed.iter().enumerate() {
                let axis = axis_of(axis)?;
                axes[axis] = Some(reflected(x[axis], [pads[i], pads[listed.len() + i]], mode)?);
            }
        }
        "Resize" => {
            for (axis, taps) in Interpolation::of(node, x, constant)?.axes()?.into_iter().enumerate() {
                axes[axis] = taps.map(|taps| taps.into_iter().map(|taps| taps[0].0).collect());
            }
        }
        other => return Err(format!("{other} does not move elements alone")),
    }
    let sizes = || {
        let from = [&vec![1; axes.len() - x.len()], x].concat();
        axes.iter().zip(from).map(|(axis, size)| axis.as_ref().map_or(size, Vec::len)).collect()
    };
    let shape = shape.unwrap_or_else(sizes);
    Ok(Picks { axes, shape })
}

/// Refuses lists that are too long.
fn listable(len: usize) -> Result<usize, String> {
    if len <= MOST { Ok(len) } else { Err(format!("an axis of {len} elements is too large")) }
}

/// The sizes of the parts of a Split of an axis: as given, or as equal as they can be.
///
/// # Errors
///
/// Parts that do not add up to the axis.
pub fn split_sizes(node: &Node, size: usize, given: Option<&[i64]>) -> Result<Vec<usize>, String> {
    let sizes: Vec<usize> = match given {
        Some(sizes) => sizes.iter().map(|&part| usize::try_from(part).unwrap_or(usize::MAX)).collect(),
        None => {
            let parts = usize::try_from(node.int("num_outputs", node.outputs.len() as i64)).unwrap_or(0).max(1);
            let chunk = size.div_ceil(parts);
            (0..node.outputs.len()).map(|i| chunk.min(size.saturating_sub(i * chunk))).collect()
        }
    };
    let total = sizes.iter().try_fold(0usize, |total, &part| total.checked_add(part));
    match total == Some(size) && sizes.len() == node.outputs.len() {
        true => Ok(sizes),
        false => Err(format!("parts {sizes:?} for {} outputs of an axis of {size}", node.outputs.len())),
    }
}

/// The elements of an axis that lie at its places and at those added before and after it.
fn reflected(size: usize, [before, after]: [i64; 2], mode: &str) -> Result<Vec<usize>, String> {
    let size = i64::try_from(size).map_err(|error| error.to_string())?;
    let place: fn(i64, i64) -> i64 = match mode {
        "edge" => |i, size| i.clamp(0, size - 1),
        "wrap" => |i, size| i.rem_euclid(size),
        "reflect" => |i, size| match size {
            1 => 0,
            _ => {
                let at = i.rem_euclid(2 * (size - 1));
                at.min(2 * (size - 1) - at)
            }
        },
        other => return Err(format!("mode `{other}` is not known")),
    };
    let ends = before.checked_neg().zip(size.checked_add(after)).filter(|(first, end)| first < end && size > 0);
    let (first, end) = ends.ok_or_else(|| format!("pads {before} and {after} of an axis of {size} leave nothing"))?;
    listable(usize::try_from(end.saturating_sub(first)).unwrap_or(usize::MAX))?;
    Ok((first..end).map(|i| place(i, size) as usize).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attr;

    #[test]
    fn reflections_go_back_and_forth() {
        assert_eq!(reflected(3, [4, 3], "reflect").unwrap(), [0, 1, 2, 1, 0, 1, 2, 1, 0, 1]);
        assert_eq!(reflected(3, [2, 1], "edge").unwrap(), [0, 0, 0, 1, 2, 2]);
        assert_eq!(reflected(3, [1, -1], "wrap").unwrap(), [2, 0, 1]);
        assert_eq!(reflected(1, [1, 1], "reflect").unwrap(), [0, 0, 0]);
        assert!(reflected(3, [-2, -1], "edge").is_err());
        assert!(reflected(3, [i64::MIN, 0], "edge").is_err());
    }

    #[test]
    fn parts_add_up() {
        let node = Node::new("Split", "s", ["x"], ["a", "b", "c"]);
        assert_eq!(split_sizes(&node, 7, None).unwrap(), [3, 3, 1]);
        assert_eq!(split_sizes(&node, 7, Some(&[1, 4, 2])).unwrap(), [1, 4, 2]);
        assert!(split_sizes(&node, 7, Some(&[1, 4, 3])).is_err());
        assert!(split_sizes(&node, 7, Some(&[-1, 4, 4])).is_err());
    }

    #[test]
    fn a_gather_takes_the_shape_of_its_indices() {
        let index = Tensor::from_i64(&[2, 2], &[0, -1, 1, 1]);
        let node = Node::new("Gather", "g", ["x", "i"], ["y"]).with("axis", Attr::Int(1));
        let found = picks(&node, 0, &[5, 3], |_| Some(&index)).unwrap();
        assert_eq!(found, Picks { axes: vec![None, Some(vec![0, 2, 1, 1])], shape: vec![5, 2, 2] });
    }
}
