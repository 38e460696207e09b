//! Soft rounding (AdaRound, Nagel et al. 2020, equations 21 to 24): a weight `w/s` becomes `⌊w/s⌋ + h(V)` with a rectified
//! sigmoid `h(V) = clip(1.2 σ(V) − 0.1, 0, 1)`, which a regularizer `Σ 1 − |2h − 1|^β` drives to 0 or 1 while β falls.
//!
//! The parameter is `θ = V − V₀`, where `h(V₀)` is the fraction of `w/s`, so that rounding to nearest is the start.

/// Stretch of the sigmoid beyond [0, 1], below and above.
const STRETCH: f32 = 0.1;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// V₀.
fn origin(w: f32) -> f32 {
    let fraction = (w - w.floor()).clamp(1e-3, 1.0 - 1e-3);
    -((1.0 + 2.0 * STRETCH) / (fraction + STRETCH) - 1.0).ln()
}

/// h(V).
fn share(w: f32, theta: f32) -> f32 {
    ((1.0 + 2.0 * STRETCH) * sigmoid(origin(w) + theta) - STRETCH).clamp(0.0, 1.0)
}

/// dh/dV.
fn share_slope(w: f32, theta: f32) -> f32 {
    let sigma = sigmoid(origin(w) + theta);
    let h = (1.0 + 2.0 * STRETCH) * sigma - STRETCH;
    if h > 0.0 && h < 1.0 { (1.0 + 2.0 * STRETCH) * sigma * (1.0 - sigma) } else { 0.0 }
}

/// The weight in steps, between two integers.
pub(super) fn relaxed(w: f32, theta: f32) -> f32 {
    w.floor() + share(w, theta)
}

/// The integer.
pub(super) fn decided(w: f32, theta: f32) -> f32 {
    w.floor() + if share(w, theta) >= 0.5 { 1.0 } else { 0.0 }
}

/// The derivative of [`relaxed`].
pub(super) fn slope(w: f32, theta: f32) -> f32 {
    share_slope(w, theta)
}

/// The derivative of `1 − |2h − 1|^β`.
pub(super) fn indecision_slope(w: f32, theta: f32, beta: f64) -> f64 {
    let d = 2.0 * f64::from(share(w, theta)) - 1.0;
    -2.0 * beta * d.abs().powf(beta - 1.0) * d.signum() * f64::from(share_slope(w, theta))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_the_float_weight_and_rounds_to_nearest() {
        for w in [-2.7, -0.501, -0.2, 0.3, 0.499, 3.8] {
            assert!((relaxed(w, 0.0) - w).abs() < 1e-3, "{w}");
            assert_eq!(decided(w, 0.0), w.round());
        }
        assert_eq!((decided(0.3, 9.0), decided(0.3, -9.0)), (1.0, 0.0));
    }

    #[test]
    fn slopes_follow_finite_differences() {
        let h = 1e-3;
        for (w, theta) in [(0.3, 0.2), (-1.6, -0.4), (2.5, 0.0)] {
            let expected = (relaxed(w, theta + h) - relaxed(w, theta - h)) / (2.0 * h);
            assert!((slope(w, theta) - expected).abs() < 1e-3);
            let of = |theta: f32| 1.0 - (2.0 * f64::from(share(w, theta)) - 1.0).abs().powf(3.0);
            let expected = (of(theta + h) - of(theta - h)) / f64::from(2.0 * h);
            assert!((indecision_slope(w, theta, 3.0) - expected).abs() < 2e-3);
        }
        assert_eq!(slope(0.3, 50.0), 0.0);
    }
}
