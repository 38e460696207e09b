//! The ranking of layers that `equant inspect --sensitivity` shows.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::args::ExecArgs;
use super::error::Failure;
use super::model::{Kind, Model};
use super::output::{Output, table};
use crate::data::Samples;
use crate::metrics::spearman;
use crate::observe::Observer;
use crate::pipeline::{self, Progress as _};
use crate::report::numbers::{count, real};
use crate::report::plots;
use crate::sensitivity::{self, Judge, Layer, LayerDamage, Nearest, Widths};
use crate::{exec, files};

/// Samples used when nobody says how many: the ranking settles early, and every layer is run over them.
pub(super) const SAMPLES: usize = 128;
/// Times that noise is drawn to find what becomes of it.
const DRAWS: u32 = 2;

/// Layers by what quantizing each alone does.
#[derive(Serialize)]
pub(super) struct Ranking {
    /// Samples measured on.
    samples: usize,
    /// In graph order, each at every width.
    layers: Vec<LayerDamage>,
    /// How far prediction and measurement agree on the order, for each width.
    agreement: Vec<Agreement>,
    #[serde(skip)]
    sizes: Vec<Layer>,
}

#[derive(Serialize)]
struct Agreement {
    bits: Widths,
    /// Spearman's rank correlation; `None` for fewer than two layers.
    spearman: Option<f64>,
}

/// Predicts and measures.
pub(super) fn rank(
    model: &Model,
    samples: &Samples,
    bits: &[Widths],
    args: &ExecArgs,
    output: &Output,
) -> Result<Ranking, Failure> {
    if !matches!(model.kind, Kind::Float) {
        return Err(Failure::Usage(format!("--sensitivity: {} is no float model", model.file)));
    }
    let run_error = |source: exec::Error| pipeline::Error::run(&model.file, source);
    let (graph, backend, threads) = (&model.graph, args.backend.backend(), args.threads());
    let layers = sensitivity::layers(graph);
    let progress = output.progress();
    let start = std::time::Instant::now();
    progress.begin("observe", 2 * samples.len());
    let advance = |done| progress.advance(done);
    let mut inputs: Vec<String> =
        layers.iter().filter_map(|layer| graph.nodes.get(layer.index)?.input(0).map(str::to_owned)).collect();
    inputs.sort_unstable();
    inputs.dedup();
    let statistics = pipeline::statistics(graph, inputs, samples, backend, threads, &advance).map_err(run_error)?;
    let energies = sensitivity::energies(graph, &layers, samples, backend, threads, &advance).map_err(run_error)?;
    progress.end("observe", start.elapsed().as_secs_f64());
    let start = std::time::Instant::now();
    progress.begin("measure layers", layers.len() * (bits.len() + 2 * DRAWS as usize));
    let rounding = Nearest { statistics: &statistics, observer: Observer::Mse };
    let judge = Judge::new(graph, &layers, &rounding, samples, backend, threads).map_err(run_error)?;
    let gains = sensitivity::gains(&judge, &energies, DRAWS, &advance).map_err(run_error)?;
    let ranking = sensitivity::rank(&judge, &energies, &gains, bits, &advance).map_err(run_error)?;
    progress.end("measure layers", start.elapsed().as_secs_f64());
    let agreement = bits
        .iter()
        .map(|&bits| {
            let of = |damage: fn(&LayerDamage) -> f64| -> Vec<f64> {
                ranking.iter().filter(|layer| layer.bits == bits).map(damage).collect()
            };
            Agreement { bits, spearman: spearman(&of(|layer| layer.predicted), &of(|layer| layer.measured)) }
        })
        .collect();
    Ok(Ranking { samples: judge.samples(), layers: ranking, agreement, sizes: layers })
}

impl Ranking {
    /// Writes the plot of the last width.
    pub(super) fn plot(&self, path: &Path) -> Result<(), Failure> {
        let last = self.agreement.last().map(|agreement| agreement.bits);
        let shown: Vec<LayerDamage> = self.layers.iter().filter(|layer| Some(layer.bits) == last).cloned().collect();
        files::write_file(path, plots::sensitivity(&shown).as_bytes()).map_err(pipeline::Error::from)?;
        Ok(())
    }

    /// The layers, those that mind most at the last width first.
    pub(super) fn text(&self) -> String {
        let widths = self.agreement.len().max(1);
        let mut order: Vec<(&Layer, &[LayerDamage])> = self.sizes.iter().zip(self.layers.chunks(widths)).collect();
        let worst = |damages: &[LayerDamage]| damages.last().map_or(0.0, |damage| damage.measured);
        order.sort_by(|a, b| worst(b.1).total_cmp(&worst(a.1)));
        let mut head = vec!["layer".to_owned(), String::new(), "weights".into(), "MACs".into()];
        for agreement in &self.agreement {
            head.extend([format!("{} in the layer", agreement.bits), "predicted".into(), "measured".into()]);
        }
        let rows: Vec<Vec<String>> = order
            .iter()
            .map(|(layer, damages)| {
                let mut row =
                    vec![layer.op_type.clone(), layer.node.clone(), count(layer.parameters), count(layer.macs)];
                row.extend(damages.iter().flat_map(|d| [d.local, d.predicted, d.measured].map(real)));
                row
            })
            .collect();
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let mut out = format!("\n{}", table(2, &head, &rows));
        let agreement = self.agreement.iter().map(|agreement| match agreement.spearman {
            Some(rho) => format!("{} {rho:.2}", agreement.bits),
            None => format!("{} -", agreement.bits),
        });
        let _ = writeln!(
            out,
            "noise power over signal power with one layer quantized, on {} samples: at the layer's own output by the noise \
             model, and at the model's outputs, predicted by noise and measured; rank correlation of these: {}",
            self.samples,
            agreement.collect::<Vec<_>>().join(", "),
        );
        out
    }
}
