//! Which candidates to run, and what is best of those that ran.

use std::cmp::Reverse;

use clap::ValueEnum;
use engine_protocol::{Outcome, RunRecord, Stage};
use reports::{Miss, Run};

use crate::sweep::Case;

/// Of what a GPU holds, the share that `balanced` leaves free.
const HEADROOM: f64 = 0.1;

/// What is best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Objective {
    /// The lowest level that fits
    Speed,
    /// The smallest peak
    Memory,
    /// The lowest level that leaves a tenth of the GPU free
    Balanced,
}

/// A search over candidates, the fastest first.
#[derive(Debug)]
pub(crate) struct Search {
    candidates: Vec<Case>,
    objective: Objective,
    capacity_bytes: Option<u64>,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer<'a> {
    /// The best case, where one fits.
    pub(crate) best: Option<&'a RunRecord>,
    /// The one after it.
    pub(crate) second: Option<&'a RunRecord>,
    /// Where nothing fits, the case that missed by least.
    pub(crate) nearest: Option<Miss<'a>>,
    /// Where the machine's memory holds nothing that the GPU holds, what takes least of it, and how much.
    pub(crate) short_of_ram: Option<(String, u64)>,
}

impl Search {
    /// A search for what `objective` calls best.
    pub(crate) fn new(candidates: Vec<Case>, objective: Objective, capacity_bytes: Option<u64>) -> Self {
        Self { candidates, objective, capacity_bytes }
    }

    /// The next candidates to run, at most `jobs`; none when more would not change the answer.
    pub(crate) fn next(&self, records: &[RunRecord], jobs: usize) -> Vec<&Case> {
        if self.is_settled(records) {
            return Vec::new();
        }
        let open = self.candidates.iter().filter(|case| !has_run(records, case) && !is_hopeless(records, case));
        open.take(jobs).collect()
    }

    /// Whether two candidates fit that nothing that has not run could beat: for the smallest peak all must run.
    fn is_settled(&self, records: &[RunRecord]) -> bool {
        let fits = |record: &&RunRecord| record.outcome == Outcome::Ok && (self.objective == Objective::Speed || self.has_headroom(record));
        self.objective != Objective::Memory && records.iter().filter(fits).count() >= 2
    }

    fn has_headroom(&self, record: &RunRecord) -> bool {
        let limit = self.capacity_bytes.map_or(f64::INFINITY, |bytes| bytes as f64 * (1.0 - HEADROOM));
        record.peak_device_bytes().is_none_or(|peak| peak as f64 <= limit)
    }

    /// The best of the cases that ran.
    pub(crate) fn answer<'a>(&self, run: &'a Run) -> Answer<'a> {
        // Sorting is stable: what is equal to an objective stays in order of speed.
        let mut fitting = reports::ranked(run.records.iter().filter(|record| run.fits_ram(record)));
        match self.objective {
            Objective::Speed => {}
            Objective::Memory => fitting.sort_by_key(|record| record.peak_device_bytes()),
            // Those with headroom, the fastest first; then the rest, the smallest first.
            Objective::Balanced => fitting.sort_by_key(|record| {
                let roomy = self.has_headroom(record);
                (Reverse(roomy), if roomy { None } else { record.peak_device_bytes() })
            }),
        }
        let best = fitting.first().copied();
        let nearest = if best.is_none() { reports::nearest_miss(run.records.iter(), run.manifest.capacity_bytes) } else { None };
        let short = if best.is_none() { reports::nearest_by_ram(run.records.iter()) } else { None };
        let short_of_ram = short.and_then(|record| Some((record.case.clone(), record.host_needed_bytes()?)));
        Answer { best, second: fitting.get(1).copied(), nearest, short_of_ram }
    }

    /// By what cases are ranked, in words; `by_speed` is what holds where speed is the objective.
    pub(crate) fn ranking(&self, by_speed: &str) -> String {
        match self.objective {
            Objective::Speed => by_speed.to_owned(),
            Objective::Memory => "Least memory wins.".to_owned(),
            Objective::Balanced => format!("Cases that leave {:.0}% of the GPU free come first. {by_speed}", HEADROOM * 100.0),
        }
    }
}

fn has_run(records: &[RunRecord], case: &Case) -> bool {
    records.iter().any(|record| record.case == case.name)
}

/// Whether a case of the same level, with as many resident blocks, ran out before the VAE, which is all that a tile size changes.
fn is_hopeless(records: &[RunRecord], case: &Case) -> bool {
    records.iter().any(|record| {
        record.outcome == Outcome::Oom
            && record.config.low_mem_level == case.config.low_mem_level
            && record.config.resident_blocks == case.config.resident_blocks
            && record.config.weight_dtype == case.config.weight_dtype
            && record.config.offload_text_encoder == case.config.offload_text_encoder
            && matches!(record.failed_stage, Some(Stage::Load | Stage::Encode | Stage::Denoise))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranking_that_is_told_is_that_of_the_objective() {
        let told = |objective| Search::new(Vec::new(), objective, None).ranking("Fastest wins.");
        assert_eq!(told(Objective::Speed), "Fastest wins.");
        assert_eq!(told(Objective::Memory), "Least memory wins.");
        assert_eq!(told(Objective::Balanced), "Cases that leave 10% of the GPU free come first. Fastest wins.");
    }
}
