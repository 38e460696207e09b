//! The layers to measure, and what CMSIS-NN takes for each.

use std::collections::BTreeMap;

use crate::Error;
use crate::core::CORES;
use crate::layer::Layer;

const CSV: &str = include_str!("../../../../bench/cmsis_nn.csv");

/// Width of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bits {
    Eight,
    Four,
}

impl Bits {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Eight => "int8",
            Self::Four => "int4",
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Eight => 8,
            Self::Four => 4,
        }
    }
}

/// A layer of a model.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) bits: Bits,
    pub(crate) model: String,
    /// The layer's name in the baseline.
    pub(crate) text: String,
    /// `None` if it is none of the baseline's.
    pub(crate) layer: Option<Layer>,
    /// How often the model has such a layer.
    pub(crate) repeat: u64,
    pub(crate) macs: u64,
    /// FNV-1a of CMSIS-NN's output, whose rounding is TFLite's.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests check the data with it"))]
    pub(crate) digest: u32,
    /// Instructions of CMSIS-NN by name of core, of cores that it was measured on.
    pub(crate) instructions: BTreeMap<&'static str, u64>,
}

impl Row {
    /// What messages call it.
    pub(crate) fn name(&self) -> String {
        format!("{} {} {}", self.bits.name(), self.model, self.text)
    }
}

/// Every layer of the baseline.
pub(crate) fn rows() -> Result<Vec<Row>, Error> {
    let mut lines = CSV.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    lines.map(|line| row(&header, line).map_err(|error| format!("baseline: `{line}`: {error}").into())).collect()
}

fn row(header: &[&str], line: &str) -> Result<Row, Error> {
    let fields: Vec<&str> = line.split(',').collect();
    let field = |name: &str| {
        let at = header.iter().position(|column| *column == name);
        at.and_then(|at| fields.get(at).copied()).ok_or_else(|| format!("no column {name}"))
    };
    let bits = match field("bits")? {
        "s8" => Bits::Eight,
        "s4" => Bits::Four,
        _ => return Err("bits are s8 or s4".into()),
    };
    let mut instructions = BTreeMap::new();
    for core in &CORES {
        let column = format!("{}_insns", core.name);
        // Not every core has been measured.
        if header.contains(&column.as_str()) {
            instructions.insert(core.name, field(&column)?.parse()?);
        }
    }
    let text = field("layer")?;
    Ok(Row {
        bits,
        model: field("model")?.to_owned(),
        text: text.to_owned(),
        layer: Some(text.parse()?),
        repeat: field("repeat")?.parse()?,
        macs: field("macs")?.parse()?,
        digest: u32::from_str_radix(field("out_fnv1a")?, 16)?,
        instructions,
    })
}
