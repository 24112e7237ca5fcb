//! What a GPU and its host were measured to take, apart from the work of models: copies, small kernels, and memory beside tensors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Secs;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// From page-locked memory of the host.
    PinnedToDevice,
    /// From memory of the host that is not page-locked.
    PageableToDevice,
    /// To page-locked memory of the host.
    ToPinned,
    /// Kernels with next to nothing to do, in a row, while the GPU has work: what the GPU takes for each.
    SmallKernels,
    /// The same while the GPU waits for them: what the host takes for each, if that is more.
    Launches,
}

impl Measured {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::PinnedToDevice => "copy from pinned memory",
            Self::PageableToDevice => "copy from pageable memory",
            Self::ToPinned => "copy to pinned memory",
            Self::SmallKernels => "small kernels in a row",
            Self::Launches => "small kernels that are waited for",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// What was measured.
    pub what: Measured,
    /// Bytes, or kernels.
    pub amount: f64,
    /// How long it took, by the device's own events: the median of several.
    pub secs: Secs,
}

/// What a process was seen to hold on the GPU beside tensors, part by part, by the driver's free memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeasuredMemory {
    /// In use after the first kernel, by whatever process.
    pub context_bytes: u64,
    /// More after products, attention, convolutions and norms.
    pub code_bytes: u64,
    /// More after libtorch made its pool of streams.
    pub pool_bytes: u64,
    /// More after so many bytes of the host were page-locked.
    pub page_table_bytes: u64,
    /// Those bytes.
    pub pinned_bytes: u64,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The name that the device reports.
    pub device_name: String,
    /// All of the device's memory, as CUDA reports it.
    pub memory_bytes: u64,
    /// What a process holds beside tensors.
    pub process: MeasuredMemory,
    /// In the order in which they were made.
    pub measurements: Vec<Measurement>,
}
