//! What integers cost in bits: Shannon entropy, and the code length of each level.
//!
//! An ONNX file and a plan store every weight in as many bits as its type has. An entropy coder needs about the Shannon
//! entropy of the weights' histogram ([`shannon_bits`]); [`crate::package`] comes that close. Rounding can lower it:
//! where two neighbouring levels do about equally well, the more frequent one is cheaper ([`CodeLengths`]; the idea of
//! pricing integers by a model of their own distribution is that of Girish et al., "SHACIRA", ICCV 2023, section 3);
//! [`crate::round::refine`] does that.

/// No level costs more bits (SHACIRA's bound).
pub const MAX_BITS: f64 = 50.0;

/// Levels beyond this magnitude are of no quantized type, and priced as [`MAX_BITS`].
const LARGEST: i32 = 1 << 16;

/// Shannon entropy of the histogram of `levels`, in bits per level; 0 for none.
pub fn shannon_bits(levels: &[i32]) -> f64 {
    let mut sorted = levels.to_vec();
    sorted.sort_unstable();
    let total = sorted.len() as f64;
    let bits: f64 = sorted
        .chunk_by(|a, b| a == b)
        .map(|equal| equal.len() as f64 / total)
        .map(|share| -share * libm::log2(share))
        .sum();
    // A sum of −0 reads better as 0.
    bits.abs()
}

/// Bits that each level costs in an adaptive code for a tensor of integers.
///
/// The alphabet reaches from one below the lowest level seen to one above the highest, so that rounding may try its
/// neighbours. A level seen n times of N has the probability (n + ½) / (N + K / 2), K being the size of the alphabet:
/// the estimate of Krichevsky and Trofimov, "The performance of universal encoding", IEEE Trans. Inf. Theory, 1981.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CodeLengths {
    /// The alphabet's lowest level.
    low: i32,
    /// Of each level of the alphabet.
    bits: Vec<f64>,
}

impl CodeLengths {
    /// Those of a tensor's levels.
    pub fn of(levels: &[i32]) -> Self {
        let mut lengths = Self::default();
        lengths.recompute(levels);
        lengths
    }

    /// Forgets what was, and prices by `levels`: after a sweep of rounding has moved some.
    pub fn recompute(&mut self, levels: &[i32]) {
        let known = || levels.iter().copied().filter(|level| level.abs() <= LARGEST);
        self.bits.clear();
        let (Some(lowest), Some(highest)) = (known().min(), known().max()) else { return };
        self.low = lowest - 1;
        self.bits.resize((highest - lowest) as usize + 3, 0.5);
        for level in known() {
            self.bits[(level - self.low) as usize] += 1.0;
        }
        let total: f64 = self.bits.iter().sum();
        for bits in &mut self.bits {
            *bits = libm::log2(total / *bits).min(MAX_BITS);
        }
    }

    /// Bits of one level: −log2 of its probability, at most [`MAX_BITS`], which is also the price of what is not in
    /// the alphabet.
    pub fn bits(&self, level: i32) -> f64 {
        let index = usize::try_from(i64::from(level) - i64::from(self.low)).ok();
        index.and_then(|index| self.bits.get(index)).copied().unwrap_or(MAX_BITS)
    }

    /// The probability of one level; 0 for what is not in the alphabet.
    pub fn probability(&self, level: i32) -> f64 {
        let index = usize::try_from(i64::from(level) - i64::from(self.low)).ok();
        index.and_then(|index| self.bits.get(index)).map_or(0.0, |bits| libm::exp2(-bits))
    }

    /// The probability of all levels up to and with this one.
    pub fn cumulative(&self, level: i32) -> f64 {
        let count = i64::from(level) - i64::from(self.low) + 1;
        self.bits.iter().take(usize::try_from(count).unwrap_or(0)).map(|bits| libm::exp2(-bits)).sum()
    }

    /// Bits of all `levels`.
    pub fn total(&self, levels: &[i32]) -> f64 {
        levels.iter().map(|&level| self.bits(level)).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entropy_of_known_histograms() {
        assert_eq!(shannon_bits(&[]), 0.0);
        assert_eq!(shannon_bits(&[7; 100]), 0.0);
        assert!(shannon_bits(&[7; 100]).is_sign_positive());
        let uniform: Vec<i32> = (0..256).map(|i| i - 128).collect();
        assert!((shannon_bits(&uniform) - 8.0).abs() < 1e-12);
        // Shares 1/2, 1/4, 1/8, 1/8.
        assert!((shannon_bits(&[0, 0, 0, 0, 1, 1, -5, 9]) - 1.75).abs() < 1e-12);
    }

    #[test]
    fn frequent_levels_are_cheap() {
        let mut lengths = CodeLengths::of(&[0, 0, 0, 0, 0, 0, 3]);
        // Alphabet −1..=4, so N + K/2 = 10.
        assert!((lengths.bits(0) - (10.0f64 / 6.5).log2()).abs() < 1e-12);
        assert!((lengths.bits(3) - (10.0f64 / 1.5).log2()).abs() < 1e-12);
        assert!((lengths.bits(-1) - 20.0f64.log2()).abs() < 1e-12);
        assert_eq!((lengths.bits(-2), lengths.bits(5), lengths.bits(i32::MIN)), (MAX_BITS, MAX_BITS, MAX_BITS));
        assert!((lengths.total(&[0, 3]) - lengths.bits(0) - lengths.bits(3)).abs() < 1e-12);
        lengths.recompute(&[3, 3, 3]);
        assert_eq!(lengths, CodeLengths::of(&[3, 3, 3]));
        assert!(lengths.bits(3) < lengths.bits(2));
    }

    #[test]
    fn nothing_is_known_of_nothing() {
        let lengths = CodeLengths::of(&[]);
        assert_eq!((lengths.bits(0), lengths.probability(0), lengths.cumulative(9)), (MAX_BITS, 0.0, 0.0));
    }

    proptest! {
        #[test]
        fn a_distribution(levels in prop::collection::vec(-130i32..130, 1..400)) {
            let lengths = CodeLengths::of(&levels);
            let (low, high) = (levels.iter().min().unwrap() - 1, levels.iter().max().unwrap() + 1);
            let sum: f64 = (low..=high).map(|level| lengths.probability(level)).sum();
            prop_assert!((sum - 1.0).abs() < 1e-3);
            let mut before = 0.0;
            for level in low - 2..=high + 2 {
                let now = lengths.cumulative(level);
                prop_assert!(now >= before);
                prop_assert!((now - before - lengths.probability(level)).abs() < 1e-9);
                before = now;
            }
            prop_assert!((before - 1.0).abs() < 1e-3);
        }

        // No code for the tensor itself is shorter than its entropy, and an adaptive one pays at most ½ log2 N + 1 bits
        // for each level it has to learn.
        #[test]
        fn close_to_the_entropy(levels in prop::collection::vec(-8i32..8, 1..4000)) {
            let (total, entropy) = (CodeLengths::of(&levels).total(&levels), shannon_bits(&levels) * levels.len() as f64);
            let learning = 18.0 * (0.5 * (levels.len() as f64).log2() + 1.0);
            prop_assert!(total >= entropy - 1e-6 && total <= entropy + learning, "{total} {entropy}");
        }
    }
}
