//! How the parameters of a record are written: words of variable length.

use super::ConstRef;

/// Words of a record, read front to back.
///
/// A word takes as many bytes as it needs: 7 bits in each, lowest first, the highest bit set in all but the last
/// (LEB128); signed words are folded first, so that small magnitudes have small codes: 0, -1, 1, -2, ... .
#[derive(Debug, Clone, Copy)]
pub struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    /// Bytes of the longest word.
    pub const LONGEST: usize = 5;

    /// Words over `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next word; `None` where the bytes end or hold more than 32 bits.
    pub fn next_word(&mut self) -> Option<u32> {
        let (&first, mut rest) = self.0.split_first()?;
        let (mut byte, mut shift) = (first, 0u32);
        let mut word = u32::from(first & 0x7F);
        while byte >= 0x80 {
            (byte, rest) = rest.split_first().map(|(&byte, rest)| (byte, rest))?;
            shift = shift.wrapping_add(7);
            if shift == 28 && byte > 0x0F {
                return None;
            }
            word |= u32::from(byte & 0x7F) << (shift & 31);
        }
        self.0 = rest;
        Some(word)
    }

    /// Whether every word has been read.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What has not been read.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Hands the bytes of a word to `sink`.
    #[cfg(feature = "build")]
    pub(crate) fn encode(mut word: u32, mut sink: impl FnMut(u8)) {
        while word >= 0x80 {
            sink(word as u8 | 0x80);
            word >>= 7;
        }
        sink(word as u8);
    }
}

/// What is written to a record's words: a field of a parameter struct, or the whole.
pub trait Field: Sized {
    /// Words that it takes.
    const WORDS: usize;
    /// Hands each word to `sink`.
    fn write(&self, sink: &mut dyn FnMut(u32));
    /// Reads it back from the next words; `None` if there are too few.
    fn take(words: &mut Words<'_>) -> Option<Self>;
}

impl Field for u32 {
    const WORDS: usize = 1;
    fn write(&self, sink: &mut dyn FnMut(u32)) {
        sink(*self);
    }
    fn take(words: &mut Words<'_>) -> Option<Self> {
        words.next_word()
    }
}

impl Field for i32 {
    const WORDS: usize = 1;
    fn write(&self, sink: &mut dyn FnMut(u32)) {
        sink(((*self << 1) ^ (*self >> 31)) as u32);
    }
    fn take(words: &mut Words<'_>) -> Option<Self> {
        words.next_word().map(|w| (w >> 1) as i32 ^ ((w & 1) as i32).wrapping_neg())
    }
}

impl Field for u64 {
    const WORDS: usize = 2;
    fn write(&self, sink: &mut dyn FnMut(u32)) {
        sink(*self as u32);
        sink((*self >> 32) as u32);
    }
    fn take(words: &mut Words<'_>) -> Option<Self> {
        let low = words.next_word()?;
        let high = words.next_word()?;
        Some(u64::from(low) | u64::from(high) << 32)
    }
}

impl Field for ConstRef {
    const WORDS: usize = 2;
    fn write(&self, sink: &mut dyn FnMut(u32)) {
        sink(self.offset);
        sink(self.len);
    }
    fn take(words: &mut Words<'_>) -> Option<Self> {
        Some(Self { offset: words.next_word()?, len: words.next_word()? })
    }
}

impl<T: Field + Copy + Default, const N: usize> Field for [T; N] {
    const WORDS: usize = N * T::WORDS;
    fn write(&self, sink: &mut dyn FnMut(u32)) {
        for field in self {
            field.write(sink);
        }
    }
    fn take(words: &mut Words<'_>) -> Option<Self> {
        let mut out = [T::default(); N];
        for field in &mut out {
            *field = T::take(words)?;
        }
        Some(out)
    }
}
