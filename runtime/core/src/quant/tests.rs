extern crate std;

use proptest::prelude::*;

use super::*;

/// `⌊value · mantissa / (2^total · count) + 1/2⌋`, in integers wide enough for anything.
fn exact(value: i64, multiplier: Multiplier, count: u64) -> i128 {
    let product = i128::from(value) * i128::from(multiplier.mantissa);
    let denominator = i128::from(count) << (31 + i32::from(multiplier.shift));
    (2 * product + denominator).div_euclid(2 * denominator)
}

fn saturated(value: i128) -> i32 {
    value.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

fn multiplier() -> impl Strategy<Value = Multiplier> {
    let mantissa = prop_oneof![Just(1 << 30), Just(i32::MAX), (1 << 30)..=i32::MAX];
    (mantissa, Multiplier::MIN_SHIFT..=Multiplier::MAX_SHIFT)
        .prop_map(|(mantissa, shift)| Multiplier { mantissa, shift })
}

fn value() -> impl Strategy<Value = i32> {
    prop_oneof![any::<i32>(), -1000..1000, Just(i32::MIN), Just(i32::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn multipliers_are_nearest(mantissa in 1.0f64..2.0, exponent in -32i32..30) {
        let real = mantissa * f64::from_bits(((1023 + exponent) as u64) << 52);
        let Some(multiplier) = Multiplier::from_f64(real) else {
            // Only what rounds up to the end of the range is refused.
            prop_assert!(exponent == 29 && mantissa > 1.999_999);
            return Ok(());
        };
        prop_assert!(multiplier.is_valid());
        let relative = (multiplier.to_f64() / real - 1.0).abs();
        prop_assert!(relative <= 1.0 / (1u64 << 31) as f64, "{relative:e}");
    }

    #[test]
    fn apply_rounds_once_half_up(value in value(), multiplier in multiplier()) {
        prop_assert_eq!(multiplier.apply(value), saturated(exact(value.into(), multiplier, 1)));
    }

    #[test]
    fn apply_wide_rounds_once_half_up(a in -65535i64..=65535, b in -65535i64..=65535, multiplier in multiplier()) {
        prop_assert_eq!(multiplier.apply_wide(a * b), saturated(exact(a * b, multiplier, 1)));
    }

    #[test]
    fn ties_go_up(half in -(1i32 << 29)..1 << 29) {
        // 2^30 / 2^31 · 2^0 is a half.
        let multiplier = Multiplier { mantissa: 1 << 30, shift: 0 };
        prop_assert_eq!(multiplier.apply(2 * half + 1), half + 1);
        prop_assert_eq!(multiplier.apply(2 * half), half);
    }

    #[test]
    fn division_rounds_once_half_up(
        value in value(),
        multiplier in multiplier(),
        count in prop_oneof![1u64..1000, 1u64..1 << 32],
    ) {
        prop_assert_eq!(apply_divided(value, multiplier, count), saturated(exact(value.into(), multiplier, count)));
    }

    #[test]
    fn requantize_clamps_last(acc in value(), multiplier in multiplier(), zero_point in -128i32..128) {
        let expected = (exact(acc.into(), multiplier, 1) + i128::from(zero_point)).clamp(-100, 90);
        prop_assert_eq!(i128::from(requantize(acc, multiplier, zero_point, -100, 90)), expected);
    }

    #[test]
    fn quantizing_rounds_half_to_even(x in prop_oneof![any::<f32>(), -300.0f32..300.0, (-600i32..600).prop_map(|n| n as f32 / 2.0)]) {
        let expected = if x.is_nan() { 0 } else { std::primitive::f32::round_ties_even(x) as i32 };
        prop_assert_eq!(round_half_even(x), expected);
        prop_assert_eq!(quantize(x, 1.0, 5, (-128, 127)), expected.saturating_add(5).clamp(-128, 127));
        prop_assert_eq!(quantize(x, 1.0, 5, (0, 15)), expected.saturating_add(5).clamp(0, 15));
    }
}

#[test]
fn extremes_are_exact() {
    let largest = Multiplier { mantissa: i32::MAX, shift: Multiplier::MIN_SHIFT };
    let smallest = Multiplier { mantissa: 1 << 30, shift: Multiplier::MAX_SHIFT };
    for value in [i32::MIN, i32::MIN + 1, -1, 0, 1, i32::MAX] {
        for multiplier in [largest, smallest] {
            assert_eq!(multiplier.apply(value), saturated(exact(value.into(), multiplier, 1)));
        }
    }
    let widest = 65535i64 * 65535;
    for value in [-widest, widest] {
        assert_eq!(largest.apply_wide(value), saturated(exact(value, largest, 1)));
    }
    assert_eq!(apply_divided(5, largest, 0), 0);
}

#[test]
fn unsupported_multipliers_are_refused() {
    let beyond = (1u64 << 30) as f64;
    for real in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE / 2.0, 1e-10, beyond] {
        assert_eq!(Multiplier::from_f64(real), None, "{real}");
    }
    assert!(Multiplier::from_f64(0.5 / beyond / 2.0).is_some(), "2^-32 is the smallest");
}
