//! Files written so that a failure leaves the old ones, or none.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file or folder that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot be written: {source}; choose a folder you may write to")]
pub struct WriteError {
    /// The file or folder, as the caller named it.
    pub path: String,
    /// What the system says.
    pub source: io::Error,
}

impl WriteError {
    fn new(path: &Path, source: io::Error) -> Self {
        Self { path: path.display().to_string(), source }
    }
}

/// Writes a file: the bytes go to a temporary file in the same folder, which is then renamed.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    stage(parent(path), bytes)?.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// Writes one file; its folder must exist. On failure the old file, or none, is there.
///
/// # Errors
///
/// It cannot be written.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    write(path, bytes).map_err(|e| WriteError::new(path, e))
}

/// Writes files (name, bytes) into a folder, which is made if it is missing. All bytes are on disk before the
/// first file gets its name; on failure no new file or folder is left behind.
///
/// # Errors
///
/// The file or folder that cannot be written.
pub fn write_all(folder: &Path, files: &[(String, Vec<u8>)]) -> Result<Vec<PathBuf>, WriteError> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    let mut new = Vec::new();
    let written = write_into(folder, files, &mut new);
    if written.is_err() {
        // Best effort: what cannot be removed here could not have been made by us alone.
        new.iter().for_each(|path| drop(std::fs::remove_file(path)));
        missing.iter().for_each(|path| drop(std::fs::remove_dir(path)));
    }
    written
}

fn write_into(folder: &Path, files: &[(String, Vec<u8>)], new: &mut Vec<PathBuf>) -> Result<Vec<PathBuf>, WriteError> {
    std::fs::create_dir_all(folder).map_err(|e| WriteError::new(folder, e))?;
    let mut staged = Vec::with_capacity(files.len());
    for (name, bytes) in files {
        let path = folder.join(name);
        if path.is_dir() {
            return Err(WriteError::new(&path, io::ErrorKind::IsADirectory.into()));
        }
        let file = stage(folder, bytes).map_err(|e| WriteError::new(&path, e))?;
        staged.push((path, file));
    }
    let mut written = Vec::with_capacity(staged.len());
    for (path, file) in staged {
        let existed = path.exists();
        file.persist(&path).map_err(|e| WriteError::new(&path, e.error))?;
        if !existed {
            new.push(path.clone());
        }
        written.push(path);
    }
    Ok(written)
}

/// Finds out, before any work, whether files can be written into a folder that may not exist yet.
///
/// # Errors
///
/// They cannot.
pub fn probe(folder: &Path) -> Result<(), WriteError> {
    let existing = folder
        .ancestors()
        .map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path })
        .find(|path| path.exists())
        .unwrap_or(Path::new("."));
    if !existing.is_dir() {
        return Err(WriteError::new(folder, io::ErrorKind::NotADirectory.into()));
    }
    temporary(existing).map(drop).map_err(|e| WriteError::new(folder, e))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn stage(folder: &Path, bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let mut file = temporary(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn temporary(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".equant-");
    // Temporary files are private by default; results get the permissions of any new file (less the umask).
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .expect("folder")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_set_leaves_nothing_new() {
        let root = tempfile::tempdir().expect("tempdir");
        let folder = root.path().join("a/b");
        let files = vec![("one".to_owned(), vec![1]), ("missing/two".to_owned(), vec![2])];
        let error = write_all(&folder, &files).expect_err("no such folder");
        assert!(error.path.ends_with("missing/two"), "{error}");
        assert_eq!(names(root.path()), Vec::<String>::new());
    }

    #[test]
    fn a_destination_that_is_a_folder_is_refused_before_anything_is_renamed() {
        let root = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(root.path().join("two")).expect("folder");
        let files = vec![("one".to_owned(), vec![1]), ("two".to_owned(), vec![2])];
        write_all(root.path(), &files).expect_err("a folder");
        assert_eq!(names(root.path()), ["two"]);
    }

    #[test]
    fn a_set_is_written_and_replaces_old_files() {
        let root = tempfile::tempdir().expect("tempdir");
        let folder = root.path().join("out");
        write_all(&folder, &[("one".to_owned(), vec![1])]).expect("first");
        let paths = write_all(&folder, &[("one".to_owned(), vec![3]), ("two".to_owned(), vec![2])]).expect("second");
        assert_eq!(std::fs::read(&paths[0]).expect("one"), [3]);
        assert_eq!(names(&folder), ["one", "two"]);
    }

    #[cfg(unix)]
    #[test]
    fn results_have_the_permissions_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().expect("tempdir");
        let (ours, plain) = (root.path().join("ours"), root.path().join("plain"));
        write(&ours, &[1]).expect("ours");
        std::fs::write(&plain, [1]).expect("plain");
        let mode = |path: &Path| std::fs::metadata(path).expect("metadata").permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn a_folder_below_a_file_is_refused_early() {
        let root = tempfile::tempdir().expect("tempdir");
        let file = root.path().join("file");
        std::fs::write(&file, []).expect("file");
        probe(&file.join("out")).expect_err("below a file");
        probe(&root.path().join("a/b/c")).expect("can be made");
        assert_eq!(names(root.path()), ["file"]);
    }
}
