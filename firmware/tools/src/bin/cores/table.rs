//! Tables of a core's instructions, beside CMSIS-NN's where there are any, in Markdown.

use std::fmt::Write;

use crate::baseline::{Bits, Row};
use crate::core::Core;
use crate::firmware::Measured;

/// Models of which the baseline has every layer.
const MODELS: [&str; 4] = ["resnet8", "dscnn", "mbv1", "fcae"];

/// Layers below this ratio are marked.
const SLOW: f64 = 0.95;

/// Instructions of ours and of CMSIS-NN.
#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    macs: u64,
    ours: u64,
    theirs: Option<u64>,
}

impl Pair {
    fn of(core: &Core, row: &Row, measured: &Measured) -> Self {
        let theirs = row.instructions.get(core.name).copied();
        Self { macs: row.macs, ours: measured.instructions, theirs }
    }

    fn plus(self, other: Self, times: u64) -> Self {
        Self {
            macs: self.macs + other.macs * times,
            ours: self.ours + other.ours * times,
            theirs: self.theirs.zip(other.theirs).map(|(theirs, other)| theirs + other * times),
        }
    }

    /// The last columns of a row.
    fn columns(self) -> String {
        let Self { macs, ours, theirs } = self;
        let per_mac = ours as f64 / macs as f64;
        let Some(theirs) = theirs else { return format!("{macs} | {ours} | {per_mac:.3} |") };
        // How many times fewer ours are.
        let ratio = theirs as f64 / ours as f64;
        let mark = if ratio < SLOW { " ▼" } else { "" };
        format!("{macs} | {ours} | {per_mac:.2} | {theirs} | {ratio:.2}{mark} |")
    }
}

/// The tables of a core: layers, then whole models.
pub(crate) fn of(core: &Core, rows: &[Row], measured: &[Measured]) -> String {
    let compared = rows.iter().any(|row| row.instructions.contains_key(core.name));
    let (head, rule) = if compared { (" CMSIS-NN | ratio |", "--:|--:|") } else { ("", "") };
    let mut text = format!("## {}\n\n", core.title);
    text += &format!("| weights | model | layer | repeat | MACs | instructions | per MAC |{head}\n");
    text += &format!("|---|---|---|--:|--:|--:|--:|{rule}\n");
    for (row, measured) in rows.iter().zip(measured) {
        let Row { bits, model, text: layer, repeat, .. } = row;
        let columns = Pair::of(core, row, measured).columns();
        let none = if compared && row.layer.is_none() { " | |" } else { "" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {} | {model} | {layer} | {repeat} | {columns}{none}", bits.name());
    }
    text += &format!("\n| weights | model | MACs | instructions | per MAC |{head}\n");
    text += &format!("|---|---|--:|--:|--:|{rule}\n");
    for bits in [Bits::Eight, Bits::Four] {
        for model in MODELS {
            let columns = whole(core, rows, measured, model, bits).columns();
            let _ = writeln!(text, "| {} | {model} | {columns}", bits.name());
        }
    }
    text += "\n";
    text
}

/// The sum over a model's layers. Layers without weights are the same at any width.
fn whole(core: &Core, rows: &[Row], measured: &[Measured], model: &str, bits: Bits) -> Pair {
    let layers = || rows.iter().zip(measured).filter(|(row, _)| row.model == model);
    let chosen = layers().filter(|(row, _)| {
        row.bits == bits || (row.bits == Bits::Eight && row.layer.is_some_and(|layer| !layer.has_weights()))
    });
    chosen.fold(Pair { theirs: Some(0), ..Pair::default() }, |sum, (row, measured)| {
        sum.plus(Pair::of(core, row, measured), row.repeat)
    })
}
