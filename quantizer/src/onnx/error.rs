//! What can go wrong while an ONNX file is read or written.

/// An error with the file it concerns.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {kind}")]
pub struct Error {
    /// The file, as the caller named it.
    pub file: String,
    /// What happened.
    pub kind: ErrorKind,
}

/// What happened to the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file cannot be opened or read.
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    /// The file cannot be written; nothing was left behind.
    #[error("cannot be written: {0}; choose a folder you may write to")]
    Write(std::io::Error),
    /// The bytes are not an ONNX model.
    #[error("is not an ONNX model: {0}; pass a file that `torch.onnx.export` or another exporter wrote")]
    NotOnnx(String),
    /// The file ends too early.
    #[error("is truncated: {0}; copy or download it again")]
    Truncated(String),
    /// The default operator set is outside what is supported.
    #[error(
        "uses opset {found}, and opsets {} to {} are supported; export again with opset 17, \
         or use `onnx.version_converter`", super::OPSETS.start(), super::OPSETS.end()
    )]
    Opset {
        /// The version the file asks for.
        found: i64,
    },
    /// Tensors that cannot be represented, all of them.
    #[error("has {} constant(s) that are not supported:{}", .0.len(), .0.iter().map(|issue| format!("\n  {issue}")).collect::<String>())]
    Tensors(Vec<String>),
    /// A tensor stored outside the model file cannot be read.
    #[error("external data of initializer `{tensor}`: {reason}")]
    ExternalData {
        /// The initializer.
        tensor: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Two producers of one value.
    #[error("value `{value}` is made twice (second time by node `{node}`); a valid graph assigns every value once")]
    DuplicateValue {
        /// The value.
        value: String,
        /// The second producer.
        node: String,
    },
    /// A node reads a value nobody makes, or is part of a cycle.
    #[error("node `{node}` reads `{value}`, which {reason}")]
    Unordered {
        /// The node.
        node: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A graph input or output that is not a tensor of a supported type, or an output nobody makes.
    #[error("graph {what} `{name}`: {reason}")]
    Value {
        /// `input` or `output`.
        what: &'static str,
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}
