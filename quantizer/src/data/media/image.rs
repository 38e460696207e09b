//! PNG and JPEG files as 8-bit pixels.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use png::{BitDepth, ColorType, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::MediaError;
use super::preprocess::MAX_PIXELS;
use crate::data::ErrorKind;

/// An image, row after row, the channels of a pixel side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pixels {
    pub(super) width: usize,
    pub(super) height: usize,
    /// 1 for gray, 3 for red, green, blue.
    pub(super) channels: usize,
    pub(super) data: Vec<u8>,
}

impl Pixels {
    /// Colors to gray by the luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, in integers of 16 bits.
    pub(super) fn into_gray(self) -> Self {
        if self.channels != 3 {
            return self;
        }
        let luma = |pixel: &[u8; 3]| {
            let [r, g, b] = pixel.map(u32::from);
            ((19595 * r + 38470 * g + 7471 * b + 32768) >> 16) as u8
        };
        let data = self.data.as_chunks::<3>().0.iter().map(luma).collect();
        Self { channels: 1, data, ..self }
    }

    /// Gray to three equal channels.
    pub(super) fn into_rgb(self) -> Self {
        if self.channels != 1 {
            return self;
        }
        let data = self.data.iter().flat_map(|&gray| [gray; 3]).collect();
        Self { channels: 3, data, ..self }
    }
}

/// Width and height, by the file's header.
pub(super) fn size(path: &Path) -> Result<(usize, usize), ErrorKind> {
    let mut file = open(path)?;
    let size = match is_png(&mut file)? {
        true => {
            let mut decoder = png::Decoder::new(file);
            let info = decoder.read_header_info().map_err(png_error)?;
            check_png(info)?
        }
        false => check_jpeg(&mut jpeg(file)?)?,
    };
    Ok(size)
}

/// All pixels. Transparency and orientation tags are left out of account.
pub(super) fn decode(path: &Path) -> Result<Pixels, ErrorKind> {
    let mut file = open(path)?;
    match is_png(&mut file)? {
        true => decode_png(file),
        false => decode_jpeg(path),
    }
}

fn open(path: &Path) -> Result<BufReader<File>, ErrorKind> {
    Ok(BufReader::new(File::open(path).map_err(ErrorKind::Read)?))
}

/// By its first bytes: names often lie.
fn is_png(file: &mut BufReader<File>) -> Result<bool, ErrorKind> {
    Ok(file.fill_buf().map_err(ErrorKind::Read)?.starts_with(b"\x89PNG"))
}

fn decode_png(file: BufReader<File>) -> Result<Pixels, ErrorKind> {
    let mut decoder = png::Decoder::new_with_limits(file, png::Limits { bytes: 4 * MAX_PIXELS });
    // Palettes become colors, and 1, 2 and 4 bits become 8.
    decoder.set_transformations(Transformations::EXPAND);
    let (width, height) = check_png(decoder.read_header_info().map_err(png_error)?)?;
    let mut reader = decoder.read_info().map_err(png_error)?;
    let len = reader.output_buffer_size().ok_or(MediaError::TooLarge { width, height })?;
    let mut data = vec![0; len];
    let info = reader.next_frame(&mut data).map_err(png_error)?;
    // To the end, so that a file without one is noticed.
    reader.finish().map_err(png_error)?;
    data.truncate(info.buffer_size());
    let (channels, samples) = match info.color_type {
        ColorType::Grayscale => (1, 1),
        ColorType::GrayscaleAlpha => (1, 2),
        ColorType::Rgb => (3, 3),
        ColorType::Rgba => (3, 4),
        ColorType::Indexed => return Err(MediaError::Colors("of a palette".into()).into()),
    };
    if samples > channels {
        data = data.chunks_exact(samples).flat_map(|pixel| pixel.iter().take(channels).copied()).collect();
    }
    checked(Pixels { width, height, channels, data })
}

fn check_png(info: &png::Info<'_>) -> Result<(usize, usize), MediaError> {
    if info.bit_depth == BitDepth::Sixteen {
        return Err(MediaError::Depth);
    }
    check_size(info.width as usize, info.height as usize)
}

fn decode_jpeg(path: &Path) -> Result<Pixels, ErrorKind> {
    let mut decoder = jpeg(open(path)?)?;
    let (width, height) = check_jpeg(&mut decoder)?;
    let gray = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let color = if gray { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(color));
    let data = decoder.decode().map_err(|error| MediaError::Image(error.to_string()))?;
    if !ends(path)? {
        return Err(MediaError::Image("it has no end".into()).into());
    }
    checked(Pixels { width, height, channels: if gray { 1 } else { 3 }, data })
}

/// A decoder that refuses what is missing instead of filling it with gray.
fn jpeg(file: BufReader<File>) -> Result<JpegDecoder<BufReader<File>>, MediaError> {
    let mut decoder = JpegDecoder::new_with_options(file, DecoderOptions::default().set_strict_mode(true));
    decoder.decode_headers().map_err(|error| MediaError::Image(error.to_string()))?;
    Ok(decoder)
}

fn check_jpeg(decoder: &mut JpegDecoder<BufReader<File>>) -> Result<(usize, usize), MediaError> {
    match decoder.input_colorspace() {
        Some(ColorSpace::Luma | ColorSpace::YCbCr | ColorSpace::RGB) => {}
        other => return Err(MediaError::Colors(other.map_or("unknown".into(), |color| format!("{color:?}")))),
    }
    let (width, height) = decoder.dimensions().unwrap_or_default();
    check_size(width, height)
}

/// Whether an end-of-image marker follows the last scan: the decoder does not miss the last few bytes.
fn ends(path: &Path) -> Result<bool, ErrorKind> {
    let bytes = std::fs::read(path).map_err(ErrorKind::Read)?;
    let scan = memchr::memmem::rfind(&bytes, b"\xff\xda").unwrap_or(0);
    Ok(memchr::memmem::rfind(&bytes, b"\xff\xd9").is_some_and(|end| end > scan))
}

fn check_size(width: usize, height: usize) -> Result<(usize, usize), MediaError> {
    match width.checked_mul(height) {
        Some(0) => Err(MediaError::Image("it has no pixels".into())),
        Some(pixels) if pixels <= MAX_PIXELS => Ok((width, height)),
        _ => Err(MediaError::TooLarge { width, height }),
    }
}

/// Decoders are trusted for the values, not for their number.
fn checked(pixels: Pixels) -> Result<Pixels, ErrorKind> {
    let needed = pixels.width * pixels.height * pixels.channels;
    match pixels.data.len() == needed {
        true => Ok(pixels),
        false => Err(MediaError::Image(format!("{} values instead of {needed}", pixels.data.len())).into()),
    }
}

fn png_error(error: png::DecodingError) -> ErrorKind {
    match error {
        png::DecodingError::IoError(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            ErrorKind::Read(error)
        }
        other => MediaError::Image(other.to_string()).into(),
    }
}
