//! `lowmem compare`: two runs case by case, for people and for CI.

use std::collections::BTreeMap;
use std::path::Path;

use engine_protocol::{Outcome, RunRecord};
use reports::{ComparePage, CompareRow, Run, compare_page, write_whole};
use schemars::JsonSchema;
use serde::Serialize;

use super::table;
use crate::cli::CompareArguments;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::json;

/// A figure of a case in both runs.
struct Figure {
    name: &'static str,
    before: f64,
    after: f64,
}

impl Figure {
    /// By how much it grew, as a share of what it was.
    fn change(&self) -> f64 {
        if self.before == 0.0 { if self.after == 0.0 { 0.0 } else { f64::INFINITY } } else { self.after / self.before - 1.0 }
    }
}

/// A case in both runs.
struct Pair<'a> {
    before: &'a RunRecord,
    after: &'a RunRecord,
}

impl Pair<'_> {
    fn figures(&self) -> Vec<Figure> {
        let bytes =
            |name, of: fn(&RunRecord) -> Option<u64>| Some(Figure { name, before: of(self.before)? as f64, after: of(self.after)? as f64 });
        let secs = |record: &RunRecord| record.total_secs().map(|secs| secs.expected);
        let time = || Some(Figure { name: "time", before: secs(self.before)?, after: secs(self.after)? });
        [bytes("GPU", RunRecord::peak_device_bytes), bytes("RAM", RunRecord::host_needed_bytes), time()].into_iter().flatten().collect()
    }

    /// Whether it ended well before and does not now.
    fn is_broken(&self) -> bool {
        self.before.outcome == Outcome::Ok && self.after.outcome != Outcome::Ok
    }

    /// The figure that grew most.
    fn worst(&self) -> f64 {
        self.figures().iter().map(Figure::change).fold(0.0, f64::max)
    }
}

/// Compares the runs. With a limit, a case that grew by more, or does not end well any more, is an exit code of its own.
pub(crate) fn run(arguments: &CompareArguments) -> Result<ExitCode, Error> {
    let [before, after] = [&arguments.before, &arguments.after].map(|dir: &std::path::PathBuf| load(dir));
    let (before, after) = (before?, after?);
    let known: BTreeMap<&str, &RunRecord> = after.records.iter().map(|record| (record.case.as_str(), record)).collect();
    let pairs: Vec<Pair<'_>> =
        before.records.iter().filter_map(|record| Some(Pair { before: record, after: known.get(record.case.as_str())? })).collect();
    if pairs.is_empty() {
        return Err(Error::input("the two runs have no case in common: cases are compared by their names"));
    }
    let names = |run: &Run| run.records.iter().map(|record| record.case.clone()).collect::<std::collections::BTreeSet<_>>();
    let (old, new) = (names(&before), names(&after));
    let only = [old.difference(&new).cloned().collect::<Vec<_>>(), new.difference(&old).cloned().collect()];
    let limit = arguments.fail_above.unwrap_or(f64::INFINITY);
    let failed: Vec<&Pair<'_>> = pairs.iter().filter(|pair| pair.is_broken() || pair.worst() > limit).collect();
    let told = Told { pairs: &pairs, only: &only, failed: &failed, arguments };
    if let Some(path) = &arguments.html {
        write_whole(path, compare_page(&told.page())?).map_err(|error| Error::io(path, error))?;
    }
    if arguments.json {
        json::print(&told.as_json())?;
    } else {
        told.print();
    }
    Ok(if arguments.fail_above.is_some() && !failed.is_empty() { ExitCode::Differs } else { ExitCode::Done })
}

fn load(dir: &Path) -> Result<Run, Error> {
    Ok(reports::load(dir)?)
}

const TITLES: [&str; 7] = ["case", "GPU GiB", "change", "RAM GiB", "change", "time", "change"];

/// What is said of two runs.
struct Told<'a> {
    pairs: &'a [Pair<'a>],
    /// Cases of one of them alone: the one before, and the one after.
    only: &'a [Vec<String>; 2],
    failed: &'a [&'a Pair<'a>],
    arguments: &'a CompareArguments,
}

impl Told<'_> {
    fn print(&self) {
        say!("Before: {}. After: {}.\n", self.arguments.before.display(), self.arguments.after.display());
        let mut table = table(&TITLES, &[1, 2, 3, 4, 5, 6]);
        self.pairs.iter().for_each(|pair| {
            table.add_row(pair.cells());
        });
        say!("{table}");
        self.sentences().iter().for_each(|said| say!("{said}"));
    }

    fn sentences(&self) -> Vec<String> {
        let only = self.only.iter().zip(["before", "after"]).filter_map(|(names, which)| {
            let more = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
            Some(format!("Only in the run {which}: {}{more}.", names.first()?))
        });
        let worse = self.arguments.fail_above.map(|limit| {
            let (failed, all) = (self.failed.len(), self.pairs.len());
            format!("{failed} of {all} cases got worse by more than {:.1}%, or do not fit any more.", limit * 100.0)
        });
        only.chain(worse).collect()
    }

    fn page(&self) -> ComparePage {
        let is_worse = |pair: &Pair<'_>| self.failed.iter().any(|failed| failed.after.case == pair.after.case);
        let row =
            |pair: &Pair<'_>| CompareRow { cells: pair.cells().into(), is_worse: self.arguments.fail_above.is_some() && is_worse(pair) };
        ComparePage {
            before: self.arguments.before.display().to_string(),
            after: self.arguments.after.display().to_string(),
            sentences: self.sentences(),
            titles: TITLES.into(),
            rows: self.pairs.iter().map(row).collect(),
        }
    }

    fn as_json(&self) -> CompareJson {
        let [only_before, only_after] = self.only.clone();
        CompareJson {
            cases: self.pairs.iter().map(Pair::as_json).collect(),
            only_before,
            only_after,
            failed: self.failed.iter().map(|pair| pair.after.case.clone()).collect(),
        }
    }
}

impl Pair<'_> {
    /// The case, its figures now and how they changed, in the order of the titles.
    fn cells(&self) -> [String; 7] {
        let figures = self.figures();
        let of = |name: &str| figures.iter().find(|figure| figure.name == name);
        let change = |name: &str| of(name).map(|figure| in_percent(figure.change())).unwrap_or_default();
        let [before, after] = [self.before, self.after].map(|record| record.outcome.name());
        let outcome = if before == after { String::new() } else { format!(" ({before}, now {after})") };
        [
            format!("{}{outcome}", self.after.case),
            reports::in_gib(self.after.peak_device_bytes()),
            change("GPU"),
            reports::in_gib(self.after.host_needed_bytes()),
            change("RAM"),
            of("time").map(|figure| reports::time(figure.after)).unwrap_or_default(),
            change("time"),
        ]
    }
}

fn in_percent(change: f64) -> String {
    if change.abs() < 0.0005 { "=".to_owned() } else { format!("{:+.1}%", change * 100.0) }
}

/// Two runs, case by case.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CompareJson {
    cases: Vec<PairJson>,
    /// Cases that the run before alone has.
    only_before: Vec<String>,
    /// Cases that the run after alone has.
    only_after: Vec<String>,
    /// Cases that got worse by more than --fail-above, or do not end well any more.
    failed: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Pair")]
struct PairJson {
    case: String,
    outcome: Ends,
    peak_device_bytes: Option<Change>,
    ram_peak_bytes: Option<Change>,
    total_secs: Option<Change>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Ends {
    before: Outcome,
    after: Outcome,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Change {
    before: f64,
    after: f64,
    /// By how much it grew, as a share of what it was; null where it was nothing.
    change: Option<f64>,
}

impl Pair<'_> {
    fn as_json(&self) -> PairJson {
        let figures = self.figures();
        let of = |name: &str| {
            figures.iter().find(|figure| figure.name == name).map(|figure| Change {
                before: figure.before,
                after: figure.after,
                change: Some(figure.change()).filter(|change| change.is_finite()),
            })
        };
        PairJson {
            case: self.after.case.clone(),
            outcome: Ends { before: self.before.outcome, after: self.after.outcome },
            peak_device_bytes: of("GPU"),
            ram_peak_bytes: of("RAM"),
            total_secs: of("time"),
        }
    }
}
