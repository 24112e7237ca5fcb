//! Which of the cases that ran are the answers: the fastest, the smallest, and what lies between.

use clap::ValueEnum;
use engine_protocol::RunRecord;
use reports::{Choices, LOSS, Run};

use crate::sweep::{OF_DECODE, text_without};

/// What is best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Objective {
    /// The fastest that fits
    Speed,
    /// The least GPU memory of those at most 10% slower than the fastest
    Balanced,
    /// The least GPU memory
    Memory,
}

impl Objective {
    /// What people call it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Speed => "Fastest",
            Self::Balanced => "Balanced",
            Self::Memory => "Smallest",
        }
    }
}

/// What is asked of an answer beside fitting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rule {
    /// What is best.
    pub(crate) objective: Objective,
    /// The longest that a video may take, in seconds.
    pub(crate) deadline_secs: Option<f64>,
}

/// The answers of a search.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answers<'a> {
    /// One for each objective that has one of its own, the fastest first.
    pub(crate) found: Vec<(Objective, &'a RunRecord)>,
    /// Which of them was asked for.
    pub(crate) asked: Objective,
    /// Where cases fit and none makes the deadline, the fastest.
    pub(crate) too_slow: Option<&'a RunRecord>,
}

impl<'a> Answers<'a> {
    /// Those of the cases that ran.
    pub(crate) fn of(run: &'a Run, rule: Rule) -> Self {
        let all = reports::ranked(run.records.iter().filter(|record| run.fits_ram(record)), run.manifest.allows_lossy);
        let is_in_time = |record: &&RunRecord| match (record.total_secs(), rule.deadline_secs) {
            (Some(secs), Some(deadline)) => secs.expected <= deadline,
            _ => true,
        };
        let fitting: Vec<&RunRecord> = all.iter().copied().filter(is_in_time).collect();
        let too_slow = if fitting.is_empty() { all.first().copied() } else { None };
        let Choices { fastest, balanced, smallest } = reports::choices(&fitting);
        let mut found: Vec<(Objective, &RunRecord)> = Vec::new();
        for (objective, record) in [(Objective::Speed, fastest), (Objective::Balanced, balanced), (Objective::Memory, smallest)] {
            let is_new = |record: &RunRecord| found.iter().all(|(_, known)| !are_alike(known, record)) || objective == rule.objective;
            found.extend(record.filter(|record| is_new(record)).map(|record| (objective, record)));
        }
        Self { found, asked: rule.objective, too_slow }
    }

    /// The one that was asked for; where times are not known there is no balanced one, and the fastest stands for it.
    pub(crate) fn best(&self) -> Option<&'a RunRecord> {
        let of = |objective| self.found.iter().find(|(other, _)| *other == objective).map(|(_, record)| *record);
        of(self.asked).or_else(|| of(Objective::Speed))
    }
}

/// Whether two cases differ in how they decode at most: nobody needs both as answers.
fn are_alike(one: &RunRecord, other: &RunRecord) -> bool {
    let without = |record: &RunRecord| text_without(&record.config, &OF_DECODE).ok();
    without(one) == without(other)
}

/// By what the answers were chosen, in words.
pub(crate) fn rule_in_words(by_speed: &str, rule: Rule, allow_lossy: bool) -> String {
    let deadline =
        rule.deadline_secs.map(|secs| format!(" Only what takes {} at most counts.", reports::rough_time(secs))).unwrap_or_default();
    let lossy = if allow_lossy {
        " Weights, their products and attention in 8 bits and a cache of sampler steps may be used: they change the video."
    } else {
        ""
    };
    format!(
        "{by_speed} Balanced: the least GPU memory of those at most {:.0}% slower. Smallest: the least GPU memory, heads taken 4 at a time or as the budget asks.{deadline}{lossy}",
        LOSS * 100.0
    )
}

#[cfg(test)]
mod tests {
    use engine_protocol::{Config, Outcome, Secs, Settings, Stage, StageMemory, StageRecord, StageTime};

    use super::*;
    use crate::bare_record::bare_record;
    use crate::model::Models;

    /// A case of that level with a tile, a time in seconds and a peak in GiB.
    fn record(name: &str, level: u8, tile: u32, secs: f64, peak: u64) -> RunRecord {
        let models = Models::load().expect("models");
        let settings = Settings { low_mem_level: Some(level), vae_tile_size: (level > 0).then_some(tile), ..Settings::default() };
        let config = Config::resolve(&settings, models.get("wan-tiny").expect("a model")).expect("legal");
        let stage = |stage| StageRecord {
            time: Some(StageTime {
                secs: Secs::measured(if stage == Stage::Denoise { secs } else { 0.0 }),
                copy_stall: None,
                exchange: None,
                waiting: None,
                work: None,
            }),
            memory: Some(StageMemory { peak_device_bytes: peak << 30, ..StageMemory::default() }),
            ..StageRecord::new(stage)
        };
        RunRecord { outcome: Outcome::Ok, stages: Stage::ALL.map(stage).into(), ..bare_record(name, &config) }
    }

    fn answers(records: &[RunRecord], deadline_secs: Option<f64>) -> (Vec<(Objective, String)>, bool) {
        let run = crate::bare_record::bare_run(records.to_vec());
        let found = Answers::of(&run, Rule { objective: Objective::Speed, deadline_secs });
        (found.found.iter().map(|(objective, record)| (*objective, record.case.clone())).collect(), found.too_slow.is_some())
    }

    #[test]
    fn the_three_differ_in_more_than_a_tile() {
        let records = [
            record("fast", 2, 16, 100.0, 20),
            record("tile", 2, 8, 104.0, 19),
            record("between", 3, 16, 108.0, 6),
            record("small", 3, 4, 300.0, 2),
        ];
        let (found, _) = answers(&records, None);
        // The smallest differs from the balanced one in its tile alone.
        assert_eq!(found, [(Objective::Speed, "fast".into()), (Objective::Balanced, "between".into())]);
        let (found, too_slow) = answers(&records, Some(105.0));
        assert_eq!((found, too_slow), (vec![(Objective::Speed, "fast".into())], false));
        assert_eq!(answers(&records, Some(99.0)), (Vec::new(), true));
    }
}
