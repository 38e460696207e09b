//! Shape inference for a fixed batch, with the integer values that shape arithmetic computes.

use std::collections::{BTreeMap, HashMap};

use super::einsum::Equation;
use super::eval::{self, normalize_axis};
use super::interpolation::Interpolation;
use super::{DataType, Dim, Graph, Node, Tensor, movement};

/// Element type and shape of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorType {
    /// Element type.
    pub dtype: DataType,
    /// Shape with the batch fixed.
    pub shape: Vec<usize>,
}

/// Why a shape is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// A graph input without a usable shape.
    #[error("graph input `{input}`: {reason}")]
    Input {
        /// The input.
        input: String,
        /// What is missing and how to give it.
        reason: String,
    },
    /// A node whose inputs do not fit each other, or whose operator has no rule.
    #[error("node `{node}` ({op_type}): {reason}")]
    Node {
        /// The node.
        node: String,
        /// Its operator type.
        op_type: String,
        /// What does not fit.
        reason: String,
    },
    /// A value of a size that nothing could hold.
    #[error("`{value}` of node or input `{node}`: shape {shape:?} is too large")]
    TooLarge {
        /// The node that makes it, or the graph input.
        node: String,
        /// Its operator type, or `input`.
        op_type: String,
        /// The value.
        value: String,
        /// Its shape.
        shape: Vec<usize>,
    },
}

/// Everything inference finds out.
#[derive(Debug, Clone, Default)]
pub struct Shapes {
    /// Types of all values whose shape is known.
    pub types: BTreeMap<String, TensorType>,
    /// Integer values computed from shapes and constants (initializers are not repeated here).
    pub values: HashMap<String, Tensor>,
    /// Nodes and inputs whose shapes are not known because of themselves, not of what feeds them.
    pub errors: Vec<ShapeError>,
}

/// The type of every value, with a symbolic first dimension of a graph input set to `batch`.
///
/// # Errors
///
/// The first input or node whose shape cannot be found out.
pub fn infer(graph: &Graph, batch: usize) -> Result<BTreeMap<String, TensorType>, ShapeError> {
    let mut shapes = infer_partial(graph, batch);
    match shapes.errors.is_empty() {
        true => Ok(shapes.types),
        false => Err(shapes.errors.swap_remove(0)),
    }
}

/// As [`infer`], but goes on after errors: what depends on them is left out.
pub fn infer_partial(graph: &Graph, batch: usize) -> Shapes {
    let mut shapes = Shapes::default();
    for (name, tensor) in &graph.initializers {
        shapes.types.insert(name.clone(), TensorType { dtype: tensor.dtype, shape: tensor.shape.clone() });
    }
    for input in &graph.inputs {
        let error = |reason: String| ShapeError::Input { input: input.name.clone(), reason };
        let Some(dims) = &input.shape else {
            shapes.errors.push(error("it declares no shape; export the model with input shapes".into()));
            continue;
        };
        let shape: Result<Vec<usize>, ShapeError> = dims
            .iter()
            .enumerate()
            .map(|(axis, dim)| match dim {
                Dim::Known(size) => Ok(*size),
                Dim::Symbol(_) if axis == 0 => Ok(batch),
                Dim::Symbol(name) => {
                    Err(error(format!("dimension {axis} (`{name}`) has no size; give it one with `--dim {name}=SIZE`")))
                }
            })
            .collect();
        let too_large = |shape: Vec<usize>| ShapeError::TooLarge {
            node: input.name.clone(),
            op_type: "input".into(),
            value: input.name.clone(),
            shape,
        };
        match shape.and_then(|shape| if bounded(&shape) { Ok(shape) } else { Err(too_large(shape)) }) {
            Ok(shape) => drop(shapes.types.insert(input.name.clone(), TensorType { dtype: input.dtype, shape })),
            Err(error) => shapes.errors.push(error),
        }
    }
    for node in &graph.nodes {
        let ready = node.inputs.iter().all(|name| name.is_empty() || shapes.types.contains_key(name));
        if !ready {
            continue;
        }
        let mut context = Context { graph, node, types: &shapes.types, values: &shapes.values };
        match context.node() {
            Ok(outputs) => {
                if let Some((value, kind)) = node.outputs.iter().zip(&outputs).find(|(_, kind)| !bounded(&kind.shape)) {
                    shapes.errors.push(ShapeError::TooLarge {
                        node: node.name.clone(),
                        op_type: node.op_type.clone(),
                        value: value.clone(),
                        shape: kind.shape.clone(),
                    });
                    continue;
                }
                let value = context.value();
                for (name, kind) in node.outputs.iter().zip(outputs) {
                    if !name.is_empty() {
                        shapes.types.insert(name.clone(), kind);
                    }
                }
                if let Some(value) = value {
                    shapes.values.insert(node.output().to_owned(), value);
                }
            }
            Err(reason) => {
                shapes.errors.push(ShapeError::Node { node: node.name.clone(), op_type: node.op_type.clone(), reason })
            }
        }
    }
    shapes
}

/// Whether products of the sizes stay far from overflow, also of some of them and where others are 0.
fn bounded(shape: &[usize]) -> bool {
    const LIMIT: usize = 1 << 40;
    let volume = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size.max(1)));
    volume.is_some_and(|volume| volume <= LIMIT)
}

/// Geometry of a convolution or pooling window along one spatial axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Kernel size.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// Dilation.
    pub dilation: usize,
    /// Padding before.
    pub pad_begin: usize,
    /// Padding after (with `ceil_mode`, what the last window needs beyond the input is not counted).
    pub pad_end: usize,
    /// Output size.
    pub output: usize,
}

/// The windows of a Conv or pooling node over an input of spatial size `spatial`.
///
/// # Errors
///
/// What does not fit, in words.
pub fn windows(node: &Node, spatial: &[usize], kernel: &[usize]) -> Result<Vec<Window>, String> {
    let rank = spatial.len();
    if kernel.len() != rank {
        return Err(format!("kernel_shape {kernel:?} does not fit {rank} spatial axes"));
    }
    let (strides, dilations) = (sizes(node, "strides", 1, rank, rank)?, sizes(node, "dilations", 1, rank, rank)?);
    let pads = sizes(node, "pads", 0, 2 * rank, rank)?;
    let auto = node.string("auto_pad").unwrap_or("NOTSET");
    let ceil = node.int("ceil_mode", 0) != 0;
    (0..rank)
        .map(|i| {
            let (kernel, stride, dilation) = (kernel[i], strides[i], dilations[i]);
            let reach = reach(kernel, stride, dilation)?;
            let (pad_begin, pad_end) = match auto {
                "NOTSET" => (pads[i], pads[rank + i]),
                "VALID" => (0, 0),
                "SAME_UPPER" | "SAME_LOWER" => {
                    let output = spatial[i].div_ceil(stride);
                    let total = (output.saturating_sub(1) * stride).saturating_add(reach).saturating_sub(spatial[i]);
                    let (small, large) = (total / 2, total - total / 2);
                    if auto == "SAME_UPPER" { (small, large) } else { (large, small) }
                }
                other => return Err(format!("auto_pad `{other}` is not known")),
            };
            let span = spatial[i]
                .checked_add(pad_begin)
                .and_then(|v| v.checked_add(pad_end))
                .and_then(|v| v.checked_sub(reach))
                .ok_or_else(|| format!("a kernel reaching over {reach} does not fit an input of {}", spatial[i]))?;
            let mut output = if ceil { span.div_ceil(stride) } else { span / stride } + 1;
            // A window must not begin beyond the input and its padding before it.
            if ceil && (output - 1).saturating_mul(stride) >= spatial[i] + pad_begin {
                output -= 1;
            }
            Ok(Window { kernel, stride, dilation, pad_begin, pad_end, output })
        })
        .collect()
}

/// What a ConvTranspose node makes of an input of spatial size `spatial`. An output is cut out of the *whole* one, to which
/// input element `i` contributes with tap `k` at position `i · stride + k · dilation`: `pad_begin` positions into it, and
/// `output` long, which may be a little beyond its end (`output_padding`).
///
/// # Errors
///
/// What does not fit, in words.
pub fn transposed_windows(node: &Node, spatial: &[usize], kernel: &[usize]) -> Result<Vec<Window>, String> {
    let rank = spatial.len();
    if kernel.len() != rank {
        return Err(format!("kernel_shape {kernel:?} does not fit {rank} spatial axes"));
    }
    let (strides, dilations) = (sizes(node, "strides", 1, rank, rank)?, sizes(node, "dilations", 1, rank, rank)?);
    let (pads, more) = (sizes(node, "pads", 0, 2 * rank, rank)?, sizes(node, "output_padding", 0, rank, rank)?);
    let auto = node.string("auto_pad").unwrap_or("NOTSET");
    let asked = match node.ints("output_shape") {
        None => None,
        // Some exporters give batch and channels too.
        Some(shape) if shape.len() == rank + 2 => Some(sizes(node, "output_shape", 0, rank + 2, rank)?.split_off(2)),
        Some(_) => Some(sizes(node, "output_shape", 0, rank, rank)?),
    };
    let window = |i: usize| -> Option<Result<Window, String>> {
        let (kernel, stride, dilation) = (kernel[i], strides[i], dilations[i]);
        let reach = match reach(kernel, stride, dilation) {
            Ok(reach) => reach,
            Err(reason) => return Some(Err(reason)),
        };
        let whole = spatial[i].checked_sub(1)?.checked_mul(stride)?.checked_add(reach)?;
        let size = match auto {
            _ if asked.is_some() => asked.as_ref().map(|shape| shape[i]),
            "SAME_UPPER" | "SAME_LOWER" => Some(spatial[i].checked_mul(stride)?),
            "NOTSET" | "VALID" => None,
            other => return Some(Err(format!("auto_pad `{other}` is not known"))),
        };
        let (pad_begin, pad_end) = match size {
            Some(size) => {
                let total = whole.checked_add(more[i])?.saturating_sub(size);
                let (small, large) = (total / 2, total - total / 2);
                if auto == "SAME_UPPER" { (small, large) } else { (large, small) }
            }
            None if auto == "VALID" => (0, 0),
            None => (pads[i], pads[rank + i]),
        };
        let output = match size {
            Some(size) => size,
            None => whole.checked_add(more[i])?.checked_sub(pad_begin)?.checked_sub(pad_end)?,
        };
        // What lies behind the whole output.
        let behind = output.checked_add(pad_begin)?.checked_add(pad_end)?.saturating_sub(whole);
        if behind >= stride.max(dilation) {
            return Some(Err(format!(
                "its output goes on for {behind} elements where nothing of the input reaches; output_padding must be \
                 smaller than stride or dilation"
            )));
        }
        (output > 0).then_some(Ok(Window { kernel, stride, dilation, pad_begin, pad_end, output }))
    };
    (0..rank).map(|i| window(i).unwrap_or_else(|| Err("its output has no elements, or too many".to_owned()))).collect()
}

/// The elements of an input that one window spans.
fn reach(kernel: usize, stride: usize, dilation: usize) -> Result<usize, String> {
    if kernel == 0 || stride == 0 || dilation == 0 {
        return Err("kernel, stride and dilation must be positive".to_owned());
    }
    let reach = (kernel - 1).checked_mul(dilation).and_then(|v| v.checked_add(1));
    reach.ok_or_else(|| "the kernel is too large".to_owned())
}

/// A list attribute of `count` sizes for `rank` spatial axes; `default` for each where it is absent.
fn sizes(node: &Node, name: &str, default: usize, count: usize, rank: usize) -> Result<Vec<usize>, String> {
    match node.ints(name) {
        None => Ok(vec![default; count]),
        Some(values) if values.len() == count => values
            .iter()
            .map(|&v| usize::try_from(v).map_err(|_| format!("{name} {values:?}: negative values are not supported")))
            .collect(),
        Some(values) => Err(format!("{name} {values:?} does not fit {rank} spatial axes")),
    }
}

struct Context<'a> {
    graph: &'a Graph,
    node: &'a Node,
    types: &'a BTreeMap<String, TensorType>,
    values: &'a HashMap<String, Tensor>,
}

impl Context<'_> {
    fn kind(&self, i: usize) -> Result<&TensorType, String> {
        let name = self.node.input(i).ok_or_else(|| format!("input {i} is missing"))?;
        self.types.get(name).ok_or_else(|| format!("the shape of `{name}` is not known"))
    }

    fn shape(&self, i: usize) -> Result<&[usize], String> {
        self.kind(i).map(|kind| kind.shape.as_slice())
    }

    fn constant(&self, name: &str) -> Option<&Tensor> {
        self.graph.initializers.get(name).or_else(|| self.values.get(name))
    }

    /// Integers given as a constant input, or by an attribute in older operator sets.
    fn ints(&self, i: usize, attr: &str) -> Result<Option<Vec<i64>>, String> {
        match self.node.input(i) {
            Some(name) => match self.constant(name) {
                Some(tensor) => Ok(Some(tensor.to_i64())),
                None => Err(format!("`{name}` ({attr}) is computed from data; only constants are supported")),
            },
            None => Ok(self.node.ints(attr).map(<[i64]>::to_vec)),
        }
    }

    /// The integer value of the first output, when the inputs are known and it is small.
    fn value(&mut self) -> Option<Tensor> {
        const LIMIT: usize = 1024;
        let node = self.node;
        if node.op_type == "Shape" {
            // Only the shape matters: an empty tensor of that shape stands for the data.
            let shape = self.shape(0).ok()?.iter().map(|&dim| dim as i64).collect::<Vec<_>>();
            let rank = shape.len() as i64;
            let (start, end) = (node.int("start", 0), node.int("end", rank));
            let part: Vec<i64> = eval::slice_range(shape.len(), start, end, 1)?.indices().map(|i| shape[i]).collect();
            return Some(Tensor::from_i64(&[part.len()], &part));
        }
        if node.op_type == "Size" {
            let count: usize = self.shape(0).ok()?.iter().product();
            return Some(Tensor::from_i64(&[], &[count as i64]));
        }
        let inputs: Vec<Option<&Tensor>> = node
            .inputs
            .iter()
            .map(|name| if name.is_empty() { Some(None) } else { self.constant(name).map(Some) })
            .collect::<Option<_>>()?;
        if inputs.iter().flatten().any(|tensor| tensor.len() > LIMIT) {
            return None;
        }
        eval::eval(node, self.graph.opset, &inputs).filter(|tensor| tensor.len() <= LIMIT)
    }

    fn like(&self, shape: Vec<usize>) -> Result<Vec<TensorType>, String> {
        Ok(vec![TensorType { dtype: self.kind(0)?.dtype, shape }])
    }

    fn node(&self) -> Result<Vec<TensorType>, String> {
        let node = self.node;
        if !node.domain.is_empty() {
            return Err(format!("operators of domain `{}` are not known", node.domain));
        }
        match node.op_type.as_str() {
            "Constant" => {
                let value = eval::constant(node).ok_or("a Constant of an unsupported kind")?;
                Ok(vec![TensorType { dtype: value.dtype, shape: value.shape }])
            }
            "Conv" | "ConvTranspose" => self.conv(),
            "AveragePool" | "MaxPool" => self.pool(),
            "GlobalAveragePool" | "GlobalMaxPool" => {
                let x = self.shape(0)?;
                if x.len() < 3 {
                    return Err(format!("an input of rank {} has no spatial axes", x.len()));
                }
                self.like([&x[..2], &vec![1; x.len() - 2]].concat())
            }
            "Gemm" => self.gemm(),
            "Attention" => self.attention(),
            "Einsum" => {
                let equation = node.string("equation").ok_or("no equation")?;
                let shapes: Vec<&[usize]> = (0..node.inputs.len()).map(|i| self.shape(i)).collect::<Result<_, _>>()?;
                let shape = Equation::parse(equation).and_then(|equation| equation.shape(&shapes));
                self.like(shape.ok_or_else(|| {
                    format!(
                        "equation `{equation}` of shapes {shapes:?}: only letters, each once in a term, are supported"
                    )
                })?)
            }
            "IsNaN" => Ok(vec![TensorType { dtype: DataType::Bool, shape: self.shape(0)?.to_vec() }]),
            "MatMul" => self.matmul(),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" | "PRelu" | "Mod" => {
                let mut shape = self.shape(0)?.to_vec();
                for i in 1..node.inputs.len() {
                    let other = self.shape(i)?;
                    shape = eval::broadcast(&shape, other)
                        .ok_or_else(|| format!("shapes {shape:?} and {other:?} do not broadcast"))?;
                }
                self.like(shape)
            }
            "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "And" | "Or" | "Xor" => {
                let (a, b) = (self.shape(0)?, self.shape(1)?);
                let shape = eval::broadcast(a, b).ok_or_else(|| format!("shapes {a:?} and {b:?} do not broadcast"))?;
                Ok(vec![TensorType { dtype: DataType::Bool, shape }])
            }
            "Where" => {
                let (a, b, c) = (self.shape(0)?, self.shape(1)?, self.shape(2)?);
                let shape = eval::broadcast(a, b).and_then(|ab| eval::broadcast(&ab, c));
                let shape = shape.ok_or_else(|| format!("shapes {a:?}, {b:?} and {c:?} do not broadcast"))?;
                Ok(vec![TensorType { dtype: self.kind(1)?.dtype, shape }])
            }
            "Clip"
            | "Softmax"
            | "LogSoftmax"
            | "LayerNormalization"
            | "RMSNormalization"
            | "LpNormalization"
            | "MeanVarianceNormalization"
            | "BatchNormalization"
            | "InstanceNormalization"
            | "GroupNormalization"
            | "CumSum"
            | "Not" => self.like(self.shape(0)?.to_vec()),
            "CastLike" => Ok(vec![TensorType { dtype: self.kind(1)?.dtype, shape: self.shape(0)?.to_vec() }]),
            "Cast" => {
                let number = node.int("to", 0) as i32;
                let dtype = DataType::from_onnx_number(number)
                    .ok_or_else(|| format!("a cast to type {number} is not supported"))?;
                Ok(vec![TensorType { dtype, shape: self.shape(0)?.to_vec() }])
            }
            "QuantizeLinear" => {
                let declared = DataType::from_onnx_number(node.int("output_dtype", 0) as i32);
                let zero = if node.input(2).is_some() { Some(self.kind(2)?.dtype) } else { None };
                let dtype = zero.or(declared).unwrap_or(DataType::U8);
                Ok(vec![TensorType { dtype, shape: self.shape(0)?.to_vec() }])
            }
            "DequantizeLinear" => Ok(vec![TensorType { dtype: self.kind(1)?.dtype, shape: self.shape(0)?.to_vec() }]),
            op if op.starts_with("Reduce") => self.reduce(),
            "ArgMax" | "ArgMin" => {
                let mut shape = self.shape(0)?.to_vec();
                let axis = normalize_axis(node.int("axis", 0), shape.len()).ok_or("axis is out of range")?;
                shape[axis] = 1;
                if node.int("keepdims", 1) == 0 {
                    shape.remove(axis);
                }
                Ok(vec![TensorType { dtype: DataType::I64, shape }])
            }
            "Shape" => {
                let rank = self.shape(0)?.len();
                let part = eval::slice_range(rank, node.int("start", 0), node.int("end", rank as i64), 1);
                Ok(vec![TensorType { dtype: DataType::I64, shape: vec![part.map_or(0, |part| part.len)] }])
            }
            "Size" => Ok(vec![TensorType { dtype: DataType::I64, shape: vec![] }]),
            _ => self.layout(),
        }
    }

    /// Operators that move elements, and element-wise functions.
    fn layout(&self) -> Result<Vec<TensorType>, String> {
        let node = self.node;
        match node.op_type.as_str() {
            "Flatten" => self.like(eval::flattened(self.shape(0)?, node.int("axis", 1)).ok_or("axis is out of range")?),
            "Reshape" => {
                let target = self.ints(1, "shape")?.ok_or("no target shape")?;
                let x = self.shape(0)?;
                let shape = eval::reshape_target(x, &target, node.int("allowzero", 0) != 0)
                    .ok_or_else(|| format!("{x:?} cannot be reshaped to {target:?}"))?;
                self.like(shape)
            }
            "Squeeze" => {
                let axes = self.ints(1, "axes")?;
                let x = self.shape(0)?;
                let shape = eval::squeezed(x, axes.as_deref())
                    .ok_or_else(|| format!("{x:?} cannot be squeezed at {axes:?}"))?;
                self.like(shape)
            }
            "Unsqueeze" => {
                let axes = self.ints(1, "axes")?.ok_or("no axes")?;
                let x = self.shape(0)?;
                let shape =
                    eval::unsqueezed(x, &axes).ok_or_else(|| format!("axes {axes:?} do not fit rank {}", x.len()))?;
                self.like(shape)
            }
            "Transpose" => {
                let x = self.shape(0)?;
                let perm =
                    eval::permutation(node, x.len()).ok_or_else(|| format!("perm does not fit rank {}", x.len()))?;
                self.like(perm.iter().map(|&axis| x[axis]).collect())
            }
            "Concat" => {
                let mut shape = self.shape(0)?.to_vec();
                let axis = normalize_axis(node.int("axis", 0), shape.len()).ok_or("axis is out of range")?;
                for i in 1..node.inputs.len() {
                    let other = self.shape(i)?;
                    let fits =
                        other.len() == shape.len() && (0..shape.len()).all(|d| d == axis || other[d] == shape[d]);
                    if !fits {
                        return Err(format!("shapes {shape:?} and {other:?} cannot be joined along axis {axis}"));
                    }
                    shape[axis] += other[axis];
                }
                self.like(shape)
            }
            "Pad" => {
                let x = self.shape(0)?.to_vec();
                let pads = self.ints(1, "pads")?.ok_or("no pads")?;
                let axes = match self.node.input(3) {
                    Some(_) => self.ints(3, "axes")?.unwrap_or_default(),
                    None => (0..x.len() as i64).collect(),
                };
                if pads.len() != 2 * axes.len() {
                    return Err(format!("pads {pads:?} do not fit {} axes", axes.len()));
                }
                let mut shape = x;
                for (i, &axis) in axes.iter().enumerate() {
                    let axis = normalize_axis(axis, shape.len()).ok_or("an axis is out of range")?;
                    let size = i128::from(pads[i]) + i128::from(pads[axes.len() + i]) + shape[axis] as i128;
                    shape[axis] = usize::try_from(size).map_err(|_| format!("pads {pads:?} do not fit axis {axis}"))?;
                }
                self.like(shape)
            }
            "Slice" => {
                let x = self.shape(0)?;
                let mut shape = x.to_vec();
                let starts = self.ints(1, "starts")?.ok_or("no starts")?;
                let ends = self.ints(2, "ends")?.ok_or("no ends")?;
                let axes = self.ints(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
                let steps = self.ints(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
                for (i, &axis) in axes.iter().enumerate() {
                    let axis = normalize_axis(axis, shape.len()).ok_or("an axis is out of range")?;
                    let (Some(&start), Some(&end), Some(&step)) = (starts.get(i), ends.get(i), steps.get(i)) else {
                        return Err("starts, ends, axes and steps differ in length".into());
                    };
                    shape[axis] = eval::slice_range(x[axis], start, end, step).ok_or("a step of 0")?.len;
                }
                self.like(shape)
            }
            "Gather" => {
                let (x, index) = (self.shape(0)?, self.shape(1)?);
                let axis = normalize_axis(node.int("axis", 0), x.len()).ok_or("axis is out of range")?;
                self.like([&x[..axis], index, &x[axis + 1..]].concat())
            }
            "Split" => {
                let x = self.shape(0)?.to_vec();
                let axis = normalize_axis(node.int("axis", 0), x.len()).ok_or("axis is out of range")?;
                let parts = movement::split_sizes(node, x[axis], self.ints(1, "split")?.as_deref())?;
                let dtype = self.kind(0)?.dtype;
                let part = |size: usize| {
                    let mut shape = x.clone();
                    shape[axis] = size;
                    TensorType { dtype, shape }
                };
                Ok(parts.into_iter().map(part).collect())
            }
            "Expand" => {
                let target = self.ints(1, "shape")?.ok_or("no target shape")?;
                let target: Vec<usize> = target.iter().map(|&v| usize::try_from(v).unwrap_or(0)).collect();
                let shape = eval::broadcast(self.shape(0)?, &target).ok_or("the shapes do not broadcast")?;
                self.like(shape)
            }
            "Tile" => {
                let repeats = self.ints(1, "repeats")?.ok_or("no repeats")?;
                let x = self.shape(0)?;
                let sizes =
                    x.iter().zip(&repeats).map(|(&size, &times)| size.checked_mul(usize::try_from(times).ok()?));
                let shape: Option<Vec<usize>> = sizes.collect();
                let shape = shape.filter(|shape| shape.len() == repeats.len() && shape.len() == x.len());
                self.like(shape.ok_or_else(|| format!("repeats {repeats:?} do not fit {x:?}"))?)
            }
            "Resize" => {
                let constant = |i: usize| node.input(i).and_then(|name| self.constant(name));
                self.like(Interpolation::of(node, self.shape(0)?, constant)?.shape())
            }
            "DepthToSpace" | "SpaceToDepth" => self.like(movement::blocks(node, self.shape(0)?)?.joined),
            "ConstantOfShape" | "Range" => {
                let inputs: Option<Vec<Option<&Tensor>>> =
                    node.inputs.iter().map(|name| self.constant(name).map(Some)).collect();
                let value = inputs.and_then(|inputs| eval::eval(node, self.graph.opset, &inputs));
                let value = value.ok_or("its inputs are not constants, or its result is too large")?;
                Ok(vec![TensorType { dtype: value.dtype, shape: value.shape }])
            }
            "Identity" | "Dropout" => self.like(self.shape(0)?.to_vec()),
            _ if eval::is_unary(node) => self.like(self.shape(0)?.to_vec()),
            other => Err(format!("operator `{other}` is not known")),
        }
    }

    fn conv(&self) -> Result<Vec<TensorType>, String> {
        let (x, w) = (self.shape(0)?, self.shape(1)?);
        if x.len() < 3 || w.len() != x.len() {
            return Err(format!("input {x:?} and weights {w:?} do not fit"));
        }
        let group =
            usize::try_from(self.node.int("group", 1)).ok().filter(|&g| g > 0).ok_or("group must be positive")?;
        let transposed = self.node.op_type == "ConvTranspose";
        let (inputs, outputs) = match transposed {
            false => (w[1].checked_mul(group), Some(w[0]).filter(|outputs| outputs % group == 0)),
            true => (Some(w[0]).filter(|inputs| inputs % group == 0), w[1].checked_mul(group)),
        };
        let (true, Some(outputs)) = (inputs == Some(x[1]), outputs) else {
            return Err(format!("weights {w:?} in {group} group(s) do not fit {} input channels", x[1]));
        };
        let kernel = match self.node.ints("kernel_shape") {
            Some(kernel) if kernel.iter().map(|&k| k as usize).ne(w[2..].iter().copied()) => {
                return Err(format!("kernel_shape {kernel:?} differs from the weights {w:?}"));
            }
            _ => &w[2..],
        };
        let windows = match transposed {
            false => windows(self.node, &x[2..], kernel)?,
            true => transposed_windows(self.node, &x[2..], kernel)?,
        };
        let mut shape = vec![x[0], outputs];
        shape.extend(windows.iter().map(|window| window.output));
        self.like(shape)
    }

    fn pool(&self) -> Result<Vec<TensorType>, String> {
        let x = self.shape(0)?;
        if x.len() < 3 {
            return Err(format!("an input of rank {} has no spatial axes", x.len()));
        }
        let kernel = self.node.ints("kernel_shape").ok_or("no kernel_shape")?;
        let kernel: Vec<usize> = kernel.iter().map(|&k| usize::try_from(k).unwrap_or(0)).collect();
        let windows = windows(self.node, &x[2..], &kernel)?;
        let mut shape = x[..2].to_vec();
        shape.extend(windows.iter().map(|window| window.output));
        self.like(shape)
    }

    fn gemm(&self) -> Result<Vec<TensorType>, String> {
        let (a, b) = (self.shape(0)?, self.shape(1)?);
        let ([a0, a1], [b0, b1]) = (a, b) else { return Err(format!("operands {a:?} and {b:?} must have rank 2")) };
        let (m, k) = if self.node.int("transA", 0) != 0 { (*a1, *a0) } else { (*a0, *a1) };
        let (kb, n) = if self.node.int("transB", 0) != 0 { (*b1, *b0) } else { (*b0, *b1) };
        if k != kb {
            return Err(format!("operands {a:?} and {b:?} do not fit"));
        }
        if self.node.input(2).is_some() {
            let c = self.shape(2)?;
            if eval::broadcast(c, &[m, n]).as_deref() != Some(&[m, n]) {
                return Err(format!("bias {c:?} does not broadcast to [{m}, {n}]"));
            }
        }
        self.like(vec![m, n])
    }

    /// The first output alone.
    fn attention(&self) -> Result<Vec<TensorType>, String> {
        let (q, v) = (self.shape(0)?, self.shape(2)?);
        match (q, v) {
            (&[n, rows, _], &[_, _, width]) => {
                let heads = |name: &str| usize::try_from(self.node.int(name, 0)).ok().filter(|&heads| heads > 0);
                let (Some(q_heads), Some(heads)) = (heads("q_num_heads"), heads("kv_num_heads")) else {
                    return Err("operands of rank 3 need q_num_heads and kv_num_heads".into());
                };
                let joined = (width / heads).checked_mul(q_heads).ok_or("q_num_heads is too large")?;
                self.like(vec![n, rows, joined])
            }
            (&[n, heads, rows, _], &[_, _, _, depth]) => self.like(vec![n, heads, rows, depth]),
            _ => Err(format!("operands {q:?} and {v:?} must have rank 3 or 4")),
        }
    }

    fn matmul(&self) -> Result<Vec<TensorType>, String> {
        let (a, b) = (self.shape(0)?.to_vec(), self.shape(1)?.to_vec());
        let error = || format!("operands {a:?} and {b:?} do not fit");
        if a.is_empty() || b.is_empty() {
            return Err(error());
        }
        let wide_a = if a.len() == 1 { vec![1, a[0]] } else { a.clone() };
        let wide_b = if b.len() == 1 { vec![b[0], 1] } else { b.clone() };
        let (batch_a, tail_a) = wide_a.split_at(wide_a.len() - 2);
        let (batch_b, tail_b) = wide_b.split_at(wide_b.len() - 2);
        if tail_a[1] != tail_b[0] {
            return Err(error());
        }
        let mut shape = eval::broadcast(batch_a, batch_b).ok_or_else(error)?;
        if a.len() > 1 {
            shape.push(tail_a[0]);
        }
        if b.len() > 1 {
            shape.push(tail_b[1]);
        }
        self.like(shape)
    }

    fn reduce(&self) -> Result<Vec<TensorType>, String> {
        let x = self.shape(0)?.to_vec();
        let axes = self.ints(1, "axes")?.filter(|axes| !axes.is_empty());
        let keep = self.node.int("keepdims", 1) != 0;
        let axes: Vec<usize> = match axes {
            Some(axes) => axes
                .iter()
                .map(|&axis| normalize_axis(axis, x.len()))
                .collect::<Option<_>>()
                .ok_or("an axis is out of range")?,
            None if self.node.int("noop_with_empty_axes", 0) != 0 => return self.like(x),
            None => (0..x.len()).collect(),
        };
        let shape = (0..x.len())
            .filter(|i| keep || !axes.contains(i))
            .map(|i| if axes.contains(&i) { 1 } else { x[i] })
            .collect();
        self.like(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attr;

    fn pool(attrs: &[(&str, Attr)]) -> Node {
        attrs.iter().fold(Node::new("MaxPool", "p", ["x"], ["y"]), |node, (name, attr)| node.with(name, attr.clone()))
    }

    #[test]
    fn windows_follow_the_specification() {
        let node = pool(&[("strides", Attr::Ints(vec![2])), ("ceil_mode", Attr::Int(1))]);
        assert_eq!(windows(&node, &[6], &[3]).unwrap()[0].output, 3);
        let node = pool(&[("strides", Attr::Ints(vec![2])), ("auto_pad", Attr::String("SAME_LOWER".into()))]);
        let window = windows(&node, &[5], &[2]).unwrap()[0];
        assert_eq!((window.output, window.pad_begin, window.pad_end), (3, 1, 0));
        assert!(windows(&pool(&[]), &[2], &[3]).is_err());
        assert!(windows(&pool(&[("pads", Attr::Ints(vec![-1, 0]))]), &[4], &[3]).is_err());
    }

    #[test]
    fn transposed_windows_follow_the_specification() {
        let window = |attrs: &[(&str, Attr)], spatial: usize, kernel: usize| {
            let node = Node::new("ConvTranspose", "t", ["x", "w"], ["y"]);
            let node = attrs.iter().fold(node, |node, (name, attr)| node.with(name, attr.clone()));
            let window = transposed_windows(&node, &[spatial], &[kernel])?;
            Ok::<_, String>((window[0].output, window[0].pad_begin, window[0].pad_end))
        };
        let ints = |values: &[i64]| Attr::Ints(values.to_vec());
        let two = ("strides", ints(&[2]));
        assert_eq!(window(std::slice::from_ref(&two), 4, 3), Ok((9, 0, 0)));
        assert_eq!(
            window(&[two.clone(), ("pads", ints(&[1, 1])), ("output_padding", ints(&[1]))], 4, 3),
            Ok((8, 1, 1))
        );
        let auto = |name: &str| ("auto_pad", Attr::String(name.into()));
        assert_eq!(window(&[two.clone(), auto("SAME_UPPER")], 4, 3), Ok((8, 0, 1)));
        assert_eq!(window(&[two.clone(), auto("SAME_LOWER")], 4, 3), Ok((8, 1, 0)));
        assert_eq!(window(&[two.clone(), auto("VALID"), ("pads", ints(&[5, 5]))], 4, 3), Ok((9, 0, 0)));
        // An explicit size pads more at the beginning, unless the node says otherwise.
        assert_eq!(window(&[two.clone(), ("output_shape", ints(&[8]))], 4, 3), Ok((8, 1, 0)));
        assert_eq!(window(&[two.clone(), ("output_shape", ints(&[1, 7, 8])), auto("SAME_UPPER")], 4, 3), Ok((8, 0, 1)));
        assert_eq!(window(&[two.clone(), ("output_shape", ints(&[10]))], 4, 3), Ok((10, 0, 0)));
        for bad in [
            ("output_shape", ints(&[11])),
            ("output_padding", ints(&[2])),
            ("pads", ints(&[5, 4])),
            ("pads", ints(&[-1, 0])),
            ("pads", ints(&[i64::MAX, i64::MAX])),
            ("output_shape", ints(&[0])),
            ("output_shape", ints(&[3, 3])),
            auto("SAME"),
        ] {
            assert!(window(&[two.clone(), bad.clone()], 4, 3).is_err(), "{bad:?}");
        }
        assert!(window(&[("strides", ints(&[i64::MAX]))], 4, 3).is_err());
        assert!(window(&[], 0, 3).is_err());
    }

    #[test]
    fn a_symbolic_inner_dimension_is_named() {
        let graph = Graph {
            opset: 17,
            inputs: vec![super::super::ValueInfo {
                name: "x".into(),
                dtype: DataType::F32,
                shape: Some(vec![Dim::Symbol("N".into()), Dim::Symbol("T".into())]),
            }],
            ..Graph::default()
        };
        assert!(infer(&graph, 1).unwrap_err().to_string().contains("--dim T=SIZE"));
    }
}
