use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;

use super::linear::Linear;
use super::*;
use crate::graph::eval::eval;
use crate::graph::{Attr, DataType, Dim, Graph, Node, Tensor, ValueInfo};
use crate::observe::{Observer, Statistics};
use crate::quantize::{self, Config, Outcome};

fn value(name: &str, shape: &[usize]) -> ValueInfo {
    let dims = std::iter::once(Dim::Symbol("N".into())).chain(shape.iter().map(|&size| Dim::Known(size)));
    ValueInfo { name: name.into(), dtype: DataType::F32, shape: Some(dims.collect()) }
}

/// Conv, Relu, Flatten, Gemm over `[N, 2, 1, 3]`.
fn network() -> Graph {
    let wave = |shape: &[usize], phase: f32| {
        let count: usize = shape.iter().product();
        Tensor::from_f32(shape, &(0..count).map(|i| (i as f32 * 1.3 + phase).sin()).collect::<Vec<_>>())
    };
    Graph {
        name: "network".into(),
        opset: 21,
        nodes: vec![
            Node::new("Conv", "conv", ["x", "w", "b"], ["a"]),
            Node::new("Relu", "relu", ["a"], ["h"]),
            Node::new("Flatten", "flat", ["h"], ["f"]),
            Node::new("Gemm", "fc", ["f", "v", "c"], ["y"]).with("transB", Attr::Int(1)),
        ],
        initializers: BTreeMap::from([
            ("w".to_owned(), wave(&[4, 2, 1, 1], 0.0)),
            ("b".to_owned(), wave(&[4], 0.3)),
            ("v".to_owned(), wave(&[3, 12], 0.7)),
            ("c".to_owned(), wave(&[3], 1.1)),
        ]),
        inputs: vec![value("x", &[2, 1, 3])],
        outputs: vec![value("y", &[3])],
        metadata: BTreeMap::from([("author".to_owned(), "someone".to_owned())]),
        ..Graph::default()
    }
}

fn outcome(graph: &Graph, config: &Config) -> Outcome {
    let mut statistics = Statistics::default();
    statistics.observe(&(0..=100).map(|i| i as f32 / 50.0 - 1.0).collect::<Vec<_>>());
    let all = quantize::values_to_observe(graph).into_iter().map(|name| (name, statistics.clone())).collect();
    quantize::quantize(graph, &all, config).unwrap()
}

fn config() -> Config {
    Config { observer: Some(Observer::MinMax), ..Config::default() }
}

fn exported() -> Graph {
    let graph = network();
    export(&graph, &outcome(&graph, &config()))
}

#[test]
fn the_exported_graph_is_standard_qdq() {
    let graph = exported();
    let nodes: Vec<String> = graph
        .nodes
        .iter()
        .map(|node| format!("{} {} -> {}", node.op_type, node.inputs.join(" "), node.output()))
        .collect();
    assert_eq!(
        nodes,
        [
            "QuantizeLinear x x_scale x_zero_point -> x_quantized",
            "DequantizeLinear x_quantized x_scale x_zero_point -> x_dequantized",
            "DequantizeLinear w_quantized w_scale w_zero_point -> w_dequantized",
            "DequantizeLinear b_quantized b_scale b_zero_point -> b_dequantized",
            "Conv x_dequantized w_dequantized b_dequantized -> a",
            "Relu a -> h",
            "QuantizeLinear h h_scale h_zero_point -> h_quantized",
            "DequantizeLinear h_quantized h_scale h_zero_point -> h_dequantized",
            "Flatten h_dequantized -> f",
            "QuantizeLinear f f_scale f_zero_point -> f_quantized",
            "DequantizeLinear f_quantized f_scale f_zero_point -> f_dequantized",
            "DequantizeLinear v_quantized v_scale v_zero_point -> v_dequantized",
            "DequantizeLinear c_quantized c_scale c_zero_point -> c_dequantized",
            "Gemm f_dequantized v_dequantized c_dequantized -> y",
        ]
    );
    let types: Vec<DataType> = ["x_zero_point", "w_quantized", "b_quantized", "w_scale"]
        .iter()
        .map(|name| graph.initializers[*name].dtype)
        .collect();
    assert_eq!(types, [DataType::U8, DataType::I8, DataType::I32, DataType::F32]);
    assert_eq!(graph.nodes[2].int("axis", -1), 0);
    assert_eq!(graph.initializers["w_scale"].shape, [4]);
    assert!(!graph.initializers.contains_key("w"), "float weights stay in the file");
    assert_eq!(graph.inputs, network().inputs);
    assert_eq!(graph.metadata["author"], "someone");
    assert_eq!(graph.metadata["equant.observer"], "min-max");
    assert_eq!(float_islands(&graph), []);
    assert_eq!(exported(), graph);
}

#[test]
fn a_newer_operator_set_is_kept() {
    let graph = Graph { opset: 23, ..network() };
    assert_eq!(export(&graph, &outcome(&graph, &config())).opset, 23);
    let graph = Graph { opset: 13, ..network() };
    assert_eq!(export(&graph, &outcome(&graph, &config())).opset, 21);
}

#[test]
fn names_in_use_are_avoided() {
    let mut graph = network();
    graph.nodes[1].outputs[0] = "x_quantized".into();
    graph.nodes[2].inputs[0] = "x_quantized".into();
    let out = export(&graph, &outcome(&graph, &config()));
    let mut names: Vec<&String> = out.nodes.iter().flat_map(|node| &node.outputs).collect();
    names.extend(out.initializers.keys());
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    assert_eq!(out.nodes[0].output(), "x_quantized_1");
}

#[test]
fn a_quantized_output_keeps_its_name() {
    let mut graph = network();
    graph.nodes.truncate(2);
    graph.outputs = vec![value("h", &[4, 1, 3])];
    let out = export(&graph, &outcome(&graph, &config()));
    let tail: Vec<(&str, &str)> =
        out.nodes.iter().rev().take(3).map(|node| (node.op_type.as_str(), node.output())).collect();
    assert_eq!(tail, [("DequantizeLinear", "h"), ("QuantizeLinear", "h_quantized"), ("Relu", "h_float")]);
    assert_eq!(float_islands(&out), []);
}

#[test]
fn per_tensor_weights_have_scalar_scales() {
    let graph = network();
    let out = export(&graph, &outcome(&graph, &Config { per_channel: false, ..config() }));
    assert!(out.initializers["w_scale"].shape.is_empty() && out.initializers["b_scale"].shape.is_empty());
    assert_eq!(float_islands(&out), []);
}

#[test]
fn the_file_shrinks() {
    let mut graph = network();
    graph.initializers.insert("v".into(), Tensor::from_f32(&[400, 12], &vec![0.5; 4800]));
    graph.initializers.insert("c".into(), Tensor::from_f32(&[400], &[0.1; 400]));
    let (before, after) = (
        crate::onnx::to_bytes(&graph).len(),
        crate::onnx::to_bytes(&export(&graph, &outcome(&graph, &config()))).len(),
    );
    // 1 byte for each of 4, and per channel a weight scale, a bias scale and two zero points.
    assert!(after < before / 4 + 400 * 14 + 3000, "{before} to {after}");
}

/// What an element of a chain of operators becomes, evaluated with the graph's own constants.
fn run(graph: &Graph, input: &Tensor, wanted: &str) -> Tensor {
    let mut values: BTreeMap<String, Tensor> = graph.initializers.clone();
    values.insert("x".into(), input.clone());
    for node in &graph.nodes {
        let inputs: Vec<Option<Tensor>> = node.inputs.iter().map(|name| values.get(name).cloned()).collect();
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
        if let Some(output) = elementwise(node, &inputs).or_else(|| eval(node, graph.opset, &inputs)) {
            values.insert(node.output().to_owned(), output);
        }
    }
    values[wanted].clone()
}

/// Operators that [`eval`] has no use for, over equal shapes or shapes that broadcast one axis.
fn elementwise(node: &Node, inputs: &[Option<&Tensor>]) -> Option<Tensor> {
    let x = (*inputs.first()?)?;
    let values = x.to_f32();
    let at = |tensor: &Tensor, i: usize| {
        let list = tensor.to_f32();
        if list.len() == 1 {
            return list[0];
        }
        let axis = tensor.shape.iter().position(|&size| size > 1).unwrap_or(0);
        let stride: usize = x.shape[axis + 1..].iter().product();
        list[i / stride % list.len()]
    };
    let out: Vec<f32> = match node.op_type.as_str() {
        "Round" => values.iter().map(|v| v.round_ties_even()).collect(),
        "Clip" => {
            let (low, high) = (inputs[1]?.scalar_f32()?, inputs[2]?.scalar_f32()?);
            values.iter().map(|v| v.clamp(low, high)).collect()
        }
        op @ ("Add" | "Sub" | "Mul" | "Div") => {
            let other = (*inputs.get(1)?)?;
            let apply = |(i, &a): (usize, &f32)| match op {
                "Add" => a + at(other, i),
                "Sub" => a - at(other, i),
                "Mul" => a * at(other, i),
                _ => a / at(other, i),
            };
            values.iter().enumerate().map(apply).collect()
        }
        _ => return None,
    };
    Some(Tensor::from_f32(&x.shape, &out))
}

proptest! {
    /// The simulated operators do what QuantizeLinear and DequantizeLinear are defined to do, per tensor and per
    /// channel, for each integer type.
    #[test]
    fn simulation_is_the_definition(
        values in proptest::collection::vec(-40.0f32..40.0, 12),
        scales in proptest::collection::vec(0.01f32..1.0, 3),
        zero_points in proptest::collection::vec(-8i32..8, 3),
        per_channel in any::<bool>(),
        dtype in prop_oneof![Just(DataType::U8), Just(DataType::I8), Just(DataType::I16), Just(DataType::I4)],
    ) {
        let count = if per_channel { 3 } else { 1 };
        let shape: &[usize] = if per_channel { &[3] } else { &[] };
        let zero_points: Vec<i32> =
            zero_points[..count].iter().map(|&z| if dtype == DataType::U8 { z + 8 } else { z }).collect();
        let graph = Graph {
            opset: 21,
            nodes: vec![
                Node::new("QuantizeLinear", "q", ["x", "s", "z"], ["i"]).with("axis", Attr::Int(1)),
                Node::new("DequantizeLinear", "d", ["i", "s", "z"], ["y"]).with("axis", Attr::Int(-2)),
            ],
            initializers: BTreeMap::from([
                ("s".to_owned(), Tensor::from_f32(shape, &scales[..count])),
                ("z".to_owned(), Tensor::from_ints(dtype, shape, &zero_points)),
            ]),
            inputs: vec![value("x", &[3, 4])],
            outputs: vec![value("y", &[3, 4])],
            ..Graph::default()
        };
        let simulated = simulate(&graph);
        prop_assert!(simulated.nodes.iter().all(|node| !node.op_type.contains("Linear")));
        let input = Tensor::from_f32(&[1, 3, 4], &values);
        let (low, high) = dtype.quantized_range().unwrap();
        let expected: Vec<(f32, f32)> = values
            .iter()
            .enumerate()
            .map(|(i, x)| {
                let c = if per_channel { i / 4 } else { 0 };
                let q = ((x / scales[c]).round_ties_even() as i32 + zero_points[c]).clamp(low, high);
                (q as f32, (q - zero_points[c]) as f32 * scales[c])
            })
            .collect();
        let (integers, reals): (Vec<f32>, Vec<f32>) = expected.into_iter().unzip();
        prop_assert_eq!(run(&simulated, &input, "i").to_f32(), integers.clone());
        prop_assert_eq!(run(&simulated, &input, "y").to_f32(), reals.clone());

        // Of a constant both are folded, to the same.
        let mut constant = graph;
        constant.initializers.insert("x".into(), input);
        constant.inputs.clear();
        let folded = simulate(&constant);
        prop_assert!(folded.nodes.is_empty());
        prop_assert_eq!(folded.initializers["y"].to_f32(), reals);
    }
}

#[test]
fn simulation_keeps_names_and_folds_weights() {
    let graph = exported();
    let simulated = simulate(&graph);
    for node in &graph.nodes {
        let name = node.output();
        let made = simulated.nodes.iter().any(|other| other.output() == name);
        assert!(made || simulated.initializers.contains_key(name), "{name}");
    }
    let weights = simulated.initializers["w_dequantized"].to_f32();
    let original = network().initializers["w"].to_f32();
    let scales = graph.initializers["w_scale"].to_f32();
    for (i, (a, b)) in weights.iter().zip(original).enumerate() {
        assert!((a - b).abs() <= 0.5001 * scales[i / 2]);
    }
    assert!(simulated.nodes.iter().all(|node| !node.op_type.contains("Linear")));
}

#[test]
fn blocks_of_weights_are_folded() {
    let graph = Graph {
        opset: 21,
        nodes: vec![
            Node::new("DequantizeLinear", "d", ["q", "s"], ["w"])
                .with("axis", Attr::Int(1))
                .with("block_size", Attr::Int(2)),
        ],
        initializers: BTreeMap::from([
            ("q".to_owned(), Tensor::from_ints(DataType::I4, &[2, 4], &[1, 2, 3, 4, -5, -6, -7, -8])),
            ("s".to_owned(), Tensor::from_f32(&[2, 2], &[1.0, 10.0, 100.0, 0.5])),
        ]),
        outputs: vec![value("w", &[4])],
        ..Graph::default()
    };
    let folded = simulate(&graph);
    assert_eq!(folded.initializers["w"].to_f32(), [1.0, 2.0, 30.0, 40.0, -500.0, -600.0, -3.5, -4.0]);
    // Scales that do not fit the weights are left for an executor to refuse.
    let mut wrong = graph;
    wrong.initializers.insert("s".into(), Tensor::from_f32(&[3, 2], &[1.0; 6]));
    assert_eq!(simulate(&wrong).nodes.len(), 1);
}

/// The exported graph after `change`; the reasons its islands give.
fn reasons(change: impl FnOnce(&mut Graph)) -> Vec<String> {
    let mut graph = exported();
    change(&mut graph);
    float_islands(&graph).into_iter().map(|island| format!("{}: {}", island.node, island.reason)).collect()
}

/// Each rule was checked against the nodes that ONNX Runtime 1.32 leaves after optimization.
#[test]
fn islands_are_what_onnx_runtime_leaves_float() {
    let set = |graph: &mut Graph, node: &str, input: usize, name: &str| {
        let found = graph.nodes.iter_mut().find(|n| n.name == node).unwrap();
        found.inputs[input] = name.into();
    };
    let float_bias = |graph: &mut Graph, node: &str, count: usize| {
        graph.initializers.insert("float".into(), Tensor::from_f32(&[count], &vec![0.5; count]));
        set(graph, node, 2, "float");
    };
    assert_eq!(reasons(|graph| float_bias(graph, "conv", 4)), [""; 0]);
    assert_eq!(reasons(|graph| float_bias(graph, "fc", 3)), ["fc: its bias is float"]);
    assert_eq!(reasons(|graph| set(graph, "conv", 0, "x")), ["conv: its input is float"]);
    assert_eq!(
        reasons(|graph| {
            graph.initializers.insert("b_scale".into(), Tensor::from_f32(&[4], &[0.1; 4]));
        }),
        ["conv: the scale of its bias is not the product of the scales of input and weights"]
    );
    assert_eq!(
        reasons(|graph| {
            graph.initializers.insert("h_zero_point".into(), Tensor::from_ints(DataType::U8, &[], &[3]));
        }),
        ["conv: Relu stands between it and QuantizeLinear"]
    );
    assert_eq!(reasons(|graph| set(graph, "flat", 0, "h")), ["conv: its output is read both quantized and as float"]);
    // int8 with one reader becomes uint8, with several it stays.
    let signed = |graph: &mut Graph| {
        graph.initializers.insert("h_zero_point".into(), Tensor::from_ints(DataType::I8, &[], &[-128]));
    };
    assert_eq!(reasons(signed), [""; 0]);
    let shared = reasons(|graph| {
        signed(graph);
        graph.nodes.push(Node::new("Add", "sum", ["h_dequantized", "h_dequantized"], ["other"]));
    });
    assert_eq!(shared, ["conv: it writes an int8 value that has several readers"]);
    let shared = reasons(|graph| {
        graph.initializers.insert("f_zero_point".into(), Tensor::from_ints(DataType::I8, &[], &[-128]));
        graph.nodes.push(Node::new("Add", "sum", ["f_dequantized", "f_dequantized"], ["other"]));
    });
    assert_eq!(shared, ["fc: it reads an int8 value that has several readers"]);
    let removed = reasons(|graph| {
        graph.nodes.retain(|node| node.name != "h_QuantizeLinear" && node.name != "h_DequantizeLinear");
        set(graph, "flat", 0, "h");
    });
    assert_eq!(removed, ["conv: its output is not quantized"]);
}

#[test]
fn a_clip_is_redundant_where_its_bounds_are_the_last_levels() {
    let clip = |high: f32| {
        reasons(|graph| {
            let top = 255.0 * graph.initializers["h_scale"].to_f32()[0];
            graph.initializers.insert("low".into(), Tensor::from_f32(&[], &[0.0]));
            graph.initializers.insert("high".into(), Tensor::from_f32(&[], &[high * top]));
            let node = graph.nodes.iter_mut().find(|node| node.name == "relu").unwrap();
            *node = Node::new("Clip", "relu", ["a", "low", "high"], ["h"]);
        })
    };
    assert_eq!(clip(1.5), [""; 0]);
    assert_eq!(clip(1.0 / 1.0019), [""; 0]);
    assert_eq!(clip(1.0 / 1.0021), ["conv: Clip stands between it and QuantizeLinear"]);
}

fn four_bit_outcome() -> (Graph, Outcome) {
    let graph = network();
    let bits = "W4A4".parse().unwrap();
    let outcome = outcome(&graph, &Config { bits, ..config() });
    (graph, outcome)
}

#[test]
fn four_bits_are_packed_or_in_bytes() {
    let (graph, mut outcome) = four_bit_outcome();
    let packed = export(&graph, &outcome);
    assert_eq!(
        (packed.initializers["v_quantized"].dtype, packed.initializers["v_quantized"].data.len()),
        (DataType::I4, 18)
    );
    assert_eq!(
        (packed.initializers["w_zero_point"].dtype, &packed.initializers["w_zero_point"].data),
        (DataType::I4, &vec![0; 2])
    );
    assert_eq!(
        (packed.initializers["x_zero_point"].dtype, packed.initializers["x_zero_point"].data.len()),
        (DataType::U4, 1)
    );
    outcome.container = Container::Int8;
    let bytes = export(&graph, &outcome);
    for name in ["v_quantized", "v_zero_point", "w_quantized"] {
        assert_eq!(bytes.initializers[name].dtype, DataType::I8, "{name}");
        assert_eq!(bytes.initializers[name].to_i64(), packed.initializers[name].to_i64(), "{name}");
    }
    // Activations have no other container.
    assert_eq!(bytes.initializers["x_zero_point"], packed.initializers["x_zero_point"]);
    assert_eq!(simulate(&bytes), simulate(&packed));
    // A layer of uint4 is around 8 when packed, around 0 in bytes.
    let layer = outcome.layers.get_mut("fc").unwrap();
    let shifted: Vec<i32> = layer.weights.to_i64().iter().map(|&q| q as i32 + 8).collect();
    layer.weights = Tensor::from_ints(DataType::U4, &[3, 12], &shifted);
    assert_eq!(export(&graph, &outcome), bytes);
    outcome.container = Container::Packed;
    let unsigned = export(&graph, &outcome);
    assert_eq!(unsigned.initializers["v_zero_point"].to_i64(), [8; 3]);
    assert_eq!(simulate(&unsigned), simulate(&packed));
}

#[test]
fn scales_of_blocks_have_the_shape_of_the_weights() {
    let (graph, mut outcome) = four_bit_outcome();
    let layer = outcome.layers.get_mut("fc").unwrap();
    // Twelve inputs in blocks of five: the last one has two.
    layer.block = Some(5);
    assert_eq!((layer.input_axis(), layer.scale_shape()), (1, vec![3, 3]));
    layer.scales = (1..10).map(|i| i as f32 * 0.01).collect();
    let out = export(&graph, &outcome);
    let node = out.nodes.iter().find(|node| node.output() == "v_dequantized").unwrap();
    assert_eq!((node.int("axis", -1), node.int("block_size", 0)), (1, 5));
    assert_eq!(
        (&out.initializers["v_scale"].shape, &out.initializers["v_zero_point"].shape),
        (&vec![3, 3], &vec![3, 3])
    );
    let values = simulate(&out).initializers["v_dequantized"].to_f32();
    let integers = outcome.layers["fc"].weights.to_i64();
    for (i, value) in values.iter().enumerate() {
        let scale = outcome.layers["fc"].scales[i / 12 * 3 + i % 12 / 5];
        assert_eq!(*value, integers[i] as f32 * scale);
    }
}

/// As checked against the nodes that ONNX Runtime 1.32 leaves after optimization.
#[test]
fn packed_weights_and_four_bit_activations_are_islands() {
    let graph = network();
    let islands = |bits: &str, container| {
        let mut outcome = outcome(&graph, &Config { bits: bits.parse().unwrap(), ..config() });
        outcome.container = container;
        float_islands(&export(&graph, &outcome)).len()
    };
    assert_eq!(islands("W4A8", Container::Packed), 2);
    assert_eq!(islands("W4A8", Container::Int8), 0);
    assert_eq!(islands("W8A4", Container::Int8), 2);
}

fn third_party(name: &str) -> Graph {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/third_party_qdq").join(name);
    let mut graph = crate::onnx::read(&path).unwrap();
    crate::passes::prepare_quantized(&mut graph).unwrap();
    graph
}

#[test]
fn files_of_other_tools() {
    // Name, convolutions and products that ONNX Runtime 1.32 leaves float.
    for (name, float) in [
        ("dscnn_aimet_minmax_W4A8_pc.onnx", 10),
        ("dscnn_ort_MinMax_W4A8_pc.onnx", 10),
        ("resnet8_aimet_minmax_W8A8_pc.onnx", 0),
        ("resnet8_modelopt_int8_max.onnx", 10),
        ("resnet8_nncf_fastBC_W8A8_pc.onnx", 1),
        ("resnet8_ort_MinMax_W8A8_pc.onnx", 0),
        ("resnet8_ort_Percentile_W8A8_pt.onnx", 0),
        ("resnet8_quark_CLE+BC_W8A8_pc.onnx", 0),
    ] {
        let graph = third_party(name);
        assert_eq!(float_islands(&graph).len(), float, "{name}: {:?}", float_islands(&graph));
        let simulated = simulate(&graph);
        for node in &simulated.nodes {
            assert!(!node.op_type.contains("QuantizeLinear"), "{name}: {}", node.name);
        }
        for (node, linear) in graph.nodes.iter().filter_map(|node| Some((node, Linear::of(&graph, node)?))) {
            if node.input(0).is_some_and(|input| graph.initializers.contains_key(input)) {
                assert!(simulated.initializers[node.output()].dtype == DataType::F32, "{name}: {}", node.name);
            }
            assert!(linear.scale.to_f32().iter().all(|&scale| scale > 0.0), "{name}: {}", node.name);
        }
    }
}
