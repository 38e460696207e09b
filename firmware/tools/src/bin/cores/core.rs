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
    /// The core that the compiler is told, if the target does not say.
    pub(crate) cpu: Option<&'static str>,
    /// The profile's `opt-level`, in TOML: what the kernels of the core are the fastest with (see the README).
    pub(crate) optimization: &'static str,
    pub(crate) emulator: Emulator,
}

/// One of QEMU's programs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Emulator {
    Arm,
    RiscV32,
}

impl Emulator {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Arm => "qemu-system-arm",
            Self::RiscV32 => "qemu-system-riscv32",
        }
    }

    /// Options that make the guest's counter count instructions.
    pub(crate) fn counting(self) -> &'static [&'static str] {
        match self {
            Self::Arm => &["-icount", "shift=7"],
            // Without firmware of QEMU's own, the machine starts in ours.
            Self::RiscV32 => &["-icount", "shift=0", "-bios", "none"],
        }
    }
}

const fn arm(
    name: &'static str,
    title: &'static str,
    machine: &'static str,
    target: &'static str,
    cpu: Option<&'static str>,
    optimization: &'static str,
) -> Core {
    Core { name, title, machine, target, cpu, optimization, emulator: Emulator::Arm }
}

/// For cores whose kernels are in Rust.
const SPEED: &str = "3";

/// For cores whose kernels are in the core's own instructions.
const SIZE: &str = "\"s\"";

pub(crate) static CORES: [Core; 7] = [
    // No machine with this core has the memory: its code runs on the next larger core.
    arm("m0plus", "Cortex-M0+ (Armv6-M code on Cortex-M3)", "mps2-an385", "thumbv6m-none-eabi", None, SPEED),
    arm("m3", "Cortex-M3", "mps2-an385", "thumbv7m-none-eabi", None, SPEED),
    arm("m4", "Cortex-M4", "mps2-an386", "thumbv7em-none-eabihf", Some("cortex-m4"), SIZE),
    arm("m7", "Cortex-M7", "mps2-an500", "thumbv7em-none-eabihf", Some("cortex-m7"), SIZE),
    arm("m33", "Cortex-M33", "mps2-an505", "thumbv8m.main-none-eabihf", Some("cortex-m33"), SIZE),
    arm("m55", "Cortex-M55", "mps3-an547", "thumbv8m.main-none-eabihf", Some("cortex-m55"), SIZE),
    Core {
        name: "rv32imac",
        title: "RV32IMAC",
        machine: "virt",
        target: "riscv32imac-unknown-none-elf",
        cpu: None,
        optimization: SPEED,
        emulator: Emulator::RiscV32,
    },
];

impl Core {
    /// What this computer lacks to build for the core and to run it.
    pub(crate) fn missing(&self) -> Option<String> {
        let program = self.emulator.program();
        if !succeeds(Command::new(program).arg("--version")) {
            return Some(format!("{program} cannot be run; install QEMU's system emulators"));
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
