//! Time of each layer, and its share of what the core's multipliers can do.

use equant::data::Samples;
use equant::exec::PlanRunner;
use equant_runtime::plan::AlignedBytes;

use crate::Failure;

/// Multiply-accumulates of a layer that is worth a row.
const LARGE: u32 = 20_000;

/// Samples that are run; the least time of each layer counts.
const RUNS: usize = 300;

/// Prints a row for each large layer of a plan.
pub(crate) fn rows(model: &str, plan: &[u8], samples: &Samples) -> Result<(), Failure> {
    let image = AlignedBytes::from(plan);
    let runner = PlanRunner::new(&image)?;
    let batch = samples.head(RUNS).batches(RUNS)?.next().ok_or("no samples")??;
    let before = peak();
    let layers = runner.profile(&batch)?;
    // Of two measurements the less disturbed one.
    let peak = before.zip(peak()).map(|(before, after)| before.max(after));
    for layer in layers.into_iter().filter(|layer| layer.macs >= LARGE) {
        let rate = f64::from(layer.macs) / layer.nanoseconds as f64;
        let share = peak.map_or("-".into(), |peak| format!("{:.0} %", rate / peak * 100.0));
        let us = layer.nanoseconds as f64 / 1e3;
        println!("| {model} | {} | {} | {} | {us:.1} | {rate:.1} | {share} |", layer.name, layer.kind, layer.macs);
    }
    Ok(())
}

/// The most multiply-accumulates of 16 bits, added up in 32, that the core does in a nanosecond: measured.
#[cfg(target_arch = "x86_64")]
fn peak() -> Option<f64> {
    use std::time::Instant;

    /// Rounds of eight vectors of sixteen products: so few that some measurements are not disturbed.
    const ROUNDS: u64 = 20_000;
    const MEASUREMENTS: usize = 5_000;
    const MACS: f64 = ROUNDS as f64 * 8.0 * 16.0;
    if !std::is_x86_feature_detected!("avx2") {
        return None;
    }
    let round = || {
        let start = Instant::now();
        // SAFETY: the core has AVX2; only registers are written, and all of them are named.
        unsafe {
            std::arch::asm!(
                "2:",
                "vpmaddwd ymm8, ymm12, ymm13", "vpaddd ymm0, ymm0, ymm8",
                "vpmaddwd ymm9, ymm12, ymm13", "vpaddd ymm1, ymm1, ymm9",
                "vpmaddwd ymm10, ymm12, ymm13", "vpaddd ymm2, ymm2, ymm10",
                "vpmaddwd ymm11, ymm12, ymm13", "vpaddd ymm3, ymm3, ymm11",
                "vpmaddwd ymm8, ymm12, ymm13", "vpaddd ymm4, ymm4, ymm8",
                "vpmaddwd ymm9, ymm12, ymm13", "vpaddd ymm5, ymm5, ymm9",
                "vpmaddwd ymm10, ymm12, ymm13", "vpaddd ymm6, ymm6, ymm10",
                "vpmaddwd ymm11, ymm12, ymm13", "vpaddd ymm7, ymm7, ymm11",
                "dec {rounds}",
                "jnz 2b",
                rounds = inout(reg) ROUNDS => _,
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
                out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                out("ymm12") _, out("ymm13") _,
                options(nomem, nostack),
            );
        }
        MACS / start.elapsed().as_nanos() as f64
    };
    Some((0..MEASUREMENTS).map(|_| round()).fold(0.0, f64::max))
}

#[cfg(not(target_arch = "x86_64"))]
fn peak() -> Option<f64> {
    None
}
