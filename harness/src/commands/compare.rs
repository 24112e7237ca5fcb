//! `lowmem compare`: two runs case by case, for people and for CI.

use std::collections::BTreeMap;
use std::path::Path;

use engine_protocol::{Outcome, RunRecord};
use reports::Run;
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
    if arguments.json {
        let [only_before, only_after] = only;
        json::print(&CompareJson {
            cases: pairs.iter().map(Pair::as_json).collect(),
            only_before,
            only_after,
            failed: failed.iter().map(|pair| pair.after.case.clone()).collect(),
        })?;
    } else {
        print(&pairs, &only, arguments);
        if arguments.fail_above.is_some() {
            say!("{} of {} cases got worse by more than {:.1}%, or do not fit any more.", failed.len(), pairs.len(), limit * 100.0);
        }
    }
    Ok(if arguments.fail_above.is_some() && !failed.is_empty() { ExitCode::Differs } else { ExitCode::Done })
}

fn load(dir: &Path) -> Result<Run, Error> {
    Ok(reports::load(dir)?)
}

fn print(pairs: &[Pair<'_>], only: &[Vec<String>; 2], arguments: &CompareArguments) {
    say!("Before: {}. After: {}.\n", arguments.before.display(), arguments.after.display());
    let mut table = table(&["case", "GPU GiB", "change", "RAM GiB", "change", "time", "change"], &[1, 2, 3, 4, 5, 6]);
    for pair in pairs {
        let figures = pair.figures();
        let of = |name: &str| figures.iter().find(|figure| figure.name == name);
        let change = |name: &str| of(name).map(|figure| in_percent(figure.change())).unwrap_or_default();
        let [before, after] = [pair.before, pair.after].map(|record| record.outcome.name());
        let outcome = if before == after { String::new() } else { format!(" ({before}, now {after})") };
        table.add_row([
            format!("{}{outcome}", pair.after.case),
            reports::in_gib(pair.after.peak_device_bytes()),
            change("GPU"),
            reports::in_gib(pair.after.host_needed_bytes()),
            change("RAM"),
            of("time").map(|figure| reports::time(figure.after)).unwrap_or_default(),
            change("time"),
        ]);
    }
    say!("{table}");
    for (names, which) in only.iter().zip(["before", "after"]) {
        if let Some(first) = names.first() {
            let more = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
            say!("Only in the run {which}: {first}{more}.");
        }
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
