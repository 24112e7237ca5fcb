//! What the cases of a search are predicted to take, and which of them may fit a budget.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use engine_protocol::{PlanReport, Stage};

use super::search_space::{Ladder, Rung, SMALLEST_LARGE_TILE};
use crate::error::Error;
use crate::json::NeedJson;
use crate::model::Models;
use crate::sweep::{Case, text_without};
use crate::testbed::Testbed;
use crate::worker;

/// What a case is predicted to take. A figure that is not known is taken for none: it is seen when the case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Need {
    /// Of the GPU, the process's own memory included.
    pub(crate) gpu_bytes: u64,
    /// Of the machine's memory.
    pub(crate) ram_bytes: u64,
}

impl Need {
    /// For programs.
    pub(crate) fn as_json(self) -> NeedJson {
        NeedJson { gpu_bytes: self.gpu_bytes, ram_bytes: self.ram_bytes }
    }

    fn of(plan: &PlanReport) -> Self {
        Self::of_stages(plan, |_| true)
    }

    /// What a case takes that cuts denoise as one plan does and decode as another: no stage goes by how another is cut.
    fn of_both(denoise: &PlanReport, decode: &PlanReport) -> Self {
        let (others, last) =
            (Self::of_stages(denoise, |stage| stage != Stage::Decode), Self::of_stages(decode, |stage| stage == Stage::Decode));
        Self { gpu_bytes: others.gpu_bytes.max(last.gpu_bytes), ram_bytes: others.ram_bytes.max(last.ram_bytes) }
    }

    fn of_stages(plan: &PlanReport, counts: impl Fn(Stage) -> bool) -> Self {
        let host = plan.host.iter().filter(|host| counts(host.stage)).filter_map(|host| host.memory.peak_bytes).max();
        Self { gpu_bytes: plan.device_bytes(&counts), ram_bytes: host.unwrap_or(0) }
    }
}

/// A rung with what it needs; nothing is known of it where nobody can predict.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Predicted {
    pub(crate) rung: Rung,
    pub(crate) need: Option<Need>,
    /// How many latent positions it decodes, by which the time of decode goes.
    pub(crate) positions: Option<u64>,
    /// Of a ladder whose placement others have too, with other splits: which one, and a sampler step over that on one GPU.
    pub(crate) fork: Fork,
}

/// One of several splits of a placement.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Fork {
    place: usize,
    step_secs: Option<f64>,
}

/// A budget: what the GPU and the machine may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) gpu_bytes: Option<u64>,
    pub(crate) ram_bytes: Option<u64>,
}

impl Budget {
    /// That of a testbed.
    pub(crate) fn of(testbed: &Testbed) -> Self {
        Self { gpu_bytes: testbed.capacity_bytes, ram_bytes: testbed.ram.limit_bytes() }
    }

    pub(crate) fn holds_ram(&self, need: Need) -> bool {
        self.ram_bytes.is_none_or(|held| need.ram_bytes <= held)
    }

    /// Whether a case that needs so much fits, by both.
    pub(crate) fn holds(&self, case: &Case, need: Need) -> bool {
        self.holds_ram(need) && self.gpu_bytes.is_none_or(|bytes| need.gpu_bytes <= case.config.usable_of(bytes))
    }

    /// Whether a case may fit, as far as that is predicted.
    pub(crate) fn may_hold(&self, predicted: &Predicted) -> bool {
        predicted.need.is_none_or(|need| self.holds(&predicted.rung.case, need))
    }
}

/// What each of these cases needs.
pub(crate) fn needs<'a>(cases: impl Iterator<Item = &'a Case>, testbed: &Testbed, models: &Models) -> Result<Vec<Need>, Error> {
    Ok(plans(cases, testbed, models)?.iter().map(Need::of).collect())
}

fn plans<'a>(cases: impl Iterator<Item = &'a Case>, testbed: &Testbed, models: &Models) -> Result<Vec<PlanReport>, Error> {
    let requests = cases.map(|case| Ok(testbed.request(&case.name, models.get(&case.config.model)?, &case.config, None)));
    worker::plans(&requests.collect::<Result<Vec<_>, Error>>()?)
}

/// Ladders with what their rungs need, the fastest to decode first of those that cut denoise alike. A rung that the machine settles to what an earlier one is too is left out.
pub(crate) fn predicted(ladders: Vec<Ladder>, testbed: &Testbed, models: &Models, can_predict: bool) -> Result<Vec<Vec<Predicted>>, Error> {
    let rungs = |ladder: Ladder| {
        let fork = Fork { place: ladder.place, step_secs: None };
        ladder.rungs.into_iter().map(|rung| Predicted { rung, need: None, positions: None, fork }).collect::<Vec<_>>()
    };
    if !can_predict {
        return Ok(ladders.into_iter().map(rungs).collect());
    }
    // Planned is what is cut in one way alone, beside the first cut of the other: the rest follows from that.
    let is_planned = |ladder: &Ladder, rung: &Rung| {
        ladder.rungs.first().is_some_and(|first| rung.denoise == first.denoise || rung.decode == first.decode)
    };
    let planned = ladders.iter().flat_map(|ladder| ladder.rungs.iter().filter(|rung| is_planned(ladder, rung)));
    let mut plans = plans(planned.map(|rung| &rung.case), testbed, models)?.into_iter();
    let mut seen = HashSet::new();
    let mut known = Vec::new();
    for ladder in ladders {
        let cuts = ladder.rungs.iter().filter(|rung| is_planned(&ladder, rung)).map(|rung| (rung.denoise, rung.decode));
        let by_cut: HashMap<(usize, usize), PlanReport> = cuts.zip(plans.by_ref()).collect();
        let first = ladder.rungs.first().map(|rung| (rung.denoise, rung.decode)).unwrap_or_default();
        let mut rungs = Vec::new();
        for rung in ladder.rungs {
            let (need, positions) = match by_cut.get(&(rung.denoise, rung.decode)) {
                Some(plan) if !seen.insert(text_without(&plan.config, &[])?) => continue,
                Some(plan) => (Some(Need::of(plan)), plan.vae_positions),
                None => {
                    let (denoise, decode) = (by_cut.get(&(rung.denoise, first.1)), by_cut.get(&(first.0, rung.decode)));
                    (
                        denoise.zip(decode).map(|(denoise, decode)| Need::of_both(denoise, decode)),
                        decode.and_then(|decode| decode.vae_positions),
                    )
                }
            };
            let fork = Fork { place: ladder.place, step_secs: by_cut.get(&(rung.denoise, first.1)).and_then(step_secs) };
            rungs.push(Predicted { rung, need, positions, fork });
        }
        // Of ways that cut denoise alike, first the one that decodes least twice. In small tiles there is so little to do at once that to start it takes longer.
        let smallness = |rung: &Rung| rung.decode.saturating_sub(SMALLEST_LARGE_TILE);
        rungs.sort_by_key(|predicted| (predicted.rung.denoise, smallness(&predicted.rung), predicted.positions, predicted.rung.decode));
        known.push(rungs);
    }
    Ok(known)
}

/// How long a sampler step takes where it is split, but for what all splits have in common.
fn step_secs(plan: &PlanReport) -> Option<f64> {
    let pass = plan.ranks.as_ref()?.pass_secs?;
    Some(pass.alone * pass.step_share(plan.config.split()))
}

/// Of ladders that differ in their split alone, the one whose steps are the shortest by its plan where it may fit, without a ring if that goes, and the one that takes least.
pub(crate) fn of_best_splits(ladders: Vec<Vec<Predicted>>, budget: &Budget) -> Vec<Vec<Predicted>> {
    let place = |ladder: &Vec<Predicted>| ladder.first().map(|predicted| predicted.fork.place);
    let speed = |ladder: &Vec<Predicted>| {
        let first = ladder.iter().find(|predicted| budget.may_hold(predicted)).or_else(|| ladder.first());
        let ring = first.is_some_and(|first| first.rung.case.config.split().cp_ring > 1);
        (first.is_none_or(|first| !budget.may_hold(first)), ring, first.and_then(|first| first.fork.step_secs).unwrap_or(f64::MAX))
    };
    let least = |ladder: &Vec<Predicted>| ladder.iter().filter_map(|predicted| predicted.need).map(|need| need.gpu_bytes).min();
    let mut best = Vec::new();
    for together in ladders.chunk_by(|a, b| place(a) == place(b)) {
        let by_speed = |a: &&Vec<Predicted>, b: &&Vec<Predicted>| speed(a).partial_cmp(&speed(b)).unwrap_or(Ordering::Equal);
        let fastest = together.iter().min_by(by_speed);
        let smallest = together.iter().min_by_key(|ladder| least(ladder)).filter(|smallest| fastest != Some(smallest));
        best.extend(fastest.into_iter().chain(smallest).cloned());
    }
    best
}

/// Of those that the machine's memory holds, what needs least of the GPU: the first of equals.
pub(crate) fn smallest<'a>(all: impl Iterator<Item = &'a Predicted>, budget: &Budget) -> Option<&'a Predicted> {
    let held = all.filter(|predicted| predicted.need.is_some_and(|need| budget.holds_ram(need)));
    held.min_by_key(|predicted| predicted.need.map(|need| need.gpu_bytes))
}

/// What needs least of the machine's memory.
pub(crate) fn least_ram<'a>(all: impl Iterator<Item = &'a Predicted>) -> Option<&'a Predicted> {
    all.filter(|predicted| predicted.need.is_some()).min_by_key(|predicted| predicted.need.map(|need| need.ram_bytes))
}
