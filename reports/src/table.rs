//! The compact table of a run: the same rows on the terminal, in Markdown and in the page.

use engine_protocol::{Outcome, RunRecord, Secs, Stage, gib};

use crate::{Run, secs_in_words, shown_secs, summary};

/// Titles of the columns. A memory number always names its counter.
pub const TITLES: [&str; 10] = [
    "level",
    "tile",
    "attention",
    "resolution",
    "outcome",
    "peak allocated GiB",
    "peak reserved GiB",
    "peak device GiB",
    "total s",
    "peak stage",
];

/// How many of the first columns are settings and an outcome, and not figures.
pub const TEXT_COLUMNS: usize = 5;

/// One case as cells under [`TITLES`]; what is not known is empty.
pub fn row(record: &RunRecord) -> [String; 10] {
    let config = &record.config;
    [
        config.low_mem_level.to_string(),
        config.vae_tile_size.map(|size| size.to_string()).unwrap_or_default(),
        config.attn_type.name().into(),
        config.resolution.to_string(),
        outcome(record),
        shown(record.peak_allocated_bytes()),
        shown(record.peak_reserved_bytes()),
        shown(record.peak_device_bytes()),
        total_secs(record).map(|secs| shown_secs(secs.expected)).unwrap_or_default(),
        record.peak_stage().map(Stage::name).unwrap_or_default().into(),
    ]
}

/// From prompt to video, of a case that came to its end.
fn total_secs(record: &RunRecord) -> Option<Secs> {
    record.total_secs().filter(|_| record.outcome == Outcome::Ok)
}

/// How a case ended, with the stage where it did not end well, and what it would have needed where memory ran out.
pub(crate) fn outcome(record: &RunRecord) -> String {
    let mut text = record.outcome.name().to_owned();
    if let Some(stage) = record.failed_stage {
        text += &format!(" in {}", stage.name());
    }
    if let Some(needed) = summary::needed_bytes(record) {
        text += &format!(" (needs at least {:.2} GiB)", gib(needed));
    }
    if record.is_skipped {
        text += ", virtual: not run";
    }
    text
}

/// Bytes as GiB with two decimals, empty where they are not known.
pub fn shown(bytes: Option<u64>) -> String {
    bytes.map(|bytes| format!("{:.2}", gib(bytes))).unwrap_or_default()
}

/// Whether some cases have the same settings in the compact columns, as those of a sweep over other keys have: then a table needs their names.
pub fn rows_look_alike(run: &Run) -> bool {
    let key = |record: &RunRecord| row(record)[..4].to_vec();
    run.records.iter().enumerate().any(|(index, record)| run.records[..index].iter().any(|earlier| key(earlier) == key(record)))
}

/// What the counters of the table mean, and what an out-of-memory's figures are.
pub fn notes(run: &Run) -> Vec<String> {
    let mut notes = Vec::new();
    if run.records.iter().any(|record| record.memory_source.is_some()) {
        notes.push(
            "allocated: live tensors as the caching allocator rounds them; reserved: what the allocator holds from the driver; device: reserved and \
             what the CUDA context and the libraries hold beside it, which is what a card must have. GiB is 2^30 bytes."
                .to_owned(),
        );
    }
    if run.records.iter().any(|record| record.is_skipped) {
        notes.push("not run: on a virtual GPU of the same kind the case runs out of memory by more than predictions are off, so the real one was spared it.".to_owned());
    }
    if run.count(Outcome::Oom) > 0 {
        notes.push(
            "oom: the case did not fit, so its peak is not known. `needs at least` is what it held by then and the allocation that failed; what would have \
             come after it is not known."
                .to_owned(),
        );
    }
    if let Some(secs) = run.records.iter().filter_map(total_secs).find(|secs| secs.is_interval()) {
        notes.push(format!(
            "total: from prompt to video, without loading. It is modelled, and known no closer than this: {} is {}; results.csv has the two ends of each.",
            shown_secs(secs.expected),
            secs_in_words(secs)
        ));
    }
    if let Some(record) = run.records.iter().find(|record| record.config.steps_measured.is_some()) {
        notes.push(format!("{} of {} sampler steps were run.", record.config.steps_to_run(), record.config.steps));
    }
    let missing = run.missing();
    if missing > 0 {
        notes.push(format!("{missing} of {} cases have not been run: the sweep was stopped.", run.manifest.cases.len()));
    }
    notes
}

/// Calls that the virtual GPU does not support, with how often each was made over the whole run.
pub fn unsupported_calls(run: &Run) -> Vec<(String, u64)> {
    let mut calls = std::collections::BTreeMap::<&str, u64>::new();
    for (name, count) in run.records.iter().flat_map(|record| &record.unsupported_calls) {
        *calls.entry(name).or_default() += count;
    }
    calls.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}
