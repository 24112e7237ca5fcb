//! How the GPU's memory went over a stretch of a run.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A stretch: a sampler step, or a stage that has none. It is told by moments, of which each list has one figure. They are few, however much happened: the highest and
/// the lowest moment of each of some parts of it. So its peak is among them. What stands between two of them is as at the first, or between both.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct MemoryCourse {
    /// Of denoise, which of the steps that ran went so, counted from 0; none elsewhere, and for what came after the last step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<u32>,
    /// How many times something was allocated or freed.
    pub events: u64,
    /// After how many of those each moment was.
    pub at: Vec<u64>,
    /// What the allocator held from the driver.
    pub reserved_bytes: Vec<u64>,
    /// Bytes of live allocations by what they are for, in the words of memory snapshots; a purpose that never had any is left out.
    pub allocated_bytes: BTreeMap<String, Vec<u64>>,
    /// The largest allocations that lived at the peak, the largest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub largest: Vec<LiveAllocation>,
}

impl MemoryCourse {
    /// The bytes that were allocated at a moment, by its place among them.
    pub fn allocated_at(&self, moment: usize) -> u64 {
        self.allocated_bytes.values().filter_map(|bytes| bytes.get(moment)).sum()
    }

    /// The most bytes that were allocated at once.
    pub fn peak_allocated_bytes(&self) -> u64 {
        (0..self.at.len()).map(|moment| self.allocated_at(moment)).max().unwrap_or(0)
    }
}

/// An allocation that was alive. What is not known of it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LiveAllocation {
    /// Its bytes, as the allocator counts them.
    pub bytes: u64,
    /// What it is for, in the words of memory snapshots.
    pub purpose: String,
    /// The stage in which it was made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// The group of weights that was in use; of weights, their component.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// libtorch's operation that made it, or was the first to write it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// The shape of the tensor that it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shape: Vec<i64>,
}
