//! The peaks of each memory level, model and stage on the virtual GPU, byte for byte as `peaks.csv` beside this file has them, and of each of several ranks as `rank_peaks.csv` does.
//!
//! A change that makes one tensor live longer changes a row, and so is seen by whoever makes it. `make peaks` writes the table anew.

use std::fmt::Write;

use engine_protocol::{Outcome, RankRecord, RunRecord};
use lowmem_tests::root;

use super::sweep::sweep;

/// Each model with the resolutions that it was made for.
const MODELS: [(&str, &[&str]); 6] = [
    ("wan2.1-t2v-1.3b", &["832x480"]),
    ("wan2.1-t2v-14b", &["832x480", "1280x720"]),
    ("wan2.1-i2v-14b", &["832x480", "1280x720"]),
    ("wan2.2-t2v-a14b", &["832x480", "1280x720"]),
    ("wan2.2-i2v-a14b", &["832x480", "1280x720"]),
    ("wan2.2-ti2v-5b", &["1280x704"]),
];

const LEVELS: u8 = 4;
/// Heads exchanged, keys that go round, both, cond and uncond on two groups, and weights in parts; and at which levels.
const SPLITS: [(&str, &str); 5] = [
    ("cp_size=2", "[0, 3]"),
    ("cp_ring=2", "[0, 3]"),
    ("cp_ulysses=2 cp_ring=2", "[0, 3]"),
    ("cfg_size=2", "[0, 3]"),
    ("cp_size=2 shard_weights=true", "[0, 2]"),
];
/// Set, the table is written instead of held against.
const RENEW: &str = "LOWMEM_RENEW_PEAKS";
const REMEDY: &str = "if that is meant, `make peaks` writes the table anew";
const TITLES: &str = "model,resolution,low_mem_level,stage,peak_allocated_bytes,peak_reserved_bytes\n";
const RANK_TITLES: &str = "split,low_mem_level,rank,peak_allocated_bytes,peak_reserved_bytes\n";

/// Whether what is committed is to be written anew, and not held against.
pub(crate) fn is_renewing() -> bool {
    std::env::var_os(RENEW).is_some()
}

#[test]
fn peaks_are_those_of_the_table() {
    hold("tests/memory/peaks.csv", &table());
}

#[test]
fn peaks_of_ranks_are_those_of_the_table() {
    hold("tests/memory/rank_peaks.csv", &rank_table());
}

/// Holds a table against the one that is committed, or writes that anew.
fn hold(path: &str, found: &str) {
    let path = root().join(path);
    if is_renewing() {
        std::fs::write(path, found).expect("the table is written");
        return;
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let differences = differences(&known, found);
    assert!(differences.is_empty(), "peaks are not those of {}; {REMEDY}:\n{differences}", path.display());
    assert_eq!(known, found, "{} is not as it would be written; {REMEDY}", path.display());
}

/// The table as it is now.
fn table() -> String {
    let mut text = TITLES.to_owned();
    for (model, resolutions) in MODELS {
        let records = records(model, resolutions);
        for resolution in resolutions {
            for level in 0..LEVELS {
                let is_it =
                    |record: &&RunRecord| record.config.resolution.to_string() == *resolution && record.config.low_mem_level == level;
                let record = records.iter().find(is_it).expect("a record for each case");
                assert_eq!(record.outcome, Outcome::Ok, "{model} at {resolution}, level {level}: {:?}", record.error);
                for stage in &record.stages {
                    let memory = stage.memory.expect("the virtual GPU counts memory");
                    let (allocated, reserved) = (memory.peak_allocated_bytes, memory.peak_reserved_bytes);
                    let parts = memory.parts.map(|parts| (parts.allocated_bytes(), parts.reserved_bytes()));
                    assert_eq!(parts, Some((allocated, reserved)), "{model} at {resolution}, level {level}: the parts are not the peak");
                    writeln!(text, "{model},{resolution},{level},{},{allocated},{reserved}", stage.stage.name()).expect("a string");
                }
            }
        }
    }
    text
}

/// What each of several ranks holds of a video that is split over them.
fn rank_table() -> String {
    let mut text = RANK_TITLES.to_owned();
    for (split, levels) in SPLITS {
        let flags = split.replace(' ', "\n").replace('=', ": ");
        let definition =
            format!("model: wan2.1-t2v-14b\nresolution: 832x480\nsteps_measured: 1\n{flags}\nsweep:\n  low_mem_level: {levels}\n");
        for record in sweep(&definition) {
            assert_eq!(record.outcome, Outcome::Ok, "{split}: {:?}", record.error);
            for (rank, RankRecord { peak_allocated_bytes, peak_reserved_bytes, .. }) in record.ranks.iter().enumerate() {
                let [allocated, reserved] =
                    [peak_allocated_bytes, peak_reserved_bytes].map(|bytes| bytes.expect("the virtual GPU counts memory"));
                writeln!(text, "{split},{},{rank},{allocated},{reserved}", record.config.low_mem_level).expect("a string");
            }
        }
    }
    text
}

/// The records of a sweep over `resolutions` and all levels.
fn records(model: &str, resolutions: &[&str]) -> Vec<RunRecord> {
    let resolutions = resolutions.join(", ");
    sweep(&format!("model: {model}\nsteps_measured: 2\nsweep:\n  resolution: [{resolutions}]\n  low_mem_level: [0, 1, 2, 3]\n"))
}

/// What each row is about, and its two peaks.
fn rows(table: &str) -> Vec<(&str, [&str; 2])> {
    table.lines().skip(1).filter_map(row).collect()
}

fn row(line: &str) -> Option<(&str, [&str; 2])> {
    let mut cells = line.rsplitn(3, ',');
    let (reserved, allocated) = (cells.next()?, cells.next()?);
    Some((cells.next()?, [allocated, reserved]))
}

/// One line for each peak that differs, and for each row that only one of the tables has.
fn differences(known: &str, found: &str) -> String {
    let (known, found) = (rows(known), rows(found));
    let mut text = String::new();
    for (what, peaks) in &found {
        let Some((_, before)) = known.iter().find(|(other, _)| other == what) else {
            writeln!(text, "{}: not in the table", in_words(what)).expect("a string");
            continue;
        };
        for (name, before, now) in [("peak_allocated_bytes", before[0], peaks[0]), ("peak_reserved_bytes", before[1], peaks[1])] {
            if before != now {
                let change = now.parse::<i128>().ok().zip(before.parse::<i128>().ok()).map(|(now, before)| now - before);
                let change = change.map(|change| format!(" ({change:+})")).unwrap_or_default();
                writeln!(text, "{}: {name} was {before}, is {now}{change}", in_words(what)).expect("a string");
            }
        }
    }
    for (what, _) in known.iter().filter(|(what, _)| found.iter().all(|(other, _)| other != what)) {
        writeln!(text, "{}: in the table, and no longer a case", in_words(what)).expect("a string");
    }
    text
}

/// The cells that say what a row is about.
fn in_words(cells: &str) -> String {
    match cells.split(',').collect::<Vec<_>>().as_slice() {
        [split, level, rank] => format!("{split}, level {level}, rank {rank}"),
        [model, resolution, level, stage] => format!("{model} at {resolution}, level {level}, {stage}"),
        _ => cells.to_owned(),
    }
}

#[test]
fn a_difference_names_its_case_and_both_peaks() {
    let known = format!("{TITLES}wan,832x480,3,denoise,100,200\nwan,832x480,3,decode,1,2\n");
    let found = format!("{TITLES}wan,832x480,3,denoise,90,200\nwan,1280x720,3,denoise,1,2\n");
    assert_eq!(
        differences(&known, &found),
        "wan at 832x480, level 3, denoise: peak_allocated_bytes was 100, is 90 (-10)\n\
         wan at 1280x720, level 3, denoise: not in the table\n\
         wan at 832x480, level 3, decode: in the table, and no longer a case\n"
    );
    assert_eq!(differences(&known, &known), "");
}
