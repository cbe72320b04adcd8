//! Steps under way: a spinner at a terminal, one line for each finished step otherwise.

use std::fmt::Display;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{GOOD, line, styled};

const TICK: Duration = Duration::from_millis(80);

/// A step; forgotten without a word if it is dropped before it is done.
pub(super) struct Progress {
    spinner: ProgressBar,
}

impl Progress {
    /// Shows that a step has begun. Without a terminal nothing is shown.
    pub(super) fn new(what: impl Display) -> Self {
        let spinner = ProgressBar::new_spinner().with_message(what.to_string());
        let style = ProgressStyle::with_template("{spinner:.cyan} {msg}")
            .expect("a literal template is well-formed");
        spinner.set_style(style);
        spinner.enable_steady_tick(TICK);
        Self { spinner }
    }

    /// Replaces the step by what came of it.
    pub(super) fn done(self, what: impl Display) {
        self.spinner.finish_and_clear();
        line(format_args!("{} {what}", styled(GOOD, "✓")));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.spinner.finish_and_clear();
    }
}
