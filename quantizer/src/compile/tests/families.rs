//! Each family of operators against its definition.

use equant_runtime::op::OpKind;
use equant_runtime::plan::DType;

use super::{Net, check};
use crate::graph::{Attr, DataType};

fn ints(values: &[i64]) -> Attr {
    Attr::Ints(values.to_vec())
}

/// One step where rounding may differ, and nothing more.
const STEP: f64 = 1.001;
/// A 16-bit output: half a step, and the rounding of the bias to the accumulator's step.
fn wide(accumulator_steps: f64) -> f64 {
    0.51 + accumulator_steps
}

#[test]
fn convolutions_of_all_geometries() {
    // group, outputs, kernel, strides, dilations, pads
    let cases = [
        (1, 5, [3, 3], [1, 1], [1, 1], [1, 1, 1, 1]),
        (1, 3, [2, 3], [2, 1], [1, 2], [0, 2, 1, 1]),
        (2, 6, [3, 1], [1, 2], [2, 1], [2, 0, 1, 0]),
        (6, 6, [3, 3], [2, 2], [1, 1], [1, 0, 0, 1]),
        (6, 12, [3, 3], [1, 1], [1, 1], [1, 1, 1, 1]),
        (1, 8, [1, 1], [1, 1], [1, 1], [0, 0, 0, 0]),
    ];
    for (seed, (group, outputs, kernel, strides, dilations, pads)) in cases.into_iter().enumerate() {
        let (group, outputs): (usize, usize) = (group, outputs);
        let mut net = Net::new(seed as u64);
        let x = net.input("x", &[1, 6, 9, 7]);
        let w = net.weights(&[outputs, 6 / group, kernel[0], kernel[1]], 0);
        let bias = net.random_floats(&[outputs], -1.0, 1.0);
        let attrs = [
            ("group", Attr::Int(group as i64)),
            ("strides", ints(&strides)),
            ("dilations", ints(&dilations)),
            ("pads", ints(&pads)),
        ];
        let y = net.node("Conv", &[&x, &w, &bias], &attrs);
        let y = net.q(&y, 0.031, 17, DataType::I8);
        net.output(&y);
        let compiled = check(&mut net, STEP);
        let kind = if group == 6 { OpKind::DepthwiseConv2d } else { OpKind::Conv2d };
        assert_eq!(compiled.operators, [kind]);
    }
}

#[test]
fn transposed_convolutions_of_all_geometries() {
    // group, outputs of a group, kernel, strides, dilations, pads, output padding
    let cases = [
        (1, 5, [2, 2], [2, 2], [1, 1], [0, 0, 0, 0], [0, 0]),
        (1, 3, [3, 3], [2, 2], [1, 1], [1, 1, 1, 1], [1, 1]),
        (1, 3, [4, 3], [2, 3], [1, 2], [1, 0, 1, 2], [0, 2]),
        (1, 4, [3, 2], [1, 1], [2, 1], [3, 0, 1, 1], [0, 0]),
        (2, 3, [3, 4], [3, 1], [2, 3], [1, 0, 2, 0], [0, 1]),
        (6, 1, [4, 4], [2, 2], [1, 1], [1, 1, 1, 1], [0, 0]),
        (1, 2, [1, 1], [3, 2], [1, 1], [0, 0, 0, 0], [2, 1]),
    ];
    for (seed, (group, outputs, kernel, strides, dilations, pads, more)) in cases.into_iter().enumerate() {
        let (group, outputs): (usize, usize) = (group, outputs);
        let mut net = Net::new(seed as u64);
        let x = net.input("x", &[1, 6, 5, 4]);
        // With an output to a group, one scale for each input is one for each output.
        let w = net.weights(&[6, outputs, kernel[0], kernel[1]], usize::from(group != 6));
        let bias = net.random_floats(&[outputs * group], -1.0, 1.0);
        let attrs = [
            ("group", Attr::Int(group as i64)),
            ("strides", ints(&strides)),
            ("dilations", ints(&dilations)),
            ("pads", ints(&pads)),
            ("output_padding", ints(&more)),
        ];
        let y = net.node("ConvTranspose", &[&x, &w, &bias], &attrs);
        let y = if seed % 2 == 0 { y } else { net.node("Relu", &[&y], &[]) };
        let y = net.q(&y, 0.031, -60, DataType::I8);
        net.output(&y);
        let compiled = check(&mut net, STEP);
        assert_eq!(compiled.operators, [OpKind::ConvTranspose2d]);
        assert_eq!(compiled.map.operators[0].macs as usize, 20 * 6 * outputs * kernel[0] * kernel[1]);
    }
}

#[test]
fn a_transposed_convolution_with_a_float_output_and_padding_by_shape() {
    for (name, value) in [("output_shape", ints(&[10, 9])), ("auto_pad", Attr::String("SAME_UPPER".into()))] {
        let mut net = Net::new(12);
        let x = net.input("x", &[1, 3, 5, 4]);
        let w = net.weights(&[3, 4, 3, 3], 1);
        let y = net.node("ConvTranspose", &[&x, &w], &[("strides", ints(&[2, 2])), (name, value)]);
        net.output(&y);
        check(&mut net, wide(0.3));
    }
}

#[test]
fn a_clamp_becomes_part_of_the_convolution() {
    for clip in [false, true] {
        let mut net = Net::new(3);
        let x = net.input("x", &[1, 3, 6, 6]);
        let w = net.weights(&[4, 3, 3, 3], 0);
        let mut y = net.node("Conv", &[&x, &w], &[]);
        if clip {
            let (low, high) = (net.floats(&[], &[-0.7]), net.floats(&[], &[1.9]));
            y = net.node("Clip", &[&y, &low, &high], &[]);
        } else {
            y = net.node("Relu", &[&y], &[]);
        }
        let y = net.q(&y, 0.02, 100, DataType::U8);
        net.output(&y);
        let compiled = check(&mut net, STEP);
        assert_eq!(compiled.map.operators.len(), 1);
    }
}

#[test]
fn a_float_output_keeps_sixteen_bits() {
    let mut net = Net::new(4);
    let x = net.input("x", &[1, 20]);
    let w = net.weights(&[7, 20], 0);
    let bias = net.random_floats(&[7], -4.0, 4.0);
    let y = net.node("Gemm", &[&x, &w, &bias], &[("transB", Attr::Int(1))]);
    net.output(&y);
    // The accumulator's step is below 0.0231 · 0.009, that of the output at least 20 · 127 · 0.002 · 3 / 32767.
    check(&mut net, wide(0.3));
}

#[test]
fn products_with_constants_in_every_orientation() {
    let mut net = Net::new(5);
    let x = net.input("x", &[1, 5, 12]);
    let w = net.weights(&[12, 8], 1);
    let bias = net.random_floats(&[8], -1.0, 1.0);
    let y = net.node("MatMul", &[&x, &w], &[]);
    let y = net.node("Add", &[&bias, &y], &[]);
    let y = net.q(&y, 0.04, 3, DataType::I8);
    // The constant on the left: [4, 5] times [1, 5, 8].
    let left = net.weights(&[4, 5], 0);
    let z = net.node("MatMul", &[&left, &y], &[]);
    let z = net.q(&z, 0.05, -3, DataType::I8);
    net.output(&y);
    net.output(&z);
    let compiled = check(&mut net, 2.0);
    assert_eq!(compiled.operators, [OpKind::FullyConnected, OpKind::Transpose]);

    let mut net = Net::new(6);
    let x = net.input("x", &[1, 12]);
    let w = net.weights(&[12, 8], 1);
    let bias = net.random_floats(&[1, 8], -1.0, 1.0);
    let attrs = [("alpha", Attr::Float(0.5)), ("beta", Attr::Float(2.0))];
    let y = net.node("Gemm", &[&x, &w, &bias], &attrs);
    let y = net.q(&y, 0.04, 3, DataType::I8);
    net.output(&y);
    check(&mut net, STEP);
}

#[test]
fn weights_of_other_types() {
    let mut net = Net::new(7);
    let x = net.input("x", &[1, 6]);
    let unsigned: Vec<i32> = (0..24).map(|i| i * 10 + 5).collect();
    let nibbles: Vec<i32> = (0..24).map(|i| i % 16 - 8).collect();
    let small: Vec<i32> = (0..24).map(|i| (i * 5) % 16).collect();
    let cases = [(DataType::U8, unsigned, 128), (DataType::I4, nibbles, 0), (DataType::U4, small, 7)];
    for (dtype, ints, zero) in cases {
        let w = net.weights_of(dtype, &[4, 6], &ints, 0, zero);
        let y = net.node("Gemm", &[&x, &w], &[("transB", Attr::Int(1))]);
        let scale = if dtype == DataType::U8 { 0.05 } else { 0.004 };
        let y = net.q(&y, scale, 120, DataType::U8);
        net.output(&y);
    }
    check(&mut net, STEP);
}

#[test]
fn products_left_in_float() {
    // 16-bit activations and float weights, both, and one of them.
    for (float_x, float_w) in [(true, true), (true, false), (false, true)] {
        let mut net = Net::new(8);
        let mut x = net.input("x", &[1, 24]);
        if float_x {
            let y = net.random_floats(&[1, 24], -1.0, 1.0);
            x = net.node("Mul", &[&x, &y], &[]);
        }
        let w = if float_w { net.random_floats(&[5, 24], -0.5, 0.5) } else { net.weights(&[5, 24], 0) };
        let bias = net.random_floats(&[5], -1.0, 1.0);
        let y = net.node("Gemm", &[&x, &w, &bias], &[("transB", Attr::Int(1))]);
        net.output(&y);
        // Each of the terms is rounded to 16 bits of its own bound.
        check(&mut net, 6.0);
    }
}

#[test]
fn sums_and_products_of_two() {
    for (seed, op) in ["Add", "Sub", "Mul"].into_iter().enumerate() {
        let mut net = Net::new(9 + seed as u64);
        let a = net.input("a", &[1, 4, 5, 3]);
        let b = net.float_input("b", &[1, 4, 5, 3]);
        let b = net.q(&b, 0.017, -20, DataType::I8);
        let channels = net.float_input("channels", &[1, 4, 1, 1]);
        let channels = net.q(&channels, 0.019, 9, DataType::I8);
        let y = net.node(op, &[&a, &b], &[]);
        let y = net.q(&y, 0.05, 11, DataType::I8);
        let z = net.node(op, &[&y, &channels], &[]);
        let z = net.node("Relu", &[&z], &[]);
        let z = net.q(&z, 0.03, 0, DataType::U8);
        net.output(&y);
        net.output(&z);
        // Two roundings, and a factor of up to 3.2 · 0.05 / 0.03 from the first to the second.
        check(&mut net, if op == "Mul" { 7.0 } else { 3.0 });
    }
}

#[test]
fn two_operands_broadcast_along_any_axes() {
    let shapes: [[&[usize]; 2]; 6] = [
        [&[1, 3, 4, 5], &[1, 3, 4, 5]],
        [&[1, 3, 4, 5], &[1, 1, 4, 5]],
        [&[1, 3, 4, 5], &[3, 1, 1]],
        [&[1, 3, 4, 1], &[1, 1, 1, 5]],
        [&[1, 5], &[1, 4, 5]],
        [&[1, 1, 3, 1, 2], &[1, 4, 1, 3, 1]],
    ];
    for (seed, [a_shape, b_shape]) in shapes.into_iter().enumerate() {
        for op in ["Add", "Sub", "Mul", "Min", "Max", "Div"] {
            let mut net = Net::new(100 + seed as u64);
            // The runtime's inputs have at most four axes.
            let input = |net: &mut Net, name: &str, shape: &[usize]| {
                let elements: usize = shape.iter().product();
                let x = net.input(name, &[1, elements]);
                let target: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
                let target = net.ints(&target);
                net.node("Reshape", &[&x, &target], &[])
            };
            let (a, b) = (input(&mut net, "a", a_shape), input(&mut net, "b", b_shape));
            // No divisor near zero, where a step is more than anything.
            let b = match op {
                "Div" => {
                    let four = net.floats(&[], &[4.0]);
                    let far = net.node("Add", &[&b, &four], &[]);
                    net.q(&far, 0.03, 0, DataType::U8)
                }
                _ => b,
            };
            let y = net.node(op, &[&a, &b], &[]);
            let scale = if op == "Mul" { 0.07 } else { 0.05 };
            let y = net.q(&y, scale, 128, DataType::U8);
            net.output(&y);
            check(&mut net, STEP);
        }
    }
}

#[test]
fn extremes_and_sums_over_any_axes() {
    for (seed, axes) in [&[1][..], &[2, 3], &[1, 3], &[-1], &[1, 2, 3]].into_iter().enumerate() {
        for keep in [0, 1] {
            let mut net = Net::new(200 + seed as u64);
            // Of different size everywhere, so that extremes differ.
            let x = net.input("x", &[1, 5, 6, 3]);
            let sizes = net.random_floats(&[5, 6, 3], 0.05, 0.9);
            let x = net.node("Mul", &[&x, &sizes], &[]);
            let x = net.q(&x, 0.0231, 131, DataType::U8);
            let list = net.ints(axes);
            for op in ["ReduceMax", "ReduceMin", "ReduceSum"] {
                let y = net.node(op, &[&x, &list], &[("keepdims", Attr::Int(keep))]);
                let scale = if op == "ReduceSum" { 0.3 } else { 0.0231 };
                let y = net.q(&y, scale, 131, DataType::U8);
                net.output(&y);
            }
            let compiled = if axes.len() == 3 { net.compile().unwrap() } else { check(&mut net, 1.0 + STEP) };
            assert!(compiled.operators.contains(&OpKind::MaxPool2d));
        }
    }
}

#[test]
fn memory_is_permuted_over_more_than_four_axes() {
    let mut net = Net::new(300);
    let x = net.input("x", &[1, 8, 4, 6]);
    let y = net.node("DepthToSpace", &[&x], &[("blocksize", Attr::Int(2))]);
    let target = net.ints(&[1, 2, 2, 2, 2, 12]);
    let y = net.node("Reshape", &[&y, &target], &[]);
    let y = net.node("Transpose", &[&y], &[("perm", ints(&[0, 4, 2, 5, 1, 3]))]);
    net.output(&y);
    let compiled = check(&mut net, 1e-3);
    assert_eq!(compiled.operators, [OpKind::Transpose]);
}

#[test]
fn sums_and_products_with_constants() {
    for (seed, op) in ["Add", "Sub", "Mul", "Div"].into_iter().enumerate() {
        for shape in [vec![1, 4, 1, 1], vec![4, 1, 1], vec![1, 4, 5, 3], vec![3]] {
            let mut net = Net::new(20 + seed as u64);
            let x = net.input("x", &[1, 4, 5, 3]);
            let constant = net.random_floats(&shape, 0.5, 2.0);
            let y = net.node(op, &[&x, &constant], &[]);
            let y = net.q(&y, 0.04, 2, DataType::I8);
            net.output(&y);
            if matches!(op, "Add" | "Mul" | "Sub") {
                let z = net.node(op, &[&constant, &x], &[]);
                net.output(&z);
            }
            check(&mut net, STEP);
        }
    }
}

#[test]
fn a_residual_in_float_keeps_sixteen_bits() {
    let mut net = Net::new(30);
    let x = net.input("x", &[1, 8, 5, 5]);
    let w = net.weights(&[8, 8, 3, 3], 0);
    let y = net.node("Conv", &[&x, &w], &[("pads", ints(&[1, 1, 1, 1]))]);
    let y = net.node("Add", &[&y, &x], &[]);
    let y = net.node("Relu", &[&y], &[]);
    net.output(&y);
    let compiled = check(&mut net, 2.0);
    assert_eq!(compiled.map.operators.len(), 2);
}

#[test]
fn functions_of_one_value_are_exact() {
    for op in ["Sigmoid", "Tanh", "HardSwish", "Elu", "Erf", "Abs", "Neg", "Softplus", "Gelu"] {
        let mut net = Net::new(31);
        let x = net.input("x", &[1, 300]);
        let y = net.node(op, &[&x], &[]);
        let y = net.q(&y, 0.0123, 40, DataType::U8);
        net.output(&y);
        let compiled = check(&mut net, 1e-3);
        assert_eq!(compiled.operators, [OpKind::Lut], "{op}");
    }
}

#[test]
fn a_gelu_in_five_nodes_is_one_table() {
    let mut net = Net::new(32);
    let x = net.input("x", &[1, 7, 40]);
    let (root, one, half) =
        (net.floats(&[], &[std::f32::consts::SQRT_2]), net.floats(&[], &[1.0]), net.floats(&[], &[0.5]));
    let d = net.node("Div", &[&x, &root], &[]);
    let e = net.node("Erf", &[&d], &[]);
    let a = net.node("Add", &[&e, &one], &[]);
    let m = net.node("Mul", &[&x, &a], &[]);
    let y = net.node("Mul", &[&m, &half], &[]);
    let y = net.q(&y, 0.0131, 14, DataType::U8);
    net.output(&y);
    let compiled = check(&mut net, 1e-3);
    assert_eq!((compiled.operators, compiled.map.operators.len()), (vec![OpKind::Lut], 1));
}

#[test]
fn a_clamp_that_quantization_already_does_costs_nothing() {
    let mut net = Net::new(33);
    let x = net.float_input("x", &[1, 30]);
    let x = net.q(&x, 0.01, 0, DataType::U8);
    let y = net.node("Relu", &[&x], &[]);
    let y = net.q(&y, 0.01, 0, DataType::U8);
    let w = net.weights(&[4, 30], 0);
    let y = net.node("Gemm", &[&y, &w], &[("transB", Attr::Int(1))]);
    let y = net.q(&y, 0.05, 128, DataType::U8);
    net.output(&y);
    assert_eq!(check(&mut net, STEP).operators, [OpKind::FullyConnected]);
}

#[test]
fn softmax_and_normalization() {
    let mut net = Net::new(34);
    let x = net.input("x", &[1, 5, 16]);
    let s = net.node("Softmax", &[&x], &[("axis", Attr::Int(-1))]);
    let s = net.q(&s, 1.0 / 256.0, 0, DataType::U8);
    let (gamma, beta) = (net.random_floats(&[16], 0.3, 2.0), net.random_floats(&[16], -1.0, 1.0));
    let n = net.node("LayerNormalization", &[&x, &gamma, &beta], &[("axis", Attr::Int(-1))]);
    let q = net.q(&n, 0.04, 5, DataType::I8);
    net.output(&s);
    net.output(&q);
    let float = net.node("LayerNormalization", &[&x, &gamma, &beta], &[]);
    net.output(&float);
    check(&mut net, STEP);
}

#[test]
fn lone_batch_normalization() {
    let mut net = Net::new(35);
    let x = net.input("x", &[1, 6, 4, 4]);
    let gamma = net.random_floats(&[6], -2.0, 2.0);
    let (beta, mean, variance) =
        (net.random_floats(&[6], -1.0, 1.0), net.random_floats(&[6], -1.0, 1.0), net.random_floats(&[6], 0.4, 2.0));
    let y = net.node("BatchNormalization", &[&x, &gamma, &beta, &mean, &variance], &[]);
    let y = net.q(&y, 0.05, 0, DataType::I8);
    net.output(&y);
    check(&mut net, STEP);
}

#[test]
fn averages_and_maxima() {
    let mut net = Net::new(36);
    let x = net.input("x", &[1, 5, 7, 6]);
    let g = net.node("GlobalAveragePool", &[&x], &[]);
    let g = net.q(&g, 0.002, 0, DataType::I8);
    net.output(&g);
    let axes = net.ints(&[2, 3]);
    let r = net.node("ReduceMean", &[&x, &axes], &[("keepdims", Attr::Int(0))]);
    net.output(&r);
    let rows = net.ints(&[2]);
    let r = net.node("ReduceMean", &[&x, &rows], &[]);
    net.output(&r);
    let channels = net.ints(&[1]);
    let r = net.node("ReduceMean", &[&x, &channels], &[]);
    net.output(&r);
    for (include, pads) in [(0, [1, 0, 1, 1]), (1, [1, 1, 1, 1])] {
        let attrs = [
            ("kernel_shape", ints(&[3, 2])),
            ("strides", ints(&[2, 1])),
            ("pads", ints(&pads)),
            ("count_include_pad", Attr::Int(include)),
        ];
        let a = net.node("AveragePool", &[&x], &attrs);
        let a = net.q(&a, 0.02, -3, DataType::I8);
        net.output(&a);
    }
    let attrs = [("kernel_shape", ints(&[3, 3])), ("strides", ints(&[2, 2])), ("pads", ints(&[1, 1, 1, 1]))];
    let m = net.node("MaxPool", &[&x], &attrs);
    net.output(&m);
    check(&mut net, STEP);
}

#[test]
fn tokens_are_averaged() {
    let mut net = Net::new(37);
    let x = net.input("x", &[1, 9, 14]);
    let axes = net.ints(&[1]);
    let y = net.node("ReduceMean", &[&x, &axes], &[("keepdims", Attr::Int(0))]);
    let y = net.q(&y, 0.004, 1, DataType::I8);
    net.output(&y);
    check(&mut net, STEP);
}

#[test]
fn joins_and_pads() {
    let mut net = Net::new(38);
    let a = net.input("a", &[1, 3, 4, 5]);
    let b = net.float_input("b", &[1, 2, 4, 5]);
    let b = net.q(&b, 0.02, 7, DataType::I8);
    let constant = net.random_floats(&[1, 1, 4, 5], -1.0, 1.0);
    let y = net.node("Concat", &[&a, &b, &constant], &[("axis", Attr::Int(1))]);
    let y = net.q(&y, 0.025, 0, DataType::I8);
    net.output(&y);
    let pads = net.ints(&[0, 0, 1, 2, 0, 1, 0, 1]);
    let value = net.floats(&[], &[0.5]);
    let p = net.node("Pad", &[&y, &pads, &value], &[]);
    net.output(&p);
    let h = net.node("Concat", &[&a, &a], &[("axis", Attr::Int(2))]);
    net.output(&h);
    let f = net.node("Concat", &[&a, &b], &[("axis", Attr::Int(-3))]);
    net.output(&f);
    check(&mut net, STEP);
}

#[test]
fn flattening_an_image_permutes_the_weights() {
    let mut net = Net::new(39);
    let x = net.input("x", &[1, 3, 4, 5]);
    let x = net.node("Flatten", &[&x], &[]);
    let w = net.weights(&[6, 60], 0);
    let y = net.node("Gemm", &[&x, &w], &[("transB", Attr::Int(1))]);
    let y = net.q(&y, 0.08, 0, DataType::I8);
    net.output(&y);
    assert_eq!(check(&mut net, STEP).operators, [OpKind::FullyConnected]);
}

#[test]
fn memory_moves_only_where_it_must() {
    let mut net = Net::new(40);
    let x = net.input("x", &[1, 3, 4, 5]);
    let t = net.node("Transpose", &[&x], &[("perm", ints(&[0, 3, 1, 2]))]);
    net.output(&t);
    let shape = net.ints(&[1, 6, -1]);
    let r = net.node("Reshape", &[&x, &shape], &[]);
    net.output(&r);
    let axes = net.ints(&[0]);
    let s = net.node("Squeeze", &[&r, &axes], &[]);
    let axes = net.ints(&[1]);
    let u = net.node("Unsqueeze", &[&s, &axes], &[]);
    net.output(&u);
    check(&mut net, STEP);

    let mut net = Net::new(41);
    let x = net.input("x", &[1, 3, 4, 5]);
    let shape = net.ints(&[1, 3, 20]);
    let r = net.node("Reshape", &[&x, &shape], &[]);
    let t = net.node("Transpose", &[&r], &[("perm", ints(&[0, 2, 1]))]);
    let w = net.weights(&[3, 4], 1);
    let y = net.node("MatMul", &[&t, &w], &[]);
    let y = net.q(&y, 0.02, 0, DataType::I8);
    net.output(&y);
    assert_eq!(check(&mut net, STEP).operators, [OpKind::FullyConnected]);
}

#[test]
fn sixteen_bit_quantization_and_integer_inputs() {
    let mut net = Net::new(43);
    let x = net.input("x", &[1, 50]);
    let y = net.random_floats(&[50], -1.0, 1.0);
    let y = net.node("Mul", &[&x, &y], &[]);
    let y = net.q(&y, 0.0002, 32768, DataType::U16);
    net.output(&y);
    let z = net.q(&y, 0.02, 3, DataType::I8);
    net.output(&z);
    check(&mut net, STEP);
}

#[test]
fn a_quantized_sum_spends_sixteen_bits_where_they_count() {
    // Weights whose proved bound is some thirty times what the sum's quantization can tell apart.
    let mut net = Net::new(44);
    let x = net.input("x", &[1, 600]);
    let w = net.weights(&[40, 600], 0);
    let y = net.node("Gemm", &[&x, &w], &[("transB", Attr::Int(1))]);
    let b = net.float_input("b", &[1, 40]);
    let b = net.q(&b, 0.02, 0, DataType::I8);
    let s = net.node("Add", &[&y, &b], &[]);
    let r = net.node("Relu", &[&s], &[]);
    let q = net.q(&r, 0.05, 0, DataType::U8);
    net.output(&q);
    let compiled = check(&mut net, STEP);
    let sum = compiled.values.iter().find(|value| value.name == y).unwrap();
    // 0..=255 steps of 0.05, and ±128 of 0.02.
    assert!(sum.scale * 32767.0 < 15.5, "{}", sum.scale);
}

#[test]
fn a_float_stream_is_as_fine_as_what_reads_it() {
    let mut net = Net::new(45);
    let x = net.input("x", &[1, 9, 32]);
    let table = net.random_floats(&[9, 32], -1.0, 1.0);
    let table = net.q(&table, 0.01, 0, DataType::I8);
    let mut stream = net.node("Add", &[&x, &table], &[]);
    for _ in 0..2 {
        let gamma = net.random_floats(&[32], 0.5, 1.5);
        let beta = net.random_floats(&[32], -0.5, 0.5);
        let n = net.node("LayerNormalization", &[&stream, &gamma, &beta], &[]);
        let n = net.q(&n, 0.04, 4, DataType::I8);
        let w = net.weights(&[32, 32], 1);
        let y = net.node("MatMul", &[&n, &w], &[]);
        stream = net.node("Add", &[&stream, &y], &[]);
    }
    let n = net.node("LayerNormalization", &[&stream], &[]);
    // 16 bits: what the stream loses would show as steps of this output.
    let n = net.q(&n, 0.0002, 32768, DataType::U16);
    net.output(&n);
    let compiled = check(&mut net, STEP);
    let stream = compiled.values.iter().find(|value| value.name == stream).unwrap();
    assert_eq!(stream.dtype, DType::I32);
    // A graph output has 16 bits, whatever reads it besides.
    net.output(&stream.name);
    let compiled = net.compile().unwrap();
    assert_eq!(compiled.values.iter().find(|value| value.name == stream.name).unwrap().dtype, DType::I16);
}

#[test]
fn a_root_mean_square_is_a_normalization_about_zero() {
    let mut net = Net::new(56);
    let x = net.input("x", &[1, 5, 16]);
    let gamma = net.random_floats(&[16], 0.3, 2.0);
    let n = net.node("RMSNormalization", &[&x, &gamma], &[("epsilon", Attr::Float(1e-3))]);
    let q = net.q(&n, 0.04, 5, DataType::I8);
    net.output(&q);
    let float = net.node("RMSNormalization", &[&x, &gamma], &[]);
    net.output(&float);
    assert_eq!(check(&mut net, STEP).operators, [OpKind::RmsNorm]);
}

#[test]
fn logarithms_of_a_softmax() {
    let mut net = Net::new(58);
    let x = net.input("x", &[1, 5, 16]);
    let y = net.node("LogSoftmax", &[&x], &[]);
    net.output(&y);
    let w = net.weights(&[16, 12], 1);
    let z = net.node("MatMul", &[&x, &w], &[]);
    let z = net.node("LogSoftmax", &[&z], &[("axis", Attr::Int(-1))]);
    let z = net.q(&z, 0.04, 255, DataType::U8);
    net.output(&z);
    let compiled = check(&mut net, STEP);
    assert_eq!(compiled.operators, [OpKind::FullyConnected, OpKind::LogSoftmax]);
}

#[test]
fn signals_need_no_moves() {
    let mut net = Net::new(57);
    let x = net.input("x", &[1, 3, 40]);
    let w = net.weights(&[6, 3, 5], 0);
    let y = net.node("Conv", &[&x, &w], &[("strides", ints(&[2])), ("pads", ints(&[2, 2]))]);
    let y = net.node("Relu", &[&y], &[]);
    let y = net.q(&y, 0.03, 0, DataType::U8);
    let v = net.weights(&[6, 2, 3], 0);
    let z = net.node("Conv", &[&y, &v], &[("group", Attr::Int(3)), ("dilations", ints(&[2]))]);
    let z = net.q(&z, 0.03, 100, DataType::U8);
    net.output(&z);
    let compiled = check(&mut net, 2.0);
    assert_eq!(compiled.operators, [OpKind::Conv2d]);
    assert_eq!(compiled.map.operators.len(), 2);
}
