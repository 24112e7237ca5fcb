//! What a worker says while it runs, one JSON object a line.

use serde::{Deserialize, Serialize};

use crate::{OperationTime, PeakParts, PlannedStage, Secs, Stage, StageTime, StreamFrom};

/// Memory counters of one stage. The peaks are the stage's own: they are reset when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StageMemory {
    /// Bytes in live tensors when the stage ended, as the caching allocator rounds them.
    pub allocated_bytes: u64,
    /// Bytes that the caching allocator held from the driver when the stage ended.
    pub reserved_bytes: u64,
    /// The most bytes in live tensors at once.
    pub peak_allocated_bytes: u64,
    /// The most bytes held from the driver at once.
    pub peak_reserved_bytes: u64,
    /// `peak_reserved_bytes` and what the device holds beside it: the context and the libraries' own memory.
    pub peak_device_bytes: u64,
    /// What the peaks of allocated and of reserved bytes are made of; empty where not every allocation was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<PeakParts>,
}

/// Bytes that crossed between host and GPU, as the engine asked for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Transfers {
    /// Host to device.
    pub h2d_bytes: u64,
    /// Device to host.
    pub d2h_bytes: u64,
    /// The most pinned host memory at once.
    pub host_pinned_peak_bytes: u64,
}

/// What a configuration leaves to the machine, as the worker settled it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Of `resident_blocks=auto`: how many stay on the GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_blocks: Option<u32>,
    /// Of `resident_blocks=auto`: how many parts of blocks are on their way while one computes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch_blocks: Option<u32>,
    /// Of `stream_from=auto`: where streamed weights come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_from: Option<StreamFrom>,
}

/// A run that was out of memory and went on at a lower level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lowered {
    /// The stage in which memory ran out.
    pub stage: Stage,
    /// Sampler steps that were done, and are not done again.
    pub steps_done: u32,
    /// The level at which it ran out.
    pub from_level: u8,
    /// The level at which it went on.
    pub to_level: u8,
    /// The allocation that failed.
    pub requested_bytes: Option<u64>,
    /// The stage's memory until then.
    pub memory: Option<StageMemory>,
}

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
        /// What the configuration left to the machine.
        settled: Settled,
        /// Predictions for each stage; none on the CPU.
        stages: Vec<PlannedStage>,
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
    },
    /// A stage is over.
    StageEnded {
        /// Which one.
        stage: Stage,
        /// How long it took; empty where that is not known.
        time: Option<StageTime>,
        /// Its memory; empty on the CPU.
        memory: Option<StageMemory>,
        /// What its operations took, the longest first; none where no profile was asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        operations: Vec<OperationTime>,
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
        /// libtorch's own words.
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
