//! A quick answer: of all that may fit by prediction the first in order of speed, decoded in tiles that take little, run to see that it does. A whole search runs what may be
//! faster too.

use engine_protocol::{Config, RunRecord};
use rayon::prelude::*;
use serde_json::Value;

use super::predicted::{Need, Predicted, of_best_splits, predicted, smallest};
use super::search::Search;
use super::search_space::{Ladder, USUAL, ladders};
use crate::error::Error;
use crate::host_rates;
use crate::interrupt::Interrupt;
use crate::model::Models;
use crate::rank_plans::RankGpus;
use crate::shares;
use crate::splits::Way;
use crate::sweep::{Case, Rules};
use crate::testbed::Testbed;
use crate::worker::{self, Launcher, Patience};

/// What runs quick answers.
#[derive(Clone, Copy)]
pub(crate) struct Quick<'a> {
    /// Where they run.
    pub(crate) testbed: &'a Testbed,
    /// What starts them.
    pub(crate) launcher: &'a Launcher,
    /// The models that they name.
    pub(crate) models: &'a Models,
    /// Ctrl-C.
    pub(crate) interrupt: &'a Interrupt,
    /// How a video may be split over GPUs.
    pub(crate) ways: &'a [Way],
    /// Whether the finest cuts are tried where nothing else fits: they save little, and take long.
    pub(crate) cuts_finest: bool,
}

/// What takes least GPU memory, whatever denoise is cut into.
const LEAST: [(&str, u8); 4] = [("low_mem_level", 3), ("prefetch_blocks", 0), ("vae_tile_size", 4), ("vae_temporal_chunk", 1)];

/// A quick answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct QuickAnswer {
    /// What fits, as it ran.
    pub(crate) record: Option<RunRecord>,
    /// What takes least of the GPU, by prediction.
    pub(crate) smallest: Option<(Case, Need)>,
}

impl Quick<'_> {
    /// Whether anything may fit by prediction with these settings.
    pub(crate) fn may_fit(&self, fixed: &[(String, Value)]) -> Result<bool, Error> {
        // What takes least stands for all.
        let is_open = |key: &str| fixed.iter().all(|(other, _)| other != key);
        let least = LEAST.into_iter().filter(|(key, _)| is_open(key)).map(|(key, value)| (key.to_owned(), Value::from(value)));
        let ladders = self.predict(self.ladders(&fixed.iter().cloned().chain(least).collect::<Vec<_>>())?)?;
        Ok(!self.search(&of_best_splits(ladders)).is_hopeless())
    }

    /// For the settings that are `fixed`.
    pub(crate) fn answer(&self, fixed: &[(String, Value)]) -> Result<QuickAnswer, Error> {
        self.answer_by(self.predict(self.ladders(fixed)?)?)
    }

    /// For each of these settings, side by side. All are planned at once: to start the worker takes longer than a dozen plans.
    pub(crate) fn answers(&self, all: &[Vec<(String, Value)>]) -> Result<Vec<QuickAnswer>, Error> {
        let ladders = all.iter().map(|fixed| self.ladders(fixed)).collect::<Result<Vec<_>, Error>>()?;
        let counts: Vec<usize> = ladders.iter().map(Vec::len).collect();
        let mut predicted = self.predict(ladders.into_iter().flatten().collect())?.into_iter();
        let each: Vec<Vec<_>> = counts.into_iter().map(|count| predicted.by_ref().take(count).collect()).collect();
        each.into_par_iter().map(|ladders| self.answer_by(ladders)).collect()
    }

    /// What would run first for the settings that are `fixed`, and what it is predicted to take; nothing where nothing may fit.
    pub(crate) fn prediction(&self, fixed: &[(String, Value)]) -> Result<Option<(Case, Need)>, Error> {
        let ladders = of_best_splits(self.predict(self.ladders(fixed)?)?);
        let first = self.search(&ladders).first_to_run().cloned();
        let need = |case: &Case| ladders.iter().flatten().find(|predicted| predicted.rung.case.name == case.name)?.need;
        Ok(first.and_then(|case| Some((need(&case)?, case))).map(|(need, case)| (case, need)))
    }

    fn answer_by(&self, ladders: Vec<Vec<Predicted>>) -> Result<QuickAnswer, Error> {
        let ladders = of_best_splits(ladders);
        let record = self.search(&ladders).first_that_fits(|case| self.run(case))?;
        // The finest cuts are for where nothing else fits.
        let is_told = |predicted: &&Predicted| record.is_none() || predicted.rung.denoise <= USUAL;
        let smallest = smallest(ladders.iter().flatten().filter(is_told)).and_then(|least| Some((least.rung.case.clone(), least.need?)));
        Ok(QuickAnswer { record, smallest })
    }

    fn search(&self, ladders: &[Vec<Predicted>]) -> Search {
        let search = Search::new(ladders);
        if self.cuts_finest { search } else { search.without_finest() }
    }

    fn ladders(&self, fixed: &[(String, Value)]) -> Result<Vec<Ladder>, Error> {
        let rules = Rules { device: self.testbed.device, may_shorten: true };
        Ok(ladders("quick", fixed, self.models, rules, false, self.ways)?.0)
    }

    fn predict(&self, ladders: Vec<Ladder>) -> Result<Vec<Vec<Predicted>>, Error> {
        predicted(ladders, self.testbed, self.models, !self.launcher.is_replaced())
    }

    fn run(&self, case: &Case) -> Result<Option<RunRecord>, Error> {
        let (rates, model) = (host_rates::for_cases(self.testbed, self.launcher, [&case.config]), self.models.get(&case.config.model)?);
        let request_of = |config: &Config| self.testbed.request(&case.name, model, config, rates.clone());
        let settled = shares::settled(case.config.clone(), &RankGpus::of(self.testbed), |config| Ok(request_of(config)))?;
        let ran = worker::run_case(self.launcher, self.testbed, &request_of(&settled), Patience::default(), self.interrupt, &mut |_| {})?;
        Ok(ran.map(|record| shares::as_asked(record, &case.config)))
    }
}
