//! What cases on a real GPU will come to, from records of a virtual one: in which order to run them, which cannot fit, and how long all will take.
//!
//! What `lowmem plan` predicts from shapes alone is the engine's, and is not used here.

use std::collections::BTreeMap;

use engine_protocol::{Forecast, Outcome, RunRecord, Stage};

use super::expand::Case;
use super::shared_steps::steps_to_run;

/// A case is given up only where it lacks more than this share of the GPU's memory: forecasts are not exact.
const MARGIN: f64 = 0.02;

/// What cases will come to, by their names.
#[derive(Debug, Default)]
pub(crate) struct Forecasts {
    records: BTreeMap<String, RunRecord>,
}

impl Forecasts {
    /// From what a virtual GPU did with each case.
    pub(super) fn new(records: BTreeMap<String, RunRecord>) -> Self {
        Self { records }
    }

    /// The forecast of a case that fits.
    pub(crate) fn of_case(&self, case: &Case) -> Option<Forecast> {
        let record = self.fitting(case)?;
        Some(Forecast { peak_device_bytes: record.peak_device_bytes(), total_secs: record.total_secs() })
    }

    /// The cases to run with the quickest first, so that there is something to see soon, those of which nothing is known last; and records of those that need
    /// not run, since they cannot fit.
    pub(crate) fn sorted<'a>(&self, cases: Vec<&'a Case>, capacity_bytes: Option<u64>) -> (Vec<&'a Case>, Vec<RunRecord>) {
        let (mut hopeless, mut open) = (Vec::new(), Vec::new());
        for case in cases {
            match self.hopeless(case, capacity_bytes) {
                Some(record) => hopeless.push(record),
                None => open.push(case),
            }
        }
        let secs = |case: &Case| self.secs(case, case.config.steps_to_run()).unwrap_or(f64::INFINITY);
        open.sort_by(|a, b| secs(a).total_cmp(&secs(b)));
        (open, hopeless)
    }

    fn hopeless(&self, case: &Case, capacity_bytes: Option<u64>) -> Option<RunRecord> {
        let record = self.records.get(&case.name).filter(|record| record.outcome == Outcome::Oom)?;
        let misses = reports::needed_bytes(record)? as f64 > capacity_bytes? as f64 * (1.0 + MARGIN);
        misses.then(|| RunRecord { is_skipped: true, config: case.config.clone(), ..record.clone() })
    }

    /// How long a case will take on the GPU with so many steps, without loading.
    pub(crate) fn secs(&self, case: &Case, steps: u32) -> Option<f64> {
        let record = self.fitting(case)?;
        let [encode, decode] = [Stage::Encode, Stage::Decode].map(|stage| record.stage_secs(stage).map_or(0.0, |secs| secs.expected));
        Some(encode + record.step_secs()?.expected * f64::from(steps) + decode)
    }

    /// How long all of them will take together in this order, the steps that they share taken once; nothing where nothing is known.
    pub(crate) fn secs_of_all(&self, cases: &[&Case]) -> Option<f64> {
        let all: Vec<f64> = cases.iter().zip(steps_to_run(cases)).filter_map(|(case, steps)| self.secs(case, steps)).collect();
        (!all.is_empty()).then(|| all.iter().sum())
    }

    fn fitting(&self, case: &Case) -> Option<&RunRecord> {
        self.records.get(&case.name).filter(|record| record.outcome == Outcome::Ok)
    }
}

#[cfg(test)]
mod tests {
    use engine_protocol::{Device, Secs, Source, StageMemory, StageRecord, StageTime};

    use super::*;
    use crate::bare_record::bare_record;
    use crate::model::Models;
    use crate::sweep::{Definition, Rules, expand};

    fn cases() -> Vec<Case> {
        let models = Models::load().expect("models");
        let case = |level: i64| {
            let mut definition = Definition::empty("test");
            definition.fix("model".into(), "wan-tiny".into());
            definition.fix("low_mem_level".into(), level.into());
            expand(&definition, &models, Rules { device: Device::Virtual, may_shorten: true }).expect("a case").cases
        };
        (0..4).flat_map(case).collect()
    }

    /// A case of which a step takes so many seconds; or that runs out while it loads, and needs so many GiB.
    fn record(case: &Case, step: Result<f64, u64>) -> RunRecord {
        let (outcome, steps_secs, requested_bytes) = match step {
            Ok(secs) => (Outcome::Ok, secs * f64::from(case.config.steps_to_run()), None),
            Err(gib) => (Outcome::Oom, 0.0, Some(gib << 30)),
        };
        let stage = |(stage, secs): (Stage, f64)| StageRecord {
            time: Some(StageTime { secs: Secs::measured(secs), copy_stall: None, exchange: None, waiting: None, work: None }),
            memory: Some(StageMemory::default()),
            ..StageRecord::new(stage)
        };
        RunRecord {
            outcome,
            requested_bytes,
            failed_stage: requested_bytes.map(|_| Stage::Denoise),
            device: Device::Virtual,
            memory_source: Some(Source::Virtual),
            time_source: Some(Source::Modelled),
            stages: [(Stage::Encode, 1.0), (Stage::Denoise, steps_secs), (Stage::Decode, 2.0)].map(stage).into(),
            ..bare_record(&case.name, &case.config)
        }
    }

    fn forecasts(cases: &[Case], steps: [Result<f64, u64>; 3]) -> Forecasts {
        Forecasts::new(cases.iter().zip(steps).map(|(case, step)| (case.name.clone(), record(case, step))).collect())
    }

    #[test]
    fn quick_cases_come_first_and_unknown_ones_last() {
        let cases = cases();
        let forecasts = forecasts(&cases, [Ok(3.0), Ok(1.0), Ok(2.0)]);
        let levels = |forecasts: &Forecasts| {
            let (open, hopeless) = forecasts.sorted(cases.iter().collect(), Some(24 << 30));
            assert!(hopeless.is_empty());
            open.into_iter().map(|case| case.config.low_mem_level).collect::<Vec<_>>()
        };
        assert_eq!(levels(&forecasts), [1, 2, 0, 3]);
        assert_eq!(levels(&Forecasts::default()), [0, 1, 2, 3]);
        // A second to encode, two to decode, and the steps that will run: of level 1 one, since those of level 0 are the same.
        let steps = f64::from(cases[0].config.steps_to_run());
        assert_eq!(forecasts.secs_of_all(&cases.iter().collect::<Vec<_>>()), Some(9.0 + (3.0 + 2.0) * steps + 1.0));
        assert_eq!(Forecasts::default().secs_of_all(&cases.iter().collect::<Vec<_>>()), None);
    }

    #[test]
    fn a_case_is_given_up_where_it_misses_by_more_than_forecasts_do() {
        let cases = cases();
        let forecasts = forecasts(&cases, [Err(30), Err(24), Ok(1.0)]);
        let (open, hopeless) = forecasts.sorted(cases.iter().collect(), Some(24 << 30));
        assert_eq!(open.iter().map(|case| case.config.low_mem_level).collect::<Vec<_>>(), [2, 1, 3]);
        assert_eq!(
            hopeless.iter().map(|record| (record.case.as_str(), record.is_skipped)).collect::<Vec<_>>(),
            [(cases[0].name.as_str(), true)]
        );
        assert!(
            forecasts.of_case(&cases[0]).is_none() && forecasts.of_case(&cases[2]).is_some_and(|forecast| forecast.total_secs.is_some())
        );
    }
}
