//! How far a command is: a bar on a terminal, a line now and then elsewhere, both with the time left. What came of it is said elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine_protocol::{Outcome, RunRecord};
use indicatif::{ProgressBar, ProgressStyle};
use reports::rough_time;
use serde::Serialize;

/// Of how many parts a line tells where there is no terminal.
const LINES: u64 = 10;
/// How often a bar moves while nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// How far something is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Reached {
    /// Units that have ended.
    pub(crate) done: u64,
    /// Of so many.
    pub(crate) total: u64,
    /// Those that failed.
    pub(crate) failed: u64,
    /// The time left in words, where it is known.
    pub(crate) left: Option<String>,
}

/// How far a command is, on standard error.
pub(crate) struct Progress {
    bar: ProgressBar,
    total: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    unit: &'static str,
    begun: Instant,
    is_terminal: bool,
    /// Milliseconds that everything will take by the forecast, and of those what is done; 0 where there is no forecast.
    expected: AtomicU64,
    passed: AtomicU64,
}

impl Progress {
    /// Of `total` units, cases for example.
    pub(crate) fn new(total: usize, unit: &'static str) -> Self {
        let progress = Self::unknown(unit);
        progress.set_total(total as u64);
        progress
    }

    /// Of something that may tell later how much it is.
    pub(crate) fn unknown(unit: &'static str) -> Self {
        let is_terminal = stderr().is_terminal();
        let bar = if is_terminal { ProgressBar::no_length() } else { ProgressBar::hidden() };
        bar.set_style(style("{spinner} {msg} {elapsed}"));
        bar.set_message(unit);
        if is_terminal {
            bar.enable_steady_tick(TICK);
        }
        let [total, done, failed, expected, passed] = [0; 5].map(AtomicU64::new);
        Self { bar, total, done, failed, unit, begun: Instant::now(), is_terminal, expected, passed }
    }

    /// The same of something with a forecast of how long it takes: what is left goes by that, at the pace until now.
    pub(crate) fn expecting(self, secs: Option<f64>) -> Self {
        if let Some(secs) = secs {
            self.expected.store(millis(secs), Ordering::Relaxed);
        }
        self
    }

    fn set_total(&self, total: u64) {
        if self.total.swap(total, Ordering::Relaxed) != total {
            self.bar.set_length(total);
            self.bar.set_style(style("{bar:30} {pos}/{len} {msg} {elapsed}, {eta} left"));
        }
    }

    /// A case has ended, with how long it would take by the forecast.
    pub(crate) fn case_ended(&self, record: &RunRecord, forecast_secs: Option<f64>) {
        self.passed.fetch_add(forecast_secs.map_or(0, millis), Ordering::Relaxed);
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
        record.warnings().iter().for_each(|warning| self.line(&format!("{}: warning: {warning}", record.case)));
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        // A search finds more to run as it goes.
        self.set_total(self.total.load(Ordering::Relaxed).max(done));
        self.show(done - 1, done, &suffix);
    }

    /// So many units of so many are done.
    pub(crate) fn reach(&self, done: u64, total: u64) {
        self.set_total(total);
        self.show(self.done.swap(done, Ordering::Relaxed), done, "");
    }

    fn show(&self, before: u64, done: u64, suffix: &str) {
        self.bar.set_position(done);
        let total = self.total.load(Ordering::Relaxed);
        let tenth = |n: u64| n * LINES / total.max(1);
        if !self.is_terminal && tenth(done) > tenth(before) {
            let left = self.left(done, total).map(|left| format!(", about {left} left")).unwrap_or_default();
            tell!("{done}/{total} {}{suffix}{left}", self.unit);
        }
    }

    /// How far it is.
    pub(crate) fn reached(&self) -> Reached {
        let [done, total, failed] = [&self.done, &self.total, &self.failed].map(|count| count.load(Ordering::Relaxed));
        Reached { done, total, failed, left: self.left(done, total).filter(|_| done > 0) }
    }

    fn left(&self, done: u64, total: u64) -> Option<String> {
        let [passed, expected] = [&self.passed, &self.expected].map(|millis| millis.load(Ordering::Relaxed));
        let (done, total) = if expected > 0 { (passed, expected) } else { (done, total) };
        time_left(self.begun.elapsed(), done, total)
    }

    fn line(&self, text: &str) {
        if self.is_terminal { self.bar.println(text) } else { tell!("{text}") }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// What is left at the pace until now; nothing where nothing is left, and where it is too little to speak of.
fn time_left(elapsed: Duration, done: u64, total: u64) -> Option<String> {
    let left = elapsed.as_secs_f64() / done.max(1) as f64 * total.saturating_sub(done) as f64;
    (left.round() >= 1.0).then(|| rough_time(left))
}

fn millis(secs: f64) -> u64 {
    (secs * 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_follows_the_pace() {
        let left = |elapsed, done, total| time_left(Duration::from_secs(elapsed), done, total);
        assert_eq!(left(10, 1, 5).as_deref(), Some("40 s"));
        assert_eq!(left(60, 2, 10).as_deref(), Some("4 min"));
        assert_eq!(left(3_600, 1, 3).as_deref(), Some("2 h"));
        assert_eq!((left(10, 5, 5), left(0, 1, 5)), (None, None));
    }
}
