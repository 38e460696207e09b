//! Well-formed (and a few ill-formed) inputs to start from.

use std::path::{Path, PathBuf};

use super::Target;

/// Folders with files for the target, below this crate.
const fn folders(target: Target) -> &'static [&'static str] {
    match target {
        Target::Plan => &["fuzz/corpus/plan"],
        Target::Onnx => &["data/onnx", "fuzz/corpus/onnx"],
        Target::Npz => &["fuzz/corpus/npz"],
        Target::Package => &["fuzz/corpus/package", "fuzz/corpus/plan"],
    }
}

/// The committed seeds of a target, then the inputs that once broke it: path and bytes, in the order of their names.
///
/// # Panics
///
/// If a file cannot be read or there are no seeds: the checkout is damaged.
pub fn seeds(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let regressions = format!("fuzz/regressions/{}", target.name());
    let mut out = Vec::new();
    for folder in folders(target).iter().copied().chain([regressions.as_str()]) {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.expect("a readable folder").path())
            .filter(|path| path.extension().is_none_or(|extension| extension != "py" && extension != "md"))
            .collect();
        paths.sort();
        for path in paths {
            let bytes = std::fs::read(&path).expect("a readable seed");
            out.push((path, bytes));
        }
    }
    assert!(!out.is_empty(), "no seeds for {}", target.name());
    out
}
