//! Which case is best, and how far off the nearest one is where nothing fits.
//!
//! Everything here is a pure function of the records. It says nothing in words.

use std::cmp::Reverse;
use std::collections::HashMap;

use engine_protocol::{Config, Outcome, RunRecord, Secs};

use crate::run::{Run, RunGpu};

/// From prompt to video, of a case that came to its end.
pub(crate) fn total_secs(record: &RunRecord) -> Option<Secs> {
    record.total_secs().filter(|_| record.outcome == Outcome::Ok)
}

/// Times that are at most so much longer than the shortest count as the same, as a share of it.
pub const SAME_TIME: f64 = 0.01;

/// What puts cases of one time in order, the best first: quality, level, peak of device memory, and the larger tile, which computes less overlap.
type Rank = (bool, u8, Option<u64>, Reverse<Option<u32>>);

fn rank(record: &RunRecord) -> Rank {
    (is_lossy(record), record.config.low_mem_level, record.peak_device_bytes(), Reverse(record.config.vae_tile_size))
}

/// The fitting cases, the best first: those that give up no quality, then those that do, which come among the others where that is allowed. Of each kind by time, where all
/// have one, and those that are as fast as the fastest of them by what else counts.
pub fn ranked<'a>(records: impl Iterator<Item = &'a RunRecord>, allows_lossy: bool) -> Vec<&'a RunRecord> {
    let fitting = records.filter(|record| record.outcome == Outcome::Ok);
    let (lossy, exact): (Vec<_>, Vec<_>) = fitting.partition(|record| !allows_lossy && is_lossy(record));
    [by_time(exact), by_time(lossy)].concat()
}

/// Whether a case gives up quality.
pub(crate) fn is_lossy(record: &RunRecord) -> bool {
    record.config.exact().is_some()
}

fn by_time(mut fitting: Vec<&RunRecord>) -> Vec<&RunRecord> {
    let secs = |record: &RunRecord| record.total_secs().map_or(f64::INFINITY, |secs| secs.expected);
    if fitting.iter().any(|record| record.total_secs().is_none()) {
        fitting.sort_by_key(|record| rank(record));
        return fitting;
    }
    fitting.sort_by(|a, b| secs(a).total_cmp(&secs(b)));
    let mut rest = fitting.as_mut_slice();
    while let Some(fastest) = rest.first().map(|record| secs(record)) {
        let (same, slower) = rest.split_at_mut(rest.partition_point(|record| secs(record) <= fastest * (1.0 + SAME_TIME)).max(1));
        same.sort_by_key(|record| rank(record));
        rest = slower;
    }
    fitting
}

/// The best case of one model at one resolution on one GPU, or how near the nearest one came.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict<'a> {
    /// In a run of several GPUs the one that they ran on.
    pub gpu: Option<&'a RunGpu>,
    /// The cases of this model and resolution, in order.
    pub records: Vec<&'a RunRecord>,
    /// Those that fit the GPU and the machine's memory, the best first.
    pub ranked: Vec<&'a RunRecord>,
    /// The recommended case.
    pub best: Option<&'a RunRecord>,
    /// Where nothing fits, the case that missed by least.
    pub nearest: Option<Miss<'a>>,
    /// Where nothing fits, of the cases that the GPU holds the one that takes least of the machine's memory.
    pub short_of_ram: Option<&'a RunRecord>,
}

/// A case that ran out of memory, and what it would have needed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Miss<'a> {
    /// The case.
    pub record: &'a RunRecord,
    /// What it would have needed.
    pub need: Need,
    /// `need` less what the GPU holds.
    pub missing_bytes: u64,
}

/// What a case that ran out of memory would have needed of a GPU, the context included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// How much.
    pub bytes: u64,
    /// Whether it is what the whole case is predicted to take, and not only what it had asked for when it failed.
    pub is_whole: bool,
}

impl Need {
    /// `about` or `at least`.
    pub fn word(self) -> &'static str {
        if self.is_whole { "about" } else { "at least" }
    }

    /// The same as a sign, for a table.
    pub(crate) fn sign(self) -> &'static str {
        if self.is_whole { "≈" } else { "≥" }
    }
}

impl Verdict<'_> {
    /// `wan2.1-t2v-14b at 1280x720, 81 frames`, and where a run has several GPUs `on 24GB` after it.
    pub fn subject(&self) -> String {
        let config = &self.records[0].config;
        let on = self.gpu.map(|gpu| format!(" on {}", gpu.asked)).unwrap_or_default();
        format!("{} at {}, {} frames{on}", config.model, config.resolution, config.frames)
    }

    /// A configuration of the video that it is about.
    pub fn subject_config(&self) -> &Config {
        &self.records[0].config
    }

    /// How much video it is about: pixels of all frames.
    pub(crate) fn pixels(&self) -> u64 {
        let config = &self.records[0].config;
        config.resolution.pixels() * u64::from(config.frames)
    }
}

/// A verdict for each GPU, model and resolution, in the order in which they first appear.
pub(crate) fn verdicts(run: &Run) -> Vec<Verdict<'_>> {
    let mut groups: Vec<Vec<&RunRecord>> = Vec::new();
    let mut places = HashMap::new();
    for record in &run.records {
        let subject =
            (run.gpu_of(record).map(|gpu| &gpu.asked), record.config.model.as_str(), record.config.resolution, record.config.frames);
        let place = *places.entry(subject).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(record);
    }
    groups.into_iter().map(|records| verdict(run, records)).collect()
}

fn verdict<'a>(run: &'a Run, records: Vec<&'a RunRecord>) -> Verdict<'a> {
    let ranked = ranked(records.iter().copied().filter(|record| run.fits_ram(record)), run.manifest.allows_lossy);
    let best = ranked.first().copied();
    let first = records.first();
    let capacity = first.and_then(|record| run.capacity_of(record));
    let nearest = if best.is_none() { nearest_miss(records.iter().copied(), capacity) } else { None };
    let short_of_ram = if best.is_none() { nearest_by_ram(records.iter().copied()) } else { None };
    Verdict { gpu: first.and_then(|record| run.gpu_of(record)), records, ranked, best, nearest, short_of_ram }
}

/// The case to use for the whole run: the best one of the largest video that fits, which smaller videos can use too.
pub(crate) fn overall<'a>(verdicts: &[Verdict<'a>]) -> Option<&'a RunRecord> {
    // The first of equals, so that the answer does not hang on how a maximum is found.
    let fitting = verdicts.iter().filter(|verdict| verdict.best.is_some());
    fitting.reduce(|best, next| if next.pixels() > best.pixels() { next } else { best })?.best
}

/// Of the cases that the GPU holds, the one that takes least of the machine's memory.
pub fn nearest_by_ram<'a>(records: impl Iterator<Item = &'a RunRecord>) -> Option<&'a RunRecord> {
    records.filter(|record| record.outcome == Outcome::Ok).min_by_key(|record| record.host_needed_bytes())
}

/// Of the cases that ran out of memory, the one that would have needed least.
pub fn nearest_miss<'a>(records: impl Iterator<Item = &'a RunRecord>, capacity: Option<u64>) -> Option<Miss<'a>> {
    let misses = records.filter_map(|record| {
        let need = need(record)?;
        // Of GPUs of several kinds that of the rank that ran out.
        let usable = record.capacity_bytes.or(capacity).map_or(need.bytes, |bytes| record.config.usable_of(bytes));
        Some(Miss { record, need, missing_bytes: need.bytes.saturating_sub(usable) })
    });
    misses.min_by_key(|miss| miss.need.bytes)
}

/// What a case that ran out of memory would have needed: what it is predicted to take, or what it had asked for at least where that is more or nothing is predicted.
pub fn need(record: &RunRecord) -> Option<Need> {
    let at_least = needed_bytes(record)?;
    let whole = record.predicted_need_bytes.filter(|&predicted| predicted >= at_least);
    Some(Need { bytes: whole.unwrap_or(at_least), is_whole: whole.is_some() })
}

/// What the GPU would have had to hold at least for a case that ran out of memory: the failed stage's peak of allocated bytes, the allocation that
/// failed, and what the device holds beside the allocator. What the run would have asked for after that is not known.
pub fn needed_bytes(record: &RunRecord) -> Option<u64> {
    if record.outcome != Outcome::Oom {
        return None;
    }
    let memory = record.stage_memory(record.failed_stage?)?;
    let asked_for = record.requested_bytes.map_or(0, |requested| memory.peak_allocated_bytes + requested + memory.beside_bytes());
    Some(asked_for.max(record.reached_device_bytes()?))
}

/// What the stage that ran out of memory would have needed of the GPU: what it is predicted to take, or had asked for at least, whichever is more.
pub(crate) fn failed_stage_need(record: &RunRecord) -> Option<u64> {
    let stage = record.stage(record.failed_stage?)?;
    let predicted = stage.predicted_peak_allocated_bytes.map_or(0, |bytes| bytes + stage.memory.map_or(0, |memory| memory.beside_bytes()));
    Some(needed_bytes(record)?.max(predicted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn lowest_level_that_fits_wins_and_then_the_smallest_peak() {
        let run = samples::run(vec![
            samples::oom("level0", 0, 20),
            samples::ok("level2-tile8", 2, 15),
            samples::ok("level2-tile4", 2, 14),
            samples::ok("level3", 3, 4),
        ]);
        let verdicts = verdicts(&run);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].best.map(|r| r.case.as_str()), Some("level2-tile4"));
        assert_eq!(overall(&verdicts).map(|r| r.case.as_str()), Some("level2-tile4"));
        assert_eq!(verdicts[0].nearest, None);
    }

    #[test]
    fn the_shortest_time_wins_and_near_ones_are_the_same() {
        let timed = |name: &str, level: u8, peak: u64, secs: f64| {
            let mut record = samples::ok(name, level, peak);
            for stage in &mut record.stages {
                let secs = Secs::measured(if stage.stage == engine_protocol::Stage::Denoise { secs } else { 0.0 });
                stage.time = Some(engine_protocol::StageTime { secs, copy_stall: None, exchange: None, waiting: None, work: None });
            }
            record
        };
        let records = [timed("level1", 1, 20, 100.0), timed("level2", 2, 15, 50.1), timed("level3", 3, 4, 50.0)];
        let names = |records: &[RunRecord]| ranked(records.iter(), false).iter().map(|r| r.case.clone()).collect::<Vec<_>>();
        assert_eq!(names(&records), ["level2", "level3", "level1"]);
        // What gives up quality comes after all that does not, and where it is allowed in order of speed; of cases as fast as each other what gives up none comes first.
        let lossy = |name: &str, secs: f64| {
            let mut record = timed(name, 0, 4, secs);
            record.config.weight_dtype = engine_protocol::WeightDtype::Fp8E4m3;
            record
        };
        let with_lossy = [records.to_vec(), vec![lossy("lossy", 40.0), lossy("as fast", 49.9)]].concat();
        let order = |allows| ranked(with_lossy.iter(), allows).iter().map(|r| r.case.clone()).collect::<Vec<_>>();
        assert_eq!(order(false), ["level2", "level3", "level1", "lossy", "as fast"]);
        assert_eq!(order(true), ["lossy", "level2", "level3", "as fast", "level1"]);
        // Where one has no time, times do not count.
        let without = [records.to_vec(), vec![samples::ok("level0", 0, 30)]].concat();
        assert_eq!(names(&without), ["level0", "level1", "level2", "level3"]);
    }

    #[test]
    fn nearest_miss_counts_what_was_asked_for() {
        let run = samples::run(vec![samples::oom("level0", 0, 30), samples::oom("level3", 3, 20)]);
        let verdicts = verdicts(&run);
        let miss = verdicts[0].nearest.expect("a miss");
        assert_eq!(miss.record.case, "level3");
        // 20 GiB allocated, 10 GiB asked for, 1 GiB beside the allocator; the GPU holds 24.
        assert_eq!(miss.need, Need { bytes: 31 << 30, is_whole: false });
        assert_eq!(miss.missing_bytes, 7 << 30);
    }

    #[test]
    fn a_case_that_ran_out_early_needs_what_all_of_it_is_predicted_to_take() {
        let predicted = |name, gib: u64| RunRecord { predicted_need_bytes: Some(gib << 30), ..samples::oom(name, 0, 20) };
        // Each had asked for 31 GiB when it failed: a prediction of less than that is wrong.
        let run = samples::run(vec![predicted("level0", 44), predicted("level1", 40), predicted("level2", 30)]);
        let needs: Vec<_> = run.records.iter().filter_map(need).map(|need| (need.bytes >> 30, need.word())).collect();
        assert_eq!(needs, [(44, "about"), (40, "about"), (31, "at least")]);
        assert_eq!(verdicts(&run)[0].nearest.map(|miss| miss.record.case.as_str()), Some("level2"));
    }

    #[test]
    fn a_crash_is_neither_a_fit_nor_a_miss() {
        let mut crashed = samples::ok("level0", 0, 3);
        crashed.outcome = Outcome::Crashed;
        let run = samples::run(vec![crashed]);
        let verdicts = verdicts(&run);
        assert_eq!((verdicts[0].best, verdicts[0].nearest), (None, None));
    }
}
