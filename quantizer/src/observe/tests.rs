use proptest::prelude::*;

use super::*;

/// Where a normal distribution reaches probability `p` (bisection of the error function: slow and simple).
fn normal_at(p: f64) -> f32 {
    let (mut low, mut high) = (-9.0, 9.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        let below = 0.5 * libm::erfc(-middle * std::f64::consts::FRAC_1_SQRT_2);
        if below < p { low = middle } else { high = middle }
    }
    low as f32
}

/// Normally distributed values, evenly spaced in probability: the sample has the law's shape exactly.
fn normal(count: usize) -> Vec<f32> {
    (0..count).map(|i| normal_at((i as f64 + 0.5) / count as f64)).collect()
}

/// Numbers in (0, 1) that scatter as random ones do (SplitMix64).
fn random(count: usize) -> impl Iterator<Item = f64> {
    (1..=count as u64).map(|i| {
        let mut z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + 1e-17
    })
}

/// Uniformly distributed values of variance 1.
fn uniform(count: usize) -> Vec<f32> {
    let half = 3f64.sqrt();
    (0..count).map(|i| (half * (2.0 * (i as f64 + 0.5) / count as f64 - 1.0)) as f32).collect()
}

fn seen(values: &[f32]) -> Statistics {
    let mut statistics = Statistics::default();
    statistics.observe(values);
    statistics
}

fn finite() -> impl Strategy<Value = f32> {
    prop_oneof![
        any::<f32>().prop_filter("finite", |v| v.is_finite()),
        -3.0f32..3.0,
        Just(0.0f32),
        Just(-0.0f32),
        (0u32..0x0080_0000).prop_map(f32::from_bits),
    ]
}

proptest! {
    #[test]
    fn statistics_do_not_depend_on_splits_and_order(
        values in proptest::collection::vec(finite(), 0..60),
        parts in proptest::collection::vec(0usize..4, 60),
        rotation in 0usize..60,
    ) {
        let whole = seen(&values);
        let mut shuffled = values.clone();
        shuffled.rotate_left(rotation % values.len().max(1));
        shuffled.reverse();
        let mut shards = vec![Statistics::default(); 4];
        for (value, &part) in shuffled.iter().zip(&parts) {
            shards[part].observe(&[*value]);
        }
        let mut merged = Statistics::default();
        for shard in shards.iter().rev() {
            merged.merge(shard);
        }
        prop_assert_eq!(&merged, &whole);
        let total: u64 = whole.bins().map(|bin| bin.2).sum();
        prop_assert_eq!(total + whole.zeros(), values.len() as u64);
    }

    #[test]
    fn every_value_lies_in_its_bin(value in finite(), other in finite()) {
        prop_assume!(value != 0.0);
        let mut statistics = seen(&[other]);
        statistics.observe(&[value]);
        let bins: Vec<_> = statistics.bins().collect();
        let x = f64::from(value);
        let holds = |low: f64, high: f64| (x > 0.0 && low <= x && x < high) || (x < 0.0 && low < x && x <= high);
        let found = bins.iter().any(|&(low, high, _)| holds(low, high));
        prop_assert!(found, "{} in {:?}", x, bins);
    }

    #[test]
    fn parameters_hold_zero_and_the_range(low in -1e30f64..1e30, high in -1e30f64..1e30, narrow in 0i32..60) {
        let factor = 10f64.powi(-narrow);
        let range = Range::around_zero(low * factor, high * factor);
        for levels in [Levels::U8, Levels::I8] {
            let (scale, zero_point) = levels.affine(range);
            prop_assert!(scale.is_normal() && scale > 0.0);
            prop_assert!((levels.low..=levels.high).contains(&zero_point));
            let ends = [levels.low, levels.high].map(|q| f64::from(scale) * f64::from(q - zero_point));
            let slack = f64::from(scale) * 0.501;
            prop_assert!(ends[0] <= range.low + slack && ends[1] >= range.high - slack);
        }
    }
}

#[test]
fn counts_are_exact() {
    let statistics = seen(&[-0.0, 0.0, 1.5, -2.25, f32::NAN, f32::INFINITY, 1.5]);
    assert_eq!((statistics.count(), statistics.zeros(), statistics.not_finite()), (5, 2, 2));
    assert_eq!((statistics.min(), statistics.max()), (-2.25, 1.5));
    let bins: Vec<_> = statistics.bins().collect();
    assert_eq!(bins.len(), 2);
    assert_eq!((bins[0].2, bins[1].2), (1, 2));
    assert!(bins[0].0 < -2.25 && bins[0].1 >= -2.25);
}

#[test]
fn wide_ranges_fill_the_capacity() {
    for values in [uniform(100_000), normal(10_000)] {
        let statistics = seen(&values);
        let span = f64::from(statistics.max()) - f64::from(statistics.min());
        let bins = span / statistics.bin_width();
        assert!(bins > CAPACITY as f64 * 0.49 && bins <= CAPACITY as f64, "{bins}");
    }
}

#[test]
fn moments_of_known_laws() {
    let normal = seen(&normal(100_000));
    assert!(normal.mean().abs() < 1e-3 && (normal.std() - 1.0).abs() < 1e-3);
    assert!((normal.kurtosis() - 3.0).abs() < 0.02, "{}", normal.kurtosis());
    let uniform = seen(&uniform(100_000));
    assert!((uniform.kurtosis() - 1.8).abs() < 1e-3);
    // A uniform law of n bins has log2(n) bits.
    assert!((uniform.entropy() - (uniform.bins().count() as f64).log2()).abs() < 0.01);
    let mut outlier = vec![0.0; 9_999];
    outlier.push(100.0);
    assert!((seen(&outlier).kurtosis() - 9_998.0).abs() < 2.0);
    assert_eq!(Statistics::default().entropy(), 0.0);
}

#[test]
fn quantiles() {
    let statistics = seen(&uniform(100_000));
    let half = 3f64.sqrt();
    for q in [0.001, 0.25, 0.5, 0.9, 0.999] {
        let expected = half * (2.0 * q - 1.0);
        assert!((statistics.quantile(q).unwrap() - expected).abs() < 1e-3);
    }
    let relu: Vec<f32> = (0..1000).map(|i| if i < 600 { 0.0 } else { i as f32 }).collect();
    assert_eq!(seen(&relu).quantile(0.5), Some(0.0));
    assert!((seen(&relu).quantile(0.8).unwrap() - 800.0).abs() < 2.0);
    let range = Observer::Percentile(90.0).range(&statistics, Levels::U8);
    assert!((range.low + 0.9 * half).abs() < 1e-3 && (range.high - 0.9 * half).abs() < 1e-3);
}

/// The error of quantizing each value, summed the plain way.
fn measured(values: &[f32], range: Range, levels: Levels) -> f64 {
    let (scale, zero_point) = levels.affine(range);
    let (scale, zero_point) = (f64::from(scale), f64::from(zero_point));
    let sum: f64 = values
        .iter()
        .map(|&v| {
            let q =
                ((f64::from(v) / scale).round_ties_even() + zero_point).clamp(levels.low.into(), levels.high.into());
            (f64::from(v) - (q - zero_point) * scale).powi(2)
        })
        .sum();
    sum / values.len() as f64
}

#[test]
fn distortion_is_what_quantizing_measures() {
    for values in [normal(50_000), uniform(50_000), normal(50_000).iter().map(|v| v.max(0.0)).collect()] {
        let statistics = seen(&values);
        let distortion = Distortion::new(&statistics);
        for clip in [0.2, 0.5, 0.8, 1.0] {
            for levels in [Levels::U8, Levels { low: -8, high: 7, symmetric: false }] {
                let range = statistics.range().scaled(clip, clip * 0.9);
                let (expected, found) = (measured(&values, range, levels), distortion.of(range, levels));
                assert!((found / expected - 1.0).abs() < 0.02, "clip {clip}: {found} instead of {expected}");
            }
        }
    }
}

/// Optimal steps for variance 1, computed from the error function.
#[test]
fn mse_finds_the_optimal_step() {
    let symmetric = |bits: u32, narrow: bool| {
        let high = (1 << (bits - 1)) - 1;
        Levels { low: if narrow { -high } else { -high - 1 }, high, symmetric: true }
    };
    let unsigned = |bits: u32| Levels { low: 0, high: (1 << bits) - 1, symmetric: false };
    let normal = normal(400_000);
    let half_normal: Vec<f32> = normal.iter().map(|v| v.max(0.0)).collect();
    let uniform = uniform(400_000);
    for (name, values, levels, step, tolerance) in [
        ("normal 4 full", &normal, symmetric(4, false), 0.338, 0.01),
        ("normal 4 narrow", &normal, symmetric(4, true), 0.353, 0.01),
        ("normal 8 narrow", &normal, symmetric(8, true), 0.0308, 0.02),
        ("uniform 4 full", &uniform, symmetric(4, false), 0.229, 0.01),
        ("uniform 4 narrow", &uniform, symmetric(4, true), 0.231, 0.01),
        ("uniform 8 narrow", &uniform, symmetric(8, true), 0.0137, 0.02),
        ("half-normal 2", &half_normal, unsigned(2), 0.651, 0.01),
        ("half-normal 3", &half_normal, unsigned(3), 0.353, 0.01),
        ("half-normal 4", &half_normal, unsigned(4), 0.193, 0.01),
        ("half-normal 8", &half_normal, unsigned(8), 0.0165, 0.02),
    ] {
        let statistics = seen(values);
        let range = Observer::Mse.range(&statistics, levels);
        let (scale, _) = levels.affine(range);
        assert!((f64::from(scale) / step - 1.0).abs() < tolerance, "{name}: step {scale} instead of {step}");
    }
    // The error at the optimum, from the same source.
    let range = Observer::Mse.range(&seen(&normal), symmetric(4, true));
    assert!((measured(&normal, range, symmetric(4, true)) / 0.01289 - 1.0).abs() < 0.01);
}

#[test]
fn mse_finds_the_best_pair_of_ends() {
    // A uniform body in [−1, 3] with rare far values below.
    let mut values: Vec<f32> = (0..50_000).map(|i| -1.0 + 4.0 * i as f32 / 50_000.0).collect();
    values.extend([-6.0, -2.0, -2.0]);
    let range = Observer::Mse.range(&seen(&values), Levels::U8);
    let found = measured(&values, range, Levels::U8);
    assert!(range.low > -5.5 && range.high > 2.9, "{range:?}");
    for low in 1..=24 {
        for high in [2.0, 2.6, 2.8, 2.9, 2.95, 3.0] {
            let other = Range { low: -0.25 * f64::from(low), high };
            let error = measured(&values, other, Levels::U8);
            assert!(found < 1.01 * error, "{range:?}: {found}; {other:?}: {error}");
        }
    }
}

#[test]
fn entropy_finds_the_planted_clip() {
    // A body that ends at 4, and four values in a million at 40.
    let mut values: Vec<f32> = random(1_000_000).map(|p| normal_at(p).abs().min(4.0)).collect();
    values.extend([40.0; 4]);
    let statistics = seen(&values);
    let range = Observer::Entropy.range(&statistics, Levels::U8);
    assert!(range.high > 3.5 && range.high < 6.0, "{range:?}");
    assert_eq!(Observer::MinMax.range(&statistics, Levels::U8).high, 40.0);
    // Nothing to clip: the law fills its range.
    let flat: Vec<f32> = random(300_000).map(|p| (2.0 * p - 1.0) as f32).collect();
    let range = Observer::Entropy.range(&seen(&flat), Levels::U8);
    assert!(range.high > 0.9 && range.low < -0.9, "{range:?}");
}

#[test]
fn entropy_is_not_misled_by_a_value_that_repeats() {
    let mut values: Vec<f32> = random(200_000).map(|p| normal_at(p).abs()).collect();
    values.extend([0.0123; 100_000]);
    let range = Observer::Entropy.range(&seen(&values), Levels::U8);
    assert!(range.high > 2.5, "{range:?}");
}

#[test]
fn entropy_differs_from_min_max_on_heavy_tails() {
    // A Laplace law, by its quantile function.
    let values: Vec<f32> =
        random(300_000).map(|p| (-(p - 0.5).signum() * (1.0 - 2.0 * (p - 0.5).abs()).max(1e-9).ln()) as f32).collect();
    let statistics = seen(&values);
    let full = Observer::MinMax.range(&statistics, Levels::U8);
    let range = Observer::Entropy.range(&statistics, Levels::U8);
    assert!(range.high < 0.95 * full.high && range.high > 3.0, "{range:?} of {full:?}");
}

#[test]
fn nothing_and_constants() {
    for observer in [Observer::MinMax, Observer::Percentile(99.9), Observer::Mse, Observer::Entropy] {
        for values in [&[][..], &[0.0; 10]] {
            let range = observer.range(&seen(values), Levels::U8);
            assert_eq!(range, Range::default(), "{observer}");
            assert_eq!(Levels::U8.affine(range), (1.0, 0));
        }
        let range = observer.range(&seen(&[2.5; 100]), Levels::U8);
        let (scale, zero_point) = Levels::U8.affine(range);
        assert_eq!(zero_point, 0, "{observer}");
        assert!((scale * (2.5 / scale).round() - 2.5).abs() < 0.01, "{observer}: {range:?}");
        let range = observer.range(&seen(&[-1e-42, 1e-42]), Levels::I8);
        assert!(Levels::I8.affine(range).0.is_normal());
    }
}
