//! Every way in which a graph is refused.

use super::super::{Error, Options, Reason};
use super::{Net, compile_prepared};
use crate::graph::{Attr, DataType, Tensor};

fn reasons(net: &Net) -> Vec<(String, Reason)> {
    match net.compile() {
        Err(Error::Nodes(issues)) => issues.into_iter().map(|issue| (issue.operator, issue.reason)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_nodes_are_named_at_once() {
    let mut net = Net::new(1);
    let x = net.input("x", &[1, 8]);
    let a = net.node("LSTM", &[&x], &[]);
    let b = net.node("Sin", &[&a], &[]);
    let c = net.node("Einsum", &[&x], &[]);
    net.output(&b);
    net.output(&c);
    let found = reasons(&net);
    let operators: Vec<&str> = found.iter().map(|(operator, _)| operator.as_str()).collect();
    // What depends on a refused node is not refused again.
    assert_eq!(operators, ["LSTM", "Einsum"]);
    assert!(matches!(found[0].1, Reason::Unsupported(_)));
    assert!(net.compile().unwrap_err().to_string().contains("n2_LSTM (LSTM)"));
}

#[test]
fn a_float_input_must_be_quantized() {
    let mut net = Net::new(2);
    let x = net.float_input("x", &[1, 8]);
    let w = net.weights(&[4, 8], 0);
    let y = net.node("Gemm", &[&x, &w], &[("transB", Attr::Int(1))]);
    net.output(&y);
    assert_eq!(reasons(&net), [("Gemm".into(), Reason::InputNotQuantized("x".into()))]);
}

#[test]
fn a_table_of_sixteen_bits_is_refused() {
    let mut net = Net::new(3);
    let x = net.input("x", &[1, 8]);
    let w = net.weights(&[4, 8], 0);
    let y = net.node("Gemm", &[&x, &w], &[("transB", Attr::Int(1))]);
    let z = net.node("Sigmoid", &[&y], &[]);
    net.output(&z);
    assert_eq!(reasons(&net), [("Sigmoid".into(), Reason::UnaryOn16Bit(y))]);
}

#[test]
fn transposed_weights_along_their_inputs_are_refused() {
    for (groups, axis, fits) in [(1, 1, true), (2, 1, true), (1, 0, false), (2, 0, false), (4, 0, true), (2, 2, false)]
    {
        let mut net = Net::new(3);
        let x = net.input("x", &[1, 4, 3, 3]);
        let w = net.weights(&[4, 5, 2, 2], axis);
        let attrs = [("group", Attr::Int(groups)), ("strides", Attr::Ints(vec![2, 2]))];
        let y = net.node("ConvTranspose", &[&x, &w], &attrs);
        let y = net.q(&y, 0.05, 0, DataType::I8);
        net.output(&y);
        match fits {
            true => drop(net.compile().unwrap()),
            false => assert!(matches!(&reasons(&net)[..], [(_, Reason::Unsupported(why))] if why.contains("inputs"))),
        }
    }
    // Three dimensions, a group that does not divide, padding that leaves nothing.
    let attrs = |name: &str, value: Attr| vec![(name.to_owned(), value)];
    for (shape, weights, attrs) in [
        (vec![1, 4, 3, 3, 3], vec![4, 5, 2, 2, 2], vec![]),
        (vec![1, 4, 3, 3], vec![4, 5, 2, 2], attrs("group", Attr::Int(3))),
        (vec![1, 4, 3, 3], vec![3, 5, 2, 2], vec![]),
        (vec![1, 4, 3, 3], vec![4, 5, 2, 2], attrs("pads", Attr::Ints(vec![2, 2, 2, 2]))),
    ] {
        let mut net = Net::new(3);
        let x = net.input("x", &shape);
        let w = net.weights(&weights, 1);
        let attrs: Vec<(&str, Attr)> = attrs.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let y = net.node("ConvTranspose", &[&x, &w], &attrs);
        let y = net.q(&y, 0.05, 0, DataType::I8);
        net.output(&y);
        assert!(matches!(&reasons(&net)[..], [(_, Reason::Unsupported(_) | Reason::Shape(_))]), "{shape:?}");
    }
}

#[test]
fn an_accumulator_that_could_overflow_is_refused() {
    let mut net = Net::new(4);
    let x = net.input("x", &[1, 8]);
    let w = net.weights(&[4, 8], 0);
    let bias = net.floats(&[4], &[0.0, 0.0, 1e6, 0.0]);
    let y = net.node("Gemm", &[&x, &w, &bias], &[("transB", Attr::Int(1))]);
    let y = net.q(&y, 0.05, 0, DataType::I8);
    net.output(&y);
    match reasons(&net).as_slice() {
        [(operator, Reason::Accumulator { channel: 2, bound })] => {
            // The node that computes, not the QuantizeLinear that asks for the result.
            assert_eq!(operator, "Gemm");
            assert!(*bound > i64::from(i32::MAX));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_multiplier_out_of_range_is_refused() {
    let mut net = Net::new(5);
    let x = net.input("x", &[1, 8]);
    let w = net.weights(&[4, 8], 0);
    let y = net.node("Gemm", &[&x, &w], &[("transB", Attr::Int(1))]);
    let y = net.q(&y, 1e-20, 0, DataType::I8);
    net.output(&y);
    assert!(matches!(reasons(&net).as_slice(), [(_, Reason::Multiplier { .. })]));
}

#[test]
fn bad_quantization_parameters_are_refused() {
    for scale in [-1.0, 0.0, f32::NAN, f32::INFINITY] {
        let mut net = Net::new(6);
        let x = net.float_input("x", &[1, 8]);
        let y = net.q(&x, scale, 0, DataType::I8);
        net.output(&y);
        assert!(matches!(reasons(&net)[0].1, Reason::Quantization { .. }), "{scale}");
    }
}

#[test]
fn shapes_must_fit() {
    let mut net = Net::new(7);
    let x = net.input("x", &[1, 3, 8, 8]);
    let w = net.weights(&[4, 2, 3, 3], 0);
    let y = net.node("Conv", &[&x, &w], &[]);
    net.output(&y);
    assert!(matches!(reasons(&net).as_slice(), [(operator, Reason::Shape(_))] if operator == "Conv"));
}

#[test]
fn weights_beyond_eight_bits_are_refused() {
    let mut net = Net::new(8);
    let x = net.input("x", &[1, 4]);
    let w = net.weights_of(DataType::U8, &[2, 4], &[255, 0, 3, 4, 5, 6, 7, 8], 0, 3);
    let y = net.node("Gemm", &[&x, &w], &[("transB", Attr::Int(1))]);
    net.output(&y);
    assert!(matches!(&reasons(&net)[0].1, Reason::Unsupported(text) if text.contains("symmetric")));
}

#[test]
fn a_value_that_was_fused_cannot_be_kept() {
    let mut net = Net::new(9);
    let x = net.input("x", &[1, 3, 8, 8]);
    let w = net.weights(&[4, 3, 3, 3], 0);
    let c = net.node("Conv", &[&x, &w], &[]);
    let r = net.node("Relu", &[&c], &[]);
    let y = net.q(&r, 0.05, 0, DataType::U8);
    net.output(&y);
    let keep = |name: &str| compile_prepared(&net.graph, &Options { keep: vec![name.into()], ..Options::default() });
    assert!(matches!(keep(&c), Err(Error::Output { name, .. }) if name == c));
    let kept = keep(&r).unwrap();
    let (outputs, plain) = (super::run(&kept.image, &[vec![0.5; 192]]), net.compile().unwrap());
    assert_eq!(outputs.len(), 2);
    assert_ne!(kept.image, plain.image);
}

#[test]
fn an_unprepared_graph_is_refused() {
    let mut net = Net::new(10);
    let y = net.node("Relu", &["nowhere"], &[]);
    net.output(&y);
    assert!(matches!(super::compile(&net.graph, &Options::default()), Err(Error::Prepare(_))));
}

#[test]
fn an_output_that_is_an_input_or_a_constant_is_refused() {
    let mut net = Net::new(11);
    let x = net.float_input("x", &[1, 4]);
    net.output(&x);
    net.graph.initializers.insert("c".into(), Tensor::from_f32(&[2], &[1.0, 2.0]));
    net.output("c");
    assert_eq!(reasons(&net).len(), 2);
}
