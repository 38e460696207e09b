//! ONNX files as exporters write them, and broken ones: what is read, and which error names what is wrong.
//! The files are in `tests/data/onnx`; `make.py` beside them made them.

use std::path::{Path, PathBuf};

use equant::graph::shape::infer;
use equant::graph::{DataType, Graph, support};
use equant::onnx::{self, ErrorKind};
use equant::passes::{self, Dims};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/onnx").join(format!("{name}.onnx"))
}

fn read(name: &str) -> Graph {
    onnx::read(&path(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(name: &str) -> ErrorKind {
    let error = onnx::read(&path(name)).expect_err(name);
    assert!(error.to_string().contains(name), "the error names the file: {error}");
    error.kind
}

fn prepared(name: &str) -> Graph {
    let mut graph = read(name);
    passes::prepare(&mut graph, &Dims::new()).unwrap_or_else(|error| panic!("{name}: {error}"));
    graph
}

/// Node types after preparation, in order.
fn operators(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(|node| node.op_type.as_str()).collect()
}

#[test]
fn every_supported_operator_set_gives_the_same_prepared_graph() {
    for (opset, expected) in [11, 13, 15, 17, 18, 21, 23, 25].map(|opset| (opset, opset.max(passes::OPSET))) {
        let name = format!("net_opset{opset}");
        assert_eq!(read(&name).opset, opset);
        let graph = prepared(&name);
        assert_eq!(graph.opset, expected, "{name}");
        assert_eq!(operators(&graph), ["Conv", "Clip", "MaxPool", "Flatten", "Gemm", "Softmax"], "{name}");
        assert_eq!(support::check(&graph), [], "{name}");
        for batch in [1, 7] {
            let types = infer(&graph, batch).unwrap();
            assert_eq!(types[&graph.outputs[0].name].shape, [batch, 3], "{name}: the batch stays dynamic");
        }
    }
    for (name, version) in [("bad_opset10", 10), ("bad_opset99", 99)] {
        assert!(matches!(refused(name), ErrorKind::Opset { found } if found == version));
    }
    assert!(matches!(refused("bad_no_opset"), ErrorKind::NotOnnx(_)));
}

#[test]
fn constants_are_read_from_every_field_and_type() {
    let values = |name: &str, value: &str| read(name).initializers[value].clone();
    let half = values("weights_f16_raw", "w");
    assert_eq!((half.dtype, half.to_f32()), (DataType::F16, vec![1.5, -2.0, 0.25, 65504.0]));
    assert_eq!(values("weights_f16_typed", "w"), half);
    assert_eq!(values("weights_bf16", "w").to_f32(), [1.5, -2.0]);
    assert_eq!(values("weights_f32_typed", "w").to_f32(), [1.0, -2.5, 3.0, 0.0]);
    assert_eq!(values("weights_f64_typed", "w").to_f32(), [1.0, -2.5, 3.0, 0.0]);
    let int4 = values("qdq_int4", "w");
    assert_eq!((int4.dtype, int4.data.len(), int4.to_i64().len()), (DataType::I4, 36, 72));
    assert!(int4.to_i64().iter().all(|v| (-8..=7).contains(v)));
    for name in ["weights_f16_raw", "weights_f16_typed", "weights_bf16", "weights_f64_typed"] {
        let graph = prepared(name);
        assert_eq!(operators(&graph), ["Add"], "{name}: the cast of a constant is folded");
        let weights = &graph.initializers[graph.nodes[0].input(1).unwrap()];
        assert_eq!(weights.dtype, DataType::F32, "{name}");
    }
}

#[test]
fn a_float16_model_becomes_float32() {
    let graph = prepared("net_f16");
    assert!(graph.initializers.values().all(|tensor| tensor.dtype != DataType::F16));
    assert_eq!((graph.inputs[0].dtype, graph.outputs[0].dtype), (DataType::F32, DataType::F32));
    assert_eq!(support::check(&graph), []);
}

#[test]
fn external_data_is_read_beside_the_model() {
    let graph = read("external");
    assert_eq!(graph.initializers["w"].to_f32(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(graph.initializers["v"].to_f32(), [5.0, 6.0, 7.0, 8.0]);
    for (name, words) in [
        ("bad_external_missing", "cannot open"),
        ("bad_external_escapes", "leaves the model's folder"),
        ("bad_external_short", "holds 32 bytes, too few for 16 at 24"),
        ("bad_external_offset", "too few"),
        ("bad_external_length", "length 12 does not fit"),
    ] {
        match refused(name) {
            ErrorKind::ExternalData { tensor, reason } => {
                assert_eq!(tensor, "w");
                assert!(reason.contains(words), "{name}: {reason}");
            }
            other => panic!("{name}: {other}"),
        }
    }
    let bytes = std::fs::read(path("external")).unwrap();
    let error = onnx::from_bytes(&bytes, None, "external").unwrap_err();
    assert!(matches!(error.kind, ErrorKind::ExternalData { .. }), "{error}");
}

#[test]
fn constant_nodes_become_initializers() {
    let graph = prepared("constant_nodes");
    assert_eq!(operators(&graph), ["Add", "Mul", "Sub", "Reshape"]);
    let constant = |node: usize, input: usize| graph.initializers[graph.nodes[node].input(input).unwrap()].clone();
    assert_eq!(constant(0, 1).to_f32(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!((constant(1, 1).shape.len(), constant(1, 1).to_f32()), (0, vec![0.5]));
    assert_eq!(constant(3, 1).to_i64(), [-1, 2]);
}

#[test]
fn names_order_and_inputs_are_put_right() {
    let names: Vec<String> = read("duplicate_node_names").nodes.into_iter().map(|node| node.name).collect();
    assert_eq!(names, ["n", "n_1", "Relu_2"]);
    let order: Vec<String> = read("node_order").nodes.into_iter().map(|node| node.name).collect();
    assert_eq!(order, ["conv", "clip", "pool", "flatten", "gemm", "softmax"]);
    let inputs: Vec<String> = read("initializers_as_inputs").inputs.into_iter().map(|input| input.name).collect();
    assert_eq!(inputs, ["x"]);
}

#[test]
fn malformed_graphs_are_named() {
    match refused("bad_duplicate_value") {
        ErrorKind::DuplicateValue { value, node } => assert_eq!((value.as_str(), node.as_str()), ("y", "two")),
        other => panic!("{other}"),
    }
    match refused("bad_missing_value") {
        ErrorKind::Unordered { node, value, .. } => assert_eq!((node.as_str(), value.as_str()), ("add", "nowhere")),
        other => panic!("{other}"),
    }
    match refused("bad_node_order_cycle") {
        ErrorKind::Unordered { node, reason, .. } => {
            assert!(["first", "second"].contains(&node.as_str()), "{node}");
            assert!(reason.contains("cycle"), "{reason}");
        }
        other => panic!("{other}"),
    }
    for name in ["bad_missing_output", "bad_string_input", "bad_sequence_input"] {
        let kind = refused(name);
        assert!(matches!(kind, ErrorKind::Value { .. }), "{name}: {kind}");
    }
    assert!(matches!(refused("bad_no_outputs"), ErrorKind::NotOnnx(_)));
}

#[test]
fn impossible_tensors_are_listed() {
    for (name, words) in [
        ("bad_string_tensor", "element type STRING is not supported"),
        ("bad_float8_tensor", "element type FLOAT8 is not supported"),
        ("bad_undefined_type", "element type UNDEFINED is not supported"),
        ("bad_huge_dims", "is too large"),
        ("bad_huge_dims_zero", "is too large"),
        ("bad_negative_dims", "negative size in shape [-4]"),
        ("bad_short_data", "needs 16 bytes and it holds 12"),
        ("bad_sparse", "is a sparse initializer"),
    ] {
        match refused(name) {
            ErrorKind::Tensors(issues) => {
                assert_eq!(issues.len(), 1, "{name}");
                assert!(issues[0].contains("`w`") && issues[0].contains(words), "{name}: {}", issues[0]);
            }
            other => panic!("{name}: {other}"),
        }
    }
}

#[test]
fn a_cut_file_is_truncated_and_a_foreign_one_is_not_onnx() {
    let bytes = std::fs::read(path("net_opset17")).unwrap();
    for length in 1..bytes.len() {
        let error = onnx::from_bytes(&bytes[..length], None, "cut").expect_err("a cut file");
        // A cut between two fields of the outermost message leaves a readable message without its operator sets.
        let fits = matches!(error.kind, ErrorKind::Truncated(_) | ErrorKind::NotOnnx(_));
        assert!(fits, "{length} of {} bytes: {error}", bytes.len());
    }
    for foreign in [&b""[..], b"PK\x03\x04 a zip file", b"\x93NUMPY", b"not a model at all", b"<html></html>"] {
        let error = onnx::from_bytes(foreign, None, "foreign").expect_err("a foreign file");
        assert!(matches!(error.kind, ErrorKind::NotOnnx(_)), "{error}");
    }
    assert!(matches!(onnx::read(Path::new("nowhere.onnx")).unwrap_err().kind, ErrorKind::Read(_)));
}

#[test]
fn dimensions_are_fixed_by_name_or_refused() {
    let mut graph = read("dims_symbolic");
    passes::prepare(&mut graph, &Dims::from([("H".into(), 6), ("W".into(), 6)])).unwrap();
    assert_eq!(support::check(&graph), []);

    let missing = prepared("dims_symbolic");
    let reasons: Vec<String> = support::check(&missing).iter().map(ToString::to_string).collect();
    assert!(reasons.iter().any(|reason| reason.contains("--dim H=SIZE")), "{reasons:?}");

    let error = passes::prepare(&mut read("net_opset17"), &Dims::from([("T".into(), 1)])).unwrap_err();
    assert!(matches!(error, passes::Error::UnknownDim { .. }), "{error}");
    let error = passes::prepare(&mut read("bad_batch_fixed_4"), &Dims::new()).unwrap_err();
    assert!(matches!(error, passes::Error::FixedBatch { size: 4, .. }), "{error}");

    assert_eq!(support::check(&prepared("batch_fixed_1")), []);
    let reasons: Vec<String> = support::check(&prepared("bad_no_shape")).iter().map(ToString::to_string).collect();
    assert!(reasons.iter().any(|reason| reason.contains("declares no shape")), "{reasons:?}");
}

#[test]
fn what_exporters_write_is_supported() {
    let attention = prepared("attention");
    assert_eq!(support::check(&attention), []);
    assert!(!operators(&attention).contains(&"Shape"), "shape arithmetic is folded: {:?}", operators(&attention));
    let net = prepared("batch_norm");
    assert_eq!(support::check(&net), []);
    assert!(!operators(&net).contains(&"BatchNormalization"));
}

#[test]
fn unsupported_operators_are_all_named_before_any_work() {
    let nodes = |name: &str| support::check(&prepared(name)).into_iter().map(|found| found.node).collect::<Vec<_>>();
    assert_eq!(nodes("unsupported_if"), ["if"]);
    assert_eq!(nodes("unsupported_mixed"), ["fancy", "nonzero", "cast"]);
}

#[test]
fn quantized_files_are_told_apart_and_prepared() {
    for name in ["qdq_int8", "qdq_uint8", "qdq_int4", "qdq_uint16"] {
        let mut graph = read(name);
        assert!(support::is_quantized(&graph), "{name}");
        passes::prepare_quantized(&mut graph).unwrap();
        let kept = graph.nodes.iter().filter(|node| node.op_type == "DequantizeLinear").count();
        assert_eq!(kept, 4, "{name}: dequantization of weights and biases is kept");
    }
    assert!(!support::is_quantized(&read("net_opset17")));
}

#[test]
fn what_is_written_is_read_back_equal() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["net_opset17", "attention", "batch_norm", "qdq_int4", "net_f16", "constant_nodes"] {
        let graph = read(name);
        let file = folder.path().join("again.onnx");
        onnx::write(&graph, &file).unwrap();
        assert_eq!(onnx::read(&file).unwrap(), graph, "{name}");
    }
    let error = onnx::write(&read("net_opset17"), &folder.path().join("nowhere/x.onnx")).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Write(_)), "{error}");
}
