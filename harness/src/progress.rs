//! How far a command is: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicU64, Ordering};

use engine_protocol::{Outcome, RunRecord};
use indicatif::{ProgressBar, ProgressStyle};

/// Of how many parts a line tells where there is no terminal.
const LINES: u64 = 10;

/// How far a command is, on standard error.
pub(crate) struct Progress {
    bar: ProgressBar,
    total: u64,
    done: AtomicU64,
    failed: AtomicU64,
    unit: &'static str,
    is_terminal: bool,
}

impl Progress {
    /// Of `total` units: cases, steps.
    pub(crate) fn new(total: usize, unit: &'static str) -> Self {
        let is_terminal = stderr().is_terminal();
        let bar = if is_terminal { ProgressBar::new(total as u64) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(unit);
        Self { bar, total: total as u64, done: AtomicU64::new(0), failed: AtomicU64::new(0), unit, is_terminal }
    }

    /// A case has ended.
    pub(crate) fn case_ended(&self, record: &RunRecord) {
        if !record.outcome.is_answer() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        let failed = self.failed.load(Ordering::Relaxed);
        let suffix = if failed > 0 { format!(" ({failed} failed)") } else { String::new() };
        self.bar.set_message(format!("{}{suffix}", self.unit));
        if matches!(record.outcome, Outcome::Failed | Outcome::Crashed) {
            let first = record.error.as_deref().unwrap_or_default().lines().next().unwrap_or_default();
            self.line(&format!("{}: {}: {first}", record.case, record.outcome.name()));
        }
        self.advance(&suffix);
    }

    /// A unit is done.
    pub(crate) fn step(&self) {
        self.advance("");
    }

    fn advance(&self, suffix: &str) {
        self.bar.inc(1);
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let tenth = |n: u64| n * LINES / self.total.max(1);
        if !self.is_terminal && tenth(done) > tenth(done - 1) {
            tell!("{done}/{} {}{suffix}", self.total, self.unit);
        }
    }

    fn line(&self, text: &str) {
        if self.is_terminal { self.bar.println(text) } else { tell!("{text}") }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
