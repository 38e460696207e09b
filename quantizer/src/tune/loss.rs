//! Distances between the quantized model and the float model, as operators on the tape.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, bail};

/// `factor · Σᵢ uᵢ KL(pᵢ ‖ softmax xᵢ)` over samples, with the float model's probabilities `p`.
///
/// With an exponent γ = 1 and `uᵢ` = 1 this is plain distillation. With another γ only the teacher is tempered, `p ∝
/// p^γ` (TTM, Zheng and Yang, ICLR 2024, equation 8), and `uᵢ = Σⱼ pᵢⱼ^γ` weighs samples of which the teacher is less
/// certain higher (WTTM, the same, equation 15). Then an exact student is not a stationary point.
#[derive(Debug, Clone)]
pub(super) struct Distil {
    classes: usize,
    targets: Vec<f64>,
    weights: Vec<f64>,
    factor: f64,
}

/// How the teacher is tempered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tempering {
    /// γ = 1/T.
    pub(super) exponent: f64,
    /// Whether samples are weighed by U.
    pub(super) weighted: bool,
}

/// ln softmax.
fn log_softmax(x: &[f32]) -> Vec<f64> {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted: Vec<f64> = x.iter().map(|&x| f64::from(x) - f64::from(largest)).collect();
    let total = shifted.iter().map(|x| x.exp()).sum::<f64>().ln();
    shifted.into_iter().map(|x| x - total).collect()
}

impl Distil {
    /// `teacher`: the float model's logits.
    pub(super) fn new(teacher: &[f32], classes: usize, tempering: Tempering, factor: f64) -> Self {
        let (mut targets, mut weights) = (Vec::with_capacity(teacher.len()), Vec::new());
        for logits in teacher.chunks(classes) {
            let powers: Vec<f64> = log_softmax(logits).iter().map(|l| (l * tempering.exponent).exp()).collect();
            let total: f64 = powers.iter().sum();
            targets.extend(powers.iter().map(|p| p / total));
            weights.push(if tempering.weighted { total } else { 1.0 });
        }
        Self { classes, targets, weights, factor }
    }

    fn samples<'s>(&'s self, x: &'s [f32]) -> impl Iterator<Item = ((&'s [f32], &'s [f64]), f64)> {
        x.chunks(self.classes).zip(self.targets.chunks(self.classes)).zip(self.weights.iter().copied())
    }

    /// The distance.
    pub(super) fn value(&self, x: &[f32]) -> f64 {
        let divergence = |x: &[f32], p: &[f64]| -> f64 {
            let terms = log_softmax(x).into_iter().zip(p);
            terms.map(|(log_q, &p)| if p > 0.0 { p * (p.ln() - log_q) } else { 0.0 }).sum()
        };
        self.factor * self.samples(x).map(|((x, p), u)| u * divergence(x, p)).sum::<f64>()
    }

    /// `factor · u (q − p)`.
    pub(super) fn gradient(&self, x: &[f32]) -> Vec<f32> {
        let one = |((x, p), u): ((&[f32], &[f64]), f64)| {
            let gradient = log_softmax(x).into_iter().zip(p.to_vec());
            gradient.map(|(log_q, p)| (self.factor * u * (log_q.exp() - p)) as f32).collect::<Vec<f32>>()
        };
        self.samples(x).flat_map(one).collect()
    }
}

/// `factor · Σ (x − target)²`.
#[derive(Debug, Clone)]
pub(super) struct Squares {
    /// What the values should be.
    pub(super) target: Vec<f32>,
    /// The factor.
    pub(super) factor: f64,
}

impl Squares {
    /// The distance.
    pub(super) fn value(&self, x: &[f32]) -> f64 {
        let mut total = 0.0;
        for (x, t) in x.chunks(1024).zip(self.target.chunks(1024)) {
            let mut lanes = [0.0f32; 16];
            for (x, t) in x.chunks(16).zip(t.chunks(16)) {
                lanes.iter_mut().zip(x.iter().zip(t)).for_each(|(sum, (x, t))| *sum += (x - t) * (x - t));
            }
            total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
        }
        self.factor * total
    }

    fn gradient(&self, x: &[f32]) -> Vec<f32> {
        let factor = (2.0 * self.factor) as f32;
        x.iter().zip(&self.target).map(|(x, t)| factor * (x - t)).collect()
    }
}

/// `factor · Σ Kurt(y)` over rows: for each place of a layer's output, the kurtosis over its channels. Outliers among
/// channels are what costs the others their levels (Nrusimha et al. 2024, section 4.2); there is no target value.
#[derive(Debug, Clone)]
pub(super) struct Kurtosis {
    /// Number of channels.
    pub(super) channels: usize,
    /// Elements between two channels of one place: 1 where channels are the last axis.
    pub(super) inner: usize,
    /// The factor.
    pub(super) factor: f64,
}

/// Keeps rows of equal numbers finite.
const VARIANCE: f64 = 1e-6;

impl Kurtosis {
    /// Index of the first channel of each place.
    fn places(&self, len: usize) -> impl Iterator<Item = usize> + use<> {
        let (block, inner) = ((self.channels * self.inner).max(1), self.inner);
        (0..len / block).flat_map(move |i| (0..inner).map(move |j| i * block + j))
    }

    fn row<'x>(&self, x: &'x [f32], first: usize) -> impl Iterator<Item = f64> + Clone + 'x {
        x[first..].iter().step_by(self.inner.max(1)).take(self.channels).map(|&x| f64::from(x))
    }

    /// Mean, variance (not 0), third and fourth central moment.
    fn moments(&self, row: impl Iterator<Item = f64> + Clone) -> [f64; 4] {
        let n = self.channels.max(1) as f64;
        let mean = row.clone().sum::<f64>() / n;
        let moment = |power: i32| row.clone().map(|x| (x - mean).powi(power)).sum::<f64>() / n;
        [mean, moment(2) + VARIANCE, moment(3), moment(4)]
    }

    /// The penalty.
    pub(super) fn value(&self, x: &[f32]) -> f64 {
        let kurtosis = |first: usize| {
            let [_, m2, _, m4] = self.moments(self.row(x, first));
            m4 / (m2 * m2)
        };
        self.factor * self.places(x.len()).map(kurtosis).sum::<f64>()
    }

    /// `factor · 4/(n m₂²) (d³ − m₃ − Kurt m₂ d)`.
    pub(super) fn gradient(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        for first in self.places(x.len()) {
            let [mean, m2, m3, m4] = self.moments(self.row(x, first));
            let factor = self.factor * 4.0 / (self.channels as f64 * m2 * m2);
            for (i, value) in self.row(x, first).enumerate() {
                let d = value - mean;
                out[first + i * self.inner] = (factor * (d * d * d - m3 - m4 / m2 * d)) as f32;
            }
        }
        out
    }
}

/// The elements of a contiguous tensor.
fn elements<'s>(storage: &'s CpuStorage, layout: &Layout) -> Result<&'s [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("an operand is not contiguous"),
    }
}

/// The gradient `f` of a sum, times the gradient of the sum.
fn backward(x: &Tensor, g: &Tensor, f: impl FnOnce(&[f32]) -> Vec<f32>) -> Result<Option<Tensor>> {
    let g = g.to_scalar::<f32>()?;
    let gradient = {
        let (storage, layout) = x.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { bail!("a tensor is not in main memory") };
        f(elements(storage, layout)?)
    };
    let gradient = if g == 1.0 { gradient } else { gradient.into_iter().map(|d| d * g).collect() };
    Tensor::from_vec(gradient, x.shape(), x.device()).map(Some)
}

impl CustomOp1 for Distil {
    fn name(&self) -> &'static str {
        "distil"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![self.value(elements(x, layout)?) as f32]), Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        backward(x, g, |x| self.gradient(x))
    }
}

impl CustomOp1 for Kurtosis {
    fn name(&self) -> &'static str {
        "kurtosis"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![self.value(elements(x, layout)?) as f32]), Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        backward(x, g, |x| self.gradient(x))
    }
}

impl CustomOp1 for Squares {
    fn name(&self) -> &'static str {
        "squares"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![self.value(elements(x, layout)?) as f32]), Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        backward(x, g, |x| self.gradient(x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Tempering = Tempering { exponent: 1.0, weighted: false };

    fn logits(seed: u32, count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i as f32 + 0.5) * (1.3 + seed as f32)).sin() * 3.0).collect()
    }

    /// The probabilities of `gamma · x`.
    fn tempered(x: &[f32], gamma: f64) -> Vec<f64> {
        let powers: Vec<f64> = x.iter().map(|&x| (gamma * f64::from(x)).exp()).collect();
        let total: f64 = powers.iter().sum();
        powers.iter().map(|p| p / total).collect()
    }

    fn divergence(p: &[f64], q: &[f64]) -> f64 {
        p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
    }

    /// KL(p^γ ‖ q) = T KL(p^γ ‖ q^γ) − (T − 1) H_γ(q) + (T − 1) H(p^γ), with the Rényi entropy of the student.
    #[test]
    fn a_tempered_teacher_adds_renyi_entropy() {
        let (t, s) = (logits(1, 10), logits(2, 10));
        for temperature in [2.0f64, 4.0] {
            let gamma = 1.0 / temperature;
            let (p, q, q_gamma) = (tempered(&t, gamma), tempered(&s, 1.0), tempered(&s, gamma));
            let renyi = q.iter().map(|q| q.powf(gamma)).sum::<f64>().ln() / (1.0 - gamma);
            let entropy: f64 = p.iter().map(|p| -p * p.ln()).sum();
            let expected =
                temperature * divergence(&p, &q_gamma) - (temperature - 1.0) * renyi + (temperature - 1.0) * entropy;
            let tempering = Tempering { exponent: gamma, weighted: false };
            let found = Distil::new(&t, 10, tempering, 1.0).value(&s);
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
    }

    #[test]
    fn weights_are_between_certain_and_uniform() {
        let tempering = Tempering { exponent: 0.25, weighted: true };
        let weight = |logits: &[f32]| Distil::new(logits, logits.len(), tempering, 1.0).weights[0];
        assert!((weight(&[0.0; 8]) - 8f64.powf(0.75)).abs() < 1e-9);
        assert!((weight(&[400.0, 0.0, 0.0]) - 1.0).abs() < 1e-9);
        assert_eq!(Distil::new(&[1.0, 2.0], 2, PLAIN, 1.0).weights, [1.0]);
    }

    #[test]
    fn only_plain_distillation_rests_at_the_teacher() {
        let t = logits(3, 12);
        let plain = Distil::new(&t, 4, PLAIN, 1.0);
        assert!(plain.value(&t).abs() < 1e-9 && plain.gradient(&t).iter().all(|g| g.abs() < 1e-6));
        // A constant added to all logits changes nothing.
        let moved: Vec<f32> = t.iter().map(|x| x + 2.0).collect();
        assert!(plain.value(&moved).abs() < 1e-6);
        let tempered = Distil::new(&t, 4, Tempering { exponent: 0.5, weighted: false }, 1.0);
        assert!(tempered.gradient(&t).iter().any(|g| g.abs() > 1e-2));
        // It rests where the student is the tempered teacher.
        let half: Vec<f32> = t.iter().map(|x| x / 2.0).collect();
        assert!(tempered.value(&half).abs() < 1e-9);
    }

    #[track_caller]
    fn follows(gradient: &[f32], x: &[f32], value: impl Fn(&[f32]) -> f64) {
        for i in 0..x.len() {
            let at = |by: f32| {
                let mut moved = x.to_vec();
                moved[i] += by;
                value(&moved)
            };
            let expected = (at(1e-2) - at(-1e-2)) / 2e-2;
            let error = (f64::from(gradient[i]) - expected).abs();
            assert!(error < 2e-3 * expected.abs().max(0.1), "{i}: {} for {expected}", gradient[i]);
        }
    }

    #[test]
    fn gradients_follow_finite_differences() {
        let (t, s) = (logits(1, 20), logits(2, 20));
        for (exponent, weighted) in [(1.0, false), (0.5, false), (0.5, true)] {
            let distil = Distil::new(&t, 5, Tempering { exponent, weighted }, 0.7);
            follows(&distil.gradient(&s), &s, |x| distil.value(x));
        }
        let squares = Squares { target: t, factor: 0.3 };
        follows(&squares.gradient(&s), &s, |x| squares.value(x));
        for (channels, inner) in [(10, 1), (5, 2)] {
            let kurtosis = Kurtosis { channels, inner, factor: 0.4 };
            follows(&kurtosis.gradient(&s), &s, |x| kurtosis.value(x));
        }
    }

    #[test]
    fn kurtosis_tells_outliers() {
        let mut random = crate::random::Random::at(3, [0, 0]);
        let mut token: Vec<f32> =
            (0..20_000).map(|_| (0..12).map(|_| random.uniform() as f32).sum::<f32>() - 6.0).collect();
        let whole = Kurtosis { channels: token.len(), inner: 1, factor: 1.0 };
        assert!((whole.value(&token) - 2.9).abs() < 0.1);
        let few = Kurtosis { channels: 500, inner: 1, factor: 1.0 };
        token.truncate(500);
        token[7] = 100.0;
        assert!(few.value(&token) > 50.0);
        // Small steps down the gradient lower it, every one.
        let mut last = few.value(&token);
        for _ in 0..20 {
            let gradient = few.gradient(&token);
            token.iter_mut().zip(&gradient).for_each(|(x, g)| *x -= 0.05 * g);
            let now = few.value(&token);
            assert!(now < last);
            last = now;
        }
    }
}
