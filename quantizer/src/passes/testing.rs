//! Small models for the tests of rewrites.

use crate::data::Batch;
use crate::exec::{Backend, runner};
use crate::graph::{Attr, DataType, Dim, Graph, Node, Tensor, ValueInfo};

/// A float model with an input `x`.
pub(crate) struct Model {
    pub(crate) graph: Graph,
}

impl Model {
    /// The input has a batch and this shape.
    pub(crate) fn new(shape: &[usize]) -> Self {
        let mut model = Self { graph: Graph { opset: super::OPSET, ..Graph::default() } };
        model.input("x", shape);
        model
    }

    pub(crate) fn input(&mut self, name: &str, shape: &[usize]) {
        let dims = std::iter::once(Dim::Symbol("N".into())).chain(shape.iter().map(|&size| Dim::Known(size)));
        let info = ValueInfo { name: name.into(), dtype: DataType::F32, shape: Some(dims.collect()) };
        self.graph.inputs.push(info);
    }

    /// A constant of values within ±1, unlike those of the others.
    pub(crate) fn constant(&mut self, shape: &[usize]) -> String {
        let phase = self.graph.initializers.len() as f32;
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i as f32 * 1.7 + phase).sin()).collect();
        self.floats(shape, &values)
    }

    pub(crate) fn floats(&mut self, shape: &[usize], values: &[f32]) -> String {
        super::add_constant(&mut self.graph, "c", Tensor::from_f32(shape, values))
    }

    pub(crate) fn integers(&mut self, values: &[i64]) -> String {
        super::add_constant(&mut self.graph, "i", Tensor::from_i64(&[values.len()], values))
    }

    pub(crate) fn node(&mut self, op: &str, inputs: &[&str], attrs: &[(&str, Attr)]) -> String {
        let name = format!("{op}{}", self.graph.nodes.len());
        let output = format!("{name}.out");
        let node = Node::new(op, name, inputs.iter().copied(), [output.as_str()]);
        self.graph.nodes.push(attrs.iter().fold(node, |node, (name, attr)| node.with(name, attr.clone())));
        output
    }

    pub(crate) fn outputs(&mut self, names: &[&str]) {
        let info = |name: &&str| ValueInfo { name: (*name).into(), dtype: DataType::F32, shape: None };
        self.graph.outputs = names.iter().map(info).collect();
    }

    /// The outputs for one sample.
    pub(crate) fn run(&self, graph: &Graph) -> Vec<Vec<f32>> {
        let types = crate::graph::shape::infer_partial(graph, 1).types;
        let input = |(i, info): (usize, &ValueInfo)| {
            let count: usize = types[&info.name].shape.iter().product();
            (0..count).map(|at| (at as f32 * 0.9 + i as f32).cos()).collect()
        };
        let inputs = graph.inputs.iter().enumerate().map(input).collect();
        let names: Vec<String> = graph.outputs.iter().map(|output| output.name.clone()).collect();
        let batch = Batch { first: 0, count: 1, inputs };
        runner(graph, &names, Backend::Tract).unwrap().run(&batch).unwrap()
    }

    /// The graph after a rewrite, which must apply, change no output and have nothing left to do.
    pub(crate) fn same_after(&self, mut rewrite: impl FnMut(&mut Graph) -> usize) -> Graph {
        let expected = self.run(&self.graph);
        self.gives_after(&expected, &mut rewrite)
    }

    /// As [`Self::same_after`] with the outputs given, for operators that the executor does not know.
    pub(crate) fn gives_after(&self, expected: &[Vec<f32>], mut rewrite: impl FnMut(&mut Graph) -> usize) -> Graph {
        let mut graph = self.graph.clone();
        assert!(rewrite(&mut graph) > 0, "nothing was rewritten");
        assert_eq!(rewrite(&mut graph), 0, "the rewrite is not idempotent");
        let found = self.run(&graph);
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(expected.len(), found.len());
            for (i, (a, b)) in expected.iter().zip(found).enumerate() {
                assert!((a - b).abs() <= 1e-5 + a.abs() * 1e-5, "element {i}: {a} before, {b} after");
            }
        }
        graph
    }
}

pub(crate) fn ints(values: &[i64]) -> Attr {
    Attr::Ints(values.to_vec())
}
