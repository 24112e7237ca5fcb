//! Which GPUs our own attention in 8 bits has a kernel for. The kernel is in `engine/src/attention/sage`.

use crate::capability::capability_of;
use crate::{AttnType, GpuProfile};

/// The compute capabilities that there is a kernel for: those that are fast with the instructions that it has.
pub const SAGE_CAPABILITIES: [(u32, u32); 5] = [(8, 0), (8, 6), (8, 9), (9, 0), (12, 0)];

/// The most channels of a head.
pub const SAGE_HEAD_SIZE: i64 = 128;

/// Whether there is a kernel for that compute capability.
pub fn has_sage(capability: (u32, u32)) -> bool {
    SAGE_CAPABILITIES.contains(&capability)
}

/// What is said of a GPU that there is no kernel for.
pub fn sage_refusal(attn_type: AttnType, capability: &str) -> String {
    let known: Vec<_> = SAGE_CAPABILITIES.iter().map(|(major, minor)| format!("{major}.{minor}")).collect();
    format!(
        "compute capability {capability} has no attn_type={}: there are kernels for {}; use attn_type=sdpa",
        attn_type.name(),
        known.join(", ")
    )
}

/// How `attn_type=sparge` chooses the tiles of keys that a tile of queries attends to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockChoice {
    /// The share of all that are chosen.
    pub topk: f64,
    /// The likeness of a tile's vectors below which it is not judged by their mean.
    pub similarity: f64,
    /// How far below the largest score, in powers of e, scores are when their values are left out.
    pub pv_threshold: f64,
}

impl BlockChoice {
    /// How many of so many tiles are chosen at least.
    pub fn count(self, tiles: i64) -> i64 {
        ((self.topk * tiles as f64).ceil() as i64).clamp(1, tiles.max(1))
    }
}

impl AttnType {
    /// Whether it is our own kernel.
    pub fn is_in_8_bits(self) -> bool {
        matches!(self, Self::Sage | Self::Sparge)
    }

    /// Whether it is our own kernel, and there is one for `gpu`; one that is not known is a recent one.
    pub fn is_in_8_bits_on(self, gpu: Option<&GpuProfile>) -> bool {
        self.is_in_8_bits() && has_sage(capability_of(gpu))
    }
}
