//! Takes the plan and the images that firmware is built with, and writes down the operators that the plan needs.
//!
//! `EQUANT_PLAN` and `EQUANT_IMAGES` name other files than the ones in `assets`; relative paths count from the
//! `firmware` folder. A plan that the runtime would refuse fails the build.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use equant_runtime::Plan;
use equant_runtime::operator::AllOperators;
use equant_runtime::plan::AlignedBytes;

fn main() {
    let plan = asset("EQUANT_PLAN", "assets/resnet8.plan");
    asset("EQUANT_IMAGES", "assets/resnet8.images");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("operators.rs"), operators(&plan)).expect("OUT_DIR can be written");
}

/// Resolves a file, hands its path to the sources as an environment variable, and rebuilds when it changes.
fn asset(variable: &str, default: &str) -> PathBuf {
    println!("cargo::rerun-if-env-changed={variable}");
    let firmware = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the app lies in the firmware folder");
    let path = firmware.join(env::var_os(variable).map_or_else(|| default.into(), PathBuf::from));
    println!("cargo::rerun-if-changed={}", path.display());
    if !path.is_file() {
        fail(&format!(
            "{variable}: there is no file {}; relative paths count from the firmware folder",
            path.display()
        ));
    }
    println!("cargo::rustc-env={variable}_PATH={}", path.display());
    path
}

/// The operator set of a plan, as source text.
fn operators(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|error| fail(&format!("{} cannot be read: {error}", path.display())));
    let plan = AlignedBytes::from(&bytes[..]);
    let plan = Plan::<AllOperators>::parse(&plan).unwrap_or_else(|error| fail(&format!("{}: {error}", path.display())));
    let names: BTreeSet<&str> = plan.ops().map(|op| op.kind.name()).collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    format!(
        "equant_runtime::operator_set! {{\n    /// The operators of the plan.\n    pub struct Ops {{ {names} }}\n}}\n"
    )
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1)
}
