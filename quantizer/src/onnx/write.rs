//! Graph → file: raw little-endian payloads, deterministic bytes, written beside the destination and renamed.

use std::path::Path;

use prost::Message as _;

use super::error::{Error, ErrorKind};
use super::proto::{self, attribute_type};
use crate::graph::{Attr, Dim, Graph, Node, Tensor, ValueInfo};

/// The file's bytes. Equal graphs give equal bytes.
pub fn to_bytes(graph: &Graph) -> Vec<u8> {
    let mut opset_import = vec![proto::OperatorSetIdProto { domain: Some(String::new()), version: Some(graph.opset) }];
    opset_import.extend(
        graph.other_opsets.iter().map(|(domain, version)| proto::OperatorSetIdProto {
            domain: Some(domain.clone()),
            version: Some(*version),
        }),
    );
    let model = proto::ModelProto {
        ir_version: Some(ir_version(graph.opset)),
        producer_name: Some("equant".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        graph: Some(proto::GraphProto {
            node: graph.nodes.iter().map(node).collect(),
            name: Some(if graph.name.is_empty() { "main".into() } else { graph.name.clone() }),
            initializer: graph.initializers.iter().map(|(name, tensor)| tensor_proto(Some(name), tensor)).collect(),
            sparse_initializer: Vec::new(),
            input: graph.inputs.iter().map(value_info).collect(),
            output: graph.outputs.iter().map(value_info).collect(),
        }),
        opset_import,
        metadata_props: graph
            .metadata
            .iter()
            .map(|(key, value)| proto::StringStringEntryProto { key: Some(key.clone()), value: Some(value.clone()) })
            .collect(),
    };
    model.encode_to_vec()
}

/// Writes the file. The bytes go to a temporary file in the same folder, which is then renamed, so that
/// a failure leaves the old file, or none.
///
/// # Errors
///
/// [`ErrorKind::Write`].
pub fn write(graph: &Graph, path: &Path) -> Result<(), Error> {
    crate::files::write(path, &to_bytes(graph))
        .map_err(|e| Error { file: path.display().to_string(), kind: ErrorKind::Write(e) })
}

/// The IR version that came with an operator set (ONNX versioning table).
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24 => 12,
        _ => 13,
    }
}

fn node(node: &Node) -> proto::NodeProto {
    proto::NodeProto {
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        name: Some(node.name.clone()),
        op_type: Some(node.op_type.clone()),
        domain: (!node.domain.is_empty()).then(|| node.domain.clone()),
        attribute: node.attrs.iter().map(|(name, attr)| attribute(name, attr)).collect(),
    }
}

fn attribute(name: &str, attr: &Attr) -> proto::AttributeProto {
    let mut out = proto::AttributeProto { name: Some(name.to_owned()), ..Default::default() };
    out.r#type = Some(match attr {
        Attr::Int(v) => {
            out.i = Some(*v);
            attribute_type::INT
        }
        Attr::Float(v) => {
            out.f = Some(*v);
            attribute_type::FLOAT
        }
        Attr::String(v) => {
            out.s = Some(v.clone().into_bytes());
            attribute_type::STRING
        }
        Attr::Tensor(v) => {
            out.t = Some(tensor_proto(None, v));
            attribute_type::TENSOR
        }
        Attr::Ints(v) => {
            out.ints.clone_from(v);
            attribute_type::INTS
        }
        Attr::Floats(v) => {
            out.floats.clone_from(v);
            attribute_type::FLOATS
        }
        Attr::Strings(v) => {
            out.strings = v.iter().map(|s| s.clone().into_bytes()).collect();
            attribute_type::STRINGS
        }
        Attr::Unsupported(number) => *number,
    });
    out
}

fn tensor_proto(name: Option<&str>, tensor: &Tensor) -> proto::TensorProto {
    proto::TensorProto {
        dims: tensor.shape.iter().map(|&dim| dim as i64).collect(),
        data_type: Some(tensor.dtype.onnx_number()),
        name: name.map(str::to_owned),
        raw_data: Some(tensor.data.clone()),
        ..Default::default()
    }
}

fn value_info(value: &ValueInfo) -> proto::ValueInfoProto {
    let dim = |dim: &Dim| match dim {
        Dim::Known(size) => proto::DimensionProto { dim_value: Some(*size as i64), dim_param: None },
        Dim::Symbol(name) => {
            proto::DimensionProto { dim_value: None, dim_param: (!name.is_empty()).then(|| name.clone()) }
        }
    };
    proto::ValueInfoProto {
        name: Some(value.name.clone()),
        r#type: Some(proto::TypeProto {
            tensor_type: Some(proto::TensorTypeProto {
                elem_type: Some(value.dtype.onnx_number()),
                shape: value.shape.as_ref().map(|dims| proto::TensorShapeProto { dim: dims.iter().map(dim).collect() }),
            }),
        }),
    }
}
