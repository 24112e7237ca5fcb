//! What a run says: which level to use, and how far off it is where nothing fits.
//!
//! Everything here is a pure function of the records.

use std::cmp::Reverse;

use engine_protocol::{Outcome, RunRecord};

use crate::Run;

/// By what cases are ranked, said wherever a recommendation is.
pub const RANKING: &str = "levels are taken to be in order of speed until times are modelled: the lowest one that fits wins";

/// The best case of one model at one resolution, or how near the nearest one came.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict<'a> {
    /// The cases of this model and resolution, in order.
    pub records: Vec<&'a RunRecord>,
    /// The recommended case.
    pub best: Option<&'a RunRecord>,
    /// Where nothing fits, the case that missed by least.
    pub nearest: Option<Miss<'a>>,
}

/// A case that ran out of memory, and what it would have needed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Miss<'a> {
    /// The case.
    pub record: &'a RunRecord,
    /// What the GPU would have had to hold at least, the context included.
    pub needed_bytes: u64,
    /// `needed_bytes` less what it holds.
    pub missing_bytes: u64,
}

impl Verdict<'_> {
    /// `wan2.1-t2v-14b at 1280x720, 81 frames`.
    pub fn subject(&self) -> String {
        let config = &self.records[0].config;
        format!("{} at {}, {} frames", config.model, config.resolution(), config.frames)
    }
}

/// A verdict for each model and resolution, in the order in which they first appear.
pub fn verdicts(run: &Run) -> Vec<Verdict<'_>> {
    let subject = |record: &RunRecord| (record.config.model.clone(), record.config.resolution(), record.config.frames);
    let mut groups: Vec<Vec<&RunRecord>> = Vec::new();
    for record in &run.records {
        match groups.iter_mut().find(|group| subject(group[0]) == subject(record)) {
            Some(group) => group.push(record),
            None => groups.push(vec![record]),
        }
    }
    let verdict = |records: Vec<_>| {
        let best = best(records.iter().copied());
        let nearest = if best.is_none() { nearest_miss(records.iter().copied(), run.manifest.capacity_bytes) } else { None };
        Verdict { records, best, nearest }
    };
    groups.into_iter().map(verdict).collect()
}

/// The case to use for the whole run: the best one of the largest video that fits, which smaller videos can use too.
pub fn overall<'a>(verdicts: &[Verdict<'a>]) -> Option<&'a RunRecord> {
    let pixels = |record: &&RunRecord| u64::from(record.config.width) * u64::from(record.config.height) * u64::from(record.config.frames);
    // The first of equals, so that the answer does not hang on how a maximum is found.
    verdicts.iter().filter_map(|verdict| verdict.best).reduce(|best, next| if pixels(&next) > pixels(&best) { next } else { best })
}

/// The case of the lowest level that fits; of those the one with the smallest peak; of those the one with the largest tile, which computes less overlap.
pub fn best<'a>(records: impl Iterator<Item = &'a RunRecord>) -> Option<&'a RunRecord> {
    let fitting = records.filter(|record| record.outcome == Outcome::Ok);
    fitting.min_by_key(|record| (record.config.low_mem_level, record.peak_device_bytes(), Reverse(record.config.vae_tile_size)))
}

/// Of the cases that ran out of memory, the one that would have needed least.
pub fn nearest_miss<'a>(records: impl Iterator<Item = &'a RunRecord>, capacity: Option<u64>) -> Option<Miss<'a>> {
    let misses = records.filter_map(|record| {
        let needed_bytes = needed_bytes(record)?;
        Some(Miss { record, needed_bytes, missing_bytes: needed_bytes.saturating_sub(capacity.unwrap_or(needed_bytes)) })
    });
    misses.min_by_key(|miss| miss.needed_bytes)
}

/// What the GPU would have had to hold at least for a case that ran out of memory: the failed stage's peak of allocated bytes, the allocation that
/// failed, and what the device holds beside the allocator. What the run would have asked for after that is not known.
pub fn needed_bytes(record: &RunRecord) -> Option<u64> {
    if record.outcome != Outcome::Oom {
        return None;
    }
    let memory = record.stage_memory(record.failed_stage?)?;
    let beside = memory.peak_device_bytes.saturating_sub(memory.peak_reserved_bytes);
    let asked_for = record.requested_bytes.map_or(0, |requested| memory.peak_allocated_bytes + requested + beside);
    Some(asked_for.max(record.reached_device_bytes()?))
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
    fn nearest_miss_counts_what_was_asked_for() {
        let run = samples::run(vec![samples::oom("level0", 0, 30), samples::oom("level3", 3, 20)]);
        let verdicts = verdicts(&run);
        let miss = verdicts[0].nearest.expect("a miss");
        assert_eq!(miss.record.case, "level3");
        // 20 GiB allocated, 10 GiB asked for, 1 GiB beside the allocator; the GPU holds 24.
        assert_eq!(miss.needed_bytes, 31 << 30);
        assert_eq!(miss.missing_bytes, 7 << 30);
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
