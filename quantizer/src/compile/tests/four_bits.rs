//! Weights and activations of 4 bits.

use equant_runtime::op::OpKind;
use equant_runtime::operator::AllOperators;
use equant_runtime::plan::{AlignedBytes, Plan};

use super::super::{Compiled, Error, Reason};
use super::{Net, check};
use crate::graph::{Attr, DataType, Tensor};

const STEP: f64 = 1.001;

fn ints(values: &[i64]) -> Attr {
    Attr::Ints(values.to_vec())
}

/// A convolution, a depthwise one and a product, their weights in a type with a zero point.
fn network(dtype: DataType, zero: i32, highest: i32) -> Net {
    let mut net = Net::new(1);
    let x = net.input("x", &[1, 3, 8, 8]);
    // The same draws whatever the type.
    let weights = |shape: &[usize], net: &mut Net| {
        let count: usize = shape.iter().product();
        let values: Vec<i32> =
            (0..count).map(|_| (net.random.unit() * f64::from(highest + 9)).floor() as i32 - 8 + zero).collect();
        net.weights_of(dtype, shape, &values, 0, zero)
    };
    let w = weights(&[10, 3, 3, 3], &mut net);
    let y = net.node("Conv", &[&x, &w], &[("pads", ints(&[1, 1, 0, 1]))]);
    let y = net.node("Relu", &[&y], &[]);
    let y = net.q(&y, 0.0041, 0, DataType::U8);
    let w = weights(&[10, 1, 3, 3], &mut net);
    let z = net.node("Conv", &[&y, &w], &[("group", Attr::Int(10)), ("pads", ints(&[1; 4]))]);
    let z = net.q(&z, 0.0007, 120, DataType::U8);
    let z = net.node("Flatten", &[&z], &[]);
    let w = weights(&[7, 560], &mut net);
    let z = net.node("Gemm", &[&z, &w], &[("transB", Attr::Int(1))]);
    let z = net.q(&z, 0.001, 3, DataType::I8);
    net.output(&y);
    net.output(&z);
    net
}

const PACKED: [OpKind; 3] = [OpKind::Conv2dI4, OpKind::DepthwiseConv2dI4, OpKind::FullyConnectedI4];

#[test]
fn the_plan_does_not_depend_on_the_container() {
    // Three layers behind each other carry a step of one on.
    let packed = check(&mut network(DataType::I4, 0, 7), 40.0);
    assert_eq!(packed.operators, PACKED);
    // Filters of three rows of 9 weights, each filled up to 12, and of 560; taps of 10 channels; all in words of eight.
    assert_eq!(packed.map.flash.weights, 10 * 20 + 9 * 8 + 7 * 280);
    assert_eq!(packed.notes, [""; 0]);
    for (dtype, zero) in [(DataType::I8, 0), (DataType::U4, 8), (DataType::U8, 128), (DataType::I8, 5)] {
        let other = network(dtype, zero, 7).compile().unwrap();
        assert_eq!(other.image, packed.image, "{dtype:?}, zero point {zero}");
    }
}

#[test]
fn transposed_convolutions_are_packed() {
    let plans = [(DataType::I4, 0), (DataType::I8, 0), (DataType::U4, 8)].map(|(dtype, zero)| {
        let mut net = Net::new(9);
        let x = net.input("x", &[1, 6, 4, 5]);
        let count = 6 * 5 * 3 * 3;
        let values: Vec<i32> = (0..count).map(|_| (net.random.unit() * 16.0).floor() as i32 - 8 + zero).collect();
        let w = net.weights_of(dtype, &[6, 5, 3, 3], &values, 1, zero);
        let attrs = [("strides", ints(&[2, 2])), ("pads", ints(&[1; 4])), ("output_padding", ints(&[1, 1]))];
        let y = net.node("ConvTranspose", &[&x, &w], &attrs);
        let y = net.q(&y, 0.004, 90, DataType::U8);
        net.output(&y);
        check(&mut net, STEP)
    });
    assert_eq!(plans[0].operators, [OpKind::ConvTranspose2dI4]);
    // Five rows of 54 weights, each filled up to words of eight.
    assert_eq!(plans[0].map.flash.weights, 5 * 28);
    assert!(plans.iter().all(|plan| plan.image == plans[0].image));
}

#[test]
fn weights_beyond_four_bits_from_the_zero_point_are_widened() {
    // 0..=15 with zero point 7 is -7..=8.
    let mut net = Net::new(2);
    let x = net.input("x", &[1, 32]);
    let values: Vec<i32> = (0..4 * 32).map(|i| i % 16).collect();
    let w = net.weights_of(DataType::U4, &[4, 32], &values, 0, 7);
    let y = net.node("Gemm", &[&x, &w], &[("transB", Attr::Int(1))]);
    let y = net.q(&y, 0.004, 0, DataType::I8);
    net.output(&y);
    let compiled = check(&mut net, STEP);
    assert_eq!((compiled.operators, compiled.map.flash.weights), (vec![OpKind::FullyConnected], 4 * 32));
    assert!(compiled.notes.len() == 1 && compiled.notes[0].contains("_Gemm"), "{:?}", compiled.notes);
}

#[test]
fn short_rows_stay_bytes() {
    // Four channels of a tap would fill a word, as many bytes as they take now.
    let mut net = Net::new(3);
    let x = net.input("x", &[1, 4, 5, 5]);
    let values: Vec<i32> = (0..36).map(|i| i % 16 - 8).collect();
    let w = net.weights_of(DataType::I4, &[4, 1, 3, 3], &values, 0, 0);
    let y = net.node("Conv", &[&x, &w], &[("group", Attr::Int(4))]);
    let y = net.q(&y, 0.002, 0, DataType::I8);
    net.output(&y);
    let compiled = check(&mut net, STEP);
    assert_eq!((compiled.operators, compiled.map.flash.weights), (vec![OpKind::DepthwiseConv2d], 36));
}

/// A MatMul of weights `[32, 6]` with these scales, in blocks of eight along the depth if there are four for each output.
fn blocked(scales: &[f32], zero: i32) -> Net {
    let mut net = Net::new(4);
    let x = net.input("x", &[1, 5, 32]);
    let values: Vec<i32> = (0..32 * 6).map(|i| (i * 7) % 15 - 7 + zero).collect();
    let blocks = scales.len() / 6;
    let shape: &[usize] = if blocks > 1 { &[blocks, 6] } else { &[6] };
    let dtype = if zero == 0 { DataType::I4 } else { DataType::U4 };
    let w = net.initializer("w", Tensor::from_ints(dtype, &[32, 6], &values));
    let scale = net.floats(shape, scales);
    let zero = net.initializer("z", Tensor::from_ints(dtype, shape, &vec![zero; scales.len()]));
    let (axis, block) = if blocks > 1 { (0, 8) } else { (1, 0) };
    let attrs = [("axis", Attr::Int(axis)), ("block_size", Attr::Int(block))];
    let w = net.node("DequantizeLinear", &[&w, &scale, &zero], &attrs);
    let y = net.node("MatMul", &[&x, &w], &[]);
    let y = net.q(&y, 0.01, 0, DataType::I8);
    net.output(&y);
    net
}

#[test]
fn blocks_with_a_common_scale_need_none() {
    let channels: Vec<f32> = (0..6).map(|o| 0.01 + 0.001 * o as f32).collect();
    let per_channel = check(&mut blocked(&channels, 0), STEP);
    assert_eq!(per_channel.operators, [OpKind::FullyConnectedI4]);
    for zero in [0, 8] {
        let equal = blocked(&channels.repeat(4), zero).compile().unwrap();
        assert_eq!(equal.image, per_channel.image);
    }
    // Whole multiples of the least scale: the integers take them over.
    let doubled: Vec<f32> =
        channels.repeat(4).iter().enumerate().map(|(i, s)| if i < 6 { s * 4.0 } else { *s }).collect();
    let exact = blocked(&doubled, 0).compile().unwrap();
    assert_eq!(exact.operators, [OpKind::FullyConnected]);
    assert_eq!(exact.notes.len(), 1);
    let mut wide = Net::new(4);
    let x = wide.input("x", &[1, 5, 32]);
    let values: Vec<i32> = (0..32 * 6).map(|i| ((i * 7) % 15 - 7) * if i < 8 * 6 { 4 } else { 1 }).collect();
    let w = wide.initializer("w", Tensor::from_ints(DataType::I8, &[32, 6], &values));
    let scale = wide.floats(&[6], &channels);
    let zero = wide.initializer("z", Tensor::from_ints(DataType::I8, &[6], &[0; 6]));
    let w = wide.node("DequantizeLinear", &[&w, &scale, &zero], &[("axis", Attr::Int(1))]);
    let y = wide.node("MatMul", &[&x, &w], &[]);
    let y = wide.q(&y, 0.01, 0, DataType::I8);
    wide.output(&y);
    assert_eq!(check(&mut wide, STEP).image, exact.image);
}

#[test]
fn blocks_without_a_common_scale_are_refused() {
    let scales: Vec<f32> = (0..24).map(|i| 0.01 + 0.001 * i as f32).collect();
    match blocked(&scales, 0).compile() {
        Err(Error::Nodes(issues)) => {
            assert_eq!(issues.len(), 1);
            assert_eq!((issues[0].operator.as_str(), &issues[0].reason), ("MatMul", &Reason::Blocked { block: 8 }));
        }
        other => panic!("{other:?}"),
    }
    // Scales that do not fit the shape.
    let mut net = blocked(&scales, 0);
    let name = net.graph.nodes.iter().find(|node| node.int("block_size", 0) == 8).unwrap().inputs[1].clone();
    net.graph.initializers.insert(name, Tensor::from_f32(&[3, 8], &scales));
    match net.compile() {
        Err(Error::Nodes(issues)) => assert!(matches!(issues[0].reason, Reason::Quantization { .. })),
        other => panic!("{other:?}"),
    }
}

/// Quantization of an activation: scale and zero point are those of the middle of 4 bits, `low` steps up.
#[derive(Clone, Copy)]
struct Four(DataType);

impl Four {
    /// QuantizeLinear and DequantizeLinear, with `below` of the fifteen steps below zero.
    fn q(self, net: &mut Net, x: &str, scale: f32, below: i32) -> String {
        let low = self.0.quantized_range().unwrap().0;
        net.q(x, scale, low + below, self.0)
    }
}

/// Every integer that the plan's outputs hold lies within 4 bits, and their records say so.
fn outputs_are_four_bits(compiled: &Compiled, dtype: DataType) {
    let image = AlignedBytes::from(&compiled.image[..]);
    let plan = Plan::<AllOperators>::parse(&image).unwrap();
    for i in 0..plan.output_count() {
        assert_eq!(plan.model_output(i).unwrap().range(), dtype.quantized_range().unwrap());
    }
}

fn each_type(build: impl Fn(&mut Net, Four), steps: f64) {
    for dtype in [DataType::U4, DataType::I4] {
        let mut net = Net::new(5);
        build(&mut net, Four(dtype));
        outputs_are_four_bits(&check(&mut net, steps), dtype);
    }
}

#[test]
fn linear_operators_between_four_bits() {
    each_type(
        |net, four| {
            // The range of ±3.2 saturates on both sides.
            let x = net.float_input("x", &[1, 4, 6, 6]);
            let x = four.q(net, &x, 0.3, 6);
            let w = net.weights(&[6, 4, 3, 3], 0);
            let y = net.node("Conv", &[&x, &w], &[("pads", ints(&[1; 4]))]);
            let y = net.node("Relu", &[&y], &[]);
            let y = four.q(net, &y, 0.25, 0);
            net.output(&y);
            let w = net.weights(&[4, 1, 3, 3], 0);
            let d = net.node("Conv", &[&x, &w], &[("group", Attr::Int(4)), ("pads", ints(&[1; 4]))]);
            let d = four.q(net, &d, 0.2, 7);
            net.output(&d);
            let f = net.node("Flatten", &[&x], &[]);
            let w = net.weights(&[5, 144], 0);
            let f = net.node("Gemm", &[&f, &w], &[("transB", Attr::Int(1))]);
            let f = four.q(net, &f, 0.6, 9);
            net.output(&f);
        },
        STEP,
    );
}

#[test]
fn arithmetic_between_four_bits() {
    each_type(
        |net, four| {
            let a = net.float_input("a", &[1, 4, 5, 3]);
            let a = four.q(net, &a, 0.35, 8);
            let b = net.float_input("b", &[1, 4, 5, 3]);
            let b = four.q(net, &b, 0.2, 3);
            for op in ["Add", "Sub", "Mul"] {
                let y = net.node(op, &[&a, &b], &[]);
                let y = four.q(net, &y, 0.41, 7);
                net.output(&y);
            }
            // 8 bits to 4, and 4 bits to 8 and back: tables.
            let wide = net.input("wide", &[1, 4, 5, 3]);
            let y = net.node("Add", &[&a, &wide], &[]);
            let y = four.q(net, &y, 0.3, 5);
            net.output(&y);
            let y = four.q(net, &wide, 0.3, 5);
            net.output(&y);
            let y = net.q(&a, 0.029, 2, DataType::I8);
            let y = net.node("Tanh", &[&y], &[]);
            let y = four.q(net, &y, 0.13, 7);
            net.output(&y);
            // Constants, float and of 4 bits.
            let constant = net.random_floats(&[4, 1, 1], -2.0, 2.0);
            let y = net.node("Mul", &[&a, &constant], &[]);
            let y = four.q(net, &y, 0.3, 5);
            net.output(&y);
            let constant = net.initializer("k", Tensor::from_ints(four.0, &[4, 1, 1], &[1, 7, 3, 5]));
            let (scale, zero) = (net.floats(&[], &[0.3]), net.initializer("z", Tensor::from_ints(four.0, &[], &[2])));
            let constant = net.node("DequantizeLinear", &[&constant, &scale, &zero], &[]);
            let y = net.node("Add", &[&a, &constant], &[]);
            let y = four.q(net, &y, 0.3, 5);
            net.output(&y);
        },
        STEP,
    );
}

#[test]
fn windows_and_moves_of_four_bits() {
    each_type(
        |net, four| {
            let x = net.float_input("x", &[1, 5, 7, 6]);
            let x = four.q(net, &x, 0.3, 4);
            let attrs = [("kernel_shape", ints(&[3, 3])), ("strides", ints(&[2, 2])), ("pads", ints(&[1; 4]))];
            let y = net.node("MaxPool", &[&x], &attrs);
            net.output(&y);
            let y = net.node("AveragePool", &[&x], &attrs);
            let y = four.q(net, &y, 0.1, 5);
            net.output(&y);
            let axes = net.ints(&[2, 3]);
            let y = net.node("ReduceMean", &[&x, &axes], &[("keepdims", Attr::Int(0))]);
            let y = four.q(net, &y, 0.05, 4);
            net.output(&y);
            let other = net.float_input("other", &[1, 2, 7, 6]);
            let other = four.q(net, &other, 0.2, 7);
            let constant = net.random_floats(&[1, 1, 7, 6], -6.0, 6.0);
            let y = net.node("Concat", &[&x, &other, &constant], &[("axis", Attr::Int(1))]);
            let y = four.q(net, &y, 0.25, 5);
            net.output(&y);
            // Padding with what 4 bits hold, and with what only the quantization after it cuts off.
            for value in [0.6, 40.0] {
                let (pads, value) = (net.ints(&[0, 0, 1, 2, 0, 0, 0, 1]), net.floats(&[], &[value]));
                let y = net.node("Pad", &[&x, &pads, &value], &[]);
                let y = four.q(net, &y, 0.28, 4);
                net.output(&y);
            }
            let y = net.node("Transpose", &[&x], &[("perm", ints(&[0, 3, 1, 2]))]);
            net.output(&y);
        },
        STEP,
    );
}

#[test]
fn attention_in_four_bits() {
    each_type(
        |net, four| {
            let x = net.float_input("x", &[1, 2, 9, 8]);
            let x = four.q(net, &x, 0.4, 8);
            let y = net.float_input("y", &[1, 2, 8, 9]);
            let y = four.q(net, &y, 0.4, 7);
            let s = net.node("MatMul", &[&x, &y], &[]);
            let s = four.q(net, &s, 2.5, 8);
            net.output(&s);
            // Probability 1 is the sixteenth step, beyond the range.
            let p = net.node("Softmax", &[&s], &[]);
            let p = four.q(net, &p, 1.0 / 16.0, 0);
            net.output(&p);
            let c = net.node("MatMul", &[&p, &x], &[]);
            let c = four.q(net, &c, 0.3, 7);
            net.output(&c);
            let (gamma, beta) = (net.random_floats(&[8], 0.3, 2.0), net.random_floats(&[8], -1.0, 1.0));
            let n = net.node("LayerNormalization", &[&x, &gamma, &beta], &[]);
            let n = four.q(net, &n, 0.4, 6);
            net.output(&n);
        },
        // A step of the scores, and so of the probabilities, moves what is made of them.
        4.0,
    );
}

#[test]
fn a_value_of_eight_and_four_bits_has_two_tensors() {
    // The same scale and zero point, another range.
    let mut net = Net::new(6);
    let x = net.input("x", &[1, 60]);
    let y = net.node("Tanh", &[&x], &[]);
    let wide = net.q(&y, 0.07, 2, DataType::I8);
    let narrow = net.q(&y, 0.07, 2, DataType::I4);
    net.output(&wide);
    net.output(&narrow);
    let compiled = check(&mut net, 1e-3);
    assert_eq!(compiled.map.operators.len(), 2);
}
