//! Which operators, in which forms, can be quantized. Everything unsupported is found before any work begins.
//!
//! Operators of the default domain, in the form that [`crate::passes::prepare`] brings them to. "Constant" means an
//! initializer, or what folding makes of constants and shapes. No operator may join, reduce or pick samples of the batch.
//!
//! | operators | forms |
//! | --- | --- |
//! | Conv, ConvTranspose | images and signals; constant weights and biases |
//! | Gemm, MatMul | a constant operand, or two activations with at most two batch axes, which broadcast; constant stacks of matrices along axes that the activation has all in the same sizes, or all not |
//! | Einsum | a transposition, or what is a MatMul after transposition |
//! | Attention | without a cache of keys and values, a soft cap or further outputs; masks are constants or float activations |
//! | Add, Sub, Mul, Div, Min, Max | two activations that broadcast, or one and a constant, which an activation divides only if it is one number; Min, Max, Sum and Mean of any number |
//! | Pow | a constant number as exponent, or a function of one value |
//! | PRelu | constant slopes |
//! | functions of one variable ([`eval::eval_unary`]), Clip, Relu | tables over 8 bits; bounds constant |
//! | Softmax, LogSoftmax | any axis |
//! | LayerNormalization, RMSNormalization | any trailing axes; also as exporters write them out |
//! | InstanceNormalization, GroupNormalization, MeanVarianceNormalization, LpNormalization | the last of order 2 |
//! | BatchNormalization | folded, or on images and signals |
//! | AveragePool, MaxPool, GlobalAveragePool | images and signals |
//! | GlobalMaxPool, ReduceMax, ReduceMin, ReduceMean, ReduceSum | any constant axes, with or without keepdims |
//! | ReduceL1, ReduceL2, ReduceSumSquare, ReduceLogSum | the same, as functions of a sum |
//! | ArgMax, ArgMin | any axis; the indices are 32-bit integers of the plan |
//! | Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Identity, Dropout | in inference |
//! | Concat | any axis |
//! | Slice, Split, Gather, Expand, Tile | constant parameters; every output of a Split |
//! | Gather | also rows of a float constant, by indices that are an input of the model |
//! | LSTM, GRU, RNN | constant weights, a known number of steps, default activations (an RNN also Relu and Sigmoid), initial states of zero or computed; no peepholes, clip or other lengths of sequences |
//! | Pad | constant, reflect, edge and wrap; constant pads, in the first mode not negative |
//! | Resize | nearest or linear (two axes at most), with antialias; constant scales or sizes; every coordinate transformation, without extrapolation |
//! | DepthToSpace, SpaceToDepth | images |
//!
//! Every other operator is refused with its name and the reason, Cast, Where, Shape and comparisons outside shape arithmetic
//! among them.

use std::collections::BTreeMap;

use super::eval::{self, normalize_axis};
use super::indices;
use super::interpolation::Interpolation;
use super::shape::{Shapes, infer_partial, windows};
use super::{Graph, Node, Tensor, movement};
use crate::passes::recurrent;

/// A node that cannot be quantized.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unsupported {
    /// The node's name.
    pub node: String,
    /// Its operator type.
    pub op_type: String,
    /// Which form is not supported, and what is.
    pub reason: String,
}

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.node, self.op_type, self.reason)
    }
}

/// Whether the file holds quantized operators already.
pub fn is_quantized(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| {
        let op = node.op_type.as_str();
        op.contains("QuantizeLinear") || op.starts_with("QLinear") || op.ends_with("Integer") || op == "QGemm"
    })
}

/// All nodes of a prepared float graph ([`crate::passes::prepare`]) that cannot be quantized and compiled.
pub fn check(graph: &Graph) -> Vec<Unsupported> {
    let [shapes, more] = [1, 2].map(|batch| infer_partial(graph, batch));
    let check = Check { graph, shapes: &shapes, more: &more, roots: roots(graph) };
    let mut found: Vec<Unsupported> = graph
        .nodes
        .iter()
        .filter_map(|node| {
            let reason = check.node(node).err()?;
            Some(Unsupported { node: node.name.clone(), op_type: node.op_type.clone(), reason })
        })
        .collect();
    for error in &shapes.errors {
        let (node, op_type, reason) = match error {
            super::shape::ShapeError::Node { node, op_type, reason } => (node.clone(), op_type.clone(), reason.clone()),
            super::shape::ShapeError::Input { input, reason } => (input.clone(), "input".to_owned(), reason.clone()),
            super::shape::ShapeError::TooLarge { node, op_type, value, shape } => {
                (node.clone(), op_type.clone(), format!("`{value}` of shape {shape:?} is too large"))
            }
        };
        if !found.iter().any(|known| known.node == node) {
            found.push(Unsupported { node, op_type, reason });
        }
    }
    for input in graph.inputs.iter().filter(|input| !input.dtype.is_float()) {
        let Err(reason) = indices::range(graph, &input.name) else { continue };
        found.push(Unsupported { node: input.name.clone(), op_type: "input".into(), reason });
    }
    found
}

/// For every value that is an element-wise function of one other value (through functions of one variable and
/// arithmetic with constants or with functions of the same value), that value; otherwise itself.
pub fn roots(graph: &Graph) -> BTreeMap<String, String> {
    let mut roots: BTreeMap<String, String> = BTreeMap::new();
    let small = |name: &str| graph.initializers.get(name).is_some_and(|t| t.len() == 1);
    for node in &graph.nodes {
        let root_of = |name: &str| roots.get(name).cloned().unwrap_or_else(|| name.to_owned());
        let data: Vec<&str> = node.inputs.iter().map(String::as_str).filter(|n| !n.is_empty() && !small(n)).collect();
        if node.op_type == "Clip" && node.input(0).is_some_and(|name| graph.is_wide(name)) {
            // It narrows what has 16 bits: no table reads that.
            continue;
        }
        let elementwise = eval::is_unary(node)
            || matches!(node.op_type.as_str(), "Clip" | "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max");
        let root = match data.as_slice() {
            _ if !elementwise || !node.domain.is_empty() => None,
            [one] if !graph.initializers.contains_key(*one) => Some(root_of(one)),
            // Two functions of one value, but not the plain sum of a value with itself.
            [a, b] if root_of(a) == root_of(b) && !graph.initializers.contains_key(*a) => Some(root_of(a)),
            _ => None,
        };
        if let Some(root) = root {
            roots.insert(node.output().to_owned(), root);
        }
    }
    roots
}

struct Check<'a> {
    graph: &'a Graph,
    shapes: &'a Shapes,
    /// Shapes for a batch of two: where they differ is the batch.
    more: &'a Shapes,
    roots: BTreeMap<String, String>,
}

type Checked = Result<(), String>;

/// Whether an operator has two operands.
fn is_of_two(op_type: &str) -> bool {
    matches!(
        op_type,
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" | "PRelu" | "MatMul" | "Gemm" | "Conv" | "ConvTranspose"
    )
}

impl Check<'_> {
    fn constant(&self, node: &Node, i: usize) -> Option<&Tensor> {
        self.graph.initializers.get(node.input(i)?)
    }

    fn shape(&self, node: &Node, i: usize) -> Option<&[usize]> {
        self.shapes.types.get(node.input(i)?).map(|kind| kind.shape.as_slice())
    }

    fn weights(&self, node: &Node, i: usize, what: &str) -> Result<&Tensor, String> {
        self.constant(node, i).filter(|tensor| tensor.dtype.is_float()).ok_or_else(|| {
            format!("{what} must be float constants, and `{}` is not", node.input(i).unwrap_or("(absent)"))
        })
    }

    fn node(&self, node: &Node) -> Checked {
        if !node.domain.is_empty() {
            return Err(format!(
                "operators of domain `{}` are not supported; export with standard ONNX operators",
                node.domain
            ));
        }
        if recurrent::is_recurrent(node) {
            return Err(recurrent::refusal(self.graph, node).unwrap_or_else(|| "it could not be unrolled".into()));
        }
        let used = |name: &&String| node.op_type != "Split" && self.graph.is_read(name);
        if let Some(name) = node.outputs.iter().skip(1).find(used) {
            return Err(format!("its output `{name}` is used; only the first output is supported"));
        }
        let empty = |name: &&String| self.shapes.types.get(*name).is_some_and(|kind| kind.shape.contains(&0));
        if let Some(name) = node.outputs.iter().find(empty) {
            return Err(format!("its output `{name}` has no elements"));
        }
        let operands = if is_of_two(&node.op_type) { 2 } else { 1 };
        if (0..operands).any(|i| node.input(i).is_none()) {
            return Err(format!("it lacks one of its first {operands} inputs"));
        }
        if let Some((i, constant)) = (0..operands).find_map(|i| Some((i, self.constant(node, i)?)))
            && operands == 2
            && node.op_type != "Pow"
            && !constant.dtype.is_float()
            && self.shapes.types.get(&node.inputs[1 - i]).is_some_and(|other| other.dtype.is_float())
        {
            return Err(format!("its constant `{}` is not of floats, as its other operand is", node.inputs[i]));
        }
        if node.inputs.iter().all(|name| self.graph.initializers.contains_key(name)) {
            return Err("all its inputs are constants, and it could not be folded".into());
        }
        match node.op_type.as_str() {
            "Conv" | "ConvTranspose" => self.conv(node),
            "Attention" => Err(
                "with a cache of keys and values, a soft cap, a mask of booleans computed by the model, more than 2^24 scores \
                 of a causal mask, or more outputs than the first, it is not supported"
                    .into(),
            ),
            "Einsum" => Err(
                "only transpositions, and products of two operands that are a MatMul after transposition, are supported"
                    .into(),
            ),
            "Gemm" => self.gemm(node),
            "MatMul" => self.matmul(node),
            "Add" | "Mul" => self.finite(node),
            "Sub" | "Div" | "Pow" | "Min" | "Max" | "PRelu" => self.arithmetic(node),
            "Clip" => match (1..3).all(|i| node.input(i).is_none() || self.constant(node, i).is_some()) {
                true => Ok(()),
                false => Err("bounds must be constants".into()),
            },
            "Softmax" | "LogSoftmax" => self.last_axis(node, node.int("axis", -1)),
            "LayerNormalization" | "RMSNormalization" => {
                self.weights(node, 1, "scales")?;
                if node.input(2).is_some() {
                    self.weights(node, 2, "shifts")?;
                }
                self.last_axis(node, node.int("axis", -1))
            }
            "AveragePool" | "MaxPool" => self.pool(node),
            "GlobalAveragePool" => self.spatial_rank(node),
            "GlobalMaxPool" => Ok(()),
            "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" => self.reduction(node),
            "ArgMax" | "ArgMin" => self.apart(node, 0, [node.int("axis", 0)]),
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Identity" => Ok(()),
            "Dropout" => match self.constant(node, 2).is_none_or(|training| training.to_i64() == [0]) {
                true if node.input(2).is_none() || self.constant(node, 2).is_some() => Ok(()),
                _ => Err("only in inference: training_mode must be constant and false".into()),
            },
            "Concat" => self.apart(node, 0, [node.int("axis", 0)]),
            "DepthToSpace" | "SpaceToDepth" => self.spatial_rank(node),
            "Gather" if indices::is_lookup(self.graph, node) => self.lookup(node),
            _ if movement::moves(node) => self.movement(node),
            "Pad" => self.pad(node),
            "Resize" => self.resize(node),
            "BatchNormalization" => Err(
                "it follows no Conv, ConvTranspose, Gemm or MatMul it could fold into, and its input has not rank 4"
                    .into(),
            ),
            "Cast" | "Shape" | "Where" => Err("only in shape arithmetic, not on data".into()),
            _ if eval::is_unary(node) => Ok(()),
            _ => Err("this operator is not supported".into()),
        }
    }

    /// A Gather from a constant, by indices that are an input of the graph.
    fn lookup(&self, node: &Node) -> Checked {
        let name = node.input(1).unwrap_or_default();
        match self.graph.inputs.iter().any(|input| input.name == name) {
            true => Ok(()),
            false => Err(format!(
                "its indices `{name}` are computed; only those that are an input of the model are supported"
            )),
        }
    }

    fn last_axis(&self, node: &Node, axis: i64) -> Checked {
        let Some(shape) = self.shape(node, 0) else { return Ok(()) };
        match normalize_axis(axis, shape.len()) {
            Some(i) if shape[i + 1..].iter().all(|&size| size == 1) => self.apart(node, 0, [axis]),
            _ => Err(format!("axis {axis} of rank {}: only the last axis is supported", shape.len())),
        }
    }

    fn spatial_rank(&self, node: &Node) -> Checked {
        match self.shape(node, 0) {
            Some(shape) if shape.len() != 4 => {
                Err(format!("input of rank {}: only images [N, C, H, W] are supported", shape.len()))
            }
            _ => Ok(()),
        }
    }

    fn conv(&self, node: &Node) -> Checked {
        self.weights(node, 1, "weights")?;
        if node.input(2).is_some() {
            self.weights(node, 2, "biases")?;
        }
        self.spatial_rank(node)
    }

    fn gemm(&self, node: &Node) -> Checked {
        let weights = self.weights(node, 1, "weights")?;
        let [outputs, _] = weights.shape[..] else {
            return Err(format!("weights of shape {:?}: only rank 2 is supported", weights.shape));
        };
        if node.int("transB", 0) == 0 || node.float("alpha", 1.0) != 1.0 || node.float("beta", 1.0) != 1.0 {
            return Err("its bias differs between rows, so it could not be normalised".into());
        }
        if node.input(2).is_some() && self.weights(node, 2, "biases")?.shape != [outputs] {
            return Err("its bias is not one value per output".into());
        }
        Ok(())
    }

    fn matmul(&self, node: &Node) -> Checked {
        match self.constant(node, 1) {
            Some(weights) if weights.shape.len() != 2 => Err(format!(
                "constant weights of shape {:?}: their leading axes must all have the sizes of the other operand's, or all \
                 stand where that has size 1",
                weights.shape
            )),
            Some(_) => Ok(()),
            None => {
                let (Some(a), Some(b)) = (self.shape(node, 0), self.shape(node, 1)) else { return Ok(()) };
                // Both have rows and columns, and batches that broadcast: shapes were inferred.
                let batches = eval::broadcast(&a[..a.len().saturating_sub(2)], &b[..b.len().saturating_sub(2)]);
                let large = batches.unwrap_or_default().into_iter().filter(|&size| size > 1).count();
                match large {
                    0..=2 => self.apart(node, 0, [-1]),
                    _ => Err(format!("operands {a:?} and {b:?}: at most two batch axes are supported")),
                }
            }
        }
    }

    /// Arithmetic that minds the order of its operands.
    fn arithmetic(&self, node: &Node) -> Checked {
        if self.roots.contains_key(node.output()) {
            return Ok(());
        }
        self.finite(node)?;
        match (node.op_type.as_str(), self.constant(node, 0), self.constant(node, 1)) {
            ("Pow", ..) => Err("its exponent must be one constant number".into()),
            ("Div", Some(_), None) => Err("a constant tensor divided by an activation is not supported".into()),
            ("Div", _, Some(divisor)) if divisor.to_f32().contains(&0.0) => Err("division by zero".into()),
            ("PRelu", _, None) => Err("slopes must be constants".into()),
            _ => Ok(()),
        }
    }

    /// Refuses constants that no scale holds.
    fn finite(&self, node: &Node) -> Checked {
        let infinite = |name: &&String| {
            let values = self.graph.initializers.get(*name).map(Tensor::to_f32).unwrap_or_default();
            // Minus infinity excludes a score from the softmax that reads it.
            let fits = |value: &f32| value.is_finite() || *value == f32::NEG_INFINITY && node.op_type == "Add";
            let masks = values.contains(&f32::NEG_INFINITY);
            !values.iter().all(fits) || masks && !self.only_softmax_reads(node.output())
        };
        match node.inputs.iter().find(infinite) {
            Some(name) => Err(format!("its constant `{name}` holds values that are not finite")),
            None => Ok(()),
        }
    }

    /// Whether nothing but a Softmax reads a value, perhaps after the sum with another mask.
    fn only_softmax_reads(&self, value: &str) -> bool {
        let mut value = value;
        loop {
            let mut readers = self.graph.nodes.iter().filter(|node| node.inputs.iter().any(|name| name == value));
            match (readers.next(), readers.next()) {
                _ if self.graph.is_output(value) => return false,
                (Some(reader), None) if reader.op_type == "Add" => value = reader.output(),
                (Some(reader), None) => return reader.op_type == "Softmax",
                _ => return false,
            }
        }
    }

    /// Refuses to join or reduce the samples of a batch.
    fn apart(&self, node: &Node, i: usize, axes: impl IntoIterator<Item = i64>) -> Checked {
        let sizes = |shapes: &'_ Shapes| node.input(i).and_then(|name| Some(shapes.types.get(name)?.shape.clone()));
        let (Some(one), Some(two)) = (sizes(self.shapes), sizes(self.more)) else { return Ok(()) };
        for axis in axes {
            let at = normalize_axis(axis, one.len()).ok_or_else(|| format!("axis {axis} of rank {}", one.len()))?;
            if one.get(at) != two.get(at) {
                return Err(format!("axis {axis} is the batch, whose samples must stay apart"));
            }
        }
        Ok(())
    }

    /// An operator that only moves elements.
    fn movement(&self, node: &Node) -> Checked {
        if let Some(i) = movement::parameters(node).find(|&i| self.constant(node, i).is_none()) {
            return Err(format!("its input `{}` must be a constant", node.inputs[i]));
        }
        if node.op_type == "Resize" {
            return self.resize(node);
        }
        let (Some(x), Some(y)) = (self.shape(node, 0), self.shapes.types.get(node.output())) else { return Ok(()) };
        let listed = |i: usize| self.constant(node, i).map(Tensor::to_i64);
        let all = || (0..x.len() as i64).collect::<Vec<i64>>();
        let axes: Vec<i64> = match node.op_type.as_str() {
            "Gather" | "Split" => vec![node.int("axis", 0)],
            "Slice" => listed(3).unwrap_or_else(|| (0..listed(1).map_or(0, |starts| starts.len()) as i64).collect()),
            // Those that change.
            _ if y.shape.len() == x.len() => {
                all().into_iter().filter(|&axis| y.shape[axis as usize] != x[axis as usize]).collect()
            }
            _ => Vec::new(),
        };
        self.apart(node, 0, axes)
    }

    fn resize(&self, node: &Node) -> Checked {
        let mode = node.string("mode").unwrap_or("nearest");
        if !matches!(mode, "nearest" | "linear") {
            return Err(format!("mode `{mode}`: only `nearest` and `linear` are supported"));
        }
        let Some(x) = self.shape(node, 0) else { return Ok(()) };
        let interpolation = Interpolation::of(node, x, |i| self.constant(node, i))?;
        let changed: Vec<i64> =
            interpolation.changes().iter().zip(0..).filter(|(changes, _)| **changes).map(|(_, axis)| axis).collect();
        if mode == "linear" && changed.len() > 2 {
            return Err(format!("{} resized axes: at most two are supported", changed.len()));
        }
        interpolation.axes()?;
        self.apart(node, 0, changed)
    }

    fn pool(&self, node: &Node) -> Checked {
        self.spatial_rank(node)?;
        let Some(shape) = self.shape(node, 0) else { return Ok(()) };
        let kernel: Vec<usize> = node.ints("kernel_shape").unwrap_or_default().iter().map(|&k| k as usize).collect();
        let windows = windows(node, shape.get(2..).unwrap_or_default(), &kernel)?;
        if node.op_type == "AveragePool" && windows.iter().any(|window| window.dilation != 1) {
            return Err("dilations are not supported".into());
        }
        Ok(())
    }

    fn reduction(&self, node: &Node) -> Checked {
        let axes = match node.input(1) {
            Some(name) => {
                Some(self.constant(node, 1).ok_or_else(|| format!("its axes `{name}` must be constant"))?.to_i64())
            }
            None => node.ints("axes").map(<[i64]>::to_vec),
        };
        let Some(shape) = self.shape(node, 0) else { return Ok(()) };
        match axes.filter(|axes| !axes.is_empty()) {
            Some(axes) => self.apart(node, 0, axes),
            None if node.int("noop_with_empty_axes", 0) != 0 => Ok(()),
            None => self.apart(node, 0, 0..shape.len() as i64),
        }
    }

    fn pad(&self, node: &Node) -> Checked {
        let pads = self.constant(node, 1).ok_or("pads must be constant")?.to_i64();
        if pads.iter().any(|&pad| pad < 0) {
            return Err(format!("pads {pads:?}: negative pads are not supported"));
        }
        match node.input(2).is_none() || self.constant(node, 2).is_some() {
            true => Ok(()),
            false => Err("the padding value must be constant".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attr, DataType, Dim, ValueInfo};

    #[test]
    fn everything_unsupported_is_named_at_once() {
        let dims = vec![Dim::Symbol("N".into()), Dim::Known(3), Dim::Known(4), Dim::Known(4)];
        let graph = Graph {
            opset: 21,
            inputs: vec![ValueInfo { name: "x".into(), dtype: DataType::F32, shape: Some(dims) }],
            nodes: vec![
                Node::new("Softmax", "soft", ["x"], ["a"]).with("axis", Attr::Int(1)),
                Node::new("Einsum", "ein", ["a"], ["b"]),
                Node::new("Gelu", "gelu", ["b"], ["c"]),
                Node::new("LSTM", "lstm", ["c", "x"], ["y"]),
            ],
            ..Graph::default()
        };
        let found = check(&graph);
        let names: Vec<&str> = found.iter().map(|f| f.node.as_str()).collect();
        assert_eq!(names, ["soft", "ein", "lstm"]);
        assert_eq!(found[0].reason, "axis 1 of rank 4: only the last axis is supported");
    }

    #[test]
    fn a_gelu_has_one_root_and_a_residual_has_none() {
        let mut graph = Graph::default();
        graph.initializers.insert("two".into(), Tensor::from_f32(&[], &[std::f32::consts::SQRT_2]));
        graph.nodes = vec![
            Node::new("Div", "d", ["x", "two"], ["a"]),
            Node::new("Erf", "e", ["a"], ["b"]),
            Node::new("Mul", "m", ["x", "b"], ["c"]),
            Node::new("Add", "r", ["c", "other"], ["y"]),
        ];
        let roots = roots(&graph);
        assert_eq!(roots.get("c").map(String::as_str), Some("x"));
        assert!(!roots.contains_key("y"));
    }
}
