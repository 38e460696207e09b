//! From observed values to a quantized model, for any configuration.

use std::collections::BTreeMap;

use super::ranges::Observed;
use super::reconstruct::{Rounded, reconstruct, simulate};
use super::trial::{Judged, Trial};
use super::{Error, Request, output_names};
use crate::data::Samples;
use crate::graph::Graph;
use crate::observe::Range;
use crate::quantize::{self, Config, Outcome};

/// What models are made from.
#[derive(Clone, Copy)]
pub(super) struct Maker<'a> {
    pub(super) graph: &'a Graph,
    pub(super) observed: &'a Observed,
    pub(super) samples: &'a Samples,
    pub(super) trial: &'a Trial<'a>,
    pub(super) request: &'a Request,
    pub(super) file: &'a str,
}

impl Maker<'_> {
    /// The ranges of activations, unless an observer is to choose them.
    pub(super) fn ranges(&self, config: &Config) -> Result<BTreeMap<String, Range>, Error> {
        self.observed.ranges(self.graph, config, self.request.threads).map_err(|source| self.quantize_error(source))
    }

    /// Weights are rounded to nearest.
    pub(super) fn nearest(&self, config: &Config, ranges: &BTreeMap<String, Range>) -> Result<Outcome, Error> {
        quantize::quantize_with(self.graph, &self.observed.statistics, config, ranges)
            .map_err(|source| self.quantize_error(source))
    }

    fn quantize_error(&self, source: quantize::Error) -> Error {
        Error::Quantize { file: self.file.to_owned(), source: Box::new(source) }
    }

    /// Weights are rounded for the outputs of layers.
    pub(super) fn rounded(
        &self,
        outcome: &Outcome,
        config: &Config,
        advance: &dyn Fn(usize),
    ) -> Result<Rounded, Error> {
        reconstruct(self.graph, outcome, config, self.samples, self.request, self.file, advance)
    }

    /// All of it.
    pub(super) fn model(&self, config: &Config) -> Result<Rounded, Error> {
        self.rounded(&self.nearest(config, &self.ranges(config)?)?, config, &|_| ())
    }

    /// Judges what rounding came to, from where it left the samples if they are those of the trial.
    pub(super) fn judge_rounded(&self, rounded: Rounded) -> Result<Judged, Error> {
        let Rounded { outcome, prefix } = rounded;
        let Some(prefix) = prefix.filter(|prefix| self.trial.begins(prefix.samples())) else {
            return self.judge(outcome, &|_| ());
        };
        let simulated = simulate(self.graph, &outcome, self.file)?;
        let (outputs, samples) = (output_names(self.graph), self.trial.len());
        let ran = prefix.finish(&simulated, outputs, samples, self.request.backend, self.request.threads);
        let ran = ran.map_err(|source| Error::run(self.file, source))?;
        Ok(self.trial.judge_outputs(self.graph, outcome, &ran))
    }

    pub(super) fn judge(&self, outcome: Outcome, advance: &dyn Fn(usize)) -> Result<Judged, Error> {
        self.trial.judge(self.graph, outcome, advance)
    }
}
