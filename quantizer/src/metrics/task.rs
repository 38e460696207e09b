//! What the model is for: class labels, agreement of classes, telling anomalies apart.

use serde::Serialize;

/// What a model is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Metric {
    /// Share of samples whose largest output is at the label's index.
    Top1,
    /// Area under the receiver operating characteristic of the reconstruction error of an autoencoder; label 1 marks
    /// an anomaly.
    Auc,
    /// Share of samples whose largest output is at the same index as the float model's.
    Agreement,
    /// Only the distance to the float model's outputs.
    Sqnr,
}

impl Metric {
    /// The metric for a model of this input and output shape (of one sample) and these labels.
    ///
    /// A model that gives back its input's shape is an autoencoder: with labels 0 and 1 it is judged by its area under
    /// the curve, without by its SQNR alone. Any other model with labels is a classifier; without labels, the classes
    /// of the float model take their place. A single output has no classes.
    pub fn choose(input: &[usize], output: &[usize], labels: Option<&[i64]>) -> Self {
        let reconstructs = input == output;
        let classes: usize = output.iter().product();
        match labels {
            Some(labels) if reconstructs && labels.iter().all(|label| matches!(label, 0 | 1)) => Self::Auc,
            _ if reconstructs || classes < 2 => Self::Sqnr,
            Some(_) => Self::Top1,
            None => Self::Agreement,
        }
    }

    /// Why the metric cannot be computed for such a model and labels, if it cannot.
    pub fn refuse(self, input: &[usize], output: &[usize], labels: Option<&[i64]>) -> Option<String> {
        let classes = output.iter().product::<usize>();
        match (self, labels) {
            (Self::Top1 | Self::Auc, None) => Some("it needs labels (array `y`), and the file has none".into()),
            (Self::Top1, Some(labels)) => labels.iter().find(|&&y| y < 0 || y as u64 >= classes as u64).map(|label| {
                format!(
                    "label {label} is no index into the {classes} outputs of the model: `y` must hold class numbers"
                )
            }),
            (Self::Auc, Some(_)) if input != output => Some(format!(
                "it compares outputs {output:?} with inputs {input:?}, so their shapes must be equal (an autoencoder)"
            )),
            (Self::Auc, Some(labels)) => match (labels.contains(&0), labels.contains(&1)) {
                (true, true) if labels.iter().all(|label| matches!(label, 0 | 1)) => None,
                _ => Some("it needs labels 0 (normal) and 1 (anomaly), and both must occur".into()),
            },
            _ => None,
        }
    }

    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Top1 => "top-1",
            Self::Auc => "AUC",
            Self::Agreement => "agreement",
            Self::Sqnr => "SQNR",
        }
    }
}

/// Index of the largest value, the first of equals; `None` for no values.
pub fn argmax(values: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (i, &value) in values.iter().enumerate() {
        if best.is_none_or(|(_, top)| value > top) {
            best = Some((i, value));
        }
    }
    best.map(|(i, _)| i)
}

/// Mean of the squared differences of one sample: the score of an anomaly.
pub fn mean_squared_error(input: &[f32], output: &[f32]) -> f64 {
    let sum: f64 = input.iter().zip(output).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    sum / input.len().max(1) as f64
}

/// Share of samples that are classified as labelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Top1 {
    hits: u64,
    samples: u64,
}

impl Top1 {
    /// Adds one sample.
    pub fn add(&mut self, output: &[f32], label: i64) {
        self.samples += 1;
        self.hits += u64::from(argmax(output).is_some_and(|class| i64::try_from(class) == Ok(label)));
    }

    /// Adds what another one has seen.
    pub fn merge(&mut self, other: &Self) {
        self.hits += other.hits;
        self.samples += other.samples;
    }

    /// The share, 0 to 1; `None` without samples.
    pub fn value(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.hits as f64 / self.samples as f64)
    }
}

/// Share of samples that are classified as the reference classifies them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agreement(Top1);

impl Agreement {
    /// Adds one sample.
    pub fn add(&mut self, reference: &[f32], output: &[f32]) {
        let class = argmax(reference).and_then(|class| i64::try_from(class).ok());
        self.0.add(output, class.unwrap_or(-1));
    }

    /// Adds what another one has seen.
    pub fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    /// The share, 0 to 1; `None` without samples.
    pub fn value(&self) -> Option<f64> {
        self.0.value()
    }
}

/// Area under the receiver operating characteristic: the probability that an anomaly scores higher than a normal
/// sample, with half a point for equal scores (the Mann-Whitney statistic). Keeps 16 bytes per sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Auc {
    scores: Vec<(f64, bool)>,
}

impl Auc {
    /// Adds one sample.
    pub fn add(&mut self, score: f64, anomaly: bool) {
        self.scores.push((score, anomaly));
    }

    /// Adds what another one has seen.
    pub fn merge(&mut self, other: &Self) {
        self.scores.extend_from_slice(&other.scores);
    }

    /// The area, 0 to 1; `None` unless both kinds occur.
    pub fn value(&self) -> Option<f64> {
        let mut sorted = self.scores.clone();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut normal, mut anomalies, mut doubled) = (0u64, 0u64, 0u128);
        for ties in sorted.chunk_by(|a, b| a.0 == b.0) {
            let high = ties.iter().filter(|(_, anomaly)| *anomaly).count() as u64;
            let low = ties.len() as u64 - high;
            doubled += u128::from(high) * u128::from(2 * normal + low);
            normal += low;
            anomalies += high;
        }
        (normal > 0 && anomalies > 0).then(|| doubled as f64 / 2.0 / (normal as f64 * anomalies as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_outputs_is_the_class() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(argmax(&[]), None);
    }

    #[test]
    fn top1_counts_labelled_classes() {
        let mut top1 = Top1::default();
        assert_eq!(top1.value(), None);
        top1.add(&[0.0, 1.0], 1);
        top1.add(&[0.0, 1.0], 0);
        let mut other = Top1::default();
        other.add(&[5.0, 1.0], 0);
        other.add(&[5.0, 1.0], -1);
        top1.merge(&other);
        assert_eq!(top1.value(), Some(0.5));
    }

    #[test]
    fn agreement_counts_equal_classes() {
        let mut agreement = Agreement::default();
        agreement.add(&[0.0, 1.0, 0.5], &[0.0, 0.7, 0.6]);
        agreement.add(&[0.0, 1.0, 0.5], &[0.0, 0.6, 0.7]);
        agreement.add(&[9.0, 1.0, 0.5], &[0.1, 0.0, 0.0]);
        assert_eq!(agreement.value(), Some(2.0 / 3.0));
    }

    #[test]
    fn auc_counts_pairs_and_half_of_ties() {
        let mut auc = Auc::default();
        for (score, anomaly) in [(0.1, false), (0.4, false), (0.35, true)] {
            auc.add(score, anomaly);
        }
        let mut other = Auc::default();
        other.add(0.8, true);
        // Pairs: (0.35, 0.1) yes, (0.35, 0.4) no, (0.8, 0.1) yes, (0.8, 0.4) yes.
        auc.merge(&other);
        assert_eq!(auc.value(), Some(0.75));
        // One more normal sample at 0.35: half a point against 0.35, one against 0.8.
        auc.add(0.35, false);
        assert_eq!(auc.value(), Some(4.5 / 6.0));
        assert_eq!(Auc::default().value(), None);
    }

    #[test]
    fn auc_of_equal_scores_is_one_half() {
        let mut auc = Auc::default();
        for i in 0..10 {
            auc.add(1.0, i % 3 == 0);
        }
        assert_eq!(auc.value(), Some(0.5));
    }

    #[test]
    fn the_score_of_an_anomaly_is_the_mean_squared_error() {
        assert_eq!(mean_squared_error(&[1.0, 2.0, 3.0, 4.0], &[1.0, 4.0, 3.0, 2.0]), 2.0);
    }

    #[test]
    fn the_metric_follows_from_shapes_and_labels() {
        let choose = Metric::choose;
        assert_eq!(choose(&[1, 28, 28], &[10], Some(&[3, 9])), Metric::Top1);
        assert_eq!(choose(&[1, 28, 28], &[10], None), Metric::Agreement);
        assert_eq!(choose(&[784], &[784], Some(&[0, 1, 1])), Metric::Auc);
        assert_eq!(choose(&[784], &[784], Some(&[0, 6])), Metric::Sqnr);
        assert_eq!(choose(&[784], &[784], None), Metric::Sqnr);
        assert_eq!(choose(&[5], &[1], Some(&[0, 1])), Metric::Sqnr);
    }

    #[test]
    fn metrics_that_do_not_fit_say_why() {
        let reason = |metric: Metric, output: &[usize], labels| metric.refuse(&[4], output, labels);
        assert!(reason(Metric::Top1, &[3], None).is_some_and(|r| r.contains("needs labels")));
        assert!(reason(Metric::Top1, &[3], Some(&[0, 3])).is_some_and(|r| r.contains("label 3")));
        assert!(reason(Metric::Top1, &[3], Some(&[-1])).is_some_and(|r| r.contains("label -1")));
        assert_eq!(reason(Metric::Top1, &[3], Some(&[0, 2])), None);
        assert!(reason(Metric::Auc, &[3], Some(&[0, 1])).is_some_and(|r| r.contains("shapes must be equal")));
        assert!(reason(Metric::Auc, &[4], Some(&[0, 0])).is_some_and(|r| r.contains("both must occur")));
        assert_eq!(reason(Metric::Auc, &[4], Some(&[0, 1])), None);
        assert_eq!(reason(Metric::Sqnr, &[3], None), None);
    }
}
