//! Builds the firmware `layers` for a core and runs it in QEMU.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::thread::sleep;
use std::time::{Duration, Instant};

use equant_runtime::plan::AlignedBytes;

use crate::Error;
use crate::core::{Core, Emulator};
use crate::user;

/// Time that a core has for all plans.
const LIMIT: Duration = Duration::from_secs(600);

pub(crate) const PROGRAM: &str = "layers";

/// What a core says of a plan.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Digest of the output.
    pub(crate) digest: u32,
    /// Instructions of all operators.
    pub(crate) instructions: u64,
}

/// A folder for what QEMU reads and writes; it goes with this value.
#[derive(Debug)]
pub(crate) struct Work {
    target: PathBuf,
    pub(crate) folder: PathBuf,
    /// Number of plans.
    plans: usize,
}

impl Work {
    /// Writes the plans down.
    pub(crate) fn new(plans: &[AlignedBytes]) -> Result<Self, Error> {
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => std::path::absolute(folder)?,
            None => workspace().join("target"),
        };
        // A name of its own, for others may be at it too.
        let work = Self { folder: target.join(format!("cores-{}", id())), target, plans: plans.len() };
        fs::create_dir_all(&work.folder)?;
        let mut file = u32::try_from(plans.len())?.to_le_bytes().to_vec();
        for plan in plans {
            file.extend(u32::try_from(plan.len())?.to_le_bytes());
            file.extend_from_slice(plan);
        }
        fs::write(work.folder.join("plans"), file)?;
        Ok(work)
    }

    /// Builds for a core and runs every plan on it.
    pub(crate) fn measure(&self, core: &Core) -> Result<Vec<Measured>, Error> {
        self.build(core)?;
        let text = match core.emulator {
            Emulator::Aarch64 => user::emulate(core, self)?,
            Emulator::Arm | Emulator::RiscV32 => self.emulate(&mut machine(core))?,
        };
        let results = text.lines().map(|line| parse(line).ok_or_else(|| format!("the firmware says `{line}`")));
        let results = results.collect::<Result<Vec<_>, _>>()?;
        if results.len() != self.plans {
            return Err(format!("the firmware has {} results for {} plans", results.len(), self.plans).into());
        }
        Ok(results)
    }

    fn build(&self, core: &Core) -> Result<(), Error> {
        let package = match core.emulator {
            Emulator::Aarch64 => "user-cores",
            Emulator::Arm | Emulator::RiscV32 => "qemu-cores",
        };
        let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--release", "--package", package, "--bin", PROGRAM])
            .args(["--target", core.target, "--target-dir"])
            .arg(&self.target)
            .args(["--config", &format!("profile.release.opt-level={}", core.optimization)])
            .current_dir(workspace())
            .env("EQUANT_MACHINE", core.machine)
            // What this build was told is not for that target.
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", core.flags.join("\u{1f}"))
            // Comes with Rust, and is enough where no C is linked.
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld")
            .status()?;
        if !status.success() {
            return Err(format!("the firmware does not build ({status})").into());
        }
        fs::copy(self.target.join(core.target).join("release").join(PROGRAM), self.folder.join(PROGRAM))?;
        Ok(())
    }

    /// Runs an emulator in the work folder, so that no name in its command line has a blank, and returns what it says.
    pub(crate) fn emulate(&self, emulator: &mut Command) -> Result<String, Error> {
        let output = self.folder.join("output");
        let mut child =
            emulator.current_dir(&self.folder).stdin(Stdio::null()).stdout(File::create(&output)?).spawn()?;
        let start = Instant::now();
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if start.elapsed() < LIMIT => sleep(Duration::from_millis(20)),
                None => {
                    child.kill()?;
                    child.wait()?;
                    return Err(format!("the firmware does not end within {} s", LIMIT.as_secs()).into());
                }
            }
        };
        if !status.success() {
            return Err(format!("the firmware ends with {status}").into());
        }
        Ok(fs::read_to_string(output)?)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // A folder that stays behind does no harm.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The emulator of a core's machine, with the firmware.
fn machine(core: &Core) -> Command {
    let mut emulator = Command::new(core.emulator.program());
    emulator
        .args(["-machine", core.machine, "-display", "none", "-monitor", "none", "-serial", "null"])
        .args(core.emulator.counting())
        .args(["-semihosting-config", "enable=on,target=native,arg=layers,arg=plans", "-kernel", PROGRAM]);
    emulator
}

/// The firmware's workspace.
fn workspace() -> &'static Path {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"));
    tools.parent().unwrap_or(tools)
}

/// A digest, then the count of each operator.
fn parse(line: &str) -> Option<Measured> {
    let mut words = line.split(' ');
    let digest = u32::from_str_radix(words.next()?, 16).ok()?;
    let counts = words.map(|word| word.parse().ok()).collect::<Option<Vec<u64>>>()?;
    Some(Measured { digest, instructions: counts.iter().sum() })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lines() {
        let measured = parse("0000beef 12 30").unwrap();
        assert_eq!((measured.digest, measured.instructions), (0xbeef, 42));
        assert!(parse("error: none").is_none());
        assert!(parse("").is_none());
    }
}
