//! Which attention kernel PyTorch has for a type on a generation of GPUs.

use crate::{AttnType, Config, Dtype, GpuProfile};

/// What becomes of attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionKernel {
    /// It holds a few numbers a row.
    WithoutScores,
    /// It holds the whole score matrix.
    WithScores,
    /// There is none: the first attention fails.
    Missing,
}

impl AttnType {
    /// What PyTorch 2.13 runs for it on `gpu`; on a GPU that is not known what a recent one has. Its flash attention needs compute capability 8.0, and so does
    /// bf16 in its memory-efficient attention (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp: `check_flash_attention_hardware_support`, `check_mem_efficient_hardware_support`
    /// and the types of `can_use_mem_efficient_attention`). Where `sdpa` finds neither it takes the matrix products.
    pub fn kernel(self, dtype: Dtype, gpu: Option<&GpuProfile>) -> AttentionKernel {
        let is_old = gpu.is_some_and(|gpu| generation(gpu) < 8);
        match self {
            Self::Math => AttentionKernel::WithScores,
            Self::Sdpa if is_old && dtype == Dtype::Bf16 => AttentionKernel::WithScores,
            Self::Flash if is_old => AttentionKernel::Missing,
            Self::MemEfficient if is_old && dtype == Dtype::Bf16 => AttentionKernel::Missing,
            Self::Sdpa | Self::Flash | Self::MemEfficient => AttentionKernel::WithoutScores,
        }
    }
}

/// The first number of the compute capability.
fn generation(gpu: &GpuProfile) -> u32 {
    gpu.compute_capability.value.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(u32::MAX)
}

impl Config {
    /// What to change where the attention that is asked for is not there on `gpu`, or only with a score matrix that nobody asked for.
    pub fn attention_advice(&self, gpu: &GpuProfile) -> Option<String> {
        let (of, capability) = (self.attn_type.name(), &gpu.compute_capability.value);
        match self.attn_type.kernel(self.dtype, Some(gpu)) {
            AttentionKernel::WithScores if self.attn_type != AttnType::Math => Some(format!(
                "compute capability {capability} ({}) has no attention for {} without the whole score matrix, which takes much memory and time: use dtype=fp16",
                gpu.name,
                self.dtype.name()
            )),
            AttentionKernel::Missing if self.attn_type == AttnType::Flash => {
                Some(format!("compute capability {capability} ({}) has no attn_type={of}: use attn_type=sdpa with dtype=fp16", gpu.name))
            }
            AttentionKernel::Missing => Some(format!(
                "compute capability {capability} ({}) has no attn_type={of} for {}: use dtype=fp16",
                gpu.name,
                self.dtype.name()
            )),
            AttentionKernel::WithoutScores | AttentionKernel::WithScores => None,
        }
    }
}
