//! Models that look rows of a table up by integers.

use crate::exec::{Error, PlanRunner, Runner as _};
use crate::graph::{Attr, DataType, Graph, Node, Tensor};
use crate::{onnx, passes, pipeline};
use equant_runtime::Reason;
use equant_runtime::op::OpKind;

use super::support::{Array, Random, difference, quantize, value};

const ROWS: usize = 50;
const TOKENS: usize = 7;
const WIDTH: usize = 10;
const CLASSES: usize = 4;

/// Indices `[N, T]` → rows of a table → mean over tokens → Gemm to classes.
fn classifier(dtype: DataType) -> Graph {
    let mut random = Random(77);
    let mut graph = Graph {
        name: "text".into(),
        opset: 17,
        inputs: vec![value("ids", dtype, &[TOKENS])],
        outputs: vec![value("scores", DataType::F32, &[CLASSES])],
        nodes: vec![
            Node::new("Gather", "lookup", ["table", "ids"], ["rows"]),
            Node::new("ReduceMean", "mean", ["rows"], ["mean"])
                .with("axes", Attr::Ints(vec![1]))
                .with("keepdims", Attr::Int(0)),
            Node::new("Gemm", "fc", ["mean", "w", "b"], ["scores"]).with("transB", Attr::Int(1)),
        ],
        ..Graph::default()
    };
    graph.initializers.insert("table".into(), random.tensor(&[ROWS, WIDTH], 1.5));
    graph.initializers.insert("w".into(), random.tensor(&[CLASSES, WIDTH], 0.8));
    graph.initializers.insert("b".into(), random.tensor(&[CLASSES], 0.3));
    graph
}

fn ids(count: usize) -> Array {
    let mut random = Random(5);
    let id = |random: &mut Random| (random.unit() * 2.0 * ROWS as f32) as i64 - ROWS as i64;
    Array::Ints((0..count * TOKENS).map(|_| id(&mut random)).collect())
}

#[test]
fn a_text_classifier_runs_as_integers() {
    for dtype in [DataType::I64, DataType::I32] {
        let quantized = quantize(&classifier(dtype), &[("ids", &[40, TOKENS], ids(40))], |_| ());
        let table = &quantized.qdq.initializers["table_quantized"];
        assert_eq!(
            (table.dtype, &table.shape[..]),
            (DataType::U8, &[ROWS, WIDTH][..]),
            "the table is stored in 8 bits"
        );
        assert!(!quantized.qdq.initializers.contains_key("table"));
        let [float, simulation, plan] = quantized.outputs();
        let (_, noise) = difference(&simulation[0], &float[0]);
        assert!(noise > 1e-5 && noise < 0.02, "{noise}");
        let (worst, _) = difference(&plan[0], &simulation[0]);
        assert!(worst < 0.01, "{worst}");
        if let Some(ort) = quantized.ort() {
            assert!(difference(&ort[0], &simulation[0]).0 < 1e-5);
        }
        let plan = PlanRunner::new(&quantized.plan).unwrap();
        let kinds: Vec<OpKind> = plan.plan().ops().map(|op| op.kind).collect();
        assert_eq!(kinds, [OpKind::Gather, OpKind::AvgPool2d, OpKind::FullyConnected]);
        // The table, 8 bits an element, and little else.
        assert!(quantized.plan.len() < ROWS * WIDTH + 700, "{}", quantized.plan.len());
    }
}

#[test]
fn the_device_refuses_indices_that_name_nothing() {
    let quantized = quantize(&classifier(DataType::I64), &[("ids", &[40, TOKENS], ids(40))], |_| ());
    let plan = PlanRunner::new(&quantized.plan).unwrap();
    let mut batch = quantized.batch();
    for (index, fits) in [(ROWS as f32 - 1.0, true), (ROWS as f32, false), (-(ROWS as f32), true), (-51.0, false)] {
        batch.inputs[0][TOKENS + 2] = index;
        match plan.run(&batch) {
            Ok(_) => assert!(fits, "{index}"),
            Err(Error::Plan(error)) => assert!(!fits && error.reason == Reason::IndexOutOfRange, "{index}: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_table_read_through_a_cast_is_a_table() {
    let mut graph = classifier(DataType::I32);
    graph.nodes[0].inputs[1] = "wide".into();
    graph.nodes.insert(0, Node::new("Cast", "cast", ["ids"], ["wide"]).with("to", Attr::Int(7)));
    passes::prepare(&mut graph, &Default::default()).unwrap();
    assert!(graph.nodes.iter().all(|node| node.op_type != "Cast"), "{:?}", graph.nodes);
}

#[test]
fn other_uses_of_integers_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let refusal = |graph: &Graph| {
        onnx::write(graph, &path).unwrap();
        pipeline::read_float(&path, &Default::default()).unwrap_err().to_string()
    };
    let mut flags = classifier(DataType::Bool);
    flags.nodes[0].inputs[1] = "ids".into();
    let reason = refusal(&flags);
    assert!(reason.contains("ids") && reason.contains("indices of type int32 or int64"), "{reason}");
    let mut computed = classifier(DataType::I64);
    computed.initializers.insert("one".into(), Tensor::from_i64(&[], &[1]));
    computed.nodes[0].inputs[1] = "next".into();
    computed.nodes.insert(0, Node::new("Add", "add", ["ids", "one"], ["next"]));
    let reason = refusal(&computed);
    assert!(reason.contains("lookup") && reason.contains("are computed"), "{reason}");
}
