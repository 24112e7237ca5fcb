//! The compact table of a run, and what its words mean: on the terminal, in Markdown and in the page.
//!
//! A column stands here once; on the terminal there is room for some of them.

use std::collections::{HashMap, HashSet};

use engine_protocol::{Outcome, RunRecord, Stage};

use crate::advice::host_remedies;
use crate::ram::{self, pinned_bytes};
use crate::run::Run;
use crate::sentences::{left_out, step, steps_that_ran};
use crate::summary::Summary;
use crate::verdict::{need, total_secs};
use crate::words::{CONTEXT, counters, in_gib, time};

/// Lines that are no records and are named one by one.
const FEW_LINES: usize = 3;

/// A column of the compact table.
pub struct TableColumn {
    /// Its title. A memory number always names its counter.
    pub title: &'static str,
    /// Whether its cells are figures.
    pub is_figure: bool,
    /// Whether it tells about the GPU's memory, which is not used on the CPU.
    pub is_memory: bool,
    /// Whether it is among those that the terminal shows.
    pub is_on_terminal: bool,
    cell: fn(&RunRecord) -> String,
}

impl TableColumn {
    /// The cell of a case; empty where it is not known.
    pub fn cell(&self, record: &RunRecord) -> String {
        (self.cell)(record)
    }

    const fn text(title: &'static str, cell: fn(&RunRecord) -> String) -> Self {
        Self { title, is_figure: false, is_memory: false, is_on_terminal: true, cell }
    }

    const fn memory(title: &'static str, is_on_terminal: bool, cell: fn(&RunRecord) -> String) -> Self {
        Self { title, is_figure: true, is_memory: true, is_on_terminal, cell }
    }
}

/// Columns before the others, each where it tells cases of the run apart.
const VARYING: [TableColumn; 2] = [
    TableColumn::text("model", |record| record.config.model.clone()),
    TableColumn::text("GPU", |record| record.gpu.clone().unwrap_or_default()),
];

/// The columns that every run has, in order.
pub const TABLE: [TableColumn; 13] = [
    TableColumn::text("level", |record| record.config.low_mem_level.to_string()),
    TableColumn::text("tile", |record| record.config.vae_tile_size.map(|size| size.to_string()).unwrap_or_default()),
    TableColumn::text("attention", |record| record.config.attn_type.name().into()),
    TableColumn::text("resolution", |record| record.config.resolution.to_string()),
    TableColumn::text("outcome", outcome),
    TableColumn::memory("peak allocated GiB", false, |record| in_gib(record.peak_allocated_bytes())),
    TableColumn::memory("peak reserved GiB", false, |record| in_gib(record.peak_reserved_bytes())),
    TableColumn::memory("peak device GiB", true, |record| match need(record) {
        Some(need) => format!("{} {}", need.sign(), in_gib(Some(need.bytes))),
        None => in_gib(record.peak_device_bytes()),
    }),
    // On the CPU too.
    TableColumn { is_memory: false, ..TableColumn::memory("RAM GiB", true, |record| in_gib(record.host_needed_bytes())) },
    TableColumn::memory("page-locked GiB", false, |record| {
        record.host_needed_bytes().map(|_| in_gib(Some(pinned_bytes(record)))).unwrap_or_default()
    }),
    TableColumn {
        is_memory: false,
        ..TableColumn::memory("total", true, |record| total_secs(record).map(|secs| time(secs.expected)).unwrap_or_default())
    },
    TableColumn {
        is_memory: false,
        ..TableColumn::memory("step", false, |record| step(record).filter(|_| record.outcome == Outcome::Ok).unwrap_or_default())
    },
    TableColumn {
        is_on_terminal: false,
        ..TableColumn::text("peak stage", |r| r.peak_stage().map(Stage::name).unwrap_or_default().into())
    },
];

/// Columns of `TABLE` that tell what the case was, and not what came of it.
const SETTINGS: usize = 4;

/// The columns of a run's table, in order.
pub fn table_columns(run: &Run) -> Vec<&'static TableColumn> {
    VARYING.iter().filter(|column| varies(column, run)).chain(&TABLE).collect()
}

/// Those of them that a terminal has room for: settings where they tell cases apart, and none where cases are `named` by them.
pub fn terminal_columns(run: &Run, named: bool) -> Vec<&'static TableColumn> {
    let (settings, results) = TABLE.split_at(SETTINGS);
    let settings = VARYING.iter().chain(settings).filter(|column| !named && varies(column, run));
    settings.chain(results.iter().filter(|column| column.is_on_terminal)).collect()
}

fn varies(column: &TableColumn, run: &Run) -> bool {
    run.records.iter().map(|record| column.cell(record)).collect::<HashSet<_>>().len() > 1
}

/// How a case ended, with the stage where it did not end well.
pub(crate) fn outcome(record: &RunRecord) -> String {
    let mut text = record.outcome.name().to_owned();
    if let Some(stage) = record.failed_stage {
        text += &format!(" in {}", stage.name());
    }
    if record.is_skipped {
        text += ", not run";
    }
    if !record.warnings().is_empty() {
        text += ", warned";
    }
    text
}

/// Whether some cases have the same settings in the compact columns, as those of a sweep over other keys have: then a table needs their names.
pub fn rows_look_alike(summary: &Summary<'_>) -> bool {
    let columns = VARYING.iter().chain(TABLE.iter().take(SETTINGS));
    let settings = |record: &RunRecord| columns.clone().map(|column| column.cell(record)).collect::<Vec<_>>();
    let mut seen = HashSet::new();
    !summary.run.records.iter().all(|record| seen.insert(settings(record)))
}

/// What the columns on the terminal mean.
pub fn terminal_notes(summary: &Summary<'_>) -> Vec<String> {
    let device =
        format!("Peak device: the most GPU memory in use at once, in GiB (2^30 bytes), with {CONTEXT}. A card must have that much.");
    notes(summary, device)
}

/// What the columns of the whole table mean.
pub(crate) fn all_notes(summary: &Summary<'_>) -> Vec<String> {
    notes(summary, format!("Peaks are in GiB (2^30 bytes). {} A card must have the last one.", counters()))
}

fn notes(summary: &Summary<'_>, counters: String) -> Vec<String> {
    let (run, records) = (summary.run, &summary.run.records);
    let mut notes = Vec::new();
    if records.iter().any(|record| record.memory_source.is_some()) {
        notes.push(counters);
    }
    if records.iter().any(|record| record.is_skipped) {
        notes.push("Not run: by the forecast of the virtual GPU the case cannot fit, so the real one did not try it.".to_owned());
    }
    let needs: Vec<_> = records.iter().filter_map(need).collect();
    if !needs.is_empty() {
        let whole = needs.iter().any(|need| need.is_whole).then_some(" It is predicted to need what stands after ≈.");
        let at_least =
            needs.iter().any(|need| !need.is_whole).then_some(" It needs at least what stands after ≥; how much more is not known.");
        let said = [whole, at_least].into_iter().flatten();
        notes.push(said.fold("oom: out of memory, the case does not fit.".to_owned(), |note, said| note + said));
    }
    notes.extend(ram::notes(run));
    // What to do follows from the configuration: the first case stands for all.
    if let Some(record) = records.iter().find(|record| record.outcome == Outcome::OomHost) {
        let error = record.error.as_deref().unwrap_or_default();
        notes.push(format!("oom_host: the GPU is not what lacked. In {} {error}. {}.", record.case, host_remedies(record)));
    }
    if let Some(secs) = records.iter().find_map(total_secs) {
        let ends = if secs.is_interval() { " It is an estimate: results.csv has the lowest and the highest that it may be." } else { "" };
        notes.push(format!("Total: the time from prompt to video, without loading.{ends}"));
    }
    notes.extend(records.iter().find_map(steps_that_ran));
    let cached = records.iter().filter_map(|record| Some(format!("{}: {}", record.case, left_out(record)?)));
    notes.extend(cached.take(FEW_LINES));
    let measured = run.quality.iter().map(|quality| {
        let psnr = quality.psnr_db.map_or("the same video".to_owned(), |psnr| format!("PSNR {psnr:.1} dB, SSIM {:.3}", quality.ssim));
        format!("{}: {psnr}, against the same seed without loss.", quality.case)
    });
    notes.extend(measured);
    let spreads = records.iter().filter_map(|record| Some((record.step_spread()?, record.step_secs()?.expected)));
    let widest = spreads.map(|([least, largest], mean)| (largest - least) / mean).reduce(f64::max);
    notes.extend(widest.map(|share| {
        format!("The first step warms up and counts once. Those after it differ by {:.1}% at most within a case: results.csv has the shortest and the longest.", share * 100.0)
    }));
    if let Some(count) = Some(records.iter().filter(|record| record.steps_of.is_some()).count()).filter(|&count| count > 0) {
        notes.push(format!(
            "{count} of {} cases ran one step and have the others' steps, from which they differ in how they decode alone.",
            records.len()
        ));
    }
    notes.extend(run.manifest.left_out.iter().cloned());
    if !run.manifest.mixed.is_empty() {
        notes.push(format!("Mixed: cases were run before with what is another one now. {}.", run.manifest.mixed.join("; ")));
    }
    notes.extend(warned(records));
    notes.extend(run.passed_over.iter().take(FEW_LINES).map(|said| format!("Warned: {said}.")));
    if let Some(more @ 1..) = run.passed_over.len().checked_sub(FEW_LINES) {
        notes.push(format!("Warned: {more} more lines of the records are no records."));
    }
    let missing = run.missing();
    if missing > 0 {
        notes.push(format!("{missing} of {} cases have not run.", run.manifest.cases.len()));
    }
    notes
}

/// Each warning once, with the cases that it is about.
fn warned(records: &[RunRecord]) -> Vec<String> {
    let mut about: Vec<(String, Vec<&str>)> = Vec::new();
    let mut places = HashMap::new();
    for record in records {
        for warning in record.warnings() {
            let place = *places.entry(warning.clone()).or_insert(about.len());
            if place == about.len() {
                about.push((warning, Vec::new()));
            }
            about[place].1.push(&record.case);
        }
    }
    let said = |(warning, cases): (String, Vec<&str>)| match cases.as_slice() {
        [case] => format!("Warned: {warning} ({case})."),
        [first, ..] => format!("Warned: {warning} ({} cases, the first is {first}).", cases.len()),
        [] => format!("Warned: {warning}."),
    };
    about.into_iter().map(said).collect()
}
