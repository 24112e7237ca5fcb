//! Which case stands for a memory level in a plot or a table.

use std::collections::BTreeSet;

use engine_protocol::RunRecord;

use crate::verdict::{Verdict, nearest_by_ram, nearest_miss};

/// Each memory level of a model and resolution, lowest first, with the case to show for it.
pub(crate) fn shown_cases<'run>(verdict: &Verdict<'run>) -> Vec<(u8, Option<&'run RunRecord>)> {
    levels(verdict.records.iter().copied()).into_iter().map(|level| (level, shown_case(verdict, level))).collect()
}

/// The memory levels of some cases, each once, lowest first.
pub(crate) fn levels<'a>(records: impl Iterator<Item = &'a RunRecord>) -> Vec<u8> {
    let levels: BTreeSet<u8> = records.map(|record| record.config.low_mem_level).collect();
    levels.into_iter().collect()
}

/// Of a level's cases, the one to show for all of them: the best one that fits, which is the recommended one where it is of this level; else the one that the
/// machine's memory does not hold; else the one that missed by least.
pub(crate) fn shown_case<'run>(verdict: &Verdict<'run>, level: u8) -> Option<&'run RunRecord> {
    let is_of_level = |record: &&RunRecord| record.config.low_mem_level == level;
    let best = verdict.ranked.iter().copied().find(is_of_level);
    let records = verdict.records.iter().copied().filter(is_of_level);
    best.or_else(|| nearest_by_ram(records.clone())).or_else(|| nearest_miss(records, None).map(|miss| miss.record))
}
