//! What cases on a real GPU will come to, from the virtual one: in which order to run them, which cannot fit, and how long all will take.
//!
//! A forecast is a run on the virtual GPU. What `lowmem plan` predicts from shapes alone is the engine's, and is not used here.

use std::collections::BTreeMap;
use std::time::Duration;

use engine_protocol::{Device, Forecast, HostRates, Outcome, RunRecord, Stage};

use super::Case;
use super::schedule::{Limits, Schedule};
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::model::Models;
use crate::progress::Progress;
use crate::target::Target;
use crate::worker::Launcher;

/// Sampler steps that the virtual GPU runs of each case.
const STEPS: u32 = 2;
/// A case is given up only where it lacks more than this share of the GPU's memory: forecasts are not exact.
const MARGIN: f64 = 0.02;

/// What cases will come to, by their names.
#[derive(Debug, Default)]
pub(crate) struct Forecasts {
    records: BTreeMap<String, RunRecord>,
}

impl Forecasts {
    /// Runs the cases on a virtual GPU of the real one's kind first. Empty where they are not for a real GPU, or nothing is known of its kind.
    pub(crate) fn of(target: &Target, models: &Models, cases: &[&Case], timeout: Duration, interrupt: &Interrupt) -> Result<Self, Error> {
        if target.device != Device::Cuda || target.profile.is_none() || cases.is_empty() {
            return Ok(Self::default());
        }
        let on_virtual = Target { device: Device::Virtual, uuid: None, ..target.clone() };
        let launcher = Launcher::find(Device::Virtual)?;
        let limits = Limits { jobs: on_virtual.jobs(None)?, case_timeout: timeout };
        let shortened: Vec<Case> = cases.iter().map(|case| shortened(case)).collect();
        tell!("First a forecast: {} cases run on a virtual GPU of that kind.", cases.len());
        let progress = Progress::new(cases.len(), "forecasts");
        let none: Option<HostRates> = None;
        let forecasts = Self::default();
        let schedule =
            Schedule { target: &on_virtual, host_rates: none, launcher: &launcher, models, limits, interrupt, forecasts: &forecasts };
        let mut records = BTreeMap::new();
        schedule.run(&shortened.iter().collect::<Vec<_>>(), &progress, |record| {
            records.insert(record.case.clone(), record);
            Ok(())
        })?;
        progress.finish();
        Ok(Self { records })
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
        let secs = |case: &Case| self.secs(case).unwrap_or(f64::INFINITY);
        open.sort_by(|a, b| secs(a).total_cmp(&secs(b)));
        (open, hopeless)
    }

    fn hopeless(&self, case: &Case, capacity_bytes: Option<u64>) -> Option<RunRecord> {
        let record = self.records.get(&case.name).filter(|record| record.outcome == Outcome::Oom)?;
        let misses = reports::needed_bytes(record)? as f64 > capacity_bytes? as f64 * (1.0 + MARGIN);
        misses.then(|| RunRecord { is_skipped: true, config: case.config.clone(), ..record.clone() })
    }

    /// How long a case will take on the GPU, without loading.
    pub(crate) fn secs(&self, case: &Case) -> Option<f64> {
        let record = self.fitting(case)?;
        let [encode, decode] = [Stage::Encode, Stage::Decode].map(|stage| record.stage_secs(stage).map_or(0.0, |secs| secs.expected));
        Some(encode + record.step_secs()?.expected * f64::from(case.config.steps_to_run()) + decode)
    }

    /// How long all of them will take together; nothing where nothing is known.
    pub(crate) fn secs_of_all(&self, cases: &[&Case]) -> Option<f64> {
        let all: Vec<f64> = cases.iter().filter_map(|case| self.secs(case)).collect();
        (!all.is_empty()).then(|| all.iter().sum())
    }

    fn fitting(&self, case: &Case) -> Option<&RunRecord> {
        self.records.get(&case.name).filter(|record| record.outcome == Outcome::Ok)
    }
}

/// The case with as few sampler steps as tell all.
fn shortened(case: &Case) -> Case {
    let mut shortened = case.clone();
    shortened.config.steps_measured = Some(STEPS.min(case.config.steps));
    shortened
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::{Definition, Rules, expand};

    fn cases() -> Vec<Case> {
        let models = Models::load().expect("models");
        let case = |level: i64| {
            let mut definition = Definition::empty("test");
            definition.fix("model".into(), "wan-tiny".into());
            definition.fix("low_mem_level".into(), level.into());
            expand(&definition, &models, Rules { device: Device::Virtual, may_shorten: true }).expect("a case").0
        };
        (0..4).flat_map(case).collect()
    }

    /// A case of which a step takes so many seconds; or that runs out while it loads, and needs so many GiB.
    fn record(case: &Case, step: Result<f64, u64>) -> RunRecord {
        let stage = |stage: &str, secs: f64| {
            serde_json::json!({"stage": stage, "time": {"secs": {"low": secs, "expected": secs, "high": secs}}, "memory": {
            "allocated_bytes": 0, "reserved_bytes": 0, "peak_allocated_bytes": 0, "peak_reserved_bytes": 0, "peak_device_bytes": 0}})
        };
        let (outcome, steps, requested) = match step {
            Ok(secs) => ("ok", secs * f64::from(case.config.steps_to_run()), None),
            Err(gib) => ("oom", 0.0, Some(gib << 30)),
        };
        let stages = [stage("encode", 1.0), stage("denoise", steps), stage("decode", 2.0)];
        let value = serde_json::json!({"case": case.name, "outcome": outcome, "error": null, "failed_stage": requested.map(|_| "denoise"), "requested_bytes": requested,
            "gpu": null, "device": "virtual", "device_name": null, "memory_source": "virtual", "time_source": "modelled", "config": case.config, "stages": stages,
            "h2d_bytes": null, "d2h_bytes": null, "host_pinned_peak_bytes": null, "wall_secs": 1.0});
        serde_json::from_value(value).expect("a record")
    }

    fn forecasts(cases: &[Case], steps: [Result<f64, u64>; 3]) -> Forecasts {
        Forecasts { records: cases.iter().zip(steps).map(|(case, step)| (case.name.clone(), record(case, step))).collect() }
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
        // A second to encode, two to decode, and the steps that will run.
        let steps = f64::from(cases[0].config.steps_to_run());
        assert_eq!(forecasts.secs_of_all(&cases.iter().collect::<Vec<_>>()), Some(9.0 + 6.0 * steps));
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
