//! What a configuration means for memory before anything is allocated: the answer to `lowmem plan`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Config, GIB, HostMemory, ProcessUse, Split, Stage};

/// libtorch makes a pool of so many streams when the first is asked for: 32 of each of four priorities (`c10/cuda/CUDAStream.cpp`, torch 2.13).
pub const POOL_STREAMS: u64 = 4 * 32;

/// Where weights live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Home {
    /// On the GPU.
    Gpu,
    /// On the host, where they compute too.
    Cpu,
    /// On the host in page-locked memory, to be copied to the GPU.
    Pinned,
    /// On the host in ordinary memory, to be copied to the GPU.
    Pageable,
    /// In the checkpoint's files, to be read and copied to the GPU.
    File,
    /// On the GPUs of several ranks, a part on each, to be gathered.
    Ranks,
}

/// When weights are copied to the GPU after loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Moves {
    /// They stay where they are.
    Never,
    /// Once, as prompts are encoded.
    DuringEncode,
    /// Once, as a picture is encoded.
    BeforeEncodeImage,
    /// In each pass through the transformer, of which a step with guidance has two.
    EachPass,
    /// Once.
    BeforeDecode,
}

/// Groups of one component that are alike in size and place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedGroups {
    /// What people call the component: `text encoder`, `transformer`, `VAE`.
    pub component: String,
    /// Which of its groups: `embeddings`, `blocks 0-39`.
    pub name: String,
    /// How many they are.
    pub count: u64,
    /// Bytes of them all, as they lie in memory.
    pub bytes: u64,
    /// Where they live.
    pub home: Home,
    /// When they are copied to the GPU.
    pub moves: Moves,
}

/// What a buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BufferUse {
    /// Streamed groups take turns in it.
    Staging,
    /// Groups that wait in 8 bits are made the type of arithmetic in it, one at a time.
    Unpacking,
    /// A cache keeps what it reuses in it, on the GPU.
    Cache,
    /// A cache keeps what it reuses in it, on the host, page-locked.
    CacheOnHost,
    /// Page-locked memory of the host, by way of which weights are copied that wait in ordinary memory or in a file.
    Passing,
}

impl BufferUse {
    /// Whether it is on the GPU.
    pub fn is_on_gpu(self) -> bool {
        !matches!(self, Self::Passing | Self::CacheOnHost)
    }
}

/// Buffers that a component needs while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedBuffers {
    /// What people call the component that uses them.
    pub component: String,
    /// The stage that they are there for.
    pub stage: Stage,
    /// What for.
    pub purpose: BufferUse,
    /// How many.
    pub count: u64,
    /// Bytes of each.
    pub buffer_bytes: u64,
}

/// What one stage will hold on the GPU at its peak.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedStage {
    /// Which one.
    pub stage: Stage,
    /// Weights that are resident throughout, as the caching allocator counts them.
    pub resident_bytes: u64,
    /// Its buffers, counted likewise.
    pub staging_bytes: u64,
    /// Everything else at the peak, estimated from shapes; empty where there is no estimate.
    pub activation_bytes: Option<u64>,
}

impl PlannedStage {
    /// The predicted peak of allocated bytes; empty where there is no estimate.
    pub fn peak_allocated_bytes(&self) -> Option<u64> {
        Some(self.resident_bytes + self.staging_bytes + self.activation_bytes?)
    }
}

/// What one stage will hold of the host's memory at its peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedHost {
    /// Which one.
    pub stage: Stage,
    /// How much; nothing in it is unknown.
    pub memory: HostMemory,
}

/// How long a pass of the transformer takes, by the rates of a GPU profile: modelled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PassSecs {
    /// On one GPU that does all.
    pub alone: f64,
    /// On each of several: its arithmetic, and what it waits for weights.
    pub arithmetic: f64,
    /// And the exchange with others, which is not taken to run beside arithmetic.
    pub exchange: f64,
    /// What is exchanged goes over NVLink, and not over PCI Express.
    pub is_nvlink: bool,
}

impl PassSecs {
    /// On each of several GPUs, with the exchange.
    pub fn on_each(&self) -> f64 {
        self.arithmetic + self.exchange
    }

    /// A sampler step over what it takes on one GPU: with cond and uncond on two groups it has one pass where it has two there.
    pub fn step_share(&self, split: Split) -> f64 {
        self.on_each() / self.alone / f64::from(split.cfg_size)
    }
}

/// What a video that is split over ranks comes to, each of which has a GPU. The first one encodes for all and decodes; the others decode where the VAE has tiles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedRanks {
    /// How many ranks.
    pub count: u32,
    /// In how many parts the token sequence is.
    pub parts: u32,
    /// Whether all ranks decode, tiles by turns; else the first one does alone.
    #[serde(default)]
    pub all_decode: bool,
    /// The components whose weights the first rank has alone.
    #[serde(default)]
    pub of_first: Vec<String>,
    /// Bytes that each rank sends to others in a pass of the transformer.
    pub sent_bytes: u64,
    /// Bytes of weights that each rank gets from others in a pass, ahead of their turn, where each holds a part of them.
    #[serde(default)]
    pub gathered_bytes: u64,
    /// The largest predicted peak of the ranks but the first; empty where that of a stage is not known.
    pub others_peak_allocated_bytes: Option<u64>,
    /// Bytes of the weights on the host, which are there once for all ranks.
    pub shared_host_bytes: u64,
    /// How long a pass takes; empty where no GPU was named.
    pub pass_secs: Option<PassSecs>,
}

/// What will live where, and the predicted peak of each stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanReport {
    /// The configuration, with what it leaves to the machine settled.
    pub config: Config,
    /// All weights, in execution order.
    pub groups: Vec<PlannedGroups>,
    /// All buffers, in execution order.
    pub buffers: Vec<PlannedBuffers>,
    /// All stages, in order.
    pub stages: Vec<PlannedStage>,
    /// What all stages will hold of the host's memory, in order; with several ranks what all of them hold.
    #[serde(default)]
    pub host: Vec<PlannedHost>,
    /// How many latent positions the VAE decodes, of several ranks the one that decodes most, those that tiles share counted for each of them: how long decoding takes goes by that. Empty in plans of
    /// versions that did not say it.
    #[serde(default)]
    pub vae_positions: Option<u64>,
    /// What the process will hold on the GPU beside tensors; empty where no GPU was named.
    #[serde(default)]
    pub process_bytes: Option<u64>,
    /// Where the video is split over several GPUs: all else here is of the first one. Empty on one.
    #[serde(default)]
    pub ranks: Option<PlannedRanks>,
}

/// What the GPU is taken to hold beside tensors where a plan does not say it: more than was seen on any.
const UNKNOWN_PROCESS_BYTES: u64 = GIB;

impl PlanReport {
    /// The most that the GPU will hold in the stages that count: tensors, and what the process holds beside them.
    pub fn device_bytes(&self, counts: impl Fn(Stage) -> bool) -> u64 {
        let tensors = self.stages.iter().filter(|stage| counts(stage.stage)).filter_map(PlannedStage::peak_allocated_bytes).max();
        tensors.unwrap_or(0) + self.process_bytes.unwrap_or(UNKNOWN_PROCESS_BYTES)
    }

    /// Bytes of the weights that live in `home`.
    pub fn bytes_in(&self, home: Home) -> u64 {
        self.groups.iter().filter(|groups| groups.home == home).map(|groups| groups.bytes).sum()
    }

    /// What is page-locked on the host: weights, and the buffers of a stage beside them.
    pub fn pinned_bytes(&self) -> u64 {
        let largest = |purpose| {
            let buffers = self.buffers.iter().filter(move |buffers| buffers.purpose == purpose);
            buffers.map(|buffers| buffers.count * buffers.buffer_bytes).max().unwrap_or(0)
        };
        self.bytes_in(Home::Pinned) + largest(BufferUse::Passing) + largest(BufferUse::CacheOnHost)
    }

    /// How much the process will use of what takes memory on the GPU beside tensors.
    pub fn process_use(&self) -> ProcessUse {
        let copies_ahead = self.buffers.iter().any(|buffers| buffers.purpose == BufferUse::Staging);
        ProcessUse { has_code: true, streams: if copies_ahead { POOL_STREAMS } else { 0 }, pinned_bytes: self.pinned_bytes() }
    }

    /// Bytes of the weights that take memory of the host.
    pub fn host_bytes(&self) -> u64 {
        [Home::Cpu, Home::Pinned, Home::Pageable].into_iter().map(|home| self.bytes_in(home)).sum()
    }

    /// The most of the host's memory that any stage will hold, of all ranks together.
    pub fn host(&self) -> HostMemory {
        self.host.iter().map(|planned| planned.memory).reduce(HostMemory::max).unwrap_or_default()
    }

    /// The largest predicted peak and its stage; empty where the peak of a stage is not known, since that may be the largest.
    pub fn peak(&self) -> Option<(Stage, u64)> {
        let peaks: Option<Vec<_>> = self.stages.iter().map(|stage| Some((stage.stage, stage.peak_allocated_bytes()?))).collect();
        // The first of equals, as in a run record.
        peaks?.into_iter().reduce(|best, next| if next.1 > best.1 { next } else { best })
    }
}
