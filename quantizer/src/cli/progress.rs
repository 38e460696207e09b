//! Progress bars on stderr; they vanish when done, and where stderr is not a terminal.

use std::cell::RefCell;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::say;
use crate::pipeline::Progress;
use crate::report::numbers;

/// One bar at a time.
pub(super) struct Bars {
    quiet: bool,
    verbose: bool,
    bar: RefCell<ProgressBar>,
}

impl Bars {
    pub(super) fn new(quiet: bool, verbose: bool) -> Self {
        Self { quiet, verbose, bar: RefCell::new(ProgressBar::hidden()) }
    }
}

impl Progress for Bars {
    fn begin(&self, step: &'static str, total: usize) {
        if self.quiet {
            return;
        }
        let (bar, template) = match total {
            0 => (ProgressBar::no_length(), "{spinner} {msg}"),
            total => (ProgressBar::new(total as u64), "{msg:16} {bar:32} {pos}/{len}  {eta}"),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr());
        // The templates are constants; the default style is as good if one were wrong.
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(step);
        bar.enable_steady_tick(Duration::from_millis(120));
        self.bar.replace(bar);
    }

    fn advance(&self, samples: usize) {
        self.bar.borrow().inc(samples as u64);
    }

    fn end(&self, step: &'static str, seconds: f64) {
        self.bar.replace(ProgressBar::hidden()).finish_and_clear();
        if self.verbose {
            say(&format!("{step}: {}", numbers::seconds(seconds)));
        }
    }
}
