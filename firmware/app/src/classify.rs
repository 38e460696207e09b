//! From the model's output to a class with its confidence.

use heapless::Vec;

/// Most classes served: their scores lie on the stack.
pub const MAX_CLASSES: usize = 256;

/// A class and the probability that the model gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Top {
    /// Index of the highest score; the first of equals.
    pub class: u16,
    /// Its probability, 0 to 1.
    pub confidence: f32,
}

/// The dequantized output of a model.
pub type Scores = Vec<f32, MAX_CLASSES>;

/// The most probable class. `scores` are logits, or probabilities if `normalized`; finite.
///
/// `softmax(x)_i = exp(x_i − max) / Σ exp(x_j − max)`; at the maximum the numerator is 1.
pub fn top(scores: &[f32], normalized: bool) -> Option<Top> {
    let (&first, rest) = scores.split_first()?;
    let (class, best) =
        rest.iter().zip(1u16..).fold((0, first), |best, (&x, i)| if x > best.1 { (i, x) } else { best });
    let sum: f32 = scores.iter().map(|&x| libm::expf(x - best)).sum();
    Some(Top { class, confidence: if normalized { best } else { 1.0 / sum } })
}

#[cfg(test)]
mod tests {
    use super::top;

    #[test]
    fn softmax_of_logits() {
        let scores = [1.0f32, 3.0, -2.0, 3.0];
        let found = top(&scores, false).unwrap();
        let expected = 3f64.exp() / scores.iter().map(|&x| f64::from(x).exp()).sum::<f64>();
        assert_eq!(found.class, 1);
        assert!((f64::from(found.confidence) - expected).abs() < 1e-6, "{found:?} against {expected}");
    }

    #[test]
    fn extremes_do_not_overflow() {
        assert_eq!(top(&[-300.0, 300.0], false).map(|top| (top.class, top.confidence)), Some((1, 1.0)));
        assert_eq!(top(&[0.25, 0.75], true).map(|top| (top.class, top.confidence)), Some((1, 0.75)));
        assert_eq!(top(&[], false), None);
    }
}
