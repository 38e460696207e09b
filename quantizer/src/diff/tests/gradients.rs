//! Every gradient against finite differences, and operators against their definitions.

use candle_core::{Device, Tensor as Value, Var};

use super::super::conv::Conv;
use super::super::conv_transpose::ConvTranspose;
use super::super::fake_quant::{Drop, Ends, FakeQuant};
use super::super::matmul::{Linear, Product};
use super::super::operator::Operator;
use super::super::pool::{Kind, Pool};
use super::super::rows::{LayerNorm, Softmax};
use super::super::shift::Shift;
use super::super::to_vec;
use super::super::unary::Unary;
use crate::graph::shape::Window;
use crate::graph::{Attr, Node};

/// Numbers in [−1, 1], the same on every run.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn variable(shape: &[usize], seed: u64) -> Var {
    let values = numbers(shape.iter().product(), seed);
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Compares the gradients of `Σ f(x) · r`, with random `r`, to each of the variables with central differences.
#[track_caller]
fn check(variables: &[Var], f: impl Fn(&[&Value]) -> candle_core::Result<Value>) {
    const STEP: f32 = 1e-2;
    let values: Vec<&Value> = variables.iter().map(|v| v.as_tensor()).collect();
    let out = f(&values).unwrap();
    let weights = Value::from_vec(numbers(out.elem_count(), 99), out.shape(), &Device::Cpu).unwrap();
    let gradients = (&out * &weights).unwrap().sum_all().unwrap().backward().unwrap();
    let loss = |values: &[&Value]| -> f64 {
        let out = to_vec(&f(values).unwrap()).unwrap();
        out.iter().zip(to_vec(&weights).unwrap()).map(|(a, b)| f64::from(*a) * f64::from(b)).sum()
    };
    for (which, variable) in variables.iter().enumerate() {
        let gradient = to_vec(gradients.get(variable.as_tensor()).expect("a gradient")).unwrap();
        let start = to_vec(variable).unwrap();
        for i in (0..start.len()).step_by((start.len() / 24).max(1)) {
            let at = |by: f32| {
                let mut moved = start.clone();
                moved[i] += by;
                let moved = Value::from_vec(moved, variable.shape(), &Device::Cpu).unwrap();
                let mut values = values.clone();
                values[which] = &moved;
                loss(&values)
            };
            let expected = (at(STEP) - at(-STEP)) / f64::from(2.0 * STEP);
            let error = (f64::from(gradient[i]) - expected).abs();
            assert!(error < 2e-3 * expected.abs().max(1.0), "variable {which}[{i}]: {} for {expected}", gradient[i]);
        }
    }
}

fn window(kernel: usize, stride: usize, dilation: usize, pads: (usize, usize), size: usize) -> Window {
    let output = (size + pads.0 + pads.1 - (kernel - 1) * dilation - 1) / stride + 1;
    Window { kernel, stride, dilation, pad_begin: pads.0, pad_end: pads.1, output }
}

fn conv(groups: usize, inputs: usize, outputs: usize, size: [usize; 2], windows: [Window; 2]) -> Conv {
    Conv { groups, inputs, outputs, size, windows }
}

/// The definition, in f64.
fn naive(conv: &Conv, x: &[f32], w: &[f32], b: &[f32]) -> Vec<f32> {
    let [v, h] = conv.windows;
    let (per, outputs) = (conv.inputs / conv.groups, conv.outputs / conv.groups);
    let mut out = Vec::new();
    for image in x.chunks(conv.image()) {
        for o in 0..conv.outputs {
            for (y, x) in (0..v.output).flat_map(|y| (0..h.output).map(move |x| (y, x))) {
                let mut sum = f64::from(b[o]);
                for (i, ky, kx) in
                    (0..per).flat_map(|i| (0..v.kernel).flat_map(move |ky| (0..h.kernel).map(move |kx| (i, ky, kx))))
                {
                    let line = (y * v.stride + ky * v.dilation).wrapping_sub(v.pad_begin);
                    let column = (x * h.stride + kx * h.dilation).wrapping_sub(h.pad_begin);
                    if line < conv.size[0] && column < conv.size[1] {
                        let channel = o / outputs * per + i;
                        let pixel = image[(channel * conv.size[0] + line) * conv.size[1] + column];
                        let weight = w[((o * per + i) * v.kernel + ky) * h.kernel + kx];
                        sum += f64::from(pixel) * f64::from(weight);
                    }
                }
                out.push(sum as f32);
            }
        }
    }
    out
}

fn convolutions() -> Vec<Conv> {
    vec![
        conv(1, 3, 4, [7, 6], [window(3, 1, 1, (1, 1), 7), window(3, 1, 1, (1, 1), 6)]),
        conv(1, 2, 3, [9, 8], [window(3, 2, 1, (0, 1), 9), window(2, 3, 2, (1, 0), 8)]),
        conv(1, 4, 5, [3, 3], [window(1, 1, 1, (0, 0), 3), window(1, 1, 1, (0, 0), 3)]),
        conv(1, 4, 5, [20, 20], [window(1, 1, 1, (0, 0), 20), window(1, 1, 1, (0, 0), 20)]),
        conv(1, 2, 2, [5, 5], [window(1, 2, 1, (0, 0), 5), window(1, 2, 1, (0, 0), 5)]),
        conv(2, 4, 6, [5, 5], [window(3, 1, 1, (1, 1), 5), window(3, 1, 1, (1, 1), 5)]),
        conv(4, 4, 4, [6, 7], [window(3, 1, 1, (1, 1), 6), window(3, 1, 1, (1, 1), 7)]),
        conv(3, 3, 6, [9, 9], [window(3, 2, 1, (1, 1), 9), window(3, 2, 1, (0, 2), 9)]),
        conv(2, 2, 2, [12, 9], [window(5, 3, 2, (2, 3), 12), window(2, 2, 3, (0, 0), 9)]),
        conv(2, 2, 2, [40, 3], [window(10, 2, 1, (4, 5), 40), window(3, 1, 1, (1, 1), 3)]),
    ]
}

#[test]
fn convolutions_follow_the_definition() {
    for conv in convolutions() {
        for images in [1, 3] {
            let depth = conv.inputs / conv.groups * conv.windows[0].kernel * conv.windows[1].kernel;
            let x = numbers(images * conv.image(), 1);
            let (w, b) = (numbers(conv.outputs * depth, 2), numbers(conv.outputs, 3));
            let (found, expected) = (conv.forward(&x, &w, &b), naive(&conv, &x, &w, &b));
            assert_eq!(found.len(), expected.len());
            let error = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 1e-5, "{conv:?}: {error}");
        }
    }
}

/// Every input pixel scattered onto the output, in f64.
fn scattered(transposed: &ConvTranspose, x: &[f32], w: &[f32], b: &[f32]) -> Vec<f32> {
    let conv = &transposed.reverse;
    let ([v, h], [height, width]) = (conv.windows, conv.size);
    let (per_group, inputs) = (conv.inputs / conv.groups, conv.outputs / conv.groups);
    let mut out = Vec::new();
    for image in x.chunks(conv.outputs * conv.pixels()) {
        let mut sums: Vec<f64> = (0..conv.inputs * height * width).map(|i| b[i / (height * width)].into()).collect();
        for (i, &pixel) in image.iter().enumerate() {
            let (c, y, x) = (i / conv.pixels(), i / h.output % v.output, i % h.output);
            for o in 0..per_group {
                for (ky, kx) in (0..v.kernel).flat_map(|ky| (0..h.kernel).map(move |kx| (ky, kx))) {
                    let line = (y * v.stride + ky * v.dilation).wrapping_sub(v.pad_begin);
                    let column = (x * h.stride + kx * h.dilation).wrapping_sub(h.pad_begin);
                    if line < height && column < width {
                        let weight = w[((c * per_group + o) * v.kernel + ky) * h.kernel + kx];
                        let channel = c / inputs * per_group + o;
                        sums[(channel * height + line) * width + column] += f64::from(pixel) * f64::from(weight);
                    }
                }
            }
        }
        out.extend(sums.into_iter().map(|sum| sum as f32));
    }
    out
}

#[test]
fn transposed_convolutions_follow_the_definition() {
    for reverse in convolutions() {
        let taps = reverse.windows[0].kernel * reverse.windows[1].kernel;
        let x = numbers(3 * reverse.outputs * reverse.pixels(), 1);
        let w = numbers(reverse.outputs * reverse.inputs / reverse.groups * taps, 2);
        let b = numbers(reverse.inputs, 3);
        let transposed = ConvTranspose { reverse };
        let (found, expected) = (transposed.forward(&x, &w, &b), scattered(&transposed, &x, &w, &b));
        assert_eq!(found.len(), expected.len());
        let error = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 1e-5, "{transposed:?}: {error}");
    }
}

#[test]
fn gradients_of_transposed_convolutions() {
    for reverse in convolutions() {
        let [vertical, horizontal] = reverse.windows;
        let w = [reverse.outputs, reverse.inputs / reverse.groups, vertical.kernel, horizontal.kernel];
        let x = [3, reverse.outputs, vertical.output, horizontal.output];
        let variables = [variable(&x, 1), variable(&w, 2), variable(&[reverse.inputs], 3)];
        let transposed = ConvTranspose { reverse };
        check(&variables, |v| v[0].apply_op3(v[1], v[2], transposed.clone()));
    }
}

#[test]
fn gradients_of_convolutions() {
    for conv in convolutions() {
        let per_group = conv.inputs / conv.groups;
        let w = [conv.outputs, per_group, conv.windows[0].kernel, conv.windows[1].kernel];
        let x = [3, conv.inputs, conv.size[0], conv.size[1]];
        let variables = [variable(&x, 1), variable(&w, 2), variable(&[conv.outputs], 3)];
        check(&variables, |v| v[0].apply_op3(v[1], v[2], conv.clone()));
    }
}

#[test]
fn gradients_of_products() {
    for (transposed, w) in [(true, [5, 7]), (false, [7, 5])] {
        let linear = Linear { transposed, inputs: 7, outputs: 5 };
        let variables = [variable(&[2, 3, 7], 1), variable(&w, 2), variable(&[5], 3)];
        check(&variables, |v| v[0].apply_op3(v[1], v[2], linear.clone()));
    }
    check(&[variable(&[2, 2, 3, 4], 1), variable(&[2, 2, 4, 5], 2)], |v| v[0].apply_op2(v[1], Product));
    check(&[variable(&[2, 3, 4], 1), variable(&[3, 4], 2)], |v| v[0].apply_op2(v[1], Shift));
}

#[test]
fn gradients_of_rows() {
    check(&[variable(&[3, 11], 1)], |v| v[0].apply_op1(Softmax { row: 11 }));
    check(&[variable(&[3, 11], 1)], |v| Operator::LogSoftmax.run(&[v[0]]));
    for centred in [true, false] {
        let norm = LayerNorm { centred, scales: numbers(20, 5), shifts: numbers(20, 6), epsilon: 1e-3 };
        check(&[variable(&[3, 20], 1)], |v| v[0].apply_op1(norm.clone()));
    }
}

#[test]
fn gradients_of_functions() {
    let nodes = [
        Node::new("Erf", "f", ["x"], ["y"]),
        Node::new("Exp", "f", ["x"], ["y"]),
        Node::new("Sigmoid", "f", ["x"], ["y"]),
        Node::new("Tanh", "f", ["x"], ["y"]),
        Node::new("Gelu", "f", ["x"], ["y"]),
        Node::new("Softplus", "f", ["x"], ["y"]),
        Node::new("LeakyRelu", "f", ["x"], ["y"]).with("alpha", Attr::Float(0.3)),
        Node::new("HardSwish", "f", ["x"], ["y"]),
    ];
    for node in nodes {
        let unary = Unary::of(&node).expect("a function");
        // A grid that keeps away from kinks.
        let x: Vec<f32> = (-19..19).map(|i| (i as f32 + 0.5) * 0.2).collect();
        let x = Var::from_vec(x, 38, &Device::Cpu).unwrap();
        check(&[x], |v| v[0].apply_op1(unary.clone()));
    }
    assert!(Unary::of(&Node::new("Floor?", "f", ["x"], ["y"])).is_none());
}

#[test]
fn gradients_of_pooling() {
    let windows = [window(3, 2, 1, (1, 1), 7), window(2, 1, 2, (0, 1), 6)];
    for kind in [Kind::Max, Kind::Mean, Kind::PaddedMean] {
        let pool = Pool { kind, size: [7, 6], windows };
        // All numbers are further apart than the step of the differences.
        let values: Vec<f32> = (0..252).map(|i| (i * 97 % 252) as f32 * 0.05).collect();
        let x = Var::from_vec(values, &[2, 3, 7, 6], &Device::Cpu).unwrap();
        check(&[x], |v| v[0].apply_op1(pool.clone()));
    }
}

/// What the gradients pretend the quantization is near `x0`: the error of rounding is a constant in steps.
fn surrogate(quant: &FakeQuant, x: f64, scale: f64, zero_point: f64, x0: f64, scale0: f64) -> f64 {
    let offset = (x0 / scale0).round_ties_even() - x0 / scale0;
    (x / scale + offset).clamp(f64::from(quant.low) - zero_point, f64::from(quant.high) - zero_point) * scale
}

#[test]
fn gradients_of_fake_quantization() {
    let quant = FakeQuant::new(0, 15);
    let (scale, zero_point) = (0.13f64, 6.0f64);
    let h = 1e-6;
    // Inside, below and above, away from the ends.
    for x in [-0.7, -0.5, -0.2, 0.01, 0.33, 0.9, 1.1, 1.4, 2.0] {
        let found = quant.backward(&[x as f32], &[1.0], scale as f32, zero_point as f32);
        let of = |x1: f64, s: f64, z: f64| surrogate(&quant, x1, s, z, x, scale);
        let to_x = (of(x + h, scale, zero_point) - of(x - h, scale, zero_point)) / (2.0 * h);
        let to_scale = (of(x, scale + h, zero_point) - of(x, scale - h, zero_point)) / (2.0 * h);
        let to_zero = (of(x, scale, zero_point + h) - of(x, scale, zero_point - h)) / (2.0 * h);
        assert!((f64::from(found.x[0]) - to_x).abs() < 1e-4, "x {x}: {} for {to_x}", found.x[0]);
        assert!((found.scale - to_scale).abs() < 1e-4, "scale at {x}: {} for {to_scale}", found.scale);
        assert!((found.zero_point - to_zero).abs() < 1e-4, "zero point at {x}: {} for {to_zero}", found.zero_point);
    }
}

/// The rule of learned clipping (Nrusimha et al. 2024): what is clipped passes its gradient to the end it is clipped
/// to; inside, with r = (u − round u) / n, −r·g goes to c₊ and r·g to c₋.
#[test]
fn gradients_of_the_ends_of_a_range() {
    let ends = Ends { low: -0.75, high: 1.5 };
    let (scale, zero_point) = ends.affine(0, 15);
    assert_eq!((scale, zero_point), (0.15, 5.0));
    let quant = FakeQuant::new(0, 15);
    let of = |x: f32| {
        let g = quant.backward(&[x], &[1.0], scale as f32, zero_point as f32);
        (g.x[0], ends.gradients(0, 15, g.scale, g.zero_point))
    };
    let near = |(a, b): (f64, f64), (c, d): (f64, f64)| (a - c).abs() < 1e-5 && (b - d).abs() < 1e-5;
    let (to_x, to_ends) = of(2.0);
    assert!(to_x == 0.0 && near(to_ends, (0.0, 1.0)), "{to_ends:?}");
    let (to_x, to_ends) = of(-1.0);
    assert!(to_x == 0.0 && near(to_ends, (1.0, 0.0)), "{to_ends:?}");
    for x in [-0.6f32, 0.05, 0.72, 1.33] {
        let (to_x, to_ends) = of(x);
        let u = f64::from(x) / scale;
        let r = (u - u.round_ties_even()) / 15.0;
        assert!(to_x == 1.0 && near(to_ends, (r, -r)), "{x}: {to_ends:?} for {r}");
    }
}

#[test]
fn a_clamp_before_the_quantization_stops_gradients() {
    let quant = FakeQuant { bounds: (0.0, 6.0), ..FakeQuant::new(0, 15) };
    let x = [-0.01, 0.0, 0.3, 5.9, 6.5];
    assert_eq!(quant.forward(&x, 0.4, 0.0), [0.0, 0.0, 0.4, 6.0, 6.0]);
    assert_eq!(quant.backward(&x, &[1.0; 5], 0.4, 0.0).x, [0.0, 0.0, 1.0, 1.0, 0.0]);
}

#[test]
fn dropped_elements_stay_in_float() {
    let drop = Drop { seed: 7, share: u32::MAX / 4 };
    let quant = FakeQuant { drop: Some(drop), ..FakeQuant::new(-8, 7) };
    let x = numbers(20_000, 3);
    let y = quant.forward(&x, 0.3, 0.0);
    let left = x.iter().zip(&y).filter(|(x, y)| x == y).count() as f64 / x.len() as f64;
    assert!((left - 0.25).abs() < 0.01, "{left}");
    // Gradients pass through what is left, and nothing of them reaches the scale.
    let whole = FakeQuant::new(-8, 7);
    let g = vec![1.0; x.len()];
    let (found, all) = (quant.backward(&x, &g, 0.3, 0.0), whole.backward(&x, &g, 0.3, 0.0));
    assert!(found.x.iter().all(|&g| g == 1.0));
    let expected: f64 =
        x.iter().zip(&y).filter(|(x, y)| x != y).map(|(x, _)| f64::from((x / 0.3).round_ties_even() - x / 0.3)).sum();
    assert!((found.scale - expected).abs() < 1e-2 && (all.scale - expected).abs() > 1.0);
}

#[test]
fn forward_is_the_simulated_quantization() {
    let quant = FakeQuant::new(0, 255);
    let (scale, zero_point) = (0.031_25f32, 100.0f32);
    let x: Vec<f32> = (-500..500).map(|i| i as f32 * 0.015_625).collect();
    for (x, y) in x.iter().zip(quant.forward(&x, scale, zero_point)) {
        let q = ((x / scale).round_ties_even() + zero_point).clamp(0.0, 255.0);
        assert_eq!(y, (q - zero_point) * scale, "{x}");
    }
}
