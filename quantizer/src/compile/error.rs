//! What can go wrong while a graph is compiled.

use std::fmt;

use equant_runtime::error::Error as PlanError;

/// Why one node cannot be compiled.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The operator, or this form of it, has no lowering.
    #[error("{0}")]
    Unsupported(String),
    /// A float value reaches an integer operator without ever having been quantized.
    #[error(
        "its input `{0}` is a float graph input that is never quantized; insert QuantizeLinear and DequantizeLinear after it"
    )]
    InputNotQuantized(String),
    /// A non-linear unary function of a 16-bit value: a table would be too large.
    #[error("non-linear function of the 16-bit value `{0}`; quantize that value to 8 bits before it")]
    UnaryOn16Bit(String),
    /// The i32 accumulator could overflow.
    #[error(
        "the accumulator of output channel {channel} can reach {bound}, beyond 32 bits; use fewer weight bits or a smaller bias"
    )]
    Accumulator {
        /// The output channel.
        channel: usize,
        /// The largest magnitude it can reach.
        bound: i64,
    },
    /// A requantization factor outside the runtime's range.
    #[error(
        "the requantization factor {value:e} is outside [2^-32, 2^30); check the scales of inputs, weights and output"
    )]
    Multiplier {
        /// The factor.
        value: f64,
    },
    /// A scale or zero point that is not what ONNX allows, or not a constant.
    #[error("bad quantization parameters of `{value}`: {reason}")]
    Quantization {
        /// The value quantized or dequantized.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// Weights in blocks along their inputs, whose scales no common one can replace.
    #[error(
        "its weights have a scale for each {block} of their inputs, which only servers execute; for a plan quantize \
         them again with one scale per output channel or per tensor (without `block_size`)"
    )]
    Blocked {
        /// Elements in a block.
        block: usize,
    },
    /// Shapes that do not fit each other.
    #[error("shapes do not fit: {0}")]
    Shape(String),
}

/// One node that cannot be compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Issue {
    /// The node's name.
    pub node: String,
    /// Its ONNX operator type.
    pub operator: String,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.node, self.operator, self.reason)
    }
}

/// Why a graph was not compiled.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nodes that cannot be compiled, all of them.
    #[error("{} node(s) cannot be compiled:{}", .0.len(), list(.0))]
    Nodes(Vec<Issue>),
    /// The graph could not be prepared: constants folded, nodes sorted.
    #[error("cannot prepare the graph: {0}")]
    Prepare(String),
    /// A requested or declared output that the compiler cannot give.
    #[error("output `{name}`: {reason}")]
    Output {
        /// The output's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The model does not fit the plan format.
    #[error("the model does not fit a plan: {0}")]
    TooLarge(String),
    /// The runtime refused the finished plan: a defect of the compiler, reported instead of written.
    #[error("the runtime refuses the plan: {error}{place}; please report this model")]
    Refused {
        /// What the runtime said.
        error: PlanError,
        /// The operator or tensor concerned, in words.
        place: String,
    },
}

/// The issues, one a line.
fn list(issues: &[Issue]) -> String {
    issues.iter().map(|issue| format!("\n  {issue}")).collect()
}
