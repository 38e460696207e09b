//! The exported file in float arithmetic and the plan in integers must tell the same story.

use super::evaluate::{Comparison, Run, evaluate};
use crate::data::Samples;
use crate::exec::{self, Runner};
use crate::metrics::{Evaluation, Tally};
use crate::report::Verification;

/// The three forms of a model; each runner gives the model's outputs.
pub(super) struct Models<'a> {
    pub(super) float: Box<dyn Runner + 'a>,
    pub(super) simulation: Box<dyn Runner + 'a>,
    pub(super) plan: Box<dyn Runner + 'a>,
}

const FLOAT: usize = 0;
const SIMULATION: usize = 1;
const PLAN: usize = 2;

impl Models<'_> {
    fn tallies(
        &self,
        comparisons: &[(usize, Option<usize>)],
        samples: &Samples,
        run: Run,
        advance: &dyn Fn(usize),
    ) -> Result<Vec<Tally>, exec::Error> {
        let comparisons: Vec<Comparison> =
            comparisons.iter().map(|&(subject, reference)| Comparison { subject, reference }).collect();
        evaluate(&[&*self.float, &*self.simulation, &*self.plan], &comparisons, samples, run, advance)
    }
}

/// The scores of all three against the float model.
pub(super) fn scores(
    models: &Models<'_>,
    samples: &Samples,
    run: Run,
    advance: &dyn Fn(usize),
) -> Result<Evaluation, exec::Error> {
    let pairs = [(FLOAT, None), (SIMULATION, Some(FLOAT)), (PLAN, Some(FLOAT))];
    let tallies = models.tallies(&pairs, samples, run, advance)?;
    Ok(evaluation(&tallies, samples, run))
}

/// The scores, and the distance between simulation and plan.
pub(super) fn verify(
    models: &Models<'_>,
    samples: &Samples,
    run: Run,
    advance: &dyn Fn(usize),
) -> Result<(Evaluation, Verification), exec::Error> {
    let pairs = [(FLOAT, None), (SIMULATION, Some(FLOAT)), (PLAN, Some(FLOAT)), (PLAN, Some(SIMULATION))];
    let tallies = models.tallies(&pairs, samples, run, advance)?;
    let between = tallies[3].scores("plan");
    let verification = Verification {
        samples: tallies[3].samples(),
        max_error_steps: between.max_error_steps.unwrap_or_default(),
        agreement: between.agreement,
        sqnr_db: between.sqnr_db.unwrap_or_default(),
    };
    Ok((evaluation(&tallies[..3], samples, run), verification))
}

fn evaluation(tallies: &[Tally], samples: &Samples, run: Run) -> Evaluation {
    let names = ["fp32", "simulation", "plan"];
    Evaluation {
        file: samples.path().display().to_string(),
        samples: tallies.first().map_or(0, Tally::samples),
        metric: run.metric,
        scores: tallies.iter().zip(names).map(|(tally, name)| tally.scores(name)).collect(),
    }
}

/// Largest difference of an output element that rounding explains, in steps. Both round each value of the model to
/// 8 bits, in f32 and in integers: where a value falls between two steps they may choose differently, and what
/// follows carries that on.
const MOST_STEPS: f64 = 4.0;
/// The noise between simulation and plan is at least this far below the noise that quantization makes: half of it.
const MARGIN_DB: f64 = 3.0;
/// That far below the signal noise is always allowed: a model fitted to a sample or two may follow them exactly.
const ENOUGH_DB: f64 = 60.0;
/// Share of samples that must have equal classes: all but one of [`super::CHECKED`].
const LEAST_AGREEMENT: f64 = 0.98;
/// With activations of 4 bits, two steps of 16 that are chosen differently lie 17 steps of 255 apart.
const NARROW_STEP: f64 = 17.0;
/// And one that is chosen differently decides a close race more often.
const LEAST_AGREEMENT_NARROW: f64 = 0.95;

/// What contradicts the claim that the plan computes what the file says, if anything does.
/// `narrow`: some activations have 4 bits.
pub(super) fn contradiction(check: &Verification, scores: &Evaluation, narrow: bool) -> Option<String> {
    let most_steps = if narrow { NARROW_STEP * MOST_STEPS } else { MOST_STEPS };
    let least_agreement = if narrow { LEAST_AGREEMENT_NARROW } else { LEAST_AGREEMENT };
    let noise = scores.of("simulation").and_then(|scores| scores.sqnr_db).unwrap_or_default();
    if check.max_error_steps > most_steps {
        return Some(format!(
            "an output of the plan differs from the simulation of the exported file by {:.2} steps of 255",
            check.max_error_steps
        ));
    }
    if check.sqnr_db < (noise + MARGIN_DB).min(ENOUGH_DB) {
        return Some(format!(
            "plan and simulation of the exported file differ with an SQNR of {:.1} dB, and quantization itself has {noise:.1} dB",
            check.sqnr_db
        ));
    }
    // With few samples one alone may miss the share.
    let others = check.agreement.map_or(0.0, |agreement| (1.0 - agreement) * check.samples as f64);
    if others > (1.0 - least_agreement) * check.samples as f64 && others > 1.5 {
        return Some(format!(
            "plan and simulation of the exported file classify {others:.0} of {} samples differently",
            check.samples
        ));
    }
    None
}

/// Whether the plan is about as near to the float model as the simulation is. In a deep model each value that is rounded
/// the other way changes how the next ones are rounded, until both err independently; what they do to the model's outputs
/// must still be alike.
pub(super) fn as_near(scores: &Evaluation) -> bool {
    let of = |subject| scores.of(subject).map(|scores| (scores.sqnr_db, scores.max_error_steps));
    let (Some((sqnr, error)), Some((plan_sqnr, plan_error))) = (of("simulation"), of("plan")) else { return false };
    let near = |plan: Option<f64>, least: Option<f64>| plan.zip(least).is_some_and(|(plan, least)| plan >= least);
    near(plan_sqnr, sqnr.map(|db| db - MARGIN_DB)) && near(error.map(|steps| 2.0 * steps), plan_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metric, Scores};

    fn of(subject: &str, sqnr_db: f64, max_error_steps: f64) -> Scores {
        Scores {
            subject: subject.into(),
            metric: None,
            agreement: None,
            sqnr_db: Some(sqnr_db),
            cosine: None,
            max_error_steps: Some(max_error_steps),
        }
    }

    fn evaluation(scores: Vec<Scores>) -> Evaluation {
        Evaluation { file: String::new(), samples: 64, metric: Metric::Agreement, scores }
    }

    fn scores(sqnr_db: f64) -> Evaluation {
        evaluation(vec![of("simulation", sqnr_db, 3.0)])
    }

    #[test]
    fn a_plan_may_err_as_much_as_the_simulation() {
        let pair = |sqnr, error| as_near(&evaluation(vec![of("simulation", 30.0, 7.0), of("plan", sqnr, error)]));
        assert!(pair(29.0, 8.0) && pair(33.0, 5.0));
        assert!(!pair(26.0, 8.0) && !pair(29.0, 15.0));
        assert!(!as_near(&scores(30.0)));
    }

    #[test]
    fn disagreement_is_named() {
        let good = Verification { samples: 64, max_error_steps: 1.0, agreement: Some(63.0 / 64.0), sqnr_db: 50.0 };
        assert_eq!(contradiction(&good, &scores(30.0), false), None);
        let exact = Verification { sqnr_db: 90.0, ..good.clone() };
        assert_eq!(contradiction(&exact, &scores(100.0), false), None);
        let far = Verification { max_error_steps: 60.0, ..good.clone() };
        assert_eq!(contradiction(&far, &scores(30.0), true), None);
        let cases = [
            (Verification { max_error_steps: 5.0, ..good.clone() }, "5.00 steps"),
            (Verification { sqnr_db: 32.0, ..good.clone() }, "SQNR of 32.0 dB"),
            (Verification { agreement: Some(62.0 / 64.0), ..good }, "2 of 64"),
        ];
        for (check, part) in cases {
            let reason = contradiction(&check, &scores(30.0), false).expect("a contradiction");
            assert!(reason.contains(part), "{reason}");
        }
    }
}
