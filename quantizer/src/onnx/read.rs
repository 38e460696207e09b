//! File → graph: every encoding of constants, external data, and the checks that make a graph well formed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Component, Path};

use prost::Message as _;

use super::error::{Error, ErrorKind};
use super::proto::{self, attribute_type};
use crate::graph::{Attr, DataType, Dim, Graph, Node, Tensor, ValueInfo};

/// Reads a model. External data is looked for beside the file.
///
/// # Errors
///
/// [`Error`] names the file and what is wrong with it.
pub fn read(path: &Path) -> Result<Graph, Error> {
    let label = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| Error { file: label.clone(), kind: ErrorKind::Read(e) })?;
    from_bytes(&bytes, path.parent(), &label)
}

/// Reads a model from memory. `folder` is where external data lies, `label` names the model in errors.
///
/// # Errors
///
/// As [`read`]; external data without a folder is an error.
pub fn from_bytes(bytes: &[u8], folder: Option<&Path>, label: &str) -> Result<Graph, Error> {
    parse(bytes, folder).map_err(|kind| Error { file: label.to_owned(), kind })
}

/// Reads a tensor that is a file of its own (a `TensorProto`, such as the inputs and outputs of ONNX's own tests), from
/// memory. `label` names the file in errors.
///
/// # Errors
///
/// The bytes are no tensor, or one of an element type that is not supported.
pub fn tensor_from_bytes(bytes: &[u8], label: &str) -> Result<Tensor, Error> {
    let read = || {
        let proto = proto::TensorProto::decode(bytes).map_err(|e| ErrorKind::NotOnnx(e.to_string()))?;
        let name = proto.name.clone().unwrap_or_default();
        let tensor = read_tensor(proto, &name, None, &mut Files::new())?;
        tensor.map_err(|reason| ErrorKind::Tensors(vec![format!("`{name}`: {reason}")]))
    };
    read().map_err(|kind| Error { file: label.to_owned(), kind })
}

fn parse(bytes: &[u8], folder: Option<&Path>) -> Result<Graph, ErrorKind> {
    scan(bytes)?;
    let model = proto::ModelProto::decode(bytes).map_err(|e| ErrorKind::NotOnnx(e.to_string()))?;
    let proto = model.graph.ok_or_else(|| ErrorKind::NotOnnx("it holds no graph".into()))?;
    let mut graph = Graph { name: proto.name.unwrap_or_default(), ..Graph::default() };
    for set in &model.opset_import {
        let version = set.version.unwrap_or_default();
        match set.domain.as_deref().unwrap_or_default() {
            "" | "ai.onnx" => graph.opset = graph.opset.max(version),
            domain => drop(graph.other_opsets.insert(domain.to_owned(), version)),
        }
    }
    if graph.opset == 0 {
        return Err(ErrorKind::NotOnnx("it imports no default operator set".into()));
    }
    if !super::OPSETS.contains(&graph.opset) {
        return Err(ErrorKind::Opset { found: graph.opset });
    }
    for entry in model.metadata_props {
        graph.metadata.insert(entry.key.unwrap_or_default(), entry.value.unwrap_or_default());
    }

    let mut issues: Vec<String> = proto
        .sparse_initializer
        .iter()
        .map(|sparse| {
            let name = sparse.values.as_ref().and_then(|v| v.name.as_deref()).unwrap_or("(unnamed)");
            format!("`{name}` is a sparse initializer; store it dense")
        })
        .collect();
    let mut files = HashMap::new();
    for tensor in proto.initializer {
        let name = tensor.name.clone().unwrap_or_default();
        match read_tensor(tensor, &name, folder, &mut files)? {
            Ok(tensor) => {
                if graph.initializers.insert(name.clone(), tensor).is_some() {
                    return Err(ErrorKind::DuplicateValue { value: name, node: "(initializer)".into() });
                }
            }
            Err(reason) => issues.push(format!("`{name}`: {reason}")),
        }
    }
    let mut names: HashSet<String> = HashSet::new();
    for (index, node) in proto.node.into_iter().enumerate() {
        let node = read_node(node, index, &mut names, folder, &mut files, &mut issues)?;
        graph.nodes.push(node);
    }
    for value in proto.input {
        // Up to IR version 3 initializers were listed among the inputs; they are constants all the same.
        if !graph.initializers.contains_key(value.name.as_deref().unwrap_or_default()) {
            graph.inputs.push(value_info(value, "input")?);
        }
    }
    for value in proto.output {
        graph.outputs.push(value_info(value, "output")?);
    }
    if !issues.is_empty() {
        return Err(ErrorKind::Tensors(issues));
    }
    check(&mut graph)?;
    Ok(graph)
}

/// Walks the fields of the outermost message, so that a foreign file and a cut one are told apart.
fn scan(bytes: &[u8]) -> Result<(), ErrorKind> {
    let not = |what: &str| Err(ErrorKind::NotOnnx(what.to_owned()));
    if bytes.is_empty() {
        return not("the file is empty");
    }
    let mut rest = bytes;
    let mut known = false;
    while !rest.is_empty() {
        let Some(tag) = varint(&mut rest) else {
            return if known {
                Err(ErrorKind::Truncated("it ends within a field tag".into()))
            } else {
                not("no protobuf fields")
            };
        };
        let (field, wire) = (tag >> 3, tag & 7);
        let expected = match field {
            1 | 5 => 0,
            2..=4 | 6..=8 | 14 | 20 | 25 | 26 => 2,
            _ => return not(&format!("unknown field {field} in the outermost message")),
        };
        if wire != expected {
            return not(&format!("field {field} has the wrong wire type"));
        }
        let Some(value) = varint(&mut rest) else {
            return Err(ErrorKind::Truncated(format!("it ends within field {field}")));
        };
        known = true;
        if wire == 2 {
            let length = usize::try_from(value).unwrap_or(usize::MAX);
            rest = rest.get(length..).ok_or_else(|| {
                ErrorKind::Truncated(format!("field {field} announces {length} bytes and {} are left", rest.len()))
            })?;
        }
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

type Files = HashMap<String, std::fs::File>;

fn read_node(
    proto: proto::NodeProto,
    index: usize,
    names: &mut HashSet<String>,
    folder: Option<&Path>,
    files: &mut Files,
    issues: &mut Vec<String>,
) -> Result<Node, ErrorKind> {
    let op_type = proto.op_type.unwrap_or_default();
    let stem = proto.name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("{op_type}_{index}"));
    let mut name = stem.clone();
    let mut count = 0;
    while !names.insert(name.clone()) {
        count += 1;
        name = format!("{stem}_{count}");
    }
    let mut attrs = BTreeMap::new();
    for attr in proto.attribute {
        let key = attr.name.clone().unwrap_or_default();
        let value = match read_attribute(attr, &key, folder, files)? {
            Ok(value) => value,
            Err(reason) => {
                issues.push(format!("attribute `{key}` of node `{name}`: {reason}"));
                continue;
            }
        };
        attrs.insert(key, value);
    }
    let domain = proto.domain.unwrap_or_default();
    let domain = if domain == "ai.onnx" { String::new() } else { domain };
    Ok(Node { name, op_type, domain, inputs: proto.input, outputs: proto.output, attrs })
}

/// The outer error stops reading; the inner one is listed with its like.
fn read_attribute(
    attr: proto::AttributeProto,
    name: &str,
    folder: Option<&Path>,
    files: &mut Files,
) -> Result<Result<Attr, String>, ErrorKind> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    // Old exporters leave the type out; the one filled field tells.
    let kind = attr.r#type.filter(|&kind| kind != 0).unwrap_or_else(|| match () {
        () if attr.f.is_some() => attribute_type::FLOAT,
        () if attr.i.is_some() => attribute_type::INT,
        () if attr.s.is_some() => attribute_type::STRING,
        () if attr.t.is_some() => attribute_type::TENSOR,
        () if !attr.floats.is_empty() => attribute_type::FLOATS,
        () if !attr.strings.is_empty() => attribute_type::STRINGS,
        () => attribute_type::INTS,
    });
    Ok(Ok(match kind {
        attribute_type::FLOAT => Attr::Float(attr.f.unwrap_or_default()),
        attribute_type::INT => Attr::Int(attr.i.unwrap_or_default()),
        attribute_type::STRING => Attr::String(text(attr.s.unwrap_or_default())),
        attribute_type::TENSOR => match read_tensor(attr.t.unwrap_or_default(), name, folder, files)? {
            Ok(tensor) => Attr::Tensor(tensor),
            Err(reason) => return Ok(Err(reason)),
        },
        attribute_type::FLOATS => Attr::Floats(attr.floats),
        attribute_type::INTS => Attr::Ints(attr.ints),
        attribute_type::STRINGS => Attr::Strings(attr.strings.into_iter().map(text).collect()),
        other => Attr::Unsupported(other),
    }))
}

fn read_tensor(
    proto: proto::TensorProto,
    name: &str,
    folder: Option<&Path>,
    files: &mut Files,
) -> Result<Result<Tensor, String>, ErrorKind> {
    let number = proto.data_type.unwrap_or_default();
    let Some(dtype) = DataType::from_onnx_number(number) else {
        return Ok(Err(format!("element type {} is not supported", type_name(number))));
    };
    let shape: Option<Vec<usize>> = proto.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let Some(shape) = shape else { return Ok(Err(format!("negative size in shape {:?}", proto.dims))) };
    // Sizes of 0 count as 1 here, so that no product of some of the sizes overflows either.
    let bound = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim.max(1)));
    if bound.is_none_or(|count| count > isize::MAX as usize / 8) {
        return Ok(Err(format!("shape {shape:?} is too large")));
    }
    let elements = shape.iter().product();
    let expected = dtype.byte_len(elements);
    let data = if proto.data_location == Some(1) {
        external(&proto.external_data, expected, folder, files)
            .map_err(|reason| ErrorKind::ExternalData { tensor: name.to_owned(), reason })?
    } else if let Some(raw) = proto.raw_data {
        raw
    } else {
        typed_data(&proto, dtype)
    };
    if data.len() != expected {
        return Ok(Err(format!("shape {shape:?} of {dtype:?} needs {expected} bytes and it holds {}", data.len())));
    }
    Ok(Ok(Tensor { dtype, shape, data }))
}

/// Elements given in a typed field instead of raw bytes.
fn typed_data(proto: &proto::TensorProto, dtype: DataType) -> Vec<u8> {
    match dtype {
        DataType::F32 => proto.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::F64 => proto.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::I64 => proto.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::I32 => proto.int32_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::F16 | DataType::Bf16 | DataType::U16 | DataType::I16 => {
            proto.int32_data.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect()
        }
        // Two 4-bit elements share one entry, as they share a raw byte.
        DataType::U8 | DataType::I8 | DataType::Bool | DataType::U4 | DataType::I4 => {
            proto.int32_data.iter().map(|&v| v as u8).collect()
        }
    }
}

/// Reads a tensor stored in a file of its own.
fn external(
    entries: &[proto::StringStringEntryProto],
    expected: usize,
    folder: Option<&Path>,
    files: &mut Files,
) -> Result<Vec<u8>, String> {
    let entry = |key: &str| entries.iter().find(|e| e.key.as_deref() == Some(key)).and_then(|e| e.value.as_deref());
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("{key} `{text}` is not a number")),
    };
    let location = entry("location").ok_or("no location is given")?;
    let relative = Path::new(location);
    if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("location `{location}` leaves the model's folder, which is refused"));
    }
    let path = folder.ok_or("the model was given without its folder; read it from its file")?.join(relative);
    let offset = number("offset")?.unwrap_or(0);
    let length = number("length")?.unwrap_or(expected as u64);
    if length != expected as u64 {
        return Err(format!("length {length} does not fit the shape, which needs {expected} bytes"));
    }
    let file = match files.entry(location.to_owned()) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => entry.insert(
            std::fs::File::open(&path)
                .map_err(|e| format!("cannot open {}: {e}; keep it beside the model", path.display()))?,
        ),
    };
    let size = file.metadata().map_err(|e| e.to_string())?.len();
    if offset.checked_add(length).is_none_or(|end| end > size) {
        return Err(format!("{} holds {size} bytes, too few for {length} at {offset}; copy it again", path.display()));
    }
    file.seek(SeekFrom::Start(offset)).map_err(|e| e.to_string())?;
    let mut data = vec![0; expected];
    file.read_exact(&mut data).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    Ok(data)
}

fn value_info(proto: proto::ValueInfoProto, what: &'static str) -> Result<ValueInfo, ErrorKind> {
    let name = proto.name.unwrap_or_default();
    let error = |reason: String| ErrorKind::Value { what, name: name.clone(), reason };
    let tensor = proto
        .r#type
        .and_then(|kind| kind.tensor_type)
        .ok_or_else(|| error("it is not a dense tensor (sequences, maps and optionals are not supported)".into()))?;
    let number = tensor.elem_type.unwrap_or_default();
    let dtype = DataType::from_onnx_number(number)
        .ok_or_else(|| error(format!("element type {} is not supported", type_name(number))))?;
    let dim = |dim: proto::DimensionProto| match (dim.dim_value, dim.dim_param) {
        (Some(size), _) if size > 0 => Ok(Dim::Known(size as usize)),
        (Some(size), _) if size < 0 => Err(error(format!("a size of {size}"))),
        (_, name) => Ok(Dim::Symbol(name.unwrap_or_default())),
    };
    let shape = match tensor.shape {
        Some(shape) => Some(shape.dim.into_iter().map(dim).collect::<Result<_, _>>()?),
        None => None,
    };
    Ok(ValueInfo { name, dtype, shape })
}

fn type_name(number: i32) -> String {
    let name = match number {
        0 => "UNDEFINED",
        8 => "STRING",
        12 => "UINT32",
        13 => "UINT64",
        14 => "COMPLEX64",
        15 => "COMPLEX128",
        17..=20 => "FLOAT8",
        23 => "FLOAT4E2M1",
        _ => return format!("number {number}"),
    };
    name.to_owned()
}

/// Every value made once, every value read made, nodes in topological order, outputs made.
fn check(graph: &mut Graph) -> Result<(), ErrorKind> {
    let mut made: HashSet<&str> = HashSet::new();
    for input in &graph.inputs {
        if !made.insert(&input.name) {
            return Err(ErrorKind::DuplicateValue { value: input.name.clone(), node: "(graph input)".into() });
        }
    }
    made.extend(graph.initializers.keys().map(String::as_str));
    for node in &graph.nodes {
        for output in node.outputs.iter().filter(|name| !name.is_empty()) {
            if !made.insert(output) {
                return Err(ErrorKind::DuplicateValue { value: output.clone(), node: node.name.clone() });
            }
        }
    }
    for node in &graph.nodes {
        if let Some(value) = node.inputs.iter().find(|name| !name.is_empty() && !made.contains(name.as_str())) {
            let reason = "no node, input or initializer makes";
            return Err(ErrorKind::Unordered { node: node.name.clone(), value: value.clone(), reason });
        }
    }
    for output in &graph.outputs {
        if !made.contains(output.name.as_str()) {
            let reason = "no node, input or initializer makes it".into();
            return Err(ErrorKind::Value { what: "output", name: output.name.clone(), reason });
        }
    }
    if graph.outputs.is_empty() {
        return Err(ErrorKind::NotOnnx("its graph has no outputs".into()));
    }
    graph.sort().map_err(|node| {
        let value = graph.nodes.iter().find(|n| n.name == node).and_then(|n| n.inputs.first().cloned());
        ErrorKind::Unordered {
            node,
            value: value.unwrap_or_default(),
            reason: "depends on the node itself: the graph has a cycle",
        }
    })
}
