//! Cells whose state is an input and an output, run step by step.

use equant_runtime::Session;
use equant_runtime::op::OpKind;
use equant_runtime::plan::Plan;

use super::recurrent::{CLASSES, HIDDEN, INPUTS, classifier, sequences};
use super::support::{Array, Quantized, Random, difference, quantize, value};
use crate::exec::{self, Backend, LastStep, PlanRunner, Runner as _, Stateful};
use crate::graph::state::{self, Pair};
use crate::graph::{DataType, Graph, Node, Tensor};
use crate::pipeline::{self, Request, Silent};
use crate::{onnx, passes};

const SEQUENCES: usize = 24;
const STEPS: usize = 20;

/// One step of the classifier of that name: `x [N, F]` and states `[N, H]` in, scores and states out.
fn cell(op: &str) -> Graph {
    let mut graph = classifier(op, "forward", 5);
    let mut layer = graph.nodes[1].clone();
    let states: &[(&str, &str, &str)] = match op {
        "LSTM" => &[("h_in", "y_h", "h_out"), ("c_in", "y_c", "c_out")],
        _ => &[("h_in", "y_h", "h_out")],
    };
    graph.initializers.insert("first".into(), Tensor::from_i64(&[1], &[0]));
    graph.inputs = vec![value("x", DataType::F32, &[INPUTS])];
    layer.inputs = ["xt", "w", "r", "b", ""].map(str::to_owned).to_vec();
    layer.outputs = vec![String::new()];
    let mut nodes = vec![Node::new("Unsqueeze", "time", ["x", "first"], ["xt"])];
    let mut after = Vec::new();
    for &(input, output, squeezed) in states {
        let moved = format!("{input}_1");
        graph.inputs.push(value(input, DataType::F32, &[HIDDEN]));
        graph.outputs.push(value(squeezed, DataType::F32, &[HIDDEN]));
        nodes.push(Node::new("Unsqueeze", format!("enter_{input}"), [input, "first"], [moved.as_str()]));
        layer.inputs.push(moved);
        layer.outputs.push(output.to_owned());
        after.push(Node::new("Squeeze", format!("leave_{input}"), [output, "first"], [squeezed]));
    }
    let head = Node::new("Gemm", "fc", ["h_out", "g", "c"], ["scores"]);
    nodes.push(layer);
    nodes.extend(after);
    nodes.push(head.with("transB", crate::graph::Attr::Int(1)));
    graph.nodes = nodes;
    graph
}

fn pairs(op: &str) -> Vec<Pair> {
    let texts: &[&str] = if op == "LSTM" { &["h_out=h_in", "c_out=c_in"] } else { &["h_out=h_in"] };
    texts.iter().map(|text| text.parse().expect("a pair")).collect()
}

fn samples() -> [(&'static str, &'static [usize], Array); 1] {
    [("x", &[SEQUENCES, STEPS, INPUTS], Array::Floats(sequences(SEQUENCES, STEPS)))]
}

fn quantized(op: &str) -> Quantized {
    quantize(&cell(op), &samples(), |request| request.states = pairs(op))
}

/// The float cell, prepared, with its states.
fn float(op: &str) -> Graph {
    let mut graph = cell(op);
    passes::prepare(&mut graph, &Default::default()).expect("a float model");
    state::declare(&mut graph, &pairs(op)).expect("its states");
    graph
}

#[test]
fn a_float_cell_step_by_step_is_the_whole_layer() {
    for op in ["LSTM", "GRU", "RNN"] {
        let mut whole = classifier(op, "forward", STEPS);
        passes::prepare(&mut whole, &Default::default()).unwrap();
        let names = ["scores".to_owned()];
        let whole = exec::runner(&whole, &names, Backend::Tract).unwrap();
        let step = Stateful::new(&float(op), &names, Backend::Tract).unwrap();
        let step = LastStep { runner: &step, elements: Some(vec![CLASSES]) };
        let batch = crate::data::Batch { first: 0, count: 3, inputs: vec![sequences(3, STEPS)] };
        let (a, b) = (whole.run(&batch).unwrap(), step.run(&batch).unwrap());
        assert!(difference(&a[0], &b[0]).0 < 1e-5, "{op}");
    }
}

#[test]
fn cells_run_as_integers_over_sequences() {
    for op in ["LSTM", "GRU", "RNN"] {
        let quantized = quantized(op);
        let batch = quantized.batch();
        assert_eq!(
            (batch.count, batch.inputs.len(), batch.inputs[0].len()),
            (SEQUENCES, 1, SEQUENCES * STEPS * INPUTS)
        );
        let names = pipeline::output_names(&quantized.qdq);
        let float = Stateful::new(&float(op), &names, Backend::Tract).unwrap().run(&batch).unwrap();
        let simulation = pipeline::whole_runner(&quantized.qdq, &names, Backend::Tract).unwrap().run(&batch).unwrap();
        let plan = PlanRunner::new(&quantized.plan).unwrap();
        assert!(plan.is_streaming());
        assert_eq!(plan.plan().input_count(), 1, "states are the plan's own");
        let plan = plan.run(&batch).unwrap();
        for (i, name) in names.iter().enumerate() {
            assert_eq!(plan[i].len(), float[i].len(), "{name}");
            let noise = difference(&simulation[i], &float[i]).1;
            let apart = difference(&plan[i], &simulation[i]).1;
            println!("{op} {name}: noise {noise}, plan {apart}");
            assert!(noise > 1e-5 && noise < 0.03, "{op} {name}: {noise}");
            assert!(apart < noise / 2.0, "{op} {name}: {apart} of {noise}");
        }
        if let Some(ort) = quantized.ort() {
            let noise = difference(&simulation[0], &float[0]).1;
            assert!(difference(&ort[0], &simulation[0]).1 < noise / 4.0);
        }
    }
}

#[test]
fn a_state_and_its_output_are_quantized_alike() {
    let quantized = quantized("LSTM");
    let parameters = |name: &str| {
        let get = |what: &str| &quantized.qdq.initializers[&format!("{name}_{what}")];
        (get("scale").scalar_f32().unwrap(), get("zero_point").to_i64(), get("zero_point").dtype)
    };
    assert_eq!(parameters("h_in"), parameters("h_out"));
    assert_eq!(parameters("c_in"), parameters("c_out"));
    assert_eq!((parameters("h_in").2, parameters("c_in").2), (DataType::U8, DataType::I16), "what sums up has 16 bits");
    assert_eq!(state::pairs(&quantized.qdq).unwrap(), pairs("LSTM"), "the file tells");
}

#[test]
fn sessions_keep_state_until_it_is_reset() {
    let quantized = quantized("GRU");
    let plan = Plan::<equant_runtime::operator::AllOperators>::parse(&quantized.plan).unwrap();
    assert_eq!(plan.ops().filter(|op| op.kind == OpKind::State).count(), 1);
    let mut arena = equant_runtime::plan::AlignedBytes::zeroed(plan.arena_len());
    arena.fill(0x5A);
    let mut session = Session::new(plan, &mut arena).unwrap();
    let x = Random(3).values(INPUTS, 1.0);
    let mut step = |reset: bool| {
        if reset {
            session.reset_state().unwrap();
        }
        session.quantize_input(0, &x).unwrap();
        session.run().unwrap();
        session.output(0).unwrap().to_vec()
    };
    let (first, second) = (step(true), step(false));
    assert_ne!(first, second);
    assert_eq!((step(true), step(false)), (first, second));
}

#[test]
fn wrong_states_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (model, x) = (folder.path().join("cell.onnx"), folder.path().join("x.npz"));
    onnx::write(&cell("LSTM"), &model).unwrap();
    super::support::npz(&x, &samples());
    let refusal = |states: &[&str]| {
        let mut request = Request::new(&model, &x);
        request.states = states.iter().map(|text| text.parse().unwrap()).collect();
        pipeline::quantize(&request, &Silent).unwrap_err().to_string()
    };
    let reason = refusal(&["h_out=h"]);
    assert!(
        reason.contains("cell.onnx: state h_out=h: the model has no input `h`; its inputs are: x, h_in, c_in"),
        "{reason}"
    );
    let reason = refusal(&["scores=h_in", "c_out=c_in"]);
    assert!(reason.contains("the output has shape [1, 4] and the input [1, 12]"), "{reason}");
    let reason = refusal(&["h_out=h_in"]);
    assert!(reason.contains("no array `c_in`"), "what is no state must be given: {reason}");
    let reason = refusal(&[]);
    assert!(reason.contains("no array `h_in`") && reason.contains("--state OUTPUT=h_in"), "{reason}");
    super::support::npz(&x, &[("x", &[SEQUENCES, INPUTS], Array::Floats(sequences(SEQUENCES, 1)))]);
    let reason = refusal(&["h_out=h_in", "c_out=c_in"]);
    assert!(reason.contains("samples are sequences: input `x` needs [N, steps, 6]"), "{reason}");
}

#[test]
fn a_plan_needs_a_state_and_its_output_alike() {
    let quantized = quantized("LSTM");
    let mut graph = onnx::from_bytes(&quantized.artifacts.onnx, None, "cell").unwrap();
    let scale = graph.initializers["h_in_scale"].scalar_f32().unwrap();
    graph.initializers.insert("h_in_scale".into(), Tensor::from_f32(&[], &[scale * 1.5]));
    let reason = pipeline::compile_graph(graph, "cell", &Default::default()).unwrap_err().to_string();
    assert!(reason.contains("h_out") && reason.contains("--state h_out=h_in"), "{reason}");
}
