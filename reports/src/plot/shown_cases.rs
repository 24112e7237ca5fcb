//! Which case stands for a memory level in a plot.

use std::collections::BTreeSet;

use engine_protocol::{Outcome, RunRecord};

use crate::verdict::{Verdict, nearest_miss};

/// Each memory level of a model and resolution, lowest first, with the case to show for it.
pub(super) fn shown_cases<'run>(verdict: &Verdict<'run>) -> Vec<(u8, Option<&'run RunRecord>)> {
    levels(verdict.records.iter().copied()).into_iter().map(|level| (level, shown_case(verdict, level))).collect()
}

/// The memory levels of some cases, each once, lowest first.
pub(super) fn levels<'a>(records: impl Iterator<Item = &'a RunRecord>) -> Vec<u8> {
    let levels: BTreeSet<u8> = records.map(|record| record.config.low_mem_level).collect();
    levels.into_iter().collect()
}

/// Of a level's cases, the one to show for all of them: the one with the smallest peak that fits, else the one that missed by least.
pub(super) fn shown_case<'run>(verdict: &Verdict<'run>, level: u8) -> Option<&'run RunRecord> {
    let records = verdict.records.iter().copied().filter(|record| record.config.low_mem_level == level);
    let fitting = records.clone().filter(|record| record.outcome == Outcome::Ok);
    let smallest = fitting.min_by_key(|record| record.peak_device_bytes());
    smallest.or_else(|| nearest_miss(records, None).map(|miss| miss.record))
}
