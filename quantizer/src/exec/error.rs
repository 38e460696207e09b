//! What can go wrong while a model runs.

use super::Backend;

/// Why a model could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The samples cannot be read.
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    /// A value that no node makes was asked for.
    #[error("the model has no value `{value}`; its outputs are: {known}")]
    NoSuchValue {
        /// The name asked for.
        value: String,
        /// The graph outputs.
        known: String,
    },
    /// An input whose shape is not known.
    #[error(transparent)]
    Shape(#[from] crate::graph::shape::ShapeError),
    /// A batch that does not fit the model.
    #[error("input `{input}` got {found} elements, and {count} sample(s) of it have {needed}")]
    InputLength {
        /// The input.
        input: String,
        /// Elements in the batch.
        found: usize,
        /// Number of samples.
        count: usize,
        /// Elements needed.
        needed: usize,
    },
    /// A batch without a graph input's samples.
    #[error("the model has {needed} input(s), and the batch has {found}")]
    InputCount {
        /// Number of graph inputs.
        needed: usize,
        /// Number of inputs in the batch.
        found: usize,
    },
    /// A streaming model that cannot be run over sequences.
    #[error("the model's state cannot be carried from step to step: {reason}")]
    State {
        /// Why.
        reason: String,
    },
    /// A quantized graph where a float graph is needed.
    #[error(
        "node `{node}` ({op_type}): tract does not run quantized graphs; run the file with ONNX Runtime (`--backend ort`), or simulate it in float"
    )]
    Quantized {
        /// The node.
        node: String,
        /// Its operator type.
        op_type: String,
    },
    /// tract does not take the model.
    #[error("tract refuses the model: {reason}; try ONNX Runtime (`--backend ort`)")]
    TractRefused {
        /// tract's words, which name the node.
        reason: String,
    },
    /// tract failed on a sample.
    #[error("tract failed: {reason}")]
    TractRun {
        /// tract's words, which name the node.
        reason: String,
    },
    /// The runtime does not take the plan.
    #[error("the plan is refused: {0}; compile it again with this version of equant")]
    Plan(equant_runtime::Error),
    /// ONNX Runtime is not there, refuses the model, or failed.
    #[cfg(feature = "ort")]
    #[error(transparent)]
    Ort(#[from] equant_server::Error),
    /// The backend was left out of this build.
    #[error("backend {0:?} is not in this build; build with `--features {feature}`", feature = .0.feature())]
    NotBuilt(Backend),
}

impl From<equant_runtime::Error> for Error {
    fn from(error: equant_runtime::Error) -> Self {
        Self::Plan(error)
    }
}

impl Backend {
    /// The cargo feature that builds it.
    pub const fn feature(self) -> &'static str {
        match self {
            Self::Tract => "tract",
            Self::Ort => "ort",
        }
    }
}
