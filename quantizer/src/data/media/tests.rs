use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::data::{Batch, Error, ErrorKind, MediaError, Samples};
use crate::graph::{DataType, Dim, Graph, ValueInfo};

mod descriptions;
mod folders;
mod images;
mod recordings;

/// A graph with one float input of samples of this shape.
fn graph(shape: &[usize]) -> Graph {
    let dims = std::iter::once(Dim::Symbol("N".into())).chain(shape.iter().map(|&size| Dim::Known(size)));
    let input = ValueInfo { name: "in".into(), dtype: DataType::F32, shape: Some(dims.collect()) };
    Graph { inputs: vec![input], ..Graph::default() }
}

/// A folder that holds these files; names may hold folders.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    folder
}

/// All samples of a folder, one vector each.
fn read(folder: &Path, shape: &[usize]) -> Result<Vec<Vec<f32>>, Error> {
    let batches: Vec<Batch> = Samples::open(folder, &graph(shape))?.batches(2)?.collect::<Result<_, _>>()?;
    let sample = |batch: Batch| {
        let len = batch.inputs[0].len() / batch.count;
        batch.inputs[0].chunks(len).map(<[f32]>::to_vec).collect::<Vec<_>>()
    };
    Ok(batches.into_iter().flat_map(sample).collect())
}

/// The sample of one file with a description.
fn sample(file: (&str, &[u8]), description: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
    let folder = folder(&[file, ("preprocess.json", description.as_bytes())]);
    read(folder.path(), shape).map(|samples| samples.into_iter().next().unwrap())
}

/// The error for a folder, which must name `file` and be one of `kind`.
#[track_caller]
fn refused(result: Result<impl std::fmt::Debug, Error>, file: &str, kind: fn(&MediaError) -> bool) -> String {
    let error = result.expect_err("refused");
    assert!(error.file.ends_with(file), "{error}");
    let ErrorKind::Media(media) = &error.kind else { panic!("{error:?}") };
    assert!(kind(media), "{error:?}");
    error.to_string()
}

/// A PNG file of 8 bits a channel.
fn png(width: usize, height: usize, color: png::ColorType, pixels: &[u8]) -> Vec<u8> {
    png_with(width, height, color, png::BitDepth::Eight, pixels, |_| ())
}

fn png_with(
    width: usize,
    height: usize,
    color: png::ColorType,
    depth: png::BitDepth,
    pixels: &[u8],
    set: impl FnOnce(&mut png::Encoder<'_, &mut Vec<u8>>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(color);
    encoder.set_depth(depth);
    set(&mut encoder);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(pixels).unwrap();
    writer.finish().unwrap();
    bytes
}

/// A gray PNG file.
fn gray(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
    png(width, height, png::ColorType::Grayscale, pixels)
}

/// A WAV file of 16 bits; channels side by side.
fn wav(channels: u16, rate: u32, values: &[i16]) -> Vec<u8> {
    let spec =
        hound::WavSpec { channels, sample_rate: rate, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    wav_with(spec, values)
}

fn wav_with<S: hound::Sample + Copy>(spec: hound::WavSpec, values: &[S]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
    for &value in values {
        writer.write_sample(value).unwrap();
    }
    writer.finalize().unwrap();
    bytes.into_inner()
}

/// A committed file.
fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

/// Paths as text, relative to a folder.
fn relative(files: &[PathBuf], folder: &Path) -> Vec<String> {
    files.iter().map(|path| path.strip_prefix(folder).unwrap().display().to_string()).collect()
}
