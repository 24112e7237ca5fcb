//! What GPU memory is for: the parts that a peak is taken apart into.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an allocation is for. Each belongs to one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Weights that stay on the GPU.
    Weights,
    /// Staging buffers, in which streamed weights take turns.
    Staging,
    /// What the arithmetic makes: everything that no other purpose claims.
    Activations,
    /// What an operation of libtorch asks for beside its result: cuBLAS', cuDNN's and attention's own memory.
    Workspace,
    /// Frames that the VAE's convolutions remember between chunks, and the buffer in which they find them.
    FeatureCache,
    /// What a cache keeps from one sampler step for the next: see `flexcache`.
    StepCache,
    /// Finished frames on their way out: the canvas that tiles are put together in, and bytes.
    Frames,
    /// What a pass begins with: latents and prompt embeddings.
    Latents,
}

impl Purpose {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Purpose; 8] = [
        Purpose::Weights,
        Purpose::Staging,
        Purpose::Activations,
        Purpose::Workspace,
        Purpose::FeatureCache,
        Purpose::StepCache,
        Purpose::Frames,
        Purpose::Latents,
    ];

    /// The name in memory snapshots, in one word.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Weights => "weights",
            Purpose::Staging => "staging",
            Purpose::Activations => "activations",
            Purpose::Workspace => "workspace",
            Purpose::FeatureCache => "feature_cache",
            Purpose::StepCache => "step_cache",
            Purpose::Frames => "frames",
            Purpose::Latents => "latents",
        }
    }
}

/// A peak taken apart, in bytes. All but slack come to the peak of allocated bytes, and with slack to that of reserved bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PeakParts {
    /// [`Purpose::Weights`].
    pub weights_bytes: u64,
    /// [`Purpose::Staging`].
    pub staging_bytes: u64,
    /// [`Purpose::Activations`].
    pub activations_bytes: u64,
    /// [`Purpose::Workspace`].
    pub workspace_bytes: u64,
    /// [`Purpose::FeatureCache`].
    pub feature_cache_bytes: u64,
    /// [`Purpose::StepCache`]. Records of older versions have none.
    #[serde(default)]
    pub step_cache_bytes: u64,
    /// [`Purpose::Frames`].
    pub frames_bytes: u64,
    /// [`Purpose::Latents`].
    pub latents_bytes: u64,
    /// What the caching allocator held from the driver at its own peak, beyond the tensors at theirs.
    pub slack_bytes: u64,
}

impl PeakParts {
    /// Names of the parts, in the order of [`PeakParts::bytes`]: each purpose, then slack.
    pub const NAMES: [&'static str; 9] =
        ["weights", "staging", "activations", "workspace", "feature cache", "step cache", "frames", "latents", "slack"];

    /// The parts of a peak: bytes of each purpose in the order of [`Purpose::ALL`], and the peak of reserved bytes.
    pub fn new(purposes: [u64; 8], peak_reserved_bytes: u64) -> Self {
        let slack_bytes = peak_reserved_bytes.saturating_sub(purposes.iter().sum());
        let [
            weights_bytes,
            staging_bytes,
            activations_bytes,
            workspace_bytes,
            feature_cache_bytes,
            step_cache_bytes,
            frames_bytes,
            latents_bytes,
        ] = purposes;
        Self {
            weights_bytes,
            staging_bytes,
            activations_bytes,
            workspace_bytes,
            feature_cache_bytes,
            step_cache_bytes,
            frames_bytes,
            latents_bytes,
            slack_bytes,
        }
    }

    /// Bytes of each part, in the order of [`PeakParts::NAMES`].
    pub fn bytes(&self) -> [u64; 9] {
        [
            self.weights_bytes,
            self.staging_bytes,
            self.activations_bytes,
            self.workspace_bytes,
            self.feature_cache_bytes,
            self.step_cache_bytes,
            self.frames_bytes,
            self.latents_bytes,
            self.slack_bytes,
        ]
    }

    /// The peak of allocated bytes: all parts but slack.
    pub fn allocated_bytes(&self) -> u64 {
        self.reserved_bytes() - self.slack_bytes
    }

    /// The peak of reserved bytes: all parts.
    pub fn reserved_bytes(&self) -> u64 {
        self.bytes().iter().sum()
    }
}
