//! Says which kernels the target has instructions for, where the compiler does not tell crates: `cfg(dsp)`, the DSP
//! extension of Arm M-profile cores (dual 16-bit multiply-accumulate), and `cfg(dsp_optional)` where cores of the
//! architecture may lack it; `cfg(mve)`, their vector extension (Helium), whose kernels take the place of those.
//! `cfg(neon)`: aarch64 with its vector unit. `cfg(bytes)`: cores whose kernels multiply vectors of bytes, these two.
//! `cfg(vectors)`: other cores whose vector unit the compiler may always use, x86-64 above all; `cfg(x86)`: x86-64 with
//! the standard library, which tells at run time what else a core has. `cfg(scalar)`: all other cores; of these,
//! `cfg(native)`: those with kernels in their own instructions, which are those of `cfg(armv6m)`, `cfg(armv7m)` or
//! `cfg(rv32)`.
//!
//! `RUSTFLAGS="--cfg portable"` leaves the kernels for aarch64 out, to measure what they gain.

use std::env;

/// Cores of Armv8-M that have the DSP extension; Armv7E-M always has.
const V8M_WITH_DSP: [&str; 2] = ["cortex-m33", "cortex-m35p"];

/// Cores of Armv8-M that have the vector extension.
const V8M_WITH_MVE: [&str; 3] = ["cortex-m52", "cortex-m55", "cortex-m85"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!(
        "cargo::rustc-check-cfg=cfg(dsp, dsp_optional, mve, neon, bytes, vectors, x86, scalar, native, armv6m, armv7m, rv32)"
    );
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let has = |feature| features.split(',').any(|has| has == feature);
    let neon = arch == "aarch64" && has("neon") && env::var_os("CARGO_CFG_PORTABLE").is_none();
    let vectors = !neon && (arch == "x86_64" || arch == "aarch64");
    if vectors {
        println!("cargo::rustc-cfg=vectors");
    }
    if neon {
        println!("cargo::rustc-cfg=neon");
        println!("cargo::rustc-cfg=bytes");
    }
    if arch == "x86_64" && env::var_os("CARGO_FEATURE_STD").is_some() {
        println!("cargo::rustc-cfg=x86");
    }
    let target = env::var("TARGET").unwrap_or_default();
    // The flags of `rustflags`, separated by U+001F.
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let cpu = flags.split('\u{1f}').rev().find_map(|flag| flag.split_once("target-cpu=").map(|(_, cpu)| cpu));
    let one_of = |cores: &[&str]| target.starts_with("thumbv8m.main") && cpu.is_some_and(|cpu| cores.contains(&cpu));
    if one_of(&V8M_WITH_MVE) {
        println!("cargo::rustc-cfg=mve");
        println!("cargo::rustc-cfg=bytes");
    } else if one_of(&V8M_WITH_DSP) {
        println!("cargo::rustc-cfg=dsp");
        println!("cargo::rustc-cfg=dsp_optional");
    } else if target.starts_with("thumbv7em") {
        println!("cargo::rustc-cfg=dsp");
    } else if !vectors && !neon {
        println!("cargo::rustc-cfg=scalar");
        // Armv8-M has all that its predecessors have; RV32E has half of the registers.
        let native = match arch.as_str() {
            "arm" if target.starts_with("thumbv6m") || target.starts_with("thumbv8m.base") => "armv6m",
            "arm" if target.starts_with("thumbv7m") || target.starts_with("thumbv8m.main") => "armv7m",
            "riscv32" if has("m") && !has("e") => "rv32",
            _ => return,
        };
        println!("cargo::rustc-cfg=native");
        println!("cargo::rustc-cfg={native}");
    }
}
