//! What a cache of sampler steps came to in a run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// By what it is decided which steps reuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CacheDecision {
    /// By the number of the step alone: the same on every device.
    Steps,
    /// By values that the model computed.
    Values,
    /// On a device that computes no values, so many as were published for that threshold, spread evenly: what a real run leaves out may differ.
    Published,
}

impl CacheDecision {
    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Values => "values",
            Self::Published => "published",
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Steps => "by the number of the step",
            Self::Values => "by computed values",
            Self::Published => "as many as were published, since no values are computed here",
        }
    }
}

/// The steps of a run that a cache let be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheUse {
    /// By what that was decided.
    pub decided: CacheDecision,
    /// Steps of the whole video that reuse.
    pub reused_steps: u32,
}
