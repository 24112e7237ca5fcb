//! Which GPUs our own attention in 8 bits has a kernel for, and how it multiplies values there. The kernel is in `engine/src/attention/sage`.

use crate::capability::capability_of;
use crate::{AttnType, GpuProfile};

/// How values are kept and multiplied with their probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SageValues {
    /// In fp16, summed in fp32.
    Fp16,
    /// In FP8 e4m3, each tile summed in fp32 by itself.
    Fp8,
    /// In FP8 e4m3, each tile summed in fp16: twice as fast on GeForce cards.
    Fp8InHalf,
}

/// Each kind of GPU that there is a kernel for. Which does what is as in SageAttention (`sageattention/core.py` of its version 2.2.0).
const KERNELS: [((u32, u32), SageValues); 5] = [
    ((8, 0), SageValues::Fp16),
    ((8, 6), SageValues::Fp16),
    ((8, 9), SageValues::Fp8InHalf),
    ((9, 0), SageValues::Fp8),
    ((12, 0), SageValues::Fp8InHalf),
];

/// The most channels of a head.
pub const SAGE_HEAD_SIZE: i64 = 128;

impl SageValues {
    /// On a GPU of that compute capability. None where there is no kernel.
    pub fn on(capability: (u32, u32)) -> Option<Self> {
        KERNELS.into_iter().find_map(|(known, values)| (known == capability).then_some(values))
    }

    /// On `gpu`; one that is not known is a recent one.
    pub fn of(gpu: Option<&GpuProfile>) -> Option<Self> {
        Self::on(capability_of(gpu))
    }

    /// The compute capabilities that there is a kernel for, each with how values are kept.
    pub fn all() -> impl Iterator<Item = ((u32, u32), Self)> {
        KERNELS.into_iter()
    }

    /// Bytes of a number.
    pub fn bytes(self) -> i64 {
        match self {
            Self::Fp16 => 2,
            Self::Fp8 | Self::Fp8InHalf => 1,
        }
    }

    /// What is said of a GPU that there is no kernel for.
    pub fn refusal(attn_type: AttnType, capability: &str) -> String {
        let known: Vec<_> = KERNELS.iter().map(|((major, minor), _)| format!("{major}.{minor}")).collect();
        format!(
            "compute capability {capability} has no attn_type={}: there are kernels for {}; use attn_type=sdpa",
            attn_type.name(),
            known.join(", ")
        )
    }
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
}
