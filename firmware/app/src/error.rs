//! Why the application stopped.

use core::fmt;

use crate::images;

/// Why the application stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The runtime refused the plan, or a call.
    Runtime(equant_runtime::Error),
    /// The images file is damaged or does not fit the plan.
    Images(images::Error),
    /// The plan does not have exactly one input and one output.
    NotAClassifier,
    /// The output has no element, or more than [`crate::classify::MAX_CLASSES`].
    Classes(u32),
    /// The plan has more operators than [`crate::profile::MAX_LAYERS`].
    Layers,
}

impl From<equant_runtime::Error> for Error {
    fn from(error: equant_runtime::Error) -> Self {
        Self::Runtime(error)
    }
}

impl From<images::Error> for Error {
    fn from(error: images::Error) -> Self {
        Self::Images(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(error) => write!(f, "plan: {error}"),
            Self::Images(error) => write!(f, "images: {error}"),
            Self::NotAClassifier => f.write_str("plan: this program runs models with one input and one output"),
            Self::Classes(n) => {
                write!(f, "plan: {n} outputs; this program serves 1 to {}", crate::classify::MAX_CLASSES)
            }
            Self::Layers => write!(f, "plan: more than {} operators to profile", crate::profile::MAX_LAYERS),
        }
    }
}

impl core::error::Error for Error {}
