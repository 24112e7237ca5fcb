//! Checks by name: each passes with what it saw, fails, or is skipped with the reason. None is passed over in silence.

use std::time::{Duration, Instant};

use serde::Serialize;

/// What became of a check, with what was seen, what was wrong, or why it was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed(String),
    Failed(String),
    Skipped(String),
}

impl Verdict {
    /// Passed with what was `seen`, unless there are faults.
    pub(crate) fn of(seen: impl Into<String>, faults: &[String]) -> Self {
        if faults.is_empty() { Self::Passed(seen.into()) } else { Self::Failed(faults.join("; ")) }
    }

    /// Its word, and the rest.
    pub(crate) fn told(&self) -> (&'static str, &str) {
        match self {
            Self::Passed(seen) => ("passed", seen),
            Self::Failed(why) => ("failed", why),
            Self::Skipped(why) => ("skipped", why),
        }
    }
}

/// A check that was made or skipped.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
}

/// A row of `checks.csv`.
#[derive(Serialize)]
pub(crate) struct Row {
    check: String,
    verdict: &'static str,
    secs: f64,
    what: String,
}

/// All checks, and until when one may begin.
pub(crate) struct Checks {
    begun: Instant,
    budget: Duration,
    made: Vec<Check>,
}

impl Checks {
    pub(crate) fn new(budget: Duration) -> Self {
        Self { begun: Instant::now(), budget, made: Vec::new() }
    }

    /// Makes a check, unless the time is up.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Verdict) {
        let begun = Instant::now();
        let verdict = if begun.duration_since(self.begun) < self.budget {
            check()
        } else {
            Verdict::Skipped(format!("no check begins after {} minutes", self.budget.as_secs() / 60))
        };
        let check = Check { name: name.to_owned(), verdict, took: begun.elapsed() };
        let (word, rest) = check.verdict.told();
        println!("{word:8} {name} ({:.0} s): {rest}", check.took.as_secs_f64());
        self.made.push(check);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Check> {
        self.made.iter()
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let row = |check: &Check| {
            let (verdict, what) = check.verdict.told();
            Row { check: check.name.clone(), verdict, secs: (check.took.as_secs_f64() * 10.0).round() / 10.0, what: what.to_owned() }
        };
        self.iter().map(row).collect()
    }

    /// How many there are of each kind, and how long all took.
    pub(crate) fn summary(&self) -> String {
        let count = |wanted: &str| self.iter().filter(|check| check.verdict.told().0 == wanted).count();
        let minutes = self.begun.elapsed().as_secs_f64() / 60.0;
        format!("{} passed, {} failed, {} skipped, in {minutes:.1} minutes.", count("passed"), count("failed"), count("skipped"))
    }
}

#[test]
fn a_check_that_would_begin_too_late_is_skipped_by_name() {
    let mut checks = Checks::new(Duration::ZERO);
    checks.check("late", || unreachable!("the time is up"));
    assert_eq!(checks.summary(), "0 passed, 0 failed, 1 skipped, in 0.0 minutes.");
    assert_eq!(checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>(), ["late"]);
}
