//! Fuzz targets as plain functions, and a seeded mutator that drives them on stable Rust.
//!
//! A target takes any bytes. It must return: panics, endless loops and absurd allocations are bugs. `tests/fuzz` holds the
//! same targets for `cargo fuzz`, which needs a nightly compiler.

mod mutate;
mod protobuf;
mod rng;
mod seeds;
mod targets;

pub use mutate::mutate;
pub use rng::Rng;
pub use seeds::seeds;
pub use targets::{npz_input, onnx_input, package_input, plan_input};

/// What bytes are taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A plan image: validated and, when valid, run.
    Plan,
    /// An ONNX file: read, written, read again, prepared, checked, compiled.
    Onnx,
    /// A sample file: opened and read through.
    Npz,
    /// A package, or a file to make one of.
    Package,
}

impl Target {
    /// All targets.
    pub const ALL: [Self; 4] = [Self::Plan, Self::Onnx, Self::Npz, Self::Package];

    /// The target's name in file names and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Onnx => "onnx",
            Self::Npz => "npz",
            Self::Package => "package",
        }
    }

    /// The target with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// Feeds bytes to the target and says in words what came of them.
    pub fn run(self, bytes: &[u8]) -> String {
        match self {
            Self::Plan => plan_input(bytes),
            Self::Onnx => onnx_input(bytes),
            Self::Npz => npz_input(bytes),
            Self::Package => package_input(bytes),
        }
    }
}

/// An outcome without its numbers and names: inputs with new shapes of outcome are worth mutating further.
pub fn outcome_shape(outcome: &str) -> String {
    let mut quoted = false;
    outcome
        .chars()
        .filter(|&c| {
            quoted ^= c == '`';
            !quoted && !c.is_ascii_digit()
        })
        .take(100)
        .collect()
}
