//! Folders of images or WAV files: what is in them, how it becomes samples, and whether these fit a model.

mod audio;
mod error;
mod files;
mod image;
mod labels;
mod preprocess;
mod resize;

use std::path::{Path, PathBuf};

pub use error::{MediaError, MediaKind};
pub(super) use files::{Found, Listing, look};

use super::{Error, ErrorKind, Input};
use preprocess::Preprocess;

/// Files of a folder, one sample each, that fit an input of a model.
#[derive(Debug)]
pub(super) struct Media {
    pub(super) files: Vec<PathBuf>,
    preprocess: Preprocess,
}

impl Media {
    /// Checks the files in `folder` against `input` by their headers, without decoding them; gives their labels, too.
    ///
    /// `description` is used instead of the folder's own.
    pub(super) fn open(
        folder: &Path,
        listing: Listing,
        description: Option<&Path>,
        input: &Input,
    ) -> Result<(Self, Option<Vec<i64>>), Error> {
        let Listing { kind, files, labels, preprocess } = listing;
        let Some(path) = description.or(preprocess.as_deref()) else {
            let example = preprocess::example(kind, &input.shape);
            return Err(at(folder, MediaError::NoDescription { kind, example }));
        };
        let preprocess = Preprocess::read(path, kind, &input.shape)?;
        if preprocess.kind() != kind {
            return Err(at(path, MediaError::WrongKind { described: preprocess.kind(), found: kind }));
        }
        let change = preprocess.deciding_fields();
        if let Some(shape) = preprocess.fixed_shape() {
            check(shape, input, change).map_err(|error| at(path, error))?;
        }
        for path in &files {
            shape(&preprocess, path)
                .and_then(|shape| Ok(check(shape, input, change)?))
                .map_err(|kind| Error { file: path.display().to_string(), kind })?;
        }
        let labels = labels.read(&files)?;
        Ok((Self { files, preprocess }, labels))
    }

    /// Decodes a file and appends its sample, number `index`, to `values`.
    pub(super) fn read(
        &self,
        path: &Path,
        index: usize,
        input: &Input,
        values: &mut Vec<f32>,
    ) -> Result<(), ErrorKind> {
        // The file may have been replaced since it was checked.
        if !fits(&shape(&self.preprocess, path)?, &input.shape) {
            return Err(ErrorKind::Changed);
        }
        let start = values.len();
        match &self.preprocess {
            Preprocess::Image(image) => image.values(image::decode(path)?, values)?,
            Preprocess::Audio(audio) => audio::read(path, audio, values)?,
        }
        let sample = &values[start..];
        if sample.len() != input.elements() {
            return Err(ErrorKind::Changed);
        }
        match sample.iter().find(|value| !value.is_finite()) {
            Some(&value) => Err(MediaError::NotFinite { sample: index, value }.into()),
            None => Ok(()),
        }
    }
}

/// The shape of the sample that a file gives, by its header.
fn shape(preprocess: &Preprocess, path: &Path) -> Result<Vec<usize>, ErrorKind> {
    match preprocess {
        Preprocess::Image(image) => {
            let (width, height) = image::size(path)?;
            Ok(image.shape(width, height))
        }
        Preprocess::Audio(audio) => {
            let header = audio::header(path, audio)?;
            Ok(audio.shape(header.channels, header.samples)?)
        }
    }
}

fn check(found: Vec<usize>, input: &Input, change: &'static str) -> Result<(), MediaError> {
    if fits(&found, &input.shape) {
        return Ok(());
    }
    Err(MediaError::Shape { found, input: input.name.clone(), needed: input.shape.clone(), change })
}

/// Whether shapes are the same but for axes of one, or the model takes a vector. Equal numbers of elements are not
/// enough: they would let a wrong layout pass.
fn fits(found: &[usize], needed: &[usize]) -> bool {
    let wide = |shape: &[usize]| shape.iter().copied().filter(|&size| size != 1).collect::<Vec<_>>();
    let (found, needed) = (wide(found), wide(needed));
    found == needed || (needed.len() <= 1 && found.iter().product::<usize>() == needed.iter().product::<usize>())
}

fn at(path: &Path, error: MediaError) -> Error {
    Error { file: path.display().to_string(), kind: error.into() }
}

#[cfg(test)]
mod tests;
