//! The stages of a run, and what each held and moved.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{NotPageLocked, PeakParts};

/// A part of making a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Weights to where they live.
    Load,
    /// Prompt to prompt embedding.
    Encode,
    /// Picture to latents, where a video begins with one.
    EncodeImage,
    /// Noise to latents.
    Denoise,
    /// Latents to frames.
    Decode,
}

impl Stage {
    /// All stages, in order. Those of a run are among them.
    pub const ALL: [Stage; 5] = [Stage::Load, Stage::Encode, Stage::EncodeImage, Stage::Denoise, Stage::Decode];

    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Load => "load",
            Stage::Encode => "encode",
            Stage::EncodeImage => "encode_image",
            Stage::Denoise => "denoise",
            Stage::Decode => "decode",
        }
    }
}

/// Memory counters of one stage. The peaks are the stage's own: they are reset when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
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

impl StageMemory {
    /// What the device holds beside the allocator: the context and the libraries' own memory.
    pub fn beside_bytes(&self) -> u64 {
        self.peak_device_bytes.saturating_sub(self.peak_reserved_bytes)
    }
}

/// Bytes that crossed between host and GPU, as the engine asked for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Transfers {
    /// Host to device.
    pub h2d_bytes: u64,
    /// Device to host.
    pub d2h_bytes: u64,
    /// What was to be pinned and could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_page_locked: Option<NotPageLocked>,
}

/// A run that was out of memory and went on at a lower level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
