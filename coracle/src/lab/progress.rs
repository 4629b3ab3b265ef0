//! What the user sees while something takes its time: a line a step, alive on a terminal, plain elsewhere.

use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};

const DONE: Style = AnsiColor::Green.on_default();

/// A running step.
pub struct Step {
    bar: ProgressBar,
    start: Instant,
}

impl Step {
    /// Begins a step; `doing` is shown on a terminal until it is done.
    pub fn begin(doing: impl Into<String>) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        bar.set_message(doing.into());
        bar.enable_steady_tick(Duration::from_millis(80));
        Self { bar, start: Instant::now() }
    }

    /// Shows what the step is at.
    pub fn at(&self, doing: impl Into<String>) {
        self.bar.set_message(doing.into());
    }

    /// Ends the step with the line that stays.
    pub fn done(self, done: &str) {
        self.bar.finish_and_clear();
        let time = seconds(self.start.elapsed());
        anstream::eprintln!("{DONE}✓{DONE:#} {done} ({time})");
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        // A step that failed leaves no line: the error says what happened.
        self.bar.finish_and_clear();
    }
}

/// A duration as people read it.
pub fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
