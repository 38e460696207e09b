//! QuantizeLinear and DequantizeLinear nodes with constant parameters.

use crate::graph::eval::normalize_axis;
use crate::graph::{DataType, Graph, Node, Tensor};

/// The constant parameters of a QuantizeLinear or DequantizeLinear node.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(super) scale: Tensor,
    /// Zero points, as many as scales; absent ones are 0.
    pub(super) zero_point: Vec<i64>,
    /// The integer type.
    pub(super) dtype: DataType,
    axis: i64,
    block: usize,
}

impl Linear {
    /// The parameters of `node`; `None` if it is neither of the two, or its parameters are not constant.
    pub(crate) fn of(graph: &Graph, node: &Node) -> Option<Self> {
        let constant = |i: usize| graph.initializers.get(node.input(i)?);
        let quantize = node.op_type == "QuantizeLinear";
        if !quantize && node.op_type != "DequantizeLinear" {
            return None;
        }
        let scale = constant(1)?.clone();
        let zero_point = match node.input(2) {
            Some(_) => Some(constant(2)?),
            None => None,
        };
        let stated = i32::try_from(node.int("output_dtype", 0)).ok().and_then(DataType::from_onnx_number);
        let dtype = match (zero_point, quantize) {
            (Some(tensor), _) => tensor.dtype,
            (None, true) => stated.unwrap_or(DataType::U8),
            (None, false) => constant(0).map_or(DataType::U8, |tensor| tensor.dtype),
        };
        let zero_point = zero_point.map_or_else(|| vec![0; scale.len()], Tensor::to_i64);
        let block = usize::try_from(node.int("block_size", 0)).ok()?;
        (zero_point.len() == scale.len() && !scale.is_empty()).then(|| Self {
            scale,
            zero_point,
            dtype,
            axis: node.int("axis", 1),
            block,
        })
    }

    /// Whether one scale serves the whole tensor.
    pub(super) fn per_tensor(&self) -> bool {
        self.scale.len() == 1
    }

    /// The axis of a tensor of rank `rank` along which scales differ.
    pub(super) fn axis(&self, rank: usize) -> Option<usize> {
        normalize_axis(self.axis, rank)
    }

    /// Whether scales differ between blocks of an axis.
    pub(super) fn blocked(&self) -> bool {
        self.block > 0 && !self.per_tensor()
    }

    /// Lowest and highest integer.
    pub(super) fn limits(&self) -> (f64, f64) {
        match self.dtype.quantized_range() {
            Some((low, high)) => (low.into(), high.into()),
            None => (f64::from(i32::MIN), f64::from(i32::MAX)),
        }
    }

    /// Index of the scale for each element of a tensor of this shape; `None` when the parameters do not fit it.
    pub(crate) fn index(&self, shape: &[usize]) -> Option<impl Fn(usize) -> usize + use<>> {
        let (size, stride, block) = if self.per_tensor() {
            (1, usize::MAX, 1)
        } else {
            let axis = self.axis(shape.len())?;
            let stride: usize = shape[axis + 1..].iter().product();
            (shape[axis], stride.max(1), self.block.max(1))
        };
        let blocks = size.div_ceil(block);
        let blocked = self.blocked();
        if blocked {
            let mut expected = shape.to_vec();
            expected[self.axis(shape.len())?] = blocks;
            if expected != self.scale.shape {
                return None;
            }
        } else if !self.per_tensor() && size != self.scale.len() {
            return None;
        }
        Some(move |i: usize| match (blocked, stride == usize::MAX) {
            (_, true) => 0,
            (false, false) => i / stride % size,
            (true, false) => {
                let (outer, along, inner) = (i / (stride * size), i / stride % size, i % stride);
                (outer * blocks + along / block) * stride + inner
            }
        })
    }

    /// The real values of integers, computed as ONNX states it: `(x − zero_point) · scale` in f32.
    pub(super) fn dequantize(&self, tensor: &Tensor) -> Option<Tensor> {
        let index = self.index(&tensor.shape)?;
        let scales = self.scale.to_f32();
        let values: Vec<f32> = tensor
            .to_i64()
            .into_iter()
            .enumerate()
            .map(|(i, q)| (q - self.zero_point[index(i)]) as f32 * scales[index(i)])
            .collect();
        Some(Tensor::from_f32(&tensor.shape, &values))
    }

    /// The integers of real values, as floats.
    pub(super) fn quantize(&self, tensor: &Tensor) -> Option<Tensor> {
        let index = self.index(&tensor.shape)?;
        let scales = self.scale.to_f32();
        let (low, high) = self.limits();
        let values: Vec<f32> = tensor
            .to_f32()
            .into_iter()
            .enumerate()
            .map(|(i, x)| {
                let steps = f64::from((x / scales[index(i)]).round_ties_even());
                (steps + self.zero_point[index(i)] as f64).clamp(low, high) as f32
            })
            .collect();
        Some(Tensor::from_f32(&tensor.shape, &values))
    }
}
