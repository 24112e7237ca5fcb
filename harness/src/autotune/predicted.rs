//! What the cases of a search are predicted to take, and which of them may fit a budget.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use engine_protocol::{Config, PlanReport, Stage};

use super::search_space::{Ladder, Rung, SMALLEST_LARGE_TILE};
use crate::error::Error;
use crate::json::NeedJson;
use crate::model::Models;
use crate::rank_plans::{RankGpus, RankPlans};
use crate::shares;
use crate::sweep::{Case, text_without};
use crate::testbed::Testbed;

/// What a case is predicted to take. A figure that is not known is taken for none: it is seen when the case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Need {
    /// Of the GPU, the process's own memory included; of several of the one that it takes most of.
    pub(crate) gpu_bytes: u64,
    /// Of the machine's memory.
    pub(crate) ram_bytes: u64,
    /// Whether a rank takes more than its own GPU may give.
    pub(crate) is_over_gpu: bool,
    /// Whether it is more than the machine may give.
    pub(crate) is_over_ram: bool,
}

impl Need {
    /// For programs.
    pub(crate) fn as_json(self) -> NeedJson {
        NeedJson { gpu_bytes: self.gpu_bytes, ram_bytes: self.ram_bytes }
    }

    /// Whether it is within both.
    pub(crate) fn fits(self) -> bool {
        !self.is_over_gpu && !self.is_over_ram
    }

    /// What a case takes that cuts denoise as the first plans do and decode as the others: no stage goes by how another is cut.
    fn of(denoise: &RankPlans, decode: &RankPlans, config: &Config, on: &RankGpus, ram_limit_bytes: Option<u64>) -> Self {
        let is_decode = |stage| stage == Stage::Decode;
        let on_gpu =
            |(others, last): (&PlanReport, &PlanReport)| others.device_bytes(|stage| !is_decode(stage)).max(last.device_bytes(is_decode));
        let each: Vec<u64> = denoise.0.iter().zip(&decode.0).map(on_gpu).collect();
        let on_host = |plans: &RankPlans, decodes: bool| {
            let counted = plans.first().host.iter().filter(|host| is_decode(host.stage) == decodes);
            counted.filter_map(|host| host.memory.peak_bytes).max().unwrap_or(0)
        };
        let ram_bytes = on_host(denoise, false).max(on_host(decode, true)) + denoise.host_bytes_beside_first();
        Self {
            gpu_bytes: each.iter().copied().max().unwrap_or(0),
            ram_bytes,
            is_over_gpu: !on.with_parts(config).too_small(&each, config).is_empty(),
            is_over_ram: ram_limit_bytes.is_some_and(|held| ram_bytes > held),
        }
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

impl Predicted {
    /// Whether it may fit, as far as that is predicted.
    pub(crate) fn may_fit(&self) -> bool {
        self.need.is_none_or(Need::fits)
    }
}

/// What each of these cases needs.
pub(crate) fn needs<'a>(cases: impl Iterator<Item = &'a Case>, testbed: &Testbed, models: &Models) -> Result<Vec<Need>, Error> {
    let (on, ram) = (RankGpus::of(testbed), testbed.ram.limit_bytes());
    let plans = plans(cases, testbed, &on, models)?;
    Ok(plans.iter().map(|(config, plans)| Need::of(plans, plans, config, &on, ram)).collect())
}

/// What each of these cases is planned to be, with its shares of the sequence settled.
fn plans<'a>(
    cases: impl Iterator<Item = &'a Case>,
    testbed: &Testbed,
    on: &RankGpus,
    models: &Models,
) -> Result<Vec<(Config, RankPlans)>, Error> {
    let request_of = |config: &Config| Ok(testbed.request("plan", models.get(&config.model)?, config, None));
    let configs = shares::all_settled(cases.map(|case| case.config.clone()).collect(), on, request_of)?;
    let requests = configs.iter().map(request_of).collect::<Result<Vec<_>, Error>>()?;
    Ok(configs.into_iter().zip(on.plans(&requests)?).collect())
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
    let (on, ram) = (RankGpus::of(testbed), testbed.ram.limit_bytes());
    let mut plans = plans(planned.map(|rung| &rung.case), testbed, &on, models)?.into_iter();
    let mut seen = HashSet::new();
    let mut known = Vec::new();
    for ladder in ladders {
        let cuts = ladder.rungs.iter().filter(|rung| is_planned(&ladder, rung)).map(|rung| (rung.denoise, rung.decode));
        let by_cut: HashMap<(usize, usize), (Config, RankPlans)> = cuts.zip(plans.by_ref()).collect();
        let first = ladder.rungs.first().map(|rung| (rung.denoise, rung.decode)).unwrap_or_default();
        let mut rungs = Vec::new();
        for rung in ladder.rungs {
            let (need, positions) = match by_cut.get(&(rung.denoise, rung.decode)) {
                Some((_, plans)) if !seen.insert(texts(plans)?) => continue,
                Some((config, plans)) => (Some(Need::of(plans, plans, config, &on, ram)), plans.first().vae_positions),
                None => {
                    let (denoise, decode) = (by_cut.get(&(rung.denoise, first.1)), by_cut.get(&(first.0, rung.decode)));
                    let need = |((config, denoise), (_, decode)): (&(Config, RankPlans), &(Config, RankPlans))| {
                        Need::of(denoise, decode, config, &on, ram)
                    };
                    (denoise.zip(decode).map(need), decode.and_then(|(_, decode)| decode.first().vae_positions))
                }
            };
            let fork =
                Fork { place: ladder.place, step_secs: by_cut.get(&(rung.denoise, first.1)).and_then(|(_, plans)| step_secs(plans)) };
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
fn step_secs(plans: &RankPlans) -> Option<f64> {
    let first = plans.first();
    Some(first.ranks.as_ref()?.pass_secs?.alone * plans.step_share(first.config.split())?)
}

/// The configurations that ranks settle to, to tell cases apart.
fn texts(plans: &RankPlans) -> Result<Vec<String>, Error> {
    plans.0.iter().map(|plan| text_without(&plan.config, &[])).collect()
}

/// Of ladders that differ in their split alone, the one whose steps are the shortest by its plan where it may fit, without a ring if that goes, and the one that takes least.
pub(crate) fn of_best_splits(ladders: Vec<Vec<Predicted>>) -> Vec<Vec<Predicted>> {
    let place = |ladder: &Vec<Predicted>| ladder.first().map(|predicted| predicted.fork.place);
    let speed = |ladder: &Vec<Predicted>| {
        let first = ladder.iter().find(|predicted| predicted.may_fit()).or_else(|| ladder.first());
        let ring = first.is_some_and(|first| first.rung.case.config.split().cp_ring > 1);
        (first.is_none_or(|first| !first.may_fit()), ring, first.and_then(|first| first.fork.step_secs).unwrap_or(f64::MAX))
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
pub(crate) fn smallest<'a>(all: impl Iterator<Item = &'a Predicted>) -> Option<&'a Predicted> {
    let held = all.filter(|predicted| predicted.need.is_some_and(|need| !need.is_over_ram));
    held.min_by_key(|predicted| predicted.need.map(|need| need.gpu_bytes))
}

/// What needs least of the machine's memory.
pub(crate) fn least_ram<'a>(all: impl Iterator<Item = &'a Predicted>) -> Option<&'a Predicted> {
    all.filter(|predicted| predicted.need.is_some()).min_by_key(|predicted| predicted.need.map(|need| need.ram_bytes))
}
