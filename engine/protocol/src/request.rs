//! What a worker is asked to do: one case.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{CheckpointFiles, Config, Device, DiskRate, GpuProfile, HostRates, ModelSpec};

/// One case for one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The case's name in its run.
    pub case: String,
    /// What runs it.
    pub device: Device,
    /// What the process may hold on the GPU at most, everything counted, where the GPU has more than the budget.
    pub memory_limit_bytes: Option<u64>,
    /// What the process may take of the host's memory, everything counted, or all ranks together; empty where nothing limits it.
    #[serde(default)]
    pub host_limit_bytes: Option<u64>,
    /// The GPU's profile, for its rates; empty where it has none, and on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuProfile>,
    /// What the host's processor reaches, for the time of stages that the virtual GPU's host leaves out; empty where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_rates: Option<HostRates>,
    /// What the disk gives that streamed weights are read from; empty where nobody said and nothing was measured: then it is [assumed](DiskRate::ASSUMED).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskRate>,
    /// The model's shapes.
    pub model: ModelSpec,
    /// The configuration, complete and legal.
    pub config: Config,
    /// Where the model's weights are; without it they come from the seed.
    #[serde(default)]
    pub checkpoint: Option<CheckpointFiles>,
    /// The folder in which the run's workers keep the weights that they make from a seed, for all of them; without it each makes its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_weights: Option<PathBuf>,
    /// Which rank of several this is; empty where there is one, and for a plan where all ranks have GPUs of one kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<RankRequest>,
    /// Where the video goes; without it, finished frames are dropped.
    pub output: Option<PathBuf>,
    /// Where PyTorch's own snapshot of its memory goes when the case has ended, whichever way; without it, no history is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<PathBuf>,
    /// Whether each operation is to be timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_times: Option<OperationTiming>,
}

/// One of several ranks, each a process with a GPU. On the CPU they are threads of one process, and the request is the first one's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankRequest {
    /// Which one, from 0: that one decodes the video.
    pub rank: u32,
    /// How many there are.
    pub count: u32,
    /// The folder in which they meet, which is the harness's: there the first one leaves for the others what NCCL finds them by, and where what they share of the host's
    /// memory is.
    pub meeting: PathBuf,
}

/// How each operation is to be timed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationTiming {
    /// Where a Chrome trace goes.
    pub trace: Option<PathBuf>,
}
