//! What is done before the first case runs: a forecast, cases that cannot fit sorted out, a place for weights that all share; and what of it is said.

use engine_protocol::{Device, RunRecord};

use super::estimate::sentences;
use super::expand::Case;
use super::rehearsal::rehearse;
use super::schedule::Schedule;
use super::shared_steps::SharedSteps;
use crate::error::Error;
use crate::shared_weights::SharedWeights;
use crate::{disk, host_rates};

/// Prepares `schedule` for `cases`. Gives it back, the cases to run with the quickest first, and records of those that need not run, since they cannot fit. What
/// ran `earlier` may have steps that the cases can have.
pub(crate) fn prepare<'a, 'c>(
    mut schedule: Schedule<'a>,
    cases: &[&'c Case],
    earlier: &[RunRecord],
) -> Result<(Schedule<'a>, Vec<&'c Case>, Vec<RunRecord>), Error> {
    let (testbed, models) = (schedule.testbed, schedule.models);
    schedule.forecasts = rehearse(testbed, models, cases, schedule.limits.case_timeout, schedule.interrupt)?;
    let (open, hopeless) = schedule.forecasts.sorted(cases.to_vec(), testbed.capacity_bytes);
    let configs = || open.iter().map(|case| &case.config);
    disk::say_where_assumed(testbed.disk, configs().any(|config| disk::is_modelled(testbed, config)));
    let (shared_weights, said) = SharedWeights::for_cases(testbed.device, models, configs())?;
    let estimate = sentences(testbed, models, &open, &schedule.forecasts, shared_weights.as_ref())?;
    said.into_iter().chain(estimate).for_each(|said| tell!("{said}"));
    schedule.shared_weights = shared_weights;
    schedule.shared_steps = (testbed.device == Device::Cuda).then(|| SharedSteps::of(earlier));
    schedule.host_rates = host_rates::for_cases(testbed, schedule.launcher, configs());
    Ok((schedule, open, hopeless))
}
