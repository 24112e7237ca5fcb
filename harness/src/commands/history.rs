//! `lowmem history`: the runs of a folder, the oldest first, each with what changed to the run before of the same sweep and GPU.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use engine_protocol::{RunRecord, gib};
use jiff::Timestamp;
use reports::{MANIFEST, Run, Summary};
use schemars::JsonSchema;
use serde::Serialize;

use super::table;
use crate::cli::HistoryArguments;
use crate::data;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::json;

/// A change of a time that is none.
const SAME_TIME: f64 = 0.0005;

/// A run in a line.
struct Entry {
    dir: PathBuf,
    when: Timestamp,
    sweep: String,
    gpu: String,
    ran: usize,
    cases: usize,
    /// The video and the settings of the recommended case; what else there is to say where there is none.
    recommended: Result<String, &'static str>,
    peak_bytes: Option<u64>,
    secs: Option<f64>,
}

/// Lists the runs.
pub(crate) fn run(arguments: &HistoryArguments) -> Result<ExitCode, Error> {
    let dir = arguments.dir.clone().unwrap_or_else(data::runs);
    let mut entries = Vec::new();
    for dir in run_dirs(&dir)? {
        match reports::load(&dir) {
            Ok(run) => entries.push(entry(dir, &run)),
            // The others are told all the same.
            Err(error) => tell!("warning: {error}"),
        }
    }
    if entries.is_empty() {
        return Err(Error::input(format!("{}: there is no run in it", dir.display())));
    }
    entries.sort_by(|a, b| (a.when, &a.dir).cmp(&(b.when, &b.dir)));
    let changes = changes(&entries);
    if arguments.json {
        json::print(&entries.iter().zip(changes).map(|(entry, change)| entry.as_json(change)).collect::<Vec<_>>())?;
    } else {
        print(&entries, &changes);
    }
    Ok(ExitCode::Done)
}

/// The run directories in a folder; itself, where it is one. Links lead to one of them, or elsewhere.
fn run_dirs(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let is_run = |dir: &Path| fs::symlink_metadata(dir.join(MANIFEST)).is_ok();
    if is_run(dir) {
        return Ok(vec![dir.to_owned()]);
    }
    let entries = fs::read_dir(dir).map_err(|error| Error::input(format!("{}: {error}", dir.display())))?;
    let folders = entries.filter_map(|entry| entry.ok().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())));
    Ok(folders.map(|entry| entry.path()).filter(|path| is_run(path)).collect())
}

fn entry(dir: PathBuf, run: &Run) -> Entry {
    let manifest = &run.manifest;
    let summary = Summary::of(run);
    let recommended = match summary.chosen {
        Some(chosen) => {
            Ok(format!("{} {}, {}", chosen.config.model, chosen.config.resolution, reports::level_and_flags(run, &chosen.config)))
        }
        None if run.missing() > 0 => Err("no answer yet"),
        None if !manifest.gpus.is_empty() => Err("each GPU has its own"),
        None => Err("nothing fits"),
    };
    let first = run.records.iter().filter_map(|record| record.began.as_ref()?.parse::<Timestamp>().ok()).min();
    let several: Vec<&str> = manifest.gpus.iter().map(|gpu| gpu.asked.as_str()).collect();
    let gpu = manifest.gpu.as_ref().map(|gpu| gpu.name.clone()).or_else(|| (!several.is_empty()).then(|| several.join(", ")));
    Entry {
        when: first.or_else(|| begun(&manifest.begun)).unwrap_or(Timestamp::UNIX_EPOCH),
        sweep: manifest.sweep.clone(),
        gpu: gpu.unwrap_or_else(|| manifest.device.name().to_owned()),
        ran: run.records.len(),
        cases: manifest.cases.len(),
        recommended,
        peak_bytes: summary.chosen.and_then(RunRecord::peak_device_bytes),
        secs: summary.chosen.and_then(RunRecord::total_secs).map(|secs| secs.expected),
        dir,
    }
}

/// When a run without records began, by its manifest: the time zone is a word there, which is taken for UTC.
fn begun(text: &str) -> Option<Timestamp> {
    text.get(..19)?.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|at| at.timestamp())
}

/// What changed in each to the one before of the same sweep and GPU; nothing in the first.
fn changes(entries: &[Entry]) -> Vec<Option<String>> {
    let mut before = HashMap::<(&str, &str), &Entry>::new();
    entries.iter().map(|entry| before.insert((&entry.sweep, &entry.gpu), entry).map(|before| change(before, entry))).collect()
}

fn change(before: &Entry, now: &Entry) -> String {
    let mut said = Vec::new();
    if before.recommended != now.recommended {
        let told = |entry: &Entry| entry.recommended.clone().unwrap_or_else(str::to_owned);
        said.push(format!("was {}", told(before)));
    }
    if before.cases != now.cases {
        said.push(format!("was {} cases", before.cases));
    }
    if let (Some(old), Some(new)) = (before.peak_bytes, now.peak_bytes)
        && old != new
    {
        said.push(format!("peak {:+.2} GiB", gib(new) - gib(old)));
    }
    if let (Some(old), Some(new)) = (before.secs, now.secs)
        && (new / old - 1.0).abs() >= SAME_TIME
    {
        said.push(format!("time {:+.1}%", (new / old - 1.0) * 100.0));
    }
    if said.is_empty() { "nothing".to_owned() } else { said.join(", ") }
}

fn print(entries: &[Entry], changes: &[Option<String>]) {
    let mut table = table(&["when", "sweep", "GPU", "cases", "recommended", "GiB", "time", "changed"], &[3, 5, 6]);
    for (entry, change) in entries.iter().zip(changes) {
        table.add_row([
            entry.when.strftime("%Y-%m-%d %H:%M").to_string(),
            entry.sweep.clone(),
            entry.gpu.clone(),
            if entry.ran == entry.cases { entry.cases.to_string() } else { format!("{} of {}", entry.ran, entry.cases) },
            entry.recommended.clone().unwrap_or_else(str::to_owned),
            reports::in_gib(entry.peak_bytes),
            entry.secs.map(reports::time).unwrap_or_default(),
            change.clone().unwrap_or_default(),
        ]);
    }
    say!("{table}");
    say!("Times of day are in UTC. Changed: to the run before of the same sweep and GPU. Peak and time are those of the recommended case.");
}

/// A run.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Run")]
pub(crate) struct EntryJson {
    dir: PathBuf,
    /// When it began, as in RFC 3339.
    when: String,
    sweep: String,
    gpu: String,
    cases: usize,
    /// How many of them have run.
    cases_run: usize,
    /// The video and the settings of the recommended case.
    recommended: Option<String>,
    /// Why there is none.
    without_recommendation: Option<String>,
    peak_device_bytes: Option<u64>,
    total_secs: Option<f64>,
    /// What changed to the run before of the same sweep and GPU; null in the first.
    changed: Option<String>,
}

impl Entry {
    fn as_json(&self, changed: Option<String>) -> EntryJson {
        EntryJson {
            dir: self.dir.clone(),
            when: self.when.to_string(),
            sweep: self.sweep.clone(),
            gpu: self.gpu.clone(),
            cases: self.cases,
            cases_run: self.ran,
            recommended: self.recommended.clone().ok(),
            without_recommendation: self.recommended.as_ref().err().map(|why| (*why).to_owned()),
            peak_device_bytes: self.peak_bytes,
            total_secs: self.secs,
            changed,
        }
    }
}
