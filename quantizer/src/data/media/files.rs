//! What a folder holds: the files that are samples, in order, and those that say something about them.

use std::path::{Path, PathBuf};

use super::error::MediaKind;
use super::labels::Labels;
use super::{MediaError, at};
use crate::data::{Error, ErrorKind};

/// The file that says how the others become samples.
const DESCRIPTION: &str = "preprocess.json";
/// The file with labels.
const LABELS: &str = "labels.csv";

/// What a folder holds.
#[derive(Debug)]
pub(in crate::data) enum Found {
    /// NumPy arrays, and perhaps a description, which they have no use for.
    Arrays { described: bool },
    /// Images or WAV files.
    Media(Listing),
}

/// A folder of images or WAV files.
#[derive(Debug)]
pub(in crate::data) struct Listing {
    pub(super) kind: MediaKind,
    /// In the order of their names; from class folders, one of each class in turn.
    pub(super) files: Vec<PathBuf>,
    pub(super) labels: Labels,
    /// The folder's own description.
    pub(super) preprocess: Option<PathBuf>,
}

/// What a file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Array,
    Sample(MediaKind),
    Description,
    Labels,
    Folder,
    Other,
}

/// Looks at the names in a folder.
pub(in crate::data) fn look(folder: &Path) -> Result<Found, Error> {
    let entries = entries(folder)?;
    let first = |wanted: fn(Role) -> bool| entries.iter().find(|(_, role)| wanted(*role)).map(|(path, _)| path);
    let array = first(|role| role == Role::Array);
    let sample = first(|role| matches!(role, Role::Sample(_)));
    let preprocess = first(|role| role == Role::Description).cloned();
    let labels = first(|role| role == Role::Labels);
    let class = first(|role| role == Role::Folder);
    match (array, sample, class) {
        (Some(array), Some(sample), _) => Err(at(folder, MediaError::Mixed { one: name(array), other: name(sample) })),
        (Some(_), None, _) => Ok(Found::Arrays { described: preprocess.is_some() }),
        (None, Some(file), Some(class)) => {
            Err(at(folder, MediaError::FilesAndFolders { file: name(file), folder: name(class) }))
        }
        (None, Some(_), None) => {
            let (kind, files) = samples(folder, entries.iter())?.ok_or_else(|| at(folder, MediaError::EmptyFolder))?;
            let labels = labels.map_or(Labels::None, |path| Labels::File(path.clone()));
            Ok(Found::Media(Listing { kind, files, labels, preprocess }))
        }
        (None, None, Some(_)) => {
            if let Some(labels) = labels {
                return Err(at(labels, MediaError::LabelsTwofold));
            }
            let (kind, files, labels) = classes(folder, &entries)?;
            Ok(Found::Media(Listing { kind, files, labels: Labels::Classes(labels), preprocess }))
        }
        (None, None, None) => match first(|role| role == Role::Other) {
            Some(other) => Err(at(other, MediaError::Unsupported)),
            None => Err(at(folder, MediaError::EmptyFolder)),
        },
    }
}

/// The files of class folders and their classes: the place of the folder's name among the sorted names.
///
/// One file of each class in turn, since many a step of calibration looks at the first samples alone.
fn classes(folder: &Path, entries: &[(PathBuf, Role)]) -> Result<(MediaKind, Vec<PathBuf>, Vec<i64>), Error> {
    let mut first: Option<(MediaKind, String)> = None;
    let mut all = Vec::new();
    for (class, (path, role)) in entries.iter().filter(|(_, role)| *role != Role::Description).enumerate() {
        if *role != Role::Folder {
            return Err(at(path, MediaError::Unsupported));
        }
        // A class without files keeps its place.
        let Some((kind, files)) = samples(path, self::entries(path)?.iter())? else { continue };
        let other = format!("{}/{}", name(path), files.first().map(|path| name(path)).unwrap_or_default());
        match &first {
            Some((one_kind, one)) if *one_kind != kind => {
                return Err(at(folder, MediaError::Mixed { one: one.clone(), other }));
            }
            Some(_) => {}
            None => first = Some((kind, other)),
        }
        all.extend(files.into_iter().enumerate().map(|(turn, path)| (turn, class, path)));
    }
    let (kind, _) = first.ok_or_else(|| at(folder, MediaError::EmptyFolder))?;
    all.sort();
    let labels = all.iter().map(|(_, class, _)| *class as i64).collect();
    Ok((kind, all.into_iter().map(|(_, _, path)| path).collect(), labels))
}

/// The samples among the entries of one folder, all of one kind; `None` if there are none.
fn samples<'e>(
    folder: &Path,
    entries: impl Iterator<Item = &'e (PathBuf, Role)>,
) -> Result<Option<(MediaKind, Vec<PathBuf>)>, Error> {
    let mut kind = None;
    let mut files: Vec<PathBuf> = Vec::new();
    for (path, role) in entries {
        match role {
            Role::Sample(found) => {
                if *kind.get_or_insert(*found) != *found {
                    let one = files.first().map(|path| name(path)).unwrap_or_default();
                    return Err(at(folder, MediaError::Mixed { one, other: name(path) }));
                }
                files.push(path.clone());
            }
            Role::Description | Role::Labels => {}
            Role::Array | Role::Folder | Role::Other => return Err(at(path, MediaError::Unsupported)),
        }
    }
    Ok(kind.map(|kind| (kind, files)))
}

/// The entries of a folder, sorted, without hidden ones.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, Role)>, Error> {
    let failed = |error| Error { file: folder.display().to_string(), kind: ErrorKind::Read(error) };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !name(&path).starts_with('.') {
            let role = role(&path);
            entries.push((path, role));
        }
    }
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(entries)
}

fn role(path: &Path) -> Role {
    if path.is_dir() {
        return Role::Folder;
    }
    match name(path).as_str() {
        DESCRIPTION => return Role::Description,
        LABELS => return Role::Labels,
        _ => {}
    }
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("npy") => Role::Array,
        Some("png" | "jpg" | "jpeg") => Role::Sample(MediaKind::Image),
        Some("wav") => Role::Sample(MediaKind::Audio),
        _ => Role::Other,
    }
}

/// The last part of a path.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
