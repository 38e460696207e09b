//! Running totals of everything a model is judged by, and what they come to.

use serde::Serialize;

use super::{Agreement, Auc, Cosine, MaxError, Metric, Sqnr, Top1, mean_squared_error};

/// One sample: what went in, what came out, and what should have.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// The first model input.
    pub input: &'a [f32],
    /// The model outputs.
    pub outputs: &'a [&'a [f32]],
    /// The outputs of the model it is compared with, if any.
    pub reference: Option<&'a [&'a [f32]]>,
    /// The label.
    pub label: Option<i64>,
}

/// Running totals over samples, for one model.
#[derive(Debug, Clone)]
pub struct Tally {
    metric: Metric,
    samples: usize,
    top1: Top1,
    auc: Auc,
    agreement: Agreement,
    cosine: Cosine,
    sqnr: Sqnr,
    errors: Vec<MaxError>,
    compared: bool,
}

impl Tally {
    /// Totals for this metric; distances to the reference are always kept.
    pub fn new(metric: Metric) -> Self {
        Self {
            metric,
            samples: 0,
            top1: Top1::default(),
            auc: Auc::default(),
            agreement: Agreement::default(),
            cosine: Cosine::default(),
            sqnr: Sqnr::default(),
            errors: Vec::new(),
            compared: false,
        }
    }

    /// Adds one sample. Classes and labels concern the first output, distances all of them.
    pub fn add(&mut self, sample: &Observation<'_>) {
        self.samples += 1;
        let first = sample.outputs.first().copied().unwrap_or_default();
        match (self.metric, sample.label) {
            (Metric::Top1, Some(label)) => self.top1.add(first, label),
            (Metric::Auc, Some(label)) => self.auc.add(mean_squared_error(sample.input, first), label == 1),
            _ => {}
        }
        let Some(reference) = sample.reference else { return };
        self.compared = true;
        self.agreement.add(reference.first().copied().unwrap_or_default(), first);
        self.cosine.add(&reference.concat(), &sample.outputs.concat());
        self.errors.resize(sample.outputs.len(), MaxError::default());
        for ((r, o), error) in reference.iter().zip(sample.outputs).zip(&mut self.errors) {
            self.sqnr.add(r, o);
            error.add(r, o);
        }
    }

    /// Adds what another one has seen, which comes later in sample order.
    pub fn merge(&mut self, later: &Self) {
        self.samples += later.samples;
        self.top1.merge(&later.top1);
        self.auc.merge(&later.auc);
        self.agreement.merge(&later.agreement);
        self.cosine.merge(&later.cosine);
        self.sqnr.merge(&later.sqnr);
        self.errors.resize(self.errors.len().max(later.errors.len()), MaxError::default());
        self.errors.iter_mut().zip(&later.errors).for_each(|(mine, other)| mine.merge(other));
        self.compared |= later.compared;
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// What the totals come to.
    pub fn scores(&self, subject: &str) -> Scores {
        let has_classes = matches!(self.metric, Metric::Top1 | Metric::Agreement);
        let compared = self.compared.then_some(());
        Scores {
            subject: subject.to_owned(),
            metric: match self.metric {
                Metric::Top1 => self.top1.value(),
                Metric::Auc => self.auc.value(),
                Metric::Agreement | Metric::Sqnr => None,
            },
            agreement: compared.filter(|()| has_classes).and_then(|()| self.agreement.value()),
            sqnr_db: compared.map(|()| self.sqnr.decibels()),
            cosine: compared.and_then(|()| self.cosine.mean()),
            max_error_steps: compared.and_then(|()| self.errors.iter().filter_map(MaxError::steps).reduce(f64::max)),
        }
    }
}

/// What one model scores.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scores {
    /// Which model: `fp32`, `simulation` (the quantized model in float arithmetic) or `plan`.
    pub subject: String,
    /// The task metric (top-1 or AUC), 0 to 1.
    pub metric: Option<f64>,
    /// Share of samples with the reference's class, 0 to 1.
    pub agreement: Option<f64>,
    /// Distance to the reference, in decibels; 200 stands for equality.
    pub sqnr_db: Option<f64>,
    /// Mean cosine similarity with the reference.
    pub cosine: Option<f64>,
    /// Largest difference of any output element to the reference, in 255ths of the range of that output.
    pub max_error_steps: Option<f64>,
}

/// The scores of several models on the same samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// The sample file.
    pub file: String,
    /// Number of samples.
    pub samples: usize,
    /// What the models are judged by.
    pub metric: Metric,
    /// The scores, the reference first.
    pub scores: Vec<Scores>,
}

impl Evaluation {
    /// The scores of a subject.
    pub fn of(&self, subject: &str) -> Option<&Scores> {
        self.scores.iter().find(|scores| scores.subject == subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe<'a>(outputs: &'a [&'a [f32]], reference: Option<&'a [&'a [f32]]>, label: i64) -> Observation<'a> {
        Observation { input: &[0.0, 1.0], outputs, reference, label: Some(label) }
    }

    #[test]
    fn totals_split_over_batches_are_the_same() {
        let samples = [([0.0, 1.0], [0.5, 1.0], 1), ([2.0, 1.0], [0.5, 1.0], 1), ([3.0, 1.0], [3.0, 1.0], 0)];
        let mut whole = Tally::new(Metric::Top1);
        let mut split = Tally::new(Metric::Top1);
        for (outputs, reference, label) in samples {
            let (outputs, reference) = ([outputs.as_slice()], [reference.as_slice()]);
            whole.add(&observe(&outputs, Some(&reference), label));
            let mut one = Tally::new(Metric::Top1);
            one.add(&observe(&outputs, Some(&reference), label));
            split.merge(&one);
        }
        let scores = whole.scores("plan");
        assert_eq!(scores, split.scores("plan"));
        assert_eq!(scores.metric, Some(2.0 / 3.0));
        assert_eq!(scores.agreement, Some(2.0 / 3.0));
        // Error 1.5, range 0 to 3.
        assert_eq!(scores.max_error_steps, Some(127.5));
        // Signal 1.25 + 1.25 + 10 = 12.5, noise 0.25 + 2.25 = 2.5: a ratio of 5.
        assert!((scores.sqnr_db.expect("compared") - 6.989_700_043).abs() < 1e-6);
    }

    #[test]
    fn steps_belong_to_their_output() {
        let mut tally = Tally::new(Metric::Sqnr);
        // Errors of 1 in a range of 1, and of 10 in a range of 1000.
        tally.add(&observe(&[&[0.0], &[990.0]], Some(&[&[1.0], &[1000.0]]), 0));
        assert_eq!(tally.scores("plan").max_error_steps, Some(255.0));
    }

    #[test]
    fn without_a_reference_there_are_no_distances() {
        let mut tally = Tally::new(Metric::Auc);
        tally.add(&observe(&[&[0.0, 1.0]], None, 0));
        tally.add(&observe(&[&[0.0, 3.0]], None, 1));
        let scores = tally.scores("fp32");
        assert_eq!((scores.metric, scores.agreement, scores.sqnr_db, scores.cosine), (Some(1.0), None, None, None));
    }
}
