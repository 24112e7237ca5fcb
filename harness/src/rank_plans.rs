//! What the ranks of a video are planned to come to where their GPUs are of several kinds: each rank's placement follows its own memory and rates.

use std::path::PathBuf;

use engine_protocol::{Config, CpSplit, GpuProfile, Home, PassSecs, PlanReport, RankRequest, Request, Split};

use crate::error::Error;
use crate::gpu_profile::Budget;
use crate::testbed::Testbed;
use crate::worker;

/// A rank's GPU, as plans go by it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RankGpu {
    pub(crate) profile: Option<GpuProfile>,
    pub(crate) capacity_bytes: Option<u64>,
}

/// The GPUs of all ranks: one where all are of one kind, else one for each rank.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RankGpus(pub(crate) Vec<RankGpu>);

impl RankGpus {
    /// Those of a testbed.
    pub(crate) fn of(testbed: &Testbed) -> Self {
        let gpu = |testbed: &Testbed| RankGpu { profile: testbed.profile.clone(), capacity_bytes: testbed.capacity_bytes };
        Self(std::iter::once(testbed).chain(&testbed.others).map(gpu).collect())
    }

    /// Those of budgets; one that nothing is known of where there is none.
    pub(crate) fn of_budgets(budgets: &[Budget]) -> Self {
        if budgets.is_empty() {
            return Self(vec![RankGpu { profile: None, capacity_bytes: None }]);
        }
        let gpu = |budget: &Budget| RankGpu { profile: Some(budget.profile.clone()), capacity_bytes: Some(budget.capacity_bytes) };
        Self(budgets.iter().map(gpu).collect())
    }

    /// How many GPUs were named, where that is one for each rank.
    pub(crate) fn named(&self) -> Option<u32> {
        (self.0.len() > 1).then_some(self.0.len() as u32)
    }

    /// The plans of each of these requests, which are for the first rank.
    pub(crate) fn plans(&self, firsts: &[Request]) -> Result<Vec<RankPlans>, Error> {
        let requests: Vec<Vec<Request>> = firsts.iter().map(|first| self.with_parts(&first.config).requests(first)).collect();
        let mut plans = worker::plans(&requests.concat())?.into_iter();
        Ok(requests.iter().map(|requests| RankPlans(plans.by_ref().take(requests.len()).collect())).collect())
    }

    /// The ranks whose GPU may give less than these bytes of each, as far as that is known.
    pub(crate) fn too_small(&self, bytes_by_rank: &[u64], config: &Config) -> Vec<usize> {
        let is_over = |(bytes, gpu): (&u64, &RankGpu)| gpu.capacity_bytes.is_some_and(|held| *bytes > config.usable_of(held));
        (0..).zip(bytes_by_rank.iter().zip(&self.0)).filter(|(_, pair)| is_over(*pair)).map(|(rank, _)| rank).collect()
    }

    /// The same, one for each rank too where parts of the sequence differ.
    pub(crate) fn with_parts(&self, config: &Config) -> Self {
        match (self.0.as_slice(), config.cp_split.as_ref().and_then(CpSplit::shares)) {
            ([one], Some(_)) => Self(vec![one.clone(); config.split().ranks() as usize]),
            _ => self.clone(),
        }
    }

    /// A request for each rank, of that for the first.
    fn requests(&self, first: &Request) -> Vec<Request> {
        let of_rank = |(rank, gpu): (u32, &RankGpu)| Request {
            gpu: gpu.profile.clone(),
            memory_limit_bytes: gpu.capacity_bytes.map(|bytes| first.config.usable_of(bytes)),
            ranks: Some(RankRequest { rank, count: self.0.len() as u32, meeting: PathBuf::new() }),
            ..first.clone()
        };
        let others = (1..).zip(&self.0[1..]).map(of_rank);
        std::iter::once(first.clone()).chain(others).collect()
    }
}

/// The plans of the ranks: of the first where all have GPUs of one kind, else of each.
#[derive(Debug, Clone)]
pub(crate) struct RankPlans(pub(crate) Vec<PlanReport>);

impl RankPlans {
    /// That of the first rank.
    pub(crate) fn first(&self) -> &PlanReport {
        &self.0[0]
    }

    /// Whether each fits its GPU, as far as memory of those is known.
    pub(crate) fn fit(&self, config: &Config, gpus: &RankGpus) -> bool {
        self.too_large(config, gpus).is_empty()
    }

    /// The ranks that do not fit theirs.
    pub(crate) fn too_large(&self, config: &Config, gpus: &RankGpus) -> Vec<usize> {
        let each: Vec<u64> = self.0.iter().map(|plan| plan.device_bytes(|_| true)).collect();
        gpus.too_small(&each, config)
    }

    /// What all ranks hold of the machine's memory: as if all had what the first one has there, and beside it blocks that another one has there and the first one on its GPU.
    pub(crate) fn host_peak_bytes(&self) -> Option<u64> {
        Some(self.first().host().peak_bytes? + self.host_bytes_beside_first())
    }

    /// Blocks that another rank has in the machine's memory, and the first one on its GPU.
    pub(crate) fn host_bytes_beside_first(&self) -> u64 {
        let waiting = |plan: &PlanReport| plan.bytes_in(Home::Pinned) + plan.bytes_in(Home::Pageable);
        self.0.iter().map(|plan| waiting(plan).saturating_sub(waiting(self.first()))).sum()
    }

    /// A sampler step over that on the first rank's GPU alone: it takes as long as the slowest rank does. None where no GPU is named.
    pub(crate) fn step_share(&self, split: Split) -> Option<f64> {
        let passes = self.0.iter().map(|plan| plan.ranks.as_ref()?.pass_secs).collect::<Option<Vec<_>>>()?;
        let alone = passes.first()?.alone;
        passes.into_iter().map(|pass| PassSecs { alone, ..pass }.step_share(split)).reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use engine_protocol::Settings;

    use super::*;
    use crate::model::Models;

    #[test]
    fn each_rank_is_held_against_its_own_gpu() {
        let gpu = |gib: u64| RankGpu { profile: None, capacity_bytes: Some(gib << 30) };
        let models = Models::load().expect("models");
        let settings = Settings { reserve_gib: Some(1.0), ..Settings::default() };
        let config = Config::resolve(&settings, models.get("wan-tiny").expect("a model")).expect("legal");
        let too_small = |gpus: [u64; 2], bytes: [u64; 2]| RankGpus(gpus.map(gpu).into()).too_small(&bytes.map(|gib| gib << 30), &config);
        // One GiB of each is kept for others.
        assert_eq!(too_small([12, 24], [11, 23]), [0; 0]);
        assert_eq!(too_small([12, 24], [12, 23]), [0]);
        assert_eq!(too_small([24, 12], [23, 12]), [1]);
        assert_eq!(too_small([24, 12], [24, 12]), [0, 1]);
    }
}
