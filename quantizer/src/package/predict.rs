//! What the next bit will be: predictions of several contexts, mixed.
//!
//! Each byte is eight decisions from its highest bit down; a context holds one adaptive probability for each of the 255
//! places in that tree. Several contexts predict every bit, and a mixer weighs their log odds; it learns the weights
//! by gradient descent on the coding cost (M. Mahoney, "Adaptive Weighing of Context Models for Lossless Data
//! Compression", Florida Tech. CS-2005-16, 2005). All arithmetic is in integers, so decoders on any machine agree.

use super::coder::{Coder, LEAST, PRECISION};
use super::{Error, Kind};

/// Contexts at most for one bit.
const INPUTS: usize = 6;
/// Places in the tree of a byte's decisions, and one unused.
const TREE: usize = 256;
/// Contexts with a tree of their own; the others share hashed places.
const TREES: usize = 32;
/// Hashed places: 2^this.
const HASHED_BITS: u32 = 16;
/// Log odds are in units of 2^−8, within ±this.
const ODDS: i32 = 2047;
/// Mixing weights are in 2^−16; at first each context has a third.
const FIRST_WEIGHT: i32 = (1 << 16) / 3;
/// No input makes a weight larger.
const MOST_WEIGHT: i32 = 1 << 24;
/// Step of the mixer's descent.
const RATE: i64 = 24;

/// Trees by use.
mod tree {
    pub(super) const INT8_SECTION: usize = 0;
    pub(super) const INT8_ALL: usize = 1;
    /// By the magnitude of the two weights before: six.
    pub(super) const INT8_NEAR: usize = 2;
    pub(super) const INT4_SECTION: usize = 8;
    pub(super) const INT4_ALL: usize = 9;
    /// By the weight before: sixteen small trees.
    pub(super) const INT4_NEAR: usize = 10;
    /// By the place in a word: four.
    pub(super) const WORD_SECTION: usize = 11;
    pub(super) const WORD_ALL: usize = 15;
    pub(super) const BYTES: usize = 19;
}

/// An adaptive probability: 22 bits of it, and a count of the bits seen.
#[derive(Clone, Copy)]
struct Place(u32);

impl Place {
    const NEW: Self = Self(1 << 31);

    /// The probability of a one in 2^−12.
    fn one(self) -> usize {
        (self.0 >> 20) as usize
    }

    /// Moves towards `bit` by 1 / (n + 2) after n bits, as the estimator of Krichevsky and Trofimov does, but never by
    /// less than 1 / (limit + 2), so that it can follow.
    fn update(&mut self, bit: bool, limit: u32) {
        let (probability, count) = ((self.0 >> 10) as i32, self.0 & 1023);
        let target = if bit { (1 << 22) - 1 } else { 0 };
        let moved = probability + (target - probability) / (count as i32 + 2);
        self.0 = (moved as u32) << 10 | (count + 1).min(limit);
    }
}

/// The state of the model, the same in encoder and decoder: about 300 KiB.
pub(super) struct Predictor {
    /// Probability in 2^−16 of each log odds from −[`ODDS`] on.
    squash: Vec<u32>,
    /// Log odds of each probability in 2^−12.
    stretch: Vec<i32>,
    trees: Vec<Place>,
    hashed: Vec<Place>,
    weights: Vec<[i32; INPUTS]>,
    /// The bytes before, the last one lowest.
    history: u64,
    /// Bytes of the section so far.
    position: usize,
}

/// The contexts of one symbol.
type Contexts = [Option<Context>; INPUTS];

/// Where a context has its places.
#[derive(Clone, Copy)]
enum Context {
    /// A tree, from this place on.
    Tree(usize),
    /// Hashed places.
    Hash(u32),
}

impl Predictor {
    pub(super) fn new() -> Self {
        let probability = |odds: i32| 1.0 / (1.0 + libm::exp(-f64::from(odds) / 256.0));
        let squash = (-ODDS..=ODDS).map(|odds| (probability(odds) * f64::from(1u32 << PRECISION)) as u32);
        let stretch = (0..4096).map(|p| {
            let p = (f64::from(p) + 0.5) / 4096.0;
            (256.0 * libm::log(p / (1.0 - p))).clamp(-f64::from(ODDS), f64::from(ODDS)) as i32
        });
        Self {
            squash: squash.map(|p| p.clamp(LEAST, (1 << PRECISION) - LEAST)).collect(),
            stretch: stretch.collect(),
            trees: vec![Place::NEW; TREES * TREE],
            hashed: vec![Place::NEW; 1 << HASHED_BITS],
            weights: vec![[FIRST_WEIGHT; INPUTS]; Kind::ALL.len() * 8],
            history: 0,
            position: 0,
        }
    }

    /// Begins a section: what is learnt of one section alone is forgotten.
    pub(super) fn begin(&mut self, kind: Kind) {
        let forget = match kind {
            Kind::Int8 => tree::INT8_SECTION..tree::INT8_SECTION + 1,
            Kind::Int4 => tree::INT4_SECTION..tree::INT4_SECTION + 1,
            Kind::Words => tree::WORD_SECTION..tree::WORD_SECTION + 4,
            Kind::Bytes => 0..0,
        };
        self.trees[forget.start * TREE..forget.end * TREE].fill(Place::NEW);
        self.position = 0;
    }

    /// Codes a byte of a section.
    pub(super) fn byte<C: Coder>(&mut self, kind: Kind, byte: u8, coder: &mut C) -> Result<u8, Error> {
        let coded = match kind {
            Kind::Int4 => {
                let low = self.symbol(kind, 4, byte & 15, &int4_contexts((self.history >> 4) as u8 & 15), coder)?;
                let high = self.symbol(kind, 4, byte >> 4, &int4_contexts(low), coder)?;
                high << 4 | low
            }
            _ => self.symbol(kind, 8, byte, &self.contexts(kind), coder)?,
        };
        self.history = self.history << 8 | u64::from(coded);
        self.position += 1;
        Ok(coded)
    }

    /// The contexts of the next byte; those after the last one stay unused.
    fn contexts(&self, kind: Kind) -> Contexts {
        let tree = |index: usize| Context::Tree(index * TREE);
        let last = |bytes: u32| self.history & ((1 << (8 * bytes)) - 1);
        let place = self.position % 4;
        match kind {
            Kind::Int8 | Kind::Int4 => {
                let magnitude = |n: u32| u32::from(((self.history >> (8 * n)) as u8 as i8).unsigned_abs());
                let near = (magnitude(0) + magnitude(1)) >> 3;
                let bucket = (u32::BITS - near.leading_zeros()).min(5) as usize;
                contexts([tree(tree::INT8_SECTION), tree(tree::INT8_ALL), tree(tree::INT8_NEAR + bucket)])
            }
            Kind::Words => {
                // The byte before tells the sign, the one a word before what kind of number this is.
                let hash = |salt: u64, value: u64| hash(salt << 2 | place as u64, value);
                contexts([
                    tree(tree::WORD_SECTION + place),
                    tree(tree::WORD_ALL + place),
                    hash(1, last(1)),
                    hash(2, self.history >> 24 & 255),
                    hash(3, last(2)),
                ])
            }
            Kind::Bytes => contexts([
                tree(tree::BYTES),
                hash(16, last(1)),
                hash(17, last(2)),
                hash(18, last(3)),
                hash(19, last(4)),
                hash(20, last(6)),
            ]),
        }
    }

    /// Codes the lowest `bits` bits of `value`, highest first.
    fn symbol<C: Coder>(
        &mut self,
        kind: Kind,
        bits: u32,
        value: u8,
        contexts: &Contexts,
        coder: &mut C,
    ) -> Result<u8, Error> {
        // Weights of a layer follow one law; text and records change.
        let limit = if kind == Kind::Bytes { 127 } else { 1023 };
        let mut node = 1usize;
        for depth in 0..bits {
            let bit = value >> (bits - 1 - depth) & 1 != 0;
            let set = kind as usize * 8 + depth as usize;
            let mut odds = [0i32; INPUTS];
            for (odds, &context) in odds.iter_mut().zip(contexts.iter().flatten()) {
                let one = self.place(context, node).one();
                *odds = self.stretch[one];
            }
            let sum: i64 = odds.iter().zip(&self.weights[set]).map(|(&o, &w)| i64::from(o) * i64::from(w)).sum();
            let mixed = (sum >> 16).clamp(-i64::from(ODDS), i64::from(ODDS)) as i32;
            let one = self.squash[(mixed + ODDS) as usize];
            let bit = coder.code(bit, one)?;
            let error = (i32::from(bit) << PRECISION) - one as i32;
            for (weight, &odds) in self.weights[set].iter_mut().zip(&odds) {
                let step = ((i64::from(odds) * i64::from(error) * RATE) >> 20) as i32;
                *weight = (*weight + step).clamp(-MOST_WEIGHT, MOST_WEIGHT);
            }
            for &context in contexts.iter().flatten() {
                self.place(context, node).update(bit, limit);
            }
            node = node << 1 | usize::from(bit);
        }
        Ok((node & ((1 << bits) - 1)) as u8)
    }

    fn place(&mut self, context: Context, node: usize) -> &mut Place {
        match context {
            Context::Tree(start) => &mut self.trees[start + node],
            Context::Hash(context) => &mut self.hashed[(mix(context, node as u32) >> (32 - HASHED_BITS)) as usize],
        }
    }
}

/// The first of [`INPUTS`].
fn contexts<const N: usize>(some: [Context; N]) -> Contexts {
    let mut all = [None; INPUTS];
    for (slot, context) in all.iter_mut().zip(some) {
        *slot = Some(context);
    }
    all
}

/// The contexts of a weight of 4 bits after another one.
fn int4_contexts(last: u8) -> Contexts {
    contexts([
        Context::Tree(tree::INT4_SECTION * TREE),
        Context::Tree(tree::INT4_ALL * TREE),
        Context::Tree(tree::INT4_NEAR * TREE + usize::from(last) * 16),
    ])
}

fn hash(salt: u64, value: u64) -> Context {
    Context::Hash(mix(mix(salt as u32, value as u32), (value >> 32) as u32))
}

/// A hash of two numbers.
fn mix(a: u32, b: u32) -> u32 {
    let h = (a.wrapping_mul(0x9E37_79B1) ^ b).wrapping_mul(0x85EB_CA6B);
    (h ^ h >> 15).wrapping_mul(0xC2B2_AE35)
}
