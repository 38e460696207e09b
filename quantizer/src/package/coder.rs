//! Single bits through a range coder, given the probability that they are one.

use std::borrow::Borrow;
use std::num::NonZeroU32;

use constriction::backends::Cursor;
use constriction::stream::model::{DecoderModel, EncoderModel, EntropyModel};
use constriction::stream::queue::{DefaultRangeDecoder, DefaultRangeEncoder};
use constriction::stream::{Decode as _, Encode as _};

use super::Error;

/// Probabilities are multiples of 2^−PRECISION.
pub(super) const PRECISION: usize = 16;
/// No bit is less probable than 2^−12, so that a bit that comes out as predicted costs at least [`LEAST_BITS`].
pub(super) const LEAST: u32 = 1 << (PRECISION - 12);
/// `−log2(1 − 2^−12)`, rounded down.
pub(super) const LEAST_BITS: f64 = 0.000_352;

/// Where bits go to, or come from.
pub(super) trait Coder {
    /// Codes one bit; `one` is the probability that it is set, in 2^−[`PRECISION`]. Encoders take `bit` and give it
    /// back, decoders give the next bit.
    fn code(&mut self, bit: bool, one: u32) -> Result<bool, Error>;
}

/// A bit that is set with a probability in 2^−[`PRECISION`], above 0 and below 1.
#[derive(Clone, Copy)]
struct Bernoulli(u32);

impl Bernoulli {
    fn new(one: u32) -> Self {
        Self(one.clamp(LEAST, (1 << PRECISION) - LEAST))
    }

    /// Left cumulative and probability.
    fn interval(self, bit: bool) -> (u32, NonZeroU32) {
        let (start, length) = if bit { (0, self.0) } else { (self.0, (1 << PRECISION) - self.0) };
        (start, NonZeroU32::new(length).unwrap_or(NonZeroU32::MIN))
    }
}

impl EntropyModel<PRECISION> for Bernoulli {
    type Symbol = bool;
    type Probability = u32;
}

impl EncoderModel<PRECISION> for Bernoulli {
    fn left_cumulative_and_probability(&self, bit: impl Borrow<bool>) -> Option<(u32, NonZeroU32)> {
        Some(self.interval(*bit.borrow()))
    }
}

impl DecoderModel<PRECISION> for Bernoulli {
    fn quantile_function(&self, quantile: u32) -> (bool, u32, NonZeroU32) {
        let bit = quantile < self.0;
        let (start, length) = self.interval(bit);
        (bit, start, length)
    }
}

/// Writes.
pub(super) struct Encoder(DefaultRangeEncoder);

impl Encoder {
    pub(super) fn new() -> Self {
        Self(DefaultRangeEncoder::new())
    }

    /// The coded words.
    pub(super) fn finish(self) -> Vec<u32> {
        match self.0.into_compressed() {
            Ok(words) => words,
            Err(never) => match never {},
        }
    }
}

impl Coder for Encoder {
    fn code(&mut self, bit: bool, one: u32) -> Result<bool, Error> {
        // Both bits have a probability, and a vector takes every word: this never fails.
        self.0.encode_symbol(bit, Bernoulli::new(one)).map_err(|_| Error::Corrupt)?;
        Ok(bit)
    }
}

/// Reads.
pub(super) struct Decoder(DefaultRangeDecoder);

impl Decoder {
    pub(super) fn new(words: Vec<u32>) -> Self {
        match DefaultRangeDecoder::with_backend(Cursor::new_at_write_beginning(words)) {
            Ok(decoder) => Self(decoder),
            Err(never) => match never {},
        }
    }

    /// Whether nothing but the end of the words is left.
    pub(super) fn is_exhausted(&self) -> bool {
        self.0.maybe_exhausted()
    }
}

impl Coder for Decoder {
    fn code(&mut self, _: bool, one: u32) -> Result<bool, Error> {
        self.0.decode_symbol(Bernoulli::new(one)).map_err(|_| Error::Corrupt)
    }
}

/// Counts the bits that an ideal coder would write.
#[derive(Default)]
pub(super) struct Estimate(pub(super) f64);

impl Coder for Estimate {
    fn code(&mut self, bit: bool, one: u32) -> Result<bool, Error> {
        let (_, length) = Bernoulli::new(one).interval(bit);
        self.0 += PRECISION as f64 - libm::log2(f64::from(length.get()));
        Ok(bit)
    }
}
