//! `equant package` and `equant unpack`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{PackageArgs, UnpackArgs};
use super::error::Failure;
use super::output::{Output, table};
use crate::package::{self, Kind, PackedSection};
use crate::report::numbers::{bytes, percent};
use crate::{files, pipeline};

/// The extension of packages.
const EXTENSION: &str = "eqz";
/// Files above this are no models: neither protobuf nor a plan goes further.
const MOST: usize = u32::MAX as usize;

/// A package that was made.
#[derive(Serialize)]
struct Package {
    file: String,
    package: String,
    /// Bytes of the file: what flash and memory hold, before and after.
    bytes: usize,
    /// Bytes of the package: what is sent.
    download_bytes: usize,
    sections: Vec<Use>,
}

/// All sections of one kind.
#[derive(Serialize)]
struct Use {
    kind: Kind,
    sections: usize,
    bytes: usize,
    /// By the Shannon entropy of each section's symbols.
    shannon_bytes: f64,
    packed_bytes: f64,
}

pub(super) fn pack(args: PackageArgs, output: &Output) -> Result<(), Failure> {
    let path = args.output.unwrap_or_else(|| with_extension(&args.model));
    let input = read(&args.model)?;
    let file = args.model.display().to_string();
    let packed = package::pack(&input).map_err(|source| Failure::Package { file: file.clone(), source })?;
    files::write_file(&path, &packed.bytes).map_err(pipeline::Error::from)?;
    let made = Package {
        file,
        package: path.display().to_string(),
        bytes: input.len(),
        download_bytes: packed.bytes.len(),
        sections: Kind::ALL.into_iter().filter_map(|kind| use_of(kind, &packed.sections)).collect(),
    };
    output.result(&made, || text(&made))
}

pub(super) fn unpack(args: UnpackArgs, output: &Output) -> Result<(), Failure> {
    let path = match args.output {
        Some(path) => path,
        None if args.package.extension().is_some_and(|extension| extension == EXTENSION) => {
            args.package.with_extension("")
        }
        None => {
            let file = args.package.display();
            return Err(Failure::Usage(format!(
                "{file}: does not end in .{EXTENSION}; name the file to write with -o"
            )));
        }
    };
    let file = args.package.display().to_string();
    let original = package::unpack(&read(&args.package)?, MOST)
        .map_err(|source| Failure::Package { file: file.clone(), source })?;
    files::write_file(&path, &original).map_err(pipeline::Error::from)?;
    let (written, len) = (path.display().to_string(), original.len());
    output.result(&serde_json::json!({ "package": file, "file": written, "bytes": len }), || {
        format!("wrote {written}: {}\n", bytes(len as u64))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|source| Failure::Read { file: path.display().to_string(), source })
}

fn with_extension(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(EXTENSION);
    name.into()
}

fn use_of(kind: Kind, sections: &[PackedSection]) -> Option<Use> {
    let of_kind: Vec<_> = sections.iter().filter(|packed| packed.section.kind == kind).collect();
    let sum = |bits: fn(&PackedSection) -> f64| of_kind.iter().map(|&packed| bits(packed)).sum::<f64>() / 8.0;
    (!of_kind.is_empty()).then(|| Use {
        kind,
        sections: of_kind.len(),
        bytes: of_kind.iter().map(|packed| packed.section.len).sum(),
        shannon_bytes: sum(|packed| packed.shannon_bits),
        packed_bytes: sum(|packed| packed.packed_bits),
    })
}

fn text(made: &Package) -> String {
    let size = |n: f64| bytes(n.ceil() as u64);
    let rows: Vec<Vec<String>> = made
        .sections
        .iter()
        .map(|part| {
            let what = match part.kind {
                Kind::Bytes => "records, names and the rest",
                Kind::Int8 => "8-bit weights",
                Kind::Int4 => "4-bit weights",
                Kind::Words => "biases, multipliers, scales",
            };
            vec![what.into(), bytes(part.bytes as u64), size(part.shannon_bytes), size(part.packed_bytes)]
        })
        .collect();
    format!(
        "{}\nfile      {}: what flash and memory hold, as before\ndownload  {}: {} of the file\nwrote {}\n",
        table(1, &["", "stored", "Shannon entropy", "packed"], &rows),
        bytes(made.bytes as u64),
        bytes(made.download_bytes as u64),
        percent(made.download_bytes as f64 / made.bytes.max(1) as f64),
        made.package,
    )
}
