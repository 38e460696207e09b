//! What can be wrong with a folder of images or WAV files.

use std::fmt;

use super::preprocess::MAX_PIXELS;

/// What the files of a folder are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// PNG and JPEG files.
    Image,
    /// WAV files.
    Audio,
}

impl fmt::Display for MediaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "images",
            Self::Audio => "WAV files",
        })
    }
}

/// What is wrong with a folder of images or WAV files, one of the files, or the description of how they become samples.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// A folder without samples.
    #[error("holds no samples: no .npy, .png, .jpg, .jpeg or .wav file, and no folders of such files")]
    EmptyFolder,
    /// Files of two kinds.
    #[error(
        "holds both `{one}` and `{other}`; give a folder with arrays, images or WAV files, not with several of them"
    )]
    Mixed {
        /// A file.
        one: String,
        /// A file of another kind.
        other: String,
    },
    /// Files beside folders.
    #[error(
        "holds the file `{file}` beside the folder `{folder}`; give files alone, or one folder of files for each class"
    )]
    FilesAndFolders {
        /// A file.
        file: String,
        /// A folder.
        folder: String,
    },
    /// A file of which no sample can be made.
    #[error("is no image (.png, .jpg, .jpeg) and no WAV file (.wav); convert it, or move it to another folder")]
    Unsupported,
    /// Nothing says how files become samples.
    #[error(
        "holds {kind}, and nothing says how they become the model's input; write a file `preprocess.json` there, or \
         give one with `--preprocess FILE`, with what was done in training, such as\n  {example}"
    )]
    NoDescription {
        /// What the folder holds.
        kind: MediaKind,
        /// A description for the model's input.
        example: String,
    },
    /// A description that is not JSON of the known form.
    #[error("is no preprocessing description: {reason}; it is JSON such as\n  {example}")]
    Description {
        /// What is wrong.
        reason: String,
        /// A description for the model's input.
        example: String,
    },
    /// A value that a description must not have.
    #[error("`{field}`: {reason}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong, and what to write.
        reason: String,
    },
    /// A description of another kind of files.
    #[error("describes {described}, and the folder holds {found}; give the description of these")]
    WrongKind {
        /// What it is about.
        described: MediaKind,
        /// What the folder holds.
        found: MediaKind,
    },
    /// A description, and samples that are arrays.
    #[error(
        "holds arrays, which are taken as they are; a preprocessing description is for folders of images or WAV files: \
         leave it out, or give it as `preprocess.json` in the folder it is meant for"
    )]
    DescriptionUnused,
    /// The samples do not fit the model.
    #[error("gives samples of shape {found:?}, and input `{input}` of the model needs {needed:?}; change {change}")]
    Shape {
        /// The shape of a sample.
        found: Vec<usize>,
        /// The graph input.
        input: String,
        /// Its shape without the batch axis.
        needed: Vec<usize>,
        /// The fields that decide on the shape.
        change: &'static str,
    },
    /// An image that cannot be decoded.
    #[error("is a truncated, damaged or unknown image: {0}; copy it, or save it as PNG, again")]
    Image(String),
    /// 16 bits a channel.
    #[error("has 16 bits a channel; save it with 8, as the model was trained")]
    Depth,
    /// CMYK and the like.
    #[error("has the colors {0}; save it as gray or RGB")]
    Colors(String),
    /// More pixels than are decoded.
    #[error("has, or is resized over, {width} x {height} pixels, more than {MAX_PIXELS}; make it smaller")]
    TooLarge {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// A WAV file that cannot be decoded.
    #[error("is a truncated, damaged or unknown WAV file: {0}; save it as 16-bit PCM again")]
    Audio(String),
    /// A sample rate other than the model's.
    #[error(
        "has {found} samples a second, and the description says {needed}; convert it, such as with \
         `sox IN.wav -r {needed} OUT.wav`"
    )]
    SampleRate {
        /// The file's.
        found: u32,
        /// The description's.
        needed: u32,
    },
    /// Less than one frame.
    #[error("has {samples} samples, and `frames` needs {length} for the first frame; leave it out, or set `samples`")]
    TooShort {
        /// Samples in the file.
        samples: usize,
        /// Samples of a frame.
        length: usize,
    },
    /// A float WAV file with a value that is no number.
    #[error("sample {sample} holds {value}, which is not a finite float32; repair or remove the file")]
    NotFinite {
        /// Index of the sample.
        sample: usize,
        /// The value.
        value: f32,
    },
    /// A line of `labels.csv` that is not `file,label`.
    #[error("line {line}: `{text}` is not `FILE,LABEL` with an integer label, such as `cat1.png,3`")]
    LabelLine {
        /// The line, from 1.
        line: usize,
        /// What it holds.
        text: String,
    },
    /// A label for a file that is not there.
    #[error("line {line}: the folder holds no sample `{file}`; write its name, without a path, or remove the line")]
    LabelOfNothing {
        /// The line, from 1.
        line: usize,
        /// The name.
        file: String,
    },
    /// Two labels for a file.
    #[error("line {line}: `{file}` has a label already; give each file one")]
    LabelTwice {
        /// The line, from 1.
        line: usize,
        /// The name.
        file: String,
    },
    /// A file without a label.
    #[error("has no line for `{0}`; give every file a label, or remove labels.csv")]
    NoLabel(String),
    /// Labels in a file and by folders.
    #[error("gives labels, and so do the folders beside it; remove it, or put all files into one folder")]
    LabelsTwofold,
}
