//! The instructions that firmware reports are those that a QEMU plugin counts.

use std::path::Path;
use std::process::{Command, Output};
use std::{env, fs};

/// Instructions between a marker and the reading of the counter beside it, and the counter's rounding.
const READINGS: u64 = 8;

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    output
}

#[test]
#[ignore = "needs qemu-system-arm, gcc and the target thumbv7em-none-eabihf"]
fn counter_agrees_with_plugin() {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"));
    let firmware = tools.parent().unwrap();
    let work = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let plugin = work.join("libinsncount.so");
    run(Command::new("gcc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o"])
        .arg(&plugin)
        .arg(tools.join("insncount/insncount.c")));

    let target = firmware.join("target");
    run(Command::new(env!("CARGO"))
        .args(["build", "--release", "--bin", "mps2-an386", "--target-dir"])
        .arg(&target)
        .current_dir(firmware.join("boards/mps2-an386")));

    let counts = work.join("counts.txt");
    let output = run(Command::new("qemu-system-arm")
        .args(["-machine", "mps2-an386", "-icount", "shift=7", "-display", "none", "-monitor", "none"])
        .args(["-serial", "null", "-semihosting-config", "enable=on,target=native", "-plugin"])
        .arg(format!("{},out={}", plugin.display(), counts.display()))
        .arg("-kernel")
        .arg(target.join("thumbv7em-none-eabihf/release/mps2-an386")));

    let text = String::from_utf8(output.stdout).unwrap();
    let reported: Vec<u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("image ")?.strip_suffix(" instructions")?.rsplit(' ').next()?.parse().ok())
        .collect();
    let counted: Vec<u64> = fs::read_to_string(&counts)
        .unwrap()
        .lines()
        .map(|line| line.split(['=', ' ']).nth(1).unwrap().parse().unwrap())
        .collect();
    assert_eq!(reported.len(), counted.len(), "{text}");
    assert!(!reported.is_empty(), "no image was classified:\n{text}");
    for (reported, counted) in reported.into_iter().zip(counted) {
        assert!(reported.abs_diff(counted) <= READINGS, "reported {reported}, counted {counted}");
        assert!(counted > 1_000_000, "an inference of {counted} instructions");
    }
}
