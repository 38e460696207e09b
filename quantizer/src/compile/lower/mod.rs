//! From nodes to plan operators.
//!
//! Nodes are walked once, in order. Every value is one of: a constant, an operand (a tensor of the
//! plan under a view), a table (a function of one 8-bit operand, as 256 real values), or pending: an
//! operator that is emitted only when its quantization is known, so that a following bias, scalar
//! factor, clamp and QuantizeLinear become part of it.

mod attention;
mod constant;
mod elementwise;
mod extrema;
mod fine;
mod gather;
mod linear;
mod matmul;
mod norm;
mod pending;
mod pool;
mod quantization;
mod records;
mod reduce;
mod resize;
mod shape;
mod state;
mod table;
mod take;
mod wide;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use equant_runtime::plan::DType;
use equant_runtime::quant::Multiplier;

use self::constant::Constant;
use self::pending::Pending;
use self::table::Table;
use super::error::{Error, Issue, Reason};
use super::program::{Named, Program};
use super::view::View;
use crate::graph::{DataType, Dim, Graph, Node, movement};
use crate::qdq::{FloatRanges, float_ranges, sixteen_bit_scale};

/// Quantization of an activation, in the plan's signed dtypes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct QParams {
    pub(super) dtype: DType,
    pub(super) scale: f32,
    pub(super) zero_point: i32,
    /// Lowest and highest value: of the dtype, or of 4 bits that are stored in one of 8.
    pub(super) levels: (i32, i32),
}

/// What tells [`QParams`] apart.
type Key = (u8, u32, i32, (i32, i32));

impl QParams {
    /// Parameters that use the whole dtype.
    pub(super) fn full(dtype: DType, scale: f32, zero_point: i32) -> Self {
        Self { dtype, scale, zero_point, levels: dtype.range() }
    }

    /// ONNX `QuantizeLinear` of one value.
    fn quantize(&self, x: f64) -> i32 {
        self.saturate(f64::from((x as f32 / self.scale).round_ties_even()))
    }

    /// The same with the division in f64.
    fn quantize_f64(&self, x: f64) -> i32 {
        self.saturate((x / f64::from(self.scale)).round_ties_even())
    }

    fn saturate(&self, rounded: f64) -> i32 {
        let (low, high) = self.levels;
        (rounded + f64::from(self.zero_point)).clamp(f64::from(low), f64::from(high)) as i32
    }

    /// Symmetric 16-bit parameters that hold `low..=high` without saturation.
    fn sixteen(low: f64, high: f64) -> Self {
        Self::full(DType::I16, sixteen_bit_scale(low.abs().max(high.abs())), 0)
    }

    /// Equality of every bit: a key for look-ups.
    fn key(&self) -> Key {
        (self.dtype as u8, self.scale.to_bits(), self.zero_point, self.levels)
    }
}

/// A tensor of the plan under a view. Its scale may differ from the record's: a scalar factor costs nothing.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    storage: usize,
    dtype: DType,
    scale: f64,
    zero_point: i32,
    view: View,
    /// Quantized values it can take.
    range: (i32, i32),
}

impl Operand {
    /// The real value of a quantized one.
    fn real(&self, q: i32) -> f64 {
        f64::from(q - self.zero_point) * self.scale
    }

    /// The real values it can take.
    fn real_range(&self) -> (f64, f64) {
        (self.real(self.range.0), self.real(self.range.1))
    }
}

/// What is known of an ONNX value.
#[derive(Debug, Clone)]
enum Value {
    /// A graph input that nothing has quantized yet.
    Input { shape: Vec<usize>, dtype: DataType },
    /// A constant.
    Const(Rc<Constant>),
    /// A tensor of the plan.
    Operand(Operand),
    /// A function of an 8-bit operand.
    Table(Table),
    /// An operator waiting for its quantization.
    Pending(Box<Pending>),
    /// The output of a node that could not be lowered.
    Failed,
}

/// A result of lowering one node.
type Lowered<T> = Result<T, Reason>;

/// An unsupported form of an operator.
fn unsupported<T>(reason: impl Into<String>) -> Lowered<T> {
    Err(Reason::Unsupported(reason.into()))
}

/// The runtime's multiplier for a real factor.
fn multiplier(real: f64) -> Lowered<Multiplier> {
    Multiplier::from_f64(real).ok_or(Reason::Multiplier { value: real })
}

/// Lowers a graph.
pub(super) fn lower(graph: &Graph, keep: &[String]) -> Result<Program, Error> {
    let mut lowering = Lowering {
        graph,
        program: Program::default(),
        values: HashMap::new(),
        consumers: graph.consumers(),
        outputs: graph.outputs.iter().map(|output| output.name.as_str()).collect(),
        inputs: BTreeMap::new(),
        seen: float_ranges(graph).map_err(Error::Prepare)?,
        quantized: HashMap::new(),
        issues: Vec::new(),
        blame: None,
    };
    lowering.declare_inputs()?;
    check_order(graph)?;
    for node in &graph.nodes {
        lowering.visit(node);
    }
    lowering.finish(keep)
}

/// Refuses nodes that read what nothing before them makes.
fn check_order(graph: &Graph) -> Result<(), Error> {
    let mut known: BTreeSet<&str> = graph.inputs.iter().map(|input| input.name.as_str()).collect();
    known.extend(graph.initializers.keys().map(String::as_str));
    for node in &graph.nodes {
        if let Some(name) = node.inputs.iter().find(|name| !name.is_empty() && !known.contains(name.as_str())) {
            return Err(Error::Prepare(format!("node `{}` reads `{name}`, which no node before it makes", node.name)));
        }
        known.extend(node.outputs.iter().map(String::as_str));
    }
    match graph.outputs.iter().find(|output| !known.contains(output.name.as_str())) {
        None => Ok(()),
        Some(output) => Err(Error::Output { name: output.name.clone(), reason: "no node makes it".into() }),
    }
}

/// The state of lowering.
struct Lowering<'g> {
    graph: &'g Graph,
    program: Program,
    values: HashMap<String, Value>,
    consumers: HashMap<&'g str, Vec<usize>>,
    outputs: BTreeSet<&'g str>,
    /// Records of the graph's inputs by position; one that nothing reads has none.
    inputs: BTreeMap<usize, usize>,
    /// What calibration saw of values that stay in float.
    seen: FloatRanges,
    /// Results of QuantizeLinear by value and parameters.
    quantized: HashMap<(String, Key), Operand>,
    issues: Vec<Issue>,
    /// Name and type of the pending operator whose emission failed, if not the node at hand.
    blame: Option<(String, String)>,
}

impl<'g> Lowering<'g> {
    /// Declares the graph's inputs, batch 1.
    fn declare_inputs(&mut self) -> Result<(), Error> {
        for input in &self.graph.inputs {
            let refuse = |reason: &str| {
                Error::Nodes(vec![Issue {
                    node: input.name.clone(),
                    operator: "input".into(),
                    reason: Reason::Shape(reason.into()),
                }])
            };
            let dims = input.shape.as_ref().ok_or_else(|| refuse("the graph input declares no shape"))?;
            let mut shape = Vec::with_capacity(dims.len());
            for (axis, dim) in dims.iter().enumerate() {
                match dim {
                    Dim::Known(size) if *size > 0 => shape.push(*size),
                    Dim::Symbol(_) if axis == 0 => shape.push(1),
                    _ => {
                        return Err(refuse(
                            "only the first (batch) axis of a graph input may be symbolic; fix the other sizes",
                        ));
                    }
                }
            }
            self.values.insert(input.name.clone(), Value::Input { shape, dtype: input.dtype });
        }
        Ok(())
    }

    /// Lowers one node, or notes why it cannot be.
    fn visit(&mut self, node: &'g Node) {
        let blocked = node.inputs.iter().any(|name| matches!(self.values.get(name), Some(Value::Failed)));
        let result = if blocked { Err(None) } else { self.node(node).map_err(Some) };
        let blame = self.blame.take();
        if let Err(reason) = result {
            if let Some(reason) = reason {
                let (node, operator) = blame.unwrap_or_else(|| (node.name.clone(), node.op_type.clone()));
                self.issues.push(Issue { node, operator, reason });
            }
            for output in &node.outputs {
                self.values.insert(output.clone(), Value::Failed);
            }
        }
    }

    fn node(&mut self, node: &'g Node) -> Lowered<()> {
        if !node.domain.is_empty() && node.domain != "ai.onnx" {
            return unsupported(format!("operators of domain `{}` are not supported", node.domain));
        }
        if self.gathers(node) {
            return self.gather(node);
        }
        if movement::moves(node) {
            return self.take(node);
        }
        if node.outputs.iter().skip(1).any(|name| self.use_count(name) > 0) {
            return unsupported("only the first output is supported");
        }
        match node.op_type.as_str() {
            "QuantizeLinear" => self.quantize(node),
            "DequantizeLinear" => self.dequantize(node),
            "Conv" => self.conv(node),
            "ConvTranspose" => self.conv_transpose(node),
            "Gemm" => self.gemm(node),
            "MatMul" => self.matmul(node),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" => self.binary(node),
            "BatchNormalization" => self.batch_norm(node),
            "Relu" | "Clip" => self.clamp(node),
            "Softmax" | "LogSoftmax" => self.softmax(node),
            "LayerNormalization" | "RMSNormalization" => self.layer_norm(node),
            "GlobalAveragePool" | "ReduceMean" | "ReduceSum" => self.mean(node),
            "GlobalMaxPool" | "ReduceMax" | "ReduceMin" => self.extreme(node),
            "ArgMax" | "ArgMin" => self.arg_extreme(node),
            "PRelu" => self.prelu(node),
            "Resize" => self.resize(node),
            "AveragePool" => self.average_pool(node),
            "MaxPool" => self.max_pool(node),
            "Concat" => self.concat(node),
            "Pad" => self.pad(node),
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "DepthToSpace" | "SpaceToDepth" => {
                self.reshape(node)
            }
            "Identity" | "Dropout" => {
                let value = self.value(input(node, 0)?)?;
                self.set(node.output(), value)
            }
            _ => self.unary(node),
        }
    }

    /// Number of nodes and graph outputs that use a value.
    fn use_count(&self, name: &str) -> usize {
        self.consumers.get(name).map_or(0, Vec::len) + usize::from(self.outputs.contains(name))
    }

    /// The only consumer of a value, if it is a node.
    fn only_consumer(&self, name: &str) -> Option<&'g Node> {
        match self.consumers.get(name).map(Vec::as_slice) {
            Some(&[index]) if !self.outputs.contains(name) => Some(&self.graph.nodes[index]),
            _ => None,
        }
    }

    /// What is known of a value; initializers become constants when first used.
    fn value(&mut self, name: &str) -> Lowered<Value> {
        if let Some(value) = self.values.get(name) {
            return Ok(value.clone());
        }
        match self.graph.initializers.get(name) {
            Some(tensor) => Ok(Value::Const(Rc::new(Constant::from_tensor(tensor)))),
            None => unsupported(format!("its input `{name}` is not made by any node")),
        }
    }

    /// Names a value. An operator whose result is used in several ways is emitted at once, wide.
    fn set(&mut self, name: &str, value: Value) -> Lowered<()> {
        let value = match value {
            Value::Pending(pending) if !self.stays_pending(name) => Value::Operand(self.emit_wide(&pending, name)?),
            other => other,
        };
        if let Value::Operand(operand) = &value {
            self.program.named.push(Named {
                name: name.to_owned(),
                storage: operand.storage,
                view: operand.view.clone(),
                scale: operand.scale,
                zero_point: operand.zero_point,
            });
        }
        self.values.insert(name.to_owned(), value);
        Ok(())
    }

    /// Whether one user, or several that quantize alike, will decide the quantization of a value.
    fn stays_pending(&self, name: &str) -> bool {
        if self.only_consumer(name).is_some() {
            return true;
        }
        if self.outputs.contains(name) {
            return false;
        }
        let Some(users) = self.consumers.get(name) else { return false };
        let mut keys = users.iter().map(|&index| {
            let node = &self.graph.nodes[index];
            if node.op_type == "QuantizeLinear" { self.node_qparams(node).ok().map(|q| q.key()) } else { None }
        });
        match keys.next().flatten() {
            Some(first) => keys.all(|key| key == Some(first)),
            None => false,
        }
    }

    /// A value as a tensor of the plan; emits what is pending, wide.
    fn operand(&mut self, name: &str) -> Lowered<Operand> {
        let value = self.value(name)?;
        let operand = self.operand_of(name, value)?;
        if !matches!(self.values.get(name), Some(Value::Operand(_))) {
            self.set(name, Value::Operand(operand.clone()))?;
        }
        Ok(operand)
    }

    /// As [`Self::operand`] for a value at hand.
    fn operand_of(&mut self, name: &str, value: Value) -> Lowered<Operand> {
        match value {
            Value::Operand(operand) => Ok(operand),
            Value::Pending(pending) => self.emit_wide(&pending, name),
            Value::Table(table) => self.emit_wide_table(&table, name),
            Value::Input { .. } => Err(Reason::InputNotQuantized(name.to_owned())),
            Value::Const(_) => unsupported(format!("its input `{name}` must not be a constant")),
            Value::Failed => unsupported("an input could not be compiled"),
        }
    }
}

/// The name of a required input.
fn input(node: &Node, i: usize) -> Lowered<&str> {
    node.input(i).ok_or_else(|| Reason::Unsupported(format!("input {i} is missing")))
}
