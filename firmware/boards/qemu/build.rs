//! Fits the program to the machine that `EQUANT_MACHINE` names: its memory for the linker, its block of registers for
//! the sources (`cfg(machine)`). The core is the business of the target and its flags.

use std::path::PathBuf;
use std::{env, fs};

/// Machines of QEMU, and their memory.
const MACHINES: [(&str, &str); 6] = [
    ("mps2-an385", "mps2.x"),
    ("mps2-an386", "mps2.x"),
    ("mps2-an500", "mps2.x"),
    ("mps2-an505", "an505.x"),
    ("mps3-an547", "an547.x"),
    ("virt", "virt.x"),
];

fn main() {
    println!("cargo::rerun-if-env-changed=EQUANT_MACHINE");
    println!("cargo::rerun-if-changed=memory");
    println!("cargo::rustc-check-cfg=cfg(machine, values(\"mps2\", \"an505\", \"an547\", \"virt\"))");
    let machine = env::var("EQUANT_MACHINE").unwrap_or_default();
    let Some((_, memory)) = MACHINES.iter().find(|(name, _)| *name == machine) else {
        let names = MACHINES.map(|(name, _)| name).join(", ");
        println!(
            "cargo::error=EQUANT_MACHINE is `{machine}`; set it to one of {names}, or build with the tool `cores`"
        );
        std::process::exit(1);
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::copy(PathBuf::from("memory").join(memory), out.join("memory.x")).expect("a script can be copied into OUT_DIR");
    println!("cargo::rustc-cfg=machine=\"{}\"", memory.trim_end_matches(".x"));
    println!("cargo::rustc-link-search={}", out.display());
    if machine == "virt" {
        // cortex-m-rt's script includes the memory on its own.
        println!("cargo::rustc-link-arg-bins=-Tmemory.x");
    }
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
}
