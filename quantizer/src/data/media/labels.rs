//! Labels of files: from `labels.csv`, or from the folders they lie in.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::files::name;
use super::{MediaError, at};
use crate::data::{Error, ErrorKind};

/// Where labels come from.
#[derive(Debug)]
pub(super) enum Labels {
    None,
    /// A file of lines `FILE,LABEL`.
    File(PathBuf),
    /// One for each file.
    Classes(Vec<i64>),
}

impl Labels {
    /// One label for each of the files, if there are labels.
    pub(super) fn read(self, files: &[PathBuf]) -> Result<Option<Vec<i64>>, Error> {
        match self {
            Self::None => Ok(None),
            Self::Classes(labels) => Ok(Some(labels)),
            Self::File(path) => {
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| Error { file: path.display().to_string(), kind: ErrorKind::Read(error) })?;
                parse(&text, files).map(Some).map_err(|error| at(&path, error))
            }
        }
    }
}

/// Lines `FILE,LABEL` in any order, perhaps below a line `file,label`. A name may hold commas and stand in quotes.
fn parse(text: &str, files: &[PathBuf]) -> Result<Vec<i64>, MediaError> {
    let mut labels: BTreeMap<String, Option<i64>> = files.iter().map(|path| (name(path), None)).collect();
    for (line, text) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let text = text.trim();
        if text.is_empty() || (line == 1 && text.eq_ignore_ascii_case("file,label")) {
            continue;
        }
        let split = text.rsplit_once(',').and_then(|(file, label)| Some((file.trim(), label.trim().parse().ok()?)));
        let Some((file, label)) = split else { return Err(MediaError::LabelLine { line, text: text.to_owned() }) };
        let file = file.strip_prefix('"').and_then(|file| file.strip_suffix('"')).unwrap_or(file).to_owned();
        match labels.get_mut(&file) {
            None => return Err(MediaError::LabelOfNothing { line, file }),
            Some(Some(_)) => return Err(MediaError::LabelTwice { line, file }),
            Some(slot) => *slot = Some(label),
        }
    }
    let label = |path: &PathBuf| {
        let name = name(path);
        labels.get(&name).copied().flatten().ok_or(MediaError::NoLabel(name))
    };
    files.iter().map(label).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn labels(text: &str) -> Result<Vec<i64>, String> {
        parse(text, &["d/a.png", "d/b, c.png"].map(PathBuf::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn one_line_for_each_file() {
        for text in [
            "a.png,1\nb, c.png,-2\n",
            "\u{feff}file,label\r\n\"b, c.png\",-2\r\n\r\na.png , 1",
            "File,Label\nb, c.png,-2\na.png,1",
        ] {
            assert_eq!(labels(text), Ok(vec![1, -2]), "{text:?}");
        }
    }

    #[test]
    fn refusals_name_the_line() {
        let refused = |text: &str, part: &str| {
            let error = labels(text).expect_err(text);
            assert!(error.contains(part), "{error}");
        };
        refused("file,label\na.png,cat\nb, c.png,2", "line 2: `a.png,cat` is not `FILE,LABEL`");
        refused("a.png", "line 1: `a.png` is not");
        refused("a.png,1\nx.png,2", "line 2: the folder holds no sample `x.png`");
        refused("a.png,1\na.png,1\nb, c.png,2", "line 2: `a.png` has a label already");
        refused("a.png,1", "no line for `b, c.png`");
        refused("a.png,9223372036854775808", "integer label");
    }

    #[test]
    fn a_file_that_is_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let path: &Path = &folder.path().join("labels.csv");
        std::fs::write(path, [0xff, 0xfe, 0x80]).unwrap();
        let error = Labels::File(path.to_owned()).read(&[]).unwrap_err();
        assert!(error.file.ends_with("labels.csv") && matches!(error.kind, ErrorKind::Read(_)), "{error}");
    }
}
