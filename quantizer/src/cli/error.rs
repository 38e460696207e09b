//! Failures and their exit codes, as `equant --help` documents them.

use std::io;

use crate::{exec, onnx, package, passes, pipeline, quantize};

pub(super) const UNEXPECTED: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const BAD_INPUT: u8 = 3;
pub(super) const UNSUPPORTED: u8 = 4;
pub(super) const NOT_WRITTEN: u8 = 5;
pub(super) const NOT_VERIFIED: u8 = 6;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// Options that do not go together with the files given.
    #[error("{0}")]
    Usage(String),
    /// Files that do not go together.
    #[error("{0}")]
    Input(String),
    /// Nothing more to say: what is unsupported was printed as the result.
    #[error("{0}: holds nodes that cannot be quantized; see the list above")]
    Inspected(String),
    /// A file that is not a model.
    #[error("{file}: cannot be read: {source}")]
    Read { file: String, source: io::Error },
    #[error("{file}: {source}")]
    Package { file: String, source: package::Error },
    #[error("stdout: cannot be written: {0}")]
    Stdout(io::Error),
}

impl Failure {
    /// Whether whoever read our output has stopped (`equant … | head`): no failure.
    pub(super) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Pipeline(error) => pipeline_code(error),
            Self::Usage(_) => USAGE,
            Self::Input(_) | Self::Read { .. } | Self::Package { .. } => BAD_INPUT,
            Self::Inspected(_) => UNSUPPORTED,
            Self::Stdout(_) => NOT_WRITTEN,
        }
    }
}

impl From<onnx::Error> for Failure {
    fn from(error: onnx::Error) -> Self {
        Self::Pipeline(error.into())
    }
}

fn pipeline_code(error: &pipeline::Error) -> u8 {
    use pipeline::Error;
    match error {
        Error::Onnx(error) => onnx_code(&error.kind),
        Error::Prepare { source, .. } if matches!(**source, passes::Error::UnknownDim { .. }) => USAGE,
        Error::Prepare { .. } | Error::Unsupported { .. } | Error::Compile { .. } => UNSUPPORTED,
        Error::AlreadyQuantized(_) | Error::Data(_) | Error::NoSamples(_) | Error::Plan { .. } => BAD_INPUT,
        Error::ReadFile { .. } | Error::Elastic(_) => BAD_INPUT,
        Error::Metric { .. } | Error::Target { .. } | Error::State { .. } => USAGE,
        Error::Quantize { source, .. } => match **source {
            quantize::Error::NotFinite { .. } | quantize::Error::ConstantNotFinite { .. } => BAD_INPUT,
            _ => UNEXPECTED,
        },
        Error::Run { source, .. } => match **source {
            exec::Error::NotBuilt(_) => USAGE,
            exec::Error::Shape(_) | exec::Error::TractRefused { .. } | exec::Error::Quantized { .. } => UNSUPPORTED,
            _ => UNEXPECTED,
        },
        Error::Budget { .. } | Error::SqnrBudget { .. } => USAGE,
        Error::Write(_) => NOT_WRITTEN,
        Error::Verification { .. } => NOT_VERIFIED,
        _ => UNEXPECTED,
    }
}

fn onnx_code(kind: &onnx::ErrorKind) -> u8 {
    match kind {
        onnx::ErrorKind::Opset { .. } | onnx::ErrorKind::Tensors(_) => UNSUPPORTED,
        onnx::ErrorKind::Write(_) => NOT_WRITTEN,
        _ => BAD_INPUT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verification_and_overflow_have_their_codes() {
        let verification = pipeline::Error::Verification { file: "m".into(), reason: "r".into() };
        assert_eq!(Failure::from(verification).code(), NOT_VERIFIED);
        let overflow = quantize::Error::NotFinite { value: "v".into(), count: 3 };
        let overflow = pipeline::Error::Quantize { file: "m".into(), source: Box::new(overflow) };
        assert_eq!(Failure::from(overflow).code(), BAD_INPUT);
        let run = |source| Failure::from(pipeline::Error::run("m", source)).code();
        assert_eq!(run(exec::Error::NotBuilt(exec::Backend::Ort)), USAGE);
        assert_eq!(run(exec::Error::TractRefused { reason: "r".into() }), UNSUPPORTED);
        assert_eq!(run(exec::Error::TractRun { reason: "r".into() }), UNEXPECTED);
    }

    #[test]
    fn a_reader_that_stops_is_no_failure() {
        assert!(Failure::Stdout(io::ErrorKind::BrokenPipe.into()).is_closed_pipe());
        assert!(!Failure::Stdout(io::ErrorKind::StorageFull.into()).is_closed_pipe());
    }
}
