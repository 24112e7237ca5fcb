//! Cases for a real GPU, run on a virtual one of its kind first.

use std::collections::BTreeMap;
use std::time::Duration;

use engine_protocol::Device;

use super::expand::Case;
use super::forecast::Forecast;
use super::schedule::{Limits, Schedule};
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::model::Models;
use crate::progress::Progress;
use crate::testbed::Testbed;
use crate::worker::Launcher;

/// Sampler steps that the virtual GPU runs of each case.
const STEPS: u32 = 2;

/// Runs the cases on a virtual GPU of the real one's kind. Nothing is forecast where they are not for a real GPU, or nothing is known of its kind.
pub(crate) fn rehearse(
    testbed: &Testbed,
    models: &Models,
    cases: &[&Case],
    timeout: Duration,
    interrupt: &Interrupt,
) -> Result<Forecast, Error> {
    if testbed.device != Device::Cuda || testbed.profile.is_none() || cases.is_empty() {
        return Ok(Forecast::default());
    }
    let on_virtual = Testbed { device: Device::Virtual, uuid: None, ..testbed.clone() };
    let launcher = Launcher::find(Device::Virtual)?;
    let limits = Limits { jobs: on_virtual.jobs(None)?, case_timeout: timeout };
    let shortened: Vec<Case> = cases.iter().map(|case| shortened(case)).collect();
    tell!("Predicting {} cases on a virtual GPU of that kind first.", cases.len());
    let progress = Progress::new(cases.len(), "predictions");
    let nothing = Forecast::default();
    let schedule = Schedule { testbed: &on_virtual, host_rates: None, launcher: &launcher, models, limits, interrupt, forecast: &nothing };
    let mut records = BTreeMap::new();
    schedule.run(&shortened.iter().collect::<Vec<_>>(), &progress, |record| {
        records.insert(record.case.clone(), record);
        Ok(())
    })?;
    progress.finish();
    Ok(Forecast::new(records))
}

/// The case with as few sampler steps as tell all.
fn shortened(case: &Case) -> Case {
    let mut shortened = case.clone();
    shortened.config.steps_measured = Some(STEPS.min(case.config.steps));
    shortened
}
