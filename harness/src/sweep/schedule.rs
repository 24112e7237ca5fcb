//! Running cases, several at once, each record written down as its case ends.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine_protocol::{Config, Event, HostRates, RunRecord};

use super::expand::Case;
use super::forecast::Forecasts;
use super::shared_steps::{SharedSteps, with_one_step, with_steps_of};
use crate::error::Error;
use crate::gpu_watch::GpuWatch;
use crate::interrupt::Interrupt;
use crate::model::Models;
use crate::progress::Progress;
use crate::rank_plans::RankGpus;
use crate::shared_weights::SharedWeights;
use crate::shares;
use crate::testbed::Testbed;
use crate::worker::{self, Launcher, Patience};

/// How much at once, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Cases at once.
    pub(crate) jobs: usize,
    /// Time of one case.
    pub(crate) case_timeout: Duration,
    /// What each of several ranks has for a sign of life.
    pub(crate) rank_timeout: Duration,
}

impl Limits {
    /// Of one case.
    pub(crate) fn patience(&self) -> Patience {
        Patience { whole: Some(self.case_timeout), rank: self.rank_timeout }
    }
}

/// Runs cases.
pub(crate) struct Schedule<'a> {
    /// Where they run.
    pub(crate) testbed: &'a Testbed,
    /// Where those run that name one of several GPUs.
    pub(crate) gpus: &'a [(String, Testbed)],
    /// What starts them.
    pub(crate) launcher: &'a Launcher,
    /// The models that they name.
    pub(crate) models: &'a Models,
    /// How much at once, and how long.
    pub(crate) limits: Limits,
    /// Ctrl-C.
    pub(crate) interrupt: &'a Interrupt,
    /// What this machine's processor reaches, where a case needs that.
    pub(crate) host_rates: Option<HostRates>,
    /// What the virtual GPU forecast of them.
    pub(crate) forecasts: Forecasts,
    /// Steps that cases have of each other; none where each runs its own.
    pub(crate) shared_steps: Option<SharedSteps>,
    /// Where they keep weights that one makes for all.
    pub(crate) shared_weights: Option<SharedWeights>,
    /// The folder for a memory snapshot of each; none where none are wanted.
    pub(crate) snapshots: Option<PathBuf>,
}

impl<'a> Schedule<'a> {
    /// Runs cases of which nothing is known before, and that share nothing: `preparation` changes that.
    pub(crate) fn new(testbed: &'a Testbed, launcher: &'a Launcher, models: &'a Models, limits: Limits, interrupt: &'a Interrupt) -> Self {
        let (forecasts, shared_steps, shared_weights) = (Forecasts::default(), None, None);
        Self {
            testbed,
            gpus: &[],
            launcher,
            models,
            limits,
            interrupt,
            host_rates: None,
            forecasts,
            shared_steps,
            shared_weights,
            snapshots: None,
        }
    }

    /// Runs `cases`, as many at once as may be, in order of their beginning, and has `keep` keep each record. Ends early, and leaves no worker, where the
    /// user wants to end.
    pub(crate) fn run(
        &self,
        cases: &[&Case],
        progress: &Progress,
        keep: impl FnMut(RunRecord) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.limits.jobs).build();
        let pool = pool.map_err(|error| Error::Fault(format!("no threads to run cases on: {error}")))?;
        let shared = Mutex::new((keep, Ok(())));
        pool.scope_fifo(|scope| {
            for case in cases {
                scope.spawn_fifo(|_| {
                    let may_begin = !self.interrupt.is_wanted() && locked(&shared).1.is_ok();
                    let Some(ended) = may_begin.then(|| self.run_case(case)) else { return };
                    // On disk before this thread begins another case.
                    let (keep, result) = &mut *locked(&shared);
                    let written = ended.and_then(|record| match record {
                        Some(record) => {
                            progress.case_ended(
                                &record,
                                self.forecasts.secs(case, record.steps_of.as_ref().map_or(case.config.steps_to_run(), |_| 1)),
                            );
                            keep(RunRecord { forecast: self.forecasts.of_case(case), ..record })
                        }
                        None => Ok(()),
                    });
                    if result.is_ok() {
                        *result = written;
                    }
                });
            }
        });
        shared.into_inner().unwrap_or_else(PoisonError::into_inner).1
    }

    fn testbed_of(&self, case: &Case) -> &'a Testbed {
        self.gpus.iter().find(|(asked, _)| Some(asked) == case.gpu.as_ref()).map_or(self.testbed, |(_, testbed)| testbed)
    }

    fn run_case(&self, case: &Case) -> Result<Option<RunRecord>, Error> {
        let testbed = self.testbed_of(case);
        let other = self.shared_steps.as_ref().and_then(|shared| shared.find(&case.config));
        let config = if other.is_some() { with_one_step(&case.config) } else { case.config.clone() };
        let model = self.models.get(&case.config.model)?;
        let request_of = |config: &Config| testbed.request(&case.name, model, config, self.host_rates.clone());
        let settled = shares::settled(config.clone(), &RankGpus::of(testbed), |config| Ok(request_of(config)))?;
        let mut request = request_of(&settled);
        request.shared_weights = self.shared_weights.as_ref().map(|shared| shared.folder().to_owned());
        request.snapshot = self.snapshots.as_ref().map(|folder| folder.join(format!("{}.pickle", case.name)));
        let mut watch = testbed.uuid.as_deref().and_then(GpuWatch::begin);
        let mut see = |event: &Event| watch.iter_mut().for_each(|watch| watch.see(event));
        let record = worker::run_case(self.launcher, testbed, &request, self.limits.patience(), self.interrupt, &mut see)?;
        let Some(record) = record else { return Ok(None) };
        let mut record = shares::as_asked(record, &config);
        record.gpu_state = watch.map(GpuWatch::end);
        match (other, &self.shared_steps) {
            (Some(other), _) => record = with_steps_of(&other, record, &case.config),
            (None, Some(shared)) => shared.keep(&record),
            (None, None) => {}
        }
        Ok(Some(record))
    }
}

/// Locks. A thread that died has left nothing half done: a record is appended in one go.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
