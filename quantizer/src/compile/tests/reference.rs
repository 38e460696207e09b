//! The definition of each ONNX operator, in f64, written for clarity alone.

use std::collections::BTreeMap;

use crate::graph::shape::{transposed_windows, windows};
use crate::graph::{Graph, Node, Tensor, eval};

/// A row-major tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Array {
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<f64>,
}

impl Array {
    fn of(tensor: &Tensor) -> Self {
        let data = match tensor.dtype.is_float() {
            true => tensor.to_f32().into_iter().map(f64::from).collect(),
            false => tensor.to_i64().into_iter().map(|v| v as f64).collect(),
        };
        Self { shape: tensor.shape.clone(), data }
    }

    /// Index of every element, outermost axis first.
    fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
        let mut out = vec![vec![]];
        for &size in shape {
            out = out.iter().flat_map(|head| (0..size).map(|i| [head.as_slice(), &[i]].concat())).collect();
        }
        out
    }

    /// The element at an index, with NumPy broadcasting.
    fn at(&self, index: &[usize]) -> f64 {
        let skip = index.len() - self.shape.len();
        let place = self.shape.iter().zip(&index[skip..]).fold(0, |place, (&size, &i)| place * size + i.min(size - 1));
        self.data[place]
    }

    fn build(shape: Vec<usize>, f: impl Fn(&[usize]) -> f64) -> Self {
        let data = Self::indices(&shape).iter().map(|index| f(index)).collect();
        Self { shape, data }
    }
}

/// Evaluates all nodes; `values` holds the inputs.
pub(super) fn evaluate(graph: &Graph, values: &mut BTreeMap<String, Array>) {
    for (name, tensor) in &graph.initializers {
        values.insert(name.clone(), Array::of(tensor));
    }
    for node in &graph.nodes {
        let inputs: Vec<Option<&Array>> = (0..node.inputs.len()).map(|i| node.input(i).map(|n| &values[n])).collect();
        let range = |i: usize| node.input(i).and_then(|name| graph.initializers.get(name)?.dtype.quantized_range());
        let out = operator(node, &inputs, range(2));
        values.insert(node.output().to_owned(), out);
    }
}

fn operator(node: &Node, inputs: &[Option<&Array>], range: Option<(i32, i32)>) -> Array {
    let x = inputs[0].unwrap();
    let get = |i: usize| inputs.get(i).copied().flatten();
    let ints = |i: usize| get(i).map(|a| a.data.iter().map(|&v| v as i64).collect::<Vec<_>>());
    let rank = x.shape.len();
    match node.op_type.as_str() {
        "QuantizeLinear" | "DequantizeLinear" => {
            let (scale, zero) = (get(1).unwrap(), get(2).unwrap());
            let axis = eval::normalize_axis(node.int("axis", 1), rank.max(1)).unwrap_or(0);
            Array::build(x.shape.clone(), |index| {
                let channel = if scale.data.len() == 1 { 0 } else { index[axis] };
                let (s, z) = (scale.data[channel], zero.data[channel]);
                if node.op_type == "DequantizeLinear" {
                    return (x.at(index) - z) * s;
                }
                let (low, high) = range.unwrap();
                let steps = f64::from((x.at(index) as f32 / s as f32).round_ties_even());
                (steps + z).clamp(f64::from(low), f64::from(high))
            })
        }
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" => {
            let y = get(1).unwrap();
            let shape = eval::broadcast(&x.shape, &y.shape).unwrap();
            Array::build(shape, |index| {
                let (a, b) = (x.at(index), y.at(index));
                match node.op_type.as_str() {
                    "Add" => a + b,
                    "Sub" => a - b,
                    "Mul" => a * b,
                    "Div" => a / b,
                    "Pow" => a.powf(b),
                    "Min" => a.min(b),
                    _ => a.max(b),
                }
            })
        }
        "Clip" => {
            let bound = |i: usize, open: f64| get(i).map_or(open, |a| a.data[0]);
            let (low, high) = (bound(1, f64::NEG_INFINITY), bound(2, f64::INFINITY));
            Array::build(x.shape.clone(), |index| x.at(index).max(low).min(high))
        }
        "Conv" => conv(node, x, get(1).unwrap(), get(2)),
        "ConvTranspose" => conv_transpose(node, x, get(1).unwrap(), get(2)),
        "Gemm" => {
            let w = get(1).unwrap();
            let transposed = node.int("transB", 0) != 0;
            let (k, n) = if transposed { (w.shape[1], w.shape[0]) } else { (w.shape[0], w.shape[1]) };
            let (alpha, beta) = (f64::from(node.float("alpha", 1.0)), f64::from(node.float("beta", 1.0)));
            Array::build(vec![x.shape[0], n], |index| {
                let [i, j] = [index[0], index[1]];
                let weight = |d: usize| if transposed { w.at(&[j, d]) } else { w.at(&[d, j]) };
                let sum: f64 = (0..k).map(|d| x.at(&[i, d]) * weight(d)).sum();
                alpha * sum + get(2).map_or(0.0, |bias| beta * bias.at(index))
            })
        }
        "MatMul" => {
            let y = get(1).unwrap();
            let (heads, other) = (&x.shape[..rank - 2], &y.shape[..y.shape.len() - 2]);
            let mut shape = eval::broadcast(heads, other).unwrap();
            let batch = shape.len();
            shape.extend([x.shape[rank - 2], y.shape[y.shape.len() - 1]]);
            Array::build(shape, |index| {
                let (head, i, j) = (&index[..batch], index[batch], index[batch + 1]);
                (0..x.shape[rank - 1]).map(|d| x.at(&[head, &[i, d]].concat()) * y.at(&[head, &[d, j]].concat())).sum()
            })
        }
        "BatchNormalization" => Array::build(x.shape.clone(), |index| {
            let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|i| get(i).unwrap().data[index[1]]);
            (x.at(index) - mean) / (variance + f64::from(node.float("epsilon", 1e-5))).sqrt() * gamma + beta
        }),
        "RMSNormalization" => {
            let depth = x.shape[rank - 1];
            let epsilon = f64::from(node.float("epsilon", 1e-5));
            Array::build(x.shape.clone(), |index| {
                let row = (0..depth).map(|i| x.at(&[&index[..rank - 1], &[i]].concat()));
                let mean = row.map(|v| v * v).sum::<f64>() / depth as f64;
                x.at(index) / (mean + epsilon).sqrt() * get(1).unwrap().data[index[rank - 1]]
            })
        }
        "Softmax" | "LogSoftmax" | "LayerNormalization" => {
            let depth = x.shape[rank - 1];
            let row = |index: &[usize]| -> Vec<f64> {
                (0..depth).map(|i| x.at(&[&index[..rank - 1], &[i]].concat())).collect()
            };
            Array::build(x.shape.clone(), |index| {
                let row = row(index);
                if node.op_type == "LogSoftmax" {
                    return x.at(index) - row.iter().map(|v| v.exp()).sum::<f64>().ln();
                }
                if node.op_type == "Softmax" {
                    return x.at(index).exp() / row.iter().map(|v| v.exp()).sum::<f64>();
                }
                let mean = row.iter().sum::<f64>() / depth as f64;
                let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / depth as f64;
                let epsilon = f64::from(node.float("epsilon", 1e-5));
                let [gamma, beta] = [get(1), get(2)].map(|a| a.map(|a| a.data[index[rank - 1]]));
                (x.at(index) - mean) / (variance + epsilon).sqrt() * gamma.unwrap_or(1.0) + beta.unwrap_or(0.0)
            })
        }
        "GlobalAveragePool" => mean(x, &(2..rank).collect::<Vec<_>>(), true),
        "ReduceMean" => {
            let axes: Vec<usize> =
                ints(1).unwrap().into_iter().map(|axis| eval::normalize_axis(axis, rank).unwrap()).collect();
            mean(x, &axes, node.int("keepdims", 1) != 0)
        }
        "ReduceSum" | "ReduceMax" | "ReduceMin" => {
            let axes: Vec<usize> =
                ints(1).unwrap().into_iter().map(|axis| eval::normalize_axis(axis, rank).unwrap()).collect();
            let f: fn(f64, f64) -> f64 = match node.op_type.as_str() {
                "ReduceSum" => |a, b| a + b,
                "ReduceMax" => f64::max,
                _ => f64::min,
            };
            reduce(x, &axes, node.int("keepdims", 1) != 0, f)
        }
        "DepthToSpace" => {
            let b = node.int("blocksize", 0) as usize;
            let depth = x.shape[1] / (b * b);
            Array::build(vec![x.shape[0], depth, x.shape[2] * b, x.shape[3] * b], |index| {
                let [n, c, h, w] = [0, 1, 2, 3].map(|axis| index[axis]);
                x.at(&[n, (h % b * b + w % b) * depth + c, h / b, w / b])
            })
        }
        "AveragePool" | "MaxPool" => pool(node, x),
        "Concat" => {
            let parts: Vec<&Array> = inputs.iter().map(|a| a.unwrap()).collect();
            let axis = eval::normalize_axis(node.int("axis", 0), rank).unwrap();
            let mut shape = x.shape.clone();
            shape[axis] = parts.iter().map(|a| a.shape[axis]).sum();
            Array::build(shape, |index| {
                let mut index = index.to_vec();
                for part in &parts {
                    if index[axis] < part.shape[axis] {
                        return part.at(&index);
                    }
                    index[axis] -= part.shape[axis];
                }
                f64::NAN
            })
        }
        "Pad" => {
            let pads = ints(1).unwrap();
            let shape = (0..rank).map(|i| x.shape[i] + (pads[i] + pads[i + rank]) as usize).collect();
            Array::build(shape, |index| {
                let source: Vec<i64> = (0..rank).map(|i| index[i] as i64 - pads[i]).collect();
                let inside = (0..rank).all(|i| (0..x.shape[i] as i64).contains(&source[i]));
                let source: Vec<usize> = source.iter().map(|&i| i.max(0) as usize).collect();
                if inside { x.at(&source) } else { get(2).map_or(0.0, |a| a.data[0]) }
            })
        }
        "Transpose" => {
            let perm = eval::permutation(node, rank).unwrap();
            Array::build(perm.iter().map(|&axis| x.shape[axis]).collect(), |index| {
                let mut source = vec![0; rank];
                perm.iter().zip(index).for_each(|(&axis, &i)| source[axis] = i);
                x.at(&source)
            })
        }
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
            let shape = match node.op_type.as_str() {
                "Reshape" => eval::reshape_target(&x.shape, &ints(1).unwrap(), false).unwrap(),
                "Flatten" => {
                    let axis = eval::normalize_axis(node.int("axis", 1), rank + 1).unwrap();
                    vec![x.shape[..axis].iter().product(), x.shape[axis..].iter().product()]
                }
                "Squeeze" => eval::squeezed(&x.shape, ints(1).as_deref()).unwrap(),
                _ => eval::unsqueezed(&x.shape, &ints(1).unwrap()).unwrap(),
            };
            Array { shape, data: x.data.clone() }
        }
        _ => Array::build(x.shape.clone(), |index| eval::eval_unary(node, x.at(index)).unwrap()),
    }
}

fn mean(x: &Array, axes: &[usize], keep: bool) -> Array {
    let mut sums = reduce(x, axes, keep, |a, b| a + b);
    let count = (x.data.len() / sums.data.len()) as f64;
    sums.data.iter_mut().for_each(|v| *v /= count);
    sums
}

fn reduce(x: &Array, axes: &[usize], keep: bool, f: fn(f64, f64) -> f64) -> Array {
    let shape: Vec<usize> = x.shape.iter().enumerate().map(|(i, &s)| if axes.contains(&i) { 1 } else { s }).collect();
    let mut found: Vec<Option<f64>> = vec![None; shape.iter().product()];
    for index in Array::indices(&x.shape) {
        let place = shape.iter().zip(&index).fold(0, |place, (&size, &i)| place * size + i.min(size - 1));
        let value = x.at(&index);
        found[place] = Some(found[place].map_or(value, |known| f(known, value)));
    }
    let kept = x.shape.iter().enumerate().filter(|(i, _)| keep || !axes.contains(i));
    let shape = if keep { shape } else { kept.map(|(_, &s)| s).collect() };
    Array { shape, data: found.into_iter().flatten().collect() }
}

fn conv(node: &Node, x: &Array, w: &Array, bias: Option<&Array>) -> Array {
    if let ([n, c, l], [o, depth, k]) = (&x.shape[..], &w.shape[..]) {
        // Of a signal: an image of one row, with one number for each axis in place of one.
        let mut node = node.clone();
        for (name, neutral) in [("strides", 1), ("dilations", 1), ("pads", 0)] {
            if let Some(values) = node.ints(name) {
                let both = values.iter().flat_map(|&v| [neutral, v]).collect();
                node = node.with(name, crate::graph::Attr::Ints(both));
            }
        }
        let image = Array { shape: vec![*n, *c, 1, *l], data: x.data.clone() };
        let kernel = Array { shape: vec![*o, *depth, 1, *k], data: w.data.clone() };
        let mut y = conv(&node, &image, &kernel, bias);
        y.shape.remove(2);
        return y;
    }
    let window = windows(node, &x.shape[2..], &w.shape[2..]).unwrap();
    let groups = node.int("group", 1) as usize;
    let (outputs, depth) = (w.shape[0], w.shape[1]);
    let taps = Array::indices(&w.shape[1..]);
    Array::build(vec![x.shape[0], outputs, window[0].output, window[1].output], |index| {
        let [n, o, y, z] = [index[0], index[1], index[2], index[3]];
        let first = o / (outputs / groups) * depth;
        let mut sum = bias.map_or(0.0, |bias| bias.data[o]);
        for tap in &taps {
            let at = |axis: usize, out: usize| {
                let at = (out * window[axis].stride + tap[axis + 1] * window[axis].dilation) as i64;
                usize::try_from(at - window[axis].pad_begin as i64).ok().filter(|&i| i < x.shape[axis + 2])
            };
            if let (Some(row), Some(col)) = (at(0, y), at(1, z)) {
                sum += x.at(&[n, first + tap[0], row, col]) * w.at(&[o, tap[0], tap[1], tap[2]]);
            }
        }
        sum
    })
}

/// Every input element scattered onto the output.
fn conv_transpose(node: &Node, x: &Array, w: &Array, bias: Option<&Array>) -> Array {
    let window = transposed_windows(node, &x.shape[2..], &w.shape[2..]).unwrap();
    let groups = node.int("group", 1) as usize;
    let (per_group, depth) = (w.shape[1], w.shape[0] / groups);
    let shape = vec![x.shape[0], per_group * groups, window[0].output, window[1].output];
    let mut out = Array::build(shape.clone(), |index| bias.map_or(0.0, |bias| bias.data[index[1]]));
    for from in Array::indices(&x.shape) {
        for tap in Array::indices(&w.shape[1..]) {
            let at = |axis: usize| {
                let at = from[axis + 2] * window[axis].stride + tap[axis + 1] * window[axis].dilation;
                at.checked_sub(window[axis].pad_begin).filter(|&i| i < window[axis].output)
            };
            if let (Some(row), Some(col)) = (at(0), at(1)) {
                let channel = from[1] / depth * per_group + tap[0];
                let place = ((from[0] * shape[1] + channel) * shape[2] + row) * shape[3] + col;
                out.data[place] += x.at(&from) * w.at(&[from[1], tap[0], tap[1], tap[2]]);
            }
        }
    }
    out
}

fn pool(node: &Node, x: &Array) -> Array {
    let kernel: Vec<usize> = node.ints("kernel_shape").unwrap().iter().map(|&k| k as usize).collect();
    let window = windows(node, &x.shape[2..], &kernel).unwrap();
    Array::build(vec![x.shape[0], x.shape[1], window[0].output, window[1].output], |index| {
        let mut found = Vec::new();
        for tap in Array::indices(&kernel) {
            let at = |axis: usize| {
                let at = (index[axis + 2] * window[axis].stride + tap[axis] * window[axis].dilation) as i64;
                usize::try_from(at - window[axis].pad_begin as i64).ok().filter(|&i| i < x.shape[axis + 2])
            };
            if let (Some(row), Some(col)) = (at(0), at(1)) {
                found.push(x.at(&[index[0], index[1], row, col]));
            }
        }
        if node.op_type == "MaxPool" {
            return found.into_iter().fold(f64::NEG_INFINITY, f64::max);
        }
        let include = node.int("count_include_pad", 0) != 0;
        let count = if include { kernel.iter().product() } else { found.len() };
        found.iter().sum::<f64>() / count as f64
    })
}
