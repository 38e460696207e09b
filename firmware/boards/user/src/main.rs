//! Runs many plans once each, from a file, between the markers of the plugin `insncount`: for benchmarks of kernels.
//!
//! The command line is `layers PLANS`; `PLANS` is as `equant_firmware::layers` says. Inputs are noise. Standard output gets
//! the digest of each plan's output, 8 hexadecimal digits a line.

use std::error::Error;
use std::process::ExitCode;
use std::{env, fs};

use equant_firmware::trial;
use equant_runtime::Session;
use equant_runtime::plan::{AlignedBytes, OpView, Plan};
use equant_runtime::session::Profile;

/// Begins and ends a region around every operator.
struct Markers;

/// Hints that do nothing on any core; the plugin knows them.
#[cfg(target_arch = "aarch64")]
impl Profile for Markers {
    #[inline(never)]
    fn before(&mut self, _: &OpView<'_>) {
        // SAFETY: the instruction does nothing.
        unsafe { std::arch::asm!("hint #80", options(nostack, preserves_flags)) };
    }

    #[inline(never)]
    fn after(&mut self, _: &OpView<'_>, _: &[u8]) {
        // SAFETY: the instruction does nothing.
        unsafe { std::arch::asm!("hint #96", options(nostack, preserves_flags)) };
    }
}

#[cfg(not(target_arch = "aarch64"))]
impl Profile for Markers {}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let name = env::args().nth(1).ok_or("the command line is `layers PLANS`")?;
    let file = fs::read(&name).map_err(|error| format!("{name}: {error}"))?;
    // What a core can do is looked up once: before anything is measured.
    #[cfg(target_arch = "aarch64")]
    let _ = std::arch::is_aarch64_feature_detected!("dotprod");
    let mut rest = &file[..];
    let plans = word(&mut rest)?;
    for plan in 0..plans {
        let len = word(&mut rest)? as usize;
        let (image, later) = rest.split_at_checked(len).ok_or("the plans end early")?;
        rest = later;
        let mut aligned = AlignedBytes::zeroed(len);
        aligned.copy_from_slice(image);
        println!("{:08x}", measure(&aligned).map_err(|error| format!("plan {plan}: {error}"))?);
    }
    Ok(())
}

/// Runs one plan and returns the digest of its output.
fn measure(image: &[u8]) -> Result<u32, equant_runtime::Error> {
    let plan = <Plan<'_>>::parse(image)?;
    let mut arena = AlignedBytes::zeroed(plan.arena_len());
    trial::run(&mut Session::new(plan, &mut arena)?, &mut Markers)
}

/// The next word of the file.
fn word(rest: &mut &[u8]) -> Result<u32, &'static str> {
    let (word, later) = rest.split_first_chunk().ok_or("the plans end early")?;
    *rest = later;
    Ok(u32::from_le_bytes(*word))
}
