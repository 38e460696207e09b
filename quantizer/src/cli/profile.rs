//! The time each operator of a plan takes on this machine.

use equant_runtime::plan::AlignedBytes;
use serde::Serialize;

use super::error::Failure;
use super::output::table;
use crate::compile::multiplies;
use crate::data::Batch;
use crate::exec::{OpProfile, PlanRunner};
use crate::pipeline;
use crate::report::numbers::{count, percent, seconds};

/// Times of a plan's operators over the samples run.
#[derive(Debug, Default, Serialize)]
pub(super) struct Times {
    profile: Vec<OpProfile>,
    samples: usize,
}

impl Times {
    /// Runs a batch of the plan at `image` and keeps the least time of each operator.
    pub(super) fn run(&mut self, image: &AlignedBytes, file: &str, batch: &Batch) -> Result<(), Failure> {
        let profile = PlanRunner::new(image).and_then(|runner| runner.profile(batch));
        let profile = profile.map_err(|source| pipeline::Error::run(file, source))?;
        if self.profile.is_empty() {
            self.profile = profile;
        } else {
            for (mine, new) in self.profile.iter_mut().zip(&profile) {
                mine.nanoseconds = mine.nanoseconds.min(new.nanoseconds);
            }
        }
        self.samples += batch.count;
        Ok(())
    }

    pub(super) fn text(&self) -> String {
        let time = |op: &OpProfile| op.nanoseconds as f64 * 1e-9;
        let total: f64 = self.profile.iter().map(time).sum();
        let mut rows: Vec<Vec<String>> = self
            .profile
            .iter()
            .enumerate()
            .map(|(i, op)| {
                vec![
                    i.to_string(),
                    op.kind.to_owned(),
                    op.name.clone(),
                    if multiplies(op.kind) { count(u64::from(op.macs)) } else { String::new() },
                    seconds(time(op)),
                    percent(if total > 0.0 { time(op) / total } else { 0.0 }),
                ]
            })
            .collect();
        let empty = String::new;
        rows.push(vec![empty(), "total".into(), empty(), empty(), seconds(total), empty()]);
        let head = ["", "operator", "name", "MACs", "time", "share"];
        format!("\n{}least time of {} sample(s) on this machine\n", table(3, &head, &rows), self.samples)
    }
}
