//! Fixed-point functions that normalizing operators are defined by.

use core::num::{NonZeroU32, NonZeroU64};

use crate::quant::Multiplier;

/// `(2^-f − 1) / f` on `[0, 1)`, constant term first, in units of 2^-31.
pub(crate) const COEFFICIENTS: [i32; 6] = [-1_488_521_986, 515_877_902, -119_165_493, 20_571_132, -2_737_501, 234_126];

/// `2^-t` for `t = distance · multiplier`, as `(mantissa, exponent)` with value `mantissa / 2^31 · 2^-exponent`.
///
/// The mantissa lies in `[2^30, 2^31]` and is exact (2^31) for `t = 0`; from
/// `t = 64` on it is 0, that is, numbers below 2^-64 are. The relative error against the real `2^-t` is at
/// most `2^-27 + t · 2^-31`: that of the polynomial (degree 6, minimax) and of the multiplier.
#[inline]
pub(crate) fn exp2_neg(distance: u32, multiplier: Multiplier) -> (u32, u32) {
    let total = (31 + i32::from(multiplier.shift)) as u32 & 63; // 1..=62 for a valid multiplier
    let product = u64::from(distance).wrapping_mul(u64::from(multiplier.mantissa as u32));
    // Shifts of one word where they are enough, which is nearly always.
    let (exponent, fraction) = if total >= 32 {
        let (high, low) = ((product >> 32) as u32, product as u32);
        (high >> (total & 31), high << (63 - total) | low >> (total - 31))
    } else {
        (u32::try_from(product >> total).unwrap_or(u32::MAX), (product << 31 >> total) as u32)
    };
    if exponent >= 64 {
        return (0, 0);
    }
    let fraction = (fraction & 0x7FFF_FFFF) as i32;
    // ⌊sum · fraction / 2^31⌋ is the high word of 2 · sum · fraction: all sums but the last stay below 2^30. Written out,
    // since a loop that is kept one takes the constants to the stack.
    let next = |sum: i32, coefficient: i32| {
        let high = i64::from(sum.wrapping_mul(2)).wrapping_mul(i64::from(fraction)) >> 32;
        (high as i32).wrapping_add(coefficient)
    };
    let [c0, c1, c2, c3, c4, c5] = COEFFICIENTS;
    let sum = next(next(next(next(next(c5, c4), c3), c2), c1), c0);
    let last = i64::from(sum).wrapping_mul(i64::from(fraction)) >> 31;
    ((last as u32).wrapping_add(1 << 31), exponent)
}

/// Fraction bits of [`log2`].
pub(crate) const LOG2_BITS: u32 = 27;

/// `log2(x / 2^40)` with [`LOG2_BITS`] fraction bits, for `x` in `[2^40, 2^63)`, within `2^-26`: a bit for every squaring of the
/// mantissa, which is cut to 32 bits each time.
pub(crate) fn log2(x: u64) -> u32 {
    let zeros = x.leading_zeros();
    let mut mantissa = (x << (zeros & 63)) >> 32; // in [2^31, 2^32)
    let mut log = 23u32.wrapping_sub(zeros);
    for _ in 0..LOG2_BITS {
        mantissa = mantissa.wrapping_mul(mantissa) >> 31;
        let bit = mantissa >> 32;
        mantissa >>= bit;
        log = log << 1 | bit as u32;
    }
    log
}

/// `⌊sqrt(x)⌋` of `x` at least `2^62`.
pub(crate) fn isqrt(x: u64) -> u32 {
    if cfg!(x86) { x.isqrt() as u32 } else { isqrt_by_halves(x) }
}

/// As [`isqrt`]: half of its bits one by one, the others by a division of 32 bits (Zimmermann, "Karatsuba Square Root",
/// 1999).
fn isqrt_by_halves(x: u64) -> u32 {
    let (mut rest, mut root, mut bit) = ((x >> 32) as u32, 0u32, 1u32 << 30);
    while bit != 0 {
        let trial = root.wrapping_add(bit);
        root >>= 1;
        if rest >= trial {
            rest = rest.wrapping_sub(trial);
            root = root.wrapping_add(bit);
        }
        bit >>= 2;
    }
    // The high word is root² + rest, with rest at most 2 · root: half of rest · 2^16 and what follows fits 32 bits.
    let next = (x >> 16) as u32 & 0xFFFF;
    let Some(divisor) = NonZeroU32::new(root) else { return 0 };
    let half = rest << 15 | next >> 1;
    let (quotient, remainder) = (half / divisor, half % divisor);
    let remainder = i64::from(remainder << 1 | next & 1) << 16 | (x & 0xFFFF) as i64;
    let root = u64::from(root) << 16;
    let less = u64::from(remainder < i64::from(quotient).wrapping_mul(i64::from(quotient)));
    root.wrapping_add(quotient.into()).wrapping_sub(less) as u32
}

/// `⌊high · 2^32 / divisor⌋` of a divisor of at least `2^31` and a smaller `high`.
pub(crate) fn divide_high(high: u32, divisor: u32) -> u32 {
    if cfg!(target_pointer_width = "32") {
        return divide_high_by_halves(high, divisor);
    }
    NonZeroU64::new(divisor.into()).map_or(0, |divisor| ((u64::from(high) << 32) / divisor) as u32)
}

/// As [`divide_high`], in divisions of 32 bits, for cores on which these are many times faster: Knuth's algorithm D with
/// digits of 16 bits.
fn divide_high_by_halves(high: u32, divisor: u32) -> u32 {
    let lower = divisor & 0xFFFF;
    let Some(upper) = NonZeroU32::new(divisor >> 16) else { return 0 };
    // The next 16 bits of the quotient; what is guessed from the upper half is too large by 2 at most.
    let digit = |rest: u32| {
        let (mut digit, mut left) = (rest / upper, rest % upper);
        while digit >> 16 != 0 || digit.wrapping_mul(lower) > left << 16 {
            digit = digit.wrapping_sub(1);
            left = left.wrapping_add(upper.get());
            if left >> 16 != 0 {
                break;
            }
        }
        (digit, (rest << 16).wrapping_sub(digit.wrapping_mul(divisor)))
    };
    let (first, rest) = digit(high);
    let (second, _) = digit(rest);
    first << 16 | second
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    /// [`exp2_neg`] in numbers that no step can overflow.
    fn exp2_neg_in_128_bits(distance: u32, multiplier: Multiplier) -> (u32, u32) {
        let total = (31 + i32::from(multiplier.shift)) as u32;
        let product = u128::from(distance) * multiplier.mantissa as u128;
        if product >> total >= 64 {
            return (0, 0);
        }
        let fraction = ((product << 31 >> total) & 0x7FFF_FFFF) as i128;
        let sum = COEFFICIENTS.iter().rev().fold(0, |sum, &c| ((sum * fraction) >> 31) + i128::from(c));
        ((((sum * fraction) >> 31) + (1 << 31)) as u32, (product >> total) as u32)
    }

    #[test]
    fn words_are_wide_enough_for_exp2() {
        let shifts = Multiplier::MIN_SHIFT..=Multiplier::MAX_SHIFT;
        for (shift, mantissa) in shifts.flat_map(|shift| [1 << 30, 0x5555_5555, i32::MAX].map(|m| (shift, m))) {
            let multiplier = Multiplier { mantissa, shift };
            let ends = (0..32).flat_map(|bit| [1 << bit, u32::MAX >> bit]);
            let between = (0..3000u32).map(|i| i.wrapping_mul(0x9E37_79B9) >> (i % 32));
            for distance in ends.chain(between).chain(0..100) {
                let expected = exp2_neg_in_128_bits(distance, multiplier);
                assert_eq!(exp2_neg(distance, multiplier), expected, "{distance} · {multiplier:?}");
            }
        }
    }

    #[test]
    fn exp2_is_within_its_bound() {
        for real in [1.0 / 256.0, 1e-4, 0.013, 0.7, 1.0, 17.3, 63.9, 70.0] {
            let multiplier = Multiplier::from_f64(real).unwrap();
            for distance in (0..65536).step_by(7).chain((0..32).map(|bit| u32::MAX >> bit)) {
                let t = f64::from(distance) * real;
                let (mantissa, exponent) = exp2_neg(distance, multiplier);
                if mantissa == 0 {
                    assert!(t > 63.999);
                    continue;
                }
                assert!((1 << 30..=1 << 31).contains(&mantissa));
                let value = f64::from(mantissa) * std::primitive::f64::powi(0.5, 31 + exponent as i32);
                let relative = (value * t.exp2() - 1.0).abs();
                let bound = 0.5f64.powi(27) + t * 0.5f64.powi(31);
                assert!(relative <= bound, "2^-{t}: {relative:e} > {bound:e}");
            }
        }
        assert_eq!(exp2_neg(0, Multiplier::from_f64(3.0).unwrap()), (1 << 31, 0));
    }

    #[test]
    fn log2_is_within_its_bound() {
        assert_eq!(log2(1 << 40), 0);
        for bit in 40..63 {
            for part in 0..200u64 {
                let x = (1u64 << bit) + ((1u64 << bit) / 200) * part;
                let log = f64::from(log2(x)) / f64::from(1u32 << LOG2_BITS);
                assert!((log - ((x as f64).log2() - 40.0)).abs() <= 0.5f64.powi(26), "{x}");
            }
        }
    }

    #[test]
    fn isqrt_is_exact() {
        let roots =
            (0..=u32::MAX).step_by(99_991).chain((0..32).map(|bit| u32::MAX >> bit)).chain((0..32).map(|bit| 1 << bit));
        for root in roots.map(|root| u64::from(root | 1 << 31)) {
            for x in [root * root, root * root + 1, root * root + root, root * root + 2 * root] {
                assert_eq!([isqrt(x), isqrt_by_halves(x)].map(u64::from), [root; 2], "{x}");
            }
            let below = (root * root - 1).max(1 << 62);
            assert_eq!([isqrt(below), isqrt_by_halves(below)].map(u64::from), [(root - 1).max(1 << 31); 2]);
        }
    }

    #[test]
    fn high_words_are_divided_exactly() {
        let numbers = || {
            (0..2000u32).map(|i| i.wrapping_mul(0x9E37_79B9)).chain((0..32).flat_map(|bit| [1 << bit, u32::MAX >> bit]))
        };
        for divisor in numbers().map(|n| n | 1 << 31) {
            for high in numbers().step_by(7).chain([0, divisor - 1, divisor / 2]).filter(|&high| high < divisor) {
                let expected = ((u64::from(high) << 32) / u64::from(divisor)) as u32;
                assert_eq!([divide_high(high, divisor), divide_high_by_halves(high, divisor)], [expected; 2]);
            }
        }
    }
}
