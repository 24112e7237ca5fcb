//! The machine's memory (RAM) that cases take: in words, and stage by stage.

use engine_protocol::{HostMemory, RunRecord, StreamFrom, gib};

use crate::run::Run;
use crate::words::in_gib;

/// The titles of the rows of [`rows`].
pub(crate) const TITLES: [&str; 6] =
    ["case", "stage", "RAM GiB, predicted", "RAM GiB, measured", "page-locked GiB, predicted", "page-locked GiB, counted"];

/// What the figures are.
pub(crate) const NOTE: &str = "RAM is all that the process holds of the machine's memory at once, page-locked memory included. On the virtual GPU no weight is \
                               written, so it is predicted there: exact for weights and page-locked memory, an estimate for the rest.";

/// `RAM: 38.29 of 60.58 GiB, 26.70 of them page-locked (predicted)`; nothing where it is not known.
pub fn ram_in_words(record: &RunRecord, ram_bytes: Option<u64>) -> Option<String> {
    let needed = record.host_needed_bytes()?;
    let held = ram_bytes.map(|bytes| format!(" of {:.2}", gib(bytes))).unwrap_or_default();
    Some(format!("RAM: {:.2}{held} GiB, {:.2} of them page-locked ({})", gib(needed), gib(pinned_bytes(record)), source(record)))
}

/// The most page-locked memory: counted, or else predicted.
pub(crate) fn pinned_bytes(record: &RunRecord) -> u64 {
    record.host().or(record.predicted_host()).map_or(0, |host| host.pinned_peak_bytes)
}

/// Where the figure of RAM is from.
pub fn source(record: &RunRecord) -> &'static str {
    if record.host().is_some_and(|host| host.peak_bytes.is_some()) { "measured" } else { "predicted" }
}

/// What a case that the machine's memory does not hold lacks, in a sentence: the one that lacks least.
pub(crate) fn nearest(run: &Run, record: &RunRecord) -> String {
    let (needed, held) = (record.host_needed_bytes().unwrap_or(0), run.manifest.ram_bytes.unwrap_or(0));
    format!(
        "Nearest: {}, which the GPU holds, and which takes {:.2} of {:.2} GiB of RAM. {:.2} GiB are missing.",
        record.case,
        gib(needed),
        gib(held),
        gib(needed.saturating_sub(held))
    )
}

/// A row for each stage of these cases.
pub(crate) fn rows(records: &[&RunRecord]) -> Vec<[String; 6]> {
    let of_case = |record: &RunRecord| {
        let case = record.case.clone();
        let stages = record.stages.iter().filter(|stage| stage.host.is_some() || stage.predicted_host.is_some());
        let rows = stages.map(move |stage| {
            let peak = |host: Option<HostMemory>| in_gib(host.and_then(|host| host.peak_bytes));
            let pinned = |host: Option<HostMemory>| in_gib(host.map(|host| host.pinned_peak_bytes));
            [
                case.clone(),
                stage.stage.name().into(),
                peak(stage.predicted_host),
                peak(stage.host),
                pinned(stage.predicted_host),
                pinned(stage.host),
            ]
        });
        rows.collect::<Vec<_>>()
    };
    records.iter().copied().flat_map(of_case).collect()
}

/// What the budget is, and which cases it does not hold.
pub(crate) fn notes(run: &Run) -> Vec<String> {
    let mut notes = Vec::new();
    if run.records.iter().any(|record| record.host_needed_bytes().is_some()) {
        notes.push(NOTE.to_owned());
        notes.extend(run.manifest.ram.clone());
    }
    let from_files = |record: &RunRecord| record.config_run().stream_from == Some(StreamFrom::File);
    if run.records.iter().any(from_files) {
        notes.extend(run.manifest.disk.clone());
    }
    let short: Vec<&str> = run.records.iter().filter(|record| !run.fits_ram(record)).map(|record| record.case.as_str()).collect();
    if let Some(first) = short.first() {
        let all = if short.len() == 1 { String::new() } else { format!(" and {} more", short.len() - 1) };
        let held = in_gib(run.manifest.ram_bytes);
        notes.push(format!("Does not fit {held} GiB of RAM, and is not recommended: {first}{all}."));
    }
    notes
}

#[cfg(test)]
mod tests {
    use engine_protocol::{GIB, Stage};

    use super::*;
    use crate::samples;
    use crate::summary::Summary;

    fn taking(case: &str, level: u8, gib: u64, pinned: u64) -> RunRecord {
        let mut record = samples::ok(case, level, 5);
        for stage in &mut record.stages {
            let bytes = if stage.stage == Stage::Load { gib * GIB } else { gib * GIB / 2 };
            stage.predicted_host = Some(HostMemory { peak_bytes: Some(bytes), pinned_peak_bytes: pinned * GIB });
        }
        record
    }

    #[test]
    fn a_case_that_ram_does_not_hold_is_not_recommended() {
        let mut run = samples::run(vec![taking("level1", 1, 40, 0), taking("level3", 3, 20, 7)]);
        assert_eq!(Summary::of(&run).chosen.map(|record| record.case.as_str()), Some("level1"));
        run.manifest.ram_bytes = Some(30 * GIB);
        let summary = Summary::of(&run);
        assert_eq!(summary.chosen.map(|record| record.case.as_str()), Some("level3"));
        assert!(summary.sentences[0].contains("RAM: 20.00 of 30.00 GiB, 7.00 of them page-locked (predicted)."), "{:?}", summary.sentences);
        assert!(notes(&run).iter().any(|note| note.ends_with("not recommended: level1.")), "{:?}", notes(&run));
        run.manifest.ram_bytes = Some(8 * GIB);
        let summary = Summary::of(&run);
        assert_eq!(summary.chosen, None);
        assert!(summary.sentences[0].contains("nothing fits. Nearest: level3, which the GPU holds"), "{:?}", summary.sentences);
    }

    #[test]
    fn what_was_measured_stands_before_what_was_predicted() {
        let mut record = taking("a", 3, 20, 7);
        for stage in &mut record.stages {
            stage.host = Some(HostMemory { peak_bytes: None, pinned_peak_bytes: 6 * GIB });
        }
        assert_eq!(ram_in_words(&record, None).as_deref(), Some("RAM: 20.00 GiB, 6.00 of them page-locked (predicted)"));
        for stage in &mut record.stages {
            stage.host = Some(HostMemory { peak_bytes: Some(19 * GIB), pinned_peak_bytes: 6 * GIB });
        }
        assert_eq!(ram_in_words(&record, None).as_deref(), Some("RAM: 19.00 GiB, 6.00 of them page-locked (measured)"));
    }
}
