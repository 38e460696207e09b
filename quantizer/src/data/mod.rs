//! Samples from `.npz` and `.npy` files, streamed: memory does not grow with their number.
//!
//! Three forms are read:
//!
//! - an `.npz` archive (stored or deflated) with array `x`, or one array per graph input named like the input, and
//!   optionally labels `y`;
//! - a single `.npy` array;
//! - a folder of `.npy` files, one sample each, in the order of their names, and optionally `labels.npy` or `y.npy`.
//!
//! Samples are float32, float64 (rounded to the nearest f32) or float16 (exact), finite, in C order: `[N, sample...]`
//! where `sample` is the graph input's shape without its batch axis. Labels are integers, one per sample.

mod batches;
mod error;
mod npy;
mod source;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use batches::Batches;
pub use error::{Error, ErrorKind};

use crate::graph::shape::{ShapeError, infer_partial};
use crate::graph::{DataType, Dim, Graph};
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
    /// For each graph input, the samples' elements one after the other: `[count, shape of one sample]`, row-major.
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
        let inputs = inputs(graph).map_err(|kind| Error { file: path.display().to_string(), kind })?;
        let (source, labels) = Source::open(path, inputs)?;
        Ok(Self { path: path.to_owned(), len: source.len, source: Arc::new(source), labels })
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

    /// The labels (array `y`), one per sample, if the file has them.
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
}

impl Input {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

fn inputs(graph: &Graph) -> Result<Vec<Input>, ErrorKind> {
    let shapes = infer_partial(graph, 1);
    let mut inputs = Vec::new();
    for input in &graph.inputs {
        if input.dtype != DataType::F32 {
            return Err(ErrorKind::InputType { input: input.name.clone(), dtype: input.dtype });
        }
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
        inputs.push(Input { name: input.name.clone(), shape: shape.to_vec() });
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests;
