//! The description of how files become samples: its form, its defaults, and what it may say.

use std::path::Path;

use serde::Deserialize;

use super::error::MediaKind;
use super::image::Pixels;
use super::resize::{Crop, resize};
use super::{MediaError, at};
use crate::data::{Error, ErrorKind};

/// Most pixels of an image, before and after resizing: what is decoded at a time stays below a gigabyte.
pub(super) const MAX_PIXELS: usize = 1 << 26;

/// A description, by the kind of the files.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Preprocess {
    Image(ImagePreprocess),
    Audio(AudioPreprocess),
}

/// How an image becomes a sample: channels, resize, `(scale × pixel − mean) / std`, layout, in this order.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImagePreprocess {
    /// `None`: images have the model's size already.
    #[serde(default)]
    resize: Option<Resize>,
    #[serde(default)]
    channels: Channels,
    #[serde(default = "one_255th")]
    scale: f32,
    /// One for all channels, or one each; empty for zeros.
    #[serde(default)]
    mean: Vec<f32>,
    /// One for all channels, or one each; empty for ones.
    #[serde(default)]
    std: Vec<f32>,
    #[serde(default)]
    layout: Layout,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resize {
    width: usize,
    height: usize,
    #[serde(default)]
    fit: Fit,
    /// Length of the shorter side before the crop.
    #[serde(default)]
    shorter: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Fit {
    /// To the size, whatever that does to the proportions.
    #[default]
    Stretch,
    /// Proportions kept, to cover the size; then the center of it.
    CoverCrop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Channels {
    Gray,
    #[default]
    Rgb,
    Bgr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Layout {
    #[default]
    Nchw,
    Nhwc,
}

/// How a recording becomes a sample: channels, crop or zeros at the end, scale, frames, in this order.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AudioPreprocess {
    /// Samples a second, in the file as in the model.
    pub(super) sample_rate: u32,
    /// Samples taken, zeros where the file has fewer; `None` for as many as it has.
    #[serde(default)]
    pub(super) samples: Option<usize>,
    /// Whether channels are averaged.
    #[serde(default = "yes")]
    pub(super) mono: bool,
    /// Factor of values in [−1, 1].
    #[serde(default = "one")]
    pub(super) scale: f32,
    #[serde(default)]
    pub(super) frames: Option<Frames>,
    /// The shape of a sample, where it is not that of the samples or frames.
    #[serde(default)]
    shape: Option<Vec<usize>>,
}

/// Overlapping pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Frames {
    pub(super) length: usize,
    pub(super) hop: usize,
}

impl Frames {
    /// Whole frames in so many samples.
    pub(super) fn count(self, samples: usize) -> usize {
        samples.checked_sub(self.length).map_or(0, |rest| rest / self.hop.max(1) + 1)
    }
}

fn one_255th() -> f32 {
    1.0 / 255.0
}

fn one() -> f32 {
    1.0
}

fn yes() -> bool {
    true
}

impl Preprocess {
    /// Reads and checks a description. An example in errors is for files of `kind` and samples of shape `needed`.
    pub(super) fn read(path: &Path, kind: MediaKind, needed: &[usize]) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error { file: path.display().to_string(), kind: ErrorKind::Read(error) })?;
        let read: Self = serde_json::from_str(&text).map_err(|error| {
            at(path, MediaError::Description { reason: error.to_string(), example: example(kind, needed) })
        })?;
        match &read {
            Self::Image(image) => image.check(),
            Self::Audio(audio) => audio.check(),
        }
        .map_err(|(field, reason)| at(path, MediaError::Field { field, reason }))?;
        Ok(read)
    }

    pub(super) fn kind(&self) -> MediaKind {
        match self {
            Self::Image(_) => MediaKind::Image,
            Self::Audio(_) => MediaKind::Audio,
        }
    }

    /// The shape of every sample, if it does not depend on the file.
    pub(super) fn fixed_shape(&self) -> Option<Vec<usize>> {
        match self {
            Self::Image(image) => image.resize.map(|size| image.shape(size.width, size.height)),
            Self::Audio(audio) if audio.mono => audio.shape(1, audio.samples?).ok(),
            Self::Audio(_) => None,
        }
    }

    /// The fields that decide on the shape.
    pub(super) fn deciding_fields(&self) -> &'static str {
        match self {
            Self::Image(_) => "`resize`, `channels` or `layout`",
            Self::Audio(_) => "`samples`, `mono`, `frames` or `shape`",
        }
    }
}

/// A field and what is wrong with it.
type Wrong = (&'static str, String);

impl ImagePreprocess {
    fn check(&self) -> Result<(), Wrong> {
        if let Some(Resize { width, height, fit, shorter }) = self.resize {
            let pixels = width.saturating_mul(height);
            if pixels == 0 || pixels > MAX_PIXELS {
                let reason = format!(
                    "{width} x {height} pixels; give a width and a height of at least 1, and at most {MAX_PIXELS} pixels"
                );
                return Err(("resize", reason));
            }
            if let Some(shorter) = shorter {
                let least = width.max(height);
                if fit == Fit::Stretch {
                    return Err(("shorter", "is for \"fit\": \"cover-crop\"; leave it out, or set that".into()));
                }
                if !(least..=MAX_PIXELS).contains(&shorter) {
                    return Err((
                        "shorter",
                        format!("{shorter} does not cover {width} x {height}; give at least {least}"),
                    ));
                }
            }
        }
        let channels = self.channels.count();
        for (field, values) in [("mean", &self.mean), ("std", &self.std)] {
            if ![0, 1, channels].contains(&values.len()) {
                let reason = format!("{} numbers for {channels} channel(s); give one, or one for each", values.len());
                return Err((field, reason));
            }
        }
        if !self.std.iter().all(|&std| std > 0.0) {
            return Err(("std", "channels are divided by it; give numbers above 0".into()));
        }
        if self.scale == 0.0 {
            return Err(("scale", "is 0, which makes all samples the same; leave it out for 1/255".into()));
        }
        // Between the least and the greatest pixel everything is monotonic, so these two tell of all.
        let finite = |channel| self.table(channel)[0].is_finite() && self.table(channel)[255].is_finite();
        if !(0..channels).all(finite) {
            return Err(("scale", "with `mean` and `std`, leaves the range of float32; give smaller numbers".into()));
        }
        Ok(())
    }

    /// The shape of a sample from an image of this size.
    pub(super) fn shape(&self, width: usize, height: usize) -> Vec<usize> {
        let (width, height) = self.resize.map_or((width, height), |size| (size.width, size.height));
        match self.layout {
            Layout::Nchw => vec![self.channels.count(), height, width],
            Layout::Nhwc => vec![height, width, self.channels.count()],
        }
    }

    /// Appends the sample of an image.
    pub(super) fn values(&self, pixels: Pixels, values: &mut Vec<f32>) -> Result<(), MediaError> {
        let mut pixels = match self.channels {
            Channels::Gray => pixels.into_gray(),
            Channels::Rgb | Channels::Bgr => pixels.into_rgb(),
        };
        if let Some(size) = self.resize {
            pixels = resize(&pixels, &size.crop(pixels.width, pixels.height))?;
        }
        let channels = self.channels.count();
        let tables: Vec<_> = (0..channels).map(|channel| self.table(channel)).collect();
        let source = |channel: usize| if self.channels == Channels::Bgr { channels - 1 - channel } else { channel };
        let value = |pixel: &[u8], channel: usize| tables[channel][usize::from(pixel[source(channel)])];
        let all = || pixels.data.chunks_exact(channels);
        match self.layout {
            Layout::Nchw => (0..channels).for_each(|channel| values.extend(all().map(|pixel| value(pixel, channel)))),
            Layout::Nhwc => {
                for pixel in all() {
                    values.extend((0..channels).map(|channel| value(pixel, channel)));
                }
            }
        }
        Ok(())
    }

    /// What each pixel value of a channel becomes, computed in float32 step after step, as frameworks do. The default
    /// scale is a division by 255, which rounds once.
    fn table(&self, channel: usize) -> [f32; 256] {
        let of = |values: &[f32], default| match values {
            [] => default,
            [all] => *all,
            each => each.get(channel).copied().unwrap_or(default),
        };
        let (mean, std) = (of(&self.mean, 0.0), of(&self.std, 1.0));
        std::array::from_fn(|pixel| {
            let pixel = pixel as f32;
            let scaled = if self.scale == one_255th() { pixel / 255.0 } else { pixel * self.scale };
            (scaled - mean) / std
        })
    }
}

impl Channels {
    const fn count(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::Rgb | Self::Bgr => 3,
        }
    }
}

impl Resize {
    fn crop(&self, width: usize, height: usize) -> Crop {
        match self.fit {
            Fit::Stretch => Crop::whole(self.width, self.height),
            Fit::CoverCrop => Crop::center((width, height), (self.width, self.height), self.shorter),
        }
    }
}

impl AudioPreprocess {
    fn check(&self) -> Result<(), Wrong> {
        if self.sample_rate == 0 {
            return Err(("sample_rate", "is 0; give the samples a second of the recordings, such as 16000".into()));
        }
        if self.samples == Some(0) {
            return Err(("samples", "is 0; give the length of the model's input, or leave it out".into()));
        }
        if !self.scale.is_finite() || self.scale == 0.0 {
            return Err(("scale", "is no finite number other than 0; leave it out for values in [-1, 1]".into()));
        }
        if let Some(frames) = self.frames {
            // Frames without gaps keep what is read within twice the size of a sample.
            if frames.hop == 0 || frames.hop > frames.length {
                let Frames { length, hop } = frames;
                return Err(("frames", format!("`hop` is {hop}; give at least 1 and at most `length`, {length}")));
            }
            if let Some(samples) = self.samples.filter(|&samples| samples < frames.length) {
                return Err(("frames", format!("a frame has {} samples, and `samples` is {samples}", frames.length)));
            }
        }
        if let (Some(shape), Some(samples), true) = (&self.shape, self.samples, self.mono) {
            let elements = self.elements(1, samples);
            if product(shape) != elements {
                return Err(("shape", format!("{shape:?} does not hold the {elements} values of a sample")));
            }
        }
        Ok(())
    }

    /// The shape of a sample from a file with so many channels and samples.
    pub(super) fn shape(&self, channels: usize, samples: usize) -> Result<Vec<usize>, MediaError> {
        let samples = self.samples.unwrap_or(samples);
        let channels = if self.mono { 1 } else { channels };
        if let Some(frames) = self.frames.filter(|frames| samples < frames.length) {
            return Err(MediaError::TooShort { samples, length: frames.length });
        }
        let elements = self.elements(channels, samples);
        if let Some(shape) = self.shape.as_ref().filter(|shape| product(shape) == elements) {
            return Ok(shape.clone());
        }
        let mut shape = if self.mono { Vec::new() } else { vec![channels] };
        match self.frames {
            None => shape.push(samples),
            Some(frames) => shape.extend([frames.count(samples), frames.length]),
        }
        Ok(shape)
    }

    fn elements(&self, channels: usize, samples: usize) -> usize {
        let each = self.frames.map_or(samples, |frames| frames.count(samples).saturating_mul(frames.length));
        channels.saturating_mul(each)
    }
}

fn product(shape: &[usize]) -> usize {
    shape.iter().fold(1, |product, &size| product.saturating_mul(size))
}

/// A description of files of `kind` for samples of shape `needed`, to be adapted.
pub(super) fn example(kind: MediaKind, needed: &[usize]) -> String {
    match kind {
        MediaKind::Audio => {
            format!(r#"{{"kind": "audio", "sample_rate": 16000, "samples": {}}}"#, product(needed))
        }
        MediaKind::Image => {
            let (channels, height, width, layout) = match *needed {
                [channels @ (1 | 3), height, width] => (channels, height, width, "nchw"),
                [height, width, channels @ (1 | 3)] => (channels, height, width, "nhwc"),
                _ => (3, 224, 224, "nchw"),
            };
            let (channels, mean, std) = match channels {
                1 => ("gray", "0.5", "0.5"),
                _ => ("rgb", "0.485, 0.456, 0.406", "0.229, 0.224, 0.225"),
            };
            format!(
                r#"{{"kind": "image", "resize": {{"width": {width}, "height": {height}}}, "channels": "{channels}", "mean": [{mean}], "std": [{std}], "layout": "{layout}"}}"#
            )
        }
    }
}
