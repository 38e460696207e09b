//! Small QDQ graphs, compiled, run, and compared with the definition of their operators.

mod attention;
mod errors;
mod families;
mod four_bits;
mod memory;
mod models;
mod reference;
mod third_party;

use std::collections::BTreeMap;

use equant_runtime::operator::AllOperators;
use equant_runtime::plan::{AlignedBytes, LOGICAL_NCHW, Plan, TensorRecord};
use equant_runtime::session::Session;

use self::reference::Array;
use super::{Compiled, Error, Options, compile};
use crate::graph::{Attr, DataType, Dim, Graph, Node, Tensor, ValueInfo};
use crate::passes::prepare_quantized;

/// xorshift64.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn values(&mut self, count: usize, low: f64, high: f64) -> Vec<f32> {
        (0..count).map(|_| (low + (high - low) * self.unit()) as f32).collect()
    }
}

/// A graph in the making.
pub(super) struct Net {
    pub(super) graph: Graph,
    pub(super) random: Random,
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        let graph = Graph { opset: 21, name: "test".into(), ..Graph::default() };
        Self { graph, random: Random(seed * 0x9E37_79B9 + 1) }
    }

    /// A float graph input.
    pub(super) fn float_input(&mut self, name: &str, shape: &[usize]) -> String {
        let mut dims: Vec<Dim> = shape.iter().map(|&size| Dim::Known(size)).collect();
        dims[0] = Dim::Symbol("N".into());
        self.graph.inputs.push(ValueInfo { name: name.into(), dtype: DataType::F32, shape: Some(dims) });
        name.into()
    }

    /// A graph input quantized to uint8 over about ±3.
    pub(super) fn input(&mut self, name: &str, shape: &[usize]) -> String {
        let x = self.float_input(name, shape);
        self.q(&x, 0.0231, 131, DataType::U8)
    }

    pub(super) fn initializer(&mut self, stem: &str, tensor: Tensor) -> String {
        let name = self.graph.fresh_name(stem);
        self.graph.initializers.insert(name.clone(), tensor);
        name
    }

    /// A float constant.
    pub(super) fn floats(&mut self, shape: &[usize], values: &[f32]) -> String {
        self.initializer("c", Tensor::from_f32(shape, values))
    }

    /// A random float constant in `low..high`.
    pub(super) fn random_floats(&mut self, shape: &[usize], low: f64, high: f64) -> String {
        let values = self.random.values(shape.iter().product(), low, high);
        self.floats(shape, &values)
    }

    pub(super) fn ints(&mut self, values: &[i64]) -> String {
        self.initializer("i", Tensor::from_i64(&[values.len()], values))
    }

    pub(super) fn node(&mut self, op: &str, inputs: &[&str], attrs: &[(&str, Attr)]) -> String {
        let count = self.graph.nodes.len();
        let output = format!("v{count}_{op}");
        let mut node = Node::new(op, format!("n{count}_{op}"), inputs.iter().copied(), [output.as_str()]);
        for (name, attr) in attrs {
            node = node.with(name, attr.clone());
        }
        self.graph.nodes.push(node);
        output
    }

    /// QuantizeLinear and DequantizeLinear.
    pub(super) fn q(&mut self, x: &str, scale: f32, zero_point: i32, dtype: DataType) -> String {
        let scale = self.floats(&[], &[scale]);
        let zero_point = self.initializer("z", Tensor::from_ints(dtype, &[], &[zero_point]));
        let q = self.node("QuantizeLinear", &[x, &scale, &zero_point], &[]);
        self.node("DequantizeLinear", &[&q, &scale, &zero_point], &[])
    }

    /// Random 8-bit weights with one scale for each index of `axis`.
    pub(super) fn weights(&mut self, shape: &[usize], axis: usize) -> String {
        let ints: Vec<i32> =
            (0..shape.iter().product()).map(|_| (self.random.unit() * 254.99).floor() as i32 - 127).collect();
        self.weights_of(DataType::I8, shape, &ints, axis, 0)
    }

    /// Given weights with one scale for each index of `axis`.
    pub(super) fn weights_of(
        &mut self,
        dtype: DataType,
        shape: &[usize],
        ints: &[i32],
        axis: usize,
        zero: i32,
    ) -> String {
        let count = shape[axis];
        let scales = self.random.values(count, 0.002, 0.009);
        let q = self.initializer("w", Tensor::from_ints(dtype, shape, ints));
        let scale = self.floats(&[count], &scales);
        let zero = self.initializer("z", Tensor::from_ints(dtype, &[count], &vec![zero; count]));
        self.node("DequantizeLinear", &[&q, &scale, &zero], &[("axis", Attr::Int(axis as i64))])
    }

    pub(super) fn output(&mut self, name: &str) {
        self.graph.outputs.push(ValueInfo { name: name.into(), dtype: DataType::F32, shape: None });
    }

    pub(super) fn compile(&self) -> Result<Compiled, Error> {
        compile_prepared(&self.graph, &Options::default())
    }
}

pub(super) fn compile_prepared(graph: &Graph, options: &Options) -> Result<Compiled, Error> {
    let mut graph = graph.clone();
    prepare_quantized(&mut graph).unwrap();
    compile(&graph, options)
}

/// The position in memory of each logical element of an image flagged as `[N, C, H, W]`.
fn logical(record: &TensorRecord) -> Vec<usize> {
    let [n, h, w, c] = match record.dims.map(|d| d as usize) {
        [n, l, c, 1] if record.rank == 3 => [n, l, 1, c],
        dims => dims,
    };
    if record.flags & LOGICAL_NCHW == 0 {
        return (0..n * h * w * c).collect();
    }
    let mut out = Vec::new();
    for i in 0..n {
        for k in 0..c {
            out.extend((0..h * w).map(|p| (i * h * w + p) * c + k));
        }
    }
    out
}

/// Runs a plan; inputs and outputs in the order of their ONNX shapes. Also the scale of each output.
pub(super) fn run(image: &[u8], inputs: &[Vec<f32>]) -> Vec<(Vec<f32>, f32)> {
    let image = AlignedBytes::from(image);
    let plan = Plan::<AllOperators>::parse(&image).unwrap();
    let mut arena = AlignedBytes::zeroed(plan.arena_len());
    // Stale bytes must not matter.
    arena.fill(0xA5);
    let mut session = Session::new(plan, &mut arena).unwrap();
    for (i, values) in inputs.iter().enumerate() {
        let record = plan.model_input(i).unwrap();
        let mut memory = vec![0.0; values.len()];
        for (&value, at) in values.iter().zip(logical(&record)) {
            memory[at] = value;
        }
        session.quantize_input(i, &memory).unwrap();
    }
    session.run().unwrap();
    (0..plan.output_count())
        .map(|i| {
            let record = plan.model_output(i).unwrap();
            let mut memory = vec![0.0; record.elements().unwrap() as usize];
            session.dequantize_output(i, &mut memory).unwrap();
            (logical(&record).into_iter().map(|at| memory[at]).collect(), record.scale)
        })
        .collect()
}

/// Compiles, runs on random inputs and compares with the definition: every output within `steps` of its scale.
pub(super) fn check(net: &mut Net, steps: f64) -> Compiled {
    let compiled = net.compile().unwrap_or_else(|error| panic!("{error}"));
    for round in 0..3 {
        let mut values = BTreeMap::new();
        let mut inputs = Vec::new();
        for input in net.graph.inputs.clone() {
            let shape: Vec<usize> =
                input.shape.unwrap().iter().map(|dim| if let Dim::Known(size) = dim { *size } else { 1 }).collect();
            let data = net.random.values(shape.iter().product(), -3.2, 3.2);
            values.insert(input.name, Array { shape, data: data.iter().map(|&v| f64::from(v)).collect() });
            inputs.push(data);
        }
        reference::evaluate(&net.graph, &mut values);
        let outputs = run(&compiled.image, &inputs);
        for (output, (got, scale)) in net.graph.outputs.iter().zip(&outputs) {
            let want = &values[&output.name];
            assert_eq!(want.data.len(), got.len(), "{}", output.name);
            let spread = want.data.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
            assert!(
                spread.1 - spread.0 > 3.0 * f64::from(*scale),
                "`{}` hardly varies: a test that cannot fail",
                output.name
            );
            for (i, (&want, &got)) in want.data.iter().zip(got).enumerate() {
                let error = (f64::from(got) - want).abs() / f64::from(*scale);
                assert!(error <= steps, "round {round}, `{}`[{i}]: {got} for {want}: {error} steps", output.name);
            }
        }
    }
    compiled
}
