//! Calibration's memory does not grow with the number of samples.

use std::path::Path;
use std::process::Command;

use equant_tests::models::{first_samples, model_path, quantized_graph, samples_path, write_samples};

/// Peak memory of `equant quantize` in KiB.
fn peak_kib(program: &Path, samples: &Path, out: &Path) -> u64 {
    let mut command = Command::new(program);
    command.args(["--quiet", "quantize"]).arg(model_path("dscnn")).arg("--calib").arg(samples);
    command.args(["--threads", "2", "-o"]).arg(out);
    equant_tests::peak::of(command)
}

/// The command: that of `EQUANT_PROGRAM`, for who has built it already, or built now.
fn program() -> std::path::PathBuf {
    if let Some(program) = std::env::var_os("EQUANT_PROGRAM") {
        return program.into();
    }
    let folder = std::env::current_exe().expect("the path of this test");
    let folder = folder.parent().and_then(Path::parent).expect("target/PROFILE/deps");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "-p", "equant", "--bin", "equant"])
        .current_dir(equant_tests::models::root())
        .status()
        .expect("cargo");
    assert!(status.success(), "equant builds");
    folder.join("equant")
}

/// Runs of each size.
const RUNS: usize = 4;

#[test]
fn ten_times_the_samples_take_the_same_memory() {
    if !Path::new("/proc/self/status").exists() {
        println!("skipped: peak memory: this system has no /proc");
        return;
    }
    let (program, folder) = (program(), tempfile::tempdir().unwrap());
    let graph = quantized_graph(&std::fs::read(model_path("dscnn")).unwrap());
    let all = first_samples(&samples_path("dscnn", "test10k"), &graph, 5000);
    let peaks = [512usize, 5000].map(|count| {
        let file = folder.path().join(format!("{count}.npy"));
        write_samples(&file, &graph, count, &all.inputs[0][..count * 784]);
        (0..RUNS).map(|_| peak_kib(&program, &file, &folder.path().join(format!("out{count}")))).collect::<Vec<_>>()
    });
    // What two threads happen to hold at the same time varies by a few percent from run to run. On a busy machine a short
    // run may never hold all that it is allowed to, which a long one nearly always does: so the most of the short ones is
    // what they are allowed, and one long run within it shows that samples take none.
    let peaks = [*peaks[0].iter().max().expect("a run"), *peaks[1].iter().min().expect("a run")];
    println!("peak memory: {} KiB with 512 samples, {} KiB with 5,000", peaks[0], peaks[1]);
    assert!(peaks[0] > 1000, "a peak was read");
    assert!(peaks[1] as f64 <= 1.05 * peaks[0] as f64, "{peaks:?} KiB");
}
