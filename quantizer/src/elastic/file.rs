//! The file of an analysis, `.eqcal`: a zip archive of the prepared model, the integers, and everything else as JSON.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _, Write as _};

use serde::{Deserialize, Serialize};
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::{Analysis, Variant};
use crate::allocate::{LayerOptions, OptionRow, Table};
use crate::observe::{Range, Statistics};
use crate::onnx;
use crate::quantize::Width;

/// Version of the format: raised when an older reader would misread it.
const VERSION: u32 = 1;
/// Bytes at most that an entry of the archive may take, unpacked.
const MOST_BYTES: u64 = 4 << 30;
const MODEL: &str = "model.onnx";
const NUMBERS: &str = "analysis.json";
const INTEGERS: &str = "integers.bin";

/// Why an analysis was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a zip archive, or a part of it is missing or damaged.
    #[error("{file}: not an analysis that can be read: {reason}; make one with `equant analyze`")]
    Archive {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Of another version of the format.
    #[error("{file}: version {found} of the format; this program reads version {VERSION}: analyze the model again")]
    Version {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
    },
    /// The model within cannot be read.
    #[error(transparent)]
    Model(#[from] onnx::Error),
}

/// Label, damage and cost of each option.
type Rows = Vec<(String, f64, f64)>;

#[derive(Serialize, Deserialize)]
struct Numbers {
    version: u32,
    samples: usize,
    base_db: f64,
    statistics: BTreeMap<String, Statistics>,
    ranges: Vec<(u32, BTreeMap<String, Range>)>,
    layers: BTreeMap<String, Vec<Format>>,
    damage: Vec<(String, Rows)>,
}

/// A variant without its integers, which lie in a file of their own, one byte each, in the order of these.
#[derive(Serialize, Deserialize)]
struct Format {
    bits: u32,
    per_channel: bool,
    count: usize,
    scales: Vec<f32>,
    bias: Option<Vec<f64>>,
    constant: Option<(String, Vec<f32>)>,
}

/// The bytes of a file.
///
/// # Errors
///
/// In words; none is expected.
pub fn to_bytes(analysis: &Analysis) -> Result<Vec<u8>, String> {
    let format = |variant: &Variant| Format {
        bits: variant.width.bits(),
        per_channel: variant.per_channel,
        count: variant.integers.len(),
        scales: variant.scales.clone(),
        bias: variant.bias.clone(),
        constant: variant.constant.clone(),
    };
    let rows = |layer: &LayerOptions| {
        let rows = layer.options.iter().map(|row| (row.label.clone(), row.damage, row.cost)).collect();
        (layer.name.clone(), rows)
    };
    let numbers = Numbers {
        version: VERSION,
        samples: analysis.samples,
        base_db: analysis.base_db,
        statistics: analysis.statistics.clone(),
        ranges: analysis.ranges.iter().map(|(width, ranges)| (width.bits(), ranges.clone())).collect(),
        layers: analysis.layers.iter().map(|(name, all)| (name.clone(), all.iter().map(format).collect())).collect(),
        damage: analysis.damage.layers.iter().map(rows).collect(),
    };
    let variants = analysis.layers.values().flatten();
    let integers: Vec<u8> = variants.flat_map(|variant| variant.integers.iter().map(|&q| q as i8 as u8)).collect();
    let numbers = serde_json::to_vec(&numbers).map_err(|e| e.to_string())?;
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in [(MODEL, onnx::to_bytes(&analysis.graph)), (NUMBERS, numbers), (INTEGERS, integers)] {
        // A fixed time keeps the bytes the same from run to run.
        archive.start_file(name, SimpleFileOptions::default()).map_err(|e| e.to_string())?;
        archive.write_all(&bytes).map_err(|e| e.to_string())?;
    }
    Ok(archive.finish().map_err(|e| e.to_string())?.into_inner())
}

/// Reads the bytes of `file`.
///
/// # Errors
///
/// See [`Error`].
pub fn from_bytes(bytes: &[u8], file: &str) -> Result<Analysis, Error> {
    let wrong = |reason: String| Error::Archive { file: file.to_owned(), reason };
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| wrong(e.to_string()))?;
    let mut entry = |name: &str| -> Result<Vec<u8>, Error> {
        let entry = archive.by_name(name).map_err(|e| wrong(format!("{name}: {e}")))?;
        let mut bytes = Vec::new();
        entry.take(MOST_BYTES).read_to_end(&mut bytes).map_err(|e| wrong(format!("{name}: {e}")))?;
        Ok(bytes)
    };
    let (model, numbers, integers) = (entry(MODEL)?, entry(NUMBERS)?, entry(INTEGERS)?);
    let version: serde_json::Value = serde_json::from_slice(&numbers).map_err(|e| wrong(e.to_string()))?;
    let found = version["version"].as_u64().unwrap_or(0) as u32;
    if found != VERSION {
        return Err(Error::Version { file: file.to_owned(), found });
    }
    let numbers: Numbers = serde_json::from_value(version).map_err(|e| wrong(format!("{NUMBERS}: {e}")))?;
    let width = |bits: u32| match bits {
        4 => Ok(Width::Four),
        8 => Ok(Width::Eight),
        other => Err(wrong(format!("a width of {other} bits"))),
    };
    let mut rest = integers.as_slice();
    let mut layers = BTreeMap::new();
    for (name, formats) in numbers.layers {
        let mut variants = Vec::new();
        for format in formats {
            let (own, left) = rest
                .split_at_checked(format.count)
                .ok_or_else(|| wrong(format!("{INTEGERS} ends within the weights of `{name}`")))?;
            rest = left;
            variants.push(Variant {
                width: width(format.bits)?,
                per_channel: format.per_channel,
                integers: own.iter().map(|&q| i32::from(q as i8)).collect(),
                scales: format.scales,
                bias: format.bias,
                constant: format.constant,
            });
        }
        layers.insert(name, variants);
    }
    if !rest.is_empty() {
        return Err(wrong(format!("{INTEGERS} holds {} bytes too many", rest.len())));
    }
    let mut ranges = BTreeMap::new();
    for (bits, of_width) in numbers.ranges {
        ranges.insert(width(bits)?, of_width);
    }
    let graph = onnx::from_bytes(&model, None, file)?;
    check(&graph, &layers).map_err(wrong)?;
    let options = |(name, rows): (String, Rows)| LayerOptions {
        name,
        options: rows.into_iter().map(|(label, damage, cost)| OptionRow { label, damage, cost }).collect(),
    };
    Ok(Analysis {
        graph,
        samples: numbers.samples,
        statistics: numbers.statistics,
        ranges,
        layers,
        damage: Table { layers: numbers.damage.into_iter().map(options).collect() },
        base_db: numbers.base_db,
    })
}

/// Whether the integers and scales fit the weights of the nodes they are for.
fn check(graph: &crate::graph::Graph, layers: &BTreeMap<String, Vec<Variant>>) -> Result<(), String> {
    for (name, variants) in layers {
        let node = graph.nodes.iter().find(|node| node.name == *name);
        let weights = node.and_then(|node| Some((node, graph.initializers.get(node.input(1)?)?)));
        let (node, weights) = weights.ok_or_else(|| format!("the model has no layer `{name}`"))?;
        let channels = weights.shape.get(crate::quantize::channel_axis(node, weights.shape.len())).copied();
        // Weights of a transposed convolution have the outputs of one group.
        let groups =
            if node.op_type == "ConvTranspose" { usize::try_from(node.int("group", 1)).unwrap_or(1) } else { 1 };
        let outputs = channels.map(|channels| channels.saturating_mul(groups));
        for variant in variants {
            let scales = if variant.per_channel { channels.unwrap_or(1) } else { 1 };
            let (low, high) = if variant.width == Width::Four { (-8, 7) } else { (-128, 127) };
            let sound = variant.integers.len() == weights.len()
                && variant.scales.len() == scales
                && variant.scales.iter().all(|scale| scale.is_finite() && *scale > 0.0)
                && variant.integers.iter().all(|q| (low..=high).contains(q))
                && variant.bias.as_ref().is_none_or(|bias| Some(bias.len()) == outputs);
            if !sound {
                return Err(format!("the {}-bit weights of `{name}` do not fit the model", variant.width.bits()));
            }
        }
    }
    Ok(())
}
