//! A component: a model with weights of its own, as everything that is not the model itself sees it.

use std::fmt::Debug;

use engine_protocol::{Config, GpuProfile, HostMemory, Moves, Stage};

use crate::flexcache::CacheSize;
use crate::weights::{Group, GroupName, GroupWork};

/// Where a configuration wants a group of weights to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// On the device that computes.
    OnDevice,
    /// On the host, where its stage computes too.
    OnHost,
    /// Elsewhere, to be copied to the device each time that it is used.
    Streamed,
    /// On the devices of all ranks of a sequence, a part on each, to be gathered each time that it is used.
    OnRanks,
}

/// A second name of a tensor, under which some checkpoints have it.
#[derive(Debug, Clone, Copy)]
pub struct Alias {
    /// The model's own.
    pub name: &'static str,
    /// The other one.
    pub alias: &'static str,
}

/// What a pipeline is made of: a model with weights of its own. It answers from shapes and flags alone: nothing is loaded, and no device is asked.
pub trait Component: Debug {
    /// What it goes by, which is its folder in diffusers' layout as a rule: `transformer_2`. No two components of a model have the same.
    fn key(&self) -> &'static str;

    /// The key of the component in whose files a checkpoint has it: its own, but for the two halves of a VAE.
    fn stored_with(&self) -> &'static str {
        self.key()
    }

    /// Whether a video of `config` needs it. One that does not is never loaded.
    fn is_used(&self, _config: &Config) -> bool {
        true
    }

    /// What people call it: `low-noise transformer`.
    fn name(&self) -> &'static str;

    /// The stage that uses it.
    fn stage(&self) -> Stage;

    /// Whether all ranks of a video of `config` use it; else the first one alone.
    fn is_of_all_ranks(&self, _config: &Config) -> bool {
        true
    }

    /// Whether that one of the ranks uses it, and so has its weights.
    fn is_of_rank(&self, config: &Config, rank: usize) -> bool {
        rank == 0 || self.is_of_all_ranks(config)
    }

    /// When its groups are copied to the GPU, where they are streamed.
    fn moves(&self) -> Moves;

    /// Its groups in execution order, each with the names of its tensors in a checkpoint.
    fn groups(&self) -> &[Group];

    /// Groups that a checkpoint may have beside those, and that no video needs.
    fn spare_groups(&self) -> Vec<Group> {
        Vec::new()
    }

    /// A tensor that some checkpoints have under a second name.
    fn alias(&self) -> Option<Alias> {
        None
    }

    /// Why it makes no difference that the tensor `name` of a checkpoint is not used; nothing where it would, or nobody knows.
    fn needless(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// Where `config` wants the group `name`.
    fn wanted(&self, config: &Config, name: GroupName) -> Wanted;

    /// The most bytes that its stage holds on a rank's `gpu` at once beside weights and buffers, estimated from shapes; empty where there is no estimate. A GPU that is not
    /// known is taken for a recent one. A rank that does not use it may hold what the one that does hands on.
    fn activation_bytes(&self, config: &Config, gpu: Option<&GpuProfile>, rank: usize) -> Option<i64>;

    /// Bytes of those that are there as it asks for a group of its weights.
    fn bytes_between_groups(&self, _config: &Config, _gpu: Option<&GpuProfile>, _rank: usize) -> i64 {
        0
    }

    /// How many latent positions a rank decodes at most, where it does; see [`PlanReport::vae_positions`](engine_protocol::PlanReport).
    fn decoded_positions(&self, _config: &Config) -> Option<u64> {
        None
    }

    /// What its stage holds of the host's memory beside weights and buffers on a rank that uses it, where a GPU computes: what computes on the host all the same, and what waits there.
    fn on_host(&self, _config: &Config, _rank: usize) -> HostMemory {
        HostMemory { peak_bytes: Some(0), pinned_peak_bytes: 0 }
    }

    /// What is kept from one pass for those after it, where a cache does that.
    fn kept_between_passes(&self, _config: &Config, _rank: usize) -> Option<CacheSize> {
        None
    }

    /// What the group `name` computes on a rank each time that it is used, where copies are to hide behind it; nothing where they need not.
    fn work(&self, _config: &Config, _name: GroupName, _rank: usize) -> GroupWork {
        GroupWork::default()
    }

    /// The bytes that a rank sends to others each time that it goes through its groups, where the work is split over ranks.
    fn sent_bytes(&self, _config: &Config, _rank: usize) -> i64 {
        0
    }

    /// Which of all kinds of components this is: it tells weights that come from one seed apart.
    fn seed_number(&self) -> i64;
}
