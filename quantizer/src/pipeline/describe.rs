//! What a model is, in numbers.

use std::collections::BTreeMap;
use std::path::Path;

use crate::graph::shape::{TensorType, infer_partial};
use crate::graph::{DataType, Graph, Node, ValueInfo};
use crate::report::{Model, Value};

/// The stem of a file's name: names of results begin with it. An `.int8` before the extension is kept.
pub fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned())
}

/// The shape of one sample of a value: without the first (batch) axis.
pub fn sample_shape(types: &BTreeMap<String, TensorType>, value: &ValueInfo) -> Vec<usize> {
    types.get(&value.name).map(|kind| kind.shape.iter().skip(1).copied().collect()).unwrap_or_default()
}

/// The name ONNX gives an element type.
pub const fn dtype_name(dtype: DataType) -> &'static str {
    match dtype {
        DataType::F32 => "float32",
        DataType::F64 => "float64",
        DataType::F16 => "float16",
        DataType::Bf16 => "bfloat16",
        DataType::U8 => "uint8",
        DataType::I8 => "int8",
        DataType::U16 => "uint16",
        DataType::I16 => "int16",
        DataType::I32 => "int32",
        DataType::I64 => "int64",
        DataType::Bool => "bool",
        DataType::U4 => "uint4",
        DataType::I4 => "int4",
    }
}

/// Multiply-accumulates of one node for batch 1; 0 where its shapes are not known or it has none.
pub fn macs(node: &Node, types: &BTreeMap<String, TensorType>) -> u64 {
    let shape = |name: Option<&str>| name.and_then(|name| types.get(name)).map(|kind| kind.shape.as_slice());
    let (Some(output), Some(a), Some(b)) = (shape(Some(node.output())), shape(node.input(0)), shape(node.input(1)))
    else {
        return 0;
    };
    let elements = |shape: &[usize]| shape.iter().map(|&n| n as u64).product::<u64>();
    let outputs = elements(output);
    let depth: u64 = match node.op_type.as_str() {
        // Weights are [O, C / groups, window]: everything but the first axis is summed.
        "Conv" => b.iter().skip(1).map(|&n| n as u64).product(),
        // Weights are [C, O / groups, window]: every input meets everything but the first axis.
        "ConvTranspose" => return elements(a) * elements(b.get(1..).unwrap_or_default()),
        "Gemm" => a.get(usize::from(node.int("transA", 0) == 0)).map_or(0, |&n| n as u64),
        "MatMul" => a.last().map_or(0, |&n| n as u64),
        _ => 0,
    };
    outputs * depth
}

/// Elements of all constants that are numbers of the model: floats, and integers that stand for them.
pub fn parameters(graph: &Graph) -> u64 {
    let counted = |dtype: DataType| dtype != DataType::I64 && dtype != DataType::Bool;
    graph.initializers.values().filter(|tensor| counted(tensor.dtype)).map(|tensor| tensor.len() as u64).sum()
}

/// Bytes of a model: its file, and its constants where they are stored outside of it.
pub fn size(path: &Path, graph: &Graph) -> u64 {
    let file = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let constants: u64 = graph.initializers.values().map(|tensor| tensor.data.len() as u64).sum();
    if file >= constants { file } else { file + constants }
}

/// The model, of which `graph` is the prepared form.
pub(super) fn model(path: &Path, opset: i64, nodes_in_file: usize, graph: &Graph) -> Model {
    let types = infer_partial(graph, 1).types;
    let value = |info: &ValueInfo| Value {
        name: info.name.clone(),
        shape: types.get(&info.name).map(|kind| kind.shape.clone()).unwrap_or_default(),
    };
    Model {
        name: stem(path),
        file: path.display().to_string(),
        opset,
        nodes_in_file,
        nodes: graph.nodes.len(),
        parameters: parameters(graph),
        macs: graph.nodes.iter().map(|node| macs(node, &types)).sum(),
        inputs: graph.inputs.iter().map(value).collect(),
        outputs: graph.outputs.iter().map(value).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attr, Dim, Tensor};

    #[test]
    fn products_are_counted() {
        let dims = vec![Dim::Symbol("N".into()), Dim::Known(4), Dim::Known(8), Dim::Known(8)];
        let mut graph = Graph {
            opset: 21,
            inputs: vec![ValueInfo { name: "x".into(), dtype: DataType::F32, shape: Some(dims) }],
            nodes: vec![
                Node::new("Conv", "dw", ["x", "w"], ["a"])
                    .with("group", Attr::Int(4))
                    .with("pads", Attr::Ints(vec![1, 1, 1, 1])),
                Node::new("Flatten", "flat", ["a"], ["b"]),
                Node::new("Gemm", "fc", ["b", "g"], ["c"]).with("transB", Attr::Int(1)),
                Node::new("MatMul", "mm", ["c", "m"], ["y"]),
            ],
            ..Graph::default()
        };
        graph.initializers.insert("w".into(), Tensor::from_f32(&[4, 1, 3, 3], &[0.0; 36]));
        graph.initializers.insert("g".into(), Tensor::from_f32(&[10, 256], &[0.0; 2560]));
        graph.initializers.insert("m".into(), Tensor::from_f32(&[10, 3], &[0.0; 30]));
        // Each of 4 · 3 · 2 inputs meets 5 outputs of its group and 4 taps.
        graph.inputs.push(ValueInfo {
            name: "z".into(),
            dtype: DataType::F32,
            shape: Some([1, 4, 3, 2].map(Dim::Known).into()),
        });
        graph.nodes.push(Node::new("ConvTranspose", "up", ["z", "t"], ["u"]).with("group", Attr::Int(2)));
        graph.initializers.insert("t".into(), Tensor::from_f32(&[4, 5, 2, 2], &[0.0; 80]));
        let types = infer_partial(&graph, 1).types;
        let counted: Vec<u64> = graph.nodes.iter().map(|node| macs(node, &types)).collect();
        assert_eq!(counted, [4 * 64 * 9, 0, 2560, 30, 24 * 20]);
        assert_eq!(parameters(&graph), 36 + 2560 + 30 + 80);
    }
}
