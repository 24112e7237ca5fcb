//! Which case stands for a memory level in a plot or a table.

use std::collections::BTreeSet;

use engine_protocol::{RunRecord, Stage};

use crate::verdict::{Verdict, nearest_by_ram, nearest_miss};

/// Each memory level of a model and resolution, lowest first, with the case to show for it.
pub(crate) fn shown_cases<'run>(verdict: &Verdict<'run>) -> Vec<(u8, Option<&'run RunRecord>)> {
    levels(verdict.records.iter().copied()).into_iter().map(|level| (level, shown_case(verdict, level))).collect()
}

/// The stages that some cases may have, in order: of all videos, and of those that begin with a picture where one does.
pub(crate) fn stages<'a>(mut records: impl Iterator<Item = &'a RunRecord>) -> Vec<Stage> {
    let has_image = records.any(|record| record.stage(Stage::EncodeImage).is_some() || record.failed_stage == Some(Stage::EncodeImage));
    Stage::ALL.into_iter().filter(|&stage| has_image || stage != Stage::EncodeImage).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use crate::summary::Summary;

    #[test]
    fn a_recommended_case_stands_for_its_level_and_not_a_smaller_one() {
        let mut records = vec![samples::ok("small", 3, 4), samples::ok("fast", 3, 6)];
        for (record, secs) in records.iter_mut().zip([200.0, 100.0]) {
            for stage in &mut record.stages {
                let secs = engine_protocol::Secs::measured(secs);
                stage.time = Some(engine_protocol::StageTime { secs, copy_stall: None, exchange: None, waiting: None, work: None });
            }
        }
        let run = samples::run(records);
        let summary = Summary::of(&run);
        assert_eq!(summary.chosen.map(|record| record.case.as_str()), Some("fast"));
        assert_eq!(shown_case(&summary.verdicts[0], 3).map(|record| record.case.as_str()), Some("fast"));
    }
}
