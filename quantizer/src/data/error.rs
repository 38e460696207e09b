//! What can be wrong with a sample file.

use super::media::MediaError;

/// An error with the file it concerns.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {kind}")]
pub struct Error {
    /// The file, as the caller named it.
    pub file: String,
    /// What happened.
    pub kind: ErrorKind,
}

/// What is wrong with a sample file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file cannot be opened or read.
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    /// Neither a zip archive nor a NumPy array.
    #[error(
        "is neither an .npz nor an .npy file; write one with `numpy.savez(file, x=samples)`, or give a folder of images \
         or WAV files"
    )]
    NotNumpy,
    /// The zip archive, or an entry of it, cannot be read.
    #[error("is truncated or damaged: {0}; copy it, or write it with `numpy.savez`, again")]
    Damaged(String),
    /// The header of an array cannot be read.
    #[error(
        "array `{array}` has no readable NumPy header: {reason}; write it with `numpy.save` or `numpy.savez` again"
    )]
    Header {
        /// The array.
        array: String,
        /// What the header lacks.
        reason: String,
    },
    /// An array holds fewer or more bytes than its header says.
    #[error(
        "array `{array}` is truncated or damaged: {found} bytes where its shape needs {needed}; copy or write the file again"
    )]
    Length {
        /// The array.
        array: String,
        /// Bytes that the shape asks for.
        needed: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// An array is not in the archive.
    #[error("has no array `{array}` (it holds: {found}); write it with `numpy.savez(file, {array}=samples)`")]
    Missing {
        /// The array looked for.
        array: String,
        /// The arrays there are.
        found: String,
    },
    /// One input of several has no array in the archive.
    #[error(
        "has no array `{input}` (it holds: {found}); write one for each input of the model, or, where an input is what an \
         output was in the run before, say so with `--state OUTPUT={input}`"
    )]
    MissingInput {
        /// The graph input.
        input: String,
        /// The arrays there are.
        found: String,
    },
    /// An array of Python objects.
    #[error(
        "array `{array}` holds Python objects, which are not read; convert it with `numpy.stack(list(a)).astype('float32')`"
    )]
    Objects {
        /// The array.
        array: String,
    },
    /// Samples that are not floats.
    #[error(
        "array `{array}` has dtype {dtype}, and samples are float32, float64 or float16; convert it exactly as for \
         training, such as `x.astype('float32') / 255`"
    )]
    SampleType {
        /// The array.
        array: String,
        /// Its dtype as NumPy writes it.
        dtype: String,
    },
    /// Labels that are not integers.
    #[error(
        "array `{array}` has dtype {dtype}, and labels are integers; convert it with `y.astype('int64')`, or leave it out"
    )]
    LabelType {
        /// The array.
        array: String,
        /// Its dtype as NumPy writes it.
        dtype: String,
    },
    /// A label outside the range of int64.
    #[error("array `{array}`: label {index} is {value}, beyond int64")]
    LabelRange {
        /// The array.
        array: String,
        /// Index of the sample.
        index: usize,
        /// The label.
        value: u64,
    },
    /// Column-major elements.
    #[error("array `{array}` is in Fortran order; write it with `numpy.ascontiguousarray(x)`")]
    FortranOrder {
        /// The array.
        array: String,
    },
    /// The shape does not fit the model.
    #[error("array `{array}` has shape {found:?}, and input `{input}` of the model needs {}", sample_shape(.needed))]
    Shape {
        /// The array.
        array: String,
        /// Its shape.
        found: Vec<u64>,
        /// The graph input it feeds.
        input: String,
        /// The shape of one sample.
        needed: Vec<usize>,
    },
    /// Samples that are no sequences, for a model that carries state.
    #[error(
        "array `{array}` has shape {found:?}, and the model carries state, so that its samples are sequences: {needed}"
    )]
    Sequences {
        /// The array.
        array: String,
        /// Its shape.
        found: Vec<u64>,
        /// The graph input it feeds, and the shape that this needs.
        needed: String,
    },
    /// A folder, for a model that carries state.
    #[error(
        "is a folder, and the samples of a model that carries state are sequences; write an .npz of [N, steps, ...]"
    )]
    SequencesInFolder,
    /// No samples at all.
    #[error("array `{array}` holds no samples; give at least one, and a few hundred for calibration")]
    Empty {
        /// The array (or the folder).
        array: String,
    },
    /// Arrays with different numbers of samples.
    #[error("array `{array}` has {found} samples and array `{other}` has {expected}; give every array the same number")]
    Count {
        /// The array.
        array: String,
        /// Its number of samples.
        found: usize,
        /// Another array.
        other: String,
        /// That array's number of samples.
        expected: usize,
    },
    /// Labels that are not one integer per sample.
    #[error(
        "array `{array}` has shape {found:?}, and there are {samples} samples; give one label per sample, or leave it out"
    )]
    LabelCount {
        /// The array.
        array: String,
        /// Its shape.
        found: Vec<u64>,
        /// Number of samples.
        samples: usize,
    },
    /// A value that is no finite f32.
    #[error(
        "array `{array}`: sample {sample} holds {value}, which is not a finite float32; remove or repair the sample"
    )]
    NotFinite {
        /// The array.
        array: String,
        /// Index of the sample.
        sample: usize,
        /// The value as stored.
        value: f64,
    },
    /// The model has an input that samples cannot be given for.
    #[error("input `{input}` of the model: {reason}")]
    InputType {
        /// The graph input.
        input: String,
        /// What it is.
        reason: String,
    },
    /// Indices that are not integers.
    #[error(
        "array `{array}` has dtype {dtype}, and input `{input}` of the model takes indices: integers, such as `x.astype('int64')`"
    )]
    IndexType {
        /// The array.
        array: String,
        /// Its dtype as NumPy writes it.
        dtype: String,
        /// The graph input it feeds.
        input: String,
    },
    /// An index beyond the table that the model looks it up in.
    #[error(
        "array `{array}`: sample {sample} holds index {value}, and the model looks up {low} to {high}; repair the sample, or \
         map what is unknown to a row that stands for it"
    )]
    Index {
        /// The array.
        array: String,
        /// Index of the sample.
        sample: usize,
        /// The index as stored.
        value: String,
        /// The lowest there is.
        low: i64,
        /// The highest there is.
        high: i64,
    },
    /// The shape of a sample is not known.
    #[error("the model's samples have no known shape: {0}")]
    InputShape(String),
    /// A file form that holds one array, and a model with several inputs (or none).
    #[error(
        "holds samples for one input, and the model has {inputs} ({names}); write an .npz with one array per input"
    )]
    InputCount {
        /// Number of graph inputs.
        inputs: usize,
        /// Their names.
        names: String,
    },
    /// A folder of images or WAV files, one of them, or the description of how they become samples.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The file was replaced by another while it was read.
    #[error("changed while it was being read; leave it alone until the command has finished")]
    Changed,
}

/// `[N, 1, 28, 28]` for samples of shape `[1, 28, 28]`.
fn sample_shape(shape: &[usize]) -> String {
    let dims: String = shape.iter().map(|dim| format!(", {dim}")).collect();
    format!("[N{dims}]")
}
