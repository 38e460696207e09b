//! Fuzzing on stable Rust for a bounded time: `cargo run --release -p equant-tests --bin fuzz [plan|onnx|npz|package]`.
//!
//! Each target runs in a process of its own with a limit on its memory, so that panics, stack overflows, endless loops
//! and absurd allocations are all seen from outside. The input under test lies in a file meanwhile; when the process dies
//! or stops, that file is what to look at. Mutations come from a seed (`EQUANT_FUZZ_SEED`), so that a run can be repeated;
//! `EQUANT_FUZZ_SECONDS` is the time for each target, 20 by default.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use equant_tests::fuzz::{Rng, Target, mutate, outcome_shape, seeds};

/// An input that takes longer is reported.
const MAX_TIME: Duration = Duration::from_secs(10);
/// Address space of a fuzzing process, in KiB.
const MAX_MEMORY_KIB: u32 = 2 << 20;
/// Inputs kept for further mutation, at most.
const MAX_POOL: usize = 4096;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--child", name, current] => {
            let Some(target) = Target::from_name(name) else { return ExitCode::from(2) };
            child(target, Path::new(current));
            ExitCode::SUCCESS
        }
        ["--replay", name, path] => {
            let Some(target) = Target::from_name(name) else { return ExitCode::from(2) };
            println!("{}", target.run(&std::fs::read(path).expect("a readable input")));
            ExitCode::SUCCESS
        }
        names => {
            let targets: Option<Vec<Target>> = names.iter().map(|name| Target::from_name(name)).collect();
            let Some(mut targets) = targets else {
                eprintln!("usage: fuzz [plan|onnx|npz|package]... | --replay TARGET FILE");
                return ExitCode::from(2);
            };
            if targets.is_empty() {
                targets.extend(Target::ALL);
            }
            let failed = targets.into_iter().filter(|&target| !parent(target)).count();
            if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// Runs the child and watches it. Returns whether all was well.
fn parent(target: Target) -> bool {
    // In memory where there is such a place: every input is written once.
    let memory = Path::new("/dev/shm");
    let folder = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).expect("a temporary folder");
    let current = folder.path().join("current");
    let program = std::env::current_exe().expect("the path of this program");
    let mut child = Command::new("sh")
        .args(["-c", &format!("ulimit -v {MAX_MEMORY_KIB}; exec \"$0\" \"$@\"")])
        .arg(program)
        .args(["--child", target.name()])
        .arg(&current)
        .stdin(Stdio::null())
        .spawn()
        .expect("a shell");
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child that can be waited for") {
            break Some(status);
        }
        let stuck = std::fs::metadata(&current)
            .and_then(|data| data.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|elapsed| elapsed > MAX_TIME));
        if stuck {
            child.kill().expect("a child that can be stopped");
            child.wait().expect("a child that can be waited for");
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let what = match status {
        Some(status) if status.success() => return true,
        Some(status) => format!("the process ended with {status}"),
        None => format!("one input took longer than {MAX_TIME:?}"),
    };
    let kept = keep(target, &current);
    eprintln!("fuzz {}: {what}; the input is {}", target.name(), kept.display());
    eprintln!("see it again: cargo run --release -p equant-tests --bin fuzz -- --replay {} FILE", target.name());
    eprintln!("once fixed, move it to tests/fuzz/regressions/{}", target.name());
    false
}

/// Moves the offending input to where it outlives the run.
fn keep(target: Target, current: &Path) -> PathBuf {
    let bytes = std::fs::read(current).expect("the input under test");
    let hash = equant_runtime::plan::checksum(&bytes);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/artifacts").join(target.name());
    std::fs::create_dir_all(&folder).expect("a writable checkout");
    let path = folder.join(format!("crash-{hash:08x}"));
    std::fs::write(&path, bytes).expect("a writable checkout");
    path
}

/// Replays the seeds and regressions, then mutates until the time is over.
fn child(target: Target, current: &Path) {
    let (seconds, seed) = (number("EQUANT_FUZZ_SECONDS", 20), number("EQUANT_FUZZ_SEED", 1));
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut pool: Vec<Vec<u8>> = Vec::new();
    let mut shapes: BTreeSet<String> = BTreeSet::new();
    let mut run = |bytes: &[u8]| -> bool {
        std::fs::write(current, bytes).expect("a writable temporary folder");
        shapes.insert(outcome_shape(&target.run(bytes)))
    };
    for (_, bytes) in seeds(target) {
        run(&bytes);
        pool.push(bytes);
    }
    let mut rng = Rng::new(seed);
    let mut count = 0u64;
    while Instant::now() < deadline {
        let (one, other) = (rng.below(pool.len()), rng.below(pool.len()));
        let input = mutate(target, &pool[one], &pool[other], &mut rng);
        count += 1;
        if run(&input) && pool.len() < MAX_POOL {
            pool.push(input);
        }
    }
    println!(
        "fuzz {}: {count} inputs in {seconds} s from seed {seed}, {} shapes of outcome, none bad",
        target.name(),
        shapes.len()
    );
}
