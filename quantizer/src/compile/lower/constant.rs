//! Constants: real values, and the integers they were made from.

use equant_runtime::plan::DType;

use super::{Lowered, Lowering, Operand, QParams, Reason, unsupported};
use crate::compile::program::{Place, Section, Storage};
use crate::compile::view::View;
use crate::graph::{DataType, Node, Tensor};
use crate::qdq::Linear;

/// What the scales of a constant differ along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Along {
    /// One scale.
    Nothing,
    /// One for each index of an axis.
    Axis(usize),
    /// One for each block of an axis, of this many elements; written out for every element.
    Blocks(usize),
}

impl Along {
    /// Divisor and modulus that make the index of an element's scale of the element's position.
    fn index(self, shape: &[usize]) -> (usize, usize) {
        match self {
            Self::Nothing => (1, 1),
            Self::Axis(axis) => (shape[axis + 1..].iter().product::<usize>().max(1), shape[axis].max(1)),
            Self::Blocks(_) => (1, shape.iter().product::<usize>().max(1)),
        }
    }
}

/// The integers behind a constant.
#[derive(Debug, Clone)]
pub(super) struct Quantized {
    pub(super) ints: Vec<i32>,
    pub(super) dtype: DataType,
    /// Empty before DequantizeLinear.
    pub(super) scales: Vec<f64>,
    /// As the scales.
    pub(super) zero_points: Vec<i32>,
    pub(super) along: Along,
}

/// A constant of the graph.
#[derive(Debug, Clone)]
pub(super) struct Constant {
    pub(super) shape: Vec<usize>,
    pub(super) real: Vec<f64>,
    pub(super) quantized: Option<Quantized>,
}

impl Constant {
    /// An initializer as it stands.
    pub(super) fn from_tensor(tensor: &Tensor) -> Self {
        if tensor.dtype.is_float() {
            let real = tensor.to_f32().into_iter().map(f64::from).collect();
            return Self { shape: tensor.shape.clone(), real, quantized: None };
        }
        let ints = tensor.to_i64();
        Self {
            shape: tensor.shape.clone(),
            real: ints.iter().map(|&v| v as f64).collect(),
            quantized: Some(Quantized {
                ints: ints.iter().map(|&v| v.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32).collect(),
                dtype: tensor.dtype,
                scales: Vec::new(),
                zero_points: Vec::new(),
                along: Along::Nothing,
            }),
        }
    }

    /// The value of a constant with one element.
    pub(super) fn scalar(&self) -> Option<f64> {
        if self.real.len() == 1 { self.real.first().copied() } else { None }
    }

    /// The constant seen under a view of its elements.
    pub(super) fn viewed(&self, view: &View) -> Lowered<Self> {
        if self.quantized.as_ref().is_some_and(|q| matches!(q.along, Along::Axis(_))) {
            return unsupported(
                "reshaping or transposing a constant that is quantized per axis; transpose it before quantization",
            );
        }
        let positions = view.positions();
        let quantized = self.quantized.as_ref().map(|q| {
            let mut moved = Quantized { ints: positions.iter().map(|&p| q.ints[p]).collect(), ..q.clone() };
            if matches!(q.along, Along::Blocks(_)) {
                moved.scales = positions.iter().map(|&p| q.scales[p]).collect();
                moved.zero_points = positions.iter().map(|&p| q.zero_points[p]).collect();
            }
            moved
        });
        Ok(Self { shape: view.shape(), real: positions.iter().map(|&p| self.real[p]).collect(), quantized })
    }

    /// Transposes, also constants quantized per axis.
    pub(super) fn transposed(&self, perm: &[usize]) -> Lowered<Self> {
        let mut plain = self.clone();
        let axis = match &mut plain.quantized {
            Some(q) => match q.along {
                Along::Axis(axis) => {
                    q.along = Along::Nothing;
                    Some(axis)
                }
                _ => None,
            },
            None => None,
        };
        let mut out = plain.viewed(&View::row_major(&self.shape).transpose(perm))?;
        if let (Some(q), Some(at)) = (&mut out.quantized, axis.and_then(|axis| perm.iter().position(|&p| p == axis))) {
            q.along = Along::Axis(at);
        }
        Ok(out)
    }

    /// The weights of a transposed convolution, `[groups · C, O, window]` (channels of a group), as `[groups · O, C, window]`
    /// with a scale for each output: the scales that groups share are repeated. Their first axis must divide by `groups`.
    pub(super) fn outputs_first(&self, groups: usize) -> Lowered<Self> {
        let [inputs, per_group, window @ ..] = self.shape.as_slice() else {
            return unsupported(format!("weights of shape {:?}", self.shape));
        };
        let (depth, taps) = (inputs / groups, window.iter().product());
        let view = View::row_major(&[groups, depth, *per_group, taps]).transpose(&[0, 2, 1, 3]);
        let mut plain = self.clone();
        let along =
            plain.quantized.as_mut().map_or(Along::Nothing, |q| std::mem::replace(&mut q.along, Along::Nothing));
        if let (Some(q), Along::Blocks(_)) = (&mut plain.quantized, along) {
            q.along = along;
        }
        let mut out = plain.viewed(&view)?;
        out.shape = [&[per_group * groups, depth], window].concat();
        let (Some(q), Along::Axis(axis)) = (&mut out.quantized, along) else { return Ok(out) };
        // Of the outputs of a group, of each group.
        let index = |o: usize| match axis {
            1 => Some(o % per_group),
            // One scale for all inputs of a group is one for its outputs.
            0 => {
                let group = o / per_group * depth;
                let same = |i: &usize| q.scales[*i] == q.scales[group] && q.zero_points[*i] == q.zero_points[group];
                (group..group + depth).all(|i| same(&i)).then_some(group)
            }
            _ => None,
        };
        let indices: Option<Vec<usize>> = (0..per_group * groups).map(index).collect();
        match indices {
            Some(indices) => {
                q.scales = indices.iter().map(|&i| q.scales[i]).collect();
                q.zero_points = indices.iter().map(|&i| q.zero_points[i]).collect();
                q.along = Along::Axis(0);
            }
            // Along inputs.
            None => q.along = Along::Axis(1),
        }
        Ok(out)
    }

    /// The elements broadcast to `shape` (NumPy rules), or `None` if they do not fit.
    pub(super) fn broadcast<T: Copy>(&self, elements: &[T], shape: &[usize]) -> Option<Vec<T>> {
        let missing = shape.len().checked_sub(self.shape.len())?;
        let mut strides = vec![0; shape.len()];
        let mut stride = 1;
        for axis in (0..self.shape.len()).rev() {
            let size = self.shape[axis];
            if size == shape[axis + missing] {
                strides[axis + missing] = stride;
            } else if size != 1 {
                return None;
            }
            stride *= size;
        }
        let mut positions = vec![0];
        for (&size, &stride) in shape.iter().zip(&strides) {
            positions = positions.iter().flat_map(|&base| (0..size).map(move |i| base + i * stride)).collect();
        }
        Some(positions.into_iter().map(|p| elements[p]).collect())
    }
}

/// Parameters of a QuantizeLinear or DequantizeLinear node over a constant.
struct Parameters {
    scales: Vec<f64>,
    zero_points: Vec<i32>,
    dtype: Option<DataType>,
    along: Along,
}

impl Lowering<'_> {
    /// Scales, zero points and type of a Q or DQ node over a constant.
    fn constant_params(&self, node: &Node, shape: &[usize]) -> Lowered<Parameters> {
        let value = node.input(0).unwrap_or_default();
        let refuse = |reason: String| Reason::Quantization { value: value.to_owned(), reason };
        let scale = node
            .input(1)
            .and_then(|name| self.graph.initializers.get(name))
            .ok_or_else(|| refuse("the scale is not a constant".into()))?;
        let scales: Vec<f64> = scale.to_f32().into_iter().map(f64::from).collect();
        if scales.iter().any(|s| !(s.is_finite() && *s >= 0.0)) {
            return Err(refuse("a scale is negative or not finite".into()));
        }
        let mut dtype = DataType::from_onnx_number(node.int("output_dtype", 0) as i32);
        let mut zero_points = vec![0; scales.len()];
        if let Some(name) = node.input(2) {
            let tensor =
                self.graph.initializers.get(name).ok_or_else(|| refuse("the zero point is not a constant".into()))?;
            dtype = Some(tensor.dtype);
            let values = tensor.to_i64();
            if values.len() != scales.len() {
                return Err(refuse(format!("{} zero points for {} scales", values.len(), scales.len())));
            }
            zero_points = values.into_iter().map(|v| v as i32).collect();
        }
        let block = usize::try_from(node.int("block_size", 0)).unwrap_or(0);
        if block > 0 && scales.len() > 1 {
            let index = Linear::of(self.graph, node).and_then(|linear| linear.index(shape));
            let index = index.ok_or_else(|| {
                refuse(format!("scales of shape {:?} in blocks of {block} for shape {shape:?}", scale.shape))
            })?;
            let each = 0..shape.iter().product();
            zero_points = each.clone().map(|i| zero_points[index(i)]).collect();
            let scales = each.map(|i| scales[index(i)]).collect();
            return Ok(Parameters { scales, zero_points, dtype, along: Along::Blocks(block) });
        }
        let along = if scales.len() == 1 {
            Along::Nothing
        } else {
            let rank = shape.len() as i64;
            let axis = node.int("axis", 1);
            let axis = if axis < 0 { axis + rank } else { axis };
            match usize::try_from(axis).ok().and_then(|axis| Some((axis, *shape.get(axis)?))) {
                Some((axis, size)) if size == scales.len() => Along::Axis(axis),
                _ => return Err(refuse(format!("{} scales along axis {axis} of shape {shape:?}", scales.len()))),
            }
        };
        Ok(Parameters { scales, zero_points, dtype, along })
    }

    /// QuantizeLinear of a constant, with ONNX arithmetic in f32.
    pub(super) fn quantize_constant(&self, node: &Node, constant: &Constant) -> Lowered<Constant> {
        let Parameters { scales, zero_points, dtype, along } = self.constant_params(node, &constant.shape)?;
        let dtype = dtype.unwrap_or(DataType::U8);
        let (low, high) = dtype.quantized_range().ok_or_else(|| Reason::Quantization {
            value: node.input(0).unwrap_or_default().into(),
            reason: format!("type {dtype:?} is not supported"),
        })?;
        let (inner, size) = along.index(&constant.shape);
        let ints: Vec<i32> = constant
            .real
            .iter()
            .enumerate()
            .map(|(i, &x)| {
                let channel = i / inner % size;
                let scaled = (x as f32 / scales[channel] as f32).round_ties_even();
                let scaled = if scaled.is_nan() { 0.0 } else { scaled };
                (f64::from(scaled) + f64::from(zero_points[channel])).clamp(f64::from(low), f64::from(high)) as i32
            })
            .collect();
        Ok(Constant {
            shape: constant.shape.clone(),
            real: ints.iter().map(|&v| f64::from(v)).collect(),
            quantized: Some(Quantized {
                ints,
                dtype,
                scales: Vec::new(),
                zero_points: Vec::new(),
                along: Along::Nothing,
            }),
        })
    }

    /// DequantizeLinear of a constant; keeps the integers.
    pub(super) fn dequantize_constant(&self, node: &Node, constant: &Constant) -> Lowered<Constant> {
        let Parameters { scales, zero_points, along, .. } = self.constant_params(node, &constant.shape)?;
        let Some(source) = &constant.quantized else {
            return unsupported("its constant input is not an integer tensor");
        };
        let (inner, size) = along.index(&constant.shape);
        let real = source
            .ints
            .iter()
            .enumerate()
            .map(|(i, &q)| {
                let channel = i / inner % size;
                (f64::from(q) - f64::from(zero_points[channel])) * scales[channel]
            })
            .collect();
        Ok(Constant {
            shape: constant.shape.clone(),
            real,
            quantized: Some(Quantized { ints: source.ints.clone(), dtype: source.dtype, scales, zero_points, along }),
        })
    }

    /// A constant as an operand that repeats along `like`'s memory: 8 bits if it was quantized to 8
    /// bits or less, otherwise 16, or 32 beside 32 bits; only one period is stored.
    pub(super) fn constant_operand(&mut self, constant: &Constant, like: &Operand) -> Lowered<Operand> {
        let shape = like.view.shape();
        let refuse =
            || Reason::Shape(format!("a constant of shape {:?} with a tensor of shape {shape:?}", constant.shape));
        let eight = constant
            .quantized
            .as_ref()
            .filter(|q| q.scales.len() == 1 && q.scales[0] > 0.0)
            .filter(|q| matches!(q.dtype, DataType::I8 | DataType::U8 | DataType::I4 | DataType::U4));
        let (q, ints) = match eight {
            Some(source) => {
                let shift = if source.dtype == DataType::U8 { 128 } else { 0 };
                let q = QParams::full(DType::I8, source.scales[0] as f32, source.zero_points[0] - shift);
                (q, source.ints.iter().map(|&v| v - shift).collect::<Vec<i32>>())
            }
            None => {
                let bound = constant.real.iter().fold(0.0f64, |bound, x| bound.max(x.abs()));
                let q = match like.dtype {
                    DType::I32 => QParams::thirty_two(-bound, bound, like.scale),
                    DType::I8 | DType::I16 => QParams::sixteen(-bound, bound),
                };
                (q, constant.real.iter().map(|&x| q.quantize_f64(x)).collect())
            }
        };
        let logical = constant.broadcast(&ints, &shape).ok_or_else(refuse)?;
        let mut memory = vec![0; logical.len()];
        for (value, position) in logical.into_iter().zip(like.view.positions()) {
            memory[position] = value;
        }
        let len = memory.len();
        let period = (1..=len)
            .find(|&p| len % p == 0 && memory.iter().enumerate().all(|(i, v)| *v == memory[i % p]))
            .unwrap_or(len);
        memory.truncate(period);
        Ok(self.stored(q, &memory, View::row_major(&[period])))
    }

    /// A constant quantized with `q` and stored in the order of `view`.
    pub(super) fn constant_tensor(&mut self, constant: &Constant, q: QParams, view: View) -> Lowered<Operand> {
        let mut memory = vec![0; view.len()];
        for (&value, position) in constant.real.iter().zip(view.positions()) {
            memory[position] = q.quantize(value);
        }
        Ok(self.stored(q, &memory, view))
    }

    /// A tensor in the constants.
    pub(super) fn stored(&mut self, q: QParams, memory: &[i32], view: View) -> Operand {
        let range = (memory.iter().copied().min().unwrap_or(0), memory.iter().copied().max().unwrap_or(0));
        let bytes = match q.dtype {
            DType::I8 => memory.iter().map(|&v| v as u8).collect(),
            DType::I16 => memory.iter().flat_map(|&v| (v as i16).to_le_bytes()).collect(),
            DType::I32 => memory.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        let place = self.program.consts.add(Section::Weights, bytes);
        let storage = self.program.storage(Storage {
            dtype: q.dtype,
            scale: q.scale,
            zero_point: q.zero_point,
            levels: q.levels,
            len: memory.len(),
            place: Place::Const(place.offset),
        });
        Operand { storage, dtype: q.dtype, scale: f64::from(q.scale), zero_point: q.zero_point, view, range }
    }
}
