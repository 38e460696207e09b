//! Images resized by a triangle filter, and the crop that keeps proportions.
//!
//! The filter is that of Pillow's `Image.resize` with `BILINEAR`, which torchvision and most training code use: two
//! passes, first along rows, then along columns; where an image shrinks the triangle widens with the factor, so that every
//! pixel counts; weights have 22 fractional bits, and each pass rounds to 8 bits. Results are equal bit for bit to those of
//! Pillow 12 and earlier. Pillow 13 takes some passes in the other order, which moves pixels by one level.

use super::MediaError;
use super::image::Pixels;
use super::preprocess::MAX_PIXELS;

/// Fractional bits of weights: 32, less 8 for pixels, a sign, and sums slightly above one.
const FRACTION: u32 = 22;

/// A size to resize to, and the part of it that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crop {
    /// Width and height to resize to.
    size: (usize, usize),
    /// The first column and row kept.
    start: (usize, usize),
    /// Columns and rows kept.
    kept: (usize, usize),
}

impl Crop {
    /// All of an image resized to this size.
    pub(super) fn whole(width: usize, height: usize) -> Self {
        Self { size: (width, height), start: (0, 0), kept: (width, height) }
    }

    /// The center, of size `to`, of an image of size `from` whose shorter side becomes `shorter` or, without it, as long
    /// as is needed to cover `to`. Rounding is that of torchvision's `Resize` and `CenterCrop`.
    pub(super) fn center(from: (usize, usize), to: (usize, usize), shorter: Option<usize>) -> Self {
        let (width, height) = (from.0.max(1) as u128, from.1.max(1) as u128);
        let side = |value: u128| usize::try_from(value).unwrap_or(usize::MAX);
        // The side that decides, and the other one in proportion.
        let by_width = |to_width: usize| (to_width, side(to_width as u128 * height / width));
        let by_height = |to_height: usize| (side(to_height as u128 * width / height), to_height);
        let (new_width, new_height) = match shorter {
            Some(shorter) if width <= height => by_width(shorter),
            Some(shorter) => by_height(shorter),
            None if to.0 as u128 * height >= to.1 as u128 * width => by_width(to.0),
            None => by_height(to.1),
        };
        let size = (new_width.max(to.0), new_height.max(to.1));
        let start = (half(size.0 - to.0), half(size.1 - to.1));
        Self { size, start, kept: to }
    }
}

/// Half of a number, to the nearest even integer.
fn half(value: usize) -> usize {
    let half = value / 2;
    half + (value % 2) * (half % 2)
}

/// Resizes and crops.
pub(super) fn resize(pixels: &Pixels, crop: &Crop) -> Result<Pixels, MediaError> {
    let (width, height) = crop.size;
    // After the first pass an image has the new width and the old height.
    for rows in [height, pixels.height] {
        if width.checked_mul(rows).is_none_or(|pixels| pixels > MAX_PIXELS) {
            return Err(MediaError::TooLarge { width, height: rows });
        }
    }
    let channels = pixels.channels;
    let columns = taps(pixels.width, width, crop.start.0, crop.kept.0);
    let rows = taps(pixels.height, height, crop.start.1, crop.kept.1);
    let mut narrow = Vec::with_capacity(crop.kept.0 * pixels.height * channels);
    for row in pixels.data.chunks_exact(pixels.width * channels) {
        for taps in &columns {
            for channel in 0..channels {
                narrow.push(taps.apply(row, channels, channel));
            }
        }
    }
    let stride = crop.kept.0 * channels;
    let mut data = Vec::with_capacity(stride * crop.kept.1);
    for taps in &rows {
        for column in 0..stride {
            data.push(taps.apply(&narrow, stride, column));
        }
    }
    Ok(Pixels { width: crop.kept.0, height: crop.kept.1, channels, data })
}

/// The inputs of one output, and their weights.
#[derive(Debug)]
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

impl Taps {
    /// The weighted sum of elements `offset`, `offset + stride`, …, rounded half up.
    fn apply(&self, values: &[u8], stride: usize, offset: usize) -> u8 {
        let inputs = values.iter().skip(self.first * stride + offset).step_by(stride);
        let sum: i32 = inputs.zip(&self.weights).map(|(&value, &weight)| i32::from(value) * weight).sum();
        ((sum + (1 << (FRACTION - 1))) >> FRACTION).clamp(0, 255) as u8
    }
}

/// The taps of outputs `start..start + kept` when `from` inputs become `to` outputs.
fn taps(from: usize, to: usize, start: usize, kept: usize) -> Vec<Taps> {
    let step = from as f64 / to as f64;
    let reach = step.max(1.0);
    let inverse = 1.0 / reach;
    let of = |output: usize| {
        let center = (output as f64 + 0.5) * step;
        let first = (center - reach + 0.5).max(0.0) as usize;
        let end = ((center + reach + 0.5) as usize).min(from);
        let weight = |input: usize| (1.0 - ((input as f64 - center + 0.5) * inverse).abs()).max(0.0);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: &f64| (0.5 + weight / sum * f64::from(1 << FRACTION)) as i32;
        Taps { first, weights: weights.iter().map(fixed).collect() }
    };
    (start..start + kept).map(of).collect()
}
