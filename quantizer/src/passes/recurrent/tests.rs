use std::collections::BTreeMap;

use super::*;
use crate::data::Batch;
use crate::exec::{self, Backend};
use crate::graph::{Attr, DataType, Dim, Tensor, ValueInfo, support};
use crate::passes::prepare;

/// A node over `[N, steps, inputs]` (or time first), with random weights.
pub(crate) struct Net {
    pub(crate) graph: Graph,
    seed: u32,
}

impl Net {
    fn values(&mut self, count: usize, bound: f32) -> Vec<f32> {
        let mut next = || {
            self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((self.seed >> 8) as f32 / (1 << 23) as f32 - 1.0) * bound
        };
        (0..count).map(|_| next()).collect()
    }

    fn constant(&mut self, name: &str, shape: &[usize], bound: f32) {
        let values = self.values(shape.iter().product(), bound);
        self.graph.initializers.insert(name.into(), Tensor::from_f32(shape, &values));
    }

    fn new(op: &str, direction: &str, [steps, inputs, hidden]: [usize; 3], attrs: &[(&str, Attr)]) -> Self {
        let gates = match op {
            "LSTM" => 4,
            "GRU" => 3,
            _ => 1,
        };
        let directions = if direction == "bidirectional" { 2 } else { 1 };
        let input = |name: &str, dims: &[usize]| ValueInfo {
            name: name.into(),
            dtype: DataType::F32,
            shape: Some(dims.iter().map(|&dim| Dim::Known(dim)).collect()),
        };
        let output = |name: &str| ValueInfo { name: name.into(), dtype: DataType::F32, shape: None };
        let mut inputs_of = vec!["x", "w", "r", "b", "", "h0"];
        let mut outputs = vec!["y", "y_h"];
        let mut graph = Graph { opset: 17, ..Graph::default() };
        let batch_first = attrs.iter().any(|(name, _)| *name == "layout");
        graph.inputs = vec![input("x", &[1, steps, inputs]), input("h0", &[1, directions, hidden])];
        if op == "LSTM" {
            inputs_of.push("c0");
            outputs.push("y_c");
            graph.inputs.push(input("c0", &[1, directions, hidden]));
        }
        let time_first = ["x_t", "h0_t", "c0_t"];
        if !batch_first {
            for (input, moved) in graph.inputs.iter().zip(time_first) {
                let transpose = Node::new("Transpose", moved, [input.name.as_str()], [moved]);
                graph.nodes.push(transpose.with("perm", Attr::Ints(vec![1, 0, 2])));
            }
            inputs_of[0] = "x_t";
            inputs_of.iter_mut().skip(5).zip(&time_first[1..]).for_each(|(name, moved)| *name = moved);
        }
        graph.outputs = outputs.iter().map(|name| output(name)).collect();
        let mut node = Node::new(op, "cell", inputs_of, outputs)
            .with("direction", Attr::String(direction.into()))
            .with("hidden_size", Attr::Int(hidden as i64));
        for (name, attr) in attrs {
            node = node.with(name, attr.clone());
        }
        graph.nodes.push(node);
        let mut net = Self { graph, seed: 11 };
        net.constant("w", &[directions, gates * hidden, inputs], 0.9);
        net.constant("r", &[directions, gates * hidden, hidden], 0.9);
        net.constant("b", &[directions, 2 * gates * hidden], 0.5);
        net
    }

    /// The same without initial states.
    fn without_state(mut self) -> Self {
        self.graph.inputs.truncate(1);
        self.cell().inputs.truncate(5);
        self.graph.remove_unused();
        self
    }

    /// The recurrent node.
    fn cell(&mut self) -> &mut Node {
        self.graph.nodes.last_mut().expect("a node")
    }

    /// Outputs before and after the rewrite.
    fn compare(self) -> Graph {
        self.compare_with(Backend::Tract)
    }

    /// As [`Self::compare`], by what runs the operator itself.
    fn compare_with(mut self, oracle: Backend) -> Graph {
        let before = self.graph.clone();
        let mut after = before.clone();
        prepare(&mut after, &BTreeMap::new()).unwrap();
        assert!(after.nodes.iter().all(|node| !is_recurrent(node)), "{:?}", support::check(&before));
        let elements = |input: &ValueInfo| -> usize {
            let dims = input.shape.iter().flatten();
            dims.map(|dim| if let Dim::Known(size) = dim { *size } else { 1 }).product()
        };
        let counts: Vec<usize> = before.inputs.iter().map(elements).collect();
        let inputs = counts.into_iter().map(|count| self.values(count, 1.0)).collect();
        let batch = Batch { first: 0, count: 1, inputs };
        let names: Vec<String> = before.outputs.iter().map(|output| output.name.clone()).collect();
        let run = |graph: &Graph, backend| exec::runner(graph, &names, backend).unwrap().run(&batch).unwrap();
        for ((name, a), b) in names.iter().zip(run(&before, oracle)).zip(run(&after, Backend::Tract)) {
            assert_eq!(a.len(), b.len(), "{name}");
            let worst = a.iter().zip(&b).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            let spread = a.iter().fold(0f32, |most, x| most.max(x.abs()));
            assert!(worst < 2e-6 && spread > 0.05, "{name}: {worst} of {spread}: {:?}", before.nodes.last());
        }
        after
    }
}

fn names(names: &[&str]) -> Attr {
    Attr::Strings(names.iter().map(|&name| name.to_owned()).collect())
}

/// What computes the operators themselves: ONNX Runtime where it is installed; tract has them forward only, and right.
fn oracle(direction: &str) -> Option<Backend> {
    let library = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../.equant/onnxruntime/libonnxruntime.so");
    if library.exists() {
        exec::use_onnx_runtime(Some(&library)).unwrap();
        return Some(Backend::Ort);
    }
    (direction == "forward").then_some(Backend::Tract)
}

#[test]
fn every_cell_computes_what_its_operator_does() {
    let after_product = |on| ("linear_before_reset", Attr::Int(on));
    for direction in ["forward", "reverse", "bidirectional"] {
        let Some(oracle) = oracle(direction) else { continue };
        for sizes in [[1, 3, 2], [5, 2, 3]] {
            Net::new("LSTM", direction, sizes, &[]).compare_with(oracle);
            Net::new("LSTM", direction, sizes, &[]).without_state().compare_with(oracle);
            Net::new("RNN", direction, sizes, &[]).compare_with(oracle);
            for on in [0, 1] {
                Net::new("GRU", direction, sizes, &[after_product(on)]).compare_with(oracle);
                Net::new("GRU", direction, sizes, &[after_product(on)]).without_state().compare_with(oracle);
            }
        }
    }
}

#[test]
fn the_layout_changes_no_number() {
    for op in ["LSTM", "GRU", "RNN"] {
        let outputs = |attrs: &[(&str, Attr)]| {
            let mut net = Net::new(op, "bidirectional", [4, 2, 3], attrs);
            prepare(&mut net.graph, &BTreeMap::new()).unwrap();
            assert!(net.graph.nodes.iter().all(|node| !is_recurrent(node)));
            let inputs = net.graph.inputs.len();
            let mut sizes = vec![8, 6, 6];
            sizes.truncate(inputs);
            let inputs = sizes.into_iter().map(|size| net.values(size, 1.0)).collect();
            let names: Vec<String> = net.graph.outputs.iter().map(|output| output.name.clone()).collect();
            let runner = exec::runner(&net.graph, &names, Backend::Tract).unwrap();
            runner.run(&Batch { first: 0, count: 1, inputs }).unwrap()
        };
        // Of one sample, axes of the batch do not move anything.
        assert_eq!(outputs(&[]), outputs(&[("layout", Attr::Int(1))]), "{op}");
    }
}

/// tract takes every RNN for one with Tanh.
#[test]
fn activations_of_an_rnn_are_those_it_names() {
    if oracle("bidirectional").is_none() {
        return;
    }
    for name in ["Relu", "Sigmoid", "Tanh"] {
        let net = || Net::new("RNN", "bidirectional", [4, 2, 3], &[("activations", names(&[name, name]))]);
        net().compare_with(Backend::Ort);
        net().without_state().compare_with(Backend::Ort);
    }
}

#[test]
fn long_sequences_join_in_parts_and_share_weights() {
    let after = Net::new("LSTM", "forward", [300, 2, 3], &[]).without_state().compare();
    let weights = after.initializers.values().filter(|tensor| tensor.shape.len() == 2).count();
    assert_eq!(weights, 2, "weights are there once");
    assert!(after.nodes.iter().all(|node| node.inputs.len() <= 128));
    let cells = after.tied.iter().find(|tied| tied.wide).expect("cells");
    assert_eq!(cells.values.len(), 300);
}

#[test]
fn what_is_not_supported_is_named() {
    let reason = |edit: &dyn Fn(&mut Node)| {
        let mut net = Net::new("LSTM", "forward", [2, 2, 3], &[]);
        edit(net.cell());
        let node = net.cell().clone();
        refusal(&net.graph, &node).expect("a refusal")
    };
    let set =
        |name: &'static str, attr: Attr| move |node: &mut Node| drop(node.attrs.insert(name.into(), attr.clone()));
    let activations = reason(&set("activations", names(&["Sigmoid", "Softsign", "Tanh"])));
    assert_eq!(activations, "activation `Softsign` is not supported; Sigmoid, Tanh, Tanh are, in this order");
    assert!(reason(&set("clip", Attr::Float(3.0))).contains("clip"));
    assert!(reason(&set("input_forget", Attr::Int(1))).contains("input_forget"));
    assert!(reason(&set("direction", Attr::String("both".into()))).contains("direction `both`"));
    assert!(reason(&|node| node.inputs.push("p".into())).contains("peepholes"));
    assert!(reason(&|node| node.inputs[4] = "lengths".into()).contains("sequence_lens (`lengths`)"));
    assert!(reason(&|node| node.inputs[1] = "x".into()).contains("weights W must be float constants"));
    assert!(reason(&|node| node.inputs[2] = "w".into()).contains("do not fit"));
    let mut lengths = Net::new("GRU", "forward", [2, 2, 3], &[]);
    lengths.cell().inputs[4] = "lengths".into();
    lengths.graph.initializers.insert("lengths".into(), Tensor::from_ints(DataType::I32, &[1], &[2]));
    let node = lengths.cell().clone();
    assert_eq!(refusal(&lengths.graph, &node), None, "lengths of the whole sequence say nothing");
}
