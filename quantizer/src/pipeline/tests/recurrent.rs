//! Classifiers of sequences by LSTM, GRU and RNN.

use std::collections::BTreeSet;

use super::support::{Array, Quantized, Random, difference, quantize, value};
use crate::graph::{Attr, DataType, Graph, Node, Tensor};

pub(super) const INPUTS: usize = 6;
pub(super) const HIDDEN: usize = 12;
pub(super) const CLASSES: usize = 4;

/// `[N, T, F]` → time first → a recurrent layer → its last output → Gemm to classes.
pub(super) fn classifier(op: &str, direction: &str, steps: usize) -> Graph {
    let mut random = Random(91);
    let gates = match op {
        "LSTM" => 4,
        "GRU" => 3,
        _ => 1,
    };
    let directions = if direction == "bidirectional" { 2 } else { 1 };
    let width = directions * HIDDEN;
    let mut graph = Graph {
        name: "sequence".into(),
        opset: 17,
        inputs: vec![value("x", DataType::F32, &[steps, INPUTS])],
        outputs: vec![value("scores", DataType::F32, &[CLASSES])],
        nodes: vec![
            Node::new("Transpose", "time_first", ["x"], ["xt"]).with("perm", Attr::Ints(vec![1, 0, 2])),
            Node::new(op, "layer", ["xt", "w", "r", "b"], ["y", "y_h"])
                .with("hidden_size", Attr::Int(HIDDEN as i64))
                .with("direction", Attr::String(direction.into()))
                .with("linear_before_reset", Attr::Int(1)),
            Node::new("Transpose", "batch_first", ["y_h"], ["h"]).with("perm", Attr::Ints(vec![1, 0, 2])),
            Node::new("Reshape", "flat", ["h", "shape"], ["f"]),
            Node::new("Gemm", "fc", ["f", "g", "c"], ["scores"]).with("transB", Attr::Int(1)),
        ],
        ..Graph::default()
    };
    if op != "GRU" {
        graph.nodes[1].attrs.remove("linear_before_reset");
    }
    let mut constant = |name: &str, shape: &[usize], bound: f32| {
        graph.initializers.insert(name.into(), random.tensor(shape, bound));
    };
    constant("w", &[directions, gates * HIDDEN, INPUTS], 0.8);
    constant("r", &[directions, gates * HIDDEN, HIDDEN], 0.5);
    constant("b", &[directions, 2 * gates * HIDDEN], 0.3);
    constant("g", &[CLASSES, width], 1.0);
    constant("c", &[CLASSES], 0.2);
    graph.initializers.insert("shape".into(), Tensor::from_i64(&[2], &[0, width as i64]));
    graph
}

/// The same with a second layer, which reads the whole sequence that the first one gives.
fn stacked(steps: usize) -> Graph {
    let mut graph = classifier("LSTM", "bidirectional", steps);
    let mut random = Random(29);
    let width = 2 * HIDDEN;
    graph.nodes[1].outputs.truncate(1);
    let perm = Attr::Ints(vec![0, 2, 1, 3]);
    graph.nodes.insert(2, Node::new("Transpose", "directions", ["y"], ["by_sample"]).with("perm", perm));
    graph.nodes.insert(3, Node::new("Reshape", "join", ["by_sample", "joined"], ["y1"]));
    let second = Node::new("GRU", "second", ["y1", "w2", "r2"], ["", "y_h"]);
    graph.nodes.insert(4, second.with("hidden_size", Attr::Int(HIDDEN as i64)));
    graph.initializers.insert("joined".into(), Tensor::from_i64(&[3], &[0, 0, width as i64]));
    graph.initializers.insert("w2".into(), random.tensor(&[1, 3 * HIDDEN, width], 0.6));
    graph.initializers.insert("r2".into(), random.tensor(&[1, 3 * HIDDEN, HIDDEN], 0.5));
    graph.initializers.insert("g".into(), random.tensor(&[CLASSES, HIDDEN], 1.0));
    graph.initializers.insert("shape".into(), Tensor::from_i64(&[2], &[0, HIDDEN as i64]));
    graph
}

/// Smooth random walks: what sensors give.
pub(super) fn sequences(count: usize, steps: usize) -> Vec<f32> {
    let mut random = Random(17);
    let mut values = Vec::with_capacity(count * steps * INPUTS);
    for _ in 0..count {
        let mut at = random.values(INPUTS, 1.0);
        for _ in 0..steps {
            let moves = random.values(INPUTS, 0.7);
            at.iter_mut().zip(moves).for_each(|(at, by)| *at = 0.9 * *at + by);
            values.extend_from_slice(&at);
        }
    }
    values
}

fn quantized(op: &str, direction: &str, steps: usize) -> Quantized {
    let samples = Array::Floats(sequences(48, steps));
    quantize(&classifier(op, direction, steps), &[("x", &[48, steps, INPUTS], samples)], |_| ())
}

/// The forms of a model agree, and the integers are near the floats.
fn agree(op: &str, direction: &str, steps: usize, most_noise: f32) -> Quantized {
    agreeing(quantized(op, direction, steps), &format!("{op} {direction} {steps}"), most_noise)
}

fn agreeing(quantized: Quantized, what: &str, most_noise: f32) -> Quantized {
    let [float, simulation, plan] = quantized.outputs();
    let noise = difference(&simulation[0], &float[0]).1;
    let apart = difference(&plan[0], &simulation[0]);
    println!("{what}: noise {noise}, plan {apart:?}, {} bytes", quantized.plan.len());
    assert!(noise > 1e-5 && noise < most_noise, "{what}: {noise}");
    // Roundings that fall the other way are carried on by later steps: less than quantization itself does.
    assert!(apart.1 < 0.75 * noise, "{what}: {apart:?} of {noise}");
    if let Some(ort) = quantized.ort() {
        let apart = difference(&ort[0], &simulation[0]);
        assert!(apart.1 < noise / 4.0, "{what}: {apart:?}");
    }
    quantized
}

#[test]
fn classifiers_run_as_integers() {
    agree("LSTM", "forward", 9, 0.03);
    agree("LSTM", "bidirectional", 5, 0.03);
    agree("GRU", "forward", 9, 0.03);
    agree("GRU", "reverse", 6, 0.03);
    agree("RNN", "bidirectional", 7, 0.03);
}

#[test]
fn layers_follow_each_other() {
    let samples = Array::Floats(sequences(48, 6));
    agreeing(quantize(&stacked(6), &[("x", &[48, 6, INPUTS], samples)], |_| ()), "stacked", 0.03);
}

#[test]
fn steps_share_weights_and_scales() {
    let short = agree("LSTM", "forward", 8, 0.03);
    let long = agree("LSTM", "forward", 16, 0.03);
    let scales = |quantized: &Quantized, what: &str| -> BTreeSet<u32> {
        let scales = quantized.qdq.initializers.iter().filter(|(name, _)| {
            name.strip_prefix("layer/").is_some_and(|name| {
                name.starts_with(what)
                    && name.ends_with("_scale")
                    && name[what.len()..].starts_with(|c: char| c.is_ascii_digit())
            })
        });
        scales.map(|(_, tensor)| tensor.scalar_f32().expect("a scalar").to_bits()).collect()
    };
    for what in ["cell_", "hidden_", "gates_", "squashed_", "candidate_"] {
        assert_eq!(scales(&long, what).len(), 1, "{what}");
    }
    let weights = |quantized: &Quantized| {
        let tensors = quantized.qdq.initializers.values();
        tensors.filter(|tensor| tensor.dtype == DataType::I8 && tensor.shape.len() == 2).count()
    };
    assert_eq!((weights(&short), weights(&long)), (3, 3), "of the input, of the state, and of the classes");
    let per_step = long.plan.len().saturating_sub(short.plan.len()) / 8;
    println!("{per_step} bytes of plan for each step");
    assert!(per_step < 8, "{per_step}: steps are in the plan once");
}

#[test]
fn many_steps_do_not_drift() {
    agree("LSTM", "forward", 24, 0.03);
    agree("GRU", "forward", 24, 0.03);
}
