//! Runs the program `layers` by itself, its instructions counted by the plugin `insncount`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Error;
use crate::core::Core;
use crate::firmware::{PROGRAM, Work};

const PLUGIN: &str = "libinsncount.so";

/// What the program says of each plan, with the instructions of its operators.
pub(crate) fn emulate(core: &Core, work: &Work) -> Result<String, Error> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("insncount/insncount.c");
    let status = Command::new("gcc")
        .args(["-O2", "-fPIC", "-shared", "-o", PLUGIN])
        .arg(source)
        .current_dir(&work.folder)
        .status()?;
    if !status.success() {
        return Err(format!("the plugin does not build ({status})").into());
    }
    let mut emulator = Command::new(core.emulator.program());
    emulator
        .args(["-cpu", core.machine, "-plugin", &format!("./{PLUGIN},out=counts")])
        .arg(format!("./{PROGRAM}"))
        .arg("plans");
    let digests = work.emulate(&mut emulator)?;
    merged(&digests, &fs::read_to_string(work.folder.join("counts"))?)
}

/// A count, of the only operator of a plan, behind each digest.
fn merged(digests: &str, counts: &str) -> Result<String, Error> {
    if digests.lines().count() != counts.lines().count() {
        return Err("the plugin has not counted one operator for each plan".into());
    }
    let count = |line: &str| line.strip_prefix("instructions=")?.split(' ').next().map(str::to_owned);
    let lines = digests.lines().zip(counts.lines()).map(|(digest, line)| {
        let count = count(line).ok_or_else(|| format!("the plugin says `{line}`"))?;
        Ok(format!("{digest} {count}\n"))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::merged;

    #[test]
    fn counts_stand_behind_digests() {
        let counts = "instructions=12 taken=3\ninstructions=40 taken=0\n";
        assert_eq!(merged("0000beef\n00000001\n", counts).unwrap(), "0000beef 12\n00000001 40\n");
        assert!(merged("0000beef\n", counts).is_err());
        assert!(merged("0000beef\n", "taken=3\n").is_err());
    }
}
