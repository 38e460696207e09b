//! Evaluation of operators on constants: for constant folding, shape arithmetic and lookup tables.
//!
//! Only the operators that exporters put into constant sub-graphs are here; floats are computed in f32
//! as a runtime would.

use super::{Attr, DataType, Node, Tensor};

/// Elements of a constant in one of the two number kinds the evaluator computes with.
#[derive(Debug, Clone, PartialEq)]
enum Data {
    Float(Vec<f32>),
    Int(Vec<i64>),
}

/// A constant during evaluation.
#[derive(Debug, Clone, PartialEq)]
struct Array {
    shape: Vec<usize>,
    data: Data,
    dtype: DataType,
}

impl Array {
    fn new(tensor: &Tensor) -> Self {
        let data = if tensor.dtype.is_float() { Data::Float(tensor.to_f32()) } else { Data::Int(tensor.to_i64()) };
        Self { shape: tensor.shape.clone(), data, dtype: tensor.dtype }
    }

    fn ints(shape: Vec<usize>, values: Vec<i64>) -> Self {
        Self { shape, data: Data::Int(values), dtype: DataType::I64 }
    }

    fn to_i64(&self) -> Vec<i64> {
        match &self.data {
            Data::Int(v) => v.clone(),
            Data::Float(v) => v.iter().map(|&x| x as i64).collect(),
        }
    }

    fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::Float(v) => v.clone(),
            Data::Int(v) => v.iter().map(|&x| x as f32).collect(),
        }
    }

    /// Elements at `index`, in that order, under a new shape.
    fn pick(&self, shape: Vec<usize>, index: &[usize]) -> Option<Self> {
        let data = match &self.data {
            Data::Float(v) => Data::Float(index.iter().map(|&i| v.get(i).copied()).collect::<Option<_>>()?),
            Data::Int(v) => Data::Int(index.iter().map(|&i| v.get(i).copied()).collect::<Option<_>>()?),
        };
        Some(Self { shape, data, dtype: self.dtype })
    }

    fn reshaped(&self, shape: Vec<usize>) -> Option<Self> {
        (shape.iter().product::<usize>() == self.shape.iter().product::<usize>()).then(|| Self {
            shape,
            data: self.data.clone(),
            dtype: self.dtype,
        })
    }

    /// Converts to `dtype`, saturating nowhere: the caller casts as ONNX `Cast` does.
    fn cast(&self, dtype: DataType) -> Option<Self> {
        let data = match dtype {
            DataType::F32 | DataType::F64 | DataType::F16 | DataType::Bf16 => Data::Float(self.to_f32()),
            DataType::Bool => Data::Int(match &self.data {
                Data::Float(v) => v.iter().map(|&x| i64::from(x != 0.0)).collect(),
                Data::Int(v) => v.iter().map(|&x| i64::from(x != 0)).collect(),
            }),
            DataType::I64 => Data::Int(self.to_i64()),
            DataType::I32 => Data::Int(self.to_i64().into_iter().map(|v| i64::from(v as i32)).collect()),
            _ => return None,
        };
        Some(Self { shape: self.shape.clone(), data, dtype })
    }

    fn tensor(self) -> Tensor {
        let Self { shape, data, dtype } = self;
        match (data, dtype) {
            // Wider and narrower floats are folded to f32, the type everything is computed in.
            (Data::Float(v), _) => Tensor::from_f32(&shape, &v),
            (Data::Int(v), DataType::I64) => Tensor::from_i64(&shape, &v),
            (Data::Int(v), dtype) => Tensor::from_ints(dtype, &shape, &v.iter().map(|&x| x as i32).collect::<Vec<_>>()),
        }
    }
}

/// Largest constant that folding and rewrites make: they must not blow a small file up.
const MAX_ELEMENTS: usize = 1 << 24;

/// The first output of `node` for constant inputs (absent optional inputs are `None`), or `None` when the
/// operator or this form of it is not evaluated. Never panics on malformed nodes.
pub fn eval(node: &Node, opset: i64, inputs: &[Option<&Tensor>]) -> Option<Tensor> {
    if !node.domain.is_empty() {
        return None;
    }
    if !inputs.iter().flatten().all(|tensor| sound(&tensor.shape)) {
        return None;
    }
    let arrays: Vec<Option<Array>> = inputs.iter().map(|tensor| tensor.map(Array::new)).collect();
    let get = |i: usize| arrays.get(i).and_then(Option::as_ref);
    let x = get(0);
    let out = match node.op_type.as_str() {
        "Constant" => return constant(node),
        "Dropout" if get(2).is_some_and(|training| training.to_i64() != [0]) => return None,
        "Identity" | "Dropout" => return inputs.first().copied().flatten().cloned(),
        "Shape" => {
            let shape: Vec<i64> = x?.shape.iter().map(|&dim| dim as i64).collect();
            let rank = shape.len() as i64;
            let clamp = |v: i64| (if v < 0 { v + rank } else { v }).clamp(0, rank) as usize;
            let (start, end) = (clamp(node.int("start", 0)), clamp(node.int("end", rank)));
            let part = shape.get(start..end.max(start))?.to_vec();
            Array::ints(vec![part.len()], part)
        }
        "Size" => Array::ints(vec![], vec![x?.shape.iter().product::<usize>() as i64]),
        "CastLike" => x?.cast(get(1)?.dtype)?,
        "Not" => {
            let data = Data::Int(x?.to_i64().iter().map(|&v| i64::from(v == 0)).collect());
            Array { shape: x?.shape.clone(), data, dtype: DataType::Bool }
        }
        "Cast" => x?.cast(DataType::from_onnx_number(node.int("to", 0) as i32)?)?,
        "Reshape" => {
            let shape = reshape_target(&x?.shape, &get(1)?.to_i64(), node.int("allowzero", 0) != 0)?;
            x?.reshaped(shape)?
        }
        "Flatten" => x?.reshaped(flattened(&x?.shape, node.int("axis", 1))?)?,
        "Squeeze" | "Unsqueeze" => {
            let axes = match get(1) {
                Some(axes) => Some(axes.to_i64()),
                None => node.ints("axes").map(<[i64]>::to_vec),
            };
            let shape = if node.op_type == "Squeeze" {
                squeezed(&x?.shape, axes.as_deref())?
            } else {
                unsqueezed(&x?.shape, &axes?)?
            };
            x?.reshaped(shape)?
        }
        "Transpose" => {
            let rank = x?.shape.len();
            let perm = permutation(node, rank)?;
            let shape: Vec<usize> = perm.iter().map(|&axis| x.map_or(0, |x| x.shape[axis])).collect();
            let strides = strides(&x?.shape);
            let moved: Vec<usize> = perm.iter().map(|&axis| strides[axis]).collect();
            let index = positions(&shape, &moved);
            x?.pick(shape, &index)?
        }
        "Concat" => concat(node, &arrays)?,
        "Gather" => gather(node, x?, get(1)?)?,
        "Slice" => slice(node, opset, &arrays)?,
        "Expand" => {
            let target: Option<Vec<usize>> = get(1)?.to_i64().iter().map(|&dim| usize::try_from(dim).ok()).collect();
            let shape = broadcast(&x?.shape, &target?)?;
            let index = broadcast_index(&x?.shape, &shape)?;
            x?.pick(shape, &index)?
        }
        "ConstantOfShape" => {
            let shape: Option<Vec<usize>> = x?.to_i64().iter().map(|&dim| usize::try_from(dim).ok()).collect();
            let shape = shape?;
            let count = checked_len(&shape)?;
            match node.attrs.get("value") {
                Some(Attr::Tensor(value)) if value.len() == 1 => Array::new(value).pick(shape, &vec![0; count])?,
                None => Array { shape, data: Data::Float(vec![0.0; count]), dtype: DataType::F32 },
                _ => return None,
            }
        }
        "Range" => {
            let part = |i: usize| get(i).and_then(|a| a.to_i64().first().copied());
            let (start, limit, step) = (part(0)?, part(1)?, part(2)?);
            if step == 0 || matches!(x?.data, Data::Float(_)) {
                return None;
            }
            let count =
                usize::try_from(limit.checked_sub(start)?.checked_add(step - step.signum())?.checked_div(step)?.max(0))
                    .ok()?;
            checked_len(&[count])?;
            Array::ints(vec![count], (0..count as i64).map(|i| start + i * step).collect())
        }
        "Where" => {
            let (c, a, b) = (x?, get(1)?, get(2)?);
            let shape = broadcast(&broadcast(&c.shape, &a.shape)?, &b.shape)?;
            let of = |array: &Array| {
                broadcast_index(&array.shape, &shape).and_then(|index| array.pick(shape.clone(), &index))
            };
            let (c, a, b) = (of(c)?.to_i64(), of(a)?, of(b)?);
            let count = c.len();
            let data = match (&a.data, &b.data) {
                (Data::Int(a), Data::Int(b)) => {
                    Data::Int((0..count).map(|i| if c[i] != 0 { a[i] } else { b[i] }).collect())
                }
                (Data::Float(a), Data::Float(b)) => {
                    Data::Float((0..count).map(|i| if c[i] != 0 { a[i] } else { b[i] }).collect())
                }
                _ => return None,
            };
            Array { shape, data, dtype: a.dtype }
        }
        "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "And" | "Or" | "Xor" => {
            compare(&node.op_type, x?, get(1)?)?
        }
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" | "Mod" => {
            let op = if node.int("fmod", 0) != 0 { "fmod" } else { node.op_type.as_str() };
            match arrays.as_slice() {
                [Some(a), Some(b)] => binary(op, a, b)?,
                // Of any number of values.
                [first, rest @ ..] if matches!(op, "Min" | "Max") => {
                    rest.iter().try_fold(first.clone()?, |all, next| binary(op, &all, next.as_ref()?))?
                }
                _ => return None,
            }
        }
        "ReduceProd" | "ReduceSum" | "ReduceMin" | "ReduceMax" => reduce(node, x?, get(1))?,
        "QuantizeLinear" => return quantize(node, inputs),
        _ => {
            let Data::Float(values) = &x?.data else {
                return match (node.op_type.as_str(), &x?.data) {
                    ("Neg", Data::Int(v)) => {
                        let data = Data::Int(v.iter().map(|&v| v.wrapping_neg()).collect());
                        Some(Array { shape: x?.shape.clone(), data, dtype: x?.dtype }.tensor())
                    }
                    _ => None,
                };
            };
            let data: Option<Vec<f32>> =
                values.iter().map(|&v| eval_unary(node, f64::from(v)).map(|y| y as f32)).collect();
            Array { shape: x?.shape.clone(), data: Data::Float(data?), dtype: DataType::F32 }
        }
    };
    sound(&out.shape).then(|| out.tensor())
}

/// Whether the elements exist, or, where a size is 0, no product of the other sizes is large.
fn sound(shape: &[usize]) -> bool {
    !shape.contains(&0) || checked_len(shape).is_some()
}

/// A `Constant` node's value.
pub fn constant(node: &Node) -> Option<Tensor> {
    let (_, attr) = node.attrs.iter().find(|(name, _)| name.starts_with("value"))?;
    Some(match attr {
        Attr::Tensor(tensor) => tensor.clone(),
        Attr::Float(v) => Tensor::from_f32(&[], &[*v]),
        Attr::Floats(v) => Tensor::from_f32(&[v.len()], v),
        Attr::Int(v) => Tensor::from_i64(&[], &[*v]),
        Attr::Ints(v) => Tensor::from_i64(&[v.len()], v),
        _ => return None,
    })
}

/// An element-wise function of one variable in f64, or `None` when `node` is not one.
///
/// Constants of the ONNX operator specification; `Gelu` and `Erf` to f64 accuracy.
pub fn eval_unary(node: &Node, x: f64) -> Option<f64> {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    let attr = |name: &str, default: f32| f64::from(node.float(name, default));
    Some(match node.op_type.as_str() {
        "Identity" | "Dropout" => x,
        "Relu" => x.max(0.0),
        "Neg" => -x,
        "Abs" => x.abs(),
        "Reciprocal" => 1.0 / x,
        "Sqrt" => x.sqrt(),
        "Exp" => x.exp(),
        "Log" => x.ln(),
        "Erf" => libm::erf(x),
        "Tanh" => x.tanh(),
        "Sin" => x.sin(),
        "Cos" => x.cos(),
        "Tan" => x.tan(),
        "Asin" => x.asin(),
        "Acos" => x.acos(),
        "Atan" => x.atan(),
        "Sinh" => x.sinh(),
        "Cosh" => x.cosh(),
        "Asinh" => x.asinh(),
        "Atanh" => x.atanh(),
        "Shrink" => {
            let (bias, edge) = (attr("bias", 0.0), attr("lambd", 0.5));
            if x < -edge {
                x + bias
            } else if x > edge {
                x - bias
            } else {
                0.0
            }
        }
        "Floor" => x.floor(),
        "Ceil" => x.ceil(),
        "Round" => x.round_ties_even(),
        "Sign" if x == 0.0 => 0.0,
        "Sign" => x.signum(),
        "Sigmoid" => sigmoid(x),
        "Softplus" => softplus(x),
        "Softsign" => x / (1.0 + x.abs()),
        "Mish" => x * softplus(x).tanh(),
        "HardSigmoid" => (attr("alpha", 0.2) * x + attr("beta", 0.5)).clamp(0.0, 1.0),
        "HardSwish" => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        "Swish" => x * sigmoid(attr("alpha", 1.0) * x),
        "LeakyRelu" if x < 0.0 => attr("alpha", 0.01) * x,
        "LeakyRelu" => x,
        "ThresholdedRelu" => {
            if x > attr("alpha", 1.0) {
                x
            } else {
                0.0
            }
        }
        "Elu" if x < 0.0 => attr("alpha", 1.0) * x.exp_m1(),
        "Elu" => x,
        "Celu" => {
            let alpha = attr("alpha", 1.0);
            x.max(0.0) + (alpha * (x / alpha).exp_m1()).min(0.0)
        }
        "Selu" => {
            let (alpha, gamma) = (attr("alpha", 1.673_263_2), attr("gamma", 1.050_701));
            gamma * if x > 0.0 { x } else { alpha * x.exp_m1() }
        }
        "Gelu" => match node.string("approximate") {
            Some("tanh") => {
                let c = (2.0 / std::f64::consts::PI).sqrt();
                0.5 * x * (1.0 + (c * (x + 0.044715 * x * x * x)).tanh())
            }
            _ => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        },
        _ => return None,
    })
}

/// Whether [`eval_unary`] knows the operator.
pub fn is_unary(node: &Node) -> bool {
    // The argument does not matter: an operator is known everywhere or nowhere.
    node.domain.is_empty() && eval_unary(node, 0.5).is_some()
}

/// An axis counted from the end when negative; `None` when out of range.
pub fn normalize_axis(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// The `perm` of a Transpose, reversed axes by default.
pub fn permutation(node: &Node, rank: usize) -> Option<Vec<usize>> {
    let Some(perm) = node.ints("perm") else { return Some((0..rank).rev().collect()) };
    let perm: Vec<usize> = perm.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<_>>()?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    (sorted == (0..rank).collect::<Vec<_>>()).then_some(perm)
}

/// NumPy broadcasting of two shapes.
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    (0..rank)
        .map(|i| match (dim(a, i), dim(b, i)) {
            (x, y) if x == y || y == 1 => Some(x),
            (1, y) => Some(y),
            _ => None,
        })
        .collect()
}

/// The shape after Flatten: the sizes before `axis`, which may be the rank, and those behind it multiplied.
pub fn flattened(shape: &[usize], axis: i64) -> Option<Vec<usize>> {
    let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
    let (outer, inner) = shape.split_at_checked(usize::try_from(axis).ok()?)?;
    Some(vec![outer.iter().product(), inner.iter().product()])
}

/// The shape a Reshape gives: 0 copies (unless `allow_zero`), one −1 is inferred.
pub fn reshape_target(from: &[usize], target: &[i64], allow_zero: bool) -> Option<Vec<usize>> {
    let total: usize = from.iter().product();
    let mut shape = Vec::with_capacity(target.len());
    let mut inferred = None;
    for (i, &dim) in target.iter().enumerate() {
        shape.push(match dim {
            -1 if inferred.is_none() => {
                inferred = Some(i);
                1
            }
            0 if !allow_zero => *from.get(i)?,
            dim => usize::try_from(dim).ok()?,
        });
    }
    let known = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))?;
    if let Some(i) = inferred {
        if known == 0 || !total.is_multiple_of(known) {
            return None;
        }
        shape[i] = total / known;
        return Some(shape);
    }
    (known == total).then_some(shape)
}

/// The shape after Squeeze (all axes of size 1 when `axes` is `None`).
pub fn squeezed(shape: &[usize], axes: Option<&[i64]>) -> Option<Vec<usize>> {
    let drop: Vec<usize> = match axes {
        None => (0..shape.len()).filter(|&i| shape[i] == 1).collect(),
        Some(axes) => axes.iter().map(|&axis| normalize_axis(axis, shape.len())).collect::<Option<_>>()?,
    };
    if drop.iter().any(|&i| shape[i] != 1) {
        return None;
    }
    Some((0..shape.len()).filter(|i| !drop.contains(i)).map(|i| shape[i]).collect())
}

/// The shape after Unsqueeze.
pub fn unsqueezed(shape: &[usize], axes: &[i64]) -> Option<Vec<usize>> {
    let rank = shape.len() + axes.len();
    let axes: Vec<usize> = axes.iter().map(|&axis| normalize_axis(axis, rank)).collect::<Option<_>>()?;
    let mut rest = shape.iter();
    let out: Option<Vec<usize>> =
        (0..rank).map(|i| if axes.contains(&i) { Some(1) } else { rest.next().copied() }).collect();
    out.filter(|_| rest.next().is_none())
}

/// The number of elements, if it is no larger than folding may make; sizes of 0 count as 1 in that comparison.
pub(crate) fn checked_len(shape: &[usize]) -> Option<usize> {
    let volume = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim.max(1)))?;
    (volume <= MAX_ELEMENTS).then(|| shape.iter().product())
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        out[i - 1] = out[i] * shape[i];
    }
    out
}

/// Source positions of nested loops over `shape` with the given strides.
fn positions(shape: &[usize], strides: &[usize]) -> Vec<usize> {
    let mut out = vec![0];
    for (&size, &stride) in shape.iter().zip(strides) {
        out = out.iter().flat_map(|&base| (0..size).map(move |i| base + i * stride)).collect();
    }
    out
}

/// For each element of `to`, its source in `from` broadcast to it.
fn broadcast_index(from: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    checked_len(to)?;
    let skip = to.len().checked_sub(from.len())?;
    let own = strides(from);
    let strides: Vec<usize> =
        (0..to.len()).map(|i| if i < skip || from[i - skip] == 1 { 0 } else { own[i - skip] }).collect();
    Some(positions(to, &strides))
}

fn binary(op: &str, a: &Array, b: &Array) -> Option<Array> {
    let shape = broadcast(&a.shape, &b.shape)?;
    let (ia, ib) = (broadcast_index(&a.shape, &shape)?, broadcast_index(&b.shape, &shape)?);
    let data = match (&a.data, &b.data) {
        (Data::Int(x), Data::Int(y)) => {
            let f = |(&i, &j): (&usize, &usize)| {
                let (x, y) = (*x.get(i)?, *y.get(j)?);
                match op {
                    "Add" => x.checked_add(y),
                    "Sub" => x.checked_sub(y),
                    "Mul" => x.checked_mul(y),
                    "Div" => x.checked_div(y),
                    "fmod" => x.checked_rem(y),
                    // The sign of the divisor.
                    "Mod" => {
                        x.checked_rem(y).map(|rest| if rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest })
                    }
                    "Pow" => x.checked_pow(u32::try_from(y).ok()?),
                    "Min" => Some(x.min(y)),
                    "Max" => Some(x.max(y)),
                    _ => None,
                }
            };
            Data::Int(ia.iter().zip(&ib).map(f).collect::<Option<_>>()?)
        }
        (Data::Float(x), _) => {
            let y = b.to_f32();
            let f = |(&i, &j): (&usize, &usize)| {
                let (x, y) = (*x.get(i)?, *y.get(j)?);
                match op {
                    "Add" => Some(x + y),
                    "Sub" => Some(x - y),
                    "Mul" => Some(x * y),
                    "Div" => Some(x / y),
                    "Pow" => Some(x.powf(y)),
                    "fmod" => Some(x % y),
                    "Min" => Some(x.min(y)),
                    "Max" => Some(x.max(y)),
                    _ => None,
                }
            };
            Data::Float(ia.iter().zip(&ib).map(f).collect::<Option<_>>()?)
        }
        _ => return None,
    };
    Some(Array { shape, data, dtype: a.dtype })
}

/// Comparisons, and logic on what they give.
fn compare(op: &str, a: &Array, b: &Array) -> Option<Array> {
    let shape = broadcast(&a.shape, &b.shape)?;
    let (ia, ib) = (broadcast_index(&a.shape, &shape)?, broadcast_index(&b.shape, &shape)?);
    // Integers are compared as such: floats would not tell large ones apart.
    let orders: Vec<Option<std::cmp::Ordering>> = match (&a.data, &b.data) {
        (Data::Int(x), Data::Int(y)) => ia.iter().zip(&ib).map(|(&i, &j)| Some(x.get(i)?.cmp(y.get(j)?))).collect(),
        _ => {
            let (x, y) = (a.to_f32(), b.to_f32());
            ia.iter().zip(&ib).map(|(&i, &j)| x.get(i)?.partial_cmp(y.get(j)?)).collect()
        }
    };
    let (x, y) = (a.to_i64(), b.to_i64());
    let result = |((order, &i), &j): ((&Option<std::cmp::Ordering>, &usize), &usize)| {
        let (x, y) = (x.get(i).is_some_and(|&x| x != 0), y.get(j).is_some_and(|&y| y != 0));
        i64::from(match op {
            "Equal" => order.is_some_and(|order| order.is_eq()),
            "Less" => order.is_some_and(|order| order.is_lt()),
            "LessOrEqual" => order.is_some_and(|order| order.is_le()),
            "Greater" => order.is_some_and(|order| order.is_gt()),
            "GreaterOrEqual" => order.is_some_and(|order| order.is_ge()),
            "And" => x && y,
            "Or" => x || y,
            _ => x != y,
        })
    };
    let data = orders.iter().zip(&ia).zip(&ib).map(result).collect();
    Some(Array { shape, data: Data::Int(data), dtype: DataType::Bool })
}

fn concat(node: &Node, arrays: &[Option<Array>]) -> Option<Array> {
    let parts: Vec<&Array> = arrays.iter().map(Option::as_ref).collect::<Option<_>>()?;
    let first = parts.first()?;
    let axis = normalize_axis(node.int("axis", 0), first.shape.len())?;
    let same = |part: &&Array| {
        part.shape.len() == first.shape.len()
            && part.dtype == first.dtype
            && (0..first.shape.len()).all(|i| i == axis || part.shape[i] == first.shape[i])
    };
    if !parts.iter().all(same) {
        return None;
    }
    let outer: usize = first.shape[..axis].iter().product();
    let mut shape = first.shape.clone();
    shape[axis] = parts.iter().map(|part| part.shape[axis]).sum();
    checked_len(&shape)?;
    let mut ints = Vec::new();
    let mut floats = Vec::new();
    for row in 0..outer {
        for part in &parts {
            let chunk: usize = part.shape[axis..].iter().product();
            match &part.data {
                Data::Int(v) => ints.extend_from_slice(v.get(row * chunk..(row + 1) * chunk)?),
                Data::Float(v) => floats.extend_from_slice(v.get(row * chunk..(row + 1) * chunk)?),
            }
        }
    }
    let data = if matches!(first.data, Data::Int(_)) { Data::Int(ints) } else { Data::Float(floats) };
    Some(Array { shape, data, dtype: first.dtype })
}

fn gather(node: &Node, x: &Array, index: &Array) -> Option<Array> {
    let axis = normalize_axis(node.int("axis", 0), x.shape.len())?;
    let size = x.shape[axis];
    let picks: Vec<usize> = index.to_i64().iter().map(|&i| normalize_axis(i, size)).collect::<Option<_>>()?;
    let outer: usize = x.shape[..axis].iter().product();
    let inner: usize = x.shape[axis + 1..].iter().product();
    let mut shape = x.shape[..axis].to_vec();
    shape.extend_from_slice(&index.shape);
    shape.extend_from_slice(&x.shape[axis + 1..]);
    checked_len(&shape)?;
    let mut source = Vec::new();
    for o in 0..outer {
        for &pick in &picks {
            source.extend((0..inner).map(|i| (o * size + pick) * inner + i));
        }
    }
    x.pick(shape, &source)
}

fn slice(node: &Node, opset: i64, arrays: &[Option<Array>]) -> Option<Array> {
    let get = |i: usize| arrays.get(i).and_then(Option::as_ref);
    let x = get(0)?;
    let list = |i: usize, name: &str| match get(i) {
        Some(array) => Some(array.to_i64()),
        None if opset < 10 => node.ints(name).map(<[i64]>::to_vec),
        None => None,
    };
    let (starts, ends) = (list(1, "starts")?, list(2, "ends")?);
    let axes = list(3, "axes").unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(4, "steps").unwrap_or_else(|| vec![1; starts.len()]);
    let mut ranges: Vec<SliceRange> =
        x.shape.iter().map(|&size| slice_range(size, 0, i64::MAX, 1)).collect::<Option<_>>()?;
    for (i, &axis) in axes.iter().enumerate() {
        let axis = normalize_axis(axis, x.shape.len())?;
        ranges[axis] = slice_range(x.shape[axis], *starts.get(i)?, *ends.get(i)?, *steps.get(i)?)?;
    }
    let shape: Vec<usize> = ranges.iter().map(|range| range.len).collect();
    if shape.contains(&0) {
        return x.pick(shape, &[]);
    }
    let strides = strides(&x.shape);
    let mut source = vec![0];
    for (range, stride) in ranges.iter().zip(strides) {
        source = source.iter().flat_map(|&base| range.indices().map(move |i| base + i * stride)).collect();
    }
    x.pick(shape, &source)
}

/// The indices one axis of a Slice keeps: `first`, `first + step`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SliceRange {
    first: i64,
    step: i64,
    /// How many there are.
    pub(super) len: usize,
}

impl SliceRange {
    /// The indices in order.
    pub(super) fn indices(self) -> impl Iterator<Item = usize> + Clone {
        (0..self.len as i64).map(move |i| (self.first + i * self.step) as usize)
    }
}

/// The indices one axis of a Slice keeps, or `None` for a step of 0.
pub(super) fn slice_range(size: usize, start: i64, end: i64, step: i64) -> Option<SliceRange> {
    let size = i64::try_from(size).ok()?;
    let wrap = |v: i64| if v < 0 { v.saturating_add(size) } else { v };
    // What lies between the ends, in the direction of the step.
    let (first, span) = match step.signum() {
        1 => {
            let first = wrap(start).clamp(0, size);
            (first, wrap(end).clamp(0, size) - first)
        }
        -1 if size > 0 => {
            let first = wrap(start).clamp(0, size - 1);
            (first, first - wrap(end).clamp(-1, size - 1))
        }
        -1 => (0, 0),
        _ => return None,
    };
    let len = u64::try_from(span).map_or(0, |span| span.div_ceil(step.unsigned_abs()));
    Some(SliceRange { first, step, len: usize::try_from(len).ok()? })
}

fn reduce(node: &Node, x: &Array, axes: Option<&Array>) -> Option<Array> {
    // Shape arithmetic reduces whole integer vectors only.
    let Data::Int(values) = &x.data else { return None };
    let axes = axes.map(Array::to_i64).or_else(|| node.ints("axes").map(<[i64]>::to_vec));
    if axes.is_some_and(|axes| axes.len() != x.shape.len()) {
        return None;
    }
    let fold = |f: fn(i64, i64) -> Option<i64>| values.iter().copied().map(Some).reduce(|a, b| f(a?, b?)).flatten();
    let result = match node.op_type.as_str() {
        "ReduceProd" => fold(i64::checked_mul),
        "ReduceSum" => fold(i64::checked_add),
        "ReduceMin" => fold(|a, b| Some(a.min(b))),
        _ => fold(|a, b| Some(a.max(b))),
    }?;
    let shape = if node.int("keepdims", 1) != 0 { vec![1; x.shape.len()] } else { vec![] };
    Some(Array { shape, data: Data::Int(vec![result]), dtype: x.dtype })
}

/// `QuantizeLinear` of a constant: x / scale in f32, half to even, saturated.
fn quantize(node: &Node, inputs: &[Option<&Tensor>]) -> Option<Tensor> {
    let x = inputs.first().copied().flatten()?;
    let scale = inputs.get(1).copied().flatten()?.to_f32();
    let zero = inputs.get(2).copied().flatten();
    let dtype = match zero {
        Some(zero) => zero.dtype,
        None => DataType::from_onnx_number(node.int("output_dtype", 2) as i32)?,
    };
    let (low, high) = dtype.quantized_range()?;
    let zeros = zero.map_or_else(|| vec![0; scale.len()], Tensor::to_i64);
    if node.int("block_size", 0) != 0 || zeros.len() != scale.len() || !x.dtype.is_float() {
        return None;
    }
    let inner: usize = if scale.len() == 1 {
        1
    } else {
        let axis = normalize_axis(node.int("axis", 1), x.shape.len())?;
        if x.shape[axis] != scale.len() {
            return None;
        }
        x.shape[axis + 1..].iter().product()
    };
    let channels = scale.len();
    let values: Vec<i32> = x
        .to_f32()
        .iter()
        .enumerate()
        .map(|(i, &v)| {
            let channel = (i / inner) % channels;
            let q = f64::from((v / scale[channel]).round_ties_even()) + zeros[channel] as f64;
            q.clamp(f64::from(low), f64::from(high)) as i32
        })
        .collect();
    Some(Tensor::from_ints(dtype, &x.shape, &values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(node: &Node, inputs: &[&Tensor]) -> Option<Tensor> {
        eval(node, 17, &inputs.iter().copied().map(Some).collect::<Vec<_>>())
    }

    #[test]
    fn slices_in_both_directions() {
        let kept =
            |size, start, end, step| slice_range(size, start, end, step).map(|r| r.indices().collect::<Vec<_>>());
        assert_eq!(kept(5, -3, i64::MAX, 1).unwrap(), [2, 3, 4]);
        assert_eq!(kept(5, -1, i64::MIN, -2).unwrap(), [4, 2, 0]);
        assert_eq!(kept(5, 0, 5, 2).unwrap(), [0, 2, 4]);
        assert_eq!(kept(5, 4, 1, 1).unwrap(), [0; 0]);
        assert_eq!(kept(0, -1, i64::MIN, -1).unwrap(), [0; 0]);
        assert_eq!(kept(3, 2, i64::MIN, i64::MIN).unwrap(), [2]);
        assert!(kept(5, 0, 5, 0).is_none());
        // Only counted, never listed.
        assert_eq!(slice_range(1 << 40, 1, i64::MAX, 3).unwrap().len, (1 << 40) / 3);
    }

    #[test]
    fn reshape_rules() {
        assert_eq!(reshape_target(&[2, 3, 4], &[0, -1], false).unwrap(), [2, 12]);
        assert!(reshape_target(&[2, 3], &[-1, 4], false).is_none());
        assert!(reshape_target(&[2, 3], &[-1, -1], false).is_none());
        assert!(reshape_target(&[2], &[i64::MAX, i64::MAX], false).is_none());
    }

    #[test]
    fn transposes_and_gathers() {
        let x = Tensor::from_i64(&[2, 3], &[0, 1, 2, 3, 4, 5]);
        let t = run(&Node::new("Transpose", "t", ["x"], ["y"]), &[&x]).unwrap();
        assert_eq!((t.shape.as_slice(), t.to_i64()), ([3, 2].as_slice(), vec![0, 3, 1, 4, 2, 5]));
        let index = Tensor::from_i64(&[], &[-1]);
        let g = run(&Node::new("Gather", "g", ["x", "i"], ["y"]).with("axis", Attr::Int(1)), &[&x, &index]).unwrap();
        assert_eq!((g.shape.as_slice(), g.to_i64()), ([2].as_slice(), vec![2, 5]));
    }

    #[test]
    fn quantizes_half_to_even_per_channel() {
        let x = Tensor::from_f32(&[2, 2], &[0.5, 1.5, 1.0, -300.0]);
        let scale = Tensor::from_f32(&[2], &[1.0, 2.0]);
        let zero = Tensor::from_ints(DataType::I8, &[2], &[0, 0]);
        let node = Node::new("QuantizeLinear", "q", ["x", "s", "z"], ["y"]).with("axis", Attr::Int(0));
        assert_eq!(run(&node, &[&x, &scale, &zero]).unwrap().to_i64(), [0, 2, 0, -128]);
    }

    #[test]
    fn gelu_forms_agree_to_their_known_difference() {
        let exact = Node::new("Gelu", "g", ["x"], ["y"]);
        let tanh = exact.clone().with("approximate", Attr::String("tanh".into()));
        assert_eq!(eval_unary(&exact, 0.0), Some(0.0));
        assert!((eval_unary(&exact, 1.0).unwrap() - 0.841_344_746_068_543).abs() < 1e-14);
        assert!((eval_unary(&exact, 1.0).unwrap() - eval_unary(&tanh, 1.0).unwrap()).abs() < 1e-3);
    }
}
