//! Time and peak memory of `equant quantize`: `cargo run --release -p equant-tests --bin cost [MODEL...]`, after
//! `cargo build --release -p equant`.
//!
//! The presets at W8A8 and W4A8 with the 512 calibration samples (`best` at W4A8 only: it takes the time it is given),
//! then `balanced` with 128 to 2,048 samples (taken from the test images; nothing is scored). Times are those of the whole
//! command.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use equant_tests::models::{MODELS, first_samples, model_path, quantized_graph, samples_path, threads, write_samples};
use equant_tests::peak;

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let program = std::env::current_exe().expect("the path of this program").with_file_name("equant");
    if !program.exists() {
        eprintln!("cost: {} is missing; run `cargo build --release -p equant`", program.display());
        return ExitCode::FAILURE;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    println!("| model | bits | preset | samples | seconds | peak MiB |");
    println!("|---|---|---|---|---|---|");
    for model in MODELS.into_iter().filter(|model| asked.is_empty() || asked.iter().any(|name| name == model)) {
        let calibration = samples_path(model, "calib512");
        for bits in ["W8A8", "W4A8"] {
            for preset in ["fast", "balanced"] {
                row(&program, model, bits, preset, 512, &calibration, folder.path());
            }
        }
        row(&program, model, "W4A8", "best", 512, &calibration, folder.path());
        let graph = quantized_graph(&std::fs::read(model_path(model)).expect("a committed model"));
        let all = first_samples(&samples_path(model, "test10k"), &graph, 2048);
        let elements = all.inputs[0].len() / 2048;
        for samples in [128usize, 512, 2048] {
            let file = folder.path().join("samples.npy");
            write_samples(&file, &graph, samples, &all.inputs[0][..samples * elements]);
            row(&program, model, "W8A8", "balanced", samples, &file, folder.path());
        }
    }
    ExitCode::SUCCESS
}

fn row(program: &Path, model: &str, bits: &str, preset: &str, samples: usize, calibration: &Path, folder: &Path) {
    let mut command = std::process::Command::new(program);
    command.args(["--quiet", "quantize"]).arg(model_path(model)).arg("--calib").arg(calibration);
    command.args(["--bits", bits, "--preset", preset, "--threads", &threads().to_string()]);
    command.arg("-o").arg(folder.join("out"));
    let start = Instant::now();
    let kib = peak::of(command);
    let seconds = start.elapsed().as_secs_f64();
    println!("| {model} | {bits} | {preset} | {samples} | {seconds:.1} | {:.0} |", kib as f64 / 1024.0);
}
