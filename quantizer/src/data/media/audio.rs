//! WAV files as values in [−1, 1].

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use hound::{SampleFormat, WavReader};

use super::MediaError;
use super::preprocess::AudioPreprocess;
use crate::data::ErrorKind;

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) channels: usize,
    /// Samples of each channel.
    pub(super) samples: usize,
}

/// Reads the header, and refuses another sample rate than that of the description.
pub(super) fn header(path: &Path, description: &AudioPreprocess) -> Result<Header, ErrorKind> {
    open(path, description).map(|(_, header)| header)
}

/// Appends the sample of a file.
///
/// Integers of n bits are divided by 2^(n − 1). Channels are averaged before anything is rounded.
pub(super) fn read(path: &Path, description: &AudioPreprocess, values: &mut Vec<f32>) -> Result<(), ErrorKind> {
    let (mut reader, header) = open(path, description)?;
    let wanted = description.samples.unwrap_or(header.samples);
    let channels = if description.mono { 1 } else { header.channels };
    // One channel after the other; what the file does not fill stays zero.
    let mut wave = vec![0.0f32; channels * wanted];
    let spec = reader.spec();
    let count = wanted.min(header.samples) * header.channels;
    let mut sum = 0.0;
    let mut put = |(i, value): (usize, f64)| {
        let (sample, channel) = (i / header.channels, i % header.channels);
        let scale = f64::from(description.scale);
        if !description.mono {
            wave[channel * wanted + sample] = (value * scale) as f32;
            return;
        }
        sum = if channel == 0 { value } else { sum + value };
        if channel + 1 == header.channels {
            wave[sample] = (sum / header.channels as f64 * scale) as f32;
        }
    };
    match spec.sample_format {
        SampleFormat::Float => {
            for item in reader.samples::<f32>().take(count).enumerate() {
                put((item.0, f64::from(item.1.map_err(error)?)));
            }
        }
        SampleFormat::Int => {
            let full = f64::from(1u32 << (spec.bits_per_sample - 1));
            for item in reader.samples::<i32>().take(count).enumerate() {
                put((item.0, f64::from(item.1.map_err(error)?) / full));
            }
        }
    }
    match description.frames {
        None => values.extend(wave),
        Some(frames) => {
            for channel in wave.chunks_exact(wanted) {
                values.extend(channel.windows(frames.length).step_by(frames.hop).flatten());
            }
        }
    }
    Ok(())
}

fn open(path: &Path, description: &AudioPreprocess) -> Result<(WavReader<BufReader<File>>, Header), ErrorKind> {
    let file = File::open(path).map_err(ErrorKind::Read)?;
    let reader = WavReader::new(BufReader::new(file)).map_err(error)?;
    let spec = reader.spec();
    let known = match spec.sample_format {
        SampleFormat::Int => matches!(spec.bits_per_sample, 8 | 16 | 24 | 32),
        SampleFormat::Float => spec.bits_per_sample == 32,
    };
    if !known {
        let reason = format!("{} bits a sample", spec.bits_per_sample);
        return Err(MediaError::Audio(reason).into());
    }
    if spec.sample_rate != description.sample_rate {
        return Err(MediaError::SampleRate { found: spec.sample_rate, needed: description.sample_rate }.into());
    }
    let header = Header { channels: usize::from(spec.channels), samples: reader.duration() as usize };
    match header.samples {
        0 => Err(MediaError::Audio("it has no samples".into()).into()),
        _ => Ok((reader, header)),
    }
}

fn error(error: hound::Error) -> ErrorKind {
    match error {
        hound::Error::IoError(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            // The decoder reports a short read as an error without a cause.
            MediaError::Audio(error.to_string()).into()
        }
        hound::Error::IoError(_) => MediaError::Audio("it ends too early".into()).into(),
        other => MediaError::Audio(other.to_string()).into(),
    }
}
