//! Peak memory of a program.

use std::process::{Command, Stdio};

/// Peak resident memory of a program in KiB: the kernel's high-water mark of the process, read while it runs; 0 on systems
/// without `/proc`.
///
/// # Panics
///
/// If the program cannot be started or fails.
pub fn of(mut command: Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        // VmHWM only grows, so the last reading before the end is the peak but for the last milliseconds.
        if let Ok(text) = std::fs::read_to_string(&status)
            && let Some(line) = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))
            && let Ok(kib) = line.trim().trim_end_matches("kB").trim().parse::<u64>()
        {
            peak = peak.max(kib);
        }
        if let Some(status) = child.try_wait().expect("a child that can be waited for") {
            assert!(status.success(), "{command:?}: {status}");
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
