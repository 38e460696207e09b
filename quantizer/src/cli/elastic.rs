//! `equant analyze` and `equant export`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::args::{AnalyzeArgs, ExportArgs};
use super::error::Failure;
use super::output::{Output, table};
use crate::allocate::{self, Evolution};
use crate::elastic::{self, Analysis, Format};
use crate::pipeline::{self, Budget, Request};
use crate::quantize::Bits;
use crate::report::numbers::{bytes, decibels};
use crate::{files, pipeline::Error};

#[derive(Serialize)]
struct Written<'a> {
    analysis: String,
    layers: usize,
    samples: usize,
    base_db: f64,
    damage: &'a allocate::Table,
}

pub(super) fn analyze(args: AnalyzeArgs, output: &Output) -> Result<(), Failure> {
    let path = args.output.unwrap_or_else(|| args.model.with_extension("eqcal"));
    let request = Request {
        dims: args.exec.dims(),
        backend: args.exec.backend.backend(),
        threads: args.exec.threads(),
        preprocess: args.reading.preprocess,
        ..Request::new(args.model, args.calib)
    };
    let analysis = pipeline::analyze(&request, &output.progress())?;
    let image = elastic::to_bytes(&analysis).map_err(Error::Internal)?;
    files::write_file(&path, &image).map_err(Error::from)?;
    let written = Written {
        analysis: path.display().to_string(),
        layers: analysis.layers.len(),
        samples: analysis.samples,
        base_db: analysis.base_db,
        damage: &analysis.damage,
    };
    output.result(&written, || {
        format!("{}\nwrote {} ({})\n", damage(&analysis), written.analysis, bytes(image.len() as u64))
    })
}

/// What each option does to the outputs when it is the only narrow one.
fn damage(analysis: &Analysis) -> String {
    let noise = |db: f64| libm::pow(10.0, -db / 10.0);
    let options = analysis.damage.layers.first().map(|layer| layer.options.as_slice()).unwrap_or_default();
    let head: Vec<&str> = std::iter::once("layer").chain(options.iter().map(|option| option.label.as_str())).collect();
    let row = |layer: &allocate::LayerOptions| {
        let cells =
            layer.options.iter().map(|option| decibels(-10.0 * libm::log10(noise(analysis.base_db) + option.damage)));
        std::iter::once(layer.name.clone()).chain(cells).collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = analysis.damage.layers.iter().map(row).collect();
    format!("SQNR of the outputs with one layer at other bits, the rest at 8:\n\n{}", table(1, &head, &rows))
}

#[derive(Serialize)]
struct Exported {
    onnx: String,
    plan: String,
    onnx_bytes: u64,
    plan_bytes: u64,
    bits: BTreeMap<String, String>,
    predicted_db: f64,
}

pub(super) fn export(args: ExportArgs, output: &Output) -> Result<(), Failure> {
    let analysis = pipeline::read_analysis(&args.analysis)?;
    let layers = match args.budget {
        None => BTreeMap::new(),
        Some(Budget::Flash(most)) => search(&analysis, args.bits, most as f64, args.seed).map_err(|source| {
            Error::Budget { file: args.analysis.display().to_string(), budget: Budget::Flash(most).to_string(), source }
        })?,
        Some(_) => {
            return Err(Failure::Input("an analysis holds costs in bytes: give --budget flash=SIZE".to_owned()));
        }
    };
    let format =
        Format { bits: args.bits, layers, per_channel: !args.per_tensor, activations: args.activations.activations() };
    let name = pipeline::stem(&args.analysis);
    let folder = args.output.unwrap_or_else(|| Path::new("out").join(&name));
    files::probe(&folder).map_err(Error::from)?;
    let (onnx, compiled) = pipeline::export(&analysis, &format, &name, args.strip_names)?;
    let exported = Exported {
        onnx: folder.join(format!("{name}.onnx")).display().to_string(),
        plan: folder.join(format!("{name}.plan")).display().to_string(),
        onnx_bytes: onnx.len() as u64,
        plan_bytes: compiled.image.len() as u64,
        bits: analysis
            .layers
            .keys()
            .map(|layer| (layer.clone(), format.layers.get(layer).unwrap_or(&format.bits).to_string()))
            .collect(),
        predicted_db: predicted(&analysis, &format),
    };
    files::write_all(&folder, &[(format!("{name}.onnx"), onnx), (format!("{name}.plan"), compiled.image)])
        .map_err(Error::from)?;
    output.result(&exported, || {
        let narrow = exported.bits.values().filter(|bits| bits.contains('4')).count();
        format!(
            "{narrow} of {} layers with 4 bits; about {} by the measurements of single layers\nwrote {} ({})\nwrote {} ({})\n",
            exported.bits.len(),
            decibels(exported.predicted_db),
            exported.onnx,
            bytes(exported.onnx_bytes),
            exported.plan,
            bytes(exported.plan_bytes),
        )
    })
}

/// Weight widths for each layer by genetic search in the measured table, with the activations of `bits`.
fn search(analysis: &Analysis, bits: Bits, most: f64, seed: u64) -> Result<BTreeMap<String, Bits>, allocate::Error> {
    let mut table = analysis.damage.clone();
    for layer in &mut table.layers {
        layer.options.retain(|option| option.label.parse::<Bits>().is_ok_and(|b| b.activations == bits.activations));
    }
    let evolution = Evolution { seed, ..Evolution::default() };
    let found = allocate::genetic(&table, most, &evolution, |choice| table.allocation(choice.to_vec()).damage)?;
    let named = table.layers.iter().zip(&found.choice);
    Ok(named
        .map(|(layer, &choice)| {
            let option = layer.options.get(choice).and_then(|option| option.label.parse().ok());
            (layer.name.clone(), option.unwrap_or(bits))
        })
        .collect())
}

/// SQNR if the noise of layers adds up.
fn predicted(analysis: &Analysis, format: &Format) -> f64 {
    let damage = analysis.damage.layers.iter().map(|layer| {
        let label = format.layers.get(&layer.name).unwrap_or(&format.bits).to_string();
        layer.options.iter().find(|option| option.label == label).map_or(0.0, |option| option.damage)
    });
    -10.0 * libm::log10(libm::pow(10.0, -analysis.base_db / 10.0) + damage.sum::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::quantize::Width;

    #[test]
    fn a_search_spends_its_bytes_where_they_help_most() {
        let layer = |name: &str, narrow: f64, size: f64| allocate::LayerOptions {
            name: name.into(),
            options: [
                ("W8A8", 0.0, size),
                ("W8A4", 9.0, size),
                ("W4A8", narrow, size / 2.0),
                ("W4A4", 9.0, size / 2.0),
            ]
            .map(|(label, damage, cost)| allocate::OptionRow { label: label.into(), damage, cost })
            .into(),
        };
        let analysis = Analysis {
            graph: Graph::default(),
            samples: 1,
            statistics: BTreeMap::new(),
            ranges: BTreeMap::new(),
            layers: BTreeMap::new(),
            damage: allocate::Table { layers: vec![layer("a", 0.5, 100.0), layer("b", 0.1, 100.0)] },
            base_db: 30.0,
        };
        let found = search(&analysis, Bits::default(), 150.0, 0).unwrap();
        assert_eq!((found["a"].weights, found["b"].weights), (Width::Eight, Width::Four));
        assert!(found.values().all(|bits| bits.activations == Width::Eight));
        let refused = search(&analysis, Bits::default(), 90.0, 0).unwrap_err();
        assert!(refused.to_string().contains("least possible is 100"), "{refused}");
    }
}
