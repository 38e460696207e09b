//! Rounding that compilers turn into vector instructions.

/// The largest magnitude that [`half_even`] takes.
pub(crate) const LARGEST: f32 = 4_194_304.0;

/// 1.5 · 2²³: the last bit of a sum with it is worth 1.
const ROUNDER: f32 = 12_582_912.0;

/// The nearest integer, of two the even one, for magnitudes up to [`LARGEST`]; 0 for −0.
pub(crate) fn half_even(x: f32) -> f32 {
    debug_assert!(x.is_nan() || x.abs() <= LARGEST, "{x}");
    x + ROUNDER - ROUNDER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rounds_as_the_standard_library_does() {
        let some =
            (-4000..4000).map(|i| i as f32 * 0.125).chain([LARGEST, -LARGEST, LARGEST - 0.5, 1e-30, 0.499_999_97]);
        for x in some {
            assert_eq!(half_even(x), x.round_ties_even(), "{x}");
        }
    }
}
