//! Where the ONNX Runtime library is.

use std::path::{Path, PathBuf};

use crate::Error;

/// Environment variable that names the library file.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";
/// Folder, beside the current one or one of its parents, that the library is unpacked into.
pub const FOLDER: &str = ".equant/onnxruntime";
/// How deep in [`FOLDER`] the library may lie; wheels have it in `onnxruntime/capi`.
const DEPTH: usize = 5;

/// The library: what `ORT_DYLIB_PATH` names, or else the newest in `.equant/onnxruntime` beside the current folder or
/// the nearest of its parents that has one.
///
/// # Errors
///
/// [`Error::NotFound`]; [`Error::NoSuchFile`] when the variable names a file that is not there.
pub fn find() -> Result<PathBuf, Error> {
    let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    let current = std::env::current_dir().unwrap_or_default();
    find_in(variable, &current)
}

fn find_in(variable: Option<PathBuf>, current: &Path) -> Result<PathBuf, Error> {
    if let Some(path) = variable {
        return match path.is_file() {
            true => Ok(path),
            false => Err(Error::NoSuchFile { from: VARIABLE.into(), path }),
        };
    }
    for parent in current.ancestors() {
        let mut found = Vec::new();
        search(&parent.join(FOLDER), DEPTH, &mut found);
        if let Some(path) = found.into_iter().max_by_key(|path| version(path)) {
            return Ok(path);
        }
    }
    Err(Error::NotFound { looked: format!("{VARIABLE}, and {FOLDER} in {} and its parents", current.display()) })
}

fn search(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(items) = std::fs::read_dir(folder) else { return };
    for path in items.flatten().map(|item| item.path()) {
        if path.is_dir() {
            if depth > 0 {
                search(&path, depth - 1, found);
            }
        } else if path.file_name().and_then(|name| name.to_str()).is_some_and(is_library) {
            found.push(path);
        }
    }
}

/// `libonnxruntime.so.1.32.0` and its kin on other systems; not the libraries of execution providers.
fn is_library(name: &str) -> bool {
    let versions = |rest: &str| rest.chars().all(|c| c.is_ascii_digit() || c == '.');
    if name == "onnxruntime.dll" {
        return true;
    }
    let Some(rest) = name.strip_prefix("libonnxruntime") else { return false };
    rest.strip_prefix(".so").or_else(|| rest.strip_suffix(".dylib")).is_some_and(versions)
}

/// The numbers in a file name, then the path, so that the choice is the same everywhere.
fn version(path: &Path) -> (Vec<u64>, PathBuf) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let numbers = name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
    (numbers.collect(), path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_libraries() {
        for name in ["libonnxruntime.so", "libonnxruntime.so.1.32.0", "libonnxruntime.1.32.0.dylib", "onnxruntime.dll"]
        {
            assert!(is_library(name), "{name}");
        }
        for name in ["libonnxruntime_providers_shared.so", "libonnxruntime.so.txt", "libonnxruntime", "onnxruntime.so"]
        {
            assert!(!is_library(name), "{name}");
        }
    }

    #[test]
    fn the_newest_of_the_nearest_folder_unless_the_variable_names_another() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let current = root.path().join("a/b/c");
        std::fs::create_dir_all(&current).unwrap();
        assert!(matches!(find_in(None, &current), Err(Error::NotFound { .. })));
        put(".equant/onnxruntime/libonnxruntime.so.2.0.0");
        put("a/.equant/onnxruntime/w/onnxruntime/capi/libonnxruntime.so.1.9.1");
        let newest = put("a/.equant/onnxruntime/v/onnxruntime/capi/libonnxruntime.so.1.10.0");
        put("a/.equant/onnxruntime/v/onnxruntime/capi/libonnxruntime_providers_shared.so");
        assert_eq!(find_in(None, &current), Ok(newest));
        let named = put("elsewhere/my.so");
        assert_eq!(find_in(Some(named.clone()), &current), Ok(named));
        let missing = root.path().join("missing.so");
        let error = find_in(Some(missing.clone()), &current).unwrap_err();
        assert_eq!(error, Error::NoSuchFile { from: VARIABLE.into(), path: missing });
    }
}
