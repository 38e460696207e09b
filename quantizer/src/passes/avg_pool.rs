//! An AveragePool with dilations becomes a depthwise Conv of equal weights; where windows at the border hold fewer elements,
//! a factor for each position makes up for it.

use super::rewrite::Rewrite;
use crate::graph::shape::{Window, infer_partial, windows};
use crate::graph::{Attr, Graph, Tensor, eval};

pub(super) fn run(graph: &mut Graph) -> usize {
    let dilated = |i: usize| {
        let node: &crate::graph::Node = &graph.nodes[i];
        let dilations = node.ints("dilations").unwrap_or_default();
        node.op_type == "AveragePool" && node.domain.is_empty() && dilations.iter().any(|&dilation| dilation != 1)
    };
    let found: Vec<usize> = (0..graph.nodes.len()).rev().filter(|&i| dilated(i)).collect();
    found.into_iter().filter(|&index| weighted(graph, index).is_some()).count()
}

/// How many of a window's elements count, for each position along an axis.
fn counted(input: usize, window: &Window, padding: bool) -> Vec<usize> {
    let (first, last) = match padding {
        true => (0, input + window.pad_begin + window.pad_end),
        false => (window.pad_begin, input + window.pad_begin),
    };
    let before =
        |edge: usize, o: usize| edge.saturating_sub(o * window.stride).div_ceil(window.dilation).min(window.kernel);
    (0..window.output).map(|o| before(last, o) - before(first, o)).collect()
}

fn weighted(graph: &mut Graph, index: usize) -> Option<()> {
    let node = graph.nodes[index].clone();
    let types = infer_partial(graph, 2).types;
    let [_, channels, spatial @ ..] = types.get(node.input(0)?)?.shape.as_slice() else { return None };
    let kernel: Vec<usize> =
        node.ints("kernel_shape")?.iter().map(|&k| usize::try_from(k).ok()).collect::<Option<_>>()?;
    let windows = windows(&node, spatial, &kernel).ok()?;
    let positions: Vec<usize> = [1, 1].into_iter().chain(windows.iter().map(|window| window.output)).collect();
    let shape = [&[*channels, 1], &kernel[..]].concat();
    if eval::checked_len(&positions)? == 0 || eval::checked_len(&shape)? == 0 {
        return None;
    }
    let padding = node.int("count_include_pad", 0) != 0;
    let taps: usize = kernel.iter().product();
    let mut factors = vec![taps as f32];
    for (&input, window) in spatial.iter().zip(&windows) {
        let counts = counted(input, window, padding);
        if counts.contains(&0) {
            return None;
        }
        factors = factors.iter().flat_map(|factor| counts.iter().map(move |&count| factor / count as f32)).collect();
    }
    let list = |of: &dyn Fn(&Window) -> usize| windows.iter().map(|window| of(window) as i64).collect::<Vec<_>>();
    // With `ceil_mode` the last window may reach further than the padding.
    let ends = spatial.iter().zip(&windows).map(|(&input, window)| {
        let reach = (window.output - 1) * window.stride + (window.kernel - 1) * window.dilation + 1;
        reach.saturating_sub(input + window.pad_begin) as i64
    });
    let ends: Vec<i64> = ends.collect();
    let channels = *channels;
    let attrs = [
        ("group", Attr::Int(channels as i64)),
        ("strides", Attr::Ints(list(&|window| window.stride))),
        ("dilations", Attr::Ints(list(&|window| window.dilation))),
        ("pads", Attr::Ints([list(&|window| window.pad_begin), ends].concat())),
    ];
    let mut rewrite = Rewrite::new(graph, index);
    let weights = rewrite.constant("weight", Tensor::from_f32(&shape, &vec![1.0 / taps as f32; channels * taps]));
    let y = rewrite.main("Conv", &[node.input(0)?, &weights], &attrs);
    if factors.iter().any(|&factor| factor != 1.0) {
        let factors = rewrite.constant("factor", Tensor::from_f32(&positions, &factors));
        rewrite.op("Mul", &[&y, &factors], &[]);
    }
    rewrite.finish();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Model, ints};
    use super::*;

    /// The mean of what a window of 2 × 2 with the given dilations holds, of rows and columns of an input.
    fn mean(x: &[f32], [rows, cols]: [usize; 2], [top, left]: [i64; 2], dilations: [i64; 2], padding: bool) -> f32 {
        let mut found = Vec::new();
        for tap in 0..4 {
            let (row, col) = (top + tap / 2 * dilations[0], left + tap % 2 * dilations[1]);
            let inside = (0..rows as i64).contains(&row) && (0..cols as i64).contains(&col);
            if inside {
                found.push(x[row as usize * cols + col as usize]);
            } else if padding {
                found.push(0.0);
            }
        }
        found.iter().sum::<f32>() / found.len() as f32
    }

    #[test]
    fn dilated_means_are_convolutions() {
        for (padding, pads) in [(true, [1, 1]), (false, [1, 1]), (false, [0, 0])] {
            let (rows, cols) = (6, 5);
            let mut model = Model::new(&[2, rows, cols]);
            let attrs = [
                ("kernel_shape", ints(&[2, 2])),
                ("dilations", ints(&[2, 3])),
                ("pads", ints(&[pads[0], pads[1], pads[0], pads[1]])),
                ("count_include_pad", Attr::Int(i64::from(padding))),
            ];
            let y = model.node("AveragePool", &["x"], &attrs);
            model.outputs(&[&y]);
            let x: Vec<f32> = (0..2 * rows * cols).map(|at| (at as f32 * 0.9).cos()).collect();
            let size = |input: usize, pad: i64, dilation: i64| input as i64 + 2 * pad - dilation;
            let mut expected = Vec::new();
            for channel in x.chunks(rows * cols) {
                for row in 0..size(rows, pads[0], 2) {
                    for col in 0..size(cols, pads[1], 3) {
                        let corner = [row - pads[0], col - pads[1]];
                        expected.push(mean(channel, [rows, cols], corner, [2, 3], padding));
                    }
                }
            }
            model.gives_after(&[expected], run);
        }
    }
}
