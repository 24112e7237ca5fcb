//! Cases for a real GPU, run on a virtual one of its kind first.

use std::collections::BTreeMap;
use std::time::Duration;

use engine_protocol::Device;

use super::expand::Case;
use super::forecast::Forecasts;
use super::schedule::{Limits, Schedule};
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::model::Models;
use crate::progress::Progress;
use crate::testbed::Testbed;
use crate::worker::{Launcher, Patience};

/// Sampler steps that the virtual GPU runs of each case.
const STEPS: u32 = 2;

/// Runs the cases on a virtual GPU of the real one's kind. Nothing is forecast where they are not for a real GPU, or nothing is known of its kind.
pub(super) fn rehearse(
    testbed: &Testbed,
    models: &Models,
    cases: &[&Case],
    timeout: Duration,
    interrupt: &Interrupt,
) -> Result<Forecasts, Error> {
    if testbed.device != Device::Cuda || testbed.profile.is_none() || cases.is_empty() {
        return Ok(Forecasts::default());
    }
    let on_virtual = Testbed { device: Device::Virtual, uuid: None, ..testbed.clone() };
    let launcher = Launcher::find(Device::Virtual)?;
    let limits = Limits { jobs: on_virtual.jobs(None)?, case_timeout: timeout, rank_timeout: Patience::default().rank };
    let shortened: Vec<Case> = cases.iter().map(|case| shortened(case)).collect();
    tell!("First a forecast: {} cases run on a virtual GPU of that kind.", cases.len());
    let progress = Progress::new(cases.len(), "forecasts");
    let schedule = Schedule::new(&on_virtual, &launcher, models, limits, interrupt);
    let mut records = BTreeMap::new();
    schedule.run(&shortened.iter().collect::<Vec<_>>(), &progress, |record| {
        records.insert(record.case.clone(), record);
        Ok(())
    })?;
    progress.finish();
    Ok(Forecasts::new(records))
}

/// The case with as few sampler steps as tell all.
fn shortened(case: &Case) -> Case {
    let mut shortened = case.clone();
    shortened.config.steps_measured = Some(STEPS.min(case.config.steps).into());
    shortened
}
