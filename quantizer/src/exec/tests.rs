use std::path::{Path, PathBuf};

use super::*;
use crate::data::Samples;
use crate::graph::{Attr, DataType, Dim, Node, Tensor, ValueInfo};
use crate::passes::{Dims, prepare};

/// The models of the repository and their test samples.
const MODELS: [(&str, &str); 5] =
    [("resnet8", "fmnist"), ("mbv1", "fmnist"), ("dscnn", "fmnist"), ("vit", "fmnist"), ("ae", "ae")];

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn prepared(name: &str) -> Graph {
    let mut graph = crate::onnx::read(&models().join(format!("{name}/{name}.onnx"))).unwrap();
    prepare(&mut graph, &Dims::new()).unwrap();
    graph
}

fn names(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}

fn graph(nodes: Vec<Node>, initializers: &[(&str, Tensor)], inputs: &[(&str, &[usize])], outputs: &[&str]) -> Graph {
    let value = |name: &str, dims: Option<Vec<Dim>>| ValueInfo { name: name.into(), dtype: DataType::F32, shape: dims };
    let dims = |shape: &[usize]| {
        let rest = shape.iter().map(|&dim| Dim::Known(dim));
        std::iter::once(Dim::Symbol("N".into())).chain(rest).collect()
    };
    Graph {
        opset: 21,
        nodes,
        initializers: initializers.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect(),
        inputs: inputs.iter().map(|(name, shape)| value(name, Some(dims(shape)))).collect(),
        outputs: outputs.iter().map(|name| value(name, None)).collect(),
        ..Graph::default()
    }
}

#[cfg(feature = "tract")]
mod with_tract {
    use super::*;

    #[test]
    fn all_models_run_and_classify() {
        for (name, data) in MODELS {
            let graph = prepared(name);
            let samples = Samples::open(&models().join(format!("data/{data}_test10k.npz")), &graph).unwrap();
            let output = graph.outputs[0].name.clone();
            let runner = runner(&graph, &[output], Backend::Tract).unwrap();
            let batch = samples.batches(64).unwrap().next().unwrap().unwrap();
            let values = &runner.run(&batch).unwrap()[0];
            if name == "ae" {
                // An autoencoder: three quarters of the power of these samples are in the output.
                let (x, y) = (&batch.inputs[0], values);
                let error: f32 = x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum();
                let power: f32 = x.iter().map(|x| x.powi(2)).sum();
                assert!(error < 0.25 * power, "{name}: {error} of {power}");
            } else {
                let labels = samples.labels().unwrap();
                let top = |scores: &[f32]| (0..10).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap() as i64;
                let right = values.chunks(10).zip(labels).filter(|(scores, label)| top(scores) == **label).count();
                assert!(right >= 54, "{name}: {right} of 64");
            }
        }
    }

    #[test]
    fn any_value_can_be_asked_for_also_twice() {
        let weight = Tensor::from_f32(&[2], &[10.0, 20.0]);
        let nodes = vec![
            Node::new("Add", "add", ["a", "w"], ["sum"]),
            Node::new("Relu", "relu", ["sum"], ["y"]),
            Node::new("Neg", "neg", ["b"], ["z"]),
            Node::new("Shape", "shape", ["sum"], ["s"]),
        ];
        let graph = graph(nodes, &[("w", weight)], &[("a", &[2]), ("b", &[3])], &["y", "z"]);
        let batch =
            Batch { first: 0, count: 2, inputs: vec![vec![1.0, -30.0, 3.0, 4.0], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]] };
        let asked = names(&["y", "b", "sum", "w", "y", "s"]);
        let values = runner(&graph, &asked, Backend::Tract).unwrap().run(&batch).unwrap();
        let y = vec![11.0, 0.0, 13.0, 24.0];
        assert_eq!(values[0], y);
        assert_eq!(values[1], batch.inputs[1]);
        assert_eq!(values[2], [11.0, -10.0, 13.0, 24.0]);
        assert_eq!(values[3], [10.0, 20.0, 10.0, 20.0]);
        assert_eq!(values[4], y);
        assert_eq!(values[5], [1.0, 2.0, 1.0, 2.0]);
        // The other input alone, and no node at all.
        assert_eq!(
            runner(&graph, &names(&["z"]), Backend::Tract).unwrap().run(&batch).unwrap()[0],
            [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]
        );
        assert_eq!(runner(&graph, &names(&["a"]), Backend::Tract).unwrap().run(&batch).unwrap()[0], batch.inputs[0]);
    }

    #[test]
    fn rounds_half_to_even_and_clips_as_quantize_linear_does() {
        let scalar = |value| Tensor::from_f32(&[], &[value]);
        let nodes = vec![
            Node::new("Div", "div", ["x", "scale"], ["q0"]),
            Node::new("Round", "round", ["q0"], ["q1"]),
            Node::new("Add", "add", ["q1", "zero"], ["q2"]),
            Node::new("Clip", "clip", ["q2", "low", "high"], ["q3"]),
            Node::new("Sub", "sub", ["q3", "zero"], ["q4"]),
            Node::new("Mul", "mul", ["q4", "scale"], ["y"]),
        ];
        let constants =
            [("scale", scalar(0.3)), ("zero", scalar(-3.0)), ("low", scalar(-128.0)), ("high", scalar(127.0))];
        let graph = graph(nodes, &constants, &[("x", &[1])], &["y"]);
        let mut inputs: Vec<f32> = (-2000..2000).map(|i| i as f32 * 0.05).collect();
        inputs.extend((-140..140).map(|i| (i as f32 + 0.5) * 0.3));
        let batch = Batch { first: 0, count: inputs.len(), inputs: vec![inputs.clone()] };
        let values = runner(&graph, &names(&["y", "q1"]), Backend::Tract).unwrap().run(&batch).unwrap();
        let mut ties = 0;
        for (i, &x) in inputs.iter().enumerate() {
            let q = x / 0.3;
            ties += usize::from(q.fract().abs() == 0.5);
            assert_eq!(values[1][i], q.round_ties_even(), "{x}");
            let expected = equant_runtime::quant::quantize(x, 0.3, -3, (-128, 127));
            assert_eq!(values[0][i], equant_runtime::quant::dequantize(expected, 0.3, -3), "{x}");
        }
        assert!(ties > 100, "{ties}");
    }

    #[test]
    fn refusals_name_value_node_and_operator() {
        let nodes = vec![Node::new("Relu", "relu", ["x"], ["y"]), Node::new("Frobnicate", "odd", ["y"], ["z"])];
        let mut odd = graph(nodes, &[], &[("x", &[2])], &["z"]);
        let fails =
            |graph: &Graph, value: &str| runner(graph, &names(&[value]), Backend::Tract).err().unwrap().to_string();
        assert_eq!(fails(&odd, "nothing"), "the model has no value `nothing`; its outputs are: z");
        assert_eq!(fails(&odd, ""), "the model has no value ``; its outputs are: z");
        let refused = fails(&odd, "z");
        assert!(refused.contains("odd") && refused.contains("Frobnicate"), "{refused}");
        // Only what a value needs is loaded.
        runner(&odd, &names(&["y"]), Backend::Tract).unwrap();
        odd.nodes[1] = Node::new("QuantizeLinear", "q", ["y", "s"], ["z"]).with("axis", Attr::Int(1));
        odd.initializers.insert("s".into(), Tensor::from_f32(&[], &[1.0]));
        let refused = fails(&odd, "z");
        assert!(refused.starts_with("node `q` (QuantizeLinear): tract does not run quantized graphs"), "{refused}");
        odd.inputs[0].shape = None;
        assert!(fails(&odd, "y").contains("graph input `x`: it declares no shape"));
    }

    #[test]
    fn batches_that_do_not_fit_are_refused() {
        let graph = graph(vec![Node::new("Relu", "relu", ["x"], ["y"])], &[], &[("x", &[2])], &["y"]);
        let runner = runner(&graph, &names(&["y"]), Backend::Tract).unwrap();
        let run = |inputs| runner.run(&Batch { first: 0, count: 2, inputs }).unwrap_err().to_string();
        assert_eq!(run(vec![vec![0.0; 3]]), "input `x` got 3 elements, and 2 sample(s) of it have 4");
        assert_eq!(run(vec![]), "the model has 1 input(s), and the batch has 0");
    }
}

#[cfg(feature = "ort")]
mod with_ort {
    use super::*;

    /// Whether ONNX Runtime is there; prints a notice if it is not.
    fn available(test: &str) -> bool {
        match use_onnx_runtime(None) {
            Ok(()) => true,
            Err(Error::Ort(equant_server::Error::NotFound { .. })) => {
                eprintln!("{test}: skipped, ONNX Runtime was not found");
                false
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[cfg(feature = "tract")]
    #[test]
    fn tract_and_onnx_runtime_agree_on_every_value_of_every_model() {
        if !available("tract_and_onnx_runtime_agree") {
            return;
        }
        for (name, data) in MODELS {
            let graph = prepared(name);
            let types = crate::graph::shape::infer(&graph, 1).unwrap();
            let values: Vec<String> = graph.nodes.iter().flat_map(|node| node.outputs.clone()).collect();
            let values: Vec<String> = values.into_iter().filter(|v| types[v].dtype == DataType::F32).collect();
            let samples = Samples::open(&models().join(format!("data/{data}_test10k.npz")), &graph).unwrap();
            let batch = samples.batches(64).unwrap().next().unwrap().unwrap();
            let run = |backend| runner(&graph, &values, backend).unwrap().run(&batch).unwrap();
            let (tract, ort) = (run(Backend::Tract), run(Backend::Ort));
            for ((value, a), b) in values.iter().zip(&tract).zip(&ort) {
                assert_eq!(a.len(), b.len(), "{name} {value}");
                let largest = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                let error = a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(error <= 1e-4 * largest, "{name} {value}: {error} of {largest}");
            }
        }
    }

    #[test]
    fn quantized_graphs_run_and_integers_can_be_asked_for() {
        if !available("quantized_graphs_run") {
            return;
        }
        let nodes = vec![
            Node::new("QuantizeLinear", "q", ["x", "s", "z"], ["i"]),
            Node::new("DequantizeLinear", "dq", ["i", "s", "z"], ["y"]),
        ];
        let constants = [("s", Tensor::from_f32(&[], &[0.5])), ("z", Tensor::from_ints(DataType::I8, &[], &[-3]))];
        let graph = graph(nodes, &constants, &[("x", &[4])], &["y"]);
        let batch = Batch { first: 0, count: 1, inputs: vec![vec![0.25, 0.75, -100.0, 1.0]] };
        let values = runner(&graph, &names(&["i", "y", "z"]), Backend::Ort).unwrap().run(&batch).unwrap();
        // Half to even: 0.5 to 0, 1.5 to 2.
        assert_eq!(values, [vec![-3.0, -1.0, -128.0, -1.0], vec![0.0, 1.0, -62.5, 1.0], vec![-3.0]]);
    }

    #[test]
    fn refusals_name_the_node() {
        if !available("refusals_name_the_node") {
            return;
        }
        let graph = graph(vec![Node::new("Frobnicate", "odd", ["x"], ["y"])], &[], &[("x", &[2])], &["y"]);
        let error = runner(&graph, &names(&["y"]), Backend::Ort).err().unwrap().to_string();
        assert!(error.contains("Frobnicate"), "{error}");
    }
}

mod plans {
    use equant_runtime::op::RequantizeParams;
    use equant_runtime::plan::{AlignedBytes, Builder, DType, LOGICAL_NCHW, Target, TensorRecord};

    use super::*;

    /// Halves the stored values of a `[1, 2, 2, 3]` tensor whose model shape is `[1, 3, 2, 2]`; the output is i16,
    /// in the stored order if `flagged` is false.
    fn halving(flagged: bool) -> Vec<u8> {
        let mut builder = Builder::new(Target::Portable);
        let record = |dtype, flags, scale, offset| TensorRecord {
            dtype,
            rank: 4,
            flags,
            dims: [1, 2, 2, 3],
            scale,
            zero_point: 0,
            offset,
        };
        let x = builder.tensor(record(DType::I8, LOGICAL_NCHW, 1.0, 0)).unwrap();
        let y = builder.tensor(record(DType::I16, if flagged { LOGICAL_NCHW } else { 0 }, 0.25, 16)).unwrap();
        let params = RequantizeParams { mantissa: 1 << 30, shift: 0, clamp: [-32768, 32767] };
        builder.op(&params, &[x], &[y], 12, Some("halve")).unwrap();
        builder.input(x);
        builder.output(y);
        builder.memory(48, 0);
        builder.finish().unwrap()
    }

    fn batch() -> Batch {
        Batch { first: 0, count: 2, inputs: vec![(0..24).map(|i| (i * 2) as f32).collect()] }
    }

    #[test]
    fn elements_come_and_go_in_the_order_of_the_model() {
        let values = plan_runner(&halving(true)).unwrap().run(&batch()).unwrap();
        assert_eq!(values, [(0..24).map(|i| i as f32 * 0.25).collect::<Vec<f32>>()]);
        // Stored order: position by position, channels innermost.
        let values = plan_runner(&halving(false)).unwrap().run(&batch()).unwrap();
        let stored = [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11];
        let expected: Vec<f32> = (0..2).flat_map(|n| stored.map(|i| (i + 12 * n) as f32 * 0.25)).collect();
        assert_eq!(values, [expected]);
    }

    #[test]
    fn raw_integers_and_times() {
        let image = AlignedBytes::from(&halving(true)[..]);
        let runner = PlanRunner::new(&image).unwrap();
        let raw = runner.run_raw(&batch()).unwrap();
        assert_eq!(raw, [RawOutput { scale: 0.25, zero_point: 0, values: (0..24).collect() }]);
        let profile = runner.profile(&batch()).unwrap();
        assert_eq!((profile[0].name.as_str(), profile[0].kind, profile[0].macs), ("halve", "Requantize", 12));
        assert!(profile.len() == 1 && profile[0].nanoseconds < u64::MAX, "{profile:?}");
    }

    #[test]
    fn damaged_plans_and_other_batches_are_refused() {
        let mut image = halving(true);
        let few = Batch { first: 0, count: 1, inputs: vec![vec![0.0; 11]] };
        let few = plan_runner(&image).unwrap().run(&few).unwrap_err().to_string();
        assert_eq!(few, "input `#0` got 11 elements, and 1 sample(s) of it have 12");
        let last = image.len() - 1;
        image[last] ^= 1;
        assert!(matches!(plan_runner(&image), Err(Error::Plan(_))));
        assert!(plan_runner(&[]).err().unwrap().to_string().starts_with("the plan is refused: "));
    }
}
