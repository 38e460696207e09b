//! Samples from arrays, images and recordings, streamed: memory does not grow with their number.
//!
//! These forms are read:
//!
//! - an `.npz` archive (stored or deflated) with array `x`, or one array per graph input named like the input, and
//!   optionally labels `y`;
//! - a single `.npy` array;
//! - a folder of `.npy` files, one sample each, in the order of their names, and optionally `labels.npy` or `y.npy`;
//! - a folder of images (`.png`, `.jpg`, `.jpeg`) or of WAV files (`.wav`), one sample each, and a description of how they
//!   become samples.
//!
//! Arrays are float32, float64 (rounded to the nearest f32) or float16 (exact), finite, in C order: `[N, sample...]`
//! where `sample` is the graph input's shape without its batch axis. For an input of integers, which a model looks rows of
//! a table up by, they are integers of any width that name such rows. Labels are integers, one per sample.
//!
//! # Sequences
//!
//! A sample of a model that carries state ([`crate::graph::state`]) is a sequence: arrays are `[N, steps, sample...]`, one
//! for each input but those that are state, which is zero before the first step.
//!
//! # Images and recordings
//!
//! Files are taken in the order of their names. Labels come from a file `labels.csv` of lines `FILE,LABEL`, or from
//! folders: one for each class, numbered from 0 in the order of their names. From class folders one file of each class is
//! taken in turn, so that the first samples are of all classes. A file is decoded when its batch is read. Hidden files are
//! left alone; any other file is an error.
//!
//! The description is the file `preprocess.json` in the folder, or a file given instead of it. A field it does not know
//! is an error.
//!
//! ```json
//! {"kind": "image", "resize": {"width": 224, "height": 224, "fit": "cover-crop", "shorter": 256},
//!  "channels": "rgb", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "layout": "nchw"}
//! ```
//!
//! | field of an image | meaning | default |
//! | --- | --- | --- |
//! | `channels` | `rgb`, `bgr` or `gray` (luma of ITU-R BT.601) | `rgb` |
//! | `resize` | `width` and `height` in pixels, by the triangle filter of Pillow's `BILINEAR` | images have the model's size |
//! | `resize.fit` | `stretch`, or `cover-crop`: proportions kept, then the center | `stretch` |
//! | `resize.shorter` | length of the shorter side before the crop | the least that covers |
//! | `scale` | factor of pixels 0 … 255 | 1/255 |
//! | `mean`, `std` | `(scale × pixel − mean) / std` in float32: one number, or one for each channel of the sample | 0, 1 |
//! | `layout` | `nchw` or `nhwc` | `nchw` |
//!
//! Images have 8 bits a channel or fewer; palettes are resolved; transparency and orientation tags are left out of account,
//! as they are by Pillow. JPEG decoders differ by a few levels of 255.
//!
//! | field of a recording | meaning | default |
//! | --- | --- | --- |
//! | `sample_rate` | samples a second, which the file must have: there is no resampling | none |
//! | `samples` | the first so many, followed by zeros where the file is shorter | as many as the file has |
//! | `mono` | channels are averaged; otherwise they are the first axis | `true` |
//! | `scale` | factor of values in [−1, 1] | 1 |
//! | `frames` | pieces of `length` samples, each `hop` after the one before (at most `length`): `[frames, length]` | none |
//! | `shape` | of a sample, with the same number of elements | `[samples]` |
//!
//! The kind is `audio`. Files are PCM of 8, 16, 24 or 32 bits, or 32-bit float.
//!
//! A sample's shape is that of the graph input but for axes of one, or the input is a vector of as many elements.

mod batches;
mod error;
mod media;
mod npy;
mod source;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use batches::Batches;
pub use error::{Error, ErrorKind};
pub use media::{MediaError, MediaKind};

use crate::graph::shape::{ShapeError, infer_partial};
use crate::graph::{DataType, Dim, Graph, indices, state};
use source::Source;

/// A sample file that fits a model.
#[derive(Debug, Clone)]
pub struct Samples {
    path: PathBuf,
    source: Arc<Source>,
    /// Samples used: the first of the source.
    len: usize,
    labels: Option<Vec<i64>>,
}

/// Consecutive samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Index of the first sample.
    pub first: usize,
    /// Number of samples.
    pub count: usize,
    /// For each graph input, the samples' elements one after the other: `[count, shape of one sample]`, row-major. Indices
    /// are whole numbers here, all of which an f32 holds exactly.
    pub inputs: Vec<Vec<f32>>,
}

impl Batch {
    /// The first `count` samples, or all if there are fewer.
    fn head(mut self, count: usize) -> Self {
        if count < self.count {
            for input in &mut self.inputs {
                input.truncate(input.len() / self.count * count);
            }
            self.count = count;
        }
        self
    }
}

impl Samples {
    /// Opens a file and checks it against the inputs of `graph`: headers, lengths and labels. Elements are read, and
    /// checked to be finite, by [`Samples::batches`].
    ///
    /// # Errors
    ///
    /// See [`ErrorKind`].
    pub fn open(path: &Path, graph: &Graph) -> Result<Self, Error> {
        Self::open_with(path, graph, None)
    }

    /// As [`Samples::open`], for a folder of images or WAV files: `preprocess` is the file that says how these become
    /// samples, instead of `preprocess.json` in the folder. See the [module](self) for its form.
    ///
    /// # Errors
    ///
    /// See [`ErrorKind`]; a description is refused where the samples are arrays.
    pub fn open_with(path: &Path, graph: &Graph, preprocess: Option<&Path>) -> Result<Self, Error> {
        let at = |kind| Error { file: path.display().to_string(), kind };
        let mut inputs = inputs(graph).map_err(at)?;
        if state::is_streaming(graph) {
            let steps = source::steps(path, &inputs).map_err(at)?;
            inputs.iter_mut().for_each(|input| input.shape.insert(0, steps));
        }
        let (source, labels) = Source::open(path, inputs, preprocess)?;
        Ok(Self { path: path.to_owned(), len: source.len, source: Arc::new(source), labels })
    }

    /// `len` samples that are in memory, for each graph input, and that came from the file at `path`.
    pub(crate) fn of_memory(path: &Path, inputs: Vec<Vec<f32>>, len: usize) -> Self {
        Self { path: path.to_owned(), len, source: Arc::new(Source::memory(path, inputs, len)), labels: None }
    }

    /// The first `count` samples, or all if there are fewer.
    #[must_use]
    pub fn head(&self, count: usize) -> Self {
        let mut head = self.clone();
        head.len = self.len.min(count);
        if let Some(labels) = &mut head.labels {
            labels.truncate(head.len);
        }
        head
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none (never: an empty file is refused).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The labels, one per sample, if the file or folder has them.
    pub fn labels(&self) -> Option<&[i64]> {
        self.labels.as_deref()
    }

    /// The samples in order, at most `size` (at least 1) at a time. A thread of its own reads and decompresses, one
    /// batch ahead of what was asked for.
    ///
    /// # Errors
    ///
    /// The thread cannot be started; the iterator's items: the file cannot be read on, has changed, or a value is
    /// not finite. Nothing follows an error.
    pub fn batches(&self, size: usize) -> Result<Batches, Error> {
        let source = Arc::clone(&self.source);
        let mut left = self.len;
        let work = move |emit: batches::Emit<'_>| {
            source.stream(size.max(1), &mut |batch| {
                let batch = batch.head(left);
                left -= batch.count;
                emit(batch) && left > 0
            })
        };
        Batches::spawn(self.path.display().to_string(), self.len, work)
    }
}

/// A graph input and the shape of one sample of it.
#[derive(Debug, Clone)]
struct Input {
    name: String,
    shape: Vec<usize>,
    /// Lowest and highest index, for an input of indices.
    indices: Option<(i64, i64)>,
}

/// Largest magnitude of an index into what is not known: every integer up to there is an f32.
const ANY_INDEX: i64 = 1 << 24;

impl Input {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

fn inputs(graph: &Graph) -> Result<Vec<Input>, ErrorKind> {
    let shapes = infer_partial(graph, 1);
    let mut inputs = Vec::new();
    let given = state::given(graph).map_err(ErrorKind::InputShape)?;
    for input in given.into_iter().filter_map(|i| graph.inputs.get(i)) {
        let indices = match input.dtype {
            DataType::F32 => None,
            // A plan does not say to the host what its indices are looked up in; it checks them itself.
            _ => Some(
                indices::range(graph, &input.name)
                    .map_err(|reason| ErrorKind::InputType { input: input.name.clone(), reason })?
                    .unwrap_or((-ANY_INDEX, ANY_INDEX)),
            ),
        };
        let Some(kind) = shapes.types.get(&input.name) else {
            let about = |error: &&ShapeError| match error {
                ShapeError::Input { input: name, .. } | ShapeError::TooLarge { node: name, .. } => *name == input.name,
                ShapeError::Node { .. } => false,
            };
            let reason = shapes.errors.iter().find(about).map_or_else(|| input.name.clone(), ToString::to_string);
            return Err(ErrorKind::InputShape(reason));
        };
        // The first axis is the batch, except where a single axis of known size is the sample itself.
        let whole = matches!(input.shape.as_deref(), Some([Dim::Known(_)]));
        let shape = if whole { &kind.shape[..] } else { kind.shape.get(1..).unwrap_or(&[]) };
        inputs.push(Input { name: input.name.clone(), shape: shape.to_vec(), indices });
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests;
