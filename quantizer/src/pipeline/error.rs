//! Why no quantized model was made.

use crate::graph::support::Unsupported;
use crate::target::Refusal;

/// Why no quantized model was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model file.
    #[error(transparent)]
    Onnx(Box<crate::onnx::Error>),
    /// The model cannot be prepared.
    #[error("{file}: {source}")]
    Prepare {
        /// The model file.
        file: String,
        /// What is wrong.
        source: Box<crate::passes::Error>,
    },
    /// The model is quantized already.
    #[error(
        "{0}: is quantized already; give the float model it was made from, or make a plan of it with `equant compile {0}`"
    )]
    AlreadyQuantized(String),
    /// Nodes that cannot be quantized, all of them.
    #[error("{file}: {} node(s) cannot be quantized:{}", .nodes.len(), list(.nodes))]
    Unsupported {
        /// The model file.
        file: String,
        /// The nodes.
        nodes: Vec<Unsupported>,
    },
    /// Bits that the target has no integer kernels for, in all layers concerned.
    #[error("{file}: {} layer(s) would not run in integers:{}", .refusals.len(), listed(.refusals))]
    Target {
        /// The model file.
        file: String,
        /// Nodes, and why.
        refusals: Vec<(String, Refusal)>,
    },
    /// Pairs of outputs and inputs that do not fit the model.
    #[error("{file}: {reason}")]
    State {
        /// The model file.
        file: String,
        /// The pair, and what does not fit.
        reason: String,
    },
    /// The samples.
    #[error(transparent)]
    Data(Box<crate::data::Error>),
    /// There are no samples.
    #[error("{0}: holds no samples; give at least one, and a few hundred for calibration")]
    NoSamples(String),
    /// The metric does not fit the model and the labels.
    #[error("{file}: metric {metric} cannot be computed: {reason}; choose another with `--metric`")]
    Metric {
        /// The sample file.
        file: String,
        /// The metric.
        metric: &'static str,
        /// Why.
        reason: String,
    },
    /// A model could not be run.
    #[error("{file}: {source}")]
    Run {
        /// The model.
        file: String,
        /// What went wrong.
        source: Box<crate::exec::Error>,
    },
    /// No allocation of bits meets the budget.
    #[error("{file}: the budget of {budget}: {source}")]
    Budget {
        /// The model file.
        file: String,
        /// The budget.
        budget: String,
        /// The least possible.
        source: crate::allocate::Error,
    },
    /// Not even 8 bits everywhere reach the SQNR asked for.
    #[error("{file}: an SQNR of {asked} dB cannot be met: with 8 bits everywhere it is {most:.1} dB")]
    SqnrBudget {
        /// The model file.
        file: String,
        /// What was asked for.
        asked: f64,
        /// The most possible.
        most: f64,
    },
    /// A file cannot be read.
    #[error("{file}: {source}")]
    ReadFile {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// An analysis.
    #[error(transparent)]
    Elastic(Box<crate::elastic::Error>),
    /// Scales and zero points could not be decided.
    #[error("{file}: {source}")]
    Quantize {
        /// The model file.
        file: String,
        /// What went wrong.
        source: Box<crate::quantize::Error>,
    },
    /// No plan could be made.
    #[error("{file}: {source}")]
    Compile {
        /// The quantized model.
        file: String,
        /// What went wrong.
        source: Box<crate::compile::Error>,
    },
    /// The plan image is refused by the runtime.
    #[error("{file}: {source}")]
    Plan {
        /// The plan.
        file: String,
        /// Why.
        source: equant_runtime::Error,
    },
    /// The results contradict each other.
    #[error("{file}: the quantized model failed verification: {reason}; nothing was written. Please report this model")]
    Verification {
        /// The model file.
        file: String,
        /// Which results, and by how much.
        reason: String,
    },
    /// The results cannot be written.
    #[error(transparent)]
    Write(#[from] crate::files::WriteError),
    /// A defect of this program.
    #[error("{0}; please report this")]
    Internal(String),
}

impl Error {
    /// An error of a runner: what is wrong with the samples already names their file.
    pub(crate) fn run(file: &str, source: crate::exec::Error) -> Self {
        match source {
            crate::exec::Error::Data(source) => source.into(),
            source => Self::Run { file: file.to_owned(), source: Box::new(source) },
        }
    }
}

// What is in a box keeps results small where nothing goes wrong.
impl From<crate::onnx::Error> for Error {
    fn from(source: crate::onnx::Error) -> Self {
        Self::Onnx(Box::new(source))
    }
}

impl From<crate::data::Error> for Error {
    fn from(source: crate::data::Error) -> Self {
        Self::Data(Box::new(source))
    }
}

fn list(nodes: &[Unsupported]) -> String {
    nodes.iter().map(|node| format!("\n  {node}")).collect()
}

fn listed(refusals: &[(String, Refusal)]) -> String {
    refusals.iter().map(|(node, refusal)| format!("\n  node `{node}`: {refusal}")).collect()
}
