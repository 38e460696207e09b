//! Measures every kernel on every core that QEMU emulates, and compares its bits with the host's.
//!
//! `cores [CORE...] [--markdown FILE] [--fit]`; without cores, all of them.
//!
//! The layers are those of `firmware/bench/cmsis_nn.csv`, with the instructions that CMSIS-NN takes, and some of each
//! operator that it does not have (`operators.rs`). Each becomes a plan
//! of one operator, run on noise by the reference kernels and the normal kernels of this host and by the firmware
//! `layers` in QEMU: on a machine (`boards/qemu`), or as a program by itself whose instructions a plugin counts
//! (`boards/user`). Digests of outputs must be equal: exit code 1 if one is not. Counts are only reported. A core whose
//! Rust target or emulator is missing is skipped. With `--fit` what operators cost on each core is printed too, as the
//! quantizer's table of costs.
#![forbid(unsafe_code)]

mod assembly;
mod baseline;
#[cfg(test)]
mod check;
mod core;
mod data;
mod firmware;
mod fit;
mod host;
mod layer;
mod operators;
mod plan;
mod table;
mod user;

use std::process::ExitCode;
use std::{env, fs};

use equant_runtime::plan::AlignedBytes;

use crate::baseline::Row;
use crate::core::{CORES, Core};
use crate::firmware::Measured;

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

struct Options {
    cores: Vec<&'static Core>,
    markdown: Option<String>,
    fit: bool,
}

fn options() -> Result<Options, Error> {
    let names = || CORES.iter().map(|core| core.name).collect::<Vec<_>>().join(", ");
    let mut options = Options { cores: Vec::new(), markdown: None, fit: false };
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        match CORES.iter().find(|core| core.name == arg) {
            Some(core) => options.cores.push(core),
            None if arg == "--markdown" => {
                options.markdown = Some(args.next().ok_or("--markdown takes the name of a file")?);
            }
            None if arg == "--fit" => options.fit = true,
            None => {
                let usage = "cores [CORE...] [--markdown FILE] [--fit]";
                return Err(format!("`{arg}` is no core; usage: {usage}; {}", names()).into());
            }
        }
    }
    if options.cores.is_empty() {
        options.cores.extend(&CORES);
    }
    Ok(options)
}

/// Every layer and its plan.
fn layers() -> Result<(Vec<Row>, Vec<AlignedBytes>), Error> {
    let mut rows = baseline::rows()?;
    let images = rows.iter().filter_map(|row| Some(plan::image(row, row.layer?)));
    let mut plans = images.collect::<Result<Vec<_>, _>>()?;
    for (row, plan) in operators::all()? {
        rows.push(row);
        plans.push(plan);
    }
    Ok((rows, plans))
}

/// Whether all bits agree.
fn run() -> Result<bool, Error> {
    let options = options()?;
    let (rows, plans) = layers()?;
    let mut good = true;
    let mut expected = Vec::new();
    for (row, plan) in rows.iter().zip(&plans) {
        let digests = host::digests(plan).map_err(|error| format!("{}: {error}", row.name()))?;
        good &= agree("this host", row, digests.normal, digests.reference);
        expected.push(digests.reference);
    }
    let work = firmware::Work::new(&plans)?;
    let mut report = String::new();
    for core in options.cores {
        if let Some(reason) = core.missing() {
            println!("skipped: {}: {reason}", core.title);
            continue;
        }
        // What goes wrong on one core does not keep others from being measured.
        let measured = match work.measure(core) {
            Ok(measured) => measured,
            Err(error) => {
                eprintln!("error: {}: {error}", core.title);
                good = false;
                continue;
            }
        };
        let equal = compare(core, &rows, &measured, &expected);
        good &= equal == rows.len();
        let table = table::of(core, &rows, &measured);
        print!("{table}");
        println!("{}: {equal} of {} layers give the bits of the reference\n", core.title, rows.len());
        report += &table;
        if options.fit {
            println!("{}", fit::table(core, &rows, &plans, &measured)?);
        }
    }
    if let Some(name) = options.markdown {
        fs::write(&name, report).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(good)
}

/// The number of layers whose bits a core gives as expected.
fn compare(core: &Core, rows: &[Row], measured: &[Measured], expected: &[u32]) -> usize {
    let digests = rows.iter().zip(measured).zip(expected);
    digests.filter(|((row, measured), expected)| agree(core.title, row, measured.digest, **expected)).count()
}

/// Compares two digests and names the layer if they differ.
fn agree(place: &str, row: &Row, digest: u32, expected: u32) -> bool {
    if digest != expected {
        eprintln!("error: {place}: {}: digest {digest:08x}, by the reference {expected:08x}", row.name());
    }
    digest == expected
}
