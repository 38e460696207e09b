//! Fixed-point functions that normalizing operators are defined by.

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
    let product = u64::from(distance).wrapping_mul(multiplier.mantissa as u64);
    let exponent = product >> total;
    if exponent >= 64 {
        return (0, 0);
    }
    let remainder = product & (1u64 << total).wrapping_sub(1);
    // Below 2^31, so the polynomial's products stay within 62 bits.
    let fraction = if total >= 31 { remainder >> (total - 31) } else { remainder << (31 - total) } as i64;
    let sum = COEFFICIENTS
        .iter()
        .rev()
        .fold(0i64, |sum, &coefficient| (sum.wrapping_mul(fraction) >> 31).wrapping_add(i64::from(coefficient)));
    let mantissa = (sum.wrapping_mul(fraction) >> 31).wrapping_add(1 << 31);
    (mantissa as u32, exponent as u32)
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

/// `⌊sqrt(x)⌋`; bit by bit, which takes the least flash, where it is not to be fast.
pub(crate) fn isqrt(x: u64) -> u32 {
    if cfg!(x86) {
        return x.isqrt() as u32;
    }
    let (mut rest, mut root, mut bit) = (x, 0u64, 1u64 << 62);
    while bit != 0 {
        let trial = root.wrapping_add(bit);
        root >>= 1;
        if rest >= trial {
            rest = rest.wrapping_sub(trial);
            root = root.wrapping_add(bit);
        }
        bit >>= 2;
    }
    root as u32
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

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
        let squares = (0..64).flat_map(|bit| {
            let root = (1u64 << (bit / 2)) + u64::from(bit % 2 == 1) * 3;
            [root * root - 1, root * root, root * root + 1, u64::MAX >> bit]
        });
        for x in squares.chain(0..1000) {
            assert_eq!(u64::from(isqrt(x)), x.isqrt());
        }
    }
}
