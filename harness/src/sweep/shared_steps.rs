//! Cases that differ in how they decode alone: their sampler steps cannot differ, and take most of the time. The first that comes to its end takes repeated steps;
//! each of the others runs one, which warms up and leaves memory as all steps leave it, and has the first one's.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use engine_protocol::{Config, Outcome, RunRecord, Stage, StepsMeasured};

use super::alike::{OF_DECODE, text_without};
use super::expand::Case;

/// Records whose steps others may have.
#[derive(Debug, Default)]
pub(crate) struct SharedSteps(Mutex<HashMap<String, RunRecord>>);

impl SharedSteps {
    /// Of records that there are already.
    pub(crate) fn of(records: &[RunRecord]) -> Self {
        let shared = Self::default();
        records.iter().for_each(|record| shared.keep(record));
        shared
    }

    /// The record whose steps a case can have.
    pub(super) fn find(&self, config: &Config) -> Option<RunRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key(config)?).cloned()
    }

    /// Keeps a record, where it has steps of its own and came to its end.
    pub(super) fn keep(&self, record: &RunRecord) {
        if record.outcome != Outcome::Ok || record.steps_of.is_some() || !record.lowered.is_empty() {
            return;
        }
        if let Some(key) = key(&record.config) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert_with(|| record.clone());
        }
    }
}

/// The configuration to run where another case has the steps.
pub(super) fn with_one_step(config: &Config) -> Config {
    Config { steps_measured: Some(StepsMeasured::Count(1)), ..config.clone() }
}

/// The record of a case that ran one step, with the steps of `other`. One that did not come through its step is as it is.
pub(super) fn with_steps_of(other: &RunRecord, mut record: RunRecord, config: &Config) -> RunRecord {
    record.config = config.clone();
    if let Some(settled) = &mut record.settled_config {
        settled.steps_measured = config.steps_measured;
    }
    let came_through = record.stages.iter_mut().find(|stage| stage.stage == Stage::Denoise && stage.time.is_some());
    if let (Some(own), Some(theirs)) = (came_through, other.stage(Stage::Denoise)) {
        *own = theirs.clone();
        record.steps_of = Some(other.case.clone());
    }
    record
}

/// How many steps each case will run, in this order.
pub(super) fn steps_to_run(cases: &[&Case]) -> Vec<u32> {
    let mut seen = HashSet::new();
    let mut has_others = |case: &Case| key(&case.config).is_some_and(|key| !seen.insert(key));
    cases.iter().map(|case| if has_others(case) { 1 } else { case.config.steps_to_run() }).collect()
}

/// What sampler steps depend on; nothing where all steps are to be run.
fn key(config: &Config) -> Option<String> {
    config.steps_measured?;
    text_without(config, &OF_DECODE).ok()
}

#[cfg(test)]
mod tests {
    use engine_protocol::{Device, Secs, StageRecord, StageTime};

    use super::*;
    use crate::bare_record::bare_record;
    use crate::model::Models;
    use crate::sweep::{Definition, Rules, expand};

    fn cases() -> Vec<Case> {
        let definition = Definition::load("full").expect("the full sweep");
        expand(&definition, &Models::load().expect("models"), Rules { device: Device::Cuda, may_shorten: true }).expect("legal").cases
    }

    fn record(case: &Case, steps: &[f64]) -> RunRecord {
        let stage = |stage, secs: &[f64]| StageRecord {
            time: Some(StageTime { secs: Secs::measured(secs.iter().sum()), copy_stall: None, exchange: None, waiting: None, work: None }),
            step_secs: secs.iter().copied().map(Secs::measured).collect(),
            ..StageRecord::new(stage)
        };
        let stages = vec![stage(Stage::Encode, &[]), stage(Stage::Denoise, steps), stage(Stage::Decode, &[])];
        RunRecord { stages, ..bare_record(&case.name, &case.config) }
    }

    #[test]
    fn cases_that_decode_otherwise_share_their_steps() {
        let cases = cases();
        let case = |name: &str| cases.iter().find(|case| case.name == name).expect("a case");
        let [first, same] = ["level3-tile4-sdpa-832x480", "level3-tile16-sdpa-832x480"].map(case);
        let shared = SharedSteps::default();
        assert!(shared.find(&same.config).is_none());
        shared.keep(&record(first, &[9.0, 6.0, 6.2]));
        for other in ["level3-tile4-sdpa-1280x720", "level3-tile4-math-832x480", "level2-tile4-sdpa-832x480"] {
            assert!(shared.find(&case(other).config).is_none(), "{other} has other steps");
        }
        let found = shared.find(&same.config).expect("the same steps");
        let one = with_one_step(&same.config);
        assert_eq!(one.steps_to_run(), 1);
        let ran = RunRecord { config: one, ..record(same, &[8.0]) };
        let merged = with_steps_of(&found, ran.clone(), &same.config);
        assert_eq!((merged.steps_of.as_deref(), &merged.config), (Some(first.name.as_str()), &same.config));
        assert!((merged.total_secs().expect("known").expected - (21.2 + 47.0 * 6.1)).abs() < 1e-9);
        // What it had from another is nobody's to have, and one that ran out while it denoised has no steps.
        let none = SharedSteps::of(&[merged]);
        assert!(none.find(&same.config).is_none());
        let mut failed = ran;
        failed.stages[1].time = None;
        assert_eq!(with_steps_of(&found, failed, &same.config).steps_of, None);
    }

    #[test]
    fn repeated_steps_are_run_once_for_all_that_share_them() {
        let cases = cases();
        let steps = steps_to_run(&cases.iter().collect::<Vec<_>>());
        // Levels 0 and 1 differ in tiles alone; level 2 has its text encoder elsewhere, level 3 streams. Four kernels, two resolutions.
        assert_eq!(steps.iter().filter(|&&steps| steps == 3).count(), 3 * 4 * 2);
        assert!(steps.iter().all(|steps| [1, 3].contains(steps)));
        let mut all = cases[0].clone();
        all.config.steps_measured = None;
        assert_eq!(steps_to_run(&[&all, &all]), [50, 50], "steps_measured=all runs all");
    }
}
