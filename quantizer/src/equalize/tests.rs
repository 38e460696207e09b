use proptest::prelude::*;

use super::noise::Noise;
use super::*;
use crate::data::Batch;
use crate::exec::{Backend, runner};
use crate::graph::shape::infer_partial;
use crate::graph::{Attr, DataType, Dim, Node, Tensor, ValueInfo};

const METHODS: [Method; 4] = [Method::CrossLayer, Method::Migrate(0.5), Method::Migrate(1.0), Method::Predicted];
const SAMPLES: usize = 8;

/// Builds graphs of random weights whose rows differ by powers of ten.
struct Builder {
    graph: Graph,
    state: u64,
    /// Decades that rows of weights differ by.
    decades: f32,
    value: String,
}

impl Builder {
    fn new(shape: &[usize], decades: f32) -> Self {
        let dims = std::iter::once(Dim::Symbol("N".into())).chain(shape.iter().map(|&dim| Dim::Known(dim))).collect();
        let input = ValueInfo { name: "x".into(), dtype: DataType::F32, shape: Some(dims) };
        let graph = Graph { opset: 21, inputs: vec![input], ..Graph::default() };
        Self { graph, state: 7, decades, value: "x".into() }
    }

    /// In [−1, 1).
    fn random(&mut self) -> f32 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn shape(&self, value: &str) -> Vec<usize> {
        infer_partial(&self.graph, 1).types[value].shape.clone()
    }

    fn constant(&mut self, shape: &[usize], values: Vec<f32>) -> String {
        let name = format!("c{}", self.graph.initializers.len());
        self.graph.initializers.insert(name.clone(), Tensor::from_f32(shape, &values));
        name
    }

    /// `rows` blocks of random numbers, each by a factor of its own.
    fn rows(&mut self, rows: usize, inner: usize) -> Vec<f32> {
        let unit = (3.0 / inner as f32).sqrt();
        let mut values = Vec::new();
        for _ in 0..rows {
            let factor = 10f32.powf(0.5 * self.decades * self.random()) * unit;
            values.extend((0..inner).map(|_| factor * self.random()));
        }
        values
    }

    fn node(&mut self, op: &str, inputs: &[&str]) -> String {
        let name = format!("n{}", self.graph.nodes.len());
        let value = format!("v{}", self.graph.nodes.len());
        self.graph.nodes.push(Node::new(op, name, inputs.iter().copied(), [value.as_str()]));
        self.value.clone_from(&value);
        value
    }

    fn attr(&mut self, name: &str, attr: Attr) -> &mut Self {
        if let Some(node) = self.graph.nodes.last_mut() {
            node.attrs.insert(name.into(), attr);
        }
        self
    }

    fn conv(&mut self, from: &str, outputs: usize, kernel: usize, groups: usize) -> String {
        let inputs = self.shape(from)[1] / groups;
        let weights = self.rows(outputs, inputs * kernel * kernel);
        let weights = self.constant(&[outputs, inputs, kernel, kernel], weights);
        let bias = self.rows(outputs, 1).iter().map(|b| 0.1 * b).collect();
        let bias = self.constant(&[outputs], bias);
        let value = self.node("Conv", &[from, &weights, &bias]);
        let pad = (kernel / 2) as i64;
        self.attr("group", Attr::Int(groups as i64)).attr("pads", Attr::Ints(vec![pad; 4]));
        value
    }

    /// Twice the size, `per_group` outputs of each of `groups` groups.
    fn transposed(&mut self, from: &str, per_group: usize, groups: usize) -> String {
        let inputs = self.shape(from)[1];
        let weights = self.rows(inputs, per_group * 4);
        let weights = self.constant(&[inputs, per_group, 2, 2], weights);
        let bias = self.rows(per_group * groups, 1);
        let bias = self.constant(&[per_group * groups], bias);
        let value = self.node("ConvTranspose", &[from, &weights, &bias]);
        self.attr("group", Attr::Int(groups as i64)).attr("strides", Attr::Ints(vec![2, 2]));
        value
    }

    fn gemm(&mut self, from: &str, outputs: usize) -> String {
        let inputs = self.shape(from)[1];
        let weights = self.rows(outputs, inputs);
        let weights = self.constant(&[outputs, inputs], weights);
        let bias = self.rows(outputs, 1);
        let bias = self.constant(&[outputs], bias);
        let value = self.node("Gemm", &[from, &weights, &bias]);
        self.attr("transB", Attr::Int(1));
        value
    }

    fn matmul(&mut self, from: &str, outputs: usize) -> String {
        let inputs = *self.shape(from).last().unwrap();
        // Rows of the transposed weights, so that outputs differ.
        let rows = self.rows(outputs, inputs);
        let weights = (0..inputs * outputs).map(|i| rows[i % outputs * inputs + i / outputs]).collect();
        let weights = self.constant(&[inputs, outputs], weights);
        let product = self.node("MatMul", &[from, &weights]);
        let bias = self.rows(outputs, 1);
        let bias = self.constant(&[outputs], bias);
        self.node("Add", &[&bias, &product])
    }

    fn clip(&mut self, from: &str, high: f32) -> String {
        let (low, high) = (self.constant(&[], vec![0.0]), self.constant(&[], vec![high]));
        self.node("Clip", &[from, &low, &high])
    }

    fn pool(&mut self, op: &str, from: &str) -> String {
        let value = self.node(op, &[from]);
        self.attr("kernel_shape", Attr::Ints(vec![2, 2])).attr("strides", Attr::Ints(vec![2, 2]));
        value
    }

    fn finish(mut self) -> (Graph, Batch) {
        self.graph.outputs = vec![ValueInfo { name: self.value.clone(), dtype: DataType::F32, shape: None }];
        let elements: usize = self.shape("x").iter().product();
        let inputs = vec![(0..SAMPLES * elements).map(|_| 2.0 * self.random()).collect()];
        (self.graph, Batch { first: 0, count: SAMPLES, inputs })
    }
}

fn run(graph: &Graph, values: &[String], batch: &Batch) -> Vec<Vec<f32>> {
    runner(graph, values, Backend::Tract).unwrap().run(batch).unwrap()
}

struct Case {
    graph: Graph,
    batch: Batch,
    channels: Channels,
    seen: ChannelStatistics,
}

impl Case {
    fn new((graph, batch): (Graph, Batch)) -> Self {
        let channels = Channels::of(&graph);
        let seen = ChannelStatistics::of(&channels, SAMPLES, &run(&graph, &channels.values_to_observe(), &batch));
        Self { graph, batch, channels, seen }
    }

    fn precision(&self, per_row: bool) -> Precision {
        Precision { activation_steps: 255.0, symmetric: false, weight_steps: Default::default(), per_row }
    }

    fn equalize(&self, method: Method, clamping: Clamping) -> Option<Equalized> {
        Equalizer::new(&self.graph, &self.channels, &self.seen, &self.precision(true)).equalize(method, clamping)
    }

    /// Greatest difference of the outputs over their greatest magnitude.
    fn difference(&self, other: &Graph) -> f32 {
        let outputs: Vec<String> = self.graph.outputs.iter().map(|output| output.name.clone()).collect();
        let (a, b) = (run(&self.graph, &outputs, &self.batch), run(other, &outputs, &self.batch));
        let greatest = a.iter().flatten().fold(0f32, |m, v| m.max(v.abs()));
        a.iter().flatten().zip(b.iter().flatten()).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / greatest
    }

    fn check(&self) {
        for method in METHODS {
            for clamping in [Clamping::Exact, Clamping::AsSeen] {
                if let Some(equalized) = self.equalize(method, clamping) {
                    let difference = self.difference(&equalized.graph);
                    assert!(difference <= 1e-4, "{method}, {clamping:?}: {difference}");
                }
            }
        }
    }

    /// Variables of a value's channels.
    fn variables(&self, value: &str) -> Vec<usize> {
        self.channels.variables_of(self.channels.layouts[value].labels())
    }
}

fn separable(decades: f32) -> (Graph, Batch) {
    let mut b = Builder::new(&[2, 6, 6], decades);
    let mut v = b.conv("x", 8, 3, 1);
    v = b.node("Relu", &[&v]);
    v = b.conv(&v, 8, 3, 8);
    v = b.node("LeakyRelu", &[&v]);
    v = b.conv(&v, 6, 1, 1);
    v = b.node("Relu", &[&v]);
    v = b.pool("AveragePool", &v);
    v = b.node("Flatten", &[&v]);
    b.gemm(&v, 4);
    b.finish()
}

#[test]
fn planted_imbalance_is_removed_through_depthwise_convolutions_and_blocks_of_a_flattened_image() {
    let case = Case::new(separable(3.0));
    case.check();
    // Every channel before the outputs has a factor of its own, the pixels of one channel share it.
    assert_eq!(case.channels.variables - 1, 8 + 8 + 6);
    for method in [Method::CrossLayer, Method::Migrate(1.0), Method::Predicted] {
        let equalized = case.equalize(method, Clamping::Exact).unwrap();
        assert!(equalized.predicted < 0.2, "{method}: {}", equalized.predicted);
        for decision in &equalized.decisions {
            let (before, after) = decision.spread;
            // Equal ranges of activations are what that method is about; for the others they are one aim of several.
            let most = if method == Method::Migrate(1.0) { before.sqrt().max(2.5) } else { 0.7 * before };
            assert!(before > 3.0 && after < most, "{method}, {decision:?}");
        }
    }
    let balanced = case.equalize(Method::Migrate(1.0), Clamping::Exact).unwrap();
    let first = balanced.decisions.iter().find(|decision| decision.value == "v1").unwrap();
    assert!((first.spread.1 - 1.0).abs() < 1e-6 && first.kurtosis.1 < first.kurtosis.0, "{first:?}");
}

#[test]
fn the_best_factors_are_at_least_as_good_as_every_rule() {
    for decades in [0.0, 2.0] {
        let case = Case::new(separable(decades));
        let predicted = |method| case.equalize(method, Clamping::Exact).map_or(1.0, |e| e.predicted);
        let best = predicted(Method::Predicted);
        assert!(best < 1.0 && METHODS.iter().all(|&method| best <= predicted(method)), "{best}");
    }
}

#[test]
fn sums_join_channels_and_concatenations_keep_them_apart() {
    let mut b = Builder::new(&[2, 6, 6], 2.0);
    let stem = b.conv("x", 4, 3, 1);
    let stem = b.node("Relu", &[&stem]);
    let branch = b.conv(&stem, 4, 3, 1);
    let sum = b.node("Add", &[&branch, &stem]);
    let sum = b.node("Relu", &[&sum]);
    let other = b.conv(&sum, 3, 1, 1);
    let joined = b.node("Concat", &[&sum, &other]);
    b.attr("axis", Attr::Int(1));
    let pooled = b.node("GlobalAveragePool", &[&joined]);
    let flat = b.node("Flatten", &[&pooled]);
    b.gemm(&flat, 5);
    let case = Case::new(b.finish());
    case.check();
    assert_eq!(case.variables(&stem), case.variables(&branch));
    assert_eq!(case.variables(&flat), [case.variables(&sum), case.variables(&other)].concat());
    let mut distinct = case.variables(&flat);
    distinct.dedup();
    assert_eq!(distinct.len(), 7);
    assert!(case.variables("v9").iter().all(|&variable| variable == FIXED));
    for method in METHODS {
        let equalized = case.equalize(method, Clamping::Exact).unwrap();
        assert!(equalized.predicted < 1.0, "{method}: {}", equalized.predicted);
    }
}

#[test]
fn clips_are_exact_or_stay_clear_of_what_was_seen() {
    let mut b = Builder::new(&[2, 6, 6], 3.0);
    let conv = b.conv("x", 8, 3, 1);
    let clip = b.clip(&conv, 1.0);
    let pooled = b.node("GlobalAveragePool", &[&clip]);
    let flat = b.node("Flatten", &[&pooled]);
    b.gemm(&flat, 4);
    let case = Case::new(b.finish());
    case.check();
    for method in METHODS {
        assert!(case.equalize(method, Clamping::Exact).is_none(), "{method}");
        let equalized = case.equalize(method, Clamping::AsSeen).unwrap();
        let before = &case.graph.initializers[&case.graph.nodes[0].inputs[1]].to_f32();
        let after = &equalized.graph.initializers[&equalized.graph.nodes[0].inputs[1]].to_f32();
        let seen = case.seen.value(&clip).unwrap();
        assert!(seen.iter().any(|channel| channel.high() == 1.0), "the case has channels that are cut off");
        let mut changed = 0;
        for (c, channel) in seen.iter().enumerate() {
            let ratio = after[c * 18] / before[c * 18];
            // Channels near the bound keep their scale, others stay below it.
            assert!(ratio == 1.0 || f64::from(ratio) * channel.high() <= 1.0 / 1.249, "{method}: {ratio}, {channel:?}");
            changed += usize::from(ratio != 1.0);
        }
        let decision = equalized.decisions.iter().find(|decision| decision.value == clip).unwrap();
        assert_eq!((decision.assumed, decision.scaled), (changed, changed));
    }
}

#[test]
fn dead_channels_and_shared_constants() {
    let mut b = Builder::new(&[2, 6, 6], 2.0);
    let first = b.conv("x", 4, 3, 1);
    let first = b.node("Relu", &[&first]);
    let second = b.conv(&first, 4, 3, 1);
    let third = b.node("Relu", &[&second]);
    let weights = b.graph.nodes[2].inputs[1].clone();
    let bias = b.graph.nodes[2].inputs[2].clone();
    let fourth = b.node("Conv", &[&third, &weights, &bias]);
    b.attr("pads", Attr::Ints(vec![1; 4]));
    // Channel 0 is never anything but zero: weights and bias of its row are zero.
    let (w, c) = (b.graph.nodes[0].inputs[1].clone(), b.graph.nodes[0].inputs[2].clone());
    for (name, count) in [(w, 18), (c, 1)] {
        let tensor = b.graph.initializers.get_mut(&name).unwrap();
        let mut values = tensor.to_f32();
        values[..count].fill(0.0);
        *tensor = Tensor::from_f32(&tensor.shape.clone(), &values);
    }
    let pooled = b.node("GlobalAveragePool", &[&fourth]);
    let flat = b.node("Flatten", &[&pooled]);
    b.gemm(&flat, 3);
    let case = Case::new(b.finish());
    case.check();
    for method in METHODS {
        let equalized = case.equalize(method, Clamping::Exact).unwrap();
        let weights = |node: usize| equalized.graph.initializers[&equalized.graph.nodes[node].inputs[1]].to_f32();
        assert!((0..3).all(|node| weights([0, 2, 4][node]).iter().all(|w| w.is_finite())), "{method}");
        assert!(weights(2) != weights(4), "{method}: shared weights take different factors");
    }
}

/// Normalization, attention with two heads, a residual sum, and GELU, which stops channels.
fn transformer(decades: f32) -> (Graph, Batch) {
    let mut b = Builder::new(&[5, 8], decades);
    let (scale, shift) = (b.rows(8, 1), b.rows(8, 1));
    let (scale, shift) = (b.constant(&[8], scale), b.constant(&[8], shift));
    let normal = b.node("LayerNormalization", &["x", &scale, &shift]);
    b.graph.initializers.insert("heads".into(), Tensor::from_i64(&[4], &[0, 5, 2, 4]));
    b.graph.initializers.insert("tokens".into(), Tensor::from_i64(&[3], &[0, 5, 8]));
    let split = |b: &mut Builder, perm: [i64; 4]| {
        let value = b.matmul(&normal, 8);
        let value = b.node("Reshape", &[&value, "heads"]);
        let value = b.node("Transpose", &[&value]);
        b.attr("perm", Attr::Ints(perm.to_vec()));
        value
    };
    let (q, k, v) = (split(&mut b, [0, 2, 1, 3]), split(&mut b, [0, 2, 3, 1]), split(&mut b, [0, 2, 1, 3]));
    let scores = b.node("MatMul", &[&q, &k]);
    let probabilities = b.node("Softmax", &[&scores]);
    b.attr("axis", Attr::Int(-1));
    let mixed = b.node("MatMul", &[&probabilities, &v]);
    let mixed = b.node("Transpose", &[&mixed]);
    b.attr("perm", Attr::Ints(vec![0, 2, 1, 3]));
    let mixed = b.node("Reshape", &[&mixed, "tokens"]);
    let out = b.matmul(&mixed, 8);
    let sum = b.node("Add", &["x", &out]);
    let wide = b.matmul(&sum, 12);
    let gelu = b.node("Gelu", &[&wide]);
    b.matmul(&gelu, 6);
    b.finish()
}

#[test]
fn normalization_and_values_of_attention_are_scaled_and_nothing_else_of_a_transformer() {
    let case = Case::new(transformer(2.0));
    case.check();
    // The normalized value and the values of attention, 8 channels each.
    assert_eq!(case.channels.variables - 1, 16);
    let values = case.variables("v10");
    assert_eq!((values.len(), values.contains(&FIXED)), (8, false));
    let equalized = case.equalize(Method::Predicted, Clamping::Exact).unwrap();
    assert!(equalized.predicted < 1.0);
    assert_eq!(equalized.graph.initializers["heads"], case.graph.initializers["heads"]);
}

#[test]
fn slopes_of_the_noise_are_those_of_its_values() {
    for (graph, per_row) in [(separable(1.0), true), (separable(1.0), false), (transformer(1.0), true)] {
        let case = Case::new(graph);
        let noise = Noise::of(&case.graph, &case.channels, &case.seen, &case.precision(per_row));
        let count = case.channels.variables;
        let logs: Vec<f64> =
            (0..count).map(|i| if i == FIXED { 0.0 } else { ((i * 37) % 11) as f64 / 11.0 - 0.5 }).collect();
        let (mut gradient, mut unused) = (vec![0.0; count], vec![0.0; count]);
        let value = noise.smooth(&logs, 8.0, &mut gradient);
        assert!(value > 0.0 && gradient[FIXED] == 0.0);
        for i in 1..count {
            let mut at = |step: f64| {
                let mut moved = logs.clone();
                moved[i] += step;
                noise.smooth(&moved, 8.0, &mut unused)
            };
            let slope = (at(1e-4) - at(-1e-4)) / 2e-4;
            assert!((slope - gradient[i]).abs() < 1e-5 * value, "{i}: {slope} {}", gradient[i]);
        }
    }
}

#[test]
fn noise_is_predicted_as_rounding_makes_it() {
    // One linear layer: noise of rounding its input to steps and its weights to steps, in its outputs.
    let mut b = Builder::new(&[16], 0.0);
    let hidden = b.gemm("x", 24);
    let hidden = b.node("Relu", &[&hidden]);
    b.gemm(&hidden, 6);
    let case = Case::new(b.finish());
    let noise = Noise::of(&case.graph, &case.channels, &case.seen, &case.precision(true));
    let predicted = noise.at(&vec![0.0; case.channels.variables]);
    let outputs = vec!["v2".to_owned()];
    let exact = run(&case.graph, &outputs, &case.batch).swap_remove(0);
    // Every tensor rounded on its own, and the powers added.
    let power: f64 = exact.iter().map(|&v| f64::from(v).powi(2)).sum();
    let mut measured = 0.0;
    for node in [0, 2] {
        let mut rounded = case.graph.clone();
        let name = rounded.nodes[node].inputs[1].clone();
        let tensor = rounded.initializers.get_mut(&name).unwrap();
        let inner = tensor.shape[1];
        let values = tensor.to_f32();
        let greatest: Vec<f32> = values.chunks(inner).map(|row| row.iter().fold(0f32, |m, w| m.max(w.abs()))).collect();
        let values: Vec<f32> = values
            .iter()
            .enumerate()
            .map(|(i, w)| {
                let step = greatest[i / inner] / 127.0;
                (w / step).round() * step
            })
            .collect();
        *tensor = Tensor::from_f32(&tensor.shape.clone(), &values);
        let other = run(&rounded, &outputs, &case.batch).swap_remove(0);
        measured += exact.iter().zip(other).map(|(&a, b)| f64::from(a - b).powi(2)).sum::<f64>() / power;
    }
    let activations: f64 = {
        let mut alone = noise.clone();
        alone.layers.clear();
        alone.at(&vec![0.0; case.channels.variables])
    };
    let weights = predicted - activations;
    assert!(activations > 0.0 && (weights / measured).log2().abs() < 1.0, "{weights} {measured}");
}

fn block(b: &mut Builder, kind: u8, from: &str) -> String {
    let channels = b.shape(from)[1];
    match kind {
        0 => b.node("Relu", &[from]),
        1 => b.node("LeakyRelu", &[from]),
        2 => b.clip(from, 0.7),
        3 => b.conv(from, channels, 3, channels),
        4 => b.conv(from, 5, 1, 1),
        5 => {
            let branch = b.conv(from, channels, 3, 1);
            b.node("Add", &[from, &branch])
        }
        6 => {
            let branch = b.conv(from, 3, 1, 1);
            let value = b.node("Concat", &[from, &branch]);
            b.attr("axis", Attr::Int(1));
            value
        }
        7 => b.node("Sigmoid", &[from]),
        8 => {
            let gate = b.node("GlobalAveragePool", &[from]);
            let gate = b.conv(&gate, channels, 1, 1);
            let gate = b.node("Sigmoid", &[&gate]);
            b.node("Mul", &[from, &gate])
        }
        9 => {
            let pads = format!("pads{}", b.graph.nodes.len());
            b.graph.initializers.insert(pads.clone(), Tensor::from_i64(&[8], &[0, 1, 1, 0, 0, 2, 0, 0]));
            b.node("Pad", &[from, &pads])
        }
        10 => {
            let values = b.rows(channels, 1);
            let values = b.constant(&[channels, 1, 1], values);
            b.node("Mul", &[from, &values])
        }
        11 => b.transposed(from, 3, 1),
        12 => b.transposed(from, 2, channels),
        _ => {
            let value = b.node("MaxPool", &[from]);
            b.attr("kernel_shape", Attr::Ints(vec![2, 2]));
            value
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_compute_the_same(
        kinds in prop::collection::vec(0u8..14, 1..9),
        decades in 0f32..3.0,
        whole in any::<bool>(),
    ) {
        let mut b = Builder::new(&[2, 5, 5], decades);
        let mut value = b.conv("x", 4, 3, 1);
        for kind in kinds {
            value = block(&mut b, kind, &value);
            if b.shape(&value)[2] < 2 || b.shape(&value)[3] < 2 || b.shape(&value)[2] > 24 || b.shape(&value)[1] > 24 {
                break;
            }
        }
        if !whole {
            value = b.node("GlobalAveragePool", &[&value]);
        }
        value = b.node("Flatten", &[&value]);
        value = b.gemm(&value, 6);
        value = b.node("Relu", &[&value]);
        b.gemm(&value, 3);
        Case::new(b.finish()).check();
    }
}
