//! What can go wrong with ONNX Runtime.

use std::path::PathBuf;

/// Why ONNX Runtime did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no library.
    #[error(
        "ONNX Runtime was not found (looked in {looked}); get it with `pip download onnxruntime --no-deps`, unzip the \
         wheel into `.equant/onnxruntime`, or set ORT_DYLIB_PATH to its libonnxruntime.so"
    )]
    NotFound {
        /// Where it was looked for.
        looked: String,
    },
    /// The file named is not there.
    #[error("ONNX Runtime: {from} names `{}`, and there is no such file", path.display())]
    NoSuchFile {
        /// Who names it: the environment variable, or the caller.
        from: String,
        /// The file.
        path: PathBuf,
    },
    /// The library cannot be loaded.
    #[error("ONNX Runtime cannot be loaded from `{}`: {reason}; version 1.24 or newer is needed", path.display())]
    Load {
        /// The library.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// Another library is in use already; a process can hold one.
    #[error("ONNX Runtime is loaded from `{}` already, and `{}` was asked for; use one of them", loaded.display(), asked.display())]
    AlreadyLoaded {
        /// The library in use.
        loaded: PathBuf,
        /// The library asked for.
        asked: PathBuf,
    },
    /// The execution provider is not in this library, or its own libraries or device are missing.
    #[error("execution provider {provider} is not available: {reason}")]
    Provider {
        /// Its name.
        provider: &'static str,
        /// What is missing.
        reason: String,
    },
    /// ONNX Runtime refuses the model.
    #[error("{model}: ONNX Runtime refuses the model: {reason}")]
    Model {
        /// The file, or the name given to the bytes.
        model: String,
        /// ONNX Runtime's words, which name the node.
        reason: String,
    },
    /// An input that does not fit the model.
    #[error("{model}: {reason}")]
    Input {
        /// The model.
        model: String,
        /// What does not fit.
        reason: String,
    },
    /// A run failed.
    #[error("{model}: ONNX Runtime failed: {reason}")]
    Run {
        /// The model.
        model: String,
        /// ONNX Runtime's words, which name the node.
        reason: String,
    },
    /// An output that is no tensor of numbers.
    #[error("{model}: output `{output}` is {kind}, and only tensors of numbers are read")]
    Output {
        /// The model.
        model: String,
        /// The output.
        output: String,
        /// What it is.
        kind: String,
    },
}
