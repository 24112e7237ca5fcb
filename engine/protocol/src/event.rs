//! What a worker says while it runs, one JSON object a line.

use serde::{Deserialize, Serialize};

use crate::{
    AttentionKernel, CacheDecision, Config, HostMemory, HostShortage, Lowered, MemoryCourse, OperationTime, PeakParts, PlannedHost,
    PlannedStage, Secs, Stage, StageMemory, StageTime, Transfers,
};

/// One line of a worker's standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// libtorch is loaded and the device is there.
    Started {
        /// The name that the device reports.
        device_name: String,
        /// libtorch's version.
        torch_version: String,
    },
    /// What is about to run: again at each lower level.
    Planned {
        /// The configuration as it runs, with what it leaves to the machine settled.
        config: Box<Config>,
        /// Predictions for each stage; none on the CPU.
        stages: Vec<PlannedStage>,
        /// The same of the host's memory.
        #[serde(default)]
        host: Vec<PlannedHost>,
    },
    /// The GPU's memory ran out, and the run goes on at a lower level.
    Lowered(Lowered),
    /// A stage begins.
    StageBegun {
        /// Which one.
        stage: Stage,
    },
    /// A part of a stage is done: a sampler step, a row of tiles.
    Progress {
        /// Which stage.
        stage: Stage,
        /// Parts done.
        done: u32,
        /// Parts in all.
        total: u32,
    },
    /// A sampler step is over.
    StepEnded {
        /// What the step's own peak was made of; empty on the CPU.
        parts: Option<PeakParts>,
        /// How long it took.
        secs: Option<Secs>,
        /// It left out blocks, by what a cache has kept.
        #[serde(default, skip_serializing_if = "crate::record::is_false")]
        reused: bool,
        /// How its memory went; empty as `parts` is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        course: Option<MemoryCourse>,
    },
    /// How many steps a cache lets be left out, said before the first of them.
    CachePlanned {
        /// By what that is decided.
        decided: CacheDecision,
        /// How many of all; empty where that is found as they run.
        reused_steps: Option<u32>,
    },
    /// A stage is over.
    StageEnded {
        /// Which one.
        stage: Stage,
        /// How long it took; empty where that is not known.
        time: Option<StageTime>,
        /// Its memory; empty on the CPU.
        memory: Option<StageMemory>,
        /// What it held of the host's memory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<HostMemory>,
        /// The kernels that attention came to, each once.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        attention: Vec<AttentionKernel>,
        /// What its operations took, the longest first; none where no profile was asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        operations: Vec<OperationTime>,
        /// How its memory went since its last step, or since it began; empty on the CPU, where nothing was allocated, and where not every allocation was seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        course: Option<MemoryCourse>,
    },
    /// The case is done.
    Finished {
        /// What crossed between host and GPU; empty on the CPU.
        transfers: Option<Transfers>,
    },
    /// The GPU's memory ran out: a result, after which the worker ends.
    OutOfMemory {
        /// In which stage.
        stage: Stage,
        /// The allocation that failed.
        requested_bytes: Option<u64>,
        /// The stage's memory until then.
        memory: Option<StageMemory>,
        /// What was allocated and reserved when the allocation failed; empty where it was not the caching allocator's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parts_at_failure: Option<PeakParts>,
        /// How the stage's memory went since its last step until then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        course: Option<MemoryCourse>,
        /// libtorch's own words.
        message: String,
    },
    /// The host's memory ran out, after which the worker ends.
    OutOfHostMemory {
        /// In which stage, where one had begun.
        stage: Option<Stage>,
        /// The stage's memory on the GPU until then.
        memory: Option<StageMemory>,
        /// What was asked for, and what was there.
        shortage: HostShortage,
        /// The same in words.
        message: String,
    },
    /// Something else went wrong, after which the worker ends.
    Failed {
        /// In which stage, where one had begun.
        stage: Option<Stage>,
        /// What happened, where, and what to do.
        message: String,
    },
}
