//! Why a graph cannot be run differentiably.

/// Why a graph cannot be run, or its gradients not be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operator, or this form of it, has no gradient here.
    #[error("node `{node}` ({op_type}): {reason}")]
    Unsupported {
        /// The node.
        node: String,
        /// Its operator type.
        op_type: String,
        /// What is not supported.
        reason: String,
    },
    /// The outcome names what the graph does not hold.
    #[error("`{0}` of the outcome does not fit the graph; tune the outcome with the graph it was made for")]
    Mismatch(String),
    /// The automatic differentiation failed: a bug.
    #[error("automatic differentiation failed: {0}")]
    Autodiff(String),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Autodiff(error.to_string())
    }
}
