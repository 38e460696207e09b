use super::*;
use crate::graph::{Attr, Dim, Node, Tensor, ValueInfo};

fn value(name: &str, shape: &[usize]) -> ValueInfo {
    let dims = std::iter::once(Dim::Symbol("N".into())).chain(shape.iter().map(|&size| Dim::Known(size)));
    ValueInfo { name: name.into(), dtype: DataType::F32, shape: Some(dims.collect()) }
}

fn graph(nodes: Vec<Node>, constants: &[(&str, &[usize])], input: &[usize], outputs: &[&str]) -> Graph {
    let initializers = constants.iter().map(|&(name, shape)| {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7).sin()).collect();
        (name.to_owned(), Tensor::from_f32(shape, &values))
    });
    Graph {
        opset: 21,
        nodes,
        initializers: initializers.collect(),
        inputs: vec![value("x", input)],
        outputs: outputs.iter().map(|name| value(name, &[])).collect(),
        ..Graph::default()
    }
}

/// The groups of quantized values, each as its values joined by spaces.
fn groups(graph: &Graph) -> Vec<String> {
    placement::place(graph).into_iter().map(|group| group.values.join(" ")).collect()
}

fn conv(name: &str, input: &str, output: &str) -> Node {
    Node::new("Conv", name, [input, "w", "b"], [output])
}

const CONV: &[(&str, &[usize])] = &[("w", &[4, 4, 1, 1]), ("b", &[4])];
const IMAGE: &[usize] = &[4, 2, 2];

#[test]
fn conv_is_quantized_after_its_activation() {
    let nodes = vec![conv("c", "x", "a"), Node::new("Relu", "r", ["a"], ["y"]), conv("d", "y", "z")];
    assert_eq!(groups(&graph(nodes, CONV, IMAGE, &["z"])), ["x", "y", "z"]);
}

#[test]
fn an_activation_with_other_readers_is_not_passed() {
    let nodes =
        vec![conv("c", "x", "a"), Node::new("Relu", "r", ["a"], ["y"]), Node::new("Add", "s", ["a", "y"], ["z"])];
    assert_eq!(groups(&graph(nodes, CONV, IMAGE, &["z"])), ["x", "a"]);
}

#[test]
fn logits_of_gemm_stay_float() {
    let nodes = vec![Node::new("Gemm", "g", ["x", "w", "b"], ["y"]).with("transB", Attr::Int(1))];
    assert_eq!(groups(&graph(nodes, &[("w", &[3, 4]), ("b", &[3])], &[4], &["y"])), ["x"]);
}

#[test]
fn a_residual_sum_is_quantized_where_a_conv_reads_it() {
    let nodes = vec![
        conv("c", "x", "a"),
        Node::new("Add", "s", ["a", "x"], ["t"]),
        Node::new("Relu", "r", ["t"], ["u"]),
        conv("d", "u", "z"),
    ];
    assert_eq!(groups(&graph(nodes, CONV, IMAGE, &["z"])), ["x", "a", "u", "z"]);
}

#[test]
fn the_residual_stream_of_a_transformer_stays_float() {
    let nodes = vec![
        Node::new("LayerNormalization", "n", ["x", "s"], ["a"]),
        Node::new("MatMul", "m", ["a", "w"], ["h"]),
        Node::new("Add", "bias", ["h", "b"], ["p"]),
        Node::new("Add", "residual", ["x", "p"], ["t"]),
        Node::new("LayerNormalization", "n2", ["t", "s"], ["u"]),
        Node::new("ReduceMean", "mean", ["u", "axes"], ["v"]),
        Node::new("Gemm", "g", ["v", "w"], ["y"]),
    ];
    let graph = graph(nodes, &[("w", &[4, 4]), ("b", &[4]), ("s", &[4])], &[5, 4], &["y"]);
    // But the input, which a plan takes in integers.
    assert_eq!(groups(&graph), ["x", "a", "v"]);
}

#[test]
fn attention_keeps_scores_float_and_probabilities_fixed() {
    let nodes = vec![
        Node::new("MatMul", "scores", ["x", "x"], ["s"]),
        Node::new("Mul", "scale", ["s", "factor"], ["t"]),
        Node::new("Softmax", "soft", ["t"], ["p"]),
        Node::new("MatMul", "values", ["p", "x"], ["y"]),
    ];
    let graph = graph(nodes, &[("factor", &[])], &[4, 4], &["y"]);
    assert_eq!(groups(&graph), ["x", "p"]);
    assert!(!values_to_observe(&graph).contains(&"p".to_owned()));
    let outcome = quantize(&graph, &observed(&graph, -1.0, 1.0), &Config::default()).unwrap();
    let expected = QParams { dtype: DataType::U8, scale: 1.0 / 256.0, zero_point: 0 };
    assert_eq!(outcome.activations["p"], expected);
    let signed = Config { activations: ActivationType::Signed, ..Config::default() };
    let outcome = quantize(&graph, &observed(&graph, -1.0, 1.0), &signed).unwrap();
    assert_eq!(outcome.activations["p"], QParams { dtype: DataType::I8, zero_point: -128, ..expected });
}

#[test]
fn a_function_of_one_value_is_quantized_at_its_ends() {
    let nodes = vec![
        Node::new("MatMul", "m", ["x", "w"], ["h"]),
        Node::new("Div", "d", ["h", "two"], ["a"]),
        Node::new("Erf", "e", ["a"], ["b"]),
        Node::new("Add", "p", ["b", "one"], ["c"]),
        Node::new("Mul", "q", ["h", "c"], ["g"]),
        Node::new("Mul", "r", ["g", "half"], ["f"]),
        Node::new("MatMul", "n", ["f", "w"], ["y"]),
    ];
    let constants: &[(&str, &[usize])] = &[("w", &[4, 4]), ("two", &[]), ("one", &[]), ("half", &[])];
    assert_eq!(groups(&graph(nodes, constants, &[3, 4], &["y"])), ["x", "h", "f"]);
    // As the last operator, its result stays float.
    let nodes = vec![Node::new("Gemm", "g", ["x", "w"], ["h"]), Node::new("Sigmoid", "s", ["h"], ["y"])];
    assert_eq!(groups(&graph(nodes, &[("w", &[4, 4])], &[4], &["y"])), ["x", "h"]);
}

#[test]
fn operators_that_move_data_share_parameters() {
    let nodes = vec![
        conv("c", "x", "a"),
        Node::new("Relu", "r", ["a"], ["k"]),
        Node::new("MaxPool", "m", ["k"], ["d"]).with("kernel_shape", Attr::Ints(vec![2, 2])),
        Node::new("MaxPool", "m2", ["x"], ["e"]).with("kernel_shape", Attr::Ints(vec![2, 2])),
        Node::new("Concat", "cat", ["d", "e"], ["f"]).with("axis", Attr::Int(1)),
        Node::new("Transpose", "t", ["f"], ["g"]),
        Node::new("GlobalAveragePool", "p", ["g"], ["h"]),
        Node::new("Flatten", "l", ["h"], ["i"]),
        Node::new("Gemm", "fc", ["i", "v"], ["y"]),
    ];
    let constants: &[(&str, &[usize])] = &[("w", &[4, 4, 1, 1]), ("b", &[4]), ("v", &[8, 3])];
    let graph = graph(nodes, constants, IMAGE, &["y"]);
    assert_eq!(groups(&graph), ["x k d e f g", "h i"]);
    let placed = placement::place(&graph);
    assert_eq!(placed[0].sources, ["x", "k"]);
    let mut statistics = observed(&graph, -1.0, 1.0);
    let mut wide = Statistics::default();
    wide.observe(&[0.0, 3.0]);
    statistics.insert("k".into(), wide);
    let config = Config { observer: Some(Observer::MinMax), ..Config::default() };
    let outcome = quantize(&graph, &statistics, &config).unwrap();
    for name in ["x", "k", "d", "e", "f", "g"] {
        assert_eq!(outcome.activations[name].scale, (4.0f64 / 255.0) as f32, "{name}");
    }
}

#[test]
fn padding_values_and_constants_belong_to_the_range() {
    let nodes = vec![
        Node::new("Pad", "p", ["x", "pads", "fill"], ["a"]),
        Node::new("Concat", "cat", ["a", "token"], ["b"]).with("axis", Attr::Int(0)),
        Node::new("MatMul", "m", ["b", "w"], ["y"]),
    ];
    let mut graph = graph(nodes, &[("w", &[4, 4])], &[4], &["y"]);
    graph.initializers.insert("pads".into(), Tensor::from_i64(&[2], &[0, 1]));
    graph.initializers.insert("fill".into(), Tensor::from_f32(&[], &[-5.0]));
    graph.initializers.insert("token".into(), Tensor::from_f32(&[1, 4], &[0.0, 0.0, 7.0, 0.0]));
    let config = Config { observer: Some(Observer::MinMax), ..Config::default() };
    let outcome = quantize(&graph, &observed(&graph, -1.0, 1.0), &config).unwrap();
    for name in ["x", "a", "b", "token"] {
        assert_eq!(outcome.activations[name].scale, (12.0f64 / 255.0) as f32, "{name}");
    }
    assert_eq!(groups(&graph), ["x a b token"]);
}

#[test]
fn levels_stay_within_a_clamp() {
    let seen = [(0.0, 6.0), (0.0, f32::INFINITY), (-1.0, 1.0), (-0.3, 0.7), (-2.0, 0.0), (1.0, 2.0)];
    for bounds in seen {
        for (low, high) in [(0.0, 6.0f64), (0.0, 5.999_999_9), (-1.0, 1.0), (-0.3, 0.7), (-2.0, 0.1)] {
            let (scale, zero_point) = Levels::U8.affine(crate::observe::Range { low, high });
            let (scale, zero_point) = activations::within(scale, zero_point, bounds, Levels::U8);
            if bounds.0 <= 0.0 {
                assert!(-scale * zero_point as f32 >= bounds.0, "{bounds:?}");
                assert!(scale * (255 - zero_point) as f32 <= bounds.1, "{bounds:?}");
            }
        }
    }
    let (scale, zero_point) = Levels::U8.affine(crate::observe::Range { low: 0.0, high: 6.0 });
    let kept = activations::within(scale, zero_point, (0.0, 6.0), Levels::U8);
    assert!((kept.0 / scale - 1.0).abs() < 1e-6 && kept.1 == 0);
}

#[test]
fn the_axis_of_output_channels() {
    let gemm = Node::new("Gemm", "g", ["x", "w"], ["y"]);
    assert_eq!(channel_axis(&gemm, 2), 1);
    assert_eq!(channel_axis(&gemm.with("transB", Attr::Int(1)), 2), 0);
    for (op, rank, axis) in [("Conv", 4, 0), ("ConvTranspose", 4, 1), ("MatMul", 2, 1), ("MatMul", 3, 2)] {
        assert_eq!(channel_axis(&Node::new(op, "n", ["x", "w"], ["y"]), rank), axis, "{op}");
    }
}

/// Two groups of one input and two outputs each: weights, bias and their scales.
#[test]
fn groups_of_a_transposed_convolution_share_scales() {
    let node = Node::new("ConvTranspose", "t", ["x", "w", "b"], ["y"]).with("group", Attr::Int(2));
    let mut graph = graph(vec![node], &[], &[2, 1, 1], &["y"]);
    graph.initializers.insert("w".into(), Tensor::from_f32(&[2, 2, 1, 1], &[1.27, 0.254, -0.5, 0.1]));
    graph.initializers.insert("b".into(), Tensor::from_f32(&[4], &[1.0, 1.0, -1.0, 0.5]));
    let outcome = quantize(&graph, &observed(&graph, -1.0, 1.0), &min_max()).unwrap();
    let layer = &outcome.layers["t"];
    assert_eq!((layer.axis, layer.scales.as_slice()), (1, &[0.01, 0.002][..]));
    assert_eq!(layer.weights.to_i64(), [127, 127, -50, 50]);
    let (bias, step) = (layer.bias.as_ref().unwrap(), outcome.activations["x"].scale);
    assert_eq!(bias.scales, [step * 0.01, step * 0.002, step * 0.01, step * 0.002]);
    assert!(bias.real().iter().zip([1.0, 1.0, -1.0, 0.5]).all(|(a, b)| (a - b).abs() < 1e-4));
    assert!(outcome.notes.len() == 1 && outcome.notes[0].contains("2 groups"), "{:?}", outcome.notes);
}

/// The weights and the note of a Gemm `[2, 3]` (transB) with these constants, its input in [−1, 1].
fn gemm(weights: [f32; 6], bias: [f32; 2], config: &Config) -> (Layer, Vec<String>) {
    let node = Node::new("Gemm", "g", ["x", "w", "b"], ["y"]).with("transB", Attr::Int(1));
    let mut graph = graph(vec![node], &[], &[3], &["y"]);
    graph.initializers.insert("w".into(), Tensor::from_f32(&[2, 3], &weights));
    graph.initializers.insert("b".into(), Tensor::from_f32(&[2], &bias));
    let mut outcome = quantize(&graph, &observed(&graph, -1.0, 1.0), config).unwrap();
    (outcome.layers.remove("g").unwrap(), outcome.notes)
}

fn min_max() -> Config {
    Config { observer: Some(Observer::MinMax), ..Config::default() }
}

#[test]
fn weights_are_symmetric_per_channel_or_per_tensor() {
    let weights = [0.5, -1.27, 0.0, 0.1, 0.02, -0.254];
    let (layer, notes) = gemm(weights, [1.0, -1.0], &min_max());
    assert_eq!(layer.scales, [0.01, 0.002]);
    assert_eq!(layer.weights.to_i64(), [50, -127, 0, 50, 10, -127]);
    assert!(notes.is_empty());
    let bias = layer.bias.unwrap();
    let input = (2.0f64 / 255.0) as f32;
    assert_eq!(bias.scales, [input * 0.01f32, input * 0.002f32]);
    for (b, (q, scale)) in [1.0, -1.0].into_iter().zip(bias.values.to_i64().into_iter().zip(bias.scales)) {
        assert_eq!(q, (b / f64::from(scale)).round_ties_even() as i64);
    }
    let (layer, _) = gemm(weights, [1.0, -1.0], &Config { per_channel: false, ..min_max() });
    assert_eq!(layer.scales, [0.01]);
    assert_eq!(layer.weights.to_i64(), [50, -127, 0, 10, 2, -25]);
    assert_eq!(layer.bias.unwrap().scales.len(), 1);
    let (layer, _) = gemm(weights, [1.0, -1.0], &Config { reduce_range: true, ..min_max() });
    assert_eq!(layer.weights.to_i64(), [25, -64, 0, 25, 5, -64]);
}

#[test]
fn ties_round_to_even() {
    // The scale is exactly 1/64.
    let (layer, _) =
        gemm([127.0 / 64.0, 0.5 / 64.0, 1.5 / 64.0, 127.0 / 64.0, -0.5 / 64.0, 2.5 / 64.0], [0.0; 2], &min_max());
    assert_eq!(layer.weights.to_i64(), [127, 0, 2, 127, 0, 2]);
}

#[test]
fn a_channel_of_zeros_has_scale_one() {
    let (layer, _) = gemm([0.0, 0.0, 0.0, 1.0, 2.0, 3.0], [0.25, 0.0], &min_max());
    assert_eq!(layer.scales[0], 1.0);
    assert_eq!(&layer.weights.to_i64()[..3], [0, 0, 0]);
}

#[test]
fn a_weight_scale_makes_room_for_the_bias() {
    let (layer, notes) = gemm([1e-9, 0.0, 0.0, 1.0, 2.0, 3.0], [40.0, 0.5], &min_max());
    let bias = layer.bias.unwrap();
    let value = bias.values.to_i64()[0];
    assert!((value as f64 - f64::from(1 << 30)).abs() < 256.0, "{value}");
    assert!((value as f64 * f64::from(bias.scales[0]) - 40.0).abs() < 1e-4);
    assert_eq!(layer.scales[1], (3.0f64 / 127.0) as f32);
    assert_eq!(notes, ["node `g`: 1 of 2 weight scales were enlarged so that the bias fits 32 bits"]);
}

#[test]
fn what_cannot_be_quantized_is_named() {
    let node = Node::new("Gemm", "g", ["x", "w"], ["y"]);
    let graph = graph(vec![node], &[("w", &[3, 2])], &[3], &["y"]);
    assert_eq!(quantize(&graph, &BTreeMap::new(), &min_max()), Err(Error::NotObserved("x".into())));
    let mut statistics = observed(&graph, -1.0, 1.0);
    statistics.get_mut("x").unwrap().observe(&[f32::NAN, f32::INFINITY]);
    assert_eq!(quantize(&graph, &statistics, &min_max()), Err(Error::NotFinite { value: "x".into(), count: 2 }));
    let mut broken = graph.clone();
    broken.initializers.insert("w".into(), Tensor::from_f32(&[3, 2], &[f32::NAN; 6]));
    let error = quantize(&broken, &observed(&graph, -1.0, 1.0), &min_max());
    assert_eq!(error, Err(Error::ConstantNotFinite { node: "g".into(), constant: "w".into() }));
}

#[test]
fn a_value_that_is_always_zero_is_noted() {
    let node = Node::new("Gemm", "g", ["x", "w"], ["y"]);
    let graph = graph(vec![node], &[("w", &[3, 2])], &[3], &["y"]);
    let outcome = quantize(&graph, &observed(&graph, 0.0, 0.0), &min_max()).unwrap();
    assert_eq!(outcome.activations["x"].scale, 1.0);
    assert_eq!(outcome.notes, ["`x` was zero in every sample; its scale is 1"]);
}

/// Statistics as if every value ran evenly from `low` to `high`.
fn observed(graph: &Graph, low: f32, high: f32) -> BTreeMap<String, Statistics> {
    let values: Vec<f32> = (0..=1000).map(|i| low + (high - low) * i as f32 / 1000.0).collect();
    let statistics = |name: String| {
        let mut statistics = Statistics::default();
        statistics.observe(&values);
        (name, statistics)
    };
    values_to_observe(graph).into_iter().map(statistics).collect()
}
