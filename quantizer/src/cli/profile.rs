//! The time each operator of a plan takes on this machine.

use std::time::{Duration, Instant};

use equant_runtime::operator::AllOperators;
use equant_runtime::plan::{LOGICAL_NCHW, OpView, Plan};
use equant_runtime::session::Profile;
use equant_runtime::{Error, Reason, Session};
use serde::Serialize;

use super::error::Failure;
use super::output::table;
use crate::data::Batch;
use crate::pipeline;
use crate::report::memory::AlignedImage;
use crate::report::numbers::{count, percent, seconds};

/// Runs a plan and sums up the time of each operator.
pub(super) struct Profiler {
    image: AlignedImage,
    arena: AlignedImage,
    file: String,
    operators: Vec<Operator>,
    samples: u32,
}

struct Operator {
    name: Option<String>,
    kind: &'static str,
    macs: u32,
    time: Duration,
}

#[derive(Serialize)]
pub(super) struct Times {
    profile: Vec<Time>,
    samples: u32,
}

#[derive(Serialize)]
struct Time {
    name: Option<String>,
    kind: &'static str,
    macs: u32,
    /// Mean over the samples.
    seconds: f64,
}

/// A stopwatch for each operator.
struct Watch<'a> {
    operators: &'a mut [Operator],
    start: Instant,
}

impl Profile for Watch<'_> {
    fn before(&mut self, _: &OpView<'_>) {
        self.start = Instant::now();
    }

    fn after(&mut self, op: &OpView<'_>, _: &[u8]) {
        let elapsed = self.start.elapsed();
        if let Some(operator) = self.operators.get_mut(usize::from(op.index)) {
            operator.time += elapsed;
        }
    }
}

impl Profiler {
    pub(super) fn new(image: &[u8], file: &str) -> Result<Self, Failure> {
        let image = AlignedImage::new(image);
        let refused = |source| pipeline::Error::Plan { file: file.to_owned(), source };
        let plan = Plan::<AllOperators>::parse(image.bytes()).map_err(refused)?;
        let operators = plan
            .ops()
            .map(|op| Operator {
                name: plan.op_name(&op).map(str::to_owned),
                kind: op.kind.name(),
                macs: op.macs,
                time: Duration::ZERO,
            })
            .collect();
        let arena = AlignedImage::new(&vec![0; plan.arena_len()]);
        Ok(Self { image, arena, file: file.to_owned(), operators, samples: 0 })
    }

    /// Runs one sample.
    pub(super) fn run(&mut self, sample: &Batch) -> Result<(), Failure> {
        self.run_sample(sample).map_err(|source| pipeline::Error::Plan { file: self.file.clone(), source }.into())
    }

    fn run_sample(&mut self, sample: &Batch) -> Result<(), Error> {
        let plan = Plan::<AllOperators>::parse(self.image.bytes())?;
        let mut session = Session::new(plan, self.arena.bytes_mut())?;
        for (i, input) in sample.inputs.iter().enumerate() {
            let record = plan.model_input(i).ok_or(Error::image(Reason::NoSuchTensor))?;
            match record.shape() {
                [1, h, w, c] if record.flags & LOGICAL_NCHW != 0 => {
                    session.quantize_input(i, &channels_last(input, (h * w) as usize, *c as usize))?;
                }
                _ => session.quantize_input(i, input)?,
            }
        }
        session.run_profiled(&mut Watch { operators: &mut self.operators, start: Instant::now() })?;
        self.samples += 1;
        Ok(())
    }

    pub(super) fn times(&self) -> Times {
        let mean = |time: Duration| time.as_secs_f64() / f64::from(self.samples.max(1));
        let profile = self
            .operators
            .iter()
            .map(|op| Time { name: op.name.clone(), kind: op.kind, macs: op.macs, seconds: mean(op.time) })
            .collect();
        Times { profile, samples: self.samples }
    }

    pub(super) fn text(&self) -> String {
        let times = self.times();
        let total: f64 = times.profile.iter().map(|op| op.seconds).sum();
        let mut rows: Vec<Vec<String>> = times
            .profile
            .iter()
            .enumerate()
            .map(|(i, op)| {
                vec![
                    i.to_string(),
                    op.kind.to_owned(),
                    op.name.clone().unwrap_or_default(),
                    count(u64::from(op.macs)),
                    seconds(op.seconds),
                    percent(if total > 0.0 { op.seconds / total } else { 0.0 }),
                ]
            })
            .collect();
        rows.push(vec![String::new(), "total".into(), String::new(), String::new(), seconds(total), String::new()]);
        let head = ["", "operator", "name", "MACs", "time", "share"];
        format!("\n{}mean of {} sample(s) on this machine\n", table(3, &head, &rows), times.samples)
    }
}

/// `[C, H·W]` to `[H·W, C]`.
fn channels_last(input: &[f32], pixels: usize, channels: usize) -> Vec<f32> {
    let at = |i: usize| input.get(i % channels * pixels + i / channels).copied().unwrap_or(0.0);
    (0..pixels * channels).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::channels_last;

    #[test]
    fn channels_go_last() {
        assert_eq!(channels_last(&[1.0, 2.0, 3.0, 10.0, 20.0, 30.0], 3, 2), [1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
    }
}
