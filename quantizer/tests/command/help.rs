//! What the command says about itself.

use crate::common::{equant, stderr, stdout};

fn help(args: &[&str]) -> String {
    let output = equant(std::env::temp_dir().as_path(), args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    stdout(&output)
}

#[test]
fn help_texts() {
    insta::assert_snapshot!("equant", help(&["--help"]));
    for command in ["quantize", "eval", "inspect", "compile", "package", "unpack", "run", "completions"] {
        let text = help(&[command, "--help"]);
        assert!(text.contains("Example"), "{command} has examples");
        insta::assert_snapshot!(command, text);
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(help(&["--version"]), format!("equant {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = help(&["completions", shell]);
        assert!(script.contains("quantize") && script.contains("reduce-range"), "{shell}");
    }
}

#[test]
fn wrong_use_is_code_2_and_says_what_is_wrong() {
    let cases: [(&[&str], &str); 8] = [
        (&[], "Usage: equant"),
        (&["frobnicate"], "unrecognized subcommand 'frobnicate'"),
        (&["quantize", "m.onnx"], "--calib <SAMPLES.npz>"),
        (&["quantize", "m.onnx", "--calib", "c.npz", "--threads", "0"], "0 is not in 1..=65535"),
        (&["quantize", "m.onnx", "--calib", "c.npz", "--dim", "N"], "write NAME=SIZE"),
        (&["quantize", "m.onnx", "--calib", "c.npz", "--percentile", "30"], "above 50"),
        (&["quantize", "m.onnx", "--calib", "c.npz", "--time-budget", "9"], "give --tune or --preset best"),
        (&["inspect", "m.onnx", "-q", "-v"], "cannot be used with"),
    ];
    for (args, message) in cases {
        let output = equant(std::env::temp_dir().as_path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(stdout(&output), "", "{args:?}");
        assert!(stderr(&output).contains(message), "{args:?}: {}", stderr(&output));
    }
}
