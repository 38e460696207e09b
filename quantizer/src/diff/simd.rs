//! Loops compiled for the vector units the machine has.
//!
//! Sums run over a fixed number of lanes in a fixed order, so that results do not depend on the width of the vectors.

/// Lanes of a sum.
const LANES: usize = 16;

/// Runs `f` compiled for the best instruction set of this machine. What is called within is only compiled so when it
/// is inlined: mark it `#[inline(always)]`.
#[inline(always)]
pub(super) fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// A sum in f32 lanes.
#[derive(Clone, Copy)]
pub(super) struct Lanes([f32; LANES]);

impl Lanes {
    pub(super) const ZERO: Self = Self([0.0; LANES]);

    /// Adds `f` of the element of each of the two, lane by lane. Both have the same length.
    #[inline(always)]
    pub(super) fn add2(&mut self, a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) {
        let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let (rest_a, rest_b) = (a.remainder(), b.remainder());
        for (a, b) in a.zip(b) {
            for i in 0..LANES {
                self.0[i] += f(a[i], b[i]);
            }
        }
        for ((sum, &a), &b) in self.0.iter_mut().zip(rest_a).zip(rest_b) {
            *sum += f(a, b);
        }
    }

    /// The sum of the lanes.
    #[inline(always)]
    pub(super) fn sum(self) -> f32 {
        let mut lanes = self.0;
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }
}

/// Σ a·b.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = Lanes::ZERO;
    lanes.add2(a, b, |a, b| a * b);
    lanes.sum()
}

/// Σ a.
#[inline(always)]
pub(super) fn sum(a: &[f32]) -> f32 {
    let mut lanes = Lanes::ZERO;
    lanes.add2(a, a, |a, _| a);
    lanes.sum()
}

/// eˣ with a relative error below 2e-7: `2ⁿ · eʳ`, |r| ≤ ln 2 / 2, by the Taylor series to degree 7, whose remainder is
/// 6e-9. Beyond ±87 it saturates.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// ln 2 in two parts, the first of which has few digits, so that its multiples are exact.
    const LN2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = x - n * LN2.0 - n * LN2.1;
    let mut y = 1.0 / 5040.0;
    for factorial in [720.0f32, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        y = y * r + 1.0 / factorial;
    }
    y * f32::from_bits((((n as i32) + 127) << 23) as u32)
}

/// The error function with an absolute error below 5e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions,
/// 1964, formula 7.1.26).
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let poly = ((((1.061_405_4 * t - 1.453_152_1) * t + 1.421_413_8) * t - 0.284_496_74) * t + 0.254_829_6) * t;
    (1.0 - poly * exp(-a * a)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_follow_the_library() {
        let grid = (-4000..4000).map(|i| i as f32 * 0.01);
        for x in grid {
            let (y, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((y / expected - 1.0).abs() < 3e-7, "exp {x}: {y} {expected}");
            let (y, expected) = (f64::from(erf(x)), libm::erf(x.into()));
            assert!((y - expected).abs() < 5e-7, "erf {x}: {y} {expected}");
        }
        assert!(exp(-1000.0) < 1e-37 && exp(1000.0) > 1e38);
    }

    #[test]
    fn sums_take_every_element() {
        for n in [0, 1, 15, 16, 17, 40] {
            let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(sum(&a), (0..n).sum::<i32>() as f32);
            assert_eq!(dot(&a, &a), (0..n).map(|i| i * i).sum::<i32>() as f32);
        }
    }
}
