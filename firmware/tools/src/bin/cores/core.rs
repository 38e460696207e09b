//! The cores, and what is needed to run on them.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

/// A core, on a machine that QEMU emulates.
#[derive(Debug)]
pub(crate) struct Core {
    /// Its name on the command line and in the columns of the baseline.
    pub(crate) name: &'static str,
    /// Its name in reports.
    pub(crate) title: &'static str,
    pub(crate) machine: &'static str,
    pub(crate) target: &'static str,
    /// What the compiler is told that the target does not say.
    pub(crate) flags: &'static [&'static str],
    /// The profile's `opt-level`, in TOML: what the kernels of the core are the fastest with (see the README).
    pub(crate) optimization: &'static str,
    pub(crate) emulator: Emulator,
}

/// One of QEMU's programs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Emulator {
    Arm,
    RiscV32,
    /// Programs of Linux by themselves: the machine is a model of a core.
    Aarch64,
}

impl Emulator {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Arm => "qemu-system-arm",
            Self::RiscV32 => "qemu-system-riscv32",
            Self::Aarch64 => "qemu-aarch64",
        }
    }

    /// Debian's package with it.
    fn package(self) -> &'static str {
        match self {
            Self::Arm => "qemu-system-arm",
            Self::RiscV32 => "qemu-system-misc",
            Self::Aarch64 => "qemu-user",
        }
    }

    /// Options that make the guest's counter count instructions; without a machine there is none, and a plugin counts.
    pub(crate) fn counting(self) -> &'static [&'static str] {
        match self {
            Self::Arm => &["-icount", "shift=7"],
            // Without firmware of QEMU's own, the machine starts in ours.
            Self::RiscV32 => &["-icount", "shift=0", "-bios", "none"],
            Self::Aarch64 => &[],
        }
    }
}

const fn arm(
    name: &'static str,
    title: &'static str,
    machine: &'static str,
    target: &'static str,
    flags: &'static [&'static str],
    optimization: &'static str,
) -> Core {
    Core { name, title, machine, target, flags, optimization, emulator: Emulator::Arm }
}

/// A core of aarch64, by the name of QEMU's model.
const fn aarch64(
    name: &'static str,
    title: &'static str,
    machine: &'static str,
    flags: &'static [&'static str],
) -> Core {
    let target = "aarch64-unknown-linux-musl";
    Core { name, title, machine, target, flags, optimization: SPEED, emulator: Emulator::Aarch64 }
}

/// For cores whose kernels are in Rust.
const SPEED: &str = "3";

/// For cores whose kernels are in the core's own instructions.
const SIZE: &str = "\"s\"";

pub(crate) static CORES: [Core; 11] = [
    // No machine with this core has the memory: its code runs on the next larger core.
    arm("m0plus", "Cortex-M0+ (Armv6-M code on Cortex-M3)", "mps2-an385", "thumbv6m-none-eabi", &[], SPEED),
    arm("m3", "Cortex-M3", "mps2-an385", "thumbv7m-none-eabi", &[], SPEED),
    arm("m4", "Cortex-M4", "mps2-an386", "thumbv7em-none-eabihf", &["-Ctarget-cpu=cortex-m4"], SIZE),
    arm("m7", "Cortex-M7", "mps2-an500", "thumbv7em-none-eabihf", &["-Ctarget-cpu=cortex-m7"], SIZE),
    arm("m33", "Cortex-M33", "mps2-an505", "thumbv8m.main-none-eabihf", &["-Ctarget-cpu=cortex-m33"], SIZE),
    arm("m55", "Cortex-M55", "mps3-an547", "thumbv8m.main-none-eabihf", &["-Ctarget-cpu=cortex-m55"], SIZE),
    Core {
        name: "rv32imac",
        title: "RV32IMAC",
        machine: "virt",
        target: "riscv32imac-unknown-none-elf",
        flags: &[],
        optimization: SPEED,
        emulator: Emulator::RiscV32,
    },
    aarch64("a53", "Cortex-A53 (NEON)", "cortex-a53", &[]),
    aarch64("n1", "Neoverse N1 (dot products)", "neoverse-n1", &[]),
    // No model of a single core has them in QEMU 7.
    aarch64("a64", "aarch64 with dot and matrix products", "max", &[]),
    aarch64("a64-portable", "aarch64, portable kernels", "max", &["--cfg=portable"]),
];

impl Core {
    /// What this computer lacks to build for the core and to run it.
    pub(crate) fn missing(&self) -> Option<String> {
        let program = self.emulator.program();
        if !succeeds(Command::new(program).arg("--version")) {
            return Some(format!("{program} cannot be run; apt-get install {}", self.emulator.package()));
        }
        if matches!(self.emulator, Emulator::Aarch64) && !succeeds(Command::new("gcc").arg("--version")) {
            return Some("gcc cannot be run, which builds the plugin that counts instructions".into());
        }
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let installed = Command::new(rustc)
            .args(["--print", "target-libdir", "--target", self.target])
            .output()
            .is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir());
        (!installed).then(|| format!("the Rust target is not installed; rustup target add {}", self.target))
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
