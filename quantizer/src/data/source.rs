//! The files behind samples: opened and checked once, then read from front to back.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use npyz::npz::{array_name_from_file_name, file_name_from_array_name};
use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

use super::batches::Emit;
use super::media::{self, Found, Listing, Media, MediaError};
use super::npy::{Elements, Header};
use super::{Batch, Error, ErrorKind, Input};

/// Name of the array that feeds a model with one input.
const SAMPLES: &str = "x";
/// Name of the array of labels.
const LABELS: &str = "y";
/// Names of label files in a folder.
const LABEL_FILES: [&str; 2] = ["labels.npy", "y.npy"];

type Archive = ZipArchive<BufReader<File>>;

/// Where samples come from.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    form: Form,
    inputs: Vec<Input>,
    pub(super) len: usize,
}

#[derive(Debug)]
enum Form {
    /// Names of the arrays, one per graph input.
    Npz(Vec<String>),
    Npy,
    /// The arrays, one per sample.
    Folder(Vec<PathBuf>),
    /// Images or WAV files.
    Media(Media),
    /// What has been read or computed, for each input.
    Memory(Vec<Vec<f32>>),
}

/// The array of an archive that feeds each input, of the arrays there are.
fn arrays(inputs: &[Input], found: &[String]) -> Result<Vec<String>, ErrorKind> {
    let name = |input: &Input| {
        let array = match inputs {
            [_] if found.iter().any(|name| name == SAMPLES) => SAMPLES,
            [only] if !found.contains(&only.name) => SAMPLES,
            _ => &input.name,
        };
        if found.iter().any(|name| name == array) {
            return Ok(array.to_owned());
        }
        let found = if found.is_empty() { "no arrays".to_owned() } else { found.join(", ") };
        Err(match inputs {
            [_] => ErrorKind::Missing { array: array.to_owned(), found },
            _ => ErrorKind::MissingInput { input: array.to_owned(), found },
        })
    };
    inputs.iter().map(name).collect()
}

/// The number of steps in each sequence of a sample file: the second axis of the array of the first input.
pub(super) fn steps(path: &Path, inputs: &[Input]) -> Result<usize, ErrorKind> {
    let input = inputs.first().ok_or_else(|| input_count(inputs))?;
    if path.is_dir() {
        return Err(ErrorKind::SequencesInFolder);
    }
    let (array, header) = match archive(path) {
        Ok(mut archive) => {
            let array = arrays(inputs, &names(&archive))?.swap_remove(0);
            let header = entry(&mut archive, &array)?.0;
            (array, header)
        }
        Err(ErrorKind::Read(error)) => return Err(ErrorKind::Read(error)),
        Err(_) => (SAMPLES.to_owned(), file(path, SAMPLES)?.0),
    };
    match header.shape.as_slice() {
        [_, steps, rest @ ..] if *steps > 0 && same(rest, &input.shape) => {
            usize::try_from(*steps).map_err(|_| ErrorKind::Changed)
        }
        _ => {
            let sizes: String = input.shape.iter().map(|size| format!(", {size}")).collect();
            let needed = format!("input `{}` needs [N, steps{sizes}]", input.name);
            Err(ErrorKind::Sequences { array, found: header.shape.clone(), needed })
        }
    }
}

/// The arrays of an archive.
fn names(archive: &Archive) -> Vec<String> {
    archive.file_names().filter_map(|n| array_name_from_file_name(&n.ok()?).map(str::to_owned)).collect()
}

impl Source {
    /// Opens and checks everything but the elements; gives the labels too.
    ///
    /// `preprocess` is a file that says how images or WAV files become samples, instead of the folder's own.
    pub(super) fn open(
        path: &Path,
        inputs: Vec<Input>,
        preprocess: Option<&Path>,
    ) -> Result<(Self, Option<Vec<i64>>), Error> {
        let at = |kind| at(path, kind);
        let metadata = std::fs::metadata(path).map_err(|error| at(ErrorKind::Read(error)))?;
        let described = match metadata.is_dir() {
            false => false,
            true => match media::look(path)? {
                Found::Media(listing) => return Self::open_media(path, inputs, listing, preprocess),
                Found::Arrays { described } => described,
            },
        };
        // What arrays hold is taken as it is; a description beside them is a mistake that would go unnoticed.
        if described || preprocess.is_some() {
            return Err(at(MediaError::DescriptionUnused.into()));
        }
        if metadata.is_dir() {
            return Self::open_folder(path, inputs);
        }
        let mut magic = Vec::new();
        let file = File::open(path).map_err(|error| at(ErrorKind::Read(error)))?;
        file.take(6).read_to_end(&mut magic).map_err(|error| at(ErrorKind::Read(error)))?;
        match &magic[..] {
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Self::open_npz(path, inputs).map_err(at),
            b"\x93NUMPY" => Self::open_npy(path, inputs).map(|source| (source, None)).map_err(at),
            _ => Err(at(ErrorKind::NotNumpy)),
        }
    }

    fn open_npz(path: &Path, inputs: Vec<Input>) -> Result<(Self, Option<Vec<i64>>), ErrorKind> {
        let mut archive = archive(path)?;
        let found = names(&archive);
        let arrays = arrays(&inputs, &found)?;
        let mut len = None;
        for (array, input) in arrays.iter().zip(&inputs) {
            let (header, _) = entry(&mut archive, array)?;
            header.elements(array, input)?;
            let count = count(array, &header, input)?;
            match len {
                None => len = Some(count),
                Some(expected) if expected != count => {
                    let other = arrays[0].clone();
                    return Err(ErrorKind::Count { array: array.clone(), found: count, other, expected });
                }
                Some(_) => {}
            }
        }
        let Some(len) = len else { return Err(input_count(&inputs)) };
        let labelled = found.iter().any(|name| name == LABELS) && !arrays.iter().any(|name| name == LABELS);
        let labels = match labelled {
            true => {
                let (header, mut reader) = entry(&mut archive, LABELS)?;
                Some(header.labels(LABELS, &mut reader, len)?)
            }
            false => None,
        };
        Ok((Self { path: path.to_owned(), form: Form::Npz(arrays), inputs, len }, labels))
    }

    fn open_npy(path: &Path, inputs: Vec<Input>) -> Result<Self, ErrorKind> {
        let [input] = &inputs[..] else { return Err(input_count(&inputs)) };
        let (header, _) = file(path, SAMPLES)?;
        header.elements(SAMPLES, input)?;
        let len = count(SAMPLES, &header, input)?;
        Ok(Self { path: path.to_owned(), form: Form::Npy, inputs, len })
    }

    fn open_media(
        path: &Path,
        inputs: Vec<Input>,
        listing: Listing,
        preprocess: Option<&Path>,
    ) -> Result<(Self, Option<Vec<i64>>), Error> {
        let [input] = &inputs[..] else { return Err(at(path, input_count(&inputs))) };
        if input.indices.is_some() {
            let reason = "it takes indices, which no image or recording gives; write an .npz of integers".to_owned();
            return Err(at(path, ErrorKind::InputType { input: input.name.clone(), reason }));
        }
        let (media, labels) = Media::open(path, listing, preprocess, input)?;
        let len = media.files.len();
        Ok((Self { path: path.to_owned(), form: Form::Media(media), inputs, len }, labels))
    }

    fn open_folder(path: &Path, inputs: Vec<Input>) -> Result<(Self, Option<Vec<i64>>), Error> {
        let at_folder = |kind| at(path, kind);
        let [input] = &inputs[..] else { return Err(at_folder(input_count(&inputs))) };
        let mut files = Vec::new();
        let mut labels = None;
        for item in std::fs::read_dir(path).map_err(|error| at_folder(ErrorKind::Read(error)))? {
            let item = item.map_err(|error| at_folder(ErrorKind::Read(error)))?.path();
            if item.extension().is_none_or(|extension| extension != "npy") {
                continue;
            }
            if LABEL_FILES.iter().any(|&name| item.file_name().is_some_and(|file| file == name)) {
                labels = labels.max(Some(item));
            } else {
                files.push(item);
            }
        }
        files.sort();
        if files.is_empty() {
            return Err(at_folder(ErrorKind::Empty { array: "*.npy".into() }));
        }
        for path in &files {
            sample_file(path, input).map_err(|kind| at(path, kind))?;
        }
        let labels = match labels {
            Some(path) => {
                let read = || {
                    let (header, mut reader) = file(&path, LABELS)?;
                    header.labels(LABELS, &mut reader, files.len())
                };
                Some(read().map_err(|kind| at(&path, kind))?)
            }
            None => None,
        };
        let len = files.len();
        Ok((Self { path: path.to_owned(), form: Form::Folder(files), inputs, len }, labels))
    }

    /// Samples that are in memory already.
    pub(super) fn memory(path: &Path, inputs: Vec<Vec<f32>>, len: usize) -> Self {
        Self { path: path.to_owned(), form: Form::Memory(inputs), inputs: Vec::new(), len }
    }

    /// Emits all samples, `size` at a time, until nobody wants more.
    pub(super) fn stream(&self, size: usize, emit: Emit<'_>) -> Result<(), Error> {
        let at_path = |kind| at(&self.path, kind);
        match &self.form {
            Form::Folder(files) => self.stream_files(files, size, emit, |path, index, input, values| {
                let (mut elements, mut reader) = sample_file(path, input)?;
                elements.read(&mut reader, index, 1, input.elements(), values)
            }),
            Form::Media(media) => self.stream_files(&media.files, size, emit, |path, index, input, values| {
                media.read(path, index, input, values)
            }),
            Form::Memory(inputs) => {
                for first in (0..self.len).step_by(size) {
                    let count = size.min(self.len - first);
                    let part = |all: &Vec<f32>| {
                        let elements = all.len() / self.len.max(1);
                        all[first * elements..(first + count) * elements].to_vec()
                    };
                    if !emit(Batch { first, count, inputs: inputs.iter().map(part).collect() }) {
                        break;
                    }
                }
                Ok(())
            }
            Form::Npy => {
                let (header, reader) = file(&self.path, SAMPLES).map_err(at_path)?;
                let array = self.array(SAMPLES, &header, Box::new(reader), 0).map_err(at_path)?;
                stream_arrays(&mut [array], self.len, size, emit).map_err(at_path)
            }
            Form::Npz(names) => {
                // An entry borrows its archive, so entries read side by side need one archive each.
                let mut archives: Vec<Archive> =
                    names.iter().map(|_| archive(&self.path)).collect::<Result<_, _>>().map_err(at_path)?;
                let mut arrays = Vec::new();
                for (i, (archive, name)) in archives.iter_mut().zip(names).enumerate() {
                    let (header, reader) = entry(archive, name).map_err(at_path)?;
                    arrays.push(self.array(name, &header, Box::new(reader), i).map_err(at_path)?);
                }
                stream_arrays(&mut arrays, self.len, size, emit).map_err(at_path)
            }
        }
    }

    /// Array of graph input `i`, checked again: the file may have been replaced since it was opened.
    fn array<'r>(
        &self,
        name: &str,
        header: &Header,
        reader: Box<dyn Read + 'r>,
        i: usize,
    ) -> Result<Array<'r>, ErrorKind> {
        let input = &self.inputs[i];
        if count(name, header, input)? != self.len {
            return Err(ErrorKind::Changed);
        }
        Ok(Array { name: name.to_owned(), reader, values: header.elements(name, input)?, elements: input.elements() })
    }

    /// Emits files with one sample each; `read` appends that of a file, given its index.
    fn stream_files(
        &self,
        files: &[PathBuf],
        size: usize,
        emit: Emit<'_>,
        read: impl Fn(&Path, usize, &Input, &mut Vec<f32>) -> Result<(), ErrorKind>,
    ) -> Result<(), Error> {
        let Some(input) = self.inputs.first() else { return Ok(()) };
        for (index, files) in files.chunks(size).enumerate() {
            let first = index * size;
            let mut values = Vec::with_capacity(files.len() * input.elements());
            for (i, path) in files.iter().enumerate() {
                read(path, first + i, input, &mut values).map_err(|kind| at(path, kind))?;
            }
            if !emit(Batch { first, count: files.len(), inputs: vec![values] }) {
                break;
            }
        }
        Ok(())
    }
}

/// An array being read.
pub(super) struct Array<'r> {
    pub(super) name: String,
    pub(super) reader: Box<dyn Read + 'r>,
    pub(super) values: Elements,
    /// Elements of one sample.
    pub(super) elements: usize,
}

/// Reads arrays side by side; never more than the batch that is emitted next.
pub(super) fn stream_arrays(
    arrays: &mut [Array<'_>],
    len: usize,
    size: usize,
    emit: Emit<'_>,
) -> Result<(), ErrorKind> {
    for first in (0..len).step_by(size) {
        let count = size.min(len - first);
        let mut inputs = Vec::with_capacity(arrays.len());
        for array in arrays.iter_mut() {
            let mut values = Vec::with_capacity(count * array.elements);
            array.values.read(&mut array.reader, first, count, array.elements, &mut values)?;
            if first + count == len {
                // Reading to the end lets the archive compare its checksum.
                let damaged =
                    |what: &dyn std::fmt::Display| ErrorKind::Damaged(format!("array `{}`: {what}", array.name));
                match array.reader.read(&mut [0]) {
                    Ok(0) => {}
                    Ok(_) => return Err(damaged(&"bytes after the last sample")),
                    Err(error) => return Err(damaged(&error)),
                }
            }
            inputs.push(values);
        }
        if !emit(Batch { first, count, inputs }) {
            break;
        }
    }
    Ok(())
}

fn at(path: &Path, kind: ErrorKind) -> Error {
    Error { file: path.display().to_string(), kind }
}

fn input_count(inputs: &[Input]) -> ErrorKind {
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    ErrorKind::InputCount { inputs: inputs.len(), names: names.join(", ") }
}

fn archive(path: &Path) -> Result<Archive, ErrorKind> {
    let file = File::open(path).map_err(ErrorKind::Read)?;
    ZipArchive::new(BufReader::new(file)).map_err(zip_error)
}

fn zip_error(error: ZipError) -> ErrorKind {
    match error {
        ZipError::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => ErrorKind::Read(error),
        other => ErrorKind::Damaged(other.to_string()),
    }
}

/// An array of an archive: its header, and the reader at its first element.
fn entry<'a>(archive: &'a mut Archive, array: &str) -> Result<(Header, ZipFile<'a, BufReader<File>>), ErrorKind> {
    let mut reader = archive.by_name(&file_name_from_array_name(array)).map_err(zip_error)?;
    let size = reader.size();
    Ok((Header::read(array, &mut reader, size)?, reader))
}

/// An array file: its header, and the reader at its first element.
fn file(path: &Path, array: &str) -> Result<(Header, BufReader<File>), ErrorKind> {
    let file = File::open(path).map_err(ErrorKind::Read)?;
    let size = file.metadata().map_err(ErrorKind::Read)?.len();
    let mut reader = BufReader::new(file);
    Ok((Header::read(array, &mut reader, size)?, reader))
}

/// A file with one sample, with or without a leading axis of one.
fn sample_file(path: &Path, input: &Input) -> Result<(Elements, BufReader<File>), ErrorKind> {
    let (header, reader) = file(path, SAMPLES)?;
    let elements = header.elements(SAMPLES, input)?;
    let shape = header.shape.strip_prefix(&[1]).filter(|rest| rest.len() == input.shape.len()).unwrap_or(&header.shape);
    if !same(shape, &input.shape) {
        return Err(ErrorKind::Shape {
            array: SAMPLES.into(),
            found: header.shape.clone(),
            input: input.name.clone(),
            needed: input.shape.clone(),
        });
    }
    Ok((elements, reader))
}

/// Number of samples in an array, if it fits the input.
fn count(array: &str, header: &Header, input: &Input) -> Result<usize, ErrorKind> {
    match header.shape.split_first() {
        Some((&0, _)) => Err(ErrorKind::Empty { array: array.to_owned() }),
        Some((&count, rest)) if same(rest, &input.shape) => usize::try_from(count).map_err(|_| ErrorKind::Changed),
        _ => Err(ErrorKind::Shape {
            array: array.to_owned(),
            found: header.shape.clone(),
            input: input.name.clone(),
            needed: input.shape.clone(),
        }),
    }
}

fn same(found: &[u64], needed: &[usize]) -> bool {
    found.len() == needed.len() && found.iter().zip(needed).all(|(&a, &b)| a == b as u64)
}
