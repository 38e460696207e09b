//! Where words go: results to stdout, everything else to stderr.

use std::io::Write as _;

use serde::Serialize;

use super::error::Failure;
use super::progress::Bars;

/// How much is said, and in which form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
    quiet: bool,
    verbose: bool,
}

impl Output {
    pub(super) fn new(json: bool, quiet: bool, verbose: bool) -> Self {
        Self { json, quiet, verbose }
    }

    /// Whether results are JSON.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Progress on stderr.
    pub(super) fn progress(&self) -> Bars {
        Bars::new(self.quiet, self.verbose)
    }

    /// The result: JSON, or text for people.
    pub(super) fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json {
            let json = serde_json::to_string_pretty(value)
                .map_err(|e| crate::pipeline::Error::Internal(format!("the result is no valid JSON: {e}")))?;
            self.text(&(json + "\n"))
        } else {
            self.text(&text())
        }
    }

    /// A line of JSON.
    pub(super) fn json_line(&self, value: &impl Serialize) -> Result<(), Failure> {
        let json = serde_json::to_string(value)
            .map_err(|e| crate::pipeline::Error::Internal(format!("the result is no valid JSON: {e}")))?;
        self.text(&(json + "\n"))
    }

    /// Text on stdout.
    pub(super) fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Stdout)
    }

    pub(super) fn error(&self, failure: &Failure) {
        say(&format!("error: {failure}"));
    }
}

/// A line on stderr. Nobody is left to be told when that fails.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A limit on the number of samples.
pub(super) fn most(limit: Option<u64>) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Columns of text: the first `left` columns flush left, the others flush right, two spaces between.
pub(super) fn table(left: usize, head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let width = |text: &str| text.chars().count();
    let all = || std::iter::once(&head).filter(|head| !head.is_empty()).chain(rows);
    let columns = all().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> =
        (0..columns).map(|i| all().filter_map(|row| row.get(i)).map(|cell| width(cell)).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for row in all() {
        let mut line = String::new();
        for (i, (cell, &wide)) in row.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(wide.saturating_sub(width(cell)));
            if i > 0 {
                line.push_str("  ");
            }
            if i < left {
                line.push_str(cell);
                line.push_str(&padding);
            } else {
                line.push_str(&padding);
                line.push_str(cell);
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "12 µs".to_owned()], vec!["long".to_owned(), "3".to_owned()]];
        assert_eq!(table(1, &["", "time"], &rows), "       time\na     12 µs\nlong      3\n");
    }
}
